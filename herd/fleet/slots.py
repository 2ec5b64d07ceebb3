"""Who has a slot and who waits for one, each with what was decided for it; keeps the nodes' work in step with that.

A part of the cell: it sees the nodes' entries, and decides nothing. Whoever waits is decided about anew by `decide`, as
the fleet changes.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from herd.core.admission import NO_SWAPS, Grant, Lanes, Place, Swaps
from herd.core.fleet import Fleet
from herd.core.observed import Mark
from herd.core.request import Request
from herd.core.routing import Candidate, Decision, Jobs, Policy, Predicted, open_to
from herd.core.value import value
from herd.core.work import Job
from herd.fleet.entry import Entry

HOLD_SMOOTHING = 0.2
LONGEST_RETRY_AFTER_S = 60


@value
class Choice:
    """What was decided for a request, the fleet in which it was, and the job that it would be for each candidate."""

    fleet: Fleet
    decision: Decision
    jobs: Jobs

    def best(self, excluded: frozenset[str]) -> Candidate | None:
        """Where the request may be worked on now."""
        return open_to(self.decision.plan, excluded)

    def predicted(self, excluded: frozenset[str]) -> Predicted | None:
        """What is foreseen there."""
        best = self.best(excluded)
        return best.predicted if best else None

    def candidate(self, place: Place) -> Candidate:
        """The candidate of the plan at a place."""
        return next(each for each in self.decision.plan if (each.node_id, each.model) == place)


@value
class Bid:
    """What asks for a slot: a request under the rules that it began with, less the nodes that failed it."""

    request: Request
    policy: Policy
    excluded: frozenset[str] = frozenset()


@value
class Granted:
    """A slot is a ticket's now: at this candidate, found in this choice."""

    ticket: int
    candidate: Candidate
    choice: Choice

    @property
    def place(self) -> Place:
        """Where the slot is."""
        return Place(self.candidate.node_id, self.candidate.model)


class Slots:
    """The slots of all nodes. `now` is unix seconds of a clock that never jumps."""

    def __init__(self, entries: Mapping[str, Entry], queue_limit: int, swap_patience_s: float) -> None:
        self._entries = entries
        self._lanes = Lanes(queue_limit, swap_patience_s)
        self._waiting: dict[int, tuple[Bid, Choice]] = {}
        self._sizes: dict[str, int] = {}
        self._hold_s: dict[str, float] = {}

    def set_limits(self, queue_limit: int, swap_patience_s: float) -> None:
        """Take lanes for full, and who is overtaken for overdue, by these limits from now on."""
        self._lanes.limit, self._lanes.patience_s = queue_limit, swap_patience_s

    def in_flight(self) -> dict[str, dict[str, int]]:
        """Slots in use, by node and model."""
        used: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for place, held in self._lanes.in_flight().items():
            used[place.node_id][place.model] = held
        return dict(used)

    def depths(self) -> dict[str, int]:
        """How many wait, by model."""
        return self._lanes.depths()

    def may_begin(self, bid: Bid, choice: Choice, now: float) -> bool:
        """Whether the request would have a slot at once: one is free, and no model in use would have to leave."""
        return self._lanes.suits(*_wanted(choice.best(bid.excluded)), now)

    def full(self, lane: str) -> bool:
        """Whether no one more may wait for a model."""
        return self._lanes.full(lane)

    def retry_after_s(self, lane: str, best: Candidate | None) -> int:
        """Seconds after which a slot is likely: those who wait, times the mean time a slot is held, over the slots."""
        slots = max(1, self._sizes.get(best.node_id, 0) if best else 0)
        seconds = (self._lanes.depth(lane) + 1) * self._hold_s.get(lane, 1.0) / slots
        return min(LONGEST_RETRY_AFTER_S, max(1, round(seconds)))

    def ask(self, ticket: int, bid: Bid, choice: Choice, now: float) -> Granted | None:
        """A slot at the best free place, or None: then the ticket waits. Ask whether the lane is full first."""
        best = choice.best(bid.excluded)
        places, swaps = _wanted(best)
        if self._lanes.ask(ticket, bid.request.model, bid.request.client, places, swaps, now) and best:
            self._begin(ticket, best, choice, now)
            return Granted(ticket, best, choice)
        self._waiting[ticket] = (bid, choice)
        if best:
            self._begin(ticket, best, choice, now, waits=True)
        return None

    def take(self, ticket: int, place: Place, now: float) -> bool:
        """A slot at this place and no other, for a load and not for an answer, if one is free."""
        if not self._lanes.free(place) or self._lanes.ask(ticket, place.model, "", (place,)) is None:
            return False
        self._entries[place.node_id].workload.begun(Job(ticket, place.model, 0.0, 0.0, load_s=1.0), now)
        return True

    def leave(self, ticket: int, now: float) -> None:
        """A waiting ticket gives up."""
        self._end(ticket, now)
        self._waiting.pop(ticket, None)
        self._lanes.leave(ticket)

    def give_back(self, ticket: int, place: Place, now: float) -> tuple[Mark | None, tuple[Granted, ...]]:
        """A slot is free again, and whoever it suits next has it; also where the ticket's work began."""
        entry = self._entries.get(place.node_id)
        mark = entry.workload.ended(ticket, now) if entry else None
        if mark is not None:
            held_s, old = now - mark.began_at, self._hold_s.get(place.model)
            self._hold_s[place.model] = held_s if old is None else old + HOLD_SMOOTHING * (held_s - old)
        return mark, self._granted(self._lanes.give_back(place, now), now)

    def resize(self, now: float) -> tuple[Granted, ...]:
        """Nodes that are not there have no slots; the others have them for each model."""
        sizes = {name: entry.node.slots for name, entry in self._entries.items() if entry.node.status != "offline"}
        before, self._sizes = self._sizes, sizes
        grants: list[Grant] = []
        for name in {*before, *sizes}:
            if before.get(name, 0) != sizes.get(name, 0):
                grants += self._lanes.resize(name, sizes.get(name, 0), now)
        return self._granted(grants, now)

    def replan(self, decide: Callable[[Bid, int], Choice], now: float) -> tuple[tuple[Granted, ...], tuple[int, ...]]:
        """Everybody who waits is decided about anew: the slots that this gives, and the tickets that no place suits."""
        granted = self._granted(self._lanes.overdue(now), now)
        stranded = []
        for ticket in tuple(self._waiting):
            bid, _ = self._waiting[ticket]
            choice = decide(bid, ticket)
            self._end(ticket, now)
            self._waiting[ticket] = (bid, choice)
            if best := choice.best(bid.excluded):
                self._begin(ticket, best, choice, now, waits=True)
                granted += self._granted(self._lanes.replan(ticket, *_wanted(best), now), now)
            else:
                self.leave(ticket, now)
                stranded.append(ticket)
        return granted, tuple(stranded)

    def _granted(self, grants: Iterable[Grant], now: float) -> tuple[Granted, ...]:
        made = []
        for grant in grants:
            self._end(grant.ticket, now)
            _, choice = self._waiting.pop(grant.ticket)
            candidate = choice.candidate(grant.place)
            self._begin(grant.ticket, candidate, choice, now)
            made.append(Granted(grant.ticket, candidate, choice))
        return tuple(made)

    def _begin(self, ticket: int, candidate: Candidate, choice: Choice, now: float, waits: bool = False) -> None:
        """A ticket's job is at this node now, or waits for it: others are decided with it in sight."""
        if entry := self._entries.get(candidate.node_id):
            meant = choice.jobs[candidate.node_id, candidate.model]
            entry.workload.begun(meant._replace(ticket=ticket, waits=waits), now)

    def _end(self, ticket: int, now: float) -> None:
        """A ticket waits no longer where it waited."""
        if found := self._waiting.get(ticket):
            bid, choice = found
            if (best := choice.best(bid.excluded)) and (entry := self._entries.get(best.node_id)):
                entry.workload.ended(ticket, now)


def _wanted(best: Candidate | None) -> tuple[tuple[Place, ...], Swaps]:
    """The place of a candidate, and the models that would have to leave memory for it, as the lanes ask for them."""
    if best is None:
        return (), NO_SWAPS
    place = Place(best.node_id, best.model)
    return (place,), {place: best.evicts} if best.evicts else NO_SWAPS
