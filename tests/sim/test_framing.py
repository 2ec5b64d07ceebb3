"""What an engine's answers look like on the wire: heads, chunks, refusals, as the real servers send them."""

import json
import re

import pytest

from tests.sim.conftest import HELLO, LLAMA, NOMIC, WEATHER, Wire, post

JSON_UTF8 = "application/json; charset=utf-8"


async def test_a_native_stream_is_one_line_a_chunk(node):
    """Most proxies were written against exactly this framing."""
    async with Wire(node) as wire:
        await wire.send("/api/chat", options={"num_predict": 2})
        head = await wire.head()
        lines = [await wire.chunk() for _ in range(3)]
        assert await wire.chunk() == b""
    assert re.fullmatch(
        r"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nDate: [^\r]+\r\nTransfer-Encoding: chunked\r\n\r\n",
        head,
    )
    assert all(line.endswith(b"}\n") and line.count(b"\n") == 1 for line in lines)
    assert list(json.loads(lines[0])) == ["model", "created_at", "message", "done"]
    assert list(json.loads(lines[2]))[3:6] == ["done", "done_reason", "total_duration"]


async def test_the_last_chunk_of_an_openai_stream_holds_finish_usage_and_done(node):
    """Chunks are not events: three events leave in one write."""
    async with Wire(node) as wire:
        await wire.send("/v1/chat/completions", max_tokens=1, stream=True, stream_options={"include_usage": True})
        await wire.head()
        first, last = await wire.chunk(), await wire.chunk()
    assert first.count(b"data: ") == 1
    assert b'"role":"assistant"' in first
    events = last.split(b"\n\n")
    assert b'"finish_reason":"length"' in events[0]
    assert b'"choices":[],"usage":' in events[1]
    assert events[2:] == [b"data: [DONE]", b""]


async def test_a_completions_stream_carries_zeros_for_usage_until_the_end(http, node):
    """Whoever takes the first usage it sees takes zeros."""
    usage = {"include_usage": True}
    _, _, body = await post(http, node, "/v1/completions", prompt="x", max_tokens=2, stream=True, stream_options=usage)
    totals = re.findall(rb'"total_tokens":(\d+)', body)
    assert totals[:3] == [b"0", b"0", b"0"]
    assert int(totals[3]) > 0


async def test_a_body_over_2_kib_has_no_length(http, node):
    """Go's server cannot know the length of what outgrows its buffer."""
    status, headers, body = await post(http, node, "/api/embed", model=NOMIC.name, input="x")
    assert (status, headers.get("Transfer-Encoding"), headers.get("Content-Length")) == (200, "chunked", None)
    _, headers, body = await post(http, node, "/api/embed", model=NOMIC.name, input="x", dimensions=8)
    assert headers["Content-Length"] == str(len(body))


async def test_markup_and_line_separators_are_escaped_as_go_does(http, node):
    """U+2028 in a raw line breaks clients that split on it."""
    _, _, body = await post(
        http, node, "/api/chat", messages=[{"role": "user", "content": "Say 900 words"}], stream=False
    )
    assert not set("<>&\u2028\u2029") & set(body.decode())
    content = json.loads(body)["message"]["content"]
    assert set("<&\u2028") <= set(content)
    assert "東京".encode() in body


async def test_a_load_in_a_stream_is_one_object_with_a_length(http, node):
    """`stream: true` does not promise a stream."""
    _, headers, body = await post(http, node, "/api/chat", messages=[], stream=True)
    assert headers["Content-Type"] == JSON_UTF8
    assert body.endswith(b'"done":true,"done_reason":"load"}')
    _, headers, body = await post(http, node, "/v1/completions", prompt="", stream=True)
    assert (headers["Content-Type"], "Content-Length" in headers) == ("text/event-stream", True)
    assert body.endswith(
        b'"finish_reason":"load"}],"model":"llama3.2:3b","system_fingerprint":"fp_ollama"}\n\ndata: [DONE]\n\n'
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "answer"),
    [
        ("/api/chat", b"", 400, '{"error":"missing request body"}'),
        ("/api/chat", b'{"model": "x", "mess', 400, '{"error":"unexpected EOF"}'),
        ("/api/chat", b"hello", 400, '{"error":"invalid character \'h\' looking for beginning of value"}'),
        ("/api/chat", b"[1]", 400, '{"error":"json: cannot unmarshal array into Go value of type api.ChatRequest"}'),
        ("/api/chat", b"{}", 400, '{"error":"model is required"}'),
        ("/api/chat", b'{"model":"bad name!"}', 400, '{"error":"model is required"}'),
        ("/api/chat", b'{"model":"x"}', 404, '{"error":"model \'x\' not found"}'),
        ("/api/chat", b'{"model":"x","keep_alive":"xx"}', 400, '{"error":"time: invalid duration \\"xx\\""}'),
        ("/api/generate", b"{}", 404, '{"error":"model \'\' not found"}'),
        ("/api/embeddings", b"{}", 400, '{"error":"model is required"}'),
        ("/api/embed", b'{"model":"x","input":5}', 400, '{"error":"invalid input type"}'),
        ("/api/embed", b"{}", 500, '{"error":"unqualified name: registry.ollama.ai/library/!MISSING!:latest"}'),
        ("/api/show", b"{}", 400, '{"error":"model is required"}'),
        ("/api/copy", b"{}", 400, '{"error":"source \\"\\" is invalid"}'),
        ("/api/pull", b'{"model":"bad name!"}', 400, '{"error":"invalid model name"}'),
    ],
)
async def test_native_refusals_are_worded_as_ollamas(http, node, path, body, status, answer):
    """Clients and scripts match on these words."""
    async with http.post(node.url + path, data=body) as got:
        assert (got.status, await got.text(), got.headers["Content-Type"]) == (status, answer, JSON_UTF8)


@pytest.mark.parametrize(
    ("body", "status", "message", "kind", "content_type"),
    [
        (b"", 400, "EOF", "invalid_request_error", JSON_UTF8),
        (b'{"model":"x"}', 400, "[] is too short - 'messages'", "invalid_request_error", JSON_UTF8),
        (b'{"model":"x","messages":[{"content":"a"}]}', 404, "model 'x' not found", "api_error", "application/json"),
        (b'{"messages":[{"content":"a"}]}', 400, "model is required", "api_error", "application/json"),
    ],
)
async def test_openai_refusals_tell_where_they_come_from(http, node, body, status, message, kind, content_type):
    """Behind its OpenAI layer Ollama calls every error an api_error, whatever its status."""
    async with http.post(f"{node.url}/v1/chat/completions", data=body) as got:
        error = {"message": message, "type": kind, "param": None, "code": None}
        assert (got.status, await got.json(content_type=None)) == (status, {"error": error})
        assert got.headers["Content-Type"] == content_type


async def test_a_wrong_type_is_named_as_go_names_it(http, node):
    """The one message from which a developer sees what to mend."""
    _, _, native = await post(http, node, "/api/chat", messages="hi")
    _, _, openai = await post(http, node, "/v1/chat/completions", messages="hi")
    assert b"cannot unmarshal string into Go struct field ChatRequest.messages of type []api.Message" in native
    assert b"Go struct field ChatCompletionRequest.messages of type []openai.Message" in openai
    status, _, option = await post(http, node, "/api/chat", messages=HELLO, options={"num_predict": "x"})
    assert (status, option) == (500, b'{"error":"option \\"num_predict\\" must be of type integer"}')


async def test_what_a_model_cannot_do_is_refused_before_it_is_loaded(http, node):
    """A refusal must cost nothing."""
    status, _, body = await post(http, node, "/api/chat", model=NOMIC.name, messages=HELLO)
    assert (status, json.loads(body)["error"]) == (400, '"nomic-embed-text" does not support chat')
    status, _, body = await post(http, node, "/api/chat", messages=HELLO, think=True)
    assert (status, json.loads(body)["error"]) == (400, '"llama3.2:3b" does not support thinking')
    status, _, body = await post(http, node, "/api/chat", model="gemma3:4b", messages=HELLO, tools=[WEATHER])
    assert json.loads(body)["error"] == "registry.ollama.ai/library/gemma3:4b does not support tools"
    assert node.engine.loads == 0


async def test_a_prompt_that_is_too_long_is_cut_unless_that_is_forbidden(http, node):
    """The error of a streamed request before its first token has its true status, and comes in a chunk."""
    long = [{"role": "user", "content": "word " * 20_000}]
    _, _, body = await post(http, node, "/api/chat", messages=long, stream=False)
    assert json.loads(body)["prompt_eval_count"] == LLAMA.loaded_context
    status, headers, body = await post(http, node, "/api/chat", messages=long, truncate=False)
    assert (status, body) == (400, b'{"error":"the input length exceeds the context length"}')
    assert headers["Transfer-Encoding"] == "chunked"


async def test_host_and_origin_are_checked_as_on_a_loopback_ollama(http, node):
    """A proxy that hands on a browser's Host or Origin gets 403 with nothing in it."""
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        async with http.get(f"{node.url}/api/version", headers=headers) as got:
            assert (got.status, await got.read()) == (403, b"")
    for headers in ({"Host": "box.local"}, {"Host": "10.1.2.3:99"}, {"Origin": "http://localhost:3000"}):
        async with http.get(f"{node.url}/api/version", headers=headers) as got:
            assert await got.json() == {"version": "0.17.4"}


async def test_root_version_and_tags_answer_head_and_the_rest_does_not(http, node):
    """Health checks use HEAD."""
    async with http.head(node.url) as got:
        assert (got.status, got.headers["Content-Length"], await got.read()) == (200, "17", b"")
    async with http.head(f"{node.url}/api/tags") as got:
        assert got.status == 200
    async with http.get(f"{node.url}/api/chat") as got:
        assert (got.status, got.headers["Allow"], await got.text()) == (405, "POST", "405 method not allowed")
    async with http.get(f"{node.url}/nope") as got:
        assert (got.status, await got.text()) == (404, "404 page not found")


async def test_blobs_are_taken_only_under_their_own_digest(http, node):
    """`ollama create` from a file uploads it first."""
    digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    url = f"{node.url}/api/blobs/{digest}"
    async with http.head(url) as got:
        assert got.status == 404
    async with http.post(url, data=b"other") as got:
        assert (got.status, "digest mismatch" in await got.text()) == (400, True)
    async with http.post(url, data=b"hello") as got:
        assert got.status == 201
    async with http.head(url) as got:
        assert got.status == 200


async def test_no_models_is_an_empty_list_here_and_null_there(http, start):
    """`data: null` has crashed clients that iterate over it."""
    bare = await start(models=())
    async with http.get(f"{bare.url}/api/tags") as got:
        assert await got.text() == '{"models":[]}'
    async with http.get(f"{bare.url}/v1/models") as got:
        assert await got.text() == '{"object":"list","data":null}\n'


async def test_a_connection_is_kept_for_the_next_request(node):
    """Pooling toward nodes is what makes a proxy fast."""
    async with Wire(node) as wire:
        for _ in range(3):
            await wire.send("/api/chat", stream=False)
            head = await wire.head()
            length = int(re.search(r"Content-Length: (\d+)", head).group(1))
            assert json.loads(await wire.reader.readexactly(length))["done"]
    assert node.state()["served"] == {"/api/chat": 3}


async def test_http_1_0_gets_no_chunks_and_a_closed_connection(node):
    """Old load balancers still speak it."""
    async with Wire(node) as wire:
        data = json.dumps({"model": LLAMA.name, "messages": HELLO}).encode()
        head = f"POST /api/chat HTTP/1.0\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        wire.writer.write(head + data)
        answer, _, body = (await wire.rest()).partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert b"chunked" not in answer
    assert json.loads(body.splitlines()[-1])["done"]
