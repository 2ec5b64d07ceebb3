"""`herd audit`: it agrees where records agree, and says where not; over restarts, rotation, retention and damage."""

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from herd.core.events import Status
from herd.store.writer import Writer
from herd.telemetry.log import LogSink
from tests.harness import until
from tests.store.builders import failed, finished, refused
from tests.store.waiting import written


class Records:
    """A data directory whose database and log were written by the router's own sinks."""

    def __init__(self, data_dir: Path, inside):
        self.data_dir = data_dir
        self.database, self.log = data_dir / "latency.db", data_dir / "logs" / "herd.jsonl"
        self._inside = inside

    def write(self, *events, rows=True, lines=True):
        writer, log = Writer(self.database, retention_days=36500), LogSink(self.log.parent)
        writer.start()
        for event in events:
            for sink, wanted in ((writer, rows), (log, lines)):
                if wanted:
                    sink.take(event)
        assert written(writer)
        assert writer.close(10)
        assert log.close(10)

    def sql(self, text):
        with closing(sqlite3.connect(self.database)) as database, database:
            database.execute(text)

    def audit(self, *arguments):
        told = self._inside("audit", "--json", "--data-dir", str(self.data_dir), *arguments)
        assert told.returncode == (0 if json.loads(told.stdout)["agree"] else 1)
        return json.loads(told.stdout)

    def missing(self, *arguments):
        return [(each["request_id"], each["missing_from"]) for each in self.audit(*arguments)["differences"]]


@pytest.fixture
def records(tmp_path, inside):
    """Three requests on record, long enough ago that no audit waits for them."""
    made = Records(tmp_path / "data", inside)
    ago = time.time() - 600
    made.write(
        finished("done", at=ago, tokens=(7, 9)), failed("died", at=ago + 1, attempts=2), refused("bad", at=ago + 2)
    )
    return made


def test_records_that_agree_are_said_to_agree(records):
    """The proof that nothing was lost."""
    told = records.audit()
    assert told["agree"] is True
    assert told["database"] == told["log"]
    assert told["database"]["status"] == {"completed": 1, "failed": 1, "rejected": 1}
    assert told["database"]["tokens"] == {"input": 7, "output": 9}


@pytest.mark.parametrize("gone", ["done", "died", "bad"])
def test_a_row_deleted_by_hand_is_noticed_wherever_it_was(records, gone):
    """The first row and the last are as good as any between them."""
    records.sql(f"DELETE FROM request_traces WHERE request_id = '{gone}'")
    assert records.missing() == [(gone, "database")]


def test_a_line_that_never_came_is_noticed(records):
    """A log that lost lines is found out by the rows."""
    records.write(finished("silent", at=time.time() - 300), lines=False)
    assert records.missing() == [("silent", "log")]


def test_a_row_changed_by_hand_is_noticed(records):
    """Agreement is about what they say, not only that they are there."""
    records.sql("UPDATE request_traces SET completion_tokens = 10 WHERE request_id = 'done'")
    (found,) = records.audit()["differences"]
    assert found["says"] == {"completion_tokens": [10, 9]}


def test_the_table_for_people_names_the_first_difference(records, inside):
    """What to look at first must not need a program to find."""
    records.sql("DELETE FROM request_traces WHERE status = 'failed'")
    told = inside("audit", "--data-dir", str(records.data_dir))
    assert told.returncode == 1
    assert "NO" in next(line for line in told.stdout.splitlines() if line.startswith("status failed"))
    assert "First: request died (failed) is in the log, not in the database" in told.stdout
    assert "All agree" not in told.stdout


def test_since_leaves_out_what_was_before(records):
    """An old, known loss must not hide the state of today."""
    records.sql("DELETE FROM request_traces WHERE request_id = 'done'")
    assert records.audit("--since", "9m")["agree"] is True
    assert records.audit("--since", "11m")["agree"] is False


def test_lines_of_rotated_files_count_too(records):
    """At midnight the log moves on; the requests of yesterday have their lines there."""
    records.log.rename(records.log.with_name("herd.jsonl.2026-01-01"))
    records.write(finished("today", at=time.time() - 300))
    assert records.audit()["log"]["requests"] == 4


def test_lines_older_than_the_oldest_row_are_not_missed_once_retention_may_have_taken_the_rows(tmp_path, inside):
    """Rows and log files have their own ages; only what both should have is compared."""
    made = Records(tmp_path / "old", inside)
    days = 86_400.0
    made.write(*(finished(f"r{age}", at=time.time() - age * days) for age in (5, 4, 3, 2)))
    made.sql("DELETE FROM request_traces WHERE request_id IN ('r5', 'r4')")
    assert made.audit()["agree"] is True
    made.sql("DELETE FROM request_traces WHERE request_id = 'r2'")
    assert made.missing() == [("r2", "database")]


def test_rows_older_than_the_oldest_log_file_are_not_missed_in_it(records):
    """Rotation deletes files, and an operator may."""
    records.log.unlink()
    records.write(finished("later", at=time.time() - 300))
    told = records.audit()
    assert told["agree"] is True
    assert told["log"]["requests"] == 1


def test_a_torn_last_line_does_not_stop_the_audit(records):
    """A crash leaves half a line; the request it was for is still missed."""
    records.write(finished("last", at=time.time() - 300))
    text = records.log.read_bytes()
    records.log.write_bytes(text[:-40])
    assert records.missing() == [("last", "log")]


def test_a_damaged_line_is_counted_and_its_request_missed(records, inside):
    """It must neither crash the audit nor pass for a record."""
    lines = records.log.read_bytes().splitlines(keepends=True)
    lines[0] = lines[0].replace(b'"span_id"', b'"spam_id"')
    records.log.write_bytes(b"".join(lines))
    assert records.missing() == [("done", "log")]
    assert "1 damaged log lines" in inside("audit", "--data-dir", str(records.data_dir)).stdout


def test_a_name_that_the_log_blots_out_is_no_difference(records):
    """The log redacts what looks like a secret; the row keeps it. Both are right."""
    secret = "token=abcdefgh:1b"
    records.write(finished("blotted", at=time.time() - 300, model=secret))
    assert secret not in records.log.read_text()
    assert records.audit()["agree"] is True


def test_a_name_that_is_no_text_is_no_difference(records):
    """JSON can carry half a character, which the database has no form for."""
    records.write(finished("half", at=time.time() - 300, model="m\ud800:1b"))
    assert records.audit()["agree"] is True


def test_one_request_id_used_twice_is_two_requests(records):
    """Clients that retry send their id again."""
    now = time.time()
    left = finished("again", at=now - 290, status=Status.CLIENT_DISCONNECTED)
    records.write(finished("again", at=now - 300), left)
    told = records.audit()
    assert told["agree"] is True
    assert told["database"]["requests"] == 5


def test_an_absurd_token_count_is_no_difference(records):
    """An engine may report anything; the database clamps it to 64 bits."""
    records.write(finished("absurd", at=time.time() - 300, tokens=(10**30, -5)))
    assert records.audit()["agree"] is True


def test_a_record_that_is_still_on_its_way_is_waited_for(records, herd):
    """Rows come in batches and lines at once; the audit of a busy router must not cry wolf."""
    event = finished("on-its-way", at=time.time() - 2)
    records.write(event, rows=False)
    process = herd.start("audit", "--json", "--data-dir", str(records.data_dir))
    looks = psutil.Process(process.pid)
    until(lambda: str(records.database) in {file.path for file in looks.open_files()}, "the audit has begun")
    records.write(event, lines=False)
    out, _ = process.communicate(timeout=30)
    assert json.loads(out)["database"]["requests"] == 4
    assert json.loads(out)["agree"] is True


@pytest.mark.parametrize("there", ["nothing", "database", "log"])
def test_nothing_to_compare_is_one_sentence(records, inside, there):
    """An audit of the wrong directory must not say that all agree."""
    if there != "database":
        records.database.unlink()
    if there != "log":
        records.log.unlink()
    told = inside("audit", "--data-dir", str(records.data_dir))
    assert (told.returncode, told.stdout) == (1, "")
    assert str(records.data_dir) in told.stderr


def test_a_router_at_work_is_found_and_its_metrics_compared(served):
    """Whoever runs it beside the router needs no option."""
    told = served.herd("audit")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "All agree." in told.stdout
    assert f"since the router at {served.url} started" in told.stdout
    assert "status failed            1        1  yes" in told.stdout


def test_a_row_deleted_under_a_router_is_missed_by_log_and_metrics(router, inside):
    """Three records against one, and the audit says which request."""
    for number in range(3):
        httpx.post(f"{router.url}/api/chat", content=b"{}", headers={"X-Request-Id": f"r{number}"}, timeout=10)
    until(lambda: len(router.rows()) == 3 and len(router.lines()) == 3, "three rows and lines")
    with closing(sqlite3.connect(router.database)) as database, database:
        database.execute("DELETE FROM request_traces WHERE request_id = 'r0'")
    told = inside("audit", "--data-dir", str(router.data_dir))
    assert told.returncode == 1
    assert "request r0 (rejected) is in the log, not in the database" in told.stdout
    assert "2 in the database, 3 in the metrics" in told.stdout


def test_a_large_database_is_compared_with_the_metrics_while_its_first_row_is_there(router, inside):
    """Size alone does not say that retention took rows; the busiest routers would never be compared."""
    httpx.post(f"{router.url}/api/chat", content=b"{}", timeout=10)
    until(lambda: len(router.rows()) == 1, "a row")
    with closing(sqlite3.connect(router.database)) as database, database:
        database.execute("CREATE TABLE ballast AS SELECT zeroblob(20000000)")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    told = inside("audit", "--data-dir", str(router.data_dir))
    assert "All agree." in told.stdout
    assert "not compared" not in told.stdout


def test_a_router_of_another_directory_is_not_compared_unasked(served, records):
    """Its counters are about other requests."""
    told = records.audit()
    assert told["metrics"] is None
    assert "no router" in told["metrics_not_compared"]


def test_a_router_that_is_named_and_away_is_said_to_be_away(records, herd):
    """Silence about the metrics would pass for agreement with them."""
    told = records.audit("--url", f"http://127.0.0.1:{herd.port}")
    assert told["agree"] is True
    assert told["metrics_not_compared"] == f"no router responds at http://127.0.0.1:{herd.port}"
