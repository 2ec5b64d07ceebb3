"""The agent's log, which people read on a terminal and programs read line by line."""

import json
import logging

from node.logs import JsonLines, Readable, fields, start_logging


def record(**values):
    """A log record with fields."""
    made = logging.LogRecord("node.x", logging.INFO, "", 0, "Something", None, None)
    made.__dict__.update(fields(**values))
    return made


def test_a_log_line_is_ascii_whatever_an_engine_said():
    """One line a record: U+2028 and lone surrogates must not break the readers of the file."""
    line = JsonLines().format(record(error="ü\u2028\ud800\n"))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["error"] == "ü\u2028\ud800\n"


def test_fields_cannot_replace_what_every_line_has():
    """A field called level must not turn an error into an info."""
    line = json.loads(JsonLines().format(record(level="DEBUG", event="other", more=1)))
    assert (line["level"], line["event"], line["more"]) == ("INFO", "Something", 1)


def test_the_readable_line_stays_one_line():
    """An engine's error text must not be able to forge a line of the log."""
    line = Readable().format(record(error="a\n12:00:00 ERROR   forged", model="a:latest"))
    assert "\n" not in line
    assert line.endswith("model=a:latest")


def test_a_folder_that_cannot_be_written_costs_the_file_only(tmp_path, capsys):
    """A full or read-only disk must not take the node out of the fleet."""
    (tmp_path / "logs").write_text("a file where the folder should be")
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        start_logging("info", tmp_path)
        assert "it cannot be opened" in capsys.readouterr().err
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        for handler in set(root.handlers) - set(handlers):
            root.removeHandler(handler)
