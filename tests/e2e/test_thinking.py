"""Models that think first, and answers that are only a tool call: their first token, their tokens and their end."""

import json

import httpx
import pytest

from tests.e2e.test_clients import CALL_A_TOOL, TOOL

HELLO = [{"role": "user", "content": "Say hello to the herd."}]


def ask(fleet, path, **body):
    answer = httpx.post(fleet.url + path, json={"model": "qwen3:8b", **body}, timeout=20)
    return answer, fleet.router.row(answer.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_the_first_thought_is_the_first_token(fleet, path):
    """A reasoning model that thinks for a minute has answered at once, as far as latency goes."""
    think = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 90} if "messages" in path else {}
    answer, row = ask(fleet, path, messages=HELLO, stream=True, **think, **({"think": True} if "/api" in path else {}))
    assert b"think" in answer.content or b"reasoning" in answer.content
    assert row["status"] == "completed"
    assert row["time_to_first_token_ms"] < row["latency_ms"]
    assert (row["tokens_source"], row["completion_tokens"] > 0) == ("reported", True)


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_is_only_a_tool_call_is_whole(fleet, stream):
    """It has no text, and is no empty answer."""
    answer, row = ask(fleet, "/api/chat", model="llama3.2:3b", messages=CALL_A_TOOL, tools=[TOOL], stream=stream)
    assert b"tool_calls" in answer.content
    assert (row["status"], row["error_message"], row["finish_reason"]) == ("completed", None, "tool_calls")
    assert row["time_to_first_token_ms"] is None or stream


@pytest.mark.parametrize("stream", [True, False])
def test_a_limit_that_ends_an_answer_in_its_thinking_is_told_in_the_row_and_not_changed(fleet, stream):
    """The client gets an empty answer and wonders why; the row says it."""
    options = {"num_predict": 3}
    answer, row = ask(fleet, "/api/chat", messages=HELLO, think=True, options=options, stream=stream)
    last = json.loads(answer.content.splitlines()[-1])
    assert last["done_reason"] == "length"
    assert (row["status"], row["finish_reason"]) == ("completed", "length")
    assert "while the model was thinking" in row["error_message"]


def test_a_limit_that_ends_an_answer_in_its_text_is_no_remark(fleet):
    """That is what limits are for."""
    _, row = ask(fleet, "/api/chat", model="llama3.2:3b", messages=HELLO, options={"num_predict": 3})
    assert (row["finish_reason"], row["error_message"]) == ("length", None)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "limited", "word"),
    [
        ("/api/chat", {"messages": HELLO, "options": {"num_predict": 3}}, b'"length"'),
        ("/v1/chat/completions", {"messages": HELLO, "max_tokens": 3}, b'"length"'),
        ("/v1/messages", {"messages": HELLO, "max_tokens": 3}, b'"max_tokens"'),
    ],
)
def test_a_limit_is_one_word_in_the_rows_and_the_dialects_own_in_the_answer(fleet, path, limited, word, stream):
    """Whoever asks the database which answers were cut off must not know every dialect."""
    answer, row = ask(fleet, path, model="llama3.2:3b", stream=stream, **limited)
    assert word in answer.content
    assert row["finish_reason"] == "length"
