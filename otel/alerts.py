"""The alerts and recording rules, as tables: one threshold table, one entry an alert; `build.py` writes them as YAML.

Names of metrics are checked against herd's catalog by the tests. Every ratio has a guard of least traffic, so that one
failed request at night wakes nobody.
"""

from dataclasses import dataclass

RUNBOOK = "https://github.com/geeks-accelerator/ollama-herd/blob/main/docs/runbook.md"
NOT_HERDS_FAULT = "bad_request|unauthorized|model_missing|upstream_4xx"
WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")

THRESHOLDS: dict[str, float] = {
    "error_objective": 0.99,  # share of requests that must not fail on our side
    "ttft_objective": 0.95,  # share of streams whose first token comes in time
    "ttft_s": 10,  # in time: a bound of the histogram's buckets
    "least_requests": 20,  # in the longer window, or a ratio says nothing
    "node_silent_s": 30,
    "flaps": 3,  # times up and down again in an hour
    "queue_depth": 20,
    "thrashing_loads": 6,  # cold loads of one model on one node in half an hour
    "stuck_s": 900,
    "overhead_s": 0.05,
    "lag_s": 0.1,
    "disk_bytes": 10 * 2**30,
    "usage_missing_ratio": 0.1,
}
# Google's multi-window burn rates for a 30-day budget: factor, long window, short window, how long, how bad.
BURNS = (
    (14.4, "1h", "5m", "2m", "critical"),
    (6.0, "6h", "30m", "15m", "critical"),
    (3.0, "1d", "2h", "1h", "warning"),
    (1.0, "3d", "6h", "3h", "warning"),
)


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


def recordings() -> list[Recording]:
    """Ratios over every window that the burn rates look at, and the counts that guard them."""
    rules = []
    for window in WINDOWS:
        bad = f'sum(increase(herd_request_errors_total{{error_type!~"{NOT_HERDS_FAULT}"}}[{window}]))'
        total = f'sum(increase(herd_requests_finished_total{{status!="client_disconnected"}}[{window}]))'
        streams = f"sum(increase(herd_time_to_first_token_seconds_count[{window}]))"
        in_time = f'sum(increase(herd_time_to_first_token_seconds_bucket{{le="{THRESHOLDS["ttft_s"]:.1f}"}}[{window}]))'
        rules += [
            Recording(f"herd:requests:increase{window}", total),
            Recording(f"herd:error_ratio:ratio{window}", f"{bad} / ({total} > 0) or vector(0)"),
            Recording(f"herd:streams:increase{window}", streams),
            Recording(f"herd:ttft_late_ratio:ratio{window}", f"1 - {in_time} / ({streams} > 0) or vector(0)"),
        ]
    return rules


def burn(name: str, ratio: str, count: str, objective: float, what: str) -> list[Alert]:
    """The four alerts of one objective, all under one name."""
    found = []
    for factor, long, short, hold, severity in BURNS:
        bound = f"{factor:g} * {1 - objective:.4g}"
        guard = f"{count}{long} > {THRESHOLDS['least_requests']:g}"
        found.append(
            Alert(
                name,
                f"{ratio}{long} > {bound} and {ratio}{short} > {bound} and {guard}",
                hold,
                severity,
                f"{what}: the error budget burns {factor:g} times too fast",
                f"{{{{ $value | humanizePercentage }}}} over {long}; at this rate a month's budget is gone early.",
                window=long,
            )
        )
    return found


def alerts() -> list[Alert]:
    """Every alert, in the order in which an operator would want to read them."""
    t = THRESHOLDS
    return [
        Alert("RouterDown", 'up{job="herd"} == 0 or absent(up{job="herd"})', "1m", "critical",
              "The router does not answer", "Prometheus cannot scrape {{ $labels.instance }}."),
        *burn("ErrorBudgetBurn", "herd:error_ratio:ratio", "herd:requests:increase", t["error_objective"],
              "Requests fail"),
        *burn("TTFTBudgetBurn", "herd:ttft_late_ratio:ratio", "herd:streams:increase", t["ttft_objective"],
              "First tokens come late"),
        Alert("NoHealthyNode", "sum(herd_node_up) == 0", "1m", "critical",
              "No node can take requests", "Every node of the fleet is gone; `herd status` shows since when."),
        Alert("NodeDown", "herd_node_up == 0", "2m", "warning",
              "Node {{ $labels.node }} is gone", "It sends no heartbeat, or left and was not forgotten."),
        Alert("NodeFlapping", f"changes(herd_node_up[1h]) > {2 * t['flaps']:g}", "0m", "warning",
              "Node {{ $labels.node }} comes and goes", "It changed {{ $value }} times within an hour."),
        Alert("QueueSaturated", f"herd_queue_depth > {t['queue_depth']:g}", "5m", "warning",
              "Requests queue for {{ $labels.model }}", "{{ $value }} wait for a slot, for five minutes now."),
        Alert("QueueRejecting", "sum by (reason) (increase(herd_queue_rejected_total[5m])) > 0", "5m", "critical",
              "Requests are refused ({{ $labels.reason }})", "{{ $value | humanize }} in five minutes."),
        Alert("ModelThrashing",
              f"sum by (node, model) (increase(herd_model_loads_total[30m])) > {t['thrashing_loads']:g}",
              "0m", "warning",
              "{{ $labels.model }} is loaded again and again on {{ $labels.node }}",
              "{{ $value | humanize }} cold loads in half an hour: memory is contended there."),
        Alert("RequestStuck", f"time() - herd_oldest_request_timestamp_seconds > {t['stuck_s']:g}", "1m", "warning",
              "A request does not end", "The oldest one is {{ $value | humanizeDuration }} old."),
        Alert("RouterOverheadHigh",
              "histogram_quantile(0.95, sum by (le) (rate(herd_overhead_seconds_bucket[5m]))) > "
              f"{t['overhead_s']:g} and sum(rate(herd_overhead_seconds_count[5m])) > 0.1", "10m", "warning",
              "The router itself is slow", "Its own share of a request is {{ $value | humanizeDuration }} at p95."),
        Alert("EventLoopStalled",
              "histogram_quantile(0.99, sum by (le) (rate(herd_event_loop_lag_seconds_bucket[5m]))) > "
              f"{t['lag_s']:g}", "5m", "warning",
              "The router's event loop stalls", "A 10 ms timer comes {{ $value | humanizeDuration }} late at p99."),
        Alert("TelemetryDropping",
              "sum(increase(herd_log_dropped_total[10m])) + sum(increase(herd_spans_dropped_total[10m])) + "
              "sum(increase(herd_sink_failures_total[10m])) > 0", "0m", "warning",
              "Records are lost", "{{ $value | humanize }} log lines or spans in ten minutes."),
        Alert("TraceStoreDown",
              'herd_trace_store_up == 0 or increase(herd_trace_rows_total{outcome=~"dropped|failed"}[10m]) > 0',
              "1m", "critical", "Rows are not written", "The database is full, locked or gone; requests go on."),
        Alert("DiskLow", f"herd_node_disk_free_bytes < {t['disk_bytes']:g}", "5m", "warning",
              "The disk of {{ $labels.node }} is nearly full", "{{ $value | humanize1024 }}B are left for models."),
        Alert("LabelOverflow", "increase(herd_label_overflow_total[1h]) > 0", "0m", "warning",
              "Too many {{ $labels.label }} names", "What is beyond the cap is counted as `_unknown`."),
        Alert("UsageMissing",
              "sum by (model) (increase(herd_usage_missing_total[1h])) / "
              '(sum by (model) (increase(herd_requests_total{status="completed"}[1h])) '
              f"> {t['least_requests']:g}) > {t['usage_missing_ratio']:g}", "15m", "warning",
              "Answers of {{ $labels.model }} carry no token counts", "{{ $value | humanizePercentage }} of them."),
    ]  # fmt: skip
