"""Checks of how requests end: failures, retries, timeouts, disconnects, incomplete streams, the error budget."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, Literal

from herd.core.finding import Finding, Severity
from herd.core.health.amounts import many, most, percent, share, shows, span
from herd.core.health.report import DAY_S, HealthReport, Served, Trouble

TIMEOUTS: Final = frozenset({"connect_timeout", "first_byte_timeout", "stall_timeout", "queue_timeout"})
NOT_OURS: Final = frozenset({"bad_request", "unauthorized", "model_missing", "upstream_4xx", "cancelled"})
Kind = Literal["node_id", "model"]
KINDS: Final[tuple[Kind, ...]] = ("node_id", "model")
LEAST_SLOW: Final = 3  # a single slow request proves nothing
# Burn rates of the error budget: factor, long window, short window, severity. From the Site Reliability Workbook,
# chapter 5, for windows up to a day: 2, 5 and 10% of a month's budget spent within the long window.
BURNS: Final = (
    (14.4, "1h", "5m", Severity.CRITICAL),
    (6.0, "6h", "30m", Severity.CRITICAL),
    (3.0, "1d", "2h", Severity.WARNING),
)


def zombie_reaper(report: HealthReport) -> Iterator[Finding]:
    """Stuck requests that the reaper had to end."""
    count = sum(report.past.zombies.values())
    if not count:
        return
    where = most((node_id or "no node", number) for node_id, number in report.past.zombies.items())
    critical = count > report.threshold("health_zombies_critical")
    yield Finding(
        "zombie_reaper",
        Severity.CRITICAL if critical else Severity.WARNING,
        "Stuck requests were reaped",
        f"{many(count, 'request')} in 24 h made no progress within any time limit and were ended: {where}.",
        "`sqlite3 latency.db \"SELECT * FROM fleet_events WHERE kind = 'zombie_reaped'\"` in the data "
        "directory lists their ids; `herd explain` shows each. Restart the engine of the node with the most.",
        data={"reaped": count, "nodes": {node_id or "": number for node_id, number in report.past.zombies.items()}},
    )


def request_timeouts(report: HealthReport) -> Iterator[Finding]:
    """Models whose requests time out or take far longer than usual."""
    totals = _by("model", report.past.served)
    timed_out = _by("model", (each for each in report.past.trouble if each.error_type in TIMEOUTS))
    paces = {pace.model: pace for pace in report.past.paces}
    for model, total in sorted(totals.items()):
        pace = paces.get(model)
        slow = pace.slow if pace else 0
        late = slow + timed_out[model]
        much = share(late, total) * 100 > report.threshold("health_slow_pct")
        if late < LEAST_SLOW or total < report.threshold("health_min_requests") or not much:
            continue
        told = [f"{timed_out[model]:,} timed out"] if timed_out[model] else []
        if pace and slow:
            usual = f"p95 is {span(pace.p95_s)}"
            told.insert(0, f"{slow:,} took over {span(pace.limit_s)} ({usual})")
        yield Finding(
            "request_timeouts",
            Severity.WARNING,
            f"Slow requests for {model}",
            f"Of {many(total, 'request')} in 24 h, {' and '.join(told)}: {percent(share(late, total))}.",
            f"`herd traces --model {model}` shows where the time went: queue, load or answer. For queue and load, add "
            "slots or another node with the model, or use a smaller model. `stall_timeout_s` and "
            "`first_byte_timeout_s` limit the answer.",
            model=model,
            data={"slow": slow, "timed_out": timed_out[model], "requests": total,
                  "limit_s": round(pace.limit_s, 3) if pace else None,
                  **({"shows": shows(slow, "request", report.at - DAY_S, model=model, status="completed",
                                     min_latency_ms=pace.limit_s * 1000)} if pace and slow else {})},
        )  # fmt: skip


def error_rate(report: HealthReport) -> Iterator[Finding]:
    """Nodes and models with a high failure rate, not counting client errors."""
    failures = [each for each in report.past.trouble
                if each.status == "failed" and each.error_type not in NOT_OURS]  # fmt: skip
    tried = [each for each in report.past.served if each.status != "rejected"]
    for kind in KINDS:
        totals, failed = _by(kind, tried), _by(kind, failures)
        for name, total in sorted(totals.items()):
            severity = _error_severity(report, failed[name], total)
            if severity:
                types: Counter[str] = Counter()
                for each in failures:
                    types[each.error_type or "unknown"] += each.requests * (getattr(each, kind) == name)
                found = _errors(kind, name, severity, failed[name], total, +types)
                if sum(types.values()) == _failed_of(report, kind, name):
                    listing = shows(failed[name], "request", report.at - DAY_S, status="failed", **{kind: name})
                    found = replace(found, data={**found.data, "shows": listing})
                yield found


def _failed_of(report: HealthReport, kind: Kind, name: str) -> int:
    """All requests that failed, clients' mistakes too: what a list of the failed would have."""
    return _by(kind, (each for each in report.past.trouble if each.status == "failed"))[name]


def _errors(kind: Kind, name: str, severity: Severity, failed: int, total: int, types: Counter[str]) -> Finding:
    option = {"node_id": "node", "model": "model"}[kind]
    return Finding(
        "error_rate",
        severity,
        f"High error rate {'on' if kind == 'node_id' else 'for'} {name}",
        f"{failed:,} of {many(total, 'request')} in 24 h failed ({percent(share(failed, total))}): "
        f"{most(types.items())}.",
        f"`herd traces --status failed --{option} {name}` lists them; `herd docs errors` explains the error types.",
        node_id=name if kind == "node_id" else None,
        model=name if kind == "model" else None,
        data={"failed": failed, "requests": total, "error_types": dict(types)},
    )


def _error_severity(report: HealthReport, failed: int, total: int) -> Severity | None:
    pct = share(failed, total) * 100
    if total < report.threshold("health_min_requests") or pct <= report.threshold("health_error_warning_pct"):
        return None
    return Severity.CRITICAL if pct > report.threshold("health_error_critical_pct") else Severity.WARNING


def retry_rate(report: HealthReport) -> Iterator[Finding]:
    """Requests that have to be retried on another node."""
    tried = [each for each in report.past.served if each.node_id is not None]
    total, retries = sum(each.requests for each in tried), sum(each.retries for each in tried)
    rate = share(retries, total)
    if total < report.threshold("health_min_requests") or rate <= report.threshold("health_retry_info"):
        return
    failing = most((tries.node_id, tries.failed) for tries in report.past.tries if tries.failed)
    yield Finding(
        "retry_rate",
        Severity.WARNING if rate > report.threshold("health_retry_warning") else Severity.INFO,
        "High retry rate",
        f"{retries:,} retries for {many(total, 'request')} in 24 h ({rate:.2f} per request)."
        + (f" Failed attempts in the last hour: {failing}." if failing else ""),
        "The node that fails most costs every request that goes there its first attempt: `herd traces --tried NODE` "
        "lists them; drain it (`POST /fleet/nodes/NODE/drain` at this router's address) while it is repaired.",
        data={
            "retries": retries,
            "requests": total,
            "rate": round(rate, 3),
            "shows": shows(retries, "retry", report.at - DAY_S, retried=True),
        },
    )


def client_disconnects(report: HealthReport) -> Iterator[Finding]:
    """Clients that disconnect before the answer is complete."""
    yield from _ended_so(
        report,
        "client_disconnects",
        "client_disconnected",
        "health_disconnects_pct",
        "Clients disconnect early",
        ("client disconnected before the answer was complete", "clients disconnected before the answer was complete"),
        "Client timeouts are often shorter than a cold load or a queue. `herd traces --status client_disconnected` "
        "shows how long they waited. Raise the client's timeout, use streaming, or keep the model loaded.",
    )


def incomplete_streams(report: HealthReport) -> Iterator[Finding]:
    """Streams that end without their proper end marker."""
    yield from _ended_so(
        report,
        "incomplete_streams",
        "incomplete",
        "health_incomplete_pct",
        "Incomplete streams",
        ("answer ended without its end marker", "answers ended without their end marker"),
        '`grep "Stream error" logs/herd.jsonl` in the data directory lists them by node. Typical causes: an engine '
        "that ran out of memory or was restarted, or an idle timeout in the network.",
    )


def _ended_so(
    report: HealthReport, check_id: str, status: str, threshold: str, title: str, what: tuple[str, str], fix: str
) -> Iterator[Finding]:
    tried = [each for each in report.past.served if each.status != "rejected"]
    total = sum(each.requests for each in tried)
    found = [each for each in tried if each.status == status]
    count = sum(each.requests for each in found)
    much = share(count, total) * 100 > report.threshold(threshold)
    if total < report.threshold("health_min_requests") or not much:
        return
    models, nodes = _by("model", found), _by("node_id", found)
    yield Finding(
        check_id,
        Severity.WARNING,
        title,
        f"Of {many(total, 'request')} in 24 h, {count:,} {what[count != 1]} ({percent(share(count, total))}). "
        f"By model: {most(models.items())}. By node: {most(nodes.items()) or 'none'}.",
        fix,
        share=share(count, total),
        data={
            "count": count,
            "requests": total,
            "models": dict(models),
            "nodes": dict(nodes),
            "shows": shows(count, "request", report.at - DAY_S, status=status),
        },
    )


def slo_burn(report: HealthReport) -> Iterator[Finding]:
    """Failures burn the month's error budget too fast."""
    objective = report.threshold("health_slo_pct") / 100
    for factor, long, short, severity in BURNS:
        (bad, total), (lately, of) = _budget(report, long), _budget(report, short)
        bound = factor * (1 - objective)
        if total < report.threshold("health_min_requests") or share(bad, total) <= bound or share(lately, of) <= bound:
            continue
        yield Finding(
            "slo_burn",
            severity,
            "Error budget is burning too fast",
            f"{bad:,} of {many(total, 'request')} in {long} failed or were rejected ({percent(share(bad, total))}), "
            f"and {lately:,} of {of:,} in {short}: {share(bad, total) / (1 - objective):.1f} times the rate that an "
            f"objective of {objective * 100:g}% allows.",
            "The other findings show what fails. Rejected requests (`herd traces --status rejected`) mean too few "
            "slots, or no node for the model.",
            share=share(bad, total),
            data={"bad": bad, "requests": total, "window": long, "objective_pct": objective * 100},
        )
        return  # the fastest burn is enough


def _budget(report: HealthReport, window: str) -> tuple[int, int]:
    """Requests that failed on our side within a window, and all that count; client errors and disconnects do not."""
    bad = sum(each.recent.get(window, 0) for each in report.past.trouble if _is_ours(each))
    good = sum(each.recent.get(window, 0) for each in report.past.served if each.status == "completed")
    return bad, bad + good


def _is_ours(each: Trouble) -> bool:
    return each.status in {"failed", "incomplete", "rejected"} and each.error_type not in NOT_OURS


def _by(kind: Kind, found: Iterable[Trouble | Served]) -> Counter[str]:
    """Requests by node or by model; those without one are left out."""
    counts: Counter[str] = Counter()
    for each in found:
        if (name := getattr(each, kind)) is not None:
            counts[name] += each.requests
    return counts
