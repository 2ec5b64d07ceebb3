"""What one document of an answer says: content, usage, a proper end, or an error. One pure reader for each shape."""

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from herd.core.dialects import Shape
from herd.core.events import Usage
from herd.core.value import value
from herd.dataplane.document import object_in

NANOSECONDS = 1e9
CALLED = ("tool_calls", "function_call")
SPOKEN = ("content", "refusal", "audio", *CALLED)
# Why an answer ended, in OpenAI's words, whatever the dialect: a question about all rows needs one vocabulary. Reasons
# that only one dialect has stay as they are, as Ollama's `load`.
REASONS = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "max_output_tokens": "length",
    "model_context_window_exceeded": "length", "tool_use": "tool_calls", "function_call": "tool_calls",
    "refusal": "content_filter",
}  # fmt: skip
THOUGHT = ("reasoning_content", "reasoning", "thinking")
# Ollama stops a model that says one thing over and over. Versions that say so say it in an error with these words.
GAVE_UP = "token repeat limit reached"
Document = Mapping[str, Any]


@value
class Frame:
    """What a document tells: `content` of any channel (text, thinking, a tool call), the proper `end`, an `error`.

    `spoken` is content that is an answer, not only thinking; `called` is the call of a tool in it. `finish_reason` is
    of one vocabulary for all shapes.

    `usage` holds what it says of `core.events.Usage`; `usage_only` marks the frame that carries nothing else.
    `said` is the text of its content, as far as it is one text; `progress` tells how far the prompt is worked on.
    """

    content: bool = False
    spoken: bool = False
    called: bool = False
    end: bool = False
    error: str | None = None
    finish_reason: str | None = None
    usage: Mapping[str, int | float] = field(default_factory=dict)
    usage_only: bool = False
    said: str = ""
    progress: bool = False


Reader = Callable[[Document], Frame]


def read_ollama(document: Document) -> Frame:
    """A line of /api/chat or /api/generate, or the whole of an answer that does not stream."""
    if document.get("error"):
        return Frame(error=_error_text(document["error"]))
    message = _object(document.get("message"))
    spoken = any(
        (document.get("response"), document.get("tool_calls"),
         message.get("content"), message.get("tool_calls"), message.get("images"))
    )  # fmt: skip
    done = document.get("done") is True
    return Frame(
        content=spoken or bool(document.get("thinking") or message.get("thinking")),
        spoken=spoken,
        called=bool(document.get("tool_calls") or message.get("tool_calls")),
        end=done,
        finish_reason=_reason(document.get("done_reason")),
        usage=_ollama_usage(document) if done else {},
        said=_first_text(message.get("content"), document.get("response"), message.get("thinking"),
                         document.get("thinking")),
    )  # fmt: skip


def read_openai(document: Document) -> Frame:
    """A chunk of /v1/chat/completions or /v1/completions, or the whole of one that does not stream."""
    if document.get("error"):
        return Frame(error=_error_text(document["error"]))
    choices = [choice for choice in _list(document.get("choices")) if isinstance(choice, dict)]
    usage = _timings(_object(document.get("timings"))) | _openai_usage(_object(document.get("usage")))
    if choices and not any(usage.values()):  # Ollama puts zeros into every chunk; what is meant comes last
        usage = {}
    reasons = [reason for choice in choices if (reason := _reason(choice.get("finish_reason")))]
    spoken = any(choice.get("text") or _says(choice, SPOKEN) for choice in choices)
    return Frame(
        content=spoken or any(_says(choice, THOUGHT) for choice in choices),
        spoken=spoken,
        called=any(_says(choice, CALLED) for choice in choices),
        finish_reason=reasons[0] if reasons else None,
        usage=usage,
        usage_only=not choices and "usage" in document,
        said=_said_by(choices[0]) if len(choices) == 1 else "",
        progress=_progress(document),
    )


def read_responses(document: Document) -> Frame:
    """An event of /v1/responses, or the whole response object."""
    kind = _text(document.get("type"))
    inner = _object(document.get("response")) if kind else document
    if kind in {"error", "response.failed"} or (not kind and document.get("error")):
        return Frame(error=_error_text(document.get("error") or inner.get("error") or document), end=bool(kind))
    ended = kind in {"response.completed", "response.incomplete"} or (
        not kind and _text(inner.get("status")) in {"completed", "incomplete"}
    )
    details = _object(inner.get("incomplete_details"))
    delta = kind is not None and kind.endswith(".delta") and bool(document.get("delta"))
    return Frame(
        content=delta or (not kind and ended),
        spoken=(delta and "reasoning" not in str(kind)) or (not kind and ended),
        called=any(_object(item).get("type") == "function_call" for item in _list(inner.get("output"))),
        end=ended,
        finish_reason=_reason(details.get("reason")) or ("stop" if ended else None),
        usage=_openai_usage(_object(inner.get("usage"))),
        said=_first_text(document.get("delta")) if delta else "",
        progress=_progress(document),
    )


def read_messages(document: Document) -> Frame:
    """An event of /v1/messages, or the whole message."""
    kind = document.get("type")
    if kind == "error" or document.get("error"):
        return Frame(error=_error_text(document.get("error")))
    if kind == "message":
        return Frame(
            content=bool(document.get("content")),
            spoken=any(_object(part).get("type") != "thinking" for part in _list(document.get("content"))),
            end=bool(document.get("stop_reason")),
            finish_reason=_reason(document.get("stop_reason")),
            usage=_anthropic_usage(_object(document.get("usage"))),
        )
    delta, block = _object(document.get("delta")), _object(document.get("content_block"))
    usage = _anthropic_usage(_object(document.get("usage")))
    if kind == "message_start":
        usage = _anthropic_usage(_object(_object(document.get("message")).get("usage")))
        usage.pop("completion_tokens", None)  # a placeholder: the count comes with message_delta, or never
    texts = ("text", "thinking", "partial_json")
    return Frame(
        content=block.get("type") == "tool_use" or any(delta.get(key) or block.get(key) for key in texts),
        spoken=block.get("type") == "tool_use" or bool(delta.get("text") or delta.get("partial_json")),
        end=kind == "message_stop",
        finish_reason=_reason(delta.get("stop_reason")),
        usage=usage,
        said=_first_text(*(delta.get(key) for key in texts)),
        progress=_progress(document),
    )


def read_embedding(document: Document) -> Frame:
    """The whole answer of /api/embed, /api/embeddings or /v1/embeddings."""
    if document.get("error"):
        return Frame(error=_error_text(document["error"]))
    usage = _ollama_usage(document) or _openai_usage(_object(document.get("usage")))
    return Frame(content=True, spoken=True, end=True, usage=usage)


READERS: Mapping[Shape, Reader] = {
    Shape.OLLAMA: read_ollama,
    Shape.OPENAI: read_openai,
    Shape.RESPONSES: read_responses,
    Shape.MESSAGES: read_messages,
    Shape.EMBEDDING: read_embedding,
}


def ended_by(finish_reason: str | None, called: bool) -> str | None:
    """Ollama and /v1/responses say that an answer which calls a tool just ended; others say why."""
    return "tool_calls" if called and finish_reason == "stop" else finish_reason


def usage_of(found: Mapping[str, int | float], finish_reason: str | None, frames: int) -> Usage:
    """What the node said of tokens; else the frames of content that were counted; else missing."""

    def count(name: str) -> int | None:
        return int(found[name]) if name in found else None

    prompt, completion = count("prompt_tokens"), count("completion_tokens")
    reported = prompt is not None or completion is not None
    counted = completion is None and frames > 0
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=frames if counted else completion,
        cached_tokens=count("cached_tokens"),
        reasoning_tokens=count("reasoning_tokens"),
        source="counted" if counted else "reported" if reported else "missing",
        finish_reason=finish_reason,
        load_s=found.get("load_s"),
        prompt_eval_s=found.get("prompt_eval_s"),
        eval_s=found.get("eval_s"),
    )


def told_in(body: bytes) -> str:
    """The words of an engine's error answer: its `error` where it is JSON, else its beginning."""
    text = body.decode("utf-8", "replace").strip()
    error = (object_in(text) or {}).get("error")
    return _error_text(error) if error else text[:1000] or "no explanation"


def _says(choice: Document, channels: tuple[str, ...]) -> bool:
    said = _object(choice.get("delta") or choice.get("message"))
    return any(said.get(channel) for channel in channels)


def _said_by(choice: Document) -> str:
    delta = _object(choice.get("delta") or choice.get("message"))
    calls = _list(delta.get("tool_calls"))
    arguments = _object(_object(calls[0]).get("function")).get("arguments") if len(calls) == 1 else None
    return _first_text(
        choice.get("text"), delta.get("content"), *(delta.get(key) for key in THOUGHT), arguments
    )  # fmt: skip


def _progress(document: Document) -> bool:
    """llama.cpp tells of its prefill, where it was asked to (`return_progress`), in frames without content."""
    return isinstance(document.get("prompt_progress"), dict)


def _ollama_usage(document: Document) -> dict[str, int | float]:
    found = _numbers(document, OLLAMA_COUNTS)
    for name, nanoseconds in _numbers(document, OLLAMA_TIMES).items():
        found[name] = nanoseconds / NANOSECONDS
    return found


def _openai_usage(usage: Document) -> dict[str, int | float]:
    if not usage:
        return {}
    found = _numbers(usage, OPENAI_COUNTS)
    if prompt := usage.get("prompt_tokens_details") or usage.get("input_tokens_details"):
        found |= _numbers(_object(prompt), CACHED)
    if answer := usage.get("completion_tokens_details") or usage.get("output_tokens_details"):
        found |= _numbers(_object(answer), REASONING)
    return found


def _anthropic_usage(usage: Document) -> dict[str, int | float]:
    if not usage:
        return {}
    found = _numbers(usage, ANTHROPIC_COUNTS)
    if "prompt_tokens" in found:  # this dialect counts what was cached, or came into the cache, apart
        found["prompt_tokens"] += sum(_numbers(usage, ANTHROPIC_CACHES).values())
    return found


def _timings(timings: Document) -> dict[str, int | float]:
    """What llama.cpp says of itself at the end of an answer, asked or not; durations there are milliseconds."""
    if not timings:
        return {}
    found = _numbers(timings, LLAMACPP_COUNTS)
    if "prompt_tokens" in found:
        found["prompt_tokens"] += found.get("cached_tokens", 0)
    for name, milliseconds in _numbers(timings, LLAMACPP_TIMES).items():
        found[name] = milliseconds / 1000
    return found


# A name of `core.events.Usage`, and an engine's own; of two that are there the last counts.
Names = tuple[tuple[str, str], ...]
OLLAMA_COUNTS: Names = (
    ("prompt_tokens", "prompt_eval_count"), ("completion_tokens", "eval_count"),
    ("cached_tokens", "prompt_eval_cached_count"),
)  # fmt: skip
OLLAMA_TIMES: Names = (
    ("load_s", "load_duration"), ("prompt_eval_s", "prompt_eval_duration"), ("eval_s", "eval_duration"),
)  # fmt: skip
OPENAI_COUNTS: Names = (
    ("prompt_tokens", "prompt_tokens"), ("completion_tokens", "completion_tokens"), ("prompt_tokens", "input_tokens"),
    ("completion_tokens", "output_tokens"),
)  # fmt: skip
CACHED: Names = (("cached_tokens", "cached_tokens"),)
REASONING: Names = (("reasoning_tokens", "reasoning_tokens"),)
ANTHROPIC_COUNTS: Names = (
    ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"),
    ("cached_tokens", "cache_read_input_tokens"),
)  # fmt: skip
ANTHROPIC_CACHES: Names = (("read", "cache_read_input_tokens"), ("creation", "cache_creation_input_tokens"))
LLAMACPP_COUNTS: Names = (
    ("prompt_tokens", "prompt_n"), ("completion_tokens", "predicted_n"), ("cached_tokens", "cache_n"),
)  # fmt: skip
LLAMACPP_TIMES: Names = (("prompt_eval_s", "prompt_ms"), ("eval_s", "predicted_ms"))


def _numbers(document: Document, names: Names) -> dict[str, int | float]:
    found: dict[str, int | float] = {}
    for ours, theirs in names:
        value = document.get(theirs)
        # Not `isinstance`: to Python, true is a number.
        if value is not None and type(value) in {int, float} and 0 <= value < 2**62:
            found[ours] = value
    return found


def _object(value: object) -> Document:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _first_text(*values: object) -> str:
    return next((value for value in values if isinstance(value, str) and value), "")


def _reason(value: object) -> str | None:
    told = _text(value)
    return REASONS.get(told, told) if told else None


def _error_text(error: object) -> str:
    inner = error.get("message", error) if isinstance(error, dict) else error
    return str(inner)[:1000]
