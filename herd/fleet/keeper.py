"""Acts on what changes in the cell: tells the records, wakes those who were granted a slot, looks once a second.

It has the tasks, deadlines and clocks that the cell does without; it decides nothing.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from pydantic import JsonValue

from herd import wire
from herd.core.admission import Place
from herd.core.clock import moment
from herd.core.errors import NO_NODE_RETRY_S, NoNode, QueueFull, QueueTimeout
from herd.core.events import Attempt, Event, FleetChanged
from herd.core.observed import Told
from herd.fleet.cell import Cell, Changes, TwinHeard
from herd.fleet.entry import Patience
from herd.fleet.slots import Bid, Choice, Granted

TICK_S = 1.0
SAMPLE_EVERY_S = 60.0
TWIN_EVERY_S = 60.0  # two machines under one name send heartbeats every few seconds; once a minute is enough to know
# Changes after which a restarted router must know the node otherwise than before; what is struck off, the store knows.
KEPT_AFTER = frozenset({"node_joined", "node_left", "node_lost", "node_back", "drain_changed"})


class Keeper:
    """The one who changes the cell; `on_change` is called after every change of the fleet, `on_tick` once a second."""

    def __init__(self, cell: Cell, emit: Callable[[Event], None], queue_timeout_s: float) -> None:
        self.cell = cell
        self._emit = emit
        self._queue_timeout_s = queue_timeout_s
        self._tickets = count(1)
        self._awaited: dict[int, asyncio.Future[Granted | None]] = {}
        self._twins: dict[str, float] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.on_tick: Callable[[], None] = lambda: None

    def set_limits(self, patience: Patience, queue_limit: int, swap_patience_s: float, queue_timeout_s: float) -> None:
        """Go by these limits from now on; those who wait already keep their deadline."""
        self.cell.set_limits(patience, queue_limit, swap_patience_s)
        self._queue_timeout_s = queue_timeout_s

    # Slots

    async def slot(self, bid: Bid, choice: Choice) -> Granted:
        """A slot at the best free place, waiting for one if there is none; whoever has it gives it back.

        Raises QueueFull or QueueTimeout, both with a Retry-After, and NoNode if the last place went while it waited.
        """
        if granted := self.at_once(bid, choice):
            return granted
        lane, now = bid.request.model, moment()
        if self.cell.slots.full(lane):
            depth, best = self.cell.slots.depths()[lane], choice.best(bid.excluded)
            retry_after_s = self.cell.slots.retry_after_s(lane, best)
            raise QueueFull(f"{depth} requests are already waiting for {lane}", retry_after_s)
        ticket = next(self._tickets)
        return self.cell.ask(ticket, bid, choice, now) or await self._wait(ticket, bid, choice)

    def at_once(self, bid: Bid, choice: Choice) -> Granted | None:
        """A slot that is free at this moment; None where the request would have to wait for one."""
        now = moment()
        if not self.cell.may_begin(bid, choice, now):
            return None
        return self.cell.ask(next(self._tickets), bid, choice, now)

    def answered(self, granted: Granted) -> None:
        """The first content came of what was granted this slot."""
        self.cell.answered(granted.ticket, granted.place, moment())

    def give_back(self, granted: Granted, told: Told | None = None) -> None:
        """A slot is free again, and the next waiter has it at once; `told` is what a whole answer says of the node."""
        self._perform(self.cell.give_back(granted.ticket, granted.place, moment(), told))

    @contextmanager
    def only_at(self, place: Place) -> Iterator[bool]:
        """A slot at this place while the block runs, if one is free now; the value says whether."""
        ticket = next(self._tickets)
        taken = self.cell.take(ticket, place, moment())
        try:
            yield taken
        finally:
            if taken:
                self._perform(self.cell.give_back(ticket, place, moment()))

    async def _wait(self, ticket: int, bid: Bid, choice: Choice) -> Granted:
        awaited: asyncio.Future[Granted | None] = asyncio.get_running_loop().create_future()
        self._awaited[ticket] = awaited
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                granted = await awaited
        except TimeoutError:
            self._give_up(ticket, awaited)
            lane = bid.request.model
            raise QueueTimeout(
                f"no slot for {lane} came free within {self._queue_timeout_s:g} s",
                self.cell.slots.retry_after_s(lane, choice.best(bid.excluded)),
            ) from None
        except asyncio.CancelledError:
            self._give_up(ticket, awaited)
            raise
        finally:
            self._awaited.pop(ticket, None)
        if granted is None:
            raise NoNode(f"the last node that could serve {bid.request.model} went offline", NO_NODE_RETRY_S)
        return granted

    def _give_up(self, ticket: int, awaited: "asyncio.Future[Granted | None]") -> None:
        self.cell.leave(ticket, moment())
        if awaited.done() and not awaited.cancelled() and (granted := awaited.result()):
            self.give_back(granted)  # granted in the same moment as it gave up

    # Nodes

    def heard(self, heartbeat: wire.Heartbeat) -> None:
        """Take a heartbeat in. Raises TwinHeard where the name is another machine's."""
        try:
            self._perform(self.cell.heard(heartbeat, moment()))
        except TwinHeard:
            self.twin(heartbeat.node_id, heartbeat.engine.url)
            raise

    def relisted(self, node_id: str, listed: list[dict[str, JsonValue]]) -> None:
        """Take a node's own listing of its models in."""
        self._perform(self.cell.relisted(node_id, listed, moment()))

    def unloaded(self, node_id: str, model: str) -> None:
        """A node has unloaded a model on request."""
        self._perform(self.cell.unloaded(node_id, model, moment()))

    def attempted(self, attempt: Attempt) -> None:
        """Take in how an attempt ended."""
        self._perform(self.cell.attempted(attempt, moment()))

    def drain(self, node_id: str, draining: bool) -> None:
        """The operator drains a node, or ends its drain. KeyError if there is no such node."""
        self._perform(self.cell.drained(node_id, draining, moment()))

    def forget(self, node_id: str) -> None:
        """Strike a departed node off. KeyError or ValueError as the cell says."""
        self._perform(self.cell.forgot(node_id, moment()))

    def expel(self, node_id: str) -> None:
        """Strike off a node that was revoked, whether it is there or not. KeyError if there is no such node."""
        entry = self.cell.entries[node_id]
        if not entry.left:
            self._perform(self.cell.heard(entry.heartbeat.model_copy(update={"leaving": True}), moment()))
        self.forget(node_id)

    def twin(self, node_id: str, other_url: str) -> None:
        """Another machine sends heartbeats with this node id; reported once in a while."""
        now = moment()
        if now.tick - self._twins.get(node_id, -TWIN_EVERY_S) >= TWIN_EVERY_S:
            self._twins[node_id] = now.tick
            entry = self.cell.entries.get(node_id)
            urls = {"url": entry.node.url if entry else "", "other_url": other_url}
            self._emit(FleetChanged(now.at, "twin_heard", node_id, data=urls))

    async def run(self) -> None:
        """Look until cancelled: every second who fell silent, every minute a sample for the history."""
        next_sample = 0.0
        while True:
            now = moment()
            self._perform(self.cell.looked(now))
            self.on_tick()
            if now.tick >= next_sample:
                next_sample = now.tick + SAMPLE_EVERY_S
                for sample in self.cell.samples(now):
                    self._emit(sample)
                for entry in self.cell.entries.values():
                    self._emit(entry.known)
            await asyncio.sleep(TICK_S)

    def _perform(self, changes: Changes) -> None:
        for granted in changes.granted:
            self._hand_over(granted)
        for ticket in changes.stranded:
            if not self._awaited[ticket].done():
                self._awaited[ticket].set_result(None)
        for event in changes.events:
            self._emit(event)
        if changes.events:
            self.on_change()
            nodes = {event.node_id for event in changes.events if event.kind in KEPT_AFTER}
            for entry in (self.cell.entries.get(name or "") for name in nodes):
                if entry is not None:
                    self._emit(entry.known)

    def _hand_over(self, granted: Granted) -> None:
        awaited = self._awaited[granted.ticket]
        if awaited.done():  # cancelled in this very moment: the slot goes on to the next
            self.give_back(granted)
        else:
            awaited.set_result(granted)
