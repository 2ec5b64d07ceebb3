"""A request that has passed through this router before is refused: its own node leads back to it."""

import json

import pytest

from herd.dataplane.exchange import Call, Upstream
from herd.security.access import Access
from herd.security.allowances import Allowances
from herd.security.credentials import Credentials
from herd.security.doors import ClosedDoors
from herd.security.gate import Gate
from herd.security.names import Names
from herd.settings.load import load
from tests.dataplane.scripted import OK, node

ME = b"herd-0123456789ab"


def open_gate():
    """A gate that asks nobody for a key."""
    settings = load({"auth": "off"}, {})
    return Gate(settings, Names([]), Credentials(Access(settings.data_dir)), Allowances())


async def asked(*via, reports=None):
    """The status of a request with these Via headers, and what it was told."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    def report(refusal):
        (reports if reports is not None else []).append((refusal.door, refusal.error.error_type))

    doors = ClosedDoors(app, Names([]), open_gate(), frozenset(), frozenset({"/api/chat"}), report, me=ME)
    headers = [(b"host", b"localhost"), *((b"via", value) for value in via)]
    scope = {"type": "http", "method": "POST", "path": "/api/chat", "headers": headers, "http_version": "1.1",
             "client": ("127.0.0.1", 1)}  # fmt: skip
    await doors(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("via", [[b"1.1 " + ME], [b"1.1 herd-ffffffffffff, 1.1 " + ME], [b"1.1 nginx", b"1.1 " + ME]])
async def test_a_request_that_was_here_before_is_refused_however_many_routers_it_passed(via):
    """`OLLAMA_HOST` pointed at the router made it its own node: one request became 1,025 in flight."""
    reports = []
    status, body = await asked(*via, reports=reports)
    assert (status, "before" in json.loads(body)["error"], reports) == (508, True, [("loop", "bad_request")])


@pytest.mark.parametrize("via", [[], [b"1.1 nginx"], [b"1.1 herd-ffffffffffff"]])
async def test_a_request_that_passed_through_others_is_served(via):
    """A proxy in front, and a router of another fleet, are no loop."""
    assert (await asked(*via))[0] == 200


async def test_whatever_goes_to_a_node_says_through_whom():
    """Without it nobody could tell a loop."""
    upstream = Upstream(5.0, via=ME)
    async with node([OK]) as there:
        async with upstream.exchange(Call("POST", there.url, ((b"via", b"1.1 nginx"),), b"{}"), 1e9) as answer:
            while await answer.read():
                pass
        await upstream.close()
    head = there.requests[0]
    assert b"\r\nvia: 1.1 nginx\r\n" in head
    assert b"\r\nvia: 1.1 " + ME + b"\r\n" in head
