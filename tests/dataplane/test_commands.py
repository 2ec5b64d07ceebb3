"""Commands go to every node concerned, at once: `ollama stop` and `ollama rm` mean the fleet."""

import asyncio

import pytest

from herd.core import errors
from herd.core.events import Managed, Status
from herd.dataplane.commands import is_unload
from tests.dataplane.plane import CHAT, COMPLETIONS, HELLO, Caller, M, Plane, chat, node, until
from tests.dataplane.scripted_upstream import JSON, Head
from tests.dataplane.test_manage import DELETE, SHOW, Managing

GENERATE = "/api/generate"
UNLOADED = [JSON, b'{"done":true,"done_reason":"unload"}']
OK = [Head(200, {}, length=0)]
NO_FILES = {"models": (), "loaded": ()}


def llamacpp(name):
    """The heartbeat of a node with llama.cpp's server."""
    beat = node(name)
    engine = beat.engine.model_copy(update={"kind": "llamacpp", "endpoints": [COMPLETIONS]})
    return beat.model_copy(update={"engine": engine})


def stop(path=GENERATE, **body):
    """What `ollama stop` sends."""
    return Caller({"model": M, "keep_alive": 0, **body}, path)


@pytest.mark.parametrize(
    ("path", "document", "unloads"),
    [
        (GENERATE, {"keep_alive": 0}, True),
        (GENERATE, {"keep_alive": "0s", "prompt": ""}, True),
        (CHAT, {"keep_alive": 0.0, "messages": []}, True),
        (GENERATE, {"keep_alive": "10m"}, False),
        (GENERATE, {"keep_alive": -1}, False),
        (GENERATE, {"keep_alive": False}, False),
        (GENERATE, {}, False),
        (GENERATE, {"keep_alive": 0, "prompt": "answer, then unload"}, False),
        (CHAT, {"keep_alive": 0, "messages": [{"role": "user"}]}, False),
        (COMPLETIONS, {"keep_alive": 0}, False),
    ],
)
def test_an_unload_is_a_request_without_a_prompt_for_no_time_at_all(path, document, unloads):
    """As Ollama's own handlers tell it from a request to load, and from one to answer and then unload."""
    assert is_unload(path, document) == unloads


async def test_an_unload_goes_to_every_node_with_the_model_in_memory_and_waits_for_no_slot():
    """It went to one node, where the model was not loaded, or waited behind the very answers that it was to end."""
    gate = asyncio.Event()
    beats = [node("a", slots=1), node("b"), node("c", loaded=())]
    plane = Plane(beats=beats, a=[[gate, *HELLO], UNLOADED], b=[UNLOADED], c=[UNLOADED])
    plane.keeper.drain("b", True)
    async with plane.asking():
        await until(lambda: plane.upstream.asked["a"] == 1)
        caller = stop()
        await plane.serve(caller)
        assert sorted(plane.upstream.tried) == ["a", "a", "b"]
        gate.set()
    assert (caller.status, caller.answer, caller.headers["x-herd-node"]) == (200, UNLOADED[1], "a, b")
    (finished,) = [each for each in plane.finished if each.endpoint == GENERATE]
    assert (finished.status, finished.retry_count, len(plane.finished)) == (Status.COMPLETED, 0, 2)
    (other,) = plane.of(Managed)
    assert (other.request_id, other.node_id, other.http_status) == (finished.request_id, "b", 200)
    assert other.ids.trace_id == finished.ids.trace_id
    memory = {name: M in entry.node.loaded for name, entry in plane.cell.entries.items()}
    assert memory == {"a": True, "b": False, "c": False}, "a was at work, and keeps it until its next heartbeat"


async def test_an_unload_of_a_model_that_is_nowhere_in_memory_is_answered_as_an_engine_does():
    """`ollama stop` twice is no error."""
    plane = Plane(beats=[node("a", loaded=()), node("b", loaded=())], a=[UNLOADED], b=[UNLOADED])
    finished, caller = await plane.ask(stop(path=CHAT))
    assert (caller.status, caller.answer, len(plane.upstream.calls)) == (200, UNLOADED[1], 1)
    finished, caller = await plane.ask(stop(model="nobody:1b"))
    assert (caller.status, finished.error_type) == (404, "model_missing")


async def test_an_unload_that_one_node_does_not_take_is_told_by_those_that_did():
    """The answer says where the model is out of memory."""
    plane = Plane(a=[[errors.ConnectFailed("away")]], b=[UNLOADED])
    _, caller = await plane.ask(stop())
    assert (caller.status, caller.headers["x-herd-node"]) == (200, "b")
    plane = Plane(a=[[errors.ConnectFailed("away")]], b=[[Head(500), b'{"error":"no"}']])
    finished, caller = await plane.ask(stop())
    assert (finished.status, caller.status) == (Status.FAILED, 502)


async def test_a_deletion_reaches_every_holder_and_the_answer_says_which():
    """`ollama rm` through the fleet left the model on all nodes but one."""
    fleet = Managing(beats=[node("a"), node("b", loaded=()), node("c", **NO_FILES)], a=[OK], b=[OK], c=[OK])
    event, caller = await fleet.ask(DELETE, method="DELETE")
    assert (caller.status, caller.headers["x-herd-node"]) == (200, "a, b")
    assert [each.node_id for each in fleet.managed] == ["a", "b"]
    assert len({each.ids.span_id for each in fleet.managed}) == 2
    assert event.request_id == fleet.managed[0].request_id


async def test_a_deletion_that_one_holder_does_not_carry_out_is_an_error_that_says_where_it_was():
    """Half deleted is not deleted, and twice is no harm."""
    fleet = Managing(a=[OK], b=[[errors.ConnectFailed("no route")]])
    _, caller = await fleet.ask(DELETE, method="DELETE")
    assert (caller.status, caller.error) == (502, {"error": "node b: no route; deleted from: a"})
    fleet = Managing(a=[OK], b=[[Head(500, length=4), b"disk"]])
    _, caller = await fleet.ask(DELETE, method="DELETE")
    assert (caller.status, caller.answer, caller.headers["x-herd-node"]) == (500, b"disk", "a")


async def test_a_model_that_is_only_on_engines_without_the_path_is_refused_at_once_and_for_good():
    """503 with Retry-After, for ever: Open WebUI listed the model, and every chat with it failed."""
    beats = [llamacpp("a"), node("b", models=("other:1b",), loaded=())]
    finished, caller = await Plane(beats=beats, a=[HELLO], b=[HELLO]).ask(chat())
    assert (finished.status, finished.error_type, caller.status) == (Status.REJECTED, "no_node", 501)
    assert "llamacpp, which does not support /api/chat: use /v1/chat/completions" in caller.error["error"]
    assert ("retry-after" in caller.headers, caller.headers["x-should-retry"]) == (False, "false")
    _, caller = await Managing(beats=beats, a=[OK], b=[OK]).ask(SHOW)
    assert (caller.status, "retry-after" in caller.headers) == (501, False)


async def test_a_model_in_memory_that_was_deleted_from_disk_is_not_there_to_be_asked():
    """Ollama lists it as loaded, and answers 404: 10 of 24 requests, while another node had the model."""
    gone = node("a", models=("other:1b",))
    plane = Plane(beats=[gone, node("b", loaded=())], a=[[Head(404), b'{"error":"model not found"}']], b=[HELLO])
    finished, _ = await plane.ask()
    assert (finished.status, plane.upstream.tried) == (Status.COMPLETED, ["b"])
