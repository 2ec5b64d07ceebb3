"""The dashboard Health, the home: is everything well, and if not, what is it?"""

from typing import Final

from grafana.panels import GREEN, RED, TABLE_LEGEND, YELLOW, Column, Panel, Row, Target
from grafana.queries import FROM_CELL, MODEL, NODE, increase, most, of, or_zero, quantile, rate, total, worst
from otel.alerts import BURNS, PACK
from otel.thresholds import THRESHOLDS

BUDGET: Final = 1 - THRESHOLDS["error_objective"]
YES_NO: Final = {"0": ("no", GREEN), "1": ("yes", YELLOW)}
BREAKERS: Final = {"0": ("closed", GREEN), "1": ("half open", YELLOW), "2": ("open", RED)}
FAILED: Final = "instance:herd_requests_failed:ratio_increase"
USED: Final = f'{NODE}, kind="used"'
ALL: Final = f'{NODE}, kind="total"'
MEMORY_USED: Final = f"{total('herd_node_memory_bytes', USED, 'node')} / {total('herd_node_memory_bytes', ALL, 'node')}"
GPU_USED: Final = (
    f"{total('herd_node_gpu_memory_bytes', USED, 'node, gpu')} / "
    f"{total('herd_node_gpu_memory_bytes', ALL, 'node, gpu')}"
)
# An agent and the collector have an `instance` of their own; an alert about a router that was never seen has none.
OURS: Final = f'ALERTS{{alertstate="firing", pack="{PACK}"'
FIRING: Final = f'{OURS}, instance=~"$instance|"}} or {OURS}, alertname=~"Agent.+|Collector.+"}}'

NOW: Final = Row("Now", (
    Panel("Health score", "100 less 20 for each critical finding and 10 for each warning; what `/dashboard/api/health` "
          "says.", "none", (Target(f"min({of('herd_health_score')})"),), "errorbudgetburn", "stat", 3, 4,
          ((None, RED), (60, YELLOW), (90, GREEN)), maximum=100),
    Panel("Alerts", "Alerts of this pack that fire now: the chosen routers', the agents' and the collector's.", "none",
          (Target(or_zero(f"count({FIRING})")),), "alerts", "stat", 3, 4, ((None, GREEN), (1, RED))),
    Panel("Nodes ready", "Nodes that new requests may go to: heartbeats come, the engine answers, no drain, memory "
          "pressure not critical.", "none", (Target(or_zero(total("herd_node_ready", NODE))),),
          "nohealthynode", "stat", 3, 4, ((None, RED), (1, GREEN))),
    Panel("Failed, last 5 min", "Share of requests that failed on our side; what clients got wrong or left does not "
          "count.", "percentunit", (Target(worst(f"{FAILED}5m")),), "errorbudgetburn", "stat", 3, 4,
          ((None, GREEN), (BUDGET, YELLOW), (14.4 * BUDGET, RED))),
    Panel("In flight", "Requests that nodes work on now.", "none",
          (Target(or_zero(total("herd_requests_in_flight", NODE))),), "queuesaturated", "stat", 3, 4),
    Panel("Waiting", "Requests that wait for a slot now.", "none", (Target(or_zero(total("herd_queue_depth", MODEL))),),
          "queuesaturated", "stat", 3, 4, ((None, GREEN), (1, YELLOW), (THRESHOLDS["queue_depth"], RED))),
    Panel("Oldest request", "Age of the oldest request that has not ended; 0 where none runs.", "s",
          (Target(or_zero(f"max(time() - {of('herd_oldest_request_timestamp_seconds')})")),), "requeststuck", "stat",
          3, 4, ((None, GREEN), (300, YELLOW), (THRESHOLDS["stuck_s"], RED))),
    Panel("Router", "Which, its version, and since when its counters run.", "s",
          (Target(f"(time() - {of('herd_start_time_seconds')}) * on (instance) group_left (version) "
                  f"{of('herd_build_info')}", "{{instance}} {{version}}"),),
          "routerdown", "stat", 3, 4),
))  # fmt: skip

FINDINGS: Final = Row("What needs a look", (
    Panel("Findings", "What the health checks find, by check; the page's Health section says what to do about each.",
          "none", (Target(total("herd_health_findings", by="check_id, severity"), instant=True, shape="table"),),
          "alerts", "table", 12, 8,
          columns={"check_id": Column("Check"), "severity": Column("Severity", words={
              "critical": ("critical", RED), "warning": ("warning", YELLOW)}), "Value": Column("Findings")},
          sort_by="Findings"),
    Panel("Findings over time", "Findings by severity.", "none",
          (Target(total("herd_health_findings", by="severity"), "{{severity}}"),), "alerts", stack=True),
    Panel("Failed requests", "Share that failed on our side, of the worst router that is chosen. The line is the "
          f"budget of {BUDGET:.0%}.", "percentunit",
          tuple(Target(worst(f"{FAILED}{window}"), window) for window in ("5m", "1h", "6h")),
          "errorbudgetburn", bounds=((None, GREEN), (BUDGET, YELLOW))),
    Panel("Burn rate", "How many times as fast as it may the error budget burns; an alert needs both windows of a pair "
          f"over its factor: {', '.join(f'{factor:g} over {long}' for factor, long, *_ in BURNS)}.", "none",
          tuple(Target(f"{worst(f'{FAILED}{long}')} / {BUDGET:.4g}", long) for _, long, *_ in BURNS),
          "errorbudgetburn", bounds=((None, GREEN), (1, YELLOW), (14.4, RED))),
    Panel("Errors by type", "Requests that ended with an error, by what went wrong.", "reqps",
          (Target(rate("herd_request_errors_total", NODE, "error_type"), "{{error_type}}"),), "errorbudgetburn",
          legend=TABLE_LEGEND),
    Panel("Endings", "Requests by how they ended.", "reqps",
          (Target(rate("herd_requests_finished_total", by="status"), "{{status}}"),), "errorbudgetburn", stack=True,
          legend=TABLE_LEGEND),
))  # fmt: skip

NODES: Final = Row("The nodes", (
    Panel("Nodes", "Every node that was heard of and not forgotten; one that `takes none` is there, but not fit for "
          "new requests. A name leads to its latencies.", "none", (
          Target(most("herd_node_info", NODE, "node, version, engine, engine_version"), instant=True,
                 shape="table"),
          Target(f"{most('herd_node_up', NODE, 'node')} + {most('herd_node_ready', NODE, 'node')} - "
                 f"2 * {most('herd_node_left', NODE, 'node')}", instant=True, shape="table"),
          Target(most("herd_node_draining", NODE, "node"), instant=True, shape="table"),
          Target(most("herd_breaker_state", NODE, "node"), instant=True, shape="table"),
          Target(total("herd_requests_in_flight", NODE, "node"), instant=True, shape="table"),
          Target(total("herd_models_loaded", NODE, "node"), instant=True, shape="table"),
          Target(MEMORY_USED, instant=True, shape="table"),
          Target(f"time() - {most('herd_node_last_seen_timestamp_seconds', NODE, 'node')}", instant=True,
                 shape="table"),
          ), "nodedown", "table", 24, 8,
          columns={
              "node": Column("Node", link=f"/d/herd-latency?var-node={FROM_CELL}"),
              "Value #B": Column("Status", words={
                  "2": ("ready", GREEN), "1": ("takes none", YELLOW), "0": ("gone", RED), "-2": ("left", "gray")}),
              "Value #C": Column("Draining", words=YES_NO), "Value #D": Column("Breaker", words=BREAKERS),
              "Value #E": Column("In flight"), "Value #F": Column("Models loaded"),
              "Value #G": Column("Memory", "percentunit"), "Value #H": Column("Last heard", "s"),
              "version": Column("Agent"), "engine": Column("Engine"), "engine_version": Column("Engine version")},
          hidden=("Value #A",), sort_by="In flight"),
    Panel("Up", "When each node was there.", "none", (Target(most("herd_node_up", NODE, "node"), "{{node}}"),),
          "nodeflapping", "state-timeline", words={"1": ("up", GREEN), "0": ("gone", RED)}),
    Panel("Breakers", "A breaker opens when a model's attempts on a node fail one after another; others are tried "
          "then.", "none", (Target(most("herd_breaker_state", NODE, "node"), "{{node}}"),), "errorbudgetburn",
          "state-timeline", words=BREAKERS),
    Panel("Memory in use", "Share of main memory.", "percentunit", (
          Target(MEMORY_USED, "{{node}}"),
          ), "modelthrashing", bounds=((None, GREEN), (0.85, YELLOW), (0.95, RED)), maximum=1),
    Panel("Memory pressure", "As the node's system sees it: 0 normal, 1 warn, 2 critical (no new requests go there).",
          "none", (Target(most("herd_node_memory_pressure", NODE, "node"), "{{node}}"),), "modelthrashing",
          "state-timeline", words={"0": ("normal", GREEN), "1": ("warn", YELLOW), "2": ("critical", RED)}),
    Panel("GPU memory in use", "Share of each accelerator's memory.", "percentunit", (
          Target(GPU_USED, "{{node}} {{gpu}}"),
          ), "modelthrashing", maximum=1),
    Panel("Utilisation", "Share of processor and accelerators at work.", "percentunit", (
          Target(most("herd_node_cpu_ratio", NODE, "node"), "{{node}} processor"),
          Target(most("herd_node_gpu_utilization_ratio", NODE, "node, gpu"), "{{node}} GPU {{gpu}}"),
          ), "ttftbudgetburn", maximum=1),
    Panel("Disk free", "On the disk that holds the models.", "bytes",
          (Target(f"min by (node) ({of('herd_node_disk_free_bytes', NODE)})", "{{node}}"),), "disklow",
          bounds=((None, RED), (THRESHOLDS["disk_bytes"], GREEN))),
    Panel("Breakers that opened", "Times that a breaker opened or closed.", "none",
          (Target(increase("herd_breaker_transitions_total", NODE, "node, to"), "{{node}} {{to}}"),),
          "errorbudgetburn"),
))  # fmt: skip

AGENTS: Final = Row("The agents that serve their own metrics", (
    Panel("Heartbeats that were not taken", "Refused, not delivered, or without a router to send them to; from agents "
          "with `--metrics-bind`, empty without any.", "none", (
          Target(increase("herd_agent_heartbeats_total", f'{NODE}, outcome!="accepted"', "node, outcome"),
                 "{{node}} {{outcome}}"),
          ), "agentdown"),
    Panel("Looks at the engine, p95", "How long an engine takes to say what it holds; from agents with "
          "`--metrics-bind`, empty without any.", "s", (
          Target(quantile(0.95, "herd_agent_engine_look_duration_seconds", NODE, "node"), "{{node}}"),
          ), "node_degraded"),
))  # fmt: skip

WAYS_OUT: Final = Row("Second chances and refusals", (
    Panel("Retries", "Attempts that were followed by another, by why they failed; requests that failed all the same; "
          "and requests that were not tried again because too many others were, by why they failed.", "reqps", (
          Target(rate("herd_retries_total", by="reason"), "retried: {{reason}}"),
          Target(rate("herd_retries_exhausted_total"), "failed all the same"),
          Target(rate("herd_retry_budget_exhausted_total", by="reason"), "budget spent: {{reason}}"),
          ), "errorbudgetburn", legend=TABLE_LEGEND),
    Panel("Fallbacks, context protection, reaped requests", "Answers by another model, num_ctx that would have made a "
          "node reload, and requests ended because nothing moved.", "reqps", (
          Target(or_zero(rate("herd_fallbacks_total")), "fallbacks"),
          Target(rate("herd_context_protection_total", by="action"), "num_ctx {{action}}"),
          Target(rate("herd_zombies_reaped_total", NODE), "reaped"),
          ), "requeststuck", legend=TABLE_LEGEND),
    Panel("Queue", "Requests that wait for a slot, by model.", "none",
          (Target(total("herd_queue_depth", MODEL, "model"), "{{model}}"),), "queuesaturated", stack=True),
    Panel("Refused by the queue", "Full (429), or waited too long (503).", "reqps",
          (Target(rate("herd_queue_rejected_total", by="reason"), "{{reason}}"),), "queuerejecting"),
))  # fmt: skip

ROUTER: Final = Row("The router and its records", (
    Panel("Event-loop lag", "How late a 10 ms timer comes: every stream stands still for so long.", "s", (
          Target(quantile(0.5, "herd_event_loop_lag_seconds"), "p50"),
          Target(quantile(0.99, "herd_event_loop_lag_seconds"), "p99"),
          ), "eventloopstalled", bounds=((None, GREEN), (0.1, RED))),
    Panel("Event-loop stalls", "Times that it came over 0.1 s late.", "none",
          (Target(increase("herd_event_loop_stalls_total"), "stalls"),), "eventloopstalled"),
    Panel("Records lost", "Log lines, spans and rows that were dropped, events that a sink raised on, and names beyond "
          "the cap. All of it should be 0.", "none", (
          Target(increase("herd_log_dropped_total"), "log lines"),
          Target(increase("herd_spans_dropped_total"), "spans"),
          Target(increase("herd_trace_rows_total", 'outcome=~"dropped|failed"'), "rows"),
          Target(increase("herd_sink_failures_total"), "events"),
          Target(increase("herd_label_overflow_total", 'label!="tag"', "label"), "{{label}} names"),
          ), "telemetrydropping"),
    Panel("Records written", "Rows, log lines and spans a second.", "ops", (
          Target(rate("herd_trace_rows_total", 'outcome="written"'), "rows"),
          Target(rate("herd_log_lines_total", by="level"), "lines {{level}}"),
          Target(rate("herd_spans_exported_total"), "spans"),
          ), "tracestoredown"),
    Panel("Trace store", "Whether rows can be written at this moment.", "none",
          (Target(of("herd_trace_store_up"), "{{instance}}"),), "tracestoredown", "state-timeline", 8, 6,
          words={"1": ("writes", GREEN), "0": ("cannot write", RED)}),
    Panel("Commits", "How long one commit of the trace store takes.", "s", (
          Target(quantile(0.5, "herd_trace_store_commit_seconds"), "p50"),
          Target(quantile(0.99, "herd_trace_store_commit_seconds"), "p99"),
          ), "tracestoredown", width=8, height=6),
    Panel("Database", "Bytes on disk, the write-ahead log included.", "bytes",
          (Target(of("herd_trace_store_bytes"), "{{instance}}"),), "tracestoredown", width=8, height=6),
))  # fmt: skip

ROWS: Final = (NOW, FINDINGS, NODES, AGENTS, WAYS_OUT, ROUTER)
