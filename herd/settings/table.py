"""The table of settings: name, default, help, bounds, and whether a setting can change at run time."""

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

    `minimum` and `maximum` apply to numbers, `pattern` to whole strings; `form` is a valid example. A `secret` is
    masked where it is shown. A `local` one decides who is let in or where records go: over HTTP only this machine's
    own user may change it.
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
    local: bool = False

    @property
    def is_number(self) -> bool:
        """Whether `minimum` and `maximum` apply."""
        return type(self.default) in {int, float}

    def shown(self, value: Value) -> Value:
        """The value as shown in the log and on the page, masked if it is secret."""
        if not self.secret or not value:
            return value
        address = re.match(r"[a-z]+://[^/@\s]+/", str(value))
        return f"{address[0] if address else ''}…"


TABLE: Final = (
    Setting("host", "127.0.0.1",
            "Address to listen on. Any address other than loopback is reachable from the network."),
    Setting("port", 11435, "Port to listen on.", minimum=1, maximum=65_535),
    Setting("data_dir", "~/.fleet-manager", "Directory of the database and the logs."),
    Setting("log_level", "INFO", "Lowest level that is logged.",
            choices=("DEBUG", "INFO", "WARNING", "ERROR"), runtime=True),
    Setting("auth", "auto", "Who must show a key or log in: `auto` all but this machine, `always` everybody, `off` "
            "nobody, `observe` nobody, but refusals are counted. For nodes, `auto` is `always`.",
            choices=("auto", "always", "observe", "off"), runtime=True, local=True),
    Setting("anonymous", "", "What private networks may do without a key: nothing, `inference`, or `read` (that and "
            "reading records).", pattern="inference|read", form="inference", runtime=True, local=True),
    Setting("log_files_kept", 30, "Rotated log files to keep, one per day.", minimum=1, maximum=3_650),
    Setting("allowed_hosts", "", "Additional Host names to accept, separated by commas; `*` accepts any.", local=True),
    Setting("allowed_origins", "", "Origins of web pages that may use the fleet, separated by commas; `*` allows any.",
            local=True, pattern=rf"{_ORIGIN}(\s*,\s*{_ORIGIN})*", form="https://chat.example.com, https://*.example.org"),
    Setting("trusted_proxies", "", "Proxies whose X-Forwarded-For and -Proto are trusted: addresses and networks.",
            local=True, pattern=rf"{_NETWORK}(\s*,\s*{_NETWORK})*", form="127.0.0.1, 10.0.0.0/8, fd00::/8"),
    Setting("connections_per_address", 256, "Connection limit per client address, which may be a proxy's.",
            minimum=1, maximum=65_536),
    Setting("body_limit_mb", 100, "Largest request body, in MiB.", minimum=1, maximum=10_240, runtime=True),
    Setting("heartbeat_degraded_s", 15.0, "A node without a heartbeat for this long is degraded.",
            minimum=1, maximum=3_600, runtime=True),
    Setting("heartbeat_offline_s", 30.0, "A node without a heartbeat for this long is offline.",
            minimum=1, maximum=86_400, runtime=True),
    Setting("queue_limit", 256, "Requests that may wait per model; further ones get 429.",
            minimum=1, maximum=100_000, runtime=True),
    Setting("queue_timeout_s", 120.0, "Longest wait for a slot, then 503.", minimum=0.1, maximum=86_400, runtime=True),
    Setting("swap_patience_s", 30.0, "How long requests for a loaded model may overtake one that would unload it.",
            minimum=0, maximum=3_600, runtime=True),
    Setting("connect_timeout_s", 5.0, "Timeout for connecting to a node.",
            minimum=0.1, maximum=300, runtime=True),
    Setting("first_byte_timeout_s", 300.0, "Timeout for the first content from a node.",
            minimum=0.1, maximum=86_400, runtime=True),
    Setting("load_timeout_s", 600.0, "Extra time allowed when the model must load first.",
            minimum=0, maximum=86_400, runtime=True),
    Setting("stall_timeout_s", 120.0, "Longest pause within an answer.", minimum=0.1, maximum=86_400, runtime=True),
    Setting("total_timeout_s", 3600.0, "Timeout for one attempt as a whole.", minimum=1, maximum=604_800, runtime=True),
    Setting("retries", 2, "Additional nodes to try before the first content.",
            minimum=0, maximum=10, runtime=True),
    Setting("retry_budget_pct", 20.0, "Share of requests in flight that may be retries (never fewer than 3).",
            minimum=0, maximum=100, runtime=True),
    Setting("deaths_per_request", 2, "Nodes that may die in a row while they work on one request; after that it is not "
            "retried, and its body is refused for quarantine_s.", minimum=1, maximum=100, runtime=True),
    Setting("quarantine_s", 600.0, "How long a body is refused after nodes died on it; 0: never.",
            maximum=86_400, runtime=True),
    Setting("context_protection", "strip", "What to do with a num_ctx that would make a node reload the model.",
            choices=("strip", "warn", "off"), runtime=True),
    Setting("loaded_fallback", True, "Prefer a loaded fallback that the client named over a cold load.", runtime=True),
    Setting("equivalent_models", "", "Models that may replace another if only they are loaded: `a = b, c; d = e`.",
            runtime=True, pattern=RULES, form="qwen3:8b = gemma3:12b, mistral:7b; llama3.3:70b = qwen2.5:72b"),
    Setting("usage_in_streams", True, "Ask nodes for token counts in OpenAI streams even if the client did not.",
            runtime=True),
    Setting("steady_billing_line", True, "Keep the values in Claude Code's billing line constant: they change with "
            "every request and defeat the engine's prompt cache.", runtime=True),
    Setting("auto_pull", False, "Pull a requested model that no node has to the node with the most room.",
            runtime=True),
    Setting("auto_pull_timeout_s", 3600.0, "Timeout for such a pull, and for the requests that wait for it.",
            minimum=0.1, maximum=604_800, runtime=True),
    Setting("preload", False, "Keep recently requested models in memory where they fit.", runtime=True),
    Setting("preload_interval_s", 120.0, "How often to check which models to load.",
            minimum=1, maximum=86_400, runtime=True),
    Setting("retention_days", 30, "Days to keep rows in the trace store.", minimum=1, maximum=3_650, runtime=True),
    Setting("store_limit_mb", 10_000, "Size limit of the database in MiB; beyond it the oldest rows are deleted.",
            minimum=16, maximum=10_000_000, runtime=True),
    Setting("otlp_endpoint", "", "OTLP/HTTP endpoint for spans; empty: OTEL_EXPORTER_OTLP_ENDPOINT, if set.",
            local=True, pattern=r"https?://[!-~]+", form="http://localhost:4318"),
    Setting("trace_url", "", "URL of a request's trace, for links on the page; `{trace_id}` is replaced.",
            runtime=True, local=True, pattern=r"https?://[!-~]+",
            form="http://localhost:16686/trace/{trace_id}"),
    Setting("metric_tags", 0, "Number of distinct tags used as metric labels, first come, first served; 0: none.",
            maximum=500),
    Setting("advertise", True, "Announce the router by mDNS if it listens on more than loopback."),
    Setting("shutdown_grace_s", 30.0, "How long a shutdown waits for running requests.",
            minimum=0, maximum=3_600),
    Setting("webhook_url", "", "URL that critical findings and their resolution are sent to as JSON; empty: none.",
            runtime=True, local=True, pattern=r"https?://[!-~]+", form="https://example.com/alerts", secret=True),
    Setting("health_min_requests", 20, "Minimum number of requests before a health check judges a rate.",
            minimum=1, maximum=1_000_000, runtime=True),
    Setting("health_memory_warning_pct", 85.0, "Memory or VRAM use from which memory_pressure is a warning.",
            maximum=100, runtime=True),
    Setting("health_memory_critical_pct", 95.0, "Memory or VRAM use from which memory_pressure is critical.",
            maximum=100, runtime=True),
    Setting("health_node_errors_pct",
            10.0, "Failed attempts of a node in an hour above which node_degraded is a warning.",
            maximum=100, runtime=True),
    Setting("health_idle_h", 24.0, "How long a node must be known before underutilized_node reports it.",
            maximum=8_760, runtime=True),
    Setting("health_fallback_warning_pct",
            5.0, "Requests answered by a fallback above which vram_fallback is a warning.",
            maximum=100, runtime=True),
    Setting("health_zombies_critical", 10, "Reaped requests per day above which zombie_reaper is critical.",
            maximum=1_000_000, runtime=True),
    Setting("health_thrash_loads", 4, "Loads of one model on one node per hour from which model_thrashing reports it.",
            minimum=2, maximum=10_000, runtime=True),
    Setting("health_slow_factor", 3.0, "A request is slow at this multiple of its model's p95 latency.",
            minimum=1, maximum=1_000, runtime=True),
    Setting("health_slow_floor_s", 30.0, "Requests faster than this are never slow.",
            maximum=86_400, runtime=True),
    Setting("health_slow_pct", 1.0, "Slow and timed-out requests of a model above which request_timeouts is a warning.",
            maximum=100, runtime=True),
    Setting("health_error_warning_pct", 5.0, "Failed requests of a node or model above which error_rate is a warning.",
            maximum=100, runtime=True),
    Setting("health_error_critical_pct", 25.0, "Failed requests of a node or model above which error_rate is critical.",
            maximum=100, runtime=True),
    Setting("health_kv_ratio", 1.5, "Ratio of loaded size to weights from which kv_cache_bloat considers a model.",
            minimum=1, maximum=100, runtime=True),
    Setting("health_kv_info_pct", 15.0, "Memory used beyond the weights above which kv_cache_bloat is info.",
            maximum=100, runtime=True),
    Setting("health_kv_warning_pct", 30.0, "The same share above which kv_cache_bloat is a warning.",
            maximum=100, runtime=True),
    Setting("health_kv_critical_pct", 50.0, "The same share above which kv_cache_bloat is critical.",
            maximum=100, runtime=True),
    Setting("health_retry_info", 0.3, "Retries per request above which retry_rate is info.", maximum=10, runtime=True),
    Setting("health_retry_warning", 0.5, "Retries per request above which retry_rate is a warning.",
            maximum=10, runtime=True),
    Setting("health_disconnects_pct", 1.0, "Client disconnects above which client_disconnects is a warning.",
            maximum=100, runtime=True),
    Setting("health_incomplete_pct", 0.5, "Incomplete answers above which incomplete_streams is a warning.",
            maximum=100, runtime=True),
    Setting("health_context_factor",
            4.0, "Ratio of loaded context to the largest request from which context_waste reports it.",
            minimum=1, maximum=1_000, runtime=True),
    Setting("health_clock_skew_s", 5.0, "Clock difference above which clock_skew is a warning.",
            maximum=86_400, runtime=True),
    Setting("health_slo_pct", 99.0, "Service level objective that slo_burn watches: share of requests that succeed.",
            maximum=99.99, runtime=True),
    Setting("health_prediction_factor", 2.0, "Actual over predicted time to first token of a node (or the inverse) "
            "from which prediction_drift is a warning.", minimum=1.1, maximum=1_000, runtime=True),
    Setting("health_disk_warning_pct", 10.0, "Free disk space below which disk_low is a warning.",
            maximum=100, runtime=True),
    Setting("health_disk_critical_pct", 3.0, "Free disk space below which disk_low is critical.",
            maximum=100, runtime=True),
    Setting("health_resolve_after_s", 60.0, "A finding is resolved once it has not been seen for this long.",
            maximum=604_800, runtime=True),
)  # fmt: skip
# The first of each pair must not exceed the second: a worse threshold cannot be reached first.
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
