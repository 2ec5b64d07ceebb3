"""Frames of real engines whose counts are easily misread."""

import json

from herd.dataplane.dialects import Shape
from herd.dataplane.scan import Scanner
from herd.dataplane.whole import read_whole


def event(kind, **fields):
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def message(**usage):
    return event("message_start", message={"content": [], "stop_reason": None, "usage": usage})


WORD = event("content_block_delta", index=0, delta={"type": "text_delta", "text": " sheep"})
CACHED = message(cache_read_input_tokens=18, input_tokens=1, output_tokens=0)
LLAMACPP_END = event("message_delta", delta={"stop_reason": "max_tokens"}, usage={"output_tokens": 2})
OLLAMA_END = event("message_delta", delta={"stop_reason": "max_tokens"}, usage={"input_tokens": 27, "output_tokens": 2})
ZEROS = (
    b'data: {"id":"cmpl-691","object":"text_completion","choices":[{"text":" real","index":0,"finish_reason":null}],'
    b'"model":"tiny","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}\n\n'
)


def usage_of(shape, *chunks):
    scanner = Scanner(shape)
    for chunk in chunks:
        scanner.feed(chunk)
    scanner.close()
    found = scanner.summary().usage
    return found.prompt_tokens, found.completion_tokens, found.source


def test_the_prompt_of_a_message_is_what_was_read_and_what_was_in_the_cache():
    """Anthropic's dialect counts them apart; a warm cache would make prompts seem one token long."""
    assert usage_of(Shape.MESSAGES, CACHED, WORD, WORD, LLAMACPP_END) == (19, 2, "reported")
    used = {"cache_read_input_tokens": 18, "input_tokens": 1, "output_tokens": 2}
    document = {"type": "message", "content": [], "stop_reason": "end_turn", "usage": used}
    assert read_whole(Shape.MESSAGES, [json.dumps(document).encode()]).usage.prompt_tokens == 19


def test_the_estimate_at_a_messages_start_gives_way_to_the_count_at_its_end():
    """Ollama begins with a guess from the length of the text."""
    assert usage_of(Shape.MESSAGES, message(input_tokens=5, output_tokens=0), WORD, WORD, OLLAMA_END)[:2] == (27, 2)


def test_a_message_that_breaks_off_has_the_tokens_that_came():
    """Its start says 0 tokens of output, because there were none yet."""
    assert usage_of(Shape.MESSAGES, message(input_tokens=5, output_tokens=0), WORD, WORD) == (5, 2, "counted")


def test_a_completion_that_breaks_off_has_the_tokens_that_came():
    """Asked for usage, Ollama says 0 in every chunk but the last."""
    assert usage_of(Shape.OPENAI, ZEROS, ZEROS) == (None, 2, "counted")


def test_a_whole_message_without_a_stop_reason_was_given_up():
    """Ollama ends an answer that repeats itself so, under status 200."""
    content = [{"type": "text", "text": " it" * 31}]
    used = {"input_tokens": 0, "output_tokens": 0}
    whole = read_whole(Shape.MESSAGES, [json.dumps({"type": "message", "content": content, "usage": used}).encode()])
    assert (whole.ended, whole.error) == (False, None)
