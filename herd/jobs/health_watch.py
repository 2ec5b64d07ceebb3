"""Looks after the fleet's health: gathers a report, has it checked, keeps the findings' history, tells of alerts.

One look at a time; whoever asks within a moment of it gets the same picture. What the store says is asked off the event
loop, and the longer that takes, the less often.
"""

import asyncio
import logging
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from herd import __version__
from herd.core.clock import moment
from herd.core.events import Event, FindingChanged
from herd.core.finding import Episode, Finding
from herd.core.health.checks import evaluate
from herd.core.health.ledger import Alert, Ledger
from herd.core.health.of_nodes import no_node_ready
from herd.core.health.report import HealthReport, History, NodeFacts, Telemetry
from herd.core.health.whole import Entry, entries, score
from herd.fleet.cell import Cell
from herd.jobs.health_facts import Losses, Lost, node_facts
from herd.jobs.webhook import Webhook
from herd.settings.table import NUMBERS
from herd.settings.values import Settings
from herd.store.queries import Reader, StoreUnreadable
from herd.store.writer import StoreStats
from herd.telemetry.scrape import HealthView

logger = logging.getLogger(__name__)
EVERY_S: Final = 30.0
FRESH_S: Final = 1.0  # a picture is given out again for so long
STARTING_S: Final = 10.0  # how long a store may take to open before that is worth a finding
USUAL_EVERY_S: Final = 600.0  # what is usual does not change by the minute
RELIEF: Final = 20.0  # the store is left alone for so many times what the last question took
REMEMBERED: Final = 1000  # findings of the past that are looked through for silences at a start
DEFECTS: Final = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Picture:
    """What a look found: the report, and each finding with its episode; silenced ones cost no points."""

    report: HealthReport
    episodes: tuple[Episode, ...] = ()

    @property
    def heard(self) -> tuple[Finding, ...]:
        """The findings that the operator wants to hear of."""
        return tuple(each.finding for each in self.episodes if not each.silenced(self.report.at))

    @property
    def score(self) -> int:
        """0 to 100."""
        return score(self.report, self.heard)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What to show: one entry a check."""
        return entries(self.episodes, self.report.at)


@dataclass(frozen=True, slots=True)
class Records:
    """What herd's own records tell of themselves, each asked at the moment of a look."""

    store: Callable[[], StoreStats]
    lost: Callable[[], Lost]


class HealthWatch:
    """The one place where health is looked at; `run` does so every half minute, `look` when somebody asks."""

    def __init__(
        self, cell: Cell, reader: Reader, settings: Settings, records: Records, emit: Callable[[Event], None]
    ) -> None:
        self._cell = cell
        self._emit = emit
        self._reader = reader
        self._settings = settings
        self._records = records
        self.webhook = Webhook(settings, self._alert_told)
        self.picture: Picture | None = None
        self._ledger = Ledger(lambda: uuid.uuid4().hex[:8])
        self._losses = Losses()
        self._began = time.time()
        self._restored = False
        self._one_at_a_time = asyncio.Lock()
        self._history: History | None = None
        self._fresh_until = self._history_until = self._usual_until = 0.0
        self._usual: dict[str, float] = {}

    async def run(self) -> None:
        """Look every half minute, until cancelled; a defect in a check must not end the watch."""
        while True:
            await asyncio.sleep(EVERY_S if self.picture else FRESH_S)
            try:
                await self.look()
            except DEFECTS:
                logger.exception("Health could not be looked at")

    async def look(self) -> Picture:
        """The picture of now, or of a moment ago."""
        async with self._one_at_a_time:
            now = time.time()
            if self.picture is None or not self._fresh_until - FRESH_S <= now < self._fresh_until:
                self.picture = await self._look(now)
                self._fresh_until = now + FRESH_S
            return self.picture

    def view(self) -> HealthView | None:
        """The last picture as a scrape shows it; None before the first."""
        if self.picture is None:
            return None
        counts = Counter((finding.check_id, finding.severity.value) for finding in self.picture.heard)
        return HealthView(self.picture.score, counts)

    def is_open(self, episode_id: str) -> bool:
        """Whether there is an open finding of this id."""
        return any(episode.id == episode_id for episode in self._ledger.open.values())

    def acknowledge(self, episode_id: str, note: str) -> Episode:
        """The operator knows of a finding. KeyError where no open one has the id."""
        return self._told(self._ledger.acknowledge(episode_id, note, time.time()))

    def silence(self, episode_id: str, hours: float) -> Episode:
        """The operator wants to hear nothing of a finding for so long; 0 ends that. KeyError as above."""
        now = time.time()
        return self._told(self._ledger.silence(episode_id, now + hours * 3600, now))

    async def past(self, state: str, limit: int) -> list[Episode]:
        """The findings' history, the latest first, what is open as it is now. Raises StoreUnreadable."""
        await self.look()
        now_open = sorted(self._ledger.open.values(), key=lambda episode: -episode.last_seen)
        if state == "open":
            return now_open[:limit]
        over = await self._reader.ask(self._reader.episodes, "resolved", limit)
        return [*(now_open if state == "all" else []), *over][:limit]

    async def _look(self, now: float) -> Picture:
        await self._restore(now)
        history = await self._past_day(now)
        disk = await asyncio.to_thread(_disk, self._settings)
        report = self._report(now, history, disk)
        findings = self._with_awaited(await asyncio.to_thread(evaluate, report), report)
        if self._restored:
            resolve_after_s = self._settings.number("health_resolve_after_s")
            taken = self._ledger.take(findings, now, resolve_after_s, self.webhook.wanted)
            for change in taken.changes:
                self._emit(change)
            for alert in taken.alerts:
                self.webhook.put(alert)
        return Picture(report, tuple(self._episode(finding, now) for finding in findings))

    def _with_awaited(self, findings: tuple[Finding, ...], report: HealthReport) -> tuple[Finding, ...]:
        """What was found of a node before a restart stands while the node may still report: nothing contradicts it."""
        awaited, found = {node.node_id for node in report.nodes if node.awaited}, {each.subject for each in findings}
        stands = (each.finding for subject, each in self._ledger.open.items() if subject not in found)
        unready = awaited and not any(node.ready for node in report.nodes)
        more = [each for each in stands
                if each.node_id in awaited or (unready and each.check_id == no_node_ready.__name__)]  # fmt: skip
        return tuple(sorted((*findings, *more), key=lambda finding: -finding.severity.rank))

    def _episode(self, finding: Finding, now: float) -> Episode:
        return self._ledger.open.get(finding.subject) or Episode("", finding, now, now)

    def _alert_told(self, alert: Alert) -> None:
        if alert.status == "firing" and (change := self._ledger.told(alert.episode.id, time.time())):
            self._emit(change)

    def _told(self, change: FindingChanged) -> Episode:
        self._emit(change)
        self._fresh_until = 0.0  # the next one who asks sees it
        return change.episode

    async def _restore(self, now: float) -> None:
        """Take over what was kept before a restart; where the store stays unreadable, begin anew."""
        if self._restored:
            return
        try:
            past = await self._reader.ask(self._reader.episodes, "all", REMEMBERED)
        except StoreUnreadable:
            self._restored = now - self._began > STARTING_S
            return
        self._ledger.restore(past, now)
        self._restored = True

    async def _past_day(self, now: float) -> History | None:
        """What the store says of the last day; None where it cannot be read."""
        if now < self._history_until:
            return self._history
        begun = time.monotonic()
        try:
            if now >= self._usual_until:
                self._usual = await self._reader.ask(self._reader.usual_latency)
                self._usual_until = now + USUAL_EVERY_S
                begun = time.monotonic()
            self._history = await self._reader.ask(self._reader.health, now, self._limits())
        except StoreUnreadable:
            self._history = None
        self._history_until = now + max(FRESH_S, RELIEF * (time.monotonic() - begun))
        return self._history

    def _limits(self) -> dict[str, tuple[float, float]]:
        factor, floor_s = self._settings.number("health_slow_factor"), self._settings.number("health_slow_floor_s")
        return {model: (usual, max(floor_s, factor * usual)) for model, usual in self._usual.items()}

    def _report(self, now: float, history: History | None, disk: tuple[int, int] | None) -> HealthReport:
        return HealthReport(
            at=now,
            router_version=__version__,
            nodes=self._nodes(history or History()),
            history=history,
            telemetry=self._telemetry(now, history is not None, disk),
            waiting=sum(self._cell.slots.depths().values()),
            thresholds={name: self._settings.number(name) for name in NUMBERS},
        )

    def _nodes(self, history: History) -> tuple[NodeFacts, ...]:
        entries, in_flight, now = self._cell.entries, self._cell.slots.in_flight(), moment()
        return tuple(
            node_facts(entry, sum(in_flight.get(name, {}).values()), history.first_seen.get(name), now)
            for name, entry in entries.items()
        )

    def _telemetry(self, now: float, readable: bool, disk: tuple[int, int] | None) -> Telemetry:
        store, lost = self._records.store(), self._losses.within_an_hour(self._records.lost(), now)
        starting = now - self._began < STARTING_S
        return Telemetry(
            store_up=store.up or (starting and not store.last_error),
            readable=readable or starting,
            store_error=store.last_error,
            store_waiting=store.waiting,
            rows_lost=lost.rows,
            log_lines_lost=lost.log_lines,
            spans_lost=lost.spans,
            sink_failures=lost.events,
            disk_total=disk and disk[0],
            disk_free=disk and disk[1],
        )


def _disk(settings: Settings) -> tuple[int, int] | None:
    """Bytes of the disk with herd's records, and how many are free; None where it cannot be read."""
    try:
        usage = shutil.disk_usage(settings.data_dir)
    except OSError:
        return None
    return usage.total, usage.free
