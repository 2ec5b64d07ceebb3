"""Claude Code's billing line is held still, where it is one and nowhere else."""

import json

import pytest

from herd.core.dialects import ENDPOINTS
from herd.dataplane.body import for_node
from tests.dataplane.test_body import asked

LINE = "x-anthropic-billing-header: cc_version=2.1.177.{end}; cc_entrypoint=cli; cch={checksum};"
STILL = LINE.format(end="fff", checksum="fffff")
AGENT = "You are Claude Code, Anthropic's official CLI for Claude. " * 30
ASK = [{"role": "user", "content": "Fix the bug."}]


def line(checksum="36ee5", end="01c"):
    return LINE.format(checksum=checksum, end=end)


def blocks(first):
    return {"system": [{"type": "text", "text": first}, {"type": "text", "text": AGENT}], "messages": ASK}


PLACES = {
    "blocks": ("/v1/messages", blocks),
    "text": ("/v1/messages", lambda first: {"system": f"{first}\n{AGENT}", "messages": ASK}),
    "joined": ("/v1/messages", lambda first: {"system": first + AGENT, "messages": ASK}),
    "chat": ("/v1/chat/completions",
             lambda first: {"messages": [{"role": "system", "content": f"{first}\n{AGENT}"}, *ASK]}),
    "chat blocks": ("/v1/chat/completions",
                    lambda first: {"messages": [{"role": "developer", **{"content": blocks(first)["system"]}}, *ASK]}),
    "native": ("/api/chat", lambda first: {"messages": [{"role": "system", "content": f"{first}\n{AGENT}"}, *ASK]}),
    "generate": ("/api/generate", lambda first: {"system": f"{first}\n{AGENT}", "prompt": "Fix the bug."}),
    "responses": ("/v1/responses", lambda first: {"instructions": f"{first}\n{AGENT}", "input": "Fix the bug."}),
}  # fmt: skip


def sent(path, document, steady=True, write=json.dumps):
    body = write({"model": "m", **document}).encode()
    request = asked(body, ENDPOINTS[path], steady)
    return for_node(request, "m:latest", None, False)[0], request.request.prefix, body


@pytest.mark.parametrize("place", PLACES)
def test_two_turns_that_differ_in_the_line_alone_are_one_prompt(place):
    """80 s of an agent's every turn become 4 s, because the engine finds what it read before."""
    path, document = PLACES[place]
    first, second = (sent(path, document(line(*values))) for values in (("36ee5", "01c"), ("0aaa9", "e51")))
    assert first[:2] == second[:2]
    assert json.loads(first[0]) == {"model": "m", **document(STILL)}
    assert len(first[1]) > 4


def test_all_else_of_the_body_stays_as_it_was():
    """Bytes pass through, down to spaces and escapes."""
    body, _, original = sent("/v1/messages", blocks(line()))
    assert body == original.replace(b"36ee5", b"fffff").replace(b"177.01c", b"177.fff")


def test_the_setting_off_sends_the_line_as_it_came_and_no_turn_matches():
    """The chain says what the engine will see: nothing of its cache is of use."""
    first = sent("/v1/messages", blocks(line("36ee5")), steady=False)
    second = sent("/v1/messages", blocks(line("0aaa9")), steady=False)
    assert first[0] == first[2]
    assert first[1][0] == second[1][0]  # 64 bytes of the line are alike
    assert not set(first[1][1:]) & set(second[1][1:])


@pytest.mark.parametrize(
    "document",
    [
        {"messages": [{"role": "user", "content": line()}]},
        {"system": [{"type": "text", "text": "Log: " + line()}], "messages": ASK},
        {"system": [{"type": "text", "text": AGENT}, {"type": "text", "text": line()}], "messages": ASK},
        {"system": "x-anthropic-billing-header: what is it?", "messages": ASK},
        {"system": {"text": line()}, "messages": ASK},
        {"system": [line()], "messages": [7]},
    ],
)
def test_what_a_user_says_about_the_line_is_left_alone(document):
    """Only the head of a system prompt is Claude Code's own; a question about it is a question."""
    body, _, original = sent("/v1/messages", document)
    assert body == original


def test_a_user_who_quotes_his_own_line_gets_it_back():
    """The line at the head is changed and the quotation is not, though both have the same bytes."""
    document = {**blocks(line()), "messages": [{"role": "user", "content": f"What is {line()}?"}]}
    body = json.loads(sent("/v1/messages", document)[0])
    assert body["messages"] == document["messages"]
    assert body["system"] == blocks(STILL)["system"]


def test_a_line_that_is_written_with_escapes_is_held_still_too():
    """JSON has more than one spelling for every letter."""
    escaped = lambda value: json.dumps(value).replace("cch=", "cc\\u0068=")  # noqa: E731 - said once
    body, _, _ = sent("/v1/messages", blocks(line()), write=escaped)
    assert json.loads(body) == {"model": "m", **blocks(STILL)}


def test_a_line_that_is_still_already_changes_nothing():
    """llama.cpp writes it so itself, and another router in front may have."""
    body, _, original = sent("/v1/messages", blocks(STILL))
    assert body == original
