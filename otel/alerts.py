"""The alerts and recording rules, as tables: one threshold table, one entry an alert; `build.py` writes them as YAML.

Names of metrics are checked against herd's catalog by the tests. Every ratio has a guard of least traffic, so that one
failed request at night wakes nobody. `speed` runs the same rules on shorter windows, for tests against real faults.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

PACK: Final = "herd"  # every alert's label `pack`, which tells them from others in the same Prometheus
RUNBOOK: Final = "https://github.com/geeks-accelerator/ollama-herd/blob/main/docs/runbook.md"
NOT_HERDS_FAULT: Final = "bad_request|unauthorized|model_missing|upstream_4xx|cancelled"
UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
SHORTEST_S: Final = 5  # a window needs a few samples, however fast a test runs
WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")

THRESHOLDS: Final[Mapping[str, float]] = {
    "error_objective": 0.99,  # share of requests that must not fail on our side
    "ttft_objective": 0.95,  # share of streams whose first token comes in time
    "ttft_s": 10,  # in time: a bound of the histogram's buckets
    "least_requests": 20,  # in the longer window, or a ratio says nothing
    "flaps": 3,  # times down and up again in an hour
    "queue_depth": 20,
    "rejections": 5,  # in five minutes; clients that retry get over fewer by themselves
    "thrashing_loads": 6,  # cold loads of one model on one node in half an hour
    "stuck_s": 900,
    "overhead_s": 0.05,
    "overhead_least_rps": 0.1,
    "stalls": 10,  # times in five minutes that the event loop came over 0.1 s late
    "disk_bytes": 10 * 2**30,
    "usage_missing_ratio": 0.1,
}
# Multi-window burn rates of a 30-day budget: factor, long window, short window, how long, how bad. They are those of
# the Site Reliability Workbook, chapter 5: 2, 5, 10 and 10 % of the budget spent within the long window.
BURNS: Final = (
    (14.4, "1h", "5m", "2m", "critical"),
    (6.0, "6h", "30m", "15m", "critical"),
    (3.0, "1d", "2h", "1h", "warning"),
    (1.0, "3d", "6h", "3h", "warning"),
)
Span = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording rule."""

    record: str
    expr: str


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert: its expression, how long it must hold, how bad it is, and what it says."""

    name: str
    expr: str
    hold: str
    severity: str
    summary: str
    description: str
    window: str = ""

    @property
    def runbook(self) -> str:
        """Where it is explained."""
        return f"{RUNBOOK}#{self.name.lower()}"


def seconds(span: str) -> int:
    """Seconds of a duration such as `5m`."""
    return int(span[:-1]) * UNITS[span[-1]]


def faster(speed: float) -> Span:
    """A function that shortens durations by `speed`; 1 leaves them as they are."""

    def shortened(span: str) -> str:
        return span if speed == 1 or span == "0m" else f"{max(SHORTEST_S, round(seconds(span) / speed))}s"

    return shortened


def recordings(thresholds: Mapping[str, float] = THRESHOLDS, speed: float = 1) -> list[Recording]:
    """Ratios over every window that the burn rates look at, and the counts that guard them, one for each router.

    What a client asked wrong or left is neither good nor bad; a refusal for want of room is bad.
    """
    span, rules = faster(speed), []
    for window in WINDOWS:
        over = f"[{span(window)}]"
        bad = f'sum by (instance) (increase(herd_request_errors_total{{error_type!~"{NOT_HERDS_FAULT}"}}{over}))'
        good = f'sum by (instance) (increase(herd_requests_finished_total{{status="completed"}}{over}))'
        total = f"({good} + {bad})"
        streams = f"sum by (instance) (increase(herd_time_to_first_token_seconds_count{over}))"
        bound = f'le="{float(thresholds["ttft_s"])}"'
        in_time = f"sum by (instance) (increase(herd_time_to_first_token_seconds_bucket{{{bound}}}{over}))"
        rules += [
            Recording(f"herd:requests:increase{window}", total),
            Recording(f"herd:error_ratio:ratio{window}", f"{bad} / ({total} > 0) or 0 * {total}"),
            Recording(f"herd:streams:increase{window}", f"{streams} or 0 * {total}"),
            Recording(f"herd:ttft_late_ratio:ratio{window}", f"1 - {in_time} / ({streams} > 0) or 0 * {total}"),
        ]
    return rules


def alerts(thresholds: Mapping[str, float] = THRESHOLDS, speed: float = 1) -> list[Alert]:
    """Every alert, in the order in which an operator would want to read them."""
    span = faster(speed)
    return [
        *_promises(thresholds, span),
        *_of_nodes(thresholds, span),
        *_of_requests(thresholds, span),
        *_of_the_router(thresholds, span),
        *_of_the_records(span),
    ]


def _promises(t: Mapping[str, float], span: Span) -> list[Alert]:
    return [
        Alert("RouterDown", 'up{job="herd"} == 0 or absent(up{job="herd"})', span("1m"), "critical",
              "The router does not answer",
              'Prometheus cannot scrape {{ or $labels.instance "any router: its job `herd` has no target" }}.'),
        *_burn("ErrorBudgetBurn", "herd:error_ratio:ratio", "herd:requests:increase", t["error_objective"],
               "Requests fail", t, span),
        *_burn("TTFTBudgetBurn", "herd:ttft_late_ratio:ratio", "herd:streams:increase", t["ttft_objective"],
               "First tokens come late", t, span),
    ]  # fmt: skip


def _burn(
    name: str, ratio: str, count: str, objective: float, what: str, t: Mapping[str, float], span: Span
) -> list[Alert]:
    """The four alerts of one objective, all under one name."""
    found = []
    for factor, long, short, hold, severity in BURNS:
        bound = f"{factor:g} * {1 - objective:.4g}"
        guard = f"{count}{long} > {t['least_requests']:g}"
        found.append(
            Alert(
                name,
                f"{ratio}{long} > {bound} and {ratio}{short} > {bound} and {guard}",
                span(hold),
                severity,
                f"{what}: the error budget burns over {factor:g} times as fast as it may",
                f"{{{{ $value | humanizePercentage }}}} over {long}, where {1 - objective:.2%} is the budget.",
                window=long,
            )
        )
    return found


def _of_nodes(t: Mapping[str, float], span: Span) -> list[Alert]:
    return [
        Alert("NoHealthyNode",
              '(sum by (instance) (herd_node_ready) or 0 * sum by (instance) (up{job="herd"})) == 0 '
              'and on (instance) up{job="herd"} == 1',
              span("1m"), "critical",
              "No node can take requests",
              "No node is there, or none of them is fit for requests: `herd status` tells."),
        Alert("NodeDown", "herd_node_up == 0 unless herd_node_left == 1", span("2m"), "warning",
              "Node {{ $labels.node }} is gone", "Its heartbeats ended, and it did not leave in order."),
        Alert("AgentDown", 'up{job="herd-agents"} == 0', span("2m"), "warning",
              "The agent of {{ $labels.node }} does not answer",
              "Prometheus cannot scrape its metrics at {{ $labels.instance }}."),
        Alert("NodeFlapping", f"changes(herd_node_up[{span('1h')}]) >= {2 * t['flaps']:g}", "0m", "warning",
              "Node {{ $labels.node }} comes and goes", "It came or went {{ $value }} times within an hour."),
        Alert("ModelThrashing",
              f"sum by (instance, node, model) (increase(herd_model_loads_total[{span('30m')}])) > "
              f"{t['thrashing_loads']:g}", "0m", "warning",
              "{{ $labels.model }} is loaded again and again on {{ $labels.node }}",
              "{{ $value | humanize }} cold loads in half an hour: models push each other out of memory there."),
        Alert("DiskLow", f"herd_node_disk_free_bytes < {t['disk_bytes']:g}", span("5m"), "warning",
              "The disk of {{ $labels.node }} is nearly full", "{{ $value | humanize1024 }}B are left for models."),
    ]  # fmt: skip


def _of_requests(t: Mapping[str, float], span: Span) -> list[Alert]:
    return [
        Alert("QueueSaturated", f"herd_queue_depth > {t['queue_depth']:g}", span("5m"), "warning",
              "Requests queue for {{ $labels.model }}", "{{ $value }} wait for a slot, for five minutes now."),
        Alert("QueueRejecting",
              f"sum by (instance, reason) (increase(herd_queue_rejected_total[{span('5m')}])) > {t['rejections']:g}",
              span("2m"), "critical",
              "Requests are refused ({{ $labels.reason }})", "{{ $value | humanize }} in five minutes."),
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
        Alert("EventLoopStalled", f"increase(herd_event_loop_stalls_total[{span('5m')}]) > {t['stalls']:g}", "0m",
              "warning", "The router's event loop stalls",
              "{{ $value | humanize }} times in five minutes every stream stood still for over 0.1 s."),
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
              "Prometheus cannot scrape {{ $labels.instance }}; spans are lost meanwhile, and nothing else."),
        Alert("CollectorFailing",
              f"sum by (instance, exporter) (increase(otelcol_exporter_send_failed_spans_total[{ten}])) > 0", "0m",
              "warning", "The collector cannot hand spans on to {{ $labels.exporter }}",
              "It gave up {{ $value | humanize }} in ten minutes."),
        # Tags beyond the setting metric_tags are counted together by design: whoever switched it on chose that.
        Alert("LabelOverflow", f'increase(herd_label_overflow_total{{label!="tag"}}[{span("1h")}]) > 0', "0m",
              "warning", "Too many {{ $labels.label }} names", "What is beyond the cap is counted as `_unknown`."),
    ]  # fmt: skip
