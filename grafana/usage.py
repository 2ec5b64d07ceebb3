"""The dashboard Usage: who asks for what, which nodes answer, and what room is left?"""

from typing import Final

from grafana.panels import TABLE_LEGEND, TOKENS_A_SECOND, Column, Panel, Row, Target
from grafana.queries import BOTH, FROM_CELL, MODEL, NODE, RANGE, increase, or_zero, quantile, rate, total

COMPLETED: Final = f'{MODEL}, status="completed"'

REQUESTS: Final = Row("Requests and tokens", (
    Panel("Requests", "In the range shown.", "none",
          (Target(increase("herd_requests_total", MODEL, over=RANGE), instant=True),), "errorbudgetburn", "stat", 4, 4),
    Panel("Completed", "Share of the requests in the range shown.", "percentunit",
          (Target(f"{increase('herd_requests_total', COMPLETED, over=RANGE)} / "
                  f"{increase('herd_requests_total', MODEL, over=RANGE)}", instant=True),), "errorbudgetburn", "stat",
          4, 4),
    Panel("Input tokens", "In the range shown; those from a cache are among them.", "short",
          (Target(increase("herd_tokens_total", f'{BOTH}, type="input"', over=RANGE), instant=True),), "usagemissing",
          "stat", 4, 4),
    Panel("Output tokens", "In the range shown; reasoning is among them.", "short",
          (Target(increase("herd_tokens_total", f'{BOTH}, type="output"', over=RANGE), instant=True),), "usagemissing",
          "stat", 4, 4),
    Panel("Models loaded", "In the memory of all nodes.", "none",
          (Target(or_zero(total("herd_models_loaded", NODE))),), "modelthrashing", "stat", 4, 4),
    Panel("Cold loads", "In the range shown.", "none",
          (Target(increase("herd_model_loads_total", BOTH, over=RANGE), instant=True),), "modelthrashing", "stat", 4,
          4),
    Panel("Requests by model", "By the model that answered or was asked for; `_unknown` is one that no node has.",
          "reqps", (Target(rate("herd_requests_total", MODEL, "model"), "{{model}}"),), "errorbudgetburn", stack=True,
          legend=TABLE_LEGEND),
    Panel("Requests by endpoint", "Which dialects clients speak.", "reqps",
          (Target(rate("herd_requests_total", MODEL, "endpoint"), "{{endpoint}}"),), "errorbudgetburn", stack=True,
          legend=TABLE_LEGEND),
    Panel("Requests by status", "How they ended.", "reqps",
          (Target(rate("herd_requests_total", MODEL, "status"), "{{status}}"),), "errorbudgetburn", stack=True,
          legend=TABLE_LEGEND),
    Panel("Tokens by kind", "Tokens a second; output includes reasoning, input includes what came from a cache.",
          TOKENS_A_SECOND, (Target(rate("herd_tokens_total", BOTH, "type"), "{{type}}"),), "usagemissing",
          legend=TABLE_LEGEND),
))  # fmt: skip

TOP: Final = Row("Models", (
    Panel("Top models", "In the range shown: requests, tokens, and cold loads.", "none", (
          Target(f"sort_desc({increase('herd_requests_total', MODEL, 'model', RANGE)})", instant=True, shape="table"),
          Target(increase("herd_tokens_total", f'{BOTH}, type="input"', "model", RANGE), instant=True, shape="table"),
          Target(increase("herd_tokens_total", f'{BOTH}, type="output"', "model", RANGE), instant=True, shape="table"),
          Target(increase("herd_model_loads_total", BOTH, "model", RANGE), instant=True, shape="table"),
          ), "modelthrashing", "table", 14, 9,
          columns={"model": Column("Model", link=f"/d/herd-latency?var-model={FROM_CELL}"),
                   "Value #A": Column("Requests", "short"), "Value #B": Column("Input tokens", "short"),
                   "Value #C": Column("Output tokens", "short"), "Value #D": Column("Cold loads", "short")},
          sort_by="Requests"),
    Panel("Fallbacks", "In the range shown: asked for one model, answered by another. Empty where there was none.",
          "none", (Target(increase("herd_fallbacks_total", by="from_model, to_model, reason", over=RANGE),
                          instant=True, shape="table"),), "errorbudgetburn", "table", 10, 9,
          columns={"from_model": Column("Asked for"), "to_model": Column("Answered by"), "reason": Column("Why"),
                   "Value": Column("Requests", "short")}, sort_by="Requests"),
))  # fmt: skip

SHARE: Final = Row("Nodes and decisions", (
    Panel("Share of nodes", "Attempts by node in the range shown.", "none",
          (Target(increase("herd_routing_decisions_total", NODE, "node", RANGE), "{{node}}", instant=True),),
          "nodedown", "piechart", 8),
    Panel("Attempts by node", "Where requests went, retries included.", "reqps",
          (Target(rate("herd_routing_decisions_total", NODE, "node"), "{{node}}"),), "nodedown", width=8, stack=True),
    Panel("Decisions by reason", "Why the node was taken.", "reqps",
          (Target(rate("herd_routing_decisions_total", NODE, "reason"), "{{reason}}"),), "modelthrashing", width=8,
          stack=True),
    Panel("Nodes left out", "Why nodes were no candidates, counted for each decision.", "ops",
          (Target(rate("herd_candidates_rejected_total", by="reason"), "{{reason}}"),), "nodedown",
          legend=TABLE_LEGEND),
    Panel("Signals of the winner, p50", "Predicted seconds of the chosen node, by signal; what decides shows here.",
          "s",
          (Target(quantile(0.5, "herd_signal_seconds", by="signal"), "{{signal}}"),), "modelthrashing",
          legend=TABLE_LEGEND),
))  # fmt: skip

TAGS: Final = Row("Tags, where the setting metric_tags is on", (
    Panel("Requests by tag", "Of the tags that are counted; the setting metric_tags says how many may be. "
          "A request with two tags is in both.", "reqps",
          (Target(rate("herd_tag_requests_total", by="tag"), "{{tag}}"),), "labeloverflow",
          legend=TABLE_LEGEND),
    Panel("Tokens by tag", "Tokens a second, input and output.", TOKENS_A_SECOND,
          (Target(rate("herd_tag_tokens_total", by="tag, type"), "{{tag}} {{type}}"),), "labeloverflow",
          legend=TABLE_LEGEND),
))  # fmt: skip

CAPACITY: Final = Row("Room", (
    Panel("Video memory by node and model", "What each loaded model takes.", "bytes",
          (Target(total("herd_model_vram_bytes", BOTH, "node, model"), "{{node}} {{model}}"),), "modelthrashing",
          stack=True, legend=TABLE_LEGEND),
    Panel("Accelerator memory", "Used and there, by node.", "bytes",
          (Target(total("herd_node_gpu_memory_bytes", NODE, "node, kind"), "{{node}} {{kind}}"),), "modelthrashing"),
    Panel("Main memory available", "What is left on each node, before it swaps.", "bytes",
          (Target(total("herd_node_memory_bytes", f'{NODE}, kind="available"', "node"), "{{node}}"),),
          "modelthrashing"),
    Panel("In flight by node", "Requests that each node works on.", "none",
          (Target(total("herd_requests_in_flight", NODE, "node"), "{{node}}"),), "queuesaturated", stack=True),
))  # fmt: skip

ROWS: Final = (REQUESTS, TOP, SHARE, TAGS, CAPACITY)
