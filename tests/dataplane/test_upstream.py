"""What goes to a node besides the body, and what the HTTP client's exceptions are taken for."""

import os
import resource
from contextlib import contextmanager

import pytest
from herd.dataplane.upstream import CLIENT_ERRORS, Upstream, as_attempt_error, request_headers

from herd.core.breaker import FAULTS_OF_THE_NODE
from herd.dataplane.trace_ids import new_ids
from tests.harness import free_port

CALLER = ("traceparent", f"00-{'a' * 32}-{'b' * 16}-01")


@contextmanager
def no_further_file():
    """This process can open no file for a moment, by its real limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def failure(port):
    """What becomes of a connection to a port on which nobody listens."""
    upstream = Upstream(1.0)
    await upstream.start()
    try:
        await upstream.open("GET", f"http://127.0.0.1:{port}/", {}, None)
    except CLIENT_ERRORS as error:
        return as_attempt_error(error, content_seen=False, answered=False)
    finally:
        await upstream.close()


async def test_a_router_out_of_files_does_not_blame_the_node():
    """Breakers would close the whole fleet for what is wrong with the router's own limit."""
    port = free_port()
    with no_further_file():
        error = await failure(port)
    assert (error.error_type, error.status, error.retryable) == ("internal", 503, False)
    assert error.error_type not in FAULTS_OF_THE_NODE
    assert "ulimit -n" in error.message


async def test_a_port_on_which_nobody_listens_is_the_node_s_fault():
    """What the breaker is for."""
    error = await failure(free_port())
    assert error.error_type == "connect"
    assert error.error_type in FAULTS_OF_THE_NODE


def test_the_callers_tracestate_goes_on_with_its_trace():
    """Other tracing systems keep their place in it; who passes a trace on passes it on, too."""
    sent = [CALLER, ("tracestate", "one=1"), ("tracestate", "two=2,three=3")]
    found = request_headers(sent, new_ids(CALLER[1]), "c" * 16)
    assert found["traceparent"] == f"00-{'a' * 32}-{'c' * 16}-01"
    assert found["tracestate"] == "one=1,two=2,three=3"


@pytest.mark.parametrize("sent", [[], [("traceparent", "00-none-of-this-01")]])
def test_a_tracestate_without_a_valid_trace_of_the_callers_is_dropped(sent):
    """It would be said of a trace that it does not belong to."""
    ids = new_ids(dict(sent).get("traceparent"))
    assert "tracestate" not in request_headers([*sent, ("tracestate", "one=1")], ids, "c" * 16)


def test_a_trace_without_a_tracestate_gets_none():
    """An empty header would be noise."""
    assert "tracestate" not in request_headers([CALLER], new_ids(CALLER[1]), "c" * 16)
