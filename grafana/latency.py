"""The dashboard Latency: how long do answers take, and where does the time go?"""

from typing import Final

from grafana.panels import GREEN, RED, TABLE_LEGEND, TOKENS_A_SECOND, YELLOW, Panel, Row, Target
from grafana.queries import BOTH, MODEL, NODE, increase, quantile, rate, worst
from otel.thresholds import THRESHOLDS

TOO_LATE: Final = "instance:herd_streams_late:ratio_increase"
LATE: Final = 1 - THRESHOLDS["ttft_objective"]
TO_FIRST: Final = f'{NODE}, phase=~"queue|load|prefill"'
ATTEMPT: Final = "herd_upstream_duration_seconds"
QUANTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))


def quantiles(metric: str, selector: str = "", exemplar: bool = False) -> tuple[Target, ...]:
    """The three usual quantiles of a histogram."""
    return tuple(Target(quantile(q, metric, selector), name, exemplar=exemplar) for q, name in QUANTILES)


def mean(metric: str, selector: str = "", of: str = "", less: tuple[str, ...] = ()) -> str:
    """The seconds that a histogram added up, less those of others, over the count of the same one, or of another."""
    seconds = " - ".join(increase(f"{name}_sum", selector) for name in (metric, *less))
    return f"clamp_min({seconds}, 0) / ({increase(f'{of or metric}_count', selector)} > 0)"


WHOLE: Final = Row("Whole requests", (
    Panel("Duration", "From receipt to end, all requests; each point of an exemplar leads to its trace.", "s",
          (Target(increase("herd_request_duration_seconds_bucket", MODEL, "le"), "{{le}}", shape="heatmap",
                  exemplar=True),), "ttftbudgetburn", "heatmap", height=9),
    Panel("Duration, percentiles", "From receipt to end. The points are requests: a click leads to the trace.", "s",
          quantiles("herd_request_duration_seconds", MODEL, exemplar=True), "ttftbudgetburn", height=9),
    Panel("Duration by model, p95", "Streams and whole answers alike.", "s",
          (Target(quantile(0.95, "herd_request_duration_seconds", MODEL, "model"), "{{model}}"),), "ttftbudgetburn",
          legend=TABLE_LEGEND),
    Panel("Duration, streamed or not, p95", "A stream lasts as long as its reader reads.", "s",
          (Target(quantile(0.95, "herd_request_duration_seconds", MODEL, "stream"), "stream: {{stream}}"),),
          "ttftbudgetburn", legend=TABLE_LEGEND),
))  # fmt: skip

FIRST: Final = Row("The first token", (
    Panel("Time to first token", "Streams, from receipt to the first content, queueing and loading included.", "s",
          quantiles("herd_time_to_first_token_seconds", MODEL, exemplar=True), "ttftbudgetburn"),
    Panel("Time to first token by model, p95", "Streams, each model by itself.", "s",
          (Target(quantile(0.95, "herd_time_to_first_token_seconds", MODEL, "model"), "{{model}}"),),
          "ttftbudgetburn", legend=TABLE_LEGEND),
    Panel("Time to first token by node, p95", "Streams, from an attempt's start to its first content: loading and "
          "reading the prompt, without the queue.", "s",
          (Target(quantile(0.95, "herd_upstream_time_to_first_token_seconds", NODE, "node"), "{{node}}"),),
          "ttftbudgetburn", legend=TABLE_LEGEND),
    Panel("Late first tokens", f"Share of streams whose first token took over {THRESHOLDS['ttft_s']:g} s. The line is "
          f"the budget of {LATE:.0%}.", "percentunit",
          tuple(Target(worst(f"{TOO_LATE}{window}"), window) for window in ("5m", "1h", "6h")),
          "ttftbudgetburn", bounds=((None, GREEN), (LATE, YELLOW), (14.4 * LATE, RED))),
    Panel("Predicted against seen", "What routing expected over what came: 1 is right, above it was too careful, below "
          "it too hopeful. Streams of one attempt.", "none", (
          Target(quantile(0.1, "herd_predicted_ttft_error_ratio"), "p10"),
          Target(quantile(0.5, "herd_predicted_ttft_error_ratio"), "p50"),
          Target(quantile(0.9, "herd_predicted_ttft_error_ratio"), "p90"),
          ), "ttftbudgetburn"),
    Panel("Predicted against actual, by node", "Predicted over actual time to first token. A node far below 1 is "
          "slower than routing assumes and gets too many requests.", "none", (
          Target(f"{increase('herd_predicted_seconds_total', TO_FIRST, 'node')} / "
                 f"({increase('herd_actual_seconds_total', TO_FIRST, 'node')} > 0)", "{{node}}"),
          ), "prediction_drift", legend=TABLE_LEGEND),
))  # fmt: skip

TOKENS: Final = Row("The tokens after it", (
    Panel("Time per output token, p50", "Streams, by model: what a reader feels as speed.", "s",
          (Target(quantile(0.5, "herd_time_per_output_token_seconds", MODEL, "model"), "{{model}}"),),
          "ttftbudgetburn", legend=TABLE_LEGEND),
    Panel("Time per output token by node, p50", "Streams: a node that becomes slower for all of its models shows "
          "here.", "s",
          (Target(quantile(0.5, "herd_upstream_time_per_output_token_seconds", NODE, "node"), "{{node}}"),),
          "ttftbudgetburn", legend=TABLE_LEGEND),
    Panel("Tokens a second of one stream, p50", "The same the other way round.", TOKENS_A_SECOND,
          (Target(f"1 / {quantile(0.5, 'herd_time_per_output_token_seconds', MODEL, 'model')}", "{{model}}"),),
          "ttftbudgetburn", legend=TABLE_LEGEND),
    Panel("Output tokens a second of the fleet", "All requests together, by node.", TOKENS_A_SECOND,
          (Target(rate("herd_tokens_total", f'{BOTH}, type="output"', "node"), "{{node}}"),), "usagemissing",
          stack=True),
    Panel("Answers without token counts", "Completed answers whose engine did not count.", "none",
          (Target(increase("herd_usage_missing_total", MODEL, "model"), "{{model}}"),), "usagemissing"),
))  # fmt: skip

WHERE: Final = Row("Where the time goes", (
    Panel("Where does the mean request spend its time?", "The mean wait of the chosen models, then what an attempt on "
          "the chosen nodes consists of, then the router. Prefill and decode are as engines report them; where one "
          "does not, its time is the node's rest.", "s", (
          Target(mean("herd_queue_wait_seconds", MODEL), "queue"),
          Target(mean("herd_model_load_seconds", NODE, ATTEMPT), "cold load"),
          Target(mean("herd_prefill_seconds", NODE, ATTEMPT), "prefill"),
          Target(mean("herd_decode_seconds", NODE, ATTEMPT), "decode"),
          Target(mean(ATTEMPT, NODE, less=("herd_model_load_seconds", "herd_prefill_seconds", "herd_decode_seconds")),
                 "node, the rest"),
          Target(mean("herd_overhead_seconds"), "router"),
          ), "ttftbudgetburn", stack=True, legend=TABLE_LEGEND),
    Panel("Wait for a slot, p95", "By model; a request that got one at once waited 0 s.", "s",
          (Target(quantile(0.95, "herd_queue_wait_seconds", MODEL, "model"), "{{model}}"),), "queuesaturated",
          legend=TABLE_LEGEND),
    Panel("Cold loads", "Loads of over 0.5 s that a request had to wait for.", "none",
          (Target(increase("herd_model_loads_total", BOTH, "node, model"), "{{node}} {{model}}"),), "modelthrashing",
          legend=TABLE_LEGEND),
    Panel("Length of a cold load, p95", "By node: slow disks show here. No line where nothing was loaded.", "s",
          (Target(quantile(0.95, "herd_model_load_seconds", NODE, "node"), "{{node}}"),), "modelthrashing"),
    Panel("Attempts by node, p95", "From the request's first byte to the node to the answer's last.", "s",
          (Target(quantile(0.95, "herd_upstream_duration_seconds", NODE, "node"), "{{node}}"),), "ttftbudgetburn",
          legend=TABLE_LEGEND),
    Panel("Attempts by answer", "By the class of the node's status; `none` is no answer at all.", "reqps",
          (Target(rate("herd_upstream_requests_total", NODE, "code_class"), "{{code_class}}"),), "errorbudgetburn",
          stack=True, legend=TABLE_LEGEND),
    Panel("Herd's own share", "Total less the node's share, less queueing; a slow upload counts here too.", "s",
          quantiles("herd_overhead_seconds"), "routeroverheadhigh",
          bounds=((None, GREEN), (THRESHOLDS["overhead_s"], RED))),
    Panel("Time to decide", "Of one routing decision.", "s", quantiles("herd_routing_decision_duration_seconds"),
          "routeroverheadhigh"),
))  # fmt: skip

REQUESTS: Final = Row("Single requests", (
    Panel("Latest requests", "What Tempo has; a click on the id opens the trace, with the decision and all attempts. "
          "`herd explain` says the same of the request's id.", "none", (
          Target('{resource.service.name="herd" && kind=server && span.herd.status!=nil} | select('
                 "span.herd.request_id, span.herd.status, span.gen_ai.request.model, span.herd.error_type, "
                 "span.herd.retries)", shape="traceql"),
          ), "errorbudgetburn", "table", 24, 10),
))  # fmt: skip

ROWS: Final = (WHOLE, FIRST, TOKENS, WHERE, REQUESTS)
