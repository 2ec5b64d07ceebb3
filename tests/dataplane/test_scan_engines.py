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


def whole(shape, **document):
    return read_whole(shape, [json.dumps(document).encode()]).usage


def test_the_tokens_that_came_from_the_cache_are_told_by_every_engine_that_says_so():
    """Whether affinity works is seen by them alone; every dialect has its own word."""
    native = whole(Shape.OLLAMA, done=True, prompt_eval_count=20, prompt_eval_cached_count=16, eval_count=2)
    details = {"prompt_tokens_details": {"cached_tokens": 16}, "completion_tokens_details": {"reasoning_tokens": 1}}
    openai = whole(Shape.OPENAI, choices=[], usage={"prompt_tokens": 20, "completion_tokens": 2, **details})
    timings = {"prompt_n": 4, "cache_n": 16, "predicted_n": 2, "prompt_ms": 8.0}
    llamacpp = whole(Shape.OPENAI, choices=[], timings=timings)
    anthropic = {"input_tokens": 4, "cache_read_input_tokens": 16, "output_tokens": 2}
    messages = whole(Shape.MESSAGES, type="message", stop_reason="end_turn", content=[], usage=anthropic)
    for found in (native, openai, llamacpp, messages):
        assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (20, 2, 16)
    assert openai.reasoning_tokens == 1


def test_timings_are_read_beside_a_usage_that_says_less():
    """llama.cpp gives both: how long the prompt took stands in its timings alone."""
    timings = {"prompt_n": 4, "cache_n": 16, "predicted_n": 2, "prompt_ms": 8.0, "predicted_ms": 50.0}
    found = whole(Shape.OPENAI, choices=[], timings=timings, usage={"prompt_tokens": 20, "completion_tokens": 2})
    assert (found.prompt_tokens, found.cached_tokens, found.prompt_eval_s, found.eval_s) == (20, 16, 0.008, 0.05)


def test_an_ollama_that_says_nothing_of_its_cache_leaves_it_unknown():
    """None is not 0: an older Ollama would seem to lose every cache, and its nodes their conversations."""
    assert whole(Shape.OLLAMA, done=True, prompt_eval_count=20, eval_count=2).cached_tokens is None
