"""The same request gets the same answer: only then can two answers be compared byte by byte."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.sim import words
from herd.sim.golang import GoError, dumps, duration_s, parse, rfc3339
from tests.sim.conftest import ASK_WEATHER, HELLO, NOMIC, QWEN, WEATHER, post

REQUESTS = [
    ("/api/chat", {"messages": HELLO}),
    ("/api/chat", {"messages": ASK_WEATHER, "tools": [WEATHER]}),
    ("/api/generate", {"prompt": "Say hello", "model": QWEN.name}),
    ("/api/embed", {"input": ["one", "two"], "model": NOMIC.name}),
    ("/v1/chat/completions", {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/completions", {"prompt": "Say hello", "stream": True}),
    ("/v1/embeddings", {"input": "one", "model": NOMIC.name}),
    ("/v1/responses", {"input": "Say hello", "stream": True, "model": QWEN.name}),
    ("/v1/messages", {"messages": ASK_WEATHER, "max_tokens": 90, "stream": True}),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 90, "model": "nope"}),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
async def test_frozen_nodes_give_equal_bytes_for_equal_requests(http, start, path, body):
    """Also on another node: otherwise a routed answer could not be compared with a direct one."""
    one, other = await start(frozen_time=True), await start(frozen_time=True, node_id="other", seed=9)
    first = await post(http, one, path, **body)
    again = await post(http, one, path, **body)
    assert first[2] == again[2] == (await post(http, other, path, **body))[2]


async def test_without_frozen_time_only_times_and_ids_differ(http, start):
    """What a model says does not depend on the clock."""
    node = await start()
    answers = [json.loads((await post(http, node, "/api/chat", messages=HELLO, stream=False))[2]) for _ in range(2)]
    volatile = {key for key in answers[0] if "duration" in key or key == "created_at"}
    assert answers[0]["created_at"] != answers[1]["created_at"]
    assert {k: v for k, v in answers[0].items() if k not in volatile} == {
        k: v for k, v in answers[1].items() if k not in volatile
    }


async def test_model_prompt_and_seed_each_change_the_answer(http, node):
    """Otherwise a mixed-up answer would go unnoticed."""
    asked = [{}, {"options": {"seed": 1}}, {"prompt": "Say hallo"}, {"model": "gemma3:4b"}]
    said = [(await post(http, node, "/api/generate", **{"prompt": "Say hello", **each}))[2] for each in asked]
    assert len({json.loads(each.splitlines()[0])["response"] for each in said} | set(said)) > len(asked)


@given(st.text(max_size=200), st.integers(0, 9))
def test_an_answer_is_never_empty_and_always_the_same(prompt, seed):
    """Whatever a client writes, it gets an answer."""
    answer = words.compose("m:latest", prompt, seed)
    words.compose.cache_clear()
    assert answer == words.compose("m:latest", prompt, seed)
    assert "".join(answer.content).strip()
    assert answer.tokens == len(list(answer.pieces())) + 1


@given(st.integers(1, 80))
def test_a_limit_is_kept_to_the_token(limit):
    """Usage is counted against it."""
    whole = words.compose("m:latest", "user: Say 40 words", think=True)
    answer = words.compose("m:latest", "user: Say 40 words", limit=limit, think=True)
    assert answer.tokens == min(limit, whole.tokens)
    assert (answer.reason == "length") == (limit < whole.tokens)
    assert list(answer.pieces()) == list(whole.pieces())[:limit]


def test_a_prompt_can_ask_for_a_length():
    """A test that needs a long stream has to be able to get one."""
    assert len(words.compose("m:latest", "user: Write 5000 words about herds").content) == 5000


@given(st.text(max_size=80))
def test_json_escapes_what_go_escapes_and_means_the_same(text):
    """The node's bytes are read by real clients."""
    written = dumps({"a": text})
    assert json.loads(written) == {"a": text}
    assert not set("<>&\u2028\u2029") & set(written)


def test_times_are_written_as_go_writes_them():
    """Nanoseconds, without trailing zeros."""
    assert rfc3339(1_750_000_000_123_456_700) == "2025-06-15T15:06:40.1234567Z"
    assert rfc3339(1_750_000_000_000_000_000) == "2025-06-15T15:06:40Z"


@pytest.mark.parametrize(
    ("text", "seconds"), [("5m", 300), ("1h30m", 5400), (0, 0), (2.5, 2.5), ("0", 0), ("1.5s", 1.5)]
)
def test_durations_are_read_as_go_reads_them(text, seconds):
    """`keep_alive` is a number of seconds or a duration."""
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["xx", "5", "5x", "", True, [5]])
def test_what_is_no_duration_is_refused(text):
    """A wrong unit is a client's mistake that Ollama tells."""
    with pytest.raises(GoError):
        duration_s(text)


@given(st.binary(max_size=60))
def test_no_body_makes_the_parser_fail_otherwise_than_with_gos_error(body):
    """A node that dies of a body would be a fault that nobody scripted."""
    with contextlib.suppress(GoError):
        assert isinstance(parse(body, "ChatRequest"), dict)
