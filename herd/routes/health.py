"""Health's surface: score, findings with what to do, every check, the history, and what an operator says of them."""

from collections import Counter
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from herd.core.finding import Episode
from herd.core.health.amounts import share
from herd.core.health.checks import BY_ID, CHECKS, Check
from herd.core.health.report import HealthReport
from herd.core.health.whole import ID_SEPARATOR, Entry, entries
from herd.dataplane.document import object_in
from herd.jobs.health_watch import HealthWatch, Picture
from herd.routes.parameters import only_known
from herd.routes.surface import surface_of
from herd.routes.tables import AsciiJSON
from herd.store.queries import StoreUnreadable

router = APIRouter(prefix="/dashboard/api/health", dependencies=[only_known])
Document = dict[str, Any]
LONGEST_NOTE: Final = 1000
MOST_HOURS: Final = 24.0 * 365


@router.get("")
async def health(request: Request) -> Response:
    """Fleet health: vitals, a score from 0 to 100, findings (worst first), and all checks."""
    picture = await _watch(request).look()
    report = picture.report
    return AsciiJSON({
        "vitals": vitals(picture),
        "health_score": picture.score,
        "recommendations": [_entry(entry, report.at) for entry in picture.entries],
        "checks": [_check(check, picture) for check in CHECKS],
        "checked_at": report.at,
    })  # fmt: skip


@router.get("/findings")
async def findings(
    request: Request,
    state: Literal["open", "resolved", "all"] = "open",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Response:
    """Findings with their first and last time, newest first."""
    watch = _watch(request)
    try:
        found = await watch.past(state, limit)
    except StoreUnreadable as error:
        return AsciiJSON({"error": str(error)}, 503)
    at = watch.picture.report.at if watch.picture else 0.0
    return AsciiJSON({"findings": [told(episode, at) for episode in found]})


@router.post("/findings/{finding_id}/acknowledge")
async def acknowledge(request: Request, finding_id: str) -> Response:
    """Acknowledge a finding: `{"note": "…"}`; an empty note keeps the previous one. It still lowers the score.

    Several ids can be joined with commas, as in an entry of `recommendations` with `parts`.
    """
    note = _field(await request.body(), "note", "")
    if not isinstance(note, str) or len(note) > LONGEST_NOTE:
        return _wrong("note", f"a string of at most {LONGEST_NOTE} characters")
    return _said(request, finding_id, lambda watch, each: watch.acknowledge(each, note))


@router.post("/findings/{finding_id}/silence")
async def silence(request: Request, finding_id: str) -> Response:
    """Silence a finding for some hours: `{"hours": 8}`; 0 unsilences it. It costs no points. Ids as above."""
    hours = _field(await request.body(), "hours", None)
    if not isinstance(hours, int | float) or isinstance(hours, bool) or not 0 <= hours <= MOST_HOURS:
        return _wrong("hours", f"a number from 0 to {MOST_HOURS:.0f}")
    return _said(request, finding_id, lambda watch, each: watch.silence(each, float(hours)))


def vitals(picture: Picture) -> Document:
    """The key figures next to the score; requests are counted over 24 hours."""
    report = picture.report
    here = [node for node in report.nodes if node.here]
    return {
        "nodes_total": len(report.nodes),
        "nodes_online": len(here),
        "nodes_degraded": sum(node.status == "degraded" for node in here),
        "models_loaded": sum(len(node.loaded) for node in here),
        "requests_active": sum(node.in_flight for node in here),
        "requests_waiting": report.waiting,
        "store_up": report.telemetry.store_up and report.telemetry.readable,
        **_day(report),
        "findings": Counter(
            each.episode.finding.severity.value for each in picture.entries if not each.episode.silenced(report.at)
        ),
        "silenced": len(picture.episodes) - len(picture.heard),
    }


def _day(report: HealthReport) -> Document:
    if report.history is None:
        return {"requests_24h": None, "by_status_24h": {}, "retries_per_request": None, "fallback_pct": None}
    served = report.history.served
    by_status: Counter[str] = Counter()
    for each in served:
        by_status[each.status] += each.requests
    total = by_status.total()
    return {
        "requests_24h": total,
        "by_status_24h": by_status,
        "retries_per_request": round(share(sum(each.retries for each in served), total), 4),
        "fallback_pct": round(100 * share(sum(each.requests for each in report.history.fallbacks), total), 2),
    }


def told(episode: Episode, at: float) -> Document:
    """A finding as a document; `silenced_until` only while it is."""
    finding = episode.finding
    return {
        "id": episode.id or None,
        "check_id": finding.check_id,
        "severity": finding.severity.value,
        "title": finding.title,
        "description": finding.description,
        "fix": finding.fix,
        "runbook": BY_ID[finding.check_id].runbook if finding.check_id in BY_ID else None,
        "node_id": finding.node_id,
        "model": finding.model,
        "data": dict(finding.data),
        "first_seen": episode.first_seen,
        "last_seen": episode.last_seen,
        "resolved_at": episode.resolved_at,
        "acknowledged": episode.acknowledged_at and {"at": episode.acknowledged_at, "note": episode.note},
        "silenced_until": episode.silenced_until if episode.silenced(at) else None,
    }


def _entry(entry: Entry, at: float) -> Document:
    """A check's findings as one; `parts` are the single ones where they are several."""
    parts = [told(episode, at) for episode in entry.parts] if len(entry.parts) > 1 else []
    return {**told(entry.episode, at), "parts": parts}


def _check(check: Check, picture: Picture) -> Document:
    """`pass`, `fail`, `silenced`, or `unknown` where the store would know and cannot be read."""
    mine = [episode for episode in picture.episodes if episode.finding.check_id == check.check_id]
    heard = [finding for finding in picture.heard if finding.check_id == check.check_id]
    unknown = check.history and picture.report.history is None
    status = "fail" if heard else "silenced" if mine else "unknown" if unknown else "pass"
    return {
        "check_id": check.check_id,
        "status": status,
        "severity": max((finding.severity for finding in heard), key=lambda found: found.rank, default=None),
        "findings": len(mine),
        "finds": check.finds,
        "thresholds": {name: picture.report.threshold(name) for name in check.thresholds},
        "runbook": check.runbook,
    }


def _watch(request: Request) -> HealthWatch:
    return surface_of(request).health


def _said(request: Request, finding_ids: str, say: Callable[[HealthWatch, str], Episode]) -> Response:
    """Say it of one finding, or of each of several, whose ids stand with commas between them."""
    watch, each_id = _watch(request), finding_ids.split(ID_SEPARATOR)
    if not all(map(watch.is_open, each_id)):
        text = f"there is no open finding {finding_ids!r}; `herd health` lists them with their ids"
        return AsciiJSON({"error": text}, 404)
    said = [say(watch, finding_id) for finding_id in each_id]
    at = max(episode.last_seen for episode in said)
    return AsciiJSON(_entry(entries(said, at)[0], at))


def _field(body: bytes, name: str, otherwise: object) -> Any:
    """A field of the body, whose Content-Type does not matter; None where the body is no object."""
    found = object_in(body or b"{}")
    return None if found is None else found.get(name, otherwise)


def _wrong(field: str, wanted: str) -> Response:
    text = f"{field} is {wanted}"
    return AsciiJSON({"error": text, "fields": [{"field": field, "message": text}]}, 422)
