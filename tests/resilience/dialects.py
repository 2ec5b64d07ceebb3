"""What a request and its answer look like in each dialect, told here once more and not asked of the router's code."""

import json
from typing import Any

WORDS = 300
PATHS = {"ollama": "/api/chat", "openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


def ask(dialect: str, model: str, stream: bool, words: int = WORDS, **more: object) -> tuple[str, bytes]:
    """The path and the body of a request for so many words."""
    content = f"This is about {model} in {dialect}. Write {words} words."
    limit = {"max_tokens": 10 * words} if dialect == "anthropic" else {}
    messages = [{"role": "user", "content": content}]
    return PATHS[dialect], json.dumps(
        {"model": model, "stream": stream, "messages": messages, **limit, **more}
    ).encode()


def error_message(dialect: str, body: bytes) -> str:
    """The message of a whole error answer; fails where it is not one of the dialect."""
    return _message(dialect, json.loads(body))


def error_frames(dialect: str, body: bytes) -> list[str]:
    """The messages of all error frames within a stream."""
    return [_message(dialect, document) for document in documents(dialect, body) if "error" in document]


def ends_with_error(dialect: str, body: bytes) -> bool:
    """Whether a stream ends as the dialect's clients expect of a broken one."""
    lines = body.rstrip().split(b"\n")
    if dialect == "ollama":
        return "error" in json.loads(lines[-1])
    if dialect == "openai":
        return lines[-1] == b"data: [DONE]" and b'"error"' in body
    return lines[-2] == b"event: error" and json.loads(lines[-1].removeprefix(b"data: "))["type"] == "error"


def is_whole(dialect: str, stream: bool, body: bytes) -> bool:
    """Whether an answer came to its proper end."""
    if not stream:
        found = json.loads(body)
        if dialect == "openai":
            return bool(found["choices"][0]["finish_reason"] == "stop")
        return bool(found["done"] is True if dialect == "ollama" else found["stop_reason"] == "end_turn")
    if dialect == "ollama":
        return json.loads(body.strip().rsplit(b"\n", 1)[-1]).get("done") is True
    return body.rstrip().endswith(b"data: [DONE]") if dialect == "openai" else b"event: message_stop" in body


def documents(dialect: str, body: bytes) -> list[dict[str, Any]]:
    """The JSON objects of a stream; what cannot be read is left out, as a broken node may have sent it."""
    found = []
    for line in body.split(b"\n"):
        text = line if dialect == "ollama" else line.removeprefix(b"data: ") if line.startswith(b"data: {") else b""
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return [document for document in found if isinstance(document, dict)]


def _message(dialect: str, document: dict[str, Any]) -> str:
    error = document["error"]
    if dialect == "ollama":
        assert isinstance(error, str), document
        return error
    assert isinstance(error["message"], str)
    assert error["type"]
    assert dialect == "openai" or document["type"] == "error"
    return str(error["message"])
