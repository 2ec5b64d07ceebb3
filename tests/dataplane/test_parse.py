"""How a body is understood: what is read, what is refused and in which words, and when it is changed for a node."""

import json
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.dialects import ENDPOINTS
from herd.core.errors import BadRequest
from herd.core.request import Parameters
from herd.dataplane.parse import parse
from herd.wire import canonical_name

CHAT, NATIVE = ENDPOINTS["/v1/chat/completions"], ENDPOINTS["/api/chat"]
HELLO = [{"role": "user", "content": "Hello"}]


def read(endpoint=CHAT, headers=None, **document):
    return parse(endpoint, json.dumps({"model": "m", "messages": HELLO, **document}).encode(), headers or {}, "1.2.3.4")


def test_m_is_m_latest_everywhere():
    """Two spellings of one model in two lanes would wait for each other."""
    assert read(model="m").request.model == read(model="m:latest").request.model == "m:latest"
    assert read(model="host:80/ns/m").request.model == "host:80/ns/m:latest"
    assert read(model="m:7b", fallback_models=["n"]).request.models == ("m:7b", "n:latest")


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("library/m:7b", "m:7b"), ("registry.ollama.ai/library/m:7b", "m:7b"),
        ("registry.ollama.ai/library/m", "m:latest"),
        ("https://registry.ollama.ai/library/m:7b", "m:7b"), ("http://registry.ollama.ai/acme/m", "acme/m:latest"),
        ("REGISTRY.OLLAMA.AI/Library/m:7b", "m:7b"), ("acme/m:7b", "acme/m:7b"), ("hf.co/acme/M:Q4", "hf.co/acme/M:Q4"),
        ("https://hf.co/acme/M", "hf.co/acme/M:latest"), ("huggingface.co/acme/M:Q4", "huggingface.co/acme/M:Q4"),
        ("host:80/library/m", "host:80/library/m:latest"), ("/models/m.gguf", "/models/m.gguf:latest"),
        ("library/", "library/:latest"), ("registry.ollama.ai/library/", "registry.ollama.ai/library/:latest"),
    ],
)  # fmt: skip
def test_the_full_name_of_a_model_is_the_model(name, canonical):
    """Ollama takes every spelling; with 404 for one of them, its users think that the model is not there."""
    assert read(model=name).request.model == canonical
    assert canonical_name(canonical) == canonical


def test_stream_absent_is_true_on_native_paths_and_false_on_v1():
    """Each dialect has its own default, and clients rely on it."""
    assert read(NATIVE).request.stream
    assert not read(CHAT).request.stream
    assert not read(NATIVE, stream=False).request.stream
    assert read(CHAT, stream=True).request.stream


def test_tags_come_from_the_body_then_the_header_then_the_user():
    """Three ways, because not every client can do each."""
    found = read(metadata={"tags": [" prod ", "review"]}, headers={"x-herd-tags": "review, batch"}, user="ann").request
    assert found.tags == ("prod", "review", "batch", "user:ann")


def test_invalid_tags_are_dropped_and_counted():
    """A tag ends up in SQL, JSON, labels and a page; odd ones are not worth the trouble."""
    found = read(metadata={"tags": ["ok", "<img src=x>", "x" * 65, ""]})
    assert (found.request.tags, found.dropped_tags) == (("ok",), 2)
    many = read(metadata={"tags": [f"t{n}" for n in range(20)]})
    assert (len(many.request.tags), many.dropped_tags) == (16, 4)


def test_tags_in_one_string_are_tags_as_in_a_header():
    """OpenAI's clients send only strings as values of metadata."""
    assert read(metadata={"tags": "prod, review"}).request.tags == ("prod", "review")


def test_no_tags_are_no_tags():
    """NULL in SQL, not an empty list."""
    assert read().request.tags == ()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "missing request body"),
        (b"  ", "missing request body"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe{", "not valid JSON"),
        (b"[1]", "must be a JSON object, not an array"),
        (b'"m"', "must be a JSON object, not a string"),
        (b"{}", "model is required"),
        (b'{"model":""}', "model is required"),
        (b'{"model":7}', "model must be a string, not a number"),
        (b'{"model":"m","stream":"yes"}', "stream must be a boolean, not a string"),
        (b'{"model":"m","metadata":[]}', "metadata must be an object, not an array"),
        (b'{"model":"m","metadata":{"tags":7}}', "metadata.tags must be a list of strings"),
        (b'{"model":"m","metadata":{"tags":[1]}}', "metadata.tags must be a list of strings"),
        (b'{"model":"m","fallback_models":"n"}', "fallback_models must be a list of strings"),
        (b'{"model":"m","options":"fast"}', "options must be an object, not a string"),
        (b'{"model":"m","x":NaN}', "not valid JSON"),
        (b'{"model":"' + b"x" * 300 + b'"}', "longer than 256"),
        (b'{"model":"m","messages":' + b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_body_that_cannot_be_understood_is_refused_in_words(body, words):
    """A bare 500 tells a developer nothing."""
    with pytest.raises(BadRequest, match=words):
        parse(CHAT, body, {}, "")


def test_whatever_else_stands_in_a_body_is_not_herds_business():
    """Unknown fields and odd messages are the node's to judge."""
    assert read(messages={"not": "a list"}, tools=7, user=3, seed="x").request.model == "m:latest"


ANY_JSON = st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(), st.lists)


FIELDS = ["messages", "options", "metadata", "stream", "fallback_models", "x"]


@given(st.dictionaries(st.sampled_from(FIELDS), ANY_JSON))
def test_any_json_object_is_understood_or_refused_and_nothing_else(document):
    """No body makes the router fall over."""
    with suppress(BadRequest):
        assert parse(NATIVE, json.dumps({"model": "m", **document}).encode(), {}, "").request.model == "m:latest"


SYSTEM = {"role": "system", "content": "Be brief. " * 20}


def test_turns_of_one_conversation_share_their_chain_and_others_do_not():
    """That is how a conversation finds the node that holds its cache."""
    more = [{"role": "assistant", "content": "Hi" * 99}, {"role": "user", "content": "And? " * 99}]
    for begins in ([SYSTEM, *HELLO], [{"role": "user", "content": "Why? " * 99}]):
        first, second = read(messages=begins).request.prefix, read(messages=[*begins, *more]).request.prefix
        assert first
        assert second[: len(first)] == first
    ask = [{"role": "user", "content": "x" * 999}], [{"role": "user", "content": "y" * 999}]
    one, two = (read(messages=[SYSTEM, *asked]).request.prefix for asked in ask)
    assert (one[0], one[-1] == two[-1]) == (two[0], False)
    assert read(messages=[]).request.prefix == ()


@pytest.mark.parametrize("path", ["/api/embed", "/api/embeddings", "/v1/embeddings"])
def test_embeddings_have_no_chain(path):
    """No engine keeps a cache of them, and a batch is of tens of megabytes."""
    assert read(ENDPOINTS[path], input=["x" * 999], prompt="x" * 999).request.prefix == ()


def test_the_estimate_counts_text_and_images_not_their_bytes():
    """A picture in base64 is not a million tokens."""
    text = read(messages=[{"role": "user", "content": "x" * 400}]).request.prompt_tokens
    part = {"type": "image_url", "image_url": {"url": "data:" + "x" * 10**6}}
    image = read(messages=[{"role": "user", "content": [part]}])
    native = read(NATIVE, messages=[{"role": "user", "content": "", "images": ["x" * 10**6]}])
    source = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "x" * 10**6}}
    anthropic = read(ENDPOINTS["/v1/messages"], messages=[{"role": "user", "content": [source]}])
    assert 100 <= text < 110
    for each in (image, native, anthropic):
        assert 700 < each.request.prompt_tokens < 900


def test_the_estimate_counts_what_else_a_model_reads():
    """Tools are most of an agent's first prompt; and a letter of Chinese is more than a quarter of a token."""
    tools = [{"type": "function", "function": {"name": f"tool{number}", "parameters": {}}} for number in range(50)]
    assert read(tools=tools).request.prompt_tokens > 500
    assert 700 < read(messages=[{"role": "user", "content": "\u732b" * 1000}]).request.prompt_tokens < 800
    assert read(ENDPOINTS["/v1/responses"], instructions="x" * 400, input="y" * 400).request.prompt_tokens == 200
    assert read(ENDPOINTS["/api/generate"], system="x" * 400, prompt="y" * 400).request.prompt_tokens == 200


ASKED = {
    "temperature": 0.7, "top_p": 1, "top_k": 40, "seed": 42, "stop": ["END", "\n\n"], "presence_penalty": -0.5,
    "frequency_penalty": 0.25,
}  # fmt: skip
HEARD = Parameters(0.7, 1.0, 40.0, 42, ("END", "\n\n"), -0.5, 0.25)


@pytest.mark.parametrize(
    ("path", "document", "heard"),
    [
        ("/v1/chat/completions", {**ASKED, "n": 3}, replace(HEARD, choice_count=3)),
        ("/v1/chat/completions", {"stop": "END"}, Parameters(stop_sequences=("END",))),
        ("/v1/completions", {"temperature": 0}, Parameters(temperature=0.0)),
        ("/v1/responses", {"top_p": 0.5}, Parameters(top_p=0.5)),
        ("/v1/messages", {"top_k": 5, "stop_sequences": ["END"]}, Parameters(top_k=5.0, stop_sequences=("END",))),
        ("/v1/embeddings", {"encoding_format": "base64"}, Parameters(encoding_formats=("base64",))),
        ("/api/chat", {"options": ASKED}, HEARD),
        ("/api/generate", {"options": {"seed": 7}, "temperature": 0.7}, Parameters(seed=7)),
        ("/v1/chat/completions", {}, Parameters()),
    ],
)
def test_the_parameters_are_read_where_each_dialect_has_them(path, document, heard):
    """Who compares answers in traces must see with what they were asked for; Ollama itself looks in `options` alone."""
    assert read(ENDPOINTS[path], **document).parameters == heard


@pytest.mark.parametrize(
    "document",
    [
        {"temperature": "hot"}, {"temperature": True}, {"temperature": 10**400}, {"top_p": None}, {"seed": 2**63},
        {"seed": 1.5}, {"n": "2"}, {"stop": {"a": 1}}, {"stop": [7, None]}, {"stop": "x" * 65},
        {"encoding_format": ["base64"]},
    ],
)  # fmt: skip
def test_a_parameter_that_no_dialect_knows_so_counts_as_not_said(document):
    """The engine judges it; a span of a megabyte, or an attribute of another type, would cost the whole batch."""
    assert read(**document).parameters == Parameters()


def test_no_more_stops_are_kept_than_a_span_should_carry():
    """A span is no place for a list of a thousand texts."""
    assert len(read(stop=[str(number) for number in range(1000)]).parameters.stop_sequences) == 16
