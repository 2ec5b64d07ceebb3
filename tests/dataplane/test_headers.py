"""Which of a client's headers reach a node, and which of a node's reach the client."""

import pytest

from herd.dataplane.headers import request_headers, response_headers
from herd.dataplane.trace_ids import new_ids

CALLER = (b"traceparent", f"00-{'a' * 32}-{'b' * 16}-01".encode())


def sent_on(*headers):
    """What goes to the node of what the client sent, within the client's own trace if it has one."""
    ids = new_ids(dict(headers).get(b"traceparent", b"").decode() or None)
    return request_headers(headers, ids, "c" * 16)


def test_a_clients_header_goes_on_as_it_is_and_as_often():
    """Engines have headers of their own, and herd does not know them all."""
    given = ((b"anthropic-version", b"2023-06-01"), (b"x-two", b"1"), (b"x-two", b"\xe9"))
    assert sent_on(*given)[:3] == list(given)


@pytest.mark.parametrize(
    "name",
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "expect", "accept-encoding",
     "authorization", "x-api-key", "cookie", "origin", "referer", "x-herd-tags", "x-request-id", "x-conversation-id"],
)  # fmt: skip
def test_what_is_between_client_and_herd_stays_there(name):
    """A credential on a node's wire is lost; another node's Host, an Origin, a coding break the answer."""
    assert name.encode() not in dict(sent_on((name.encode(), b"x")))


def test_every_body_is_called_json():
    """`curl -d` sends a form type, and means JSON; a node must read what herd read."""
    found = sent_on((b"content-type", b"application/x-www-form-urlencoded"))
    assert [value for name, value in found if name == b"content-type"] == [b"application/json"]


def test_the_callers_tracestate_goes_on_with_its_trace():
    """Other tracing systems keep their place in it; who passes a trace on passes it on, too."""
    found = dict(sent_on(CALLER, (b"tracestate", b"one=1"), (b"tracestate", b"two=2,three=3")))
    assert found[b"traceparent"] == f"00-{'a' * 32}-{'c' * 16}-01".encode()
    assert found[b"tracestate"] == b"one=1,two=2,three=3"


@pytest.mark.parametrize("sent", [[], [(b"traceparent", b"00-none-of-this-01")]])
def test_a_tracestate_without_a_valid_trace_of_the_callers_is_dropped(sent):
    """It would be said of a trace that it does not belong to."""
    assert b"tracestate" not in dict(sent_on(*sent, (b"tracestate", b"one=1")))


def test_a_trace_without_a_tracestate_gets_none():
    """An empty header would be noise."""
    assert b"tracestate" not in dict(sent_on(CALLER, (b"tracestate", b"")))


def test_a_nodes_header_comes_back_if_it_is_about_its_answer():
    """Lengths are made anew; a node neither speaks for herd nor sends a client elsewhere, nor moves its browser."""
    back = [(b"content-type", b"application/json"), (b"x-ratelimit-limit", b"1"), (b"x-ratelimit-limit", b"2")]
    own = [(name, b"x") for name in (b"connection", b"transfer-encoding", b"content-length", b"date", b"server",
                                     b"set-cookie", b"access-control-allow-origin", b"keep-alive", b"location",
                                     b"clear-site-data", b"x-herd-node", b"x-request-id", b"traceresponse",
                                     b"refresh", b"www-authenticate", b"strict-transport-security")]  # fmt: skip
    assert response_headers(own + back) == back
