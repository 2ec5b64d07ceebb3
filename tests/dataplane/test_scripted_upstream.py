"""The scripted upstream shows a reader what the real one would: the same scripts, played both ways and compared."""

import asyncio

import pytest

from herd.core import errors
from herd.dataplane.exchange import Call, Upstream
from tests.dataplane.scripted import CLOSE, OK, chunked, node
from tests.dataplane.scripted import SILENCE as MUTE
from tests.dataplane.scripted_upstream import SILENCE, Head, ScriptedUpstream
from tests.harness import free_port

SHORT_S = 0.1
CHUNKED = Head(headers={"transfer-encoding": "chunked"})
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
BROKEN = errors.StreamAborted("the node's answer broke off: its connection closed before the end")
LOST = errors.ConnectionLost("the node's connection was lost before it answered: it closed the connection")


async def seen(upstream, url, limit=None):
    """What a reader sees of an answer that has a tenth of a second for each of its steps."""
    clock, said, answer = asyncio.get_running_loop().time, b"", None
    try:
        async with upstream.exchange(Call("POST", f"{url}/api/chat", (), b"{}"), clock() + SHORT_S) as answer:
            head = (answer.status, answer.headers, answer.header(b"content-length"), answer.content_length)
            if limit is not None:
                return head, *await answer.read_limited(limit)
            while chunk := await answer.read():
                said += chunk
                answer.content_seen, answer.due_at = True, clock() + SHORT_S
    except errors.AttemptError as error:
        return answer and answer.status, said, type(error), error.message
    return head, said, answer.reconnected


@pytest.mark.parametrize(
    ("real", "played"),
    [
        ([OK], [Head(headers={"content-length": "5"}, length=5), b"hel", b"lo"]),
        ([chunked(b"he", b"llo")], [CHUNKED, b"he", b"llo"]),
        ([chunked()], [CHUNKED]),
        ([BUSY], [Head(503, {"content-length": "4"}, length=4), b"busy"]),
        ([b"", CLOSE], [LOST]),
        ([chunked(b"he", end=False), CLOSE], [CHUNKED, b"he", BROKEN]),
        ([chunked(end=False), CLOSE], [CHUNKED, BROKEN]),
        ([b"", MUTE], [SILENCE]),
        ([chunked(end=False), MUTE], [CHUNKED, SILENCE]),
        ([chunked(b"he", end=False), MUTE], [CHUNKED, b"he", SILENCE]),
        ([b"", asyncio.Event()], [asyncio.Event()]),
    ],
    ids=["length", "chunks", "empty", "status", "lost", "broken", "broken before content", "silent before the head",
         "silent before content", "silent after content", "an event that never comes"],
)  # fmt: skip
async def test_a_reader_sees_the_same_of_a_script_as_of_a_node(real, played):
    """What is tested against scripts holds for nodes only as far as this is so."""
    upstream, scripts = Upstream(5.0), ScriptedUpstream(node=[played])
    async with node(real) as there:
        truth = await seen(upstream, there.url)
        await upstream.close()
    assert await seen(scripts, "http://node:11434") == truth
    assert scripts.open == 0


async def test_a_limited_read_sees_the_same_too():
    """Error bodies and listings are read so."""
    upstream, scripts = Upstream(5.0), ScriptedUpstream(node=[[CHUNKED, b"hello", b" world"]])
    async with node([chunked(b"hello world")]) as there:
        truth = [await seen(upstream, there.url, limit) for limit in (100, 11)]
        await upstream.close()
    assert [await seen(scripts, "http://node", limit) for limit in (100, 11)] == truth


async def test_an_event_of_a_script_is_waited_for_and_seconds_pass():
    """A test says so when what happens."""
    gate, clock = asyncio.Event(), asyncio.get_running_loop().time
    scripts = ScriptedUpstream(node=[[CHUNKED, 0.01, b"he", gate, b"llo"]])
    asyncio.get_running_loop().call_later(0.02, gate.set)
    began = clock()
    async with scripts.exchange(Call("GET", "http://node/"), began + 5) as answer:
        assert [await answer.read(), gate.is_set(), await answer.read(), gate.is_set()] == [b"he", False, b"llo", True]
    assert clock() - began >= 0.02


async def test_a_port_where_nobody_listens_is_the_error_that_scripts_raise():
    """`connect` is the one failure that has no connection to play it on."""
    status, said, kind, message = await seen(Upstream(5.0), f"http://127.0.0.1:{free_port()}")
    assert (status, said, kind) == (None, b"", errors.ConnectFailed)
    assert "could not be reached" in message
    scripts = ScriptedUpstream(node=[[errors.ConnectFailed(message)]])
    assert await seen(scripts, "http://node") == (status, said, kind, message)


async def test_each_node_plays_its_scripts_in_the_order_of_its_calls_and_the_last_for_ever():
    """One test may have a node that fails first and is well afterwards."""
    scripts = ScriptedUpstream(a=[[errors.ConnectFailed("no")], [b"yes"]], b=[[b"b"]])
    found = [(await seen(scripts, f"http://{host}:1"))[1] for host in "aaba"]
    assert (found, scripts.tried) == ([b"", b"yes", b"b", b"yes"], ["a", "a", "b", "a"])
