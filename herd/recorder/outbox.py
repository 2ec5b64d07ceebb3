"""What the router has still to answer for: events that wait to be sent, and those that no record is done with yet.

Pure. Each of the three records has a bounded lane of its own, so that a database that is locked costs no log line: what
a lane has no room for is counted, and goes to the others all the same. An event leaves a lane when its record is done
with it; until then it can be sent again, to the next recorder.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, get_args

from herd.core.events import AccessRefused, Event, Finished, Managed, NodeKnown, NodeSampled
from herd.recorder.packing import KINDS, Item
from herd.store.rows import STORED
from herd.telemetry.log_lines import Line
from herd.telemetry.span_fields import span_count

CAPACITY: Final = 10_000
LOG, STORE, SPANS = 1, 2, 4
LANES: Final = (LOG, STORE, SPANS)


class Entry(NamedTuple):
    """One event or line on its way; `lanes` is the sum of those that it is for, `at` when it came (unix s)."""

    number: int
    item: Item
    at: float
    lanes: int


@dataclass(slots=True)
class Lost:
    """What there was no room for: requests' rows, rows of other events, log lines, spans."""

    rows: int = 0
    other_rows: int = 0
    lines: int = 0
    spans: int = 0


class Outbox:
    """For one thread only; nothing here waits."""

    def __init__(self, spans: bool, capacity: int = CAPACITY) -> None:
        self.lost = Lost()
        self._capacity = capacity
        self._lanes: dict[int, deque[Entry]] = {lane: deque() for lane in LANES}
        self._done = dict.fromkeys(LANES, 0)  # with this connection
        self._all_done = dict.fromkeys(LANES, 0)
        self._unsent: deque[Entry] = deque()
        self._number = 0
        self._sent = 0  # the highest number that was ever sent
        self._of_kind: dict[type[Item], int] = {}
        self.trace(spans)

    def trace(self, spans: bool) -> None:
        """Whether spans are made from now on."""
        self._of_kind = {kind: _lanes_of(kind, spans) for kind in KINDS}

    def take(self, item: Item, at: float) -> bool:
        """Take an event or a line; False where nothing of it is to be sent."""
        lanes = self._of_kind[type(item)]
        for lane, waiting in self._lanes.items():
            if lanes & lane and len(waiting) >= self._capacity:
                lanes -= lane
                self._lose(lane, item)
        if not lanes:
            return False
        self._number += 1
        entry = Entry(self._number, item, at, lanes)
        for lane, waiting in self._lanes.items():
            if lanes & lane:
                waiting.append(entry)
        self._unsent.append(entry)
        return True

    def waiting(self, lane: int) -> int:
        """How many events a record is not done with."""
        return len(self._lanes[lane])

    @property
    def unsent(self) -> int:
        """How many events were not sent to this recorder."""
        return len(self._unsent)

    @property
    def repeats(self) -> int:
        """How many of the unsent were sent to an earlier recorder, which may have recorded them."""
        return sum(entry.number <= self._sent for entry in self._unsent)

    def to_send(self, count: int) -> Iterator[tuple[Entry, bool]]:
        """At most so many of the next entries, each with whether an earlier recorder had it; they count as sent."""
        for _ in range(min(count, len(self._unsent))):
            entry = self._unsent.popleft()
            yield entry, entry.number <= self._sent
            self._sent = max(self._sent, entry.number)

    def give_up(self, entry: Entry) -> None:
        """An entry that cannot be sent at all is lost. It is among the last that `to_send` gave."""
        for lane, waiting in self._lanes.items():
            if entry.lanes & lane:
                self._lanes[lane] = deque(each for each in waiting if each.number != entry.number)
                self._lose(lane, entry.item)

    def done(self, counts: dict[int, int]) -> None:
        """By lane: with how many of the events sent on this connection its record is done."""
        for lane, count in counts.items():
            waiting = self._lanes[lane]
            for _ in range(min(count - self._done[lane], len(waiting))):
                waiting.popleft()
                self._all_done[lane] += 1
            self._done[lane] = max(count, self._done[lane])

    def goal(self, *lanes: int) -> dict[int, int]:
        """What `reached` is asked with, to know when these records are done with everything taken so far."""
        return {lane: self._all_done[lane] + len(self._lanes[lane]) for lane in lanes}

    def reached(self, goal: dict[int, int]) -> bool:
        """Whether the records have come so far."""
        return all(self._all_done[lane] >= count for lane, count in goal.items())

    def begin_again(self) -> None:
        """Another recorder begins: whatever no record is done with is unsent again, for the records that are not."""
        self._done = dict.fromkeys(LANES, 0)
        again: dict[int, Entry] = {}
        for lane, waiting in self._lanes.items():
            for entry in waiting:
                others = again[entry.number].lanes if entry.number in again else 0
                again[entry.number] = entry._replace(lanes=others + lane)
        self._unsent = deque(again[number] for number in sorted(again))

    def _lose(self, lane: int, item: Item) -> None:
        if lane == LOG:
            self.lost.lines += 1
        elif lane == SPANS and isinstance(item, Finished | Managed):
            self.lost.spans += span_count(item)
        elif isinstance(item, Finished):
            self.lost.rows += 1
        else:
            self.lost.other_rows += 1


def _lanes_of(kind: type[Item], spans: bool) -> int:
    tells = kind is Line or (kind in get_args(Event) and kind not in {NodeSampled, NodeKnown, AccessRefused})
    traced = spans and kind in {Finished, Managed}
    return LOG * tells + STORE * (kind in STORED) + SPANS * traced
