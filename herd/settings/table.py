"""The table of the settings: name, default, meaning, bounds, and whether a setting may change while the router runs."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Value = bool | int | float | str
NAME: Final = "config.toml"
VARIABLE: Final = "HERD_"
TRACE_ID: Final = "{trace_id}"
_NAME = r"[^=;,\s]+"
_NETWORK = r"[0-9A-Fa-f]*[.:][0-9A-Fa-f:.]+(/[0-9]{1,3})?"
_ORIGIN = r"(\*|[a-z][a-z0-9+.-]*://[^\s,]*)"
RULES: Final = rf"(\s*{_NAME}\s*=\s*{_NAME}(\s*,\s*{_NAME})*\s*(;|$))*\s*"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table; the type of `default` is the type of the setting.

    `minimum` and `maximum` hold for numbers, `pattern` for texts, whole; `form` is a text that is right. A `secret` is
    shown only in part.
    """

    name: str
    default: Value
    help: str
    runtime: bool = False
    minimum: float = 0
    choices: tuple[str, ...] = ()
    maximum: float = math.inf
    pattern: str = ""
    form: str = ""
    secret: bool = False

    @property
    def is_number(self) -> bool:
        """Whether `minimum` and `maximum` hold."""
        return type(self.default) in {int, float}

    def shown(self, value: Value) -> Value:
        """The value as it may be shown to whoever reads the log or the page."""
        if not self.secret or not value:
            return value
        address = re.match(r"[a-z]+://[^/@\s]+/", str(value))
        return f"{address[0] if address else ''}…"


TABLE: Final = (
    Setting("host", "127.0.0.1", "Address to listen on; one that is not loopback is reachable from outside."),
    Setting("port", 11435, "Port to listen on.", minimum=1, maximum=65_535),
    Setting("data_dir", "~/.fleet-manager", "Where the database and the logs live."),
    Setting("log_level", "INFO", "Least level that is logged.",
            choices=("DEBUG", "INFO", "WARNING", "ERROR"), runtime=True),
    Setting("log_files_kept", 30, "Days of rotated log files that are kept.", minimum=1, maximum=3_650),
    Setting("allowed_hosts", "", "Further Host names to answer to, separated by commas; `*` for any."),
    Setting("allowed_origins", "", "Pages elsewhere that may use the fleet, separated by commas; `*` for any.",
            pattern=rf"{_ORIGIN}(\s*,\s*{_ORIGIN})*", form="https://chat.example.com, https://*.example.org"),
    Setting("trusted_proxies", "", "Addresses and networks of proxies whose X-Forwarded-For and -Proto are believed.",
            pattern=rf"{_NETWORK}(\s*,\s*{_NETWORK})*", form="127.0.0.1, 10.0.0.0/8, fd00::/8"),
    Setting("connections_per_address", 256, "Most connections of one address, which may be a proxy's.",
            minimum=1, maximum=65_536),
    Setting("body_limit_mb", 100, "Largest request body, in MiB.", minimum=1, maximum=10_240, runtime=True),
    Setting("heartbeat_degraded_s", 15.0, "A node without a heartbeat for this long is degraded.",
            minimum=1, maximum=3_600, runtime=True),
    Setting("heartbeat_offline_s", 30.0, "A node without a heartbeat for this long is offline.",
            minimum=1, maximum=86_400, runtime=True),
    Setting("queue_limit", 256, "Requests that may wait for one model; more are answered 429.",
            minimum=1, maximum=100_000, runtime=True),
    Setting("queue_timeout_s", 120.0, "Longest wait for a slot; then 503.", minimum=0.1, maximum=86_400, runtime=True),
    Setting("swap_patience_s", 30.0, "How long requests for a loaded model may overtake one that would unload it.",
            minimum=0, maximum=3_600, runtime=True),
    Setting("connect_timeout_s", 5.0, "Longest wait for a node to take a connection.",
            minimum=0.1, maximum=300, runtime=True),
    Setting("first_byte_timeout_s", 300.0, "Longest wait for the first content from a node.",
            minimum=0.1, maximum=86_400, runtime=True),
    Setting("load_timeout_s", 600.0, "What is added to that where the model has to be loaded first.",
            minimum=0, maximum=86_400, runtime=True),
    Setting("stall_timeout_s", 120.0, "Longest silence within an answer.", minimum=0.1, maximum=86_400, runtime=True),
    Setting("total_timeout_s", 3600.0, "Longest life of one attempt.", minimum=1, maximum=604_800, runtime=True),
    Setting("retries", 2, "Further nodes that a request may be tried on before its first content.",
            minimum=0, maximum=10, runtime=True),
    Setting("retry_budget_pct", 20.0, "Share of the requests in flight that may be on a retry (least: 3).",
            minimum=0, maximum=100, runtime=True),
    Setting("context_protection", "strip", "What to do with num_ctx that would make a node reload a model.",
            choices=("strip", "warn", "off"), runtime=True),
    Setting("loaded_fallback", True, "A loaded fallback that the client named beats a cold load.", runtime=True),
    Setting("equivalent_models", "", "Models as good as another, where only they are loaded: `a = b, c; d = e`.",
            runtime=True, pattern=RULES, form="qwen3:8b = gemma3:12b, mistral:7b; llama3.3:70b = qwen2.5:72b"),
    Setting("usage_in_streams", True, "Ask nodes for token counts in OpenAI streams where the client did not.",
            runtime=True),
    Setting("steady_billing_line", True, "Hold still the values in Claude Code's billing line, which change with every "
            "request and so cost engines the whole prompt's cache.", runtime=True),
    Setting("auto_pull", False, "Pull a model that no node has to the node with the best room when it is asked for.",
            runtime=True),
    Setting("auto_pull_timeout_s", 3600.0, "Longest such pull, and so the longest wait for one.",
            minimum=0.1, maximum=604_800, runtime=True),
    Setting("preload", False, "Keep the models that the last days asked for in memory where they fit.", runtime=True),
    Setting("preload_interval_s", 120.0, "How often to look what to load.", minimum=1, maximum=86_400, runtime=True),
    Setting("retention_days", 30, "Days that rows are kept.", minimum=1, maximum=3_650, runtime=True),
    Setting("store_limit_mb", 10_000, "Size of the database over which the oldest rows go, in MiB.",
            minimum=16, maximum=10_000_000, runtime=True),
    Setting("otlp_endpoint", "", "OTLP/HTTP endpoint for spans; empty: OTEL_EXPORTER_OTLP_ENDPOINT, or none.",
            pattern=r"https?://[!-~]+", form="http://localhost:4318"),
    Setting("trace_url", "", "Where a request's spans are shown; `{trace_id}` in it is replaced. The page links there.",
            runtime=True, pattern=r"https?://[!-~]+", form="http://localhost:16686/trace/{trace_id}"),
    Setting("metric_tags", 0, "How many different tags may be labels of metrics, first come first served; 0: none.",
            maximum=500),
    Setting("advertise", True, "Announce the router by mDNS where it listens on more than loopback."),
    Setting("shutdown_grace_s", 30.0, "How long running requests may take to end at shutdown.",
            minimum=0, maximum=3_600),
    Setting("webhook_url", "", "Where critical health findings and their recoveries are sent as JSON; empty: nowhere.",
            runtime=True, pattern=r"https?://[!-~]+", form="https://example.com/alerts", secret=True),
    Setting("health_min_requests", 20, "Requests that a rate needs before a health check judges it.",
            minimum=1, maximum=1_000_000, runtime=True),
    Setting("health_memory_warning_pct", 85.0, "Memory or VRAM in use from which memory_pressure warns.",
            maximum=100, runtime=True),
    Setting("health_memory_critical_pct", 95.0, "Memory or VRAM in use from which memory_pressure is critical.",
            maximum=100, runtime=True),
    Setting("health_node_errors_pct", 10.0, "Failed attempts of a node's last hour over which node_degraded warns.",
            maximum=100, runtime=True),
    Setting("health_idle_h", 24.0, "How long a node must be known before underutilized_node speaks of it.",
            maximum=8_760, runtime=True),
    Setting("health_fallback_warning_pct", 5.0, "Requests answered by a fallback over which vram_fallback warns.",
            maximum=100, runtime=True),
    Setting("health_zombies_critical", 10, "Requests reaped in a day over which zombie_reaper is critical.",
            maximum=1_000_000, runtime=True),
    Setting("health_thrash_loads", 4, "Loads and unloads of one model on one node in an hour from which it thrashes.",
            minimum=2, maximum=10_000, runtime=True),
    Setting("health_slow_factor", 3.0, "A request is slow at so many times the p95 latency of its model.",
            minimum=1, maximum=1_000, runtime=True),
    Setting("health_slow_floor_s", 30.0, "No request that is faster than this is called slow.",
            maximum=86_400, runtime=True),
    Setting("health_slow_pct", 1.0, "Slow and timed out requests of a model over which request_timeouts warns.",
            maximum=100, runtime=True),
    Setting("health_error_warning_pct", 5.0, "Failed requests of a node or model over which error_rate warns.",
            maximum=100, runtime=True),
    Setting("health_error_critical_pct", 25.0, "Failed requests of a node or model over which error_rate is critical.",
            maximum=100, runtime=True),
    Setting("health_kv_ratio", 1.5, "Loaded size over the weights' size from which kv_cache_bloat looks at a model.",
            minimum=1, maximum=100, runtime=True),
    Setting("health_kv_info_pct", 15.0, "Share of a node's memory beyond the weights over which kv_cache_bloat speaks.",
            maximum=100, runtime=True),
    Setting("health_kv_warning_pct", 30.0, "The same share over which it warns.", maximum=100, runtime=True),
    Setting("health_kv_critical_pct", 50.0, "The same share over which it is critical.", maximum=100, runtime=True),
    Setting("health_retry_info", 0.3, "Retries per request over which retry_rate speaks.", maximum=10, runtime=True),
    Setting("health_retry_warning", 0.5, "Retries per request over which retry_rate warns.", maximum=10, runtime=True),
    Setting("health_disconnects_pct", 1.0, "Requests whose client left over which client_disconnects warns.",
            maximum=100, runtime=True),
    Setting("health_incomplete_pct", 0.5, "Answers without their proper end over which incomplete_streams warns.",
            maximum=100, runtime=True),
    Setting("health_context_factor", 4.0, "Loaded context over the largest request's tokens from which it is wasted.",
            minimum=1, maximum=1_000, runtime=True),
    Setting("health_clock_skew_s", 5.0, "Difference of a node's clock over which clock_skew warns.",
            maximum=86_400, runtime=True),
    Setting("health_slo_pct", 99.0, "Requests that should succeed: the objective that slo_burn watches.",
            maximum=99.99, runtime=True),
    Setting("health_disk_warning_pct", 10.0, "Free share of a disk under which disk_low warns.",
            maximum=100, runtime=True),
    Setting("health_disk_critical_pct", 3.0, "Free share of a disk under which disk_low is critical.",
            maximum=100, runtime=True),
    Setting("health_resolve_after_s", 60.0, "A finding is over once it was not seen for this long.",
            maximum=604_800, runtime=True),
)  # fmt: skip
# The first of each pair is at most the second: what comes later as things get worse cannot come before.
ASCENDING: Final = (
    ("heartbeat_degraded_s", "heartbeat_offline_s"),
    ("health_memory_warning_pct", "health_memory_critical_pct"),
    ("health_error_warning_pct", "health_error_critical_pct"),
    ("health_kv_info_pct", "health_kv_warning_pct"),
    ("health_kv_warning_pct", "health_kv_critical_pct"),
    ("health_retry_info", "health_retry_warning"),
    ("health_disk_critical_pct", "health_disk_warning_pct"),
)
BY_NAME: Final[Mapping[str, Setting]] = {setting.name: setting for setting in TABLE}
NUMBERS: Final[Mapping[str, float]] = {
    row.name: row.default for row in TABLE if isinstance(row.default, int | float) and not isinstance(row.default, bool)
}
