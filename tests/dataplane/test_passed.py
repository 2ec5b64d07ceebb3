"""What only some engines answer goes to a node whose engine does, as it is."""

import json

import pytest

from herd import wire
from herd.core.dialects import PASSED
from herd.dataplane.passed import model_named
from tests.dataplane.plane import M, node
from tests.dataplane.test_manage import DONE, Managing

FORM = "multipart/form-data; boundary=b"
UPLOAD = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b'RIFF\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nllama:8b\r\n--b--\r\n'
)


def llamacpp(name, **changes):
    """The heartbeat of a node with llama.cpp's server."""
    beat = node(name, **changes)
    engine = beat.engine.model_copy(update={"kind": "llamacpp", "endpoints": list(wire.LLAMACPP_ENDPOINTS)})
    return beat.model_copy(update={"engine": engine})


def fleet():
    """An Ollama and a llama.cpp's server with the same model."""
    return Managing(beats=[node("a"), llamacpp("b")], a=[DONE], b=[DONE])


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v1/messages/count_tokens", "/tokenize"])
async def test_a_request_goes_to_a_node_whose_engine_answers_it(path):
    """They were 404 though the engine beside herd had them."""
    there, body = fleet(), json.dumps({"model": M, "query": "x"}).encode()
    event, caller = await there.ask(path, body, query="beta=true")
    (call,) = there.upstream.calls
    assert (call.url, call.body, event.node_id, event.model) == (f"http://b:11434{path}?beta=true", body, "b", M)
    assert (caller.status, caller.answer) == (200, b"{}")
    event, _ = await there.ask(path, b'{"content":"no model"}')
    assert event.node_id == "b", "a server with one model needs no name"


async def test_a_form_is_passed_on_as_it_is_to_a_node_that_holds_its_model():
    """A recording is no JSON, and its boundary stands in the content type."""
    there = Managing(beats=[node("a", models=("x:1b",), loaded=()), node("b")], a=[DONE], b=[DONE])
    event, _ = await there.ask("/v1/audio/transcriptions", UPLOAD, headers={"content-type": FORM})
    (call,) = there.upstream.calls
    assert (call.body, event.node_id, event.model) == (UPLOAD, "b", M)
    assert [value for name, value in call.headers if name == b"content-type"] == [FORM.encode()]


async def test_a_state_of_an_engine_is_asked_for_without_a_body():
    """`/props` has none, and may name its model in the query."""
    there = fleet()
    event, _ = await there.ask("/props", b"", method="GET", query=f"model={M}")
    assert (there.upstream.calls[0].method, there.upstream.calls[0].body, event.node_id, event.model) == (
        "GET", None, "b", M,
    )  # fmt: skip


async def test_what_no_engine_of_the_fleet_answers_is_refused_for_good():
    """Retry-After would promise what waiting does not bring."""
    there = Managing(a=[DONE])
    _, caller = await there.ask("/rerank", {"model": M})
    assert (caller.status, "retry-after" in caller.headers) == (501, False)
    _, caller = await there.ask("/rerank", {"model": "nobody:1b"})
    assert caller.status == 404


def test_every_such_path_is_declared_by_an_agent():
    """A path that no node declares would never be handed on."""
    assert set(PASSED) <= {*wire.OLLAMA_ENDPOINTS, *wire.LLAMACPP_ENDPOINTS}


@pytest.mark.parametrize(
    ("body", "content_type", "query", "model"),
    [
        (b'{"model":"m"}', "", b"", "m"), (b'{"model":3}', "", b"", None), (b"[]", "", b"", None),
        (b"", "", b"model=m", "m"), (b"", "", b"", None), (UPLOAD, FORM, b"", M), (b"--b--", FORM, b"", None),
    ],
)  # fmt: skip
def test_a_model_is_found_where_it_is_named(body, content_type, query, model):
    """Forms, objects and queries name it, each in its own way."""
    assert model_named(body, content_type, query) == model
