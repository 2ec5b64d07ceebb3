"""JSON, times and errors as Go's standard library writes them, because Ollama does. Knows nothing of models.

Bodies of a real Ollama escape `<`, `>`, `&`, U+2028 and U+2029, and its error texts are those of Go's decoder.
"""

import json
import re
import time
from functools import lru_cache
from typing import Any, NoReturn

ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
NEEDS_ESCAPE = re.compile("[<>&\u2028\u2029]")
UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
FOREVER_S = 9_223_372_036.854775807  # Go's longest duration: some 292 years
KINDS = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
AFTER = {
    "Expecting value": "looking for beginning of value",
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Illegal trailing comma before end of object": "looking for beginning of object key string",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair",
}
FIELDS: dict[str, dict[str, tuple[type, str]]] = {
    "ChatRequest": {
        "model": (str, "string"), "messages": (list, "[]api.Message"), "stream": (bool, "bool"),
        "options": (dict, "map[string]interface {}"), "tools": (list, "api.Tools"),
    },
    "GenerateRequest": {
        "model": (str, "string"), "prompt": (str, "string"), "suffix": (str, "string"), "system": (str, "string"),
        "stream": (bool, "bool"), "raw": (bool, "bool"), "options": (dict, "map[string]interface {}"),
        "images": (list, "[]api.ImageData"),
    },
    "EmbedRequest": {
        "model": (str, "string"), "truncate": (bool, "bool"), "dimensions": (int, "int"),
        "options": (dict, "map[string]interface {}"),
    },
    "EmbeddingRequest": {
        "model": (str, "string"), "prompt": (str, "string"), "options": (dict, "map[string]interface {}"),
    },
    "ChatCompletionRequest": {
        "model": (str, "string"), "messages": (list, "[]openai.Message"), "stream": (bool, "bool"),
        "max_tokens": (int, "int"), "seed": (int, "int"), "temperature": (float, "float64"),
        "top_p": (float, "float64"), "tools": (list, "[]api.Tool"),
    },
    "CompletionRequest": {
        "model": (str, "string"), "prompt": (str, "string"), "stream": (bool, "bool"), "max_tokens": (int, "int"),
        "seed": (int, "int"), "temperature": (float, "float32"), "top_p": (float, "float32"),
    },
    "openai.EmbedRequest": {"model": (str, "string"), "dimensions": (int, "int"), "encoding_format": (str, "string")},
    "ResponsesRequest": {
        "model": (str, "string"), "instructions": (str, "string"), "stream": (bool, "bool"),
        "max_output_tokens": (int, "int"), "temperature": (float, "float64"), "top_p": (float, "float64"),
        "tools": (list, "[]openai.ResponsesTool"),
    },
    "MessagesRequest": {
        "model": (str, "string"), "max_tokens": (int, "int"), "messages": (list, "[]anthropic.MessageParam"),
        "stream": (bool, "bool"), "temperature": (float, "float64"), "stop_sequences": (list, "[]string"),
    },
    "ShowRequest": {"model": (str, "string"), "name": (str, "string"), "verbose": (bool, "bool")},
    "PullRequest": {"model": (str, "string"), "name": (str, "string"), "stream": (bool, "bool")},
    "CreateRequest": {
        "model": (str, "string"), "name": (str, "string"), "from": (str, "string"), "stream": (bool, "bool"),
        "files": (dict, "map[string]string"),
    },
    "CopyRequest": {"source": (str, "string"), "destination": (str, "string")},
    "DeleteRequest": {"model": (str, "string"), "name": (str, "string")},
}  # fmt: skip


class GoError(ValueError):
    """What Go's decoder says about a body; the message is what Ollama hands to the client."""


def quote(text: str) -> str:
    """A string as Go's encoder writes it, quotes included."""
    quoted = json.dumps(text, ensure_ascii=False)
    return NEEDS_ESCAPE.sub(lambda match: ESCAPED[match.group()], quoted)


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Compact JSON in the given key order, which is that of a Go struct, or sorted, as Go writes a map."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
    return NEEDS_ESCAPE.sub(lambda match: ESCAPED[match.group()], written)


def number(value: float) -> float | int:
    """A number that `dumps` writes as Go would: 1.0 is 1."""
    return int(value) if float(value).is_integer() else value


def encode(text: str) -> bytes:
    """UTF-8; what a client smuggled in as a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace")


@lru_cache(maxsize=8)
def _to_the_second(unix: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix))


def rfc3339(ns: int) -> str:
    """A moment in unix nanoseconds as RFC 3339 in UTC, trailing zeros of the fraction left out."""
    unix, rest = divmod(ns, 10**9)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{_to_the_second(unix)}{fraction}Z"


def duration_s(value: Any) -> float:
    """Seconds of a `keep_alive`: a number of seconds or a string like `5m`; negative is for ever."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        kinds = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}
        raise GoError(f"Unsupported type: '{kinds.get(type(value), '%!s(<nil>)')}'")
    seconds = _parse_duration(value) if isinstance(value, str) else float(value)
    return FOREVER_S if seconds < 0 else seconds


def _parse_duration(text: str) -> float:
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    parts = re.findall(r"([0-9]*\.?[0-9]+|[0-9]+\.)(ns|us|µs|ms|s|m|h)", rest)
    if rest == "0":
        return 0.0
    if not parts or "".join(value + unit for value, unit in parts) != rest:
        reason = "missing unit in duration" if re.fullmatch(r"[0-9.]+", rest) else "invalid duration"
        raise GoError(f'time: {reason} "{text}"')
    return sign * sum(float(value) * UNITS_S[unit] for value, unit in parts)


def _refuse_constant(name: str) -> NoReturn:
    raise GoError(f"invalid character '{name[0]}' looking for beginning of value")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse(body: bytes, struct: str, package: str = "api") -> dict[str, Any]:
    """The first JSON value of a body as a Go struct would take it; GoError in Go's words, `EOF` for an empty body."""
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    if not text:
        raise GoError("EOF")
    try:
        value, _ = DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        raise GoError(_syntax(text, error)) from None
    except RecursionError:
        raise GoError("exceeded max depth") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        name = struct if "." in struct else f"{package}.{struct}"
        raise GoError(f"json: cannot unmarshal {KINDS[type(value)]} into Go value of type {name}")
    _check_types(value, struct)
    return value


def _syntax(text: str, error: json.JSONDecodeError) -> str:
    at = text[error.pos : error.pos + 1]
    if not at or error.msg.startswith("Unterminated") or not text[error.pos :].strip():
        return "unexpected EOF"
    if error.msg.startswith("Invalid control"):
        return f"invalid character '{at!r:.2}' in string literal"
    return f"invalid character '{at}' {AFTER.get(error.msg, 'looking for beginning of value')}"


def _check_types(value: dict[str, Any], struct: str) -> None:
    for name, (kind, go_type) in FIELDS[struct].items():
        given = value.get(name)
        if given is None or (type(given) is kind) or (kind is float and type(given) is int):
            continue
        what = KINDS[type(given)]
        if kind is int and isinstance(given, float):
            if given.is_integer():
                continue
            what = f"number {given}"
        short = struct.rpartition(".")[2]
        raise GoError(f"json: cannot unmarshal {what} into Go struct field {short}.{name} of type {go_type}")
