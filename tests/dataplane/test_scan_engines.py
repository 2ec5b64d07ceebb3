"""Frames of real engines whose counts are easily misread."""

import json

import pytest

from herd.core.dialects import Shape
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
    assert read_whole(Shape.MESSAGES, json.dumps(document).encode()).usage.prompt_tokens == 19


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
    whole = read_whole(Shape.MESSAGES, json.dumps({"type": "message", "content": content, "usage": used}).encode())
    assert (whole.ended, whole.error) == (False, None)


def whole(shape, **document):
    return read_whole(shape, json.dumps(document).encode()).usage


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


def lines(*texts):
    return [json.dumps({"message": {"role": "assistant", "content": text}, "done": False}).encode() for text in texts]


def chunks_of(shape, texts):
    if shape is Shape.OLLAMA:
        return [line + b"\n" for line in lines(*texts)]
    if shape is Shape.MESSAGES:
        return [event("content_block_delta", delta={"type": "text_delta", "text": text}) for text in texts]
    if shape is Shape.RESPONSES:
        return [event("response.output_text.delta", delta=text) for text in texts]
    frames = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in texts]
    return [b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames]


def scanned(shape, chunks, closed=True):
    scanner = Scanner(shape)
    for chunk in chunks:
        scanner.feed(chunk)
    return (scanner.close() if closed else scanner.feed(b"")), scanner.summary()


@pytest.mark.parametrize("shape", [Shape.OLLAMA, Shape.OPENAI, Shape.RESPONSES, Shape.MESSAGES])
@pytest.mark.parametrize("repeated", [[" it"] * 31, ["\n", " ", "\n\n"] * 11, ["é", " é"] * 16])
def test_a_stream_that_ends_after_repeating_itself_was_cut_by_the_engine(shape, repeated):
    """Ollama before 0.34 ends it without a word; the client sees the same without herd, and the node is well."""
    seen, summary = scanned(shape, chunks_of(shape, ["So", *repeated]))
    assert (seen.ended, seen.failed, summary.cut_by_engine) == (False, False, True)


def test_a_stream_that_says_why_it_was_given_up_was_cut_by_the_engine():
    """Ollama 0.34 says so in an error, after a hundred times; the client gets these words anyway."""
    told = b'{"error":"prediction aborted, token repeat limit reached"}\n'
    seen, summary = scanned(Shape.OLLAMA, [*chunks_of(Shape.OLLAMA, [" it"] * 100), told], closed=False)
    assert (seen.error, summary.cut_by_engine) == ("prediction aborted, token repeat limit reached", True)


CALLED = b'{"message":{"tool_calls":[{"function":{"name":"f"}}]},"done":false}\n'


@pytest.mark.parametrize(
    ("chunks", "closed"),
    [
        (chunks_of(Shape.OLLAMA, [" it"] * 20), True),
        (chunks_of(Shape.OLLAMA, [" it", " is"] * 31), True),
        (chunks_of(Shape.OLLAMA, [*[" it"] * 31, " was"]), True),
        (chunks_of(Shape.OLLAMA, [" it"] * 31), False),
        ([*chunks_of(Shape.OLLAMA, [" it"] * 31), b'{"error":"unexpected EOF"}\n'], True),
        ([*chunks_of(Shape.OLLAMA, [" it"] * 31), b'{"mess'], True),
        ([*chunks_of(Shape.OLLAMA, [" it"] * 31), b'{"done":true,"done_reason":"stop"}\n'], True),
        ([CALLED] * 31, True),
        ([*chunks_of(Shape.OLLAMA, [" it"] * 20), CALLED, *chunks_of(Shape.OLLAMA, [" it"] * 20)], True),
        (chunks_of(Shape.OLLAMA, [" it" * 400] * 31), True),
        (chunks_of(Shape.OLLAMA, [*[" it"] * 20, " it" * 400, *[" it"] * 20]), True),
    ],
)
def test_other_ends_of_a_stream_are_not_the_engines_choice(chunks, closed):
    """A node that dies while a model repeats itself is to blame, as is one that breaks off anywhere else."""
    for parts in (chunks, [b"".join(chunks)]):
        assert not scanned(Shape.OLLAMA, parts, closed)[1].cut_by_engine


@pytest.mark.parametrize(
    ("shape", "frame"),
    [
        (Shape.OPENAI, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]}),
        (Shape.OPENAI, {"choices": [{"text": "", "index": 0, "finish_reason": None}]}),
        (Shape.RESPONSES, {"type": "response.in_progress", "response": {"status": "in_progress"}}),
    ],
)
def test_word_of_a_prefills_progress_is_passed_on_and_is_no_content(shape, frame):
    """llama.cpp sends it to clients that ask for it, so that a long prompt does not look like a dead server."""
    told = {**frame, "prompt_progress": {"total": 4096, "cache": 0, "processed": 2048, "time_ms": 812}}
    for document, passable in ((told, True), (frame, False)):
        seen = Scanner(shape).feed(b"data: " + json.dumps(document).encode() + b"\n\n")
        assert (seen.passable, seen.content) == (passable, 0)


def test_what_was_in_the_cache_is_counted_whatever_the_engine_calls_it():
    """A prediction of the next prompt's cost rests on it."""
    ollama = b'{"done":true,"done_reason":"stop","prompt_eval_count":29,"prompt_eval_cached_count":20,"eval_count":3}\n'
    timed = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"timings":{"prompt_n":9,"cache_n":20}}\n\n'
    named = b'data: {"choices":[],"usage":{"prompt_tokens":29,"prompt_tokens_details":{"cached_tokens":20}}}\n\n'
    for shape, end in ((Shape.OLLAMA, ollama), (Shape.OPENAI, timed), (Shape.OPENAI, named)):
        usage = scanned(shape, [end])[1].usage
        assert (usage.prompt_tokens, usage.cached_tokens) == (29, 20)
