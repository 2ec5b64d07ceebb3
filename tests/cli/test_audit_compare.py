"""The audit's comparison alone: which requests are missing where, and which sums do not agree."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.audit.comparison import Comparison, Record
from herd.audit.counters import CounterComparison, read_scrape


def request(number, **changes):
    """A request that ended at second `number`."""
    usual = Record(
        f"{number:016x}", f"r{number}", number - 0.5, float(number), "/api/chat", "completed", "m:1b", "ada", 3, 5
    )
    return replace(usual, **changes)


def compared(rows, lines):
    found = Comparison()
    found.feed(rows, lines)
    return found


def scraped(text, began=1000.0, ended=1001.0):
    return CounterComparison(read_scrape(f"herd_start_time_seconds 0\n{text}"), began, ended)


COUNTED = """# HELP herd_requests_finished_total Requests ended.
# TYPE herd_requests_finished_total counter
herd_requests_finished_total{status="completed"} 2.0
herd_tokens_finished_total{type="input"} 6.0
herd_tokens_finished_total{type="output"} 1e+01
herd_requests_total{endpoint="/api/chat",model="m:1b",status="completed"} 2.0
"""


@given(st.permutations(range(8)), st.permutations(range(8)))
def test_the_order_of_records_does_not_matter(rows, lines):
    """Two threads write them, each at its own pace."""
    found = compared(map(request, rows), map(request, lines))
    assert found.differences() == []
    assert found.rows == found.lines


@pytest.mark.parametrize("gone", range(4))
def test_a_missing_row_or_line_is_named_wherever_it_was(gone):
    """The first that is missing leads to when and why."""
    everything, fewer = [*map(request, range(4))], [request(n) for n in range(4) if n != gone]
    (no_row,) = compared(fewer, everything).differences()
    (no_line,) = compared(everything, fewer).differences()
    assert (no_row.request_id, no_row.missing_from) == (f"r{gone}", "database")
    assert (no_line.request_id, no_line.missing_from) == (f"r{gone}", "log")


def test_the_first_that_was_received_comes_first():
    """Later differences often follow from it."""
    found = compared([request(5), request(3)], [request(4)]).differences()
    assert [each.request_id for each in found] == ["r3", "r4", "r5"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "failed"), ("model", "other:1b"), ("node_id", None), ("prompt_tokens", 4), ("completion_tokens", None)],
)
def test_records_that_say_different_things_are_a_difference(field, value):
    """Two records of one request are worth nothing if they contradict each other."""
    (found,) = compared([request(1)], [request(1, **{field: value})]).differences()
    assert found.missing_from is None
    assert list(found.says) == [field]
    assert field in found.sentence


def test_one_id_used_twice_by_a_caller_is_two_requests():
    """Retrying clients send their X-Request-Id again; the later row's id is longer, its span is its own."""
    rows = [request(1), request(2, request_id="r1.0000000000000002")]
    assert compared(rows, [request(1), request(2, request_id="r1")]).differences() == []


def test_a_line_written_twice_is_not_agreement():
    """Counting lines would show one request too many."""
    assert len(compared([request(1)], [request(1), request(1)]).differences()) == 1
    assert len(compared([], [request(1), request(1)]).differences()) == 2


def test_what_comes_later_can_still_agree():
    """Records are written by threads; an audit looks more than once."""
    found = compared([request(1)], [])
    assert len(found.differences()) == 1
    found.feed([], [request(1)])
    assert found.differences() == []


def test_counters_that_say_what_rows_say_leave_no_gap():
    """The metrics are the third record of the same requests."""
    found = scraped(COUNTED)
    for number in (1, 2):
        found.take_row(request(number))
    assert found.gaps() == []


def test_a_lost_row_is_a_gap_in_requests_and_in_tokens():
    """A sum that does not notice one request would be no proof."""
    found = scraped(COUNTED)
    found.take_row(request(1))
    assert [gap.what for gap in found.gaps()] == ["completed requests", "input tokens", "output tokens"]


def test_a_row_that_the_counters_do_not_know_is_a_gap():
    """Lost metrics are a loss like any other."""
    found = scraped(COUNTED)
    for number in (1, 2, 3):
        found.take_row(request(number))
    assert "completed requests: 3 in the database, 2 in the metrics" in [gap.sentence for gap in found.gaps()]


def test_requests_that_end_during_the_scrape_are_no_gap_either_way():
    """A scrape of a busy router has no single moment."""
    found = scraped(COUNTED)
    for at in (1, 2, 1000.5):
        found.take_row(request(1, finished_at=float(at)))
    assert found.gaps() == []
    found.take_row(request(1, finished_at=1002.0))
    assert found.gaps() == []


def test_rows_of_before_the_router_began_are_not_in_its_counters():
    """Counters begin at zero with each start; rows stay."""
    found = CounterComparison(read_scrape(COUNTED + "herd_start_time_seconds 1.5\n"), 1000.0, 1001.0)
    for number in (1, 2, 3):
        found.take_row(request(number))
    assert found.gaps() == []


def test_series_of_a_model_that_left_are_no_gap():
    """A model's series go with it, and a model that nobody knew counts as unknown."""
    left = COUNTED.replace('model="m:1b",status="completed"} 2.0', 'model="m:1b",status="completed"} 0.0')
    unknown = COUNTED.replace('model="m:1b"', 'model="_unknown"')
    for text in (left, unknown):
        found = scraped(text)
        for number in (1, 2):
            found.take_row(request(number))
        assert found.gaps() == []


def test_requests_counted_for_a_wrong_model_are_a_gap():
    """Right sums under wrong names mislead just as well."""
    found = scraped(COUNTED.replace('model="m:1b"', 'model="x:1b"'))
    for number in (1, 2):
        found.take_row(request(number))
    assert [gap.what for gap in found.gaps()] == ["completed /api/chat requests of x:1b"]


def test_names_with_quotes_and_newlines_are_read_back():
    """A label's value is what the exposition escaped."""
    text = 'herd_requests_total{endpoint="/x",model="a\\"b\\\\c\\nd,e}=\\"",status="failed"} 3\n'
    assert read_scrape(f"herd_start_time_seconds 0\n{text}").series == {("/x", 'a"b\\c\nd,e}="', "failed"): 3}


@pytest.mark.parametrize("text", ["", "<html>not found</html>", "up 1\n", "herd_start_time_seconds soon\n"])
def test_what_is_no_exposition_of_a_router_is_refused(text):
    """Zeroes read out of another server's page would look like lost metrics."""
    with pytest.raises(ValueError, match=r"herd_start_time_seconds|float"):
        read_scrape(text)
