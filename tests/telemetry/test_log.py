"""herd.jsonl as operators, grep and `herd audit` read it."""

import json
import logging
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from herd.core.events import (
    AttemptFailed,
    ContextAction,
    ContextProtected,
    Event,
    FindingChanged,
    FleetChanged,
    Managed,
    Status,
    StreamBroken,
    TraceIds,
)
from herd.core.finding import Episode, Finding, Severity
from herd.core.record import record
from herd.telemetry.catalog import LOG_FIELDS
from herd.telemetry.log import LogSink, configure_logging, json_line
from herd.telemetry.log_lines import Line
from tests.store import builders
from tests.telemetry.exposition import MODEL, retried

BROKEN = StreamBroken("r1", "t" * 32, "ada", MODEL, "stream_aborted", "the node closed the connection")
DELETED = Managed(
    "m1", TraceIds("a" * 32, "b" * 16), "/api/delete", MODEL, "ada", 200, builders.NOON, builders.NOON + 1
)


@pytest.fixture
def sink(tmp_path) -> Iterator[LogSink]:
    made = configure_logging(tmp_path / "logs")
    yield made
    assert made.close(10)


def lines(sink: LogSink) -> list[dict[str, Any]]:
    """The file, line by line."""
    assert sink.flush(10)
    return [json.loads(line) for line in sink.path.read_text(encoding="ascii").splitlines()]


def line_of(sink: LogSink, event: Event) -> dict[str, Any]:
    """The line that an event makes."""
    sink.take(event)
    return lines(sink)[-1]


def shell(sink: LogSink, command: str) -> str:
    """What an operator's command prints."""
    assert sink.flush(10)
    done = subprocess.run(
        command.replace("FILE", str(sink.path)), shell=True, capture_output=True, text=True, check=False
    )
    return done.stdout


def test_the_canonical_line_has_the_row_s_fields_under_the_row_s_names(sink):
    """The log and the database answer the same questions with the same words."""
    event = retried()
    line = line_of(sink, event)
    assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
    assert (line["event"], line["level"]) == ("request_finished", "INFO")
    row = record(event)
    assert line["received_at"] == row.pop("timestamp")
    assert {name: line[name] for name in row} == row
    assert set(line) == {*row, "received_at", "timestamp", "level", "logger", "event"}


def test_the_timestamp_is_when_it_happened_in_utc(sink):
    """Logs of several machines are laid side by side."""
    line = line_of(sink, builders.finished(latency_s=1.5))
    assert line["timestamp"] == "2026-01-07T12:00:01.500000Z"
    assert datetime.fromisoformat(line["timestamp"]).tzinfo == UTC


@pytest.mark.parametrize(
    ("status", "level"),
    [(Status.COMPLETED, "INFO"), (Status.CLIENT_DISCONNECTED, "INFO"), (Status.FAILED, "ERROR"),
     (Status.INCOMPLETE, "ERROR"), (Status.REJECTED, "WARNING")],
)  # fmt: skip
def test_the_level_says_whose_fault_it_was(sink, status, level):
    """Whoever watches for ERROR is woken by herd's failures, not by clients that leave."""
    assert line_of(sink, builders.finished(status=status))["level"] == level


def test_the_operator_s_grep_for_errors_finds_the_failed_request(sink):
    """The command of the operator's document, as printed there."""
    sink.take(builders.finished("r-good"))
    sink.take(builders.failed("r-bad"))
    found = shell(sink, """grep '"level": "ERROR"' FILE | tail -10 | python3 -m json.tool""")
    assert json.loads(found)["request_id"] == "r-bad"


def test_the_operator_s_grep_for_stream_errors_finds_them(sink):
    """As above."""
    sink.take(BROKEN)
    sink.take(builders.finished())
    found = json.loads(shell(sink, 'grep "Stream error" FILE | tail -10'))
    assert found["event"].startswith("Stream error ")
    assert (found["level"], found["request_id"], found["trace_id"]) == ("ERROR", "r1", "t" * 32)


@pytest.mark.parametrize(
    ("action", "level", "words"),
    [("stripped", "INFO", "taken out"), ("moved", "INFO", "moved"), ("warned", "WARNING", "reload")],
)
def test_the_operator_s_grep_for_context_protection_says_what_was_done(sink, action, level, words):
    """As above, for people and not only for programs."""
    sink.take(ContextProtected("r1", "t" * 32, ContextAction(action, "ada", MODEL, 32_768, 8192)))
    found = json.loads(shell(sink, 'grep "Context protection" FILE | tail -10'))
    assert found["event"].startswith(
        "Context protection: num_ctx 32768" if action != "moved" else "Context protection: "
    )
    assert words in found["event"]
    assert (found["level"], found["trace_id"], found["num_ctx_loaded"]) == (level, "t" * 32, 8192)


def test_a_failed_attempt_is_a_warning_with_its_request(sink):
    """A retry that worked leaves no error behind, but it leaves a trail."""
    event = retried()
    line = line_of(sink, AttemptFailed(event.request_id, event.ids.trace_id, event.attempts[0], will_retry=True))
    assert (line["event"], line["level"], line["will_retry"]) == ("attempt_failed", "WARNING", True)
    assert (line["request_id"], line["trace_id"]) == (event.request_id, event.ids.trace_id)
    assert (line["error_type"], line["attempt"], line["duration_ms"]) == ("connect", 1, 3000.0)


@pytest.mark.parametrize(
    ("kind", "level"), [("node_joined", "INFO"), ("node_lost", "WARNING"), ("model_loaded", "INFO")]
)
def test_changes_of_the_fleet_are_lines_of_their_own_kind(sink, kind, level):
    """The story of a night is told by joins and losses."""
    line = line_of(sink, FleetChanged(builders.NOON, kind, "ada", MODEL, {"engine": "ollama"}))
    assert (line["event"], line["level"], line["node_id"], line["model"]) == (kind, level, "ada", MODEL)
    assert line["data"] == {"engine": "ollama"}


def test_a_management_request_has_a_line(sink):
    """Who deleted the model, and when."""
    line = line_of(sink, DELETED)
    assert (line["event"], line["level"], line["endpoint"]) == ("management_request", "INFO", "/api/delete")
    assert (line["request_id"], line["trace_id"], line["latency_ms"]) == ("m1", "a" * 32, 1000.0)


def test_samples_of_nodes_are_no_lines(sink):
    """One line a node and minute would be most of the log; the store has them."""
    sink.take(builders.sample())
    sink.take(builders.finished())
    assert [line["event"] for line in lines(sink)] == ["request_finished"]


def test_every_logger_of_the_process_writes_into_the_same_file(sink):
    """A crash in a library must be found where everything else is."""
    logging.getLogger("herd.roster").info("node %s joined", "ada", extra={"node_id": "ada"})
    logging.getLogger("aiohttp.client").warning("slow")
    logging.getLogger("herd.roster").debug("not wanted")
    first, second = lines(sink)
    assert (first["event"], first["logger"], first["level"], first["node_id"]) == (
        "node ada joined",
        "herd.roster",
        "INFO",
        "ada",
    )
    assert (second["logger"], second["level"]) == ("aiohttp.client", "WARNING")


def test_what_other_handlers_leave_on_a_record_is_no_field(sink):
    """uvicorn's coloured copy of its message would be every line's second half."""
    logging.getLogger("uvicorn.error").info("started", extra={"color_message": "\x1b[1mstarted", "port": 1})
    (line,) = lines(sink)
    assert list(line) == ["timestamp", "level", "logger", "event", "port"]


def test_a_traceback_is_one_field_of_one_line(sink):
    """Tracebacks over many lines are what makes logs unreadable to programs."""
    try:
        raise KeyError("ada")
    except KeyError:
        logging.getLogger("herd").exception("it broke")
    (line,) = lines(sink)
    assert line["event"] == "it broke"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("KeyError: 'ada'")


def test_an_argument_is_read_when_it_is_logged_not_when_it_is_written(sink):
    """Between the two it may have changed."""
    models = ["one"]
    logging.getLogger("herd").info("models: %s", models)
    models.append("two")
    assert lines(sink)[0]["event"] == "models: ['one']"


def test_the_four_fixed_keys_cannot_be_replaced(sink):
    """A field called `level` would hide an error from the operator's grep."""
    logging.getLogger("herd").error("it broke", extra={"level": "INFO", "event": "nothing", "timestamp": 0})
    (line,) = lines(sink)
    assert (line["level"], line["event"]) == ("ERROR", "it broke")
    assert isinstance(line["timestamp"], str)


def test_what_json_finds_hard_is_written_all_the_same(sink):
    """All of these can come in with a request."""
    odd = {"surrogate": "\ud800", "separator": "a\u2028b", "huge": 2**200, "object": object, "nul": "\x00"}
    logging.getLogger("herd").warning("odd", extra=odd)
    (line,) = lines(sink)
    assert (line["surrogate"], line["separator"], line["huge"], line["nul"]) == ("\ud800", "a\u2028b", 2**200, "\x00")
    said = json.loads(json_line(Line(0.0, "INFO", "herd", "odd: \udcff", {})))
    assert said["event"] == "odd: \udcff"


def test_a_line_that_cannot_be_written_is_lost_alone_and_counted(sink):
    """JSON has no structure that contains itself."""
    endless: dict[str, Any] = {}
    endless["self"] = endless
    logging.getLogger("herd").info("endless", extra={"data": {(1, 2): endless}})
    sink.take(builders.finished())
    assert [line["event"] for line in lines(sink) if line["event"] == "request_finished"]


def test_secrets_do_not_reach_the_file(sink):
    """Whatever is logged, wherever it stands."""
    logging.getLogger("aiohttp").warning(
        "cannot reach http://me:hunter22@ada:11434", extra={"authorization": "hunter22"}
    )
    sink.take(builders.failed(error_message="401 for Authorization: Bearer hunter22"))
    assert len(lines(sink)) == 2
    assert "hunter22" not in sink.path.read_text()


def test_a_user_s_strings_are_values_and_never_names(sink):
    """A tag called `level` is a tag."""
    line = line_of(sink, builders.finished(tags=("level", '","level": "ERROR')))
    assert line["tags"] == ["level", '","level": "ERROR']
    assert line["level"] == "INFO"
    assert shell(sink, """grep -c '"level": "ERROR"' FILE""").strip() == "0"


def test_lines_are_counted_by_level(sink):
    """The exposition shows them, and the audit compares."""
    for event in (builders.finished(), builders.failed(), BROKEN):
        sink.take(event)
    assert sink.flush(10)
    assert sink.stats().lines == {"DEBUG": 0, "INFO": 1, "WARNING": 0, "ERROR": 2, "CRITICAL": 0}
    assert sink.stats().dropped == 0


def test_the_level_holds_for_loggers_but_not_for_the_canonical_line(tmp_path):
    """Every request has one line, or the audit would find holes."""
    sink = configure_logging(tmp_path, level="ERROR")
    logging.getLogger("herd").warning("not wanted")
    sink.take(builders.finished())
    assert [line["event"] for line in lines(sink)] == ["request_finished"]
    assert sink.close(10)


def test_after_closing_the_loggers_are_as_they_were(tmp_path):
    """A second router in the same process, as in tests, must not write into the first one's file."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    sink = configure_logging(tmp_path, level="DEBUG")
    assert sink.close(10)
    assert (root.level, list(root.handlers)) == before
    sink.take(builders.finished())
    assert sink.stats().dropped == 1


def test_warnings_are_said_aloud_in_words_and_requests_are_not(sink, capsys):
    """Somebody starts herd in a terminal and wants to see that it works, not a line per request."""
    logging.getLogger("herd.app").info("listening on http://127.0.0.1:11435")
    logging.getLogger("herd.app").error("cannot reach http://me:hunter22@ada")
    logging.getLogger("elsewhere").info("chatter")
    sink.take(builders.failed("r-bad"))
    sink.take(FleetChanged(builders.NOON, "node_lost", "ada"))
    sink.take(FleetChanged(builders.NOON, "node_lost", "bob"))
    assert sink.flush(10)
    said = capsys.readouterr().err
    assert "listening on http://127.0.0.1:11435" in said
    assert "node_lost ada" in said
    assert "node_lost bob" in said
    assert not [word for word in ("r-bad", "chatter", "hunter22", "{") if word in said]


def test_the_same_warning_is_not_said_aloud_over_and_over(sink, capsys):
    """A collector that is down would fill the terminal; the file has every line."""
    for number in range(50):
        logging.getLogger("herd.app").warning("attempt %d failed", number)
    assert len([line for line in lines(sink) if line["logger"] == "herd.app"]) == 50
    assert capsys.readouterr().err.count("herd.app: attempt") == 1


def known_finding(severity: Severity = Severity.CRITICAL) -> Episode:
    """A finding that was acknowledged and silenced."""
    finding = Finding("error_rate", severity, "Requests fail", "30 of 100", "Look", node_id="ada", model=MODEL)
    return Episode("ab12", finding, builders.NOON, builders.NOON, note="known", silenced_until=builders.NOON + 60)


@pytest.mark.parametrize(
    ("change", "severity", "expected"),
    [
        ("opened", Severity.CRITICAL, "WARNING"),
        ("opened", Severity.INFO, "INFO"),
        ("changed", Severity.WARNING, "WARNING"),
        ("resolved", Severity.CRITICAL, "INFO"),
    ],
)
def test_a_finding_is_told_when_it_begins_changes_and_ends(sink, change, severity, expected):
    """Not every half minute that it is still there."""
    for told in ("seen", change):
        sink.take(FindingChanged(builders.NOON, told, known_finding(severity)))
    (line,) = lines(sink)
    assert (line["level"], line["event"], line["check_id"]) == (expected, f"finding_{change}", "error_rate")


def test_a_findings_line_has_what_a_reader_of_the_log_alone_needs(sink):
    """Which finding, about whom, how bad, what was seen, and what an operator said of it; nothing that is not known."""
    sink.take(FindingChanged(builders.NOON, "acknowledged", known_finding()))
    unsaid = Episode("cd34", Finding("slo_burn", Severity.INFO, "t", "d", "f"), builders.NOON, builders.NOON)
    sink.take(FindingChanged(builders.NOON, "opened", unsaid))
    said, fresh = lines(sink)
    assert said == {
        "timestamp": said["timestamp"], "level": "INFO", "logger": "herd.health", "event": "finding_acknowledged",
        "finding_id": "ab12", "check_id": "error_rate", "severity": "critical", "node_id": "ada", "model": MODEL,
        "title": "Requests fail", "description": "30 of 100", "note": "known", "silenced_until": builders.NOON + 60,
    }  # fmt: skip
    assert fresh.keys().isdisjoint({"node_id", "model", "note", "silenced_until"})


def test_every_field_is_declared_and_every_declaration_is_true(sink):
    """The catalog is the documentation; neither may run ahead of the other."""
    event = retried()
    for told in (
        event, AttemptFailed(event.request_id, event.ids.trace_id, event.attempts[0], True), BROKEN, DELETED,
        ContextProtected("r1", "t" * 32, ContextAction("moved", "ada", MODEL, 1, 2)),
        FleetChanged(builders.NOON, "model_loaded", "ada", MODEL, {"x": 1}),
        FindingChanged(builders.NOON, "silenced", known_finding()),
    ):  # fmt: skip
        sink.take(told)
    heads = ("timestamp", "level", "logger", "event")
    columns = {name for name in record(event) if name != "timestamp"}
    seen = [(line["event"], name) for line in lines(sink) for name in line if name not in {*heads, *columns}]
    of_finished = {name for kind, name in seen if kind == "request_finished"}
    declared = {entry.name for entry in LOG_FIELDS}
    assert of_finished == {"received_at"}
    assert {name for _, name in seen} <= declared
    never = declared - columns - {name for _, name in seen} - {*heads, "exception", "stack", "count", "…"}
    assert never == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_costs_lines_and_nothing_else_and_ends_by_itself(tmp_path, capsys):
    """Whoever logs never sees it; the count does, and the first line afterwards says so."""
    sink = configure_logging(tmp_path)
    sink.path.symlink_to("/dev/full")
    for _ in range(5):
        sink.take(builders.finished())
        logging.getLogger("herd").info("still here")
    assert sink.flush(10)
    assert (sum(sink.stats().lines.values()), sink.stats().dropped) == (0, 10)
    assert "cannot be written" in capsys.readouterr().err
    sink.path.unlink()
    sink.take(builders.finished())
    note, line = lines(sink)
    assert (note["event"], note["count"], line["event"]) == ("log_lines_dropped", 10, "request_finished")
    assert sink.stats().dropped == 10
    assert sink.close(10)


def test_an_unfinished_request_s_missing_parts_are_null_not_absent(sink):
    """A program that reads the log need not guess which keys there are."""
    whole, bare = line_of(sink, builders.finished()), line_of(sink, replace(builders.refused()))
    assert set(whole) == set(bare)
    assert (bare["model"], bare["node_id"], bare["score"]) == (None, None, None)
