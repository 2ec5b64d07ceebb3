"""The checks that look at how requests end: failed, retried, slow, given up, broken off, or over the error budget."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final, Literal

from herd.core.finding import Finding, Severity
from herd.core.health.amounts import many, most, percent, share, shows, span
from herd.core.health.report import DAY_S, HealthReport, Served, Trouble

TIMEOUTS: Final = frozenset({"connect_timeout", "first_byte_timeout", "stall_timeout", "queue_timeout"})
CLIENTS_MISTAKES: Final = frozenset({"bad_request", "unauthorized", "model_missing", "upstream_4xx"})
Kind = Literal["node_id", "model"]
KINDS: Final[tuple[Kind, ...]] = ("node_id", "model")
LEAST_SLOW: Final = 3  # one slow request is an accident
# Burn rates of the error budget: factor, long window, short window, how bad. Those of the Site Reliability Workbook,
# chapter 5, as far as a day reaches: 2, 5 and 10 % of a month's budget spent within the long window.
BURNS: Final = (
    (14.4, "1h", "5m", Severity.CRITICAL),
    (6.0, "6h", "30m", Severity.CRITICAL),
    (3.0, "1d", "2h", Severity.WARNING),
)


def zombie_reaper(report: HealthReport) -> Iterator[Finding]:
    """Requests that were stuck and had to be ended from outside."""
    count = sum(report.past.zombies.values())
    if not count:
        return
    where = most((node_id or "no node", number) for node_id, number in report.past.zombies.items())
    critical = count > report.threshold("health_zombies_critical")
    yield Finding(
        "zombie_reaper",
        Severity.CRITICAL if critical else Severity.WARNING,
        "Stuck requests had to be ended",
        f"{many(count, 'request')} in 24 h moved no further within any limit and were reaped: {where}.",
        "`sqlite3 latency.db \"SELECT * FROM fleet_events WHERE kind = 'zombie_reaped'\"` in the data "
        "directory has their ids, `herd explain` their lives. Restart the engine of the node where most of them were.",
        data={"reaped": count, "nodes": {node_id or "": number for node_id, number in report.past.zombies.items()}},
    )


def request_timeouts(report: HealthReport) -> Iterator[Finding]:
    """Models whose requests time out, or take far longer than they usually do."""
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
            usual = f"where 95 of 100 take under {span(pace.p95_s)}"
            told.insert(0, f"{slow:,} took over {span(pace.limit_s)}, {usual}")
        yield Finding(
            "request_timeouts",
            Severity.WARNING,
            f"Requests for {model} take too long",
            f"Of {many(total, 'request')} in 24 h {'; '.join(told)} ({percent(share(late, total))}).",
            f"`herd traces --model {model}` shows where the time went: queue, load or answer. More slots, another node "
            "with the model, or a smaller model help against the first two; `stall_timeout_s` and "
            "`first_byte_timeout_s` bound the last.",
            model=model,
            data={"slow": slow, "timed_out": timed_out[model], "requests": total,
                  "limit_s": round(pace.limit_s, 3) if pace else None,
                  **({"shows": shows(slow, "request", report.at - DAY_S, model=model, status="completed",
                                     min_latency_ms=pace.limit_s * 1000)} if pace and slow else {})},
        )  # fmt: skip


def error_rate(report: HealthReport) -> Iterator[Finding]:
    """Nodes and models whose requests fail, client mistakes left out."""
    failures = [each for each in report.past.trouble
                if each.status == "failed" and each.error_type not in CLIENTS_MISTAKES]  # fmt: skip
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
        f"Requests fail {'on' if kind == 'node_id' else 'for'} {name}",
        f"{failed:,} of {many(total, 'request')} in 24 h failed ({percent(share(failed, total))}): "
        f"{most(types.items())}.",
        f"`herd traces --status failed --{option} {name}` lists them, `herd docs errors` explains the types.",
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
    """How often a request has to be tried on a further node."""
    tried = [each for each in report.past.served if each.node_id is not None]
    total, retries = sum(each.requests for each in tried), sum(each.retries for each in tried)
    rate = share(retries, total)
    if total < report.threshold("health_min_requests") or rate <= report.threshold("health_retry_info"):
        return
    failing = most((tries.node_id, tries.failed) for tries in report.past.tries if tries.failed)
    yield Finding(
        "retry_rate",
        Severity.WARNING if rate > report.threshold("health_retry_warning") else Severity.INFO,
        "Many requests need a second node",
        f"{retries:,} retries for {many(total, 'request')} in 24 h ({rate:.2f} each)."
        + (f" Attempts that failed in the last hour: {failing}." if failing else ""),
        "The node that fails most costs every request that goes there its first attempt: `herd traces --tried NODE` "
        "lists them; drain it (`POST /fleet/nodes/NODE/drain` at this router's address) while it is repaired.",
        data={"retries": retries, "requests": total, "rate": round(rate, 3),
              "shows": shows(retries, "retry", report.at - DAY_S, retried=True)},
    )


def client_disconnects(report: HealthReport) -> Iterator[Finding]:
    """Clients that leave before their answer is whole."""
    yield from _ended_so(
        report,
        "client_disconnects",
        "client_disconnected",
        "health_disconnects_pct",
        "Clients leave before the answer",
        ("client left before its answer was whole", "clients left before their answer was whole"),
        "Their own timeout is often shorter than a cold load or a queue: `herd traces --status client_disconnected` "
        "shows how long they waited. Raise it in the client, stream, or keep the model loaded.",
    )


def incomplete_streams(report: HealthReport) -> Iterator[Finding]:
    """Answers that began and did not reach their proper end."""
    yield from _ended_so(
        report,
        "incomplete_streams",
        "incomplete",
        "health_incomplete_pct",
        "Answers break off",
        ("answer began and did not reach its proper end", "answers began and did not reach their proper end"),
        '`grep "Stream error" logs/herd.jsonl` in the data directory has each with its node. Look there for an engine '
        "that ran out of memory or was restarted, and at the network for idle timeouts.",
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
        f"Of {many(total, 'request')} in 24 h {count:,} {what[count != 1]} ({percent(share(count, total))}), by model: "
        f"{most(models.items())}; by node: {most(nodes.items()) or 'none'}.",
        fix,
        share=share(count, total),
        data={"count": count, "requests": total, "models": dict(models), "nodes": dict(nodes),
              "shows": shows(count, "request", report.at - DAY_S, status=status)},
    )


def slo_burn(report: HealthReport) -> Iterator[Finding]:
    """Whether requests fail so fast that the month's error budget will not last."""
    objective = report.threshold("health_slo_pct") / 100
    for factor, long, short, severity in BURNS:
        (bad, total), (lately, of) = _budget(report, long), _budget(report, short)
        bound = factor * (1 - objective)
        if total < report.threshold("health_min_requests") or share(bad, total) <= bound or share(lately, of) <= bound:
            continue
        yield Finding(
            "slo_burn",
            severity,
            "Requests fail faster than the objective allows",
            f"{bad:,} of {many(total, 'request')} in {long} failed or were refused ({percent(share(bad, total))}), and "
            f"{lately:,} of {of:,} in {short}: {share(bad, total) / (1 - objective):.1f} times what an objective of "
            f"{objective * 100:g} % allows.",
            "The other findings say what fails. Where requests are refused (`herd traces --status rejected`), there "
            "are too few slots or no node for the model.",
            share=share(bad, total),
            data={"bad": bad, "requests": total, "window": long, "objective_pct": objective * 100},
        )
        return  # the fastest burn says it all


def _budget(report: HealthReport, window: str) -> tuple[int, int]:
    """Requests that failed on our side within a window, and all that count; clients' mistakes and leavings do not."""
    bad = sum(each.recent.get(window, 0) for each in report.past.trouble if _is_ours(each))
    good = sum(each.recent.get(window, 0) for each in report.past.served if each.status == "completed")
    return bad, bad + good


def _is_ours(each: Trouble) -> bool:
    return each.status in {"failed", "incomplete", "rejected"} and each.error_type not in CLIENTS_MISTAKES


def _by(kind: Kind, found: Iterable[Trouble | Served]) -> Counter[str]:
    """Requests by node or by model; those without one are left out."""
    counts: Counter[str] = Counter()
    for each in found:
        if (name := getattr(each, kind)) is not None:
            counts[name] += each.requests
    return counts
