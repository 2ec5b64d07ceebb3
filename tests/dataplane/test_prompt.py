"""What of a body counts as prompt: all that a template shows, in one order, and nothing that moves between turns."""

import json

import pytest

from herd.core.dialects import ENDPOINTS
from herd.core.prefix import tokens_in
from herd.dataplane.parse import parse

MESSAGES, NATIVE = ENDPOINTS["/v1/messages"], ENDPOINTS["/api/chat"]
LONG = "Look at this. " * 100


def chain(endpoint=NATIVE, **document):
    return parse(endpoint, json.dumps({"model": "m", **document}).encode(), {}, "").request.prefix


def user(content):
    return {"role": "user", "content": content}


def test_the_marks_of_what_to_cache_are_no_part_of_the_prompt():
    """Anthropic's clients set them at the last turn, so they move; counted, no turn would meet the one before."""
    marked = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [marked], "cache_control": {"type": "ephemeral"}}
    plain = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": LONG}]}
    first = chain(MESSAGES, messages=[user([marked]), user([result])])
    second = chain(MESSAGES, messages=[user([{"type": "text", "text": LONG}]), user([plain]), user(LONG)])
    assert second[: len(first)] == first


def test_a_text_is_the_same_prompt_as_a_list_of_one_text():
    """Clients write the last turn so and the older ones otherwise; templates show no difference."""
    parts = [{"type": "text", "text": LONG}]
    assert chain(messages=[user(LONG)]) == chain(messages=[user(parts)])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"system": LONG}, {"system": LONG[:-1] + "!"}),
        ({"tools": [{"name": "a" * 999}]}, {"tools": [{"name": "a" * 998 + "b"}]}),
        ({"messages": [{"role": "assistant", "content": LONG}]}, {"messages": [user(LONG)]}),
        ({"messages": [user(LONG)]}, {"messages": [user(LONG.lower())]}),
        ({"messages": [{"Role": "user", "Content": LONG}]}, {"messages": [{"Role": "user", "Content": LONG.lower()}]}),
    ],
)
def test_what_a_model_reads_otherwise_has_another_chain(before, after):
    """An engine's cache is of no use there."""
    tail = [user(LONG)]
    first = chain(**{**before, "messages": [*before.get("messages", []), *tail]})
    second = chain(**{**after, "messages": [*after.get("messages", []), *tail]})
    assert first[-1] != second[-1]


def test_pictures_stand_in_the_chain_by_their_digest_and_their_length():
    """Two pictures under one question are two prompts, and what comes after lies behind hundreds of tokens."""
    one, two = "iVBOR" * 10**5, "iVBOR" * (10**5 - 1) + "iVBOx"
    for make in (
        lambda data: {"messages": [{"role": "user", "content": "What is this?", "images": [data]}]},
        lambda data: {"messages": [user([{"type": "image_url", "image_url": {"url": data}}])]},
        lambda data: {"messages": [user([{"type": "image", "source": {"type": "base64", "data": data}}])]},
    ):
        first, second = chain(**make(one)), chain(**make("x" + two))
        assert first == chain(**make(one))
        assert first[-1] != second[-1]
        assert 500 < tokens_in(len(first)) < 900


def test_every_dialect_has_its_chain():
    """Conversations of any client come back."""
    for path, document in {
        "/api/chat": {"messages": [user(LONG)]},
        "/api/generate": {"prompt": LONG},
        "/v1/chat/completions": {"messages": [user(LONG)]},
        "/v1/completions": {"prompt": [LONG]},
        "/v1/responses": {"input": [{"role": "user", "content": [{"type": "input_text", "text": LONG}]}]},
        "/v1/messages": {"messages": [user([{"type": "text", "text": LONG}])]},
    }.items():
        assert len(chain(ENDPOINTS[path], **document)) == 5, path


def test_tokens_in_place_of_text_are_a_prompt_too():
    """Ollama's `context` is the conversation so far, and OpenAI's completions take numbers."""
    numbers = list(range(1000))
    first = chain(ENDPOINTS["/v1/completions"], prompt=numbers)
    second = chain(ENDPOINTS["/v1/completions"], prompt=[*numbers, 7, 8])
    assert first
    assert second[: len(first)] == first
    assert chain(ENDPOINTS["/api/generate"], context=numbers, prompt="x")


def test_an_endless_prompt_costs_no_more_than_a_long_one():
    """The chain keeps the head, and its bound."""
    assert len(chain(messages=[user("x" * 5 * 2**20)])) == 512


def test_odd_nesting_is_no_reason_to_fall_over():
    """What no template shows is not followed for ever."""
    deep = json.loads('{"content":' * 300 + "1" + "}" * 300)
    assert chain(messages=[deep, user(LONG)])
