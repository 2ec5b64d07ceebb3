"""From the running router to the values of a report: the fleet's entries as facts, and losses of the last hour.

Reads what others hold; asks no node and no database.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from herd.core.clock import Moment
from herd.core.health.report import LoadedFacts, NodeFacts
from herd.fleet.entry import Entry
from herd.wire import canonical_name

HOUR_S: Final = 3600.0
STEP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Lost:
    """What was lost since the router began: rows and other events of the store, log lines, spans, events by defects."""

    rows: int = 0
    log_lines: int = 0
    spans: int = 0
    events: int = 0


class Losses:
    """How much of each was lost within the last hour, from totals that only rise."""

    def __init__(self) -> None:
        self._past: deque[tuple[float, Lost]] = deque([(0.0, Lost())])

    def within_an_hour(self, total: Lost, now: float) -> Lost:
        """What is in `total` and was not an hour ago."""
        if now - self._past[-1][0] >= STEP_S:
            self._past.append((now, total))
        while len(self._past) > 1 and now - self._past[1][0] >= HOUR_S:
            self._past.popleft()
        before = self._past[0][1]
        return Lost(
            total.rows - before.rows,
            total.log_lines - before.log_lines,
            total.spans - before.spans,
            total.events - before.events,
        )


def node_facts(entry: Entry, in_flight: int, first_seen: float | None, now: Moment) -> NodeFacts:
    """One node as a report has it."""
    beat, node = entry.heartbeat, entry.node
    return NodeFacts(
        node_id=node.node_id,
        status=node.status,
        left=entry.left,
        awaited=entry.awaited_since is not None,
        draining=node.draining,
        reachable=node.engine_reachable,
        engine_error=beat.engine.error,
        silent_s=entry.silent_s(now),
        agent_version=beat.agent_version,
        engine_version=beat.engine.version,
        clock_skew_s=entry.clock_skew_s,
        pressure=node.pressure,
        memory_total=node.memory_total,
        memory_available=node.memory_available,
        vram_total=node.vram_total,
        vram_used=node.vram_total - node.vram_free,
        disk_total=beat.disk.total_bytes if beat.disk else None,
        disk_free=beat.disk.free_bytes if beat.disk else None,
        models=frozenset(node.models),
        loaded=tuple(_loaded(entry)),
        in_flight=in_flight,
        breakers=entry.breakers(now),
        known_s=0.0 if first_seen is None else max(0.0, now.at - first_seen),
    )


def _loaded(entry: Entry) -> Iterator[LoadedFacts]:
    for model in entry.heartbeat.engine.loaded:
        name = canonical_name(model.name)
        on_disk = entry.node.models.get(name)
        spilled = max(0, model.size_bytes - model.vram_bytes) if entry.node.vram_total else 0
        weights = on_disk.size_bytes if on_disk else 0
        yield LoadedFacts(name, model.size_bytes, weights, model.context_length, spilled)
