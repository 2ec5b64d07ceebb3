"""Each scripted fault, seen from the socket: it does what its name says, as often as it was told to."""

import asyncio
import json

import aiohttp
import pytest

from herd.sim import Fault, FaultKind
from herd.sim.inference import CRASH
from tests.sim.conftest import HELLO, QWEN, Wire, post, until


async def test_a_fault_strikes_so_often_and_no_more(http, node):
    """A test that scripts one failure must not find two."""
    node.script(Fault(FaultKind.HTTP_500, times=2))
    seen = [(await post(http, node, "/api/chat", messages=HELLO))[0] for _ in range(3)]
    assert seen == [500, 500, 200]
    assert node.state()["faulted"] == {"/api/chat": 2}


async def test_a_fault_strikes_its_model_and_path_only(http, node):
    """One broken model on a healthy node is the case that breakers get wrong."""
    node.script(Fault(FaultKind.HTTP_500, model="qwen3:8b", path="/api/chat"))
    assert (await post(http, node, "/api/chat", messages=HELLO))[0] == 200
    assert (await post(http, node, "/v1/chat/completions", model=QWEN.name, messages=HELLO))[0] == 200
    assert (await post(http, node, "/api/chat", model=QWEN.name, messages=HELLO))[0] == 500


async def test_a_fault_without_a_path_leaves_the_listings_alone(http, node):
    """An agent that looks at its engine must not use up what was meant for a request."""
    node.script(Fault(FaultKind.HTTP_500))
    async with http.get(f"{node.url}/api/tags") as got:
        assert got.status == 200
    assert (await post(http, node, "/api/chat", messages=HELLO))[0] == 500


async def test_a_probability_is_drawn_from_the_seed(http, start):
    """A soak test that failed must fail again."""
    runs = []
    for _ in range(2):
        node = await start(seed=7)
        node.script(Fault(FaultKind.BUSY_503, times=None, probability=0.4))
        runs.append([(await post(http, node, "/api/chat", messages=HELLO))[0] for _ in range(30)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 503}


@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        (FaultKind.HTTP_500, 500, "model runner has unexpectedly stopped"),
        (FaultKind.BUSY_503, 503, "server busy, please try again.  maximum pending requests exceeded"),
        (FaultKind.HTTP_404_MODEL, 404, "model 'llama3.2:3b' not found"),
    ],
)
async def test_a_scripted_error_is_in_the_dialect_of_the_caller(http, node, kind, status, words):
    """Errors are part of the dialect."""
    node.script(Fault(kind, times=3))
    native = await post(http, node, "/api/chat", messages=HELLO)
    openai = await post(http, node, "/v1/chat/completions", messages=HELLO)
    claude = await post(http, node, "/v1/messages", messages=HELLO, max_tokens=5)
    assert {native[0], openai[0], claude[0]} == {status}
    assert json.loads(native[2])["error"].startswith(words)
    assert json.loads(openai[2])["error"]["message"].startswith(words)
    assert json.loads(claude[2])["type"] == "error"
    assert json.loads(claude[2])["error"]["message"].startswith(words)


async def test_refused_means_that_nothing_listens_until_it_is_cleared(http, node):
    """A node that is gone refuses; it does not answer with an error."""
    async with Wire(node) as idle:
        await idle.send("/api/chat", stream=False)
        await idle.head()
        await until(lambda: not node.state()["in_flight"], "the answer is over")
        node.script(Fault(FaultKind.REFUSED))
        await idle.rest()  # idle connections are closed too
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", node.port)
    await node.clear()
    assert (await post(http, node, "/api/chat", messages=HELLO))[0] == 200


async def test_refused_for_some_seconds_ends_by_itself(node):
    """Over HTTP nobody could clear a node that does not listen."""
    node.script(Fault(FaultKind.REFUSED, seconds=0.05))
    assert not node.state()["listening"]
    await until(lambda: node.state()["listening"], "the node listens again")
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        assert "200 OK" in await wire.head()


async def test_a_reset_comes_instead_of_an_answer(node):
    """A reset is not an orderly close, and clients report it differently."""
    node.script(Fault(FaultKind.RESET))
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        with pytest.raises(ConnectionResetError):
            await wire.rest()


async def test_close_idle_strikes_a_reused_connection_only(node):
    """The keep-alive race: a pooled connection dies as the next request arrives, a fresh one is fine."""
    node.script(Fault(FaultKind.CLOSE_IDLE))
    async with Wire(node) as wire:
        await wire.send("/api/chat", options={"num_predict": 1})
        await wire.reader.readuntil(b"\r\n0\r\n\r\n")
        await wire.send("/api/chat")
        assert await wire.rest() == b""


async def test_a_hang_before_headers_sends_nothing_until_it_is_cleared(node):
    """Only a deadline helps against a node that took the request and says nothing."""
    node.script(Fault(FaultKind.HANG_BEFORE_HEADERS))
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        await until(lambda: node.state()["faults_applied"], "the request has arrived")
        assert await wire.silent()
        await node.clear()
        assert "200 OK" in await wire.head()


async def test_a_hang_in_mid_stream_comes_after_its_frames_and_holds_the_slot(node):
    """A stream that stops is not a stream that ended."""
    node.script(Fault(FaultKind.HANG_MID_STREAM, after=2))
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        await wire.head()
        assert all(b'"done":false' in frame for frame in (await wire.chunk(), await wire.chunk()))
        assert await wire.silent()
        assert node.state()["loaded"][0]["working"] == 1
    await until(lambda: node.state()["aborted"] == {"/api/chat": 1}, "the client's leaving is noticed")
    assert node.state()["loaded"][0]["working"] == 0


async def test_a_hang_for_some_seconds_goes_on_by_itself(http, node):
    """A stall shorter than the deadline is no failure."""
    node.script(Fault(FaultKind.HANG_MID_STREAM, after=1, seconds=0.02))
    _, _, body = await post(http, node, "/api/chat", messages=HELLO)
    assert json.loads(body.splitlines()[-1])["done"]


async def test_a_cut_stream_ends_at_its_byte_without_the_last_chunk(node):
    """The client gets part of a frame, and no sign of an end but the end."""
    node.script(Fault(FaultKind.CUT, after=130))
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        await wire.head()
        payload = await wire.rest()
    assert not payload.endswith(b"0\r\n\r\n")
    frames = payload.split(b"\r\n")
    assert len(frames[1]) + len(frames[3]) == 130


async def test_a_cut_body_is_shorter_than_its_length(http, node):
    """Without a stream the length gives the cut away."""
    node.script(Fault(FaultKind.CUT, after=20))
    with pytest.raises(aiohttp.ClientPayloadError):
        await post(http, node, "/api/chat", messages=HELLO, stream=False)


async def test_half_close_ends_the_sending_side_only(node):
    """The node hears its client still, but will say nothing more."""
    node.script(Fault(FaultKind.HALF_CLOSE, after=10))
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        assert (await wire.rest()).endswith(b'{"model":"')
        assert node.state()["in_flight"] == {"/api/chat": 1}
    await until(lambda: not node.state()["in_flight"], "the node lets go when its client does")


async def test_a_wrong_content_length_promises_more_than_comes(http, node):
    """Both for a whole answer and in place of a stream's chunks."""
    node.script(Fault(FaultKind.WRONG_CONTENT_LENGTH, times=2))
    for stream in (False, True):
        with pytest.raises(aiohttp.ClientPayloadError):
            await post(http, node, "/api/chat", messages=HELLO, stream=stream)


async def test_a_slow_drip_tears_frames_but_loses_nothing(http, node):
    """Reads are not frames: a tap has to put lines together."""
    whole = await post(http, node, "/v1/chat/completions", messages=HELLO, stream=True, max_tokens=3)
    node.script(Fault(FaultKind.SLOW_DRIP, seconds=0.0))
    async with http.post(
        f"{node.url}/v1/chat/completions",
        json={"model": "llama3.2:3b", "messages": HELLO, "stream": True, "max_tokens": 3},
    ) as answer:
        pieces = [piece async for piece in answer.content.iter_any()]
    assert b"".join(pieces) == whole[2]
    assert len(pieces) > 10


async def test_malformed_json_is_one_torn_frame_or_a_torn_body(http, node):
    """One bad frame among good ones is what a tap must survive."""
    node.script(Fault(FaultKind.MALFORMED_JSON, after=1, times=2))
    _, _, streamed = await post(http, node, "/api/chat", messages=HELLO)
    lines = streamed.split(b"\n")
    with pytest.raises(json.JSONDecodeError):
        json.loads(lines[1])
    assert json.loads(lines[0])["message"]
    assert json.loads(lines[-2])["done"]
    status, _, whole = await post(http, node, "/api/chat", messages=HELLO, stream=False)
    assert status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(whole)


async def test_an_error_line_comes_under_status_200_and_ends_the_stream(http, node):
    """A 200 proves nothing."""
    node.script(Fault(FaultKind.ERROR_LINE, after=2))
    status, _, body = await post(http, node, "/api/chat", messages=HELLO)
    lines = [json.loads(line) for line in body.splitlines()]
    assert status == 200
    assert [next(iter(line)) for line in lines] == ["model", "model", "error"]
    assert lines[-1]["error"] == CRASH


async def test_an_error_line_may_come_before_any_content(http, node):
    """Then a router can still try another node."""
    node.script(Fault(FaultKind.ERROR_LINE))
    status, _, body = await post(http, node, "/api/generate", prompt="x")
    assert (status, list(json.loads(body))) == (200, ["error"])


async def test_in_the_openai_dialect_ollamas_error_becomes_an_empty_chunk(http, node):
    """The message is lost: what is left is a chunk of no model, and no `[DONE]`."""
    node.script(Fault(FaultKind.ERROR_LINE, after=1, times=3))
    _, _, chat = await post(http, node, "/v1/chat/completions", messages=HELLO, stream=True)
    assert b'"model":""' in chat
    assert b"[DONE]" not in chat
    _, _, claude = await post(http, node, "/v1/messages", messages=HELLO, max_tokens=50, stream=True)
    assert claude.rstrip().rpartition(b"event: ")[2].startswith(b"content_block_delta")
    _, _, typed = await post(http, node, "/v1/responses", input="x", stream=True)
    assert b"response.completed" not in typed


async def test_an_error_without_a_stream_has_its_status(http, node):
    """Nothing was sent yet, so the status can tell."""
    node.script(Fault(FaultKind.ERROR_LINE))
    status, _, body = await post(http, node, "/api/chat", messages=HELLO, stream=False)
    assert (status, json.loads(body)["error"]) == (500, CRASH)


@pytest.mark.parametrize(
    ("path", "body", "end"),
    [
        ("/api/chat", {"messages": HELLO}, b'"done":true'),
        ("/api/generate", {"prompt": "x"}, b'"done":true'),
        ("/v1/chat/completions", {"messages": HELLO, "stream": True}, b"[DONE]"),
        ("/v1/completions", {"prompt": "x", "stream": True}, b"[DONE]"),
        ("/v1/responses", {"input": "x", "stream": True}, b"response.completed"),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 99, "stream": True}, b"message_stop"),
    ],
)
async def test_no_done_ends_in_order_without_the_proper_end(http, node, path, body, end):
    """As Ollama does when a model repeats itself: a clean end of the body, and none of the answer."""
    node.script(Fault(FaultKind.NO_DONE))
    status, _, cut = await post(http, node, path, **body)
    _, _, whole = await post(http, node, path, **body)
    assert status == 200
    assert whole.startswith(cut)
    assert end not in cut
    assert end in whole


@pytest.mark.parametrize(
    ("path", "count"), [("/api/chat", b"eval_count"), ("/v1/chat/completions", b"usage")], ids=["ollama", "openai"]
)
async def test_no_usage_leaves_the_counts_out_and_nothing_else(http, node, path, count):
    """Some engines never count; what they answer is a good answer."""
    node.script(Fault(FaultKind.NO_USAGE))
    status, _, mute = await post(http, node, path, messages=HELLO, stream=False)
    _, _, counted = await post(http, node, path, messages=HELLO, stream=False)
    assert status == 200
    assert count in counted
    assert count not in mute
    assert json.loads(mute).keys() <= json.loads(counted).keys()


async def test_faults_are_set_seen_and_cleared_over_http(http, node):
    """Processes are scripted as nodes in the test's own process are."""
    url = f"{node.url}/sim/script"
    async with http.post(url, json=[{"kind": "http_500", "times": 3}, {"kind": "cut", "after": 5}]) as got:
        assert [fault["kind"] for fault in (await got.json())["faults"]] == ["http_500", "cut"]
    assert (await post(http, node, "/api/chat", messages=HELLO))[0] == 500
    async with http.delete(url) as got:
        assert (await got.json())["faults"] == []
    assert (await post(http, node, "/api/chat", messages=HELLO))[0] == 200


@pytest.mark.parametrize(
    "wrong", [b"x", b'[{"kind":"no_such"}]', b'[{"kind":"cut","after":"y"}]', b'[{"kind":"cut","aftr":1}]', b"[3]"]
)
async def test_a_wrong_script_is_refused_and_nothing_is_set(http, node, wrong):
    """A typo must not make a test pass because nothing went wrong."""
    async with http.post(f"{node.url}/sim/script", data=wrong) as got:
        assert got.status == 400
        assert "error" in await got.json()
    assert node.state()["faults"] == []


async def test_a_killed_node_resets_its_connections_and_listens_no_more(start):
    """A crash says nothing to anyone."""
    node = await start(tokens_per_s=5)
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        await until(lambda: node.state()["in_flight"], "the request is there")
        await node.kill()
        with pytest.raises(ConnectionResetError):
            await wire.rest()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", node.port)


async def test_a_stopped_node_cuts_its_streams_without_a_last_chunk(start):
    """Ollama closes at once on SIGTERM, whatever is under way."""
    node = await start(tokens_per_s=1000, load_bytes_per_s=0)
    node.script(Fault(FaultKind.HANG_MID_STREAM, after=1))
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        await wire.head()
        await wire.chunk()
        await node.stop()
        assert await wire.rest() == b""
