"""The recorder itself, on real pipes, a real database and a real file: what it is told is written, and only once."""

import asyncio
import contextlib
import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from herd.core.events import FleetChanged
from herd.recorder.channel import Channel
from herd.recorder.packing import Packer
from herd.recorder.recorder import Kept, Recorder
from tests.harness import until
from tests.store import builders

PATIENCE_S = 30
logger = logging.getLogger("herd.somebody")


class Home:
    """A data directory, and what stands in it."""

    def __init__(self, folder: Path) -> None:
        self.kept = Kept(folder / "latency.db", folder / "logs", retention_days=36_500)

    def rows(self, what="request_id", table="request_traces"):
        with closing(sqlite3.connect(f"file:{self.kept.database}?mode=ro", uri=True)) as connection:
            return [row[0] for row in connection.execute(f"SELECT {what} FROM {table} ORDER BY id")]

    def lines(self, event=None):
        log = self.kept.log_dir / "herd.jsonl"
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in found if event is None or line["event"] == event]

    def requests(self):
        return [line["request_id"] for line in self.lines("request_finished")]


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


@contextlib.asynccontextmanager
async def recording(home, **changes):
    """A recorder on it, ended in order."""
    recorder = Recorder(replace(home.kept, **changes))
    assert await recorder.start(PATIENCE_S)
    try:
        yield recorder
    finally:
        assert await recorder.close(PATIENCE_S)


async def test_what_was_taken_is_written_and_counted_before_whoever_waits_goes_on(home):
    """A scrape, health and an audit must tell of the same requests."""
    async with recording(home) as recorder:
        for number in range(100):
            recorder.take(builders.finished(f"r{number}"))
        assert await recorder.settled(PATIENCE_S)
        names = [f"r{number}" for number in range(100)]
        assert home.rows() == home.requests() == names
        store, log = recorder.store_stats(), recorder.log_stats()
        assert (store.written, store.up, store.waiting, store.dropped) == (100, True, 0, 0)
        assert (log.lines["INFO"] >= 100, log.dropped) == (True, 0)


async def test_commits_are_heard_of_one_by_one(home):
    """The histogram of their lengths is the only warning that a disk becomes slow."""
    seen: list[float] = []
    async with recording(home) as recorder:
        recorder.on_commit = seen.append
        recorder.take(builders.finished())
        assert await recorder.settled(PATIENCE_S)
        assert len(seen) == recorder.store_stats().commits == 1


async def test_an_orderly_end_leaves_nothing_unwritten_and_no_process(home):
    """The last requests before a restart are those that an operator looks at."""
    async with recording(home) as recorder:
        pid = recorder.pid
        for number in range(500):
            recorder.take(builders.finished(f"r{number}"))
    assert not psutil.pid_exists(pid)
    assert not (home.kept.database.with_name("latency.db-wal")).exists()
    assert len(home.rows()) == len(home.requests()) == 500


async def test_kills_of_the_recorder_lose_nothing_and_write_nothing_twice(home):
    """Rows, lines and events of the fleet are counted by operators: one too many is as wrong as one too few."""
    names, changes = [], []
    async with recording(home) as recorder:
        for turn in range(4):
            for number in range(300):
                names.append(f"r{turn}-{number}")
                changes.append(f"n{turn}-{number}")
                recorder.take(builders.finished(names[-1], served="other:1b"))  # a fallback, which is an event too
                recorder.take(FleetChanged(builders.NOON + number, "node_lost", changes[-1]))
                if number % 30 == 0:
                    await asyncio.sleep(0)
                if number == 50 * (turn + 1):
                    os.kill(recorder.pid, signal.SIGKILL)
            assert await recorder.settled(PATIENCE_S)
        stats, log = recorder.store_stats(), recorder.log_stats()
    assert sorted(home.rows()) == sorted(names)
    assert sorted(home.requests()) == sorted(names)
    assert sorted(home.rows("node_id", "fleet_events WHERE kind = 'node_lost'")) == sorted(changes)
    assert len(home.rows("id", "fleet_events WHERE kind = 'fallback'")) == len(names)
    assert sorted(line["node_id"] for line in home.lines("node_lost")) == sorted(changes)
    assert (stats.written, stats.dropped, stats.failed, stats.others_lost) == (len(names), 0, 0, 0)
    assert (log.lines["WARNING"] >= len(changes), log.dropped) == (True, 0)
    assert home.lines("The recorder ended (exit status -9): another begins, with what this one had not written")


def test_a_killed_router_loses_no_request_that_ended_two_milliseconds_before(tmp_path):
    """What a client has seen the end of happened, whatever becomes of the router."""
    command = [sys.executable, "-m", "tests.recorder.router", str(tmp_path), "300"]
    router = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE)
    recorder = psutil.Process(int(router.stdout.readline()))
    router.kill()
    router.wait(PATIENCE_S)
    router.stdout.close()
    router.stdin.close()
    recorder.wait(PATIENCE_S)
    home, names = Home(tmp_path), [f"r{number}" for number in range(300)]
    assert home.rows() == home.requests() == names


async def test_an_event_that_cannot_be_read_is_counted_in_its_place_and_ends_no_recorder(home, monkeypatch):
    """The recorder would meet it again after each restart, for ever, and nothing after it would be recorded."""
    pack = Packer.pack

    def spoilt(self, item):
        number, values = pack(self, item)
        return number, (values[:3] if getattr(item, "request_id", "").startswith("bad") else values)

    monkeypatch.setattr(Packer, "pack", spoilt)
    async with recording(home) as recorder:
        pid = recorder.pid
        for name in ("r1", "bad1", "r2", "bad2", "r3"):
            recorder.take(builders.finished(name))
        assert await recorder.settled(PATIENCE_S)
        stats, log = recorder.store_stats(), recorder.log_stats()
        assert (recorder.pid, stats.waiting) == (pid, 0)
        assert (stats.written, stats.failed, log.dropped) == (3, 2, 2)
    assert home.rows() == home.requests() == ["r1", "r2", "r3"]
    told = [line for line in home.lines() if line["level"] == "ERROR"]
    assert [line["event"].startswith("An event cannot be read") for line in told] == [True]


async def test_what_loggers_say_is_in_the_log_whichever_thread_says_it(home):
    """The operator has one log to look into."""
    async with recording(home) as recorder:
        logger.warning("from the loop", extra={"odd": {1: object}})
        threads = [threading.Thread(target=logger.info, args=("from a thread",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        assert await recorder.settled(PATIENCE_S)
        assert len(home.lines("from a thread")) == 3
        (line,) = home.lines("from the loop")
        assert (line["level"], line["logger"], line["odd"]) == ("WARNING", "herd.somebody", {"1": "<class 'object'>"})


async def test_warnings_are_said_once_on_the_terminal_by_the_router_itself(home, capfd):
    """A recorder that cannot be started must not be what hides the reason."""
    async with recording(home) as recorder:
        logger.warning("the house burns")
        assert await recorder.settled(PATIENCE_S)
    assert capfd.readouterr().err.count("the house burns") == 1


async def test_what_the_recorder_itself_warns_of_is_in_the_log_and_on_the_terminal(home, capfd):
    """A database that is locked is said where the operator looks, not in a process that nobody sees."""
    async with recording(home) as recorder:
        with closing(sqlite3.connect(home.kept.database, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            recorder.take(builders.finished("waits"))
            told = lambda: "Trace store cannot write" in "".join(line["event"] for line in home.lines())  # noqa: E731
            await asyncio.to_thread(until, told, "the log says so")
            assert not await recorder.settled(0.3)
            assert recorder.store_stats().waiting == 1
            other.rollback()
        assert await recorder.settled(PATIENCE_S)
        assert home.rows() == ["waits"]
    assert "Trace store cannot write" in capfd.readouterr().err


async def test_a_database_that_stays_locked_does_not_hold_up_the_end_nor_keep_the_recorder_for_ever(home):
    """A stop has a bound; and a process that is left behind would write into the next router's database."""
    recorder = Recorder(home.kept)
    assert await recorder.start(PATIENCE_S)
    with closing(sqlite3.connect(home.kept.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        recorder.take(builders.finished())
        assert not await recorder.close(0.3)
        if recorder.left is not None:  # on a busy machine it may have ended by now
            await asyncio.to_thread(recorder.left.wait, PATIENCE_S)


async def test_settings_that_change_reach_the_recorder_and_every_later_one(home):
    """A level that was set to find a fault must survive the fault."""
    async with recording(home) as recorder:
        recorder.set_level("DEBUG")
        logger.debug("before")
        os.kill(recorder.pid, signal.SIGKILL)
        recorder.take(builders.finished("old"))
        assert await recorder.settled(PATIENCE_S)
        logger.debug("after")
        recorder.set_retention(1, 2**30)
        assert await recorder.settled(PATIENCE_S)
        await asyncio.to_thread(until, lambda: home.rows() == [], "the row of last year is swept away")
        assert home.lines("before")
        assert home.lines("after")


async def test_signals_that_end_a_router_do_not_end_its_recorder(home):
    """A terminal and a service manager signal every process at once; the router has still to tell what it was doing."""
    async with recording(home) as recorder:
        pid = recorder.pid
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
        recorder.take(builders.finished("after"))
        assert await recorder.settled(PATIENCE_S)
        assert (recorder.pid, home.rows()) == (pid, ["after"])


async def test_readers_hear_when_the_database_was_left_for_another(home):
    """Their connections lead to a file that is gone."""
    heard = asyncio.Event()
    async with recording(home) as recorder:
        recorder.on_let_go = heard.set
        for path in home.kept.database.parent.glob("latency.db*"):
            path.unlink()
        recorder.take(builders.finished("new"))
        assert await recorder.settled(PATIENCE_S)
        assert home.rows() == ["new"]
        await asyncio.wait_for(heard.wait(), PATIENCE_S)


async def test_a_recorder_of_another_version_ends_and_records_nothing_wrongly(home, monkeypatch):
    """An upgrade under a running router must not put the values of one field into the next one's column."""
    monkeypatch.setattr("herd.recorder.recorder.shape", lambda: "Finished(another: field)")
    recorder = Recorder(home.kept)
    assert not await recorder.start(1.0)
    assert not home.kept.database.exists()
    await recorder.close(1.0)
    if recorder.left:
        recorder.left.wait(PATIENCE_S)


async def test_more_than_there_is_room_for_is_dropped_and_counted(home):
    """Memory has an end; what an operator misses must be a number."""
    recorder = Recorder(home.kept, start=_deaf, capacity=10)
    await recorder.start(0.1)
    for _ in range(15):
        recorder.take(builders.finished())
    stats, log = recorder.store_stats(), recorder.log_stats()
    assert (stats.dropped, stats.waiting, log.dropped) == (5, 10, 5)
    assert not await recorder.close(0.1)
    recorder.left.kill()
    recorder.left.wait(PATIENCE_S)


def _deaf(beginning):
    return Channel(beginning, [sys.executable, "-c", "import signal; signal.alarm(120); signal.pause()"])
