"""The end of a log: what a recorder that died had written of what comes again."""

import pytest

from herd.telemetry.log import LogSink
from herd.telemetry.log_lines import Line
from herd.telemetry.log_tail import BESIDE, CHUNK, LogTail
from tests.store import builders


def test_each_line_is_found_as_often_as_it_stands_there(tmp_path):
    """Two lines that are alike are two."""
    path = tmp_path / "herd.jsonl"
    path.write_bytes(b"a\nb\na\n")
    tail = LogTail(path, 3)
    assert [tail.has(line) for line in (b"a\n", b"b\n", b"a\n", b"a\n", b"c\n")] == [True, True, True, False, False]


def test_a_line_from_before_the_last_midnight_is_found_too(tmp_path):
    """A recorder may die in the minute of the rotation, like in any other."""
    path = tmp_path / "herd.jsonl"
    (tmp_path / "herd.jsonl.2026-01-01").write_bytes(b"older\n")
    (tmp_path / "herd.jsonl.2026-01-02").write_bytes(b"before\n")
    path.write_bytes(b"after\n")
    tail = LogTail(path, 2)
    assert tail.has(b"before\n")
    assert tail.has(b"after\n")
    assert not tail.has(b"older\n")


def test_half_a_line_is_not_the_line(tmp_path):
    """Where the kill cut it; the whole line is still to be written."""
    path = tmp_path / "herd.jsonl"
    path.write_bytes(b"whole\nhal")
    tail = LogTail(path, 2)
    assert tail.has(b"whole\n")
    assert not tail.has(b"half\n")


def test_only_the_end_of_a_large_log_is_read(tmp_path):
    """A day's log may be larger than the memory that a recorder should take."""
    path, line = tmp_path / "herd.jsonl", b"x" * 199 + b"\n"
    path.write_bytes(b"first\n" + line * (3 * CHUNK // len(line)) + b"last\n")
    tail = LogTail(path, 1)
    assert tail.has(b"last\n")
    assert not tail.has(b"first\n")
    assert sum(tail._found.values()) == BESIDE


def test_no_log_has_no_lines(tmp_path):
    """The first start of all."""
    assert not LogTail(tmp_path / "nowhere" / "herd.jsonl", 5).has(b"a\n")


@pytest.mark.parametrize("known", [0, 1, 2])
def test_a_line_that_comes_again_stands_once_and_is_counted_once(tmp_path, known):
    """However much of it the recorder before had written."""
    event, line = builders.finished(), Line(builders.NOON, "WARNING", "herd", "hello", {"odd": 1})
    before = LogSink(tmp_path)
    if known:
        before.take(event, 1.0)
    if known == 2:
        before.take_line(line)
    assert before.close(10)
    sink = LogSink(tmp_path)
    sink.expect_repeats(2)
    sink.take(event, 1.0, repeat=True)
    sink.take_line(line, repeat=True)
    sink.take(event, 1.0)
    assert sink.close(10)
    text = sink.path.read_text()
    assert (text.count("request_finished"), text.count("hello")) == (2, 1)
    stats = sink.stats()
    assert (stats.lines["INFO"], stats.lines["WARNING"], stats.disposed) == (2, 1, 3)
