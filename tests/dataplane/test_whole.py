"""What an answer that does not stream says of itself: usage, its end, and whether it is an answer at all."""

import json

import pytest

from herd.core.dialects import Shape
from herd.dataplane.whole import read_whole

NAMED, COUNTED = {"prompt_tokens": 3, "completion_tokens": 4}, {"input_tokens": 3, "output_tokens": 4}


@pytest.mark.parametrize(
    ("shape", "document", "tokens"),
    [
        (Shape.OLLAMA, {"message": {"content": "Hi"}, "done": True, "prompt_eval_count": 3, "eval_count": 4}, (3, 4)),
        (Shape.OPENAI, {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": NAMED}, (3, 4)),
        (Shape.RESPONSES, {"status": "completed", "output": [], "error": None, "usage": COUNTED}, (3, 4)),
        (Shape.MESSAGES, {"type": "message", "content": [], "stop_reason": "end_turn", "usage": COUNTED}, (3, 4)),
        (Shape.EMBEDDING, {"embeddings": [[0.1]], "prompt_eval_count": 3}, (3, None)),
        (Shape.EMBEDDING, {"data": [{"embedding": [0.1]}], "usage": {"prompt_tokens": 3}}, (3, None)),
    ],
)  # fmt: skip
def test_a_whole_answer_of_each_shape_gives_its_usage(shape, document, tokens):
    """Tokens are counted for answers that do not stream, too."""
    found = read_whole(shape, json.dumps(document).encode())
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == tokens
    assert (found.error, found.malformed, found.ended) == (None, None, True)


def test_a_large_embedding_is_read_at_its_end_only():
    """Parsing megabytes of numbers would hold up every stream."""
    vectors = ",".join("0.123456" for _ in range(20_000))
    body = f'{{"model":"e","embeddings":[[{vectors}]],"load_duration":1000000000,"prompt_eval_count":9}}'.encode()
    found = read_whole(Shape.EMBEDDING, body)
    assert (found.usage.prompt_tokens, found.usage.load_s, found.malformed) == (9, 1.0, None)


def test_a_whole_answer_that_says_it_is_not_done_is_not_done():
    """Ollama stops a model that repeats itself, and answers 200 with done false."""
    for shape, body in (
        (Shape.OLLAMA, b'{"message":{"content":"x x x"},"done":false}'),
        (Shape.OPENAI, b'{"choices":[{"message":{"content":"x x x"},"finish_reason":null}]}'),
    ):
        assert not read_whole(shape, body).ended


def test_a_whole_answer_that_is_no_json_object_is_malformed():
    """It is retried elsewhere rather than handed on."""
    assert read_whole(Shape.OPENAI, b"<html>").malformed
    assert read_whole(Shape.OPENAI, b"").malformed


def test_a_large_embedding_that_breaks_off_is_malformed():
    """Its usage would be missing, and the client would stumble."""
    vectors = b",".join(b"0.123456" for _ in range(20_000))
    assert read_whole(Shape.EMBEDDING, b'{"embeddings":[[' + vectors).malformed
    assert read_whole(Shape.EMBEDDING, b"[[" + vectors + b"]]}").malformed
