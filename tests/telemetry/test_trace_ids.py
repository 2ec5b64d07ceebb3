"""W3C trace context, in and out."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.events import TraceIds
from herd.dataplane.trace_ids import new_ids, new_span_id, traceparent, traceresponse

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_valid_traceparent_puts_the_request_into_the_caller_s_trace():
    """The client's own trace shows what herd did with its request."""
    ids = new_ids(f"00-{TRACE}-{PARENT}-01")
    assert (ids.trace_id, ids.parent_span_id, ids.sampled) == (TRACE, PARENT, True)
    assert ids.span_id != PARENT


def test_a_caller_that_does_not_record_is_remembered():
    """The flag goes on to the node, which should not record either."""
    assert new_ids(f"00-{TRACE}-{PARENT}-00").sampled is False
    assert new_ids(f"00-{TRACE}-{PARENT}-02").sampled is False


@pytest.mark.parametrize(
    "header",
    [
        None, "", "nonsense", f"00-{TRACE}-{PARENT}", f"00-{TRACE}-{PARENT}-0", f"00-{TRACE}-{PARENT}-01-more",
        f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01", f"00-{TRACE[:-1]}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01\n-x",
        f"cc-{TRACE}-{PARENT}-01-" + "x" * 10_000,
    ],
)  # fmt: skip
def test_anything_else_begins_a_new_trace(header):
    """A header that breaks the standard must neither fail the request nor end up in a record."""
    ids = new_ids(header)
    assert ids.trace_id != TRACE
    assert ids.parent_span_id is None
    assert ids.sampled


def test_a_later_version_is_read_as_far_as_it_is_known():
    """The standard asks for it, so that it can grow."""
    assert new_ids(f"01-{TRACE}-{PARENT}-01-future").trace_id == TRACE
    assert new_ids(f" 00-{TRACE}-{PARENT}-01 ").trace_id == TRACE


@given(st.text())
def test_no_header_whatever_raises(header):
    """It is the first thing that is read of a stranger's request."""
    ids = new_ids(header)
    assert re.fullmatch(r"[0-9a-f]{32}", ids.trace_id)
    assert re.fullmatch(r"[0-9a-f]{16}", ids.span_id)


def test_ids_are_all_different():
    """Two requests under one id would be one trace."""
    assert len({new_span_id() for _ in range(1000)} | {new_ids().trace_id for _ in range(1000)}) == 2000


def test_what_is_written_reads_back():
    """A node, or another herd in front of this one, takes the same trace on."""
    ids = TraceIds(TRACE, PARENT, sampled=False)
    assert traceparent(ids, "1" * 16) == f"00-{TRACE}-{'1' * 16}-00"
    assert traceresponse(ids) == f"00-{TRACE}-{PARENT}-00"
    assert new_ids(traceresponse(ids)).parent_span_id == PARENT
