"""Groups findings for the operator, one entry per check, and computes the health score.

Episodes stay one per subject, so that a silence or a note applies to exactly one node or model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import ceil
from typing import Final

from herd.core.finding import Episode, Finding, Severity
from herd.core.health.checks import BY_ID
from herd.core.health.of_nodes import no_node_ready
from herd.core.health.report import HealthReport

POINTS: Final = {Severity.INFO: 0, Severity.WARNING: 20, Severity.CRITICAL: 60}  # with the whole fleet affected
LISTED: Final = 6
ID_SEPARATOR: Final = ","


@dataclass(frozen=True, slots=True)
class Entry:
    """A check's findings as one: an episode that represents `parts`, one per node or model."""

    episode: Episode
    parts: tuple[Episode, ...]


def entries(episodes: Sequence[Episode], now: float) -> tuple[Entry, ...]:
    """One entry per check, worst first; silenced and acknowledged findings get entries of their own."""

    def group(episode: Episode) -> tuple[str, bool, bool]:
        return episode.finding.check_id, episode.silenced(now), episode.acknowledged_at is not None

    grouped = groupby(sorted(episodes, key=group), key=group)
    found = [_entry(tuple(parts)) for _, parts in grouped]
    order = [each.finding.check_id for each in episodes]
    return tuple(sorted(found, key=lambda each: (-each.episode.finding.severity.rank,
                                                 order.index(each.episode.finding.check_id))))  # fmt: skip


def _entry(parts: tuple[Episode, ...]) -> Entry:
    worst = max(parts, key=lambda each: each.finding.severity.rank)
    if len(parts) == 1:
        return Entry(worst, parts)
    first, check = worst.finding, BY_ID.get(worst.finding.check_id)
    lines = [f"{_subject(each.finding)}: {each.finding.description}" for each in parts]
    more = len(lines) - LISTED
    whole = replace(
        first,
        title=f"{len(parts)} {check.many}" if check and check.many else first.title,
        description=" ".join([*lines[:LISTED], *([f"And {more} more."] if more > 0 else [])]),
        node_id=_only({each.finding.node_id for each in parts}),
        model=_only({each.finding.model for each in parts}),
        data={
            "nodes": _names(each.finding.node_id for each in parts),
            "models": _names(each.finding.model for each in parts),
        },
    )
    episode = replace(
        worst,
        id=ID_SEPARATOR.join(each.id for each in parts) if all(each.id for each in parts) else "",
        finding=whole,
        first_seen=min(each.first_seen for each in parts),
        last_seen=max(each.last_seen for each in parts),
        silenced_until=min((each.silenced_until for each in parts if each.silenced_until is not None), default=None),
    )
    return Entry(episode, parts)


def _subject(finding: Finding) -> str:
    return " on ".join(name for name in (finding.model, finding.node_id) if name) or "the router"


def _only(names: set[str | None]) -> str | None:
    return names.pop() if len(names) == 1 else None


def _names(names: Iterable[str | None]) -> list[str]:
    return sorted({name for name in names if name is not None})


def score(report: HealthReport, findings: Iterable[Finding]) -> int:
    """100 minus, per check, 60 (critical) or 20 (warning) times the affected share of the fleet.

    At least one point per check with such a finding; 0 if no node can accept requests.
    """
    cost: dict[str, dict[object, float]] = {}
    worst: dict[str, int] = {}
    for finding in findings:
        points = POINTS[finding.severity]
        if finding.check_id == no_node_ready.__name__:
            return 0
        if points:
            subject = finding.node_id or finding.model
            costs = cost.setdefault(finding.check_id, {})
            costs[subject] = max(costs.get(subject, 0.0), points * affected(report, finding))
            worst[finding.check_id] = max(worst.get(finding.check_id, 0), points)
    return max(0, 100 - sum(max(1, ceil(min(worst[name], sum(each.values())) - 1e-9)) for name, each in cost.items()))


def affected(report: HealthReport, finding: Finding) -> float:
    """The affected share of the fleet (0 to 1): of its nodes, else of the day's requests."""
    if finding.node_id is not None:
        return 1 / max(1, len(report.nodes))
    if finding.model is not None:
        total = sum(each.requests for each in report.past.served)
        return sum(each.requests for each in report.past.served if each.model == finding.model) / max(1, total)
    return finding.share
