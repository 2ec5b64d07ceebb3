"""The process that reads for the router: the same answers, and no trouble of its own reaches who asks."""

import os
import signal
import sqlite3
import threading
from contextlib import closing
from time import time

import psutil
import pytest

from herd.store import answers, reports, traces
from herd.store.aside import Aside
from herd.store.connections import StoreUnreadable
from herd.store.queries import Reader
from herd.store.traces import TraceFilter
from tests.store import builders

PATIENCE_S = 20


@pytest.fixture
def aside(database):
    """A reader that has another process read."""
    made = Reader(database, Aside(database))
    yield made
    made.close()


def reader_of(database):
    """The process that reads this database; other tests of this process may have left theirs running."""
    (found,) = [each for each in psutil.Process().children() if str(database) in each.cmdline()]
    return found


def slow(connection: sqlite3.Connection) -> None:
    """A query that takes as long as nobody ends it."""
    connection.execute(
        "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT MAX(x) FROM n"
    ).fetchall()


def asking_for_ever(source: Aside, failed: list[StoreUnreadable]) -> threading.Thread:
    """Somebody who waits for that, and notes how it failed."""

    def ask() -> None:
        try:
            source.read(None, slow)
        except StoreUnreadable as error:
            failed.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    return asking


def defect(_: sqlite3.Connection) -> None:
    """A query that somebody wrote wrongly."""
    raise LookupError("no such thing")


def test_both_ways_of_reading_give_the_same_answers(reader, aside, keep):
    """Which process reads is nobody's business but the router's."""
    now = time()
    keep(*(builders.finished(f"r{number}", at=now - number, tags=("team",)) for number in range(20)))
    for ask in (
        lambda from_: from_.traces(TraceFilter(tag="team"), limit=5),
        lambda from_: from_.trace("r3"),
        lambda from_: from_.ids("r1"),
        lambda from_: from_.report(reports.apps, now - 1000),
        lambda from_: from_.answer(reports.trends, now - 3600, now),
        lambda from_: list(from_.ended()),
        lambda from_: from_.health(now, {}),
        lambda from_: from_.answer(answers.page, TraceFilter(), None, 3, "csv"),
        lambda from_: from_.answer(answers.trace, "r4"),
        lambda from_: from_.answer(answers.table, {"days": 1}, "usage", "json", reports.usage, now - 1000),
    ):
        assert ask(aside) == ask(reader)


def test_a_store_in_which_nothing_was_kept_answers_as_an_empty_one(reader, aside):
    """The page of a router that was just installed is empty, and no error."""
    assert aside.traces() == reader.traces()
    assert aside.report(reports.apps, 0.0).data == []
    assert aside.answer(answers.page, TraceFilter(), None, 10, "json").body.startswith(b'{"traces":[]')


def test_what_a_query_raises_comes_to_who_asked(aside, keep):
    """A wrong cursor is the caller's mistake and must be told as one."""
    keep(builders.finished())
    with pytest.raises(ValueError, match="cursor"):
        aside.traces(cursor="no cursor")
    with pytest.raises(LookupError, match="no such thing"):
        aside.answer(defect)
    assert len(aside.traces().traces) == 1, "and the next question is answered"


def test_a_database_that_is_none_is_said_to_be_unreadable(aside, database):
    """The page says why it is empty."""
    database.parent.mkdir(parents=True)
    database.write_bytes(b"this is no database, by any means" * 100)
    with pytest.raises(StoreUnreadable, match="not a database"):
        aside.traces()


def test_a_reading_process_that_was_killed_is_replaced_and_the_question_answered(aside, keep, database):
    """Nobody has to reload a page because the system ran out of memory for a moment."""
    keep(builders.finished("r1"))
    assert aside.ids("r") == ["r1"]
    killed = reader_of(database)
    killed.kill()
    assert aside.ids("r") == ["r1"]
    assert reader_of(database).pid != killed.pid


def test_the_end_does_not_wait_for_a_long_question(database, keep):
    """A router that stops has three seconds, and somebody always has the longest window open."""
    keep(builders.finished())
    source, failed = Aside(database), []
    asking = asking_for_ever(source, failed)
    assert source.read([], traces.ids, "", 10), "another question is answered meanwhile"
    process = reader_of(database)
    source.close()
    asking.join(PATIENCE_S)
    assert len(failed) == 1
    assert not process.is_running()


def test_a_reading_process_ends_with_the_router_that_was_killed(database, keep):
    """Whatever it is in the middle of: it would hold the database's log for ever."""
    keep(builders.finished())
    source = Aside(database)
    assert source.read([], traces.ids, "", 10)
    process = source._process
    asking = asking_for_ever(source, [])
    process.life.close()  # all that a killed router's end is to it
    assert process.process.wait(PATIENCE_S) == 0
    source.close()
    asking.join(PATIENCE_S)


def test_signals_that_end_a_router_do_not_end_its_reader(aside, keep, database):
    """A terminal and a service manager signal every process; requests that still run may have something to ask."""
    keep(builders.finished("r1"))
    assert aside.ids("r") == ["r1"]
    process = reader_of(database)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process.pid, number)
    assert aside.ids("r") == ["r1"]
    assert reader_of(database).pid == process.pid


def test_a_database_that_was_replaced_is_read_as_it_is_now_and_its_old_index_is_nobody_s(aside, keep, writer, database):
    """SQLite's locks belong to a process and a file: a shared index would lose them, and end whoever maps it."""
    keep(builders.finished("old"))
    assert aside.ids("") == ["old"]
    index = database.with_name("latency.db-shm")
    with index.open("rb") as before:
        for path in (database, database.with_name("latency.db-wal")):
            path.unlink()
        keep(builders.finished("new"))
        assert not os.path.samestat(os.fstat(before.fileno()), index.stat())
        assert aside.ids("") == ["new"]
        held = {entry.path for entry in reader_of(database).open_files()}
        assert not [path for path in held if path.endswith("(deleted)")]


def test_letting_go_closes_the_file_in_the_reading_process(aside, keep, database):
    """Who closes a database last brings its log in, and only the writer may."""
    keep(builders.finished("r1"))
    assert aside.ids("r") == ["r1"]
    aside.let_go()
    assert str(database) not in {entry.path for entry in reader_of(database).open_files()}
    assert aside.ids("r") == ["r1"]


def test_a_question_for_which_no_process_can_be_had_is_an_unreadable_store(database, keep, monkeypatch):
    """The page says so; the router serves."""
    keep(builders.finished())
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with closing(Reader(database, Aside(database))) as reader, pytest.raises(StoreUnreadable, match="no process"):
        reader.traces()
