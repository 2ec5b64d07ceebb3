"""`herd logs`: the last lines of the log that match, whatever the files went through."""

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from herd.telemetry.log_files import BLOCK, LogReader, backwards


def entry(number, level="INFO", event="something", **fields):
    """One line as the router writes it."""
    at = f"2026-03-0{1 + number // 1000}T10:00:00.{number:06d}Z"
    return json.dumps({"timestamp": at, "level": level, "logger": "herd.test", "event": event, "n": number, **fields})


@pytest.fixture
def log(tmp_path):
    """A data directory with a log of these lines; `rotated` names an older file."""

    def write(*lines, rotated=None, end="\n"):
        folder = tmp_path / "logs"
        folder.mkdir(exist_ok=True)
        name = f"herd.jsonl.{rotated}" if rotated else "herd.jsonl"
        (folder / name).write_text("\n".join(lines) + end)
        return str(tmp_path)

    return write


@pytest.fixture
def numbers(inside):
    """The numbers of the lines that a command shows, in its order."""

    def run(data_dir, *arguments):
        told = inside("logs", "--json", "--data-dir", data_dir, *arguments)
        assert told.returncode == 0
        return [json.loads(line)["n"] for line in told.stdout.splitlines()]

    return run


def test_the_last_lines_come_last(log, numbers):
    """As with tail: the newest stands next to the prompt."""
    assert numbers(log(*map(entry, range(50))), "--limit", "3") == [47, 48, 49]


def test_a_level_lets_worse_ones_through_and_milder_ones_not(log, numbers):
    """Who looks for errors wants the critical ones too."""
    lines = [entry(n, level) for n, level in enumerate(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))]
    assert numbers(log(*lines), "--level", "error") == [3, 4]
    assert numbers(log(*lines), "--level", "DEBUG") == [0, 1, 2, 3, 4]


def test_text_is_found_as_people_read_it(log, numbers):
    """The file has escapes for everything beyond ASCII; a person types the letter."""
    data_dir = log(entry(0, event="Größe"), entry(1, detail={"reason": "Stream error"}), entry(2))
    assert numbers(data_dir, "--grep", "größe") == [0]
    assert numbers(data_dir, "--grep", "stream ERROR") == [1]
    assert numbers(data_dir, "--grep", "[a-z]") == []


def test_yesterdays_file_is_read_where_todays_is_too_short(log, numbers):
    """At five past midnight the file of the day is empty."""
    log(entry(1), rotated="2026-03-01")
    log(entry(2), rotated="2026-03-02")
    assert numbers(log(entry(3)), "--limit", "2") == [2, 3]


def test_a_torn_last_line_is_not_shown_and_hides_nothing(log, numbers):
    """It is still being written, or never will be."""
    assert numbers(log(entry(1), entry(2), entry(3)[:30], end="")) == [1, 2]


def test_damage_in_the_middle_is_passed_over(log, numbers):
    """One bad block must not cost the log."""
    assert numbers(log(entry(1), "\x00\x00{broken", '"text"', "", entry(2))) == [1, 2]


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_lines_are_whole_wherever_the_blocks_of_the_file_end(tmp_path, size):
    """The file is read from its end in blocks, and lines do not know where those begin."""
    lines = [b"a" * size, b"", b"b" * 10, b"c" * size]
    path = tmp_path / "file"
    path.write_bytes(b"\n".join(lines) + b"\ntorn")
    assert list(backwards(path)) == lines[::-1]


def test_a_reader_goes_on_where_it_was_over_a_rotation(tmp_path):
    """An audit looks again while the log moves on, over midnight too."""
    path = tmp_path / "herd.jsonl"
    path.write_bytes(b"1\n2\n3")
    reader = LogReader(tmp_path)
    assert list(reader.lines()) == [b"1", b"2"]
    with path.open("ab") as file:
        file.write(b"3\n4\n")
    path.rename(tmp_path / "herd.jsonl.2026-03-01")
    path.write_bytes(b"5\n")
    assert list(reader.lines()) == [b"33", b"4", b"5"]
    assert list(reader.lines()) == []
    reader.close()


def test_readable_lines_have_level_event_and_fields(log, inside):
    """JSON is for programs; a person reads left to right."""
    data_dir = log(entry(1, "ERROR", "Stream error from big: stall", node_id="big", exception="Traceback\n  line 2"))
    (line, *trace) = inside("logs", "--data-dir", data_dir).stdout.splitlines()
    assert "ERROR    Stream error from big: stall  n=1 node_id=big" in line
    assert trace == ["Traceback", "  line 2"]


def test_a_finished_request_is_one_short_line(served, inside):
    """Its line has every column of the row; a person needs the few that lead on."""
    told = inside("logs", "--grep", "failed-1", "--level", "ERROR", "--data-dir", str(served.router.data_dir))
    assert "request_finished  status=failed" in told.stdout
    assert "request_id=failed-1" in told.stdout
    assert "scores_breakdown" not in told.stdout


def test_what_a_client_wrote_cannot_steer_the_terminal(log, inside):
    """A log viewer is the classic place for it."""
    told = inside("logs", "--data-dir", log(entry(1, event="evil\x1b[2J\rgone", model="[red]\x07")))
    assert "\x1b" not in told.stdout
    assert "\x07" not in told.stdout
    assert "evil\\x1b[2J\\rgone" in told.stdout
    assert "[red]" in told.stdout


def test_no_log_is_one_sentence(inside, tmp_path):
    """A wrong directory must not look like a quiet night."""
    told = inside("logs", "--data-dir", str(tmp_path))
    assert told.returncode == 1
    assert str(tmp_path) in told.stderr


def test_a_reader_that_has_seen_enough_causes_no_noise(log, herd):
    """`herd logs | head -1` is how it is used."""
    data_dir = log(*(entry(n, text="x" * 2000) for n in range(1000)))
    process = herd.start("logs", "--json", "--limit", "1000", "--data-dir", data_dir)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(20) == 141
    process.stderr.close()


def on_a_terminal(herd, *arguments, **extra):
    """What a command writes when its output is a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "herd", *arguments]
    environment = herd.environment(TERM="xterm-256color", **extra)
    subprocess.run(command, stdout=theirs, env=environment, check=True, timeout=60)
    os.close(theirs)
    told = b""
    with suppress(OSError):  # what a terminal says when its other end is closed
        while block := os.read(ours, 65536):
            told += block
    os.close(ours)
    return told.decode()


def test_colour_is_for_terminals_that_want_it(log, herd):
    """Escape codes in a file or a screen reader are noise."""
    data_dir = log(entry(1, "ERROR"))
    arguments = ("logs", "--data-dir", data_dir)
    assert "\x1b[31mERROR" in on_a_terminal(herd, *arguments)
    assert "\x1b" not in on_a_terminal(herd, *arguments, NO_COLOR="1")
    assert "\x1b" not in herd(*arguments).stdout
