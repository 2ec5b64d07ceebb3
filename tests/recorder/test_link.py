"""The router's tie to a recorder that dies, does not read, or is late: requests never notice, and nothing is lost."""

import json
import sys
from functools import partial

import pytest

from herd.core.events import FleetChanged
from herd.recorder.channel import Channel
from herd.recorder.frames import Beginning, Report
from herd.recorder.link import Link
from herd.recorder.outbox import LOG, STORE, Outbox

PATIENCE_S = 30
BEGINNING = Beginning("", "", "", 1, "INFO", 1, 1, False, "", "", 0)


class Bench:
    """A link to a scripted recorder, and what came of it."""

    def __init__(self, folder, capacity=10_000) -> None:
        self.folder = folder
        self.outbox = Outbox(spans=False, capacity=capacity)
        self.how = "proper"
        self.links: list[Link] = []
        self.gone = self.reports = 0
        self.link = Link(self.outbox, lambda: BEGINNING, self.heard, self.start)

    def start(self, beginning):
        return Channel(beginning, [sys.executable, "-m", "tests.recorder.scripted", self.how, str(self.folder)])

    def heard(self, report: Report | None) -> None:
        if report is None:
            self.gone += 1
            self.how = "proper"
        else:
            self.reports += 1
            self.outbox.done({LOG: report.log.disposed, STORE: report.store.disposed})

    def take(self, count, begin=0):
        for number in range(begin, begin + count):
            if self.outbox.take(FleetChanged(float(number), "node_joined", "n" * 100), 1.0):
                self.link.wake()

    async def done(self):
        goal = self.outbox.goal(LOG, STORE)
        return await self.link.wait(partial(self.outbox.reached, goal), PATIENCE_S)

    def got(self):
        """What each recorder got, the first one first."""
        files = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_ctime)
        return [[json.loads(line) for line in path.read_text().splitlines()] for path in files]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


async def test_events_arrive_in_their_order_and_the_recorder_ends_when_it_is_told(bench):
    """The ordinary day; and a recorder that outlived its router would write into the next one's files."""
    bench.link.launch()
    bench.take(50)
    bench.link.attach()
    bench.take(50, 50)
    assert await bench.done()
    assert [entry[2] for entry in bench.got()[0]] == list(range(100))
    assert await bench.link.end(PATIENCE_S)
    assert bench.link.pid is None


async def test_a_recorder_that_dies_is_replaced_and_the_next_one_gets_what_it_had_not_told_of(bench):
    """Five of its ten events are known to be written; the others may be, and are marked, so none is written twice."""
    bench.how = "dies"
    bench.link.attach()
    bench.take(30)
    assert await bench.done()
    first, second = bench.got()
    assert [entry[2] for entry in first] == list(range(10))
    assert [entry[2] for entry in second] == list(range(5, 30))
    assert {entry[2] for entry in second if entry[1]} >= set(range(5, 10)), "these the first one had"
    assert bench.gone == 1
    assert await bench.link.end(PATIENCE_S)


async def test_a_recorder_that_lives_without_its_pipe_is_ended_and_whoever_waits_hears_of_it(bench):
    """Nothing is read from it then, so only the attempt to write tells; two recorders would write every line twice."""
    bench.how = "shut"
    bench.link.attach()
    shut = bench.link._channel.process
    assert await bench.link.wait(lambda: bench.reports == 1, PATIENCE_S)
    bench.take(1)
    assert await bench.link.wait(lambda: bench.gone == 1, PATIENCE_S)
    assert await bench.done()
    assert shut.wait(PATIENCE_S) == -9
    assert await bench.link.end(PATIENCE_S)


async def test_a_recorder_that_reads_nothing_costs_records_and_no_waiting(tmp_path):
    """A disk that hangs must never be what a client waits for; what is lost is counted, to the last event."""
    bench = Bench(tmp_path, capacity=20_000)
    bench.how = "deaf"
    bench.link.attach()
    bench.take(30_000)
    assert not await bench.link.wait(lambda: False, 0.2), "the event loop goes on"
    assert bench.outbox.waiting(STORE) == 20_000
    assert (bench.outbox.lost.other_rows, bench.outbox.lost.lines) == (10_000, 10_000)
    assert bench.outbox.unsent > 0, "the pipe is full"
    deaf = bench.link._channel.process
    assert not await bench.link.end(0.1), "it says that not all is written"
    deaf.kill()
    deaf.wait(PATIENCE_S)


async def test_whoever_waits_hurries_the_recorder_and_hears_when_it_is_done(bench):
    """A scrape sees what ended before it, though the recorder is in no hurry by itself."""
    bench.how = "late"
    bench.link.attach()
    bench.take(20)
    assert bench.outbox.waiting(STORE) == 20
    assert await bench.done()
    assert bench.outbox.waiting(STORE) == 0
    assert await bench.link.end(PATIENCE_S)


async def test_a_recorder_that_cannot_be_started_is_tried_again(bench):
    """No process to be had is a moment's trouble of the machine, not the end of all records."""
    failures = [OSError("no more processes")]

    def start(beginning):
        if failures:
            raise failures.pop()
        return bench.start(beginning)

    bench.link = Link(bench.outbox, lambda: BEGINNING, bench.heard, start)
    bench.link.attach()
    bench.take(3)
    assert await bench.done()
    assert await bench.link.end(PATIENCE_S)


async def test_the_last_words_of_a_router_that_crashes_reach_the_recorder_without_an_event_loop(bench):
    """The lines that tell why it crashed are those that count."""
    bench.link.launch()
    bench.take(200)
    bench.link.last_words(PATIENCE_S)
    assert bench.outbox.unsent == 0
    channel = bench.link._channel
    channel.close()
    assert channel.process.wait(PATIENCE_S) == 0
    assert len(bench.got()[0]) == 200
