"""The inference endpoints of both engines as tables: what each reads, how it answers, and how it refuses."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from herd.sim import ask as asks
from herd.sim import ollama_voice
from herd.sim.anthropic_voice import HEX, MessagesVoice
from herd.sim.engine import Refusal, Stage, TooLong
from herd.sim.golang import GoError, dumps, encode, parse
from herd.sim.llamacpp_events import LlamaMessagesVoice, LlamaResponsesVoice
from herd.sim.llamacpp_voice import (
    ERROR_HEADERS,
    JSON_HEADERS,
    LlamaChatVoice,
    LlamaCompletionVoice,
    write,
)
from herd.sim.openai_voice import OpenAIChatVoice, OpenAICompletionVoice
from herd.sim.reply import Headers
from herd.sim.responses_voice import ResponsesVoice
from herd.sim.voice import JSON_GIN, JSON_PLAIN, Stamp, Times, Voice
from herd.sim.words import count_tokens

Body = dict[str, Any]
Embed = Callable[[asks.Ask, ollama_voice.Vectors, Times], bytes]
Refused = tuple[int, Headers, bytes]
OPENAI_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
ANTHROPIC_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    429: "rate_limit_error", 503: "overloaded_error",
}  # fmt: skip
LLAMA_TYPES = {
    400: "invalid_request_error", 404: "not_found_error", 500: "server_error", 501: "not_supported_error",
    503: "unavailable_error",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Surface:
    """One inference endpoint. `needs` names what a model must be able to do, in the words of Ollama's complaint.

    `relaxed`: a wish for thinking that the model cannot fulfil is dropped instead of refused.
    """

    parse: Callable[[bytes], Body]
    read: asks.Reader
    refuse: Callable[[Refusal, Stamp], Refused]
    voice: type[Voice] | None = None
    embed: Embed | None = None
    whole_headers: Headers = JSON_GIN
    needs: Literal["chat", "generate", "embed", "embeddings"] = "chat"
    relaxed: bool = False

    def ask(self, body: bytes) -> asks.Ask:
        """What a body asks; Refusal when it is wrong."""
        try:
            return self.read(self.parse(body))
        except GoError as error:
            raise Refusal(400, str(error), Stage.FRONT) from None


def ollama_refusal(refusal: Refusal, _stamp: Stamp) -> Refused:
    """`{"error": …}`."""
    headers = JSON_PLAIN if refusal.stage is Stage.RUNNER else JSON_GIN
    message = "missing request body" if refusal.message == "EOF" else refusal.message
    return refusal.status, headers, encode(dumps({"error": message}))


def openai_refusal(refusal: Refusal, _stamp: Stamp) -> Refused:
    """Errors from behind Ollama's OpenAI layer are all `api_error`, whatever their status."""
    front = refusal.stage is Stage.FRONT
    kind = OPENAI_TYPES.get(refusal.status, "api_error") if front else "api_error"
    error = {"message": refusal.message, "type": kind, "param": None, "code": None}
    text = dumps({"error": error})
    return refusal.status, JSON_GIN if front else JSON_PLAIN, encode(text if front else f"{text}\n")


def anthropic_refusal(refusal: Refusal, stamp: Stamp) -> Refused:
    """`{"type": "error", …}` with a request id."""
    front = refusal.stage is Stage.FRONT
    error = {"type": ANTHROPIC_TYPES.get(refusal.status, "api_error"), "message": refusal.message}
    text = dumps({"type": "error", "error": error, "request_id": f"req_{stamp.text(24, HEX)}"})
    return refusal.status, JSON_GIN if front else JSON_PLAIN, encode(text if front else f"{text}\n")


def llama_refusal(refusal: Refusal, _stamp: Stamp) -> Refused:
    """One form for all dialects; `code` is a number."""
    error: Body = {"code": refusal.status, "message": refusal.message, "type": LLAMA_TYPES[refusal.status]}
    if isinstance(refusal, TooLong):
        error["type"] = "exceed_context_size_error"
        error |= {"n_prompt_tokens": refusal.tokens, "n_ctx": refusal.context}
    if refusal.status == 503 or refusal.message == "File Not Found":
        error = {"message": error["message"], "type": error["type"], "code": error["code"]}
    return refusal.status, ERROR_HEADERS, encode(write({"error": error}))


def _checked(body: bytes, struct: str, package: str, check: Callable[[Body], str]) -> Body:
    """A body that its layer of Ollama finds complete."""
    value = parse(body, struct, package)
    complaint = check(value)
    if complaint:
        raise GoError(complaint)
    return value


def _anthropic_check(body: Body) -> str:
    if not body.get("model"):
        return "model is required"
    if (body.get("max_tokens") or 0) <= 0:
        return "max_tokens is required and must be positive"
    return "" if body.get("messages") else "messages is required"


def _openai_chat_check(body: Body) -> str:
    return "" if body.get("messages") else "[] is too short - 'messages'"


def _ollama(struct: str) -> Callable[[bytes], Body]:
    return partial(parse, struct=struct)


def _openai(struct: str, check: Callable[[Body], str] = lambda _: "") -> Callable[[bytes], Body]:
    return partial(_checked, struct=struct, package="openai", check=check)


OLLAMA: Mapping[str, Surface] = {
    "/api/chat": Surface(_ollama("ChatRequest"), asks.ollama_chat, ollama_refusal, ollama_voice.ChatVoice),
    "/api/generate": Surface(
        _ollama("GenerateRequest"), asks.ollama_generate, ollama_refusal, ollama_voice.GenerateVoice, needs="generate"
    ),
    "/api/embed": Surface(
        _ollama("EmbedRequest"), asks.ollama_embed, ollama_refusal, embed=ollama_voice.embed_body, needs="embed"
    ),
    "/api/embeddings": Surface(
        _ollama("EmbeddingRequest"), asks.ollama_embeddings, ollama_refusal,
        embed=ollama_voice.embeddings_body, needs="embeddings",
    ),
    "/v1/chat/completions": Surface(
        _openai("ChatCompletionRequest", _openai_chat_check), asks.openai_chat, openai_refusal, OpenAIChatVoice
    ),
    "/v1/completions": Surface(
        _openai("CompletionRequest"), asks.openai_completion, openai_refusal, OpenAICompletionVoice, needs="generate"
    ),
    "/v1/embeddings": Surface(
        _openai("openai.EmbedRequest"), asks.openai_embeddings, openai_refusal,
        embed=ollama_voice.openai_embeddings_body, whole_headers=JSON_PLAIN, needs="embed",
    ),
    "/v1/responses": Surface(_openai("ResponsesRequest"), asks.openai_responses, openai_refusal, ResponsesVoice),
    "/v1/messages": Surface(
        partial(_checked, struct="MessagesRequest", package="anthropic", check=_anthropic_check),
        asks.anthropic_messages, anthropic_refusal, MessagesVoice, relaxed=True,
    ),
}  # fmt: skip


def _llama_parse(body: bytes, required: str, missing: str, kind: type = object, status: int = 400) -> Body:
    """A body as llama.cpp takes it: JSON that does not parse is its own fault (500), not the client's."""
    text = body.decode("utf-8", "replace")
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise Refusal(500, _llama_syntax(text, error), Stage.FRONT) from None
    if not isinstance(value, dict) or required not in value:
        raise Refusal(status, missing, Stage.FRONT)
    if not isinstance(value[required], kind):
        raise Refusal(400, f"Expected '{required}' to be an array", Stage.FRONT)
    for message in value[required] if kind is list else ():
        if not isinstance(message, dict) or "role" not in message:
            wrong = f"Failed to parse messages: Missing 'role' in message: {write(message)}"
            raise Refusal(500, wrong, Stage.FRONT)
    for name in ("max_tokens", "seed", "temperature", "top_p"):
        if isinstance(value.get(name), str):
            wrong = f"Field '{name}': [json.exception.type_error.302] type must be number, but is string"
            raise Refusal(400, wrong, Stage.FRONT)
    return value


def _llama_syntax(text: str, error: json.JSONDecodeError | RecursionError) -> str:
    if not text.strip():
        detail = "attempting to parse an empty input; check that your input string or stream contains the expected JSON"
        return f"[json.exception.parse_error.101] parse error at line 1, column 1: {detail}"
    at = error.pos if isinstance(error, json.JSONDecodeError) else 0
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    last = re.sub(r"\s+", " ", text[at : at + 20])
    return (
        f"[json.exception.parse_error.101] parse error at line {line}, column {column}: syntax error while parsing "
        f"value - invalid literal; last read: '{last}'"
    )


def _llama_embeddings_body(ask: asks.Ask, vectors: ollama_voice.Vectors, _times: Times) -> bytes:
    tokens = sum(count_tokens(text, 0) for text in ask.inputs)
    data = [{"embedding": list(each), "index": index, "object": "embedding"} for index, each in enumerate(vectors)]
    used = {"prompt_tokens": tokens, "total_tokens": tokens}
    model = ask.body.get("model", ask.model)
    return encode(write({"model": model, "object": "list", "usage": used, "data": data}))


def _raw_completion(body: Mapping[str, Any]) -> asks.Ask:
    """llama.cpp puts no template around the prompt of a completion, so nothing is thought aside."""
    return replace(asks.openai_completion(body), think=False)


LLAMACPP: Mapping[str, Surface] = {
    "/v1/chat/completions": Surface(
        partial(_llama_parse, required="messages", missing="'messages' is required", kind=list),
        asks.openai_chat, llama_refusal, LlamaChatVoice,
    ),
    "/v1/completions": Surface(
        partial(_llama_parse, required="prompt", missing="[json.exception.out_of_range.403] key 'prompt' not found"),
        _raw_completion, llama_refusal, LlamaCompletionVoice, needs="generate",
    ),
    "/v1/embeddings": Surface(
        partial(_llama_parse, required="input", missing='"input" or "content" must be provided'),
        asks.openai_embeddings, llama_refusal, embed=_llama_embeddings_body, whole_headers=JSON_HEADERS, needs="embed",
    ),
    "/v1/responses": Surface(
        partial(_llama_parse, required="input", missing="'input' is required"),
        asks.openai_responses, llama_refusal, LlamaResponsesVoice,
    ),
    "/v1/messages": Surface(
        partial(_llama_parse, required="messages", missing="'messages' is required", kind=list, status=500),
        asks.anthropic_messages, llama_refusal, LlamaMessagesVoice,
    ),
}  # fmt: skip
