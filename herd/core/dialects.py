"""What each inference path means: its dialect, its defaults, and how its errors look.

Pure: bytes and documents in, values out. It reads what herd needs from a copy; it never translates between dialects.
"""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from herd.core.errors import AttemptError, HerdError
from herd.core.request import Dialect
from herd.core.value import value

JSON_TYPE = "application/json"


class Shape(StrEnum):
    """How the frames of an answer are built, whole or streamed."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    RESPONSES = "responses"
    MESSAGES = "messages"
    EMBEDDING = "embedding"


@value
class Endpoint:
    """One inference path; `streams_unasked` is what an absent `stream` means, `text_field` where the prompt stands."""

    path: str
    dialect: Dialect
    shape: Shape
    streams_unasked: bool = False
    text_field: str = "messages"
    usage_on_request: bool = False

    @property
    def operation(self) -> str:
        """The operation's name in the GenAI conventions."""
        if self.shape is Shape.EMBEDDING:
            return "embeddings"
        return "text_completion" if self.text_field == "prompt" else "chat"


ENDPOINTS: Mapping[str, Endpoint] = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint("/api/chat", Dialect.OLLAMA, Shape.OLLAMA, streams_unasked=True),
        Endpoint("/api/generate", Dialect.OLLAMA, Shape.OLLAMA, streams_unasked=True, text_field="prompt"),
        Endpoint("/api/embed", Dialect.OLLAMA, Shape.EMBEDDING, text_field="input"),
        Endpoint("/api/embeddings", Dialect.OLLAMA, Shape.EMBEDDING, text_field="prompt"),
        Endpoint("/v1/chat/completions", Dialect.OPENAI, Shape.OPENAI, usage_on_request=True),
        # No usage is asked for here on herd's account: Ollama then puts a usage key into every chunk.
        Endpoint("/v1/completions", Dialect.OPENAI, Shape.OPENAI, text_field="prompt"),
        Endpoint("/v1/embeddings", Dialect.OPENAI, Shape.EMBEDDING, text_field="input"),
        Endpoint("/v1/responses", Dialect.OPENAI, Shape.RESPONSES, text_field="input"),
        Endpoint("/v1/messages", Dialect.ANTHROPIC, Shape.MESSAGES),
    )
}

# What only some engines answer: handed to a node whose engine does, and not read beyond the model's name.
PASSED: Mapping[str, str] = {
    "/v1/messages/count_tokens": "POST",
    "/rerank": "POST",
    "/v1/rerank": "POST",
    "/v1/audio/transcriptions": "POST",
    "/v1/images/generations": "POST",
    "/v1/images/edits": "POST",
    "/tokenize": "POST",
    "/detokenize": "POST",
    "/apply-template": "POST",
    "/props": "GET",
    "/api/status": "GET",
    "/api/me": "POST",
}

ANTHROPIC_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
                   404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
                   503: "overloaded_error", 504: "timeout_error"}  # fmt: skip
OPENAI_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
                404: "not_found_error", 413: "invalid_request_error", 429: "rate_limit_error"}  # fmt: skip


def dialect_of(path: str) -> Dialect:
    """The dialect of errors on a path, inference or not."""
    if path.startswith("/v1/messages"):
        return Dialect.ANTHROPIC
    return Dialect.OPENAI if path.startswith("/v1/") else Dialect.OLLAMA


def error_document(dialect: Dialect, status: int, message: str, code: str) -> dict[str, Any]:
    """An error in the client's dialect; `code` is Herd's `error_type`."""
    if dialect is Dialect.OLLAMA:
        return {"error": message}
    if dialect is Dialect.ANTHROPIC:
        kind = ANTHROPIC_TYPES.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    return {"error": {"message": message, "type": OPENAI_TYPES.get(status, "api_error"), "param": None, "code": code}}


def error_body(dialect: Dialect, error: HerdError, node_id: str | None = None) -> bytes:
    """The body of an error answer; `node_id` is the node that failed, if one did."""
    return dump(error_document(dialect, error.status, _told(error, node_id), error.error_type))


def error_frame(endpoint: Endpoint, error: HerdError, broken_line: bool, node_id: str | None = None) -> bytes:
    """The error frame for a stream that has already begun.

    `broken_line`: the last bytes ended within a line, which is closed first so that the frame is read as its own.
    """
    message = _told(error, node_id)
    document = error_document(endpoint.dialect, error.status, message, error.error_type)
    if endpoint.shape is Shape.OLLAMA:
        return (b"\n" if broken_line else b"") + dump(document) + b"\n"
    close = b"\n\n" if broken_line else b""
    if endpoint.shape is Shape.MESSAGES:
        return close + b"event: error\ndata: " + dump(document) + b"\n\n"
    if endpoint.shape is Shape.RESPONSES:
        inner = {"type": "error", "code": error.error_type, "message": message, "param": None}
        return close + b"event: error\ndata: " + dump(inner) + b"\n\n"
    return close + b"data: " + dump(document) + b"\n\ndata: [DONE]\n\n"


def _told(error: HerdError, node_id: str | None) -> str:
    return f"node {node_id}: {error.message}" if node_id and isinstance(error, AttemptError) else error.message


def dump(document: object) -> bytes:
    """JSON with ASCII escapes: clients that split lines on U+2028 and its like stay whole."""
    return json.dumps(document, ensure_ascii=True, separators=(",", ":")).encode("ascii")
