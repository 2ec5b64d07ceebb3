"""What is different on a llama.cpp server, seen from the socket."""

import json

import aiohttp
import pytest

from herd.sim import Fault, FaultKind, SimModel
from tests.sim.conftest import HELLO, LLAMA, NOMIC, Wire, post, until

LOADING = {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}


@pytest.fixture
async def http():
    """A client that pools nothing: this server closes connections that it promised to keep."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


@pytest.fixture
async def llama(start):
    node = await start(engine="llamacpp", models=(LLAMA,), frozen_time=True)
    await until(lambda: node.engine.ready, "the model is loaded")
    return node


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/props", "/slots", "/nope"])
async def test_while_the_model_loads_every_path_is_503(http, start, path):
    """The port is open from the start; an agent must not take that for readiness."""
    node = await start(engine="llamacpp", load_bytes_per_s=1e6)
    async with http.get(node.url + path) as got:
        assert (got.status, await got.json()) == (503, LOADING)
    assert (await post(http, node, "/v1/chat/completions", messages=HELLO))[0] == 503


async def test_health_props_slots_and_models_tell_an_agent_what_it_needs(http, llama):
    """Slots and context come from nowhere else."""
    async with http.get(f"{llama.url}/health") as got:
        assert await got.json() == {"status": "ok"}
    async with http.get(f"{llama.url}/props") as got:
        props = await got.json()
        assert (props["total_slots"], props["default_generation_settings"]["n_ctx"]) == (4, 4096)
    async with http.get(f"{llama.url}/slots") as got:
        assert [slot["is_processing"] for slot in await got.json()] == [False] * 4
    async with http.get(f"{llama.url}/v1/models") as got:
        listed = await got.json()
        assert (listed["data"][0]["id"], listed["data"][0]["owned_by"]) == ("llama3.2:3b", "llamacpp")
        assert (got.headers["Server"], "Date" in got.headers) == ("llama.cpp", False)


async def test_there_is_no_api_and_no_single_model(http, llama):
    """It speaks `/v1/*` only."""
    for path in ("/api/tags", "/api/version", "/v1/models/llama3.2:3b"):
        async with http.get(llama.url + path) as got:
            assert (got.status, (await got.json())["error"]["message"]) == (404, "File Not Found")


async def test_any_model_name_is_served_and_the_answer_names_the_real_one(http, llama):
    """A router must not conclude from an answer that a node has a model."""
    _, _, body = await post(http, llama, "/v1/chat/completions", model="gpt-9", messages=HELLO)
    assert json.loads(body)["model"] == "llama3.2:3b"


async def test_a_stream_ends_its_connection_although_keep_alive_was_announced(llama):
    """Clients that pool lost up to a fifth of their requests on this."""
    async with Wire(llama) as wire:
        await wire.send("/v1/chat/completions", stream=True, max_tokens=1)
        head = await wire.head()
        assert "Keep-Alive: timeout=5" in head
        assert (await wire.rest()).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_the_head_of_a_stream_comes_before_its_first_token(start):
    """Headers mean `got a slot`; time to first token is not time to headers."""
    node = await start(engine="llamacpp", tokens_per_s=1, prefill_tokens_per_s=1, load_bytes_per_s=0)
    await until(lambda: node.engine.ready, "the model is loaded")
    async with Wire(node) as wire:
        await wire.send("/v1/chat/completions", stream=True)
        assert "text/event-stream" in await wire.head()
        assert await wire.silent()


async def test_a_long_prefill_sends_comments_in_the_meantime(start):
    """They show life, and are no first token."""
    node = await start(engine="llamacpp", tokens_per_s=1e6, prefill_tokens_per_s=100, load_bytes_per_s=0)
    await until(lambda: node.engine.ready, "the model is loaded")
    async with Wire(node) as wire:
        await wire.send("/v1/chat/completions", stream=True, sse_ping_interval=0.02)
        await wire.head()
        assert await wire.chunk() == b":\n\n"


async def test_the_first_event_has_a_role_and_no_content(llama):
    """Whoever takes it for the first token is too early."""
    async with Wire(llama) as wire:
        await wire.send("/v1/chat/completions", stream=True, max_tokens=2)
        await wire.head()
        first = await wire.chunk()
    events = [json.loads(event.removeprefix(b"data: ")) for event in first.strip().split(b"\n\n")]
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": None}
    assert list(deltas[1]) == ["content"]


async def test_usage_of_a_completion_rides_in_the_finish_chunk_asked_or_not(http, llama):
    """Usage comes where each engine likes."""
    _, _, body = await post(http, llama, "/v1/completions", prompt="x", stream=True, max_tokens=2)
    last = json.loads(body.split(b"\n\n")[-3].removeprefix(b"data: "))
    assert (last["choices"][0]["finish_reason"], last["usage"]["completion_tokens"]) == ("length", 2)
    assert last["timings"]["predicted_n"] == 2


async def test_a_prompt_over_the_context_is_refused_with_both_numbers(http, llama):
    """Nothing is cut here, unlike in Ollama."""
    long = [{"role": "user", "content": "word " * 20_000}]
    for path, more in (("/v1/chat/completions", {"stream": True}), ("/v1/messages", {"max_tokens": 5})):
        status, _, body = await post(http, llama, path, messages=long, **more)
        error = json.loads(body)["error"]
        assert (status, error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", 4096)
        assert error["n_prompt_tokens"] > 4096


async def test_broken_json_is_a_500_of_its_own(http, llama):
    """A 500 that is the client's fault must not open a breaker."""
    async with http.post(f"{llama.url}/v1/chat/completions", data=b'{"model": "tiny", "mess') as got:
        error = (await got.json())["error"]
        assert (got.status, error["type"]) == (500, "server_error")
        assert error["message"].startswith("[json.exception.parse_error.101] parse error at line 1")
    status, _, body = await post(http, llama, "/v1/messages", messages=None)
    assert (status, json.loads(body)["error"]["message"]) == (400, "Expected 'messages' to be an array")


async def test_embeddings_need_a_model_that_makes_them(http, start, llama):
    """The server has to be started for it."""
    assert (await post(http, llama, "/v1/embeddings", input="x"))[0] == 501
    embedder = await start(engine="llamacpp", models=(NOMIC,))
    await until(lambda: embedder.engine.ready, "the model is loaded")
    status, _, body = await post(http, embedder, "/v1/embeddings", model="asked", input=["x", "y"])
    assert (status, json.loads(body)["model"], len(json.loads(body)["data"])) == (200, "asked", 2)


async def test_an_error_in_mid_stream_is_said_in_the_stream(http, llama):
    """Unlike Ollama's, which gets lost."""
    llama.script(Fault(FaultKind.ERROR_LINE, after=1, times=2))
    _, _, chat = await post(http, llama, "/v1/chat/completions", messages=HELLO, stream=True)
    assert b'data: {"error":{"code":500' in chat
    assert b"[DONE]" not in chat
    _, _, claude = await post(http, llama, "/v1/messages", messages=HELLO, max_tokens=9, stream=True)
    assert b"event: error\n" in claude


async def test_slots_bound_the_work_and_the_rest_waits_without_a_byte(start):
    """There is no 503 for a full llama.cpp server."""
    node = await start(engine="llamacpp", slots=1, models=(SimModel("m"),))
    await until(lambda: node.engine.ready, "the model is loaded")
    node.script(Fault(FaultKind.HANG_MID_STREAM))
    async with Wire(node) as first, Wire(node) as second:
        await first.send("/v1/chat/completions", stream=True)
        await first.head()
        await second.send("/v1/chat/completions", stream=True)
        await until(lambda: node.state()["loaded"][0]["waiting"] == 1, "the second waits")
        assert await second.silent()
        await node.clear()
        assert "200 OK" in await second.head()
