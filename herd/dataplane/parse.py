"""From body and headers to a frozen Request, or an error of the tree.

Pure. It reads model, stream, tags, options and sizes; what a user wrote goes no further than an estimate and a digest.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from math import isinf
from typing import Any

from herd.core.errors import BadRequest
from herd.core.request import NOTHING_SAID, Parameters, Request
from herd.core.tags import collect
from herd.dataplane.dialects import Endpoint, Shape
from herd.dataplane.parameters import read_parameters
from herd.wire import canonical_name

BYTES_PER_TOKEN = 4  # a rule of thumb for English text; only routing and context_fit build on it
IMAGE_TOKENS = 768  # what one picture costs, about, with the common vision models
PREFIX_CHARACTERS = 1024
MODEL_NAME_LIMIT = 256
MOST_FALLBACKS = 16
MOST_VALUES = 500_000  # reading more of them would hold up every other stream for a second; text and pictures are few

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Parsed:
    """A request, the document it was read from, the model's name as the client wrote it, and how many tags fell."""

    request: Request
    document: Document
    model_as_asked: str
    dropped_tags: int = 0
    parameters: Parameters = NOTHING_SAID


def parse(
    endpoint: Endpoint,
    body: bytes,
    headers: Mapping[str, str],
    client: str,
    spelled: Callable[[str], str] = canonical_name,
) -> Parsed:
    """Read a request. Raises BadRequest saying what is wrong.

    `client` is who takes turns with the others of its API key if the request carries no tag; `spelled` gives the name
    under which the fleet knows a model.
    """
    document = read_document(body)
    model = _model(document)
    fallbacks = _strings(document, "fallback_models")
    if len(fallbacks) > MOST_FALLBACKS:
        raise BadRequest(f"fallback_models names more than {MOST_FALLBACKS} models")
    metadata = _of_type(document, "metadata", dict) or {}
    user = document.get("user")
    tags, dropped = collect(_tags(metadata), headers.get("x-herd-tags"), user if isinstance(user, str) else None)
    stream = _of_type(document, "stream", bool)
    options = _of_type(document, "options", dict) or {}
    texts, images = _texts(document.get(endpoint.text_field)), 0
    if endpoint.shape is not Shape.EMBEDDING:
        images = _count_images(document)
    request = Request(
        endpoint=endpoint.path,
        dialect=endpoint.dialect,
        model=spelled(model),
        stream=(endpoint.streams_unasked if stream is None else stream) and endpoint.shape is not Shape.EMBEDDING,
        fallback_models=tuple(spelled(name) for name in fallbacks if name),
        tags=tags,
        prompt_tokens=sum(map(len, texts)) // BYTES_PER_TOKEN + images * IMAGE_TOKENS,
        max_tokens=_max_tokens(document, options),
        num_ctx=_positive(options.get("num_ctx")) or _positive(document.get("num_ctx")),
        prefix=_prefix(document, document.get(endpoint.text_field)),
        client=f"{_key(headers)}{tags[0] if tags else client}",
    )
    return Parsed(request, document, model, dropped, read_parameters(endpoint.dialect, document, options))


def read_document(body: bytes) -> Document:
    """The JSON object that a body holds; the content type does not matter. Raises BadRequest."""
    if not body.strip():
        raise BadRequest("missing request body")
    if body.count(b",") + body.count(b"{") + body.count(b"[") > MOST_VALUES:
        raise BadRequest(f"the request body holds more than {MOST_VALUES} values")
    try:
        document = json.loads(body, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the request body is not valid JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise BadRequest(f"the request body must be a JSON object, not {_json_type(document)}")
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _finite(number: str) -> float:
    if isinf(value := float(number)):
        raise ValueError(f"{number[:20]} is too large a number")
    return value


def _model(document: Document) -> str:
    model = document.get("model")
    if model is None or model == "":
        raise BadRequest("model is required")
    if not isinstance(model, str):
        raise BadRequest(f"model must be a string, not {_json_type(model)}")
    if len(model) > MODEL_NAME_LIMIT:
        raise BadRequest(f"model is longer than {MODEL_NAME_LIMIT} characters")
    if not model.isprintable():
        raise BadRequest("model must be printable, without line breaks and control characters")
    return model


def _of_type(document: Document, key: str, wanted: type) -> Any:
    value = document.get(key)
    if value is not None and type(value) is not wanted:
        raise BadRequest(f"{key} must be {_json_type(wanted())}, not {_json_type(value)}")
    return value


def _strings(document: Document, key: str, where: str = "") -> list[str]:
    value = document.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadRequest(f"{where}{key} must be a list of strings")
    return value


def _key(headers: Mapping[str, str]) -> str:
    """A digest of the API key: whoever has another takes turns apart."""
    key = headers.get("authorization") or headers.get("x-api-key")
    return f"{blake2b(key.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()} " if key else ""


def _tags(metadata: Document) -> list[str]:
    tags = metadata.get("tags")
    # OpenAI's metadata has only strings for values, and its clients refuse to send anything else.
    return tags.split(",") if isinstance(tags, str) else _strings(metadata, "tags", "metadata.")


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _max_tokens(document: Document, options: Document) -> int | None:
    named = (document.get(key) for key in ("max_tokens", "max_completion_tokens", "max_output_tokens"))
    return next(filter(None, map(_positive, (options.get("num_predict"), *named))), None)


def _texts(value: object, depth: int = 6) -> list[str]:
    """The strings that count as prompt: contents and texts, not images or roles."""
    if isinstance(value, str):
        return [value]
    if depth and isinstance(value, list):
        return [text for item in value for text in _texts(item, depth - 1)]
    if depth and isinstance(value, dict):
        return [text for key in ("content", "text", "input") for text in _texts(value.get(key), depth - 1)]
    return []


def _count_images(document: Document) -> int:
    messages = document.get("messages")
    listed = messages if isinstance(messages, list) else []
    holders = [document, *(item for item in listed if isinstance(item, dict))]
    native = sum(len(images) for holder in holders if isinstance(images := holder.get("images"), list))
    parts = [part for holder in holders if isinstance(content := holder.get("content"), list) for part in content]
    kinds = {"image_url", "image", "input_image"}
    return native + sum(1 for part in parts if isinstance(part, dict) and part.get("type") in kinds)


def _prefix(document: Document, asked: object) -> str | None:
    """A digest of the conversation's beginning (all up to its first user's message): its later turns share it."""
    turns = asked if isinstance(asked, list) else [asked]
    roles = [turn.get("role") if isinstance(turn, dict) else "user" for turn in turns]
    first = roles.index("user") + 1 if "user" in roles else 1
    texts = _texts(document.get("system")) + _texts(turns[:first])
    if not texts:
        return None
    beginning = "\0".join(texts)[:PREFIX_CHARACTERS]
    return blake2b(beginning.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
