"""Whatever happens to the disk or the file, requests go on, losses are counted, and writing begins again by itself."""

import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from herd.store import schema
from herd.store.writer import Writer
from tests.harness import until
from tests.store import builders
from tests.store.conftest import FOR_EVER
from tests.store.waiting import written

ROOT = Path(__file__).parent.parent.parent


def ids(database):
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [row[0] for row in connection.execute("SELECT request_id FROM request_traces ORDER BY id")]


def fill(writer, *names):
    for name in names:
        writer.take(builders.finished(name))


@contextmanager
def locked(database):
    """The database while somebody else writes it."""
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.rollback()


@contextmanager
def files_no_larger_than(limit):
    """A disk without room: the kernel refuses to let any file of this process grow further."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def down(writer):
    until(lambda: not writer.stats().up and writer.stats().last_error, "the writer sees that it cannot write")
    return writer.stats().last_error


def test_a_disk_without_room_costs_no_row_once_there_is_room_again(database, writer, keep):
    """The commonest accident of a machine that pulls models."""
    keep(builders.finished("before"))
    with files_no_larger_than(database.with_name("latency.db-wal").stat().st_size + 20_000):
        fill(writer, *(f"r{number}" for number in range(300)))
        assert "OperationalError" in down(writer)
        assert ids(database) == ["before"]
    assert written(writer)
    assert len(ids(database)) == 301
    assert (writer.stats().up, writer.stats().last_error, writer.stats().failed) == (True, None, 0)


def test_a_locked_database_is_waited_for(database, writer, keep):
    """Somebody runs a long transaction in the sqlite3 command line."""
    keep(builders.finished("before"))
    with locked(database):
        fill(writer, "a", "b")
        assert "locked" in down(writer)
        assert (writer.stats().written, writer.stats().waiting) == (1, 2)
    assert written(writer)
    assert ids(database) == ["before", "a", "b"]


def test_taking_goes_on_while_nothing_can_be_written(database, keep):
    """Requests come at their own pace; a thousand of them must not wait for one lock."""
    writer = Writer(database, retention_days=FOR_EVER, capacity=100)
    writer.start()
    until(lambda: writer.stats().up, "the database is open")
    with locked(database):
        fill(writer, *(f"r{number}" for number in range(1000)))
        stats = writer.stats()
        assert stats.dropped >= 899, "all but what the queue holds, and perhaps one on its way out of it"
    assert writer.close(20)
    stats = writer.stats()
    assert stats.written + stats.dropped + stats.failed == 1000
    assert len(ids(database)) == stats.written > 0


def test_a_database_that_a_newer_herd_migrates_meanwhile_is_left_alone(database, writer, keep):
    """The older of two routers must stop writing at once, and go on if the file is its own again."""
    keep(builders.finished("before"))
    with closing(sqlite3.connect(database)) as other:
        other.execute("PRAGMA user_version = 999")
        fill(writer, "after")
        assert "schema version 999" in down(writer)
        assert ids(database) == ["before"]
        other.execute(f"PRAGMA user_version = {schema.LATEST}")
    assert written(writer)
    assert ids(database) == ["before", "after"]


def test_something_else_in_the_files_place_is_waited_out(database):
    """A folder of that name, a mount that is late: the router starts all the same."""
    database.mkdir(parents=True)
    writer = Writer(database, retention_days=FOR_EVER)
    writer.start()
    fill(writer, "early")
    assert "unable to open" in down(writer)
    database.rmdir()
    assert written(writer)
    assert writer.close(20)
    assert ids(database) == ["early"]


def test_a_file_that_is_no_database_is_not_overwritten(database, writer, keep):
    """It may be all that is left of somebody's records."""
    keep(builders.finished("before"))
    database.unlink()
    database.write_bytes(b"what is this?" * 1000)
    fill(writer, "after")
    assert "not a database" in down(writer)
    assert database.read_bytes() == b"what is this?" * 1000
    database.unlink()
    assert written(writer)
    assert ids(database) == ["after"]


@pytest.mark.parametrize("pattern", ["latency.db", "latency.db*"])
def test_a_deleted_database_is_made_anew(database, writer, keep, pattern):
    """`rm` must not silence the store until the next restart."""
    keep(builders.finished("before"))
    for path in database.parent.glob(pattern):
        path.unlink()
    keep(builders.finished("after"))
    assert ids(database) == ["after"]


def test_a_deleted_folder_is_made_anew(database, writer, keep):
    """The same for whoever cleans up more thoroughly."""
    keep(builders.finished("before"))
    shutil.rmtree(database.parent)
    keep(builders.finished("after"))
    assert ids(database) == ["after"]


def test_rows_go_to_the_database_that_was_put_in_its_place(database, writer, keep, tmp_path):
    """Restoring a backup under a running router must not send its rows into a file that nobody can see."""
    keep(builders.finished("backed-up"))
    backup = tmp_path / "backup.db"
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    keep(builders.finished("lost"))
    for path in database.parent.iterdir():
        path.unlink()
    backup.rename(database)
    keep(builders.finished("after"))
    assert ids(database) == ["backed-up", "after"]


def test_a_reader_follows_to_the_new_file(database, writer, keep, reader):
    """The page must not go on showing what was deleted."""
    keep(builders.finished("before"))
    assert [row["request_id"] for row in reader.traces().traces] == ["before"]
    shutil.rmtree(database.parent)
    keep(builders.finished("after"))
    assert [row["request_id"] for row in reader.traces().traces] == ["after"]


def test_a_writer_that_cannot_write_still_ends_and_says_what_it_lost(database):
    """A stop must not hang on a disk that is gone, and the loss must be in the counters."""
    database.mkdir(parents=True)
    writer = Writer(database, retention_days=FOR_EVER)
    writer.start()
    fill(writer, "a", "b")
    writer.take(builders.sample())
    down(writer)
    assert writer.close(20)
    stats = writer.stats()
    assert (stats.written, stats.failed, stats.others_lost, stats.waiting, stats.up) == (0, 2, 1, 0, False)


def test_a_database_at_its_limit_makes_room_and_goes_on(database):
    """The limit holds even where rows come faster than the minute's sweep; the newest are the ones that stay."""
    limit = 4 * 2**20
    writer = Writer(database, retention_days=FOR_EVER, limit_bytes=limit)
    writer.start()
    names = [f"r{number}" for number in range(1500)]
    for start in range(0, len(names), 300):
        for offset, name in enumerate(names[start : start + 300]):
            writer.take(builders.finished(name, at=builders.NOON + start + offset))
        assert written(writer), writer.stats()
        assert database.stat().st_size < limit * 1.06
    assert writer.close(20)
    kept = ids(database)
    assert writer.stats().written == len(names)
    assert kept == names[-len(kept) :], "a row that stays is newer than any that went"
    assert len(kept) >= 300


def test_killing_the_process_loses_nothing_that_was_flushed(database):
    """Power cuts come without a signal; what was said to be kept must be there afterwards."""
    script = ROOT / "tests" / "store" / "endless_writer.py"
    process = subprocess.Popen([sys.executable, str(script), str(database)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        for _ in range(15):
            kept = int(process.stdout.readline())
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        process.stdout.close()
    assert {f"r{number}" for number in range(kept)} <= set(ids(database))
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        lone = "SELECT COUNT(*) FROM request_attempts WHERE request_id NOT IN (SELECT request_id FROM request_traces)"
        assert connection.execute(lone).fetchone() == (0,)


@pytest.mark.parametrize("times", [1, 2])
def test_closing_more_than_once_does_no_harm(database, times):
    """A shutdown may be asked for twice."""
    writer = Writer(database, retention_days=FOR_EVER)
    writer.start()
    fill(writer, "a")
    for _ in range(times):
        assert writer.close(20)
    assert ids(database) == ["a"]
