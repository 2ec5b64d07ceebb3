"""The table of health checks: function, possible severities and thresholds of each.

Checks are pure functions from a report to findings; `evaluate` runs them all. Nothing here does I/O.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import getdoc
from typing import Final

from herd.core.finding import Finding, Severity
from herd.core.health import of_models, of_nodes, of_records, of_requests
from herd.core.health.report import HealthReport

INFO, WARNING, CRITICAL = Severity


@dataclass(frozen=True, slots=True)
class Check:
    """One check; `severities` are those it can report, `history` is true if it reads the trace store.

    `many` is the title for several findings together, after their number.
    """

    function: Callable[[HealthReport], Iterator[Finding]]
    severities: tuple[Severity, ...]
    thresholds: tuple[str, ...] = ()
    history: bool = False
    many: str = ""

    @property
    def check_id(self) -> str:
        """The check's name in findings, metrics and the runbook."""
        return self.function.__name__

    @property
    def finds(self) -> str:
        """What the check finds, in one sentence."""
        return (getdoc(self.function) or "").replace("\n", " ")

    @property
    def runbook(self) -> str:
        """The runbook section in the repository; `herd docs runbook` prints the same text."""
        return f"docs/runbook.md#{self.check_id}"


LEAST: Final = "health_min_requests"
CHECKS: Final = (
    Check(of_nodes.node_offline, (CRITICAL,), ("heartbeat_offline_s",), many="nodes are offline"),
    Check(of_nodes.node_degraded, (WARNING,), ("heartbeat_degraded_s", "health_node_errors_pct", LEAST),
          many="nodes are degraded"),
    Check(of_nodes.memory_pressure, (WARNING, CRITICAL), ("health_memory_warning_pct", "health_memory_critical_pct"),
          many="nodes are short of memory"),
    Check(of_nodes.underutilized_node, (INFO,), ("health_idle_h", LEAST), history=True, many="nodes are idle"),
    Check(of_models.vram_fallback, (INFO, WARNING), ("health_fallback_warning_pct", LEAST), history=True),
    Check(of_nodes.version_mismatch, (WARNING,), many="nodes run a different version"),
    Check(of_models.context_protection, (INFO, WARNING), history=True),
    Check(of_requests.zombie_reaper, (WARNING, CRITICAL), ("health_zombies_critical",), history=True),
    Check(of_models.model_thrashing, (WARNING,), ("health_thrash_loads",), history=True,
          many="models are thrashing"),
    Check(of_requests.request_timeouts, (WARNING,),
          ("health_slow_factor", "health_slow_floor_s", "health_slow_pct", LEAST), history=True,
          many="models are slow"),
    Check(of_requests.error_rate, (WARNING, CRITICAL),
          ("health_error_warning_pct", "health_error_critical_pct", LEAST), history=True,
          many="nodes and models have a high error rate"),
    Check(of_models.kv_cache_bloat, (INFO, WARNING, CRITICAL),
          ("health_kv_ratio", "health_kv_info_pct", "health_kv_warning_pct", "health_kv_critical_pct"),
          many="loaded models use far more memory than their weights"),
    Check(of_requests.retry_rate, (INFO, WARNING), ("health_retry_info", "health_retry_warning", LEAST), history=True),
    Check(of_requests.client_disconnects, (WARNING,), ("health_disconnects_pct", LEAST), history=True),
    Check(of_requests.incomplete_streams, (WARNING,), ("health_incomplete_pct", LEAST), history=True),
    Check(of_records.trace_store_failing, (WARNING, CRITICAL)),
    Check(of_records.telemetry_dropping, (WARNING,)),
    Check(of_nodes.breaker_open, (WARNING,), many="circuit breakers are open"),
    Check(of_models.context_waste, (INFO,), ("health_context_factor", LEAST), history=True,
          many="models have an oversized context"),
    Check(of_nodes.clock_skew, (WARNING,), ("health_clock_skew_s",), many="nodes have a wrong clock"),
    Check(of_nodes.node_version_unknown, (INFO,), many="nodes do not report a version"),
    Check(of_requests.slo_burn, (WARNING, CRITICAL), ("health_slo_pct", LEAST), history=True),
    Check(of_nodes.prediction_drift, (WARNING,), ("health_prediction_factor", LEAST), history=True,
          many="nodes are far from their predicted times"),
    Check(of_nodes.disk_low, (WARNING, CRITICAL), ("health_disk_warning_pct", "health_disk_critical_pct"),
          many="disks are low on space"),
    Check(of_nodes.no_node_ready, (CRITICAL,)),
)  # fmt: skip
BY_ID: Final = {check.check_id: check for check in CHECKS}


def evaluate(report: HealthReport) -> tuple[Finding, ...]:
    """All findings, the worst first; each check reports a subject at most once."""
    found = [finding for check in CHECKS for finding in check.function(report)]
    return tuple(sorted(found, key=lambda finding: (-finding.severity.rank, list(BY_ID).index(finding.check_id))))
