"""The table of health checks: each with what it finds, how bad that can be, and the thresholds that it goes by.

Checks are pure functions from a report to findings; `evaluate` asks them all. Nothing here asks a node or a database.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from inspect import getdoc
from typing import Final

from herd.core.finding import Finding, Severity
from herd.core.health import of_models, of_nodes, of_records, of_requests
from herd.core.health.report import HealthReport

INFO, WARNING, CRITICAL = Severity
POINTS: Final = {INFO: 0, WARNING: 10, CRITICAL: 20}


@dataclass(frozen=True, slots=True)
class Check:
    """One check; `severities` are those that it can find, `history` says that it needs what the store knows."""

    function: Callable[[HealthReport], Iterator[Finding]]
    severities: tuple[Severity, ...]
    thresholds: tuple[str, ...] = ()
    history: bool = False

    @property
    def check_id(self) -> str:
        """Its name in findings, metrics and the runbook."""
        return self.function.__name__

    @property
    def finds(self) -> str:
        """What it finds, in one sentence."""
        return (getdoc(self.function) or "").replace("\n", " ")

    @property
    def runbook(self) -> str:
        """Where the repository explains it; `herd docs runbook` prints the same."""
        return f"docs/runbook.md#{self.check_id}"


LEAST: Final = "health_min_requests"
CHECKS: Final = (
    Check(of_nodes.node_offline, (CRITICAL,), ("heartbeat_offline_s",)),
    Check(of_nodes.node_degraded, (WARNING,), ("heartbeat_degraded_s", "health_node_errors_pct", LEAST)),
    Check(of_nodes.memory_pressure, (WARNING, CRITICAL), ("health_memory_warning_pct", "health_memory_critical_pct")),
    Check(of_nodes.underutilized_node, (INFO,), ("health_idle_h", LEAST), history=True),
    Check(of_models.vram_fallback, (INFO, WARNING), ("health_fallback_warning_pct", LEAST), history=True),
    Check(of_nodes.version_mismatch, (WARNING,)),
    Check(of_models.context_protection, (INFO, WARNING), history=True),
    Check(of_requests.zombie_reaper, (WARNING, CRITICAL), ("health_zombies_critical",), history=True),
    Check(of_models.model_thrashing, (WARNING,), ("health_thrash_loads",), history=True),
    Check(of_requests.request_timeouts, (WARNING,),
          ("health_slow_factor", "health_slow_floor_s", "health_slow_pct", LEAST), history=True),
    Check(of_requests.error_rate, (WARNING, CRITICAL),
          ("health_error_warning_pct", "health_error_critical_pct", LEAST), history=True),
    Check(of_models.kv_cache_bloat, (INFO, WARNING, CRITICAL),
          ("health_kv_ratio", "health_kv_info_pct", "health_kv_warning_pct", "health_kv_critical_pct")),
    Check(of_requests.retry_rate, (INFO, WARNING), ("health_retry_info", "health_retry_warning", LEAST), history=True),
    Check(of_requests.client_disconnects, (WARNING,), ("health_disconnects_pct", LEAST), history=True),
    Check(of_requests.incomplete_streams, (WARNING,), ("health_incomplete_pct", LEAST), history=True),
    Check(of_records.trace_store_failing, (WARNING, CRITICAL)),
    Check(of_records.telemetry_dropping, (WARNING,)),
    Check(of_nodes.breaker_open, (WARNING,)),
    Check(of_models.context_waste, (INFO,), ("health_context_factor", LEAST), history=True),
    Check(of_nodes.clock_skew, (WARNING,), ("health_clock_skew_s",)),
    Check(of_nodes.node_version_unknown, (INFO,)),
    Check(of_requests.slo_burn, (WARNING, CRITICAL), ("health_slo_pct", LEAST), history=True),
    Check(of_nodes.disk_low, (WARNING, CRITICAL), ("health_disk_warning_pct", "health_disk_critical_pct")),
)  # fmt: skip
BY_ID: Final = {check.check_id: check for check in CHECKS}


def evaluate(report: HealthReport) -> tuple[Finding, ...]:
    """Everything that the checks find, the worst first; a subject is told of once by each check."""
    found = [finding for check in CHECKS for finding in check.function(report)]
    return tuple(sorted(found, key=lambda finding: (-finding.severity.rank, list(BY_ID).index(finding.check_id))))


def score(findings: Iterable[Finding]) -> int:
    """100 less 20 for each critical finding and 10 for each warning, not below 0."""
    return max(0, 100 - sum(POINTS[finding.severity] for finding in findings))
