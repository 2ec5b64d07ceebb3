"""The alerts, as a table: one entry an alert and cause; `build.py` writes them as YAML.

Names of metrics are checked against herd's catalog by the tests. Every ratio has a guard of least traffic and of least
failures, so that a bad minute at night wakes nobody; counts are differences of the counter itself, since `increase()`
extrapolates and makes 5.18 of 5. `speed` runs the same rules on shorter windows, for tests against real faults.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from otel.thresholds import THRESHOLDS, Span, faster

PACK: Final = "herd"  # every alert's label `pack`, which tells them from others in the same Prometheus
PAGE: Final = "/dashboard/runbook"
# The router's own page; where the alert is not about one router, that of any router that answers.
OF_ROUTER: Final = "{{ $labels.instance }}"
OF_ANY: Final = (
    '{{ with query `up{job="herd"} == 1` }}{{ . | first | label `instance` }}{{ else }}127.0.0.1:11435{{ end }}'
)
# Multi-window burn rates of a 30-day budget: factor, long window, short window, how long, how bad. They are those of
# the Site Reliability Workbook, chapter 5: 2, 5, 10 and 10 % of the budget spent within the long window.
BURNS: Final = (
    (14.4, "1h", "5m", "2m", "critical"),
    (6.0, "6h", "30m", "15m", "critical"),
    (3.0, "1d", "2h", "1h", "warning"),
    (1.0, "3d", "6h", "3h", "warning"),
)
TAKES_NONE: Final = "herd_node_up == 1 and herd_node_ready == 0 unless herd_node_draining == 1"


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert: its expression, how long it must hold, how bad it is, and what it says.

    `labels` tell alerts of one name apart; `of_router` is False where `instance` is not the router that it is about.
    """

    name: str
    expr: str
    hold: str
    severity: str
    summary: str
    text: str
    labels: Mapping[str, str] = field(default_factory=dict)
    of_router: bool = True

    @property
    def description(self) -> str:
        """The text, and which router says so."""
        return f"{self.text} Router: {OF_ROUTER}." if self.of_router else self.text

    @property
    def runbook(self) -> str:
        """Where it is explained."""
        return f"http://{OF_ROUTER if self.of_router else OF_ANY}{PAGE}#{self.name.lower()}"


def alerts(thresholds: Mapping[str, float] = THRESHOLDS, speed: float = 1) -> list[Alert]:
    """Every alert, in the order in which an operator would want to read them."""
    span = faster(speed)
    return [
        *_promises(thresholds, span),
        *_of_nodes(thresholds, span),
        *_of_models(thresholds, span),
        *_of_requests(thresholds, span),
        *_of_the_router(thresholds, span),
        *_of_the_records(span),
    ]


def grown(metric: str, window: str, by: str) -> str:
    """How much a counter has grown since the window's first sample: whole numbers, where `increase` extrapolates."""
    return f"sum by ({by}) ({metric} - min_over_time({metric}[{window}]))"


def away(span: Span) -> str:
    """Nodes that are missed: gone without leaving, and not away at this hour of the day before, as a laptop at night.

    One that has been gone for a whole day is missed in any case.
    """
    hour, day, before = span("1h"), span("1d"), span("84600s")
    usual = f"min_over_time(herd_node_up[{hour}] offset {before}) == 0 and max_over_time(herd_node_up[{day}]) == 1"
    return f"herd_node_up == 0 unless herd_node_left == 1 unless ({usual})"


def _promises(t: Mapping[str, float], span: Span) -> list[Alert]:
    return [
        Alert("RouterDown", 'up{job="herd"} == 0 or absent(up{job="herd"})', span("1m"), "critical",
              "The router does not answer",
              'Prometheus cannot scrape {{ or $labels.instance "any router: its job `herd` has no target" }}. '
              "`herd docs runbook` prints what to do.", of_router=False),
        Alert("RouterRestarting", f"changes(herd_start_time_seconds[{span('30m')}]) >= {t['restarts']:g}", "0m",
              "critical", "The router restarts again and again",
              "It has started {{ $value }} times within half an hour; each start cuts off what was running."),
        *_burn("ErrorBudgetBurn", "failed", "judged", t["error_objective"], "Requests fail", t, span),
        *_burn("TTFTBudgetBurn", "streams_late", "streams", t["ttft_objective"], "First tokens come late", t, span),
    ]  # fmt: skip


def _burn(
    name: str, bad: str, total: str, objective: float, what: str, t: Mapping[str, float], span: Span
) -> list[Alert]:
    """The four alerts of one objective, all under one name."""
    bad, total = (each if each.startswith("streams") else f"requests_{each}" for each in (bad, total))
    ratio, count, failures = f"{bad}:ratio_increase", f"{total}:increase", f"{bad}:increase"
    found = []
    for factor, long, short, hold, severity in BURNS:
        bound = f"{factor:g} * {1 - objective:.4g}"
        found.append(
            Alert(
                name,
                f"instance:herd_{ratio}{long} > {bound} and instance:herd_{ratio}{short} > {bound} "
                f"and instance:herd_{count}{long} >= {t['least_requests']:g} "
                f"and instance:herd_{failures}{long} >= {t['least_failures']:g}",
                span(hold),
                severity,
                f"{what}: the error budget burns over {factor:g} times as fast as it may",
                f"{{{{ $value | humanizePercentage }}}} over {long}, where {1 - objective:.2%} is the budget.",
                {"window": long},
            )
        )
    return found


def _of_nodes(t: Mapping[str, float], span: Span) -> list[Alert]:
    return [
        Alert("NoHealthyNode",
              f"sum by (instance) (herd_node_ready) == 0 and on (instance) ({away(span)} or ({TAKES_NONE})) "
              'or max by (instance) (up{job="herd"}) - 1 == 0 unless on (instance) herd_node_up',
              span("1m"), "critical",
              "No node can take requests",
              "Nodes are gone or not fit for requests, or none has ever joined; `herd status` says which."),
        Alert("NodeDown", away(span), span("2m"), "warning",
              "Node {{ $labels.node }} is gone", "Its heartbeats ended, and it did not leave in order."),
        Alert("NodeNotReady", f"{TAKES_NONE} unless herd_node_memory_pressure == 2", span("5m"), "warning",
              "Node {{ $labels.node }} takes no requests: its engine does not answer",
              "Heartbeats come, nobody drained it, and its memory is not short: the engine is down or hangs.",
              {"cause": "engine"}),
        Alert("NodeNotReady", f"{TAKES_NONE} and herd_node_memory_pressure == 2", span("5m"), "warning",
              "Node {{ $labels.node }} takes no requests: its memory is short",
              "Heartbeats come, and its system reports critical memory pressure.", {"cause": "memory"}),
        Alert("BreakerOpen", "herd_breaker_state > 0 and herd_node_ready == 1", span("10m"), "warning",
              "A model keeps failing on {{ $labels.node }}",
              "A breaker there has not closed for ten minutes: `herd traces --status failed` names the model."),
        Alert("AgentDown", 'up{job="herd-agents"} == 0 unless on (node) herd_node_up == 0', span("2m"), "warning",
              "The agent of {{ $labels.node }} does not answer",
              "Prometheus cannot scrape its metrics at {{ $labels.instance }}.", of_router=False),
        Alert("NodeFlapping",
              f"changes(herd_node_up[{span('1h')}]) - on (instance) group_left () "
              f"(2 * max by (instance) (changes(herd_start_time_seconds[{span('1h')}]))) >= {2 * t['flaps']:g}",
              "0m", "warning",
              "Node {{ $labels.node }} comes and goes",
              "It came or went {{ $value }} times within an hour, the router's own restarts left out."),
        Alert("DiskLow", f"herd_node_disk_free_bytes < {t['disk_bytes']:g}", span("5m"), "warning",
              "The disk of {{ $labels.node }} is nearly full", "{{ $value | humanize1024 }}B are left for models."),
    ]  # fmt: skip


def _of_models(t: Mapping[str, float], span: Span) -> list[Alert]:
    half = span("30m")
    loads = grown("herd_model_loads_total", half, "instance, node, model")
    often = f"{loads} > {t['thrashing_loads']:g}"
    others = (
        f"{loads} * 1.5 <= on (instance, node) group_left () {grown('herd_model_loads_total', half, 'instance, node')}"
    )
    failing = "instance_model:herd_requests_failed"
    return [
        Alert("ModelFailing",
              f"{failing}:ratio_increase6h > {t['model_failing_ratio']:g} and "
              f"{failing}:ratio_increase1h > {1 - t['error_objective']:.4g} and "
              f"{failing}:increase6h >= {t['least_failures']:g}", span("5m"), "warning",
              "Requests for {{ $labels.model }} fail", "{{ $value | humanizePercentage }} of them over 6h."),
        Alert("ModelThrashing", f"{often} and ({others})", "0m", "warning",
              "{{ $labels.model }} is loaded again and again on {{ $labels.node }}",
              "{{ $value }} cold loads in half an hour, and other models were loaded there in turn: they push each "
              "other out of memory.", {"cause": "eviction"}),
        Alert("ModelThrashing", f"{often} unless ({others})", "0m", "warning",
              "{{ $labels.model }} is loaded again and again on {{ $labels.node }}",
              "{{ $value }} cold loads in half an hour, and hardly any of another model there: requests that differ in "
              "num_ctx, or a short keep_alive, have it loaded again.", {"cause": "reload"}),
    ]  # fmt: skip


def _of_requests(t: Mapping[str, float], span: Span) -> list[Alert]:
    waits, quarter, le = "herd_queue_wait_seconds", span("15m"), float(t["queue_wait_s"])
    waited = f"sum by (instance, model) (increase({waits}_count[{quarter}]))"
    in_time = f'sum by (instance, model) (increase({waits}_bucket{{le="{le}"}}[{quarter}]))'
    return [
        Alert("QueueSaturated", f"herd_queue_depth > {t['queue_depth']:g}", span("5m"), "warning",
              "Requests queue for {{ $labels.model }}", "{{ $value }} wait for a slot, for five minutes now."),
        Alert("QueueWaitHigh",
              f"histogram_quantile(0.95, sum by (instance, model, le) (rate({waits}_bucket[{quarter}]))) > "
              f"{t['queue_wait_s']:g} and {waited} - {in_time} >= {t['least_failures']:g}", span("10m"), "warning",
              "Requests for {{ $labels.model }} wait long for a slot",
              "{{ $value | humanizeDuration }} at p95, over a quarter of an hour."),
        Alert("QueueRejecting",
              f"{grown('herd_queue_rejected_total', span('5m'), 'instance, reason')} > {t['rejections']:g}",
              span("2m"), "critical",
              "Requests are refused ({{ $labels.reason }})", "{{ $value }} in five minutes."),
        Alert("RequestStuck", f"time() - herd_oldest_request_timestamp_seconds > {t['stuck_s']:g}", span("1m"),
              "warning", "A request does not end", "The oldest one is {{ $value | humanizeDuration }} old."),
        Alert("UsageMissing",
              f"sum by (instance, model) (increase(herd_usage_missing_total[{span('1h')}])) / "
              f'(sum by (instance, model) (increase(herd_requests_total{{status="completed"}}[{span("1h")}])) '
              f"> {t['least_requests']:g}) > {t['usage_missing_ratio']:g}", span("15m"), "warning",
              "Answers of {{ $labels.model }} carry no token counts", "{{ $value | humanizePercentage }} of them."),
    ]  # fmt: skip


def _of_the_router(t: Mapping[str, float], span: Span) -> list[Alert]:
    return [
        Alert("RouterOverheadHigh",
              f"histogram_quantile(0.95, sum by (instance, le) (rate(herd_overhead_seconds_bucket[{span('5m')}]))) > "
              f"{t['overhead_s']:g} and sum by (instance) (rate(herd_overhead_seconds_count[{span('5m')}])) > "
              f"{t['overhead_least_rps']:g}", span("10m"), "warning",
              "The router itself is slow", "Its own share of a request is {{ $value | humanizeDuration }} at p95."),
        Alert("EventLoopStalled",
              f"{grown('herd_event_loop_stalls_total', span('5m'), 'instance')} > {t['stalls']:g}", "0m",
              "warning", "The router's event loop stalls",
              "{{ $value }} times in five minutes every stream stood still for over 0.1 s."),
    ]  # fmt: skip


def _of_the_records(span: Span) -> list[Alert]:
    ten = span("10m")
    return [
        Alert("TelemetryDropping",
              f"increase(herd_log_dropped_total[{ten}]) + increase(herd_spans_dropped_total[{ten}]) + "
              f"increase(herd_sink_failures_total[{ten}]) > 0", "0m", "warning",
              "Records are lost", "{{ $value | humanize }} log lines or spans in ten minutes."),
        Alert("TraceStoreDown",
              f'herd_trace_store_up == 0 or increase(herd_trace_rows_total{{outcome=~"dropped|failed"}}[{ten}]) > 0',
              span("1m"), "critical",
              "Rows are not written", "The database is full, locked or gone; requests go on."),
        Alert("CollectorDown", 'up{job="otel-collector"} == 0', span("2m"), "warning",
              "The collector does not answer",
              "Prometheus cannot scrape {{ $labels.instance }}; spans are lost meanwhile, and nothing else.",
              of_router=False),
        Alert("CollectorFailing",
              "sum by (instance, exporter) "
              f'(increase(otelcol_exporter_send_failed_spans_total{{job="otel-collector"}}[{ten}])) > 0', "0m",
              "warning", "The collector cannot hand spans on to {{ $labels.exporter }}",
              "{{ $labels.instance }} gave up {{ $value | humanize }} in ten minutes.", of_router=False),
        # Tags beyond the setting metric_tags are counted together by design: whoever switched it on chose that.
        Alert("LabelOverflow", f'increase(herd_label_overflow_total{{label!="tag"}}[{span("1h")}]) > 0', "0m",
              "warning", "Too many {{ $labels.label }} names", "What is beyond the cap is counted as `_unknown`."),
    ]  # fmt: skip
