"""From body and headers to a frozen Request, or an error of the tree.

Pure. It reads model, stream, tags, options and sizes; what a user wrote goes no further than an estimate and hashes.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from math import isfinite
from typing import Any, NamedTuple

from herd.core.dialects import Endpoint, Shape
from herd.core.errors import BadRequest
from herd.core.request import NOTHING_SAID, Parameters, Request
from herd.core.tags import collect
from herd.dataplane.billing import MARK_BYTES, Steadied, hold_still
from herd.dataplane.document import Document, json_type, read
from herd.dataplane.parameters import read_parameters
from herd.dataplane.prompt import Prompt, read_prompt, texts_of
from herd.wire import canonical_name

MODEL_NAME_LIMIT = 256
MOST_FALLBACKS = 16
MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class Parsed(NamedTuple):
    """A request, the document it was read from, the model's name as the client wrote it, and how many tags fell.

    The document's keys are in lower case. `whole`: nothing follows it in the body. `steadied` is the billing line that
    nodes are to see with its values held still; in the document it is so already.
    """

    request: Request
    document: Document
    model_as_asked: str
    dropped_tags: int = 0
    parameters: Parameters = NOTHING_SAID
    whole: bool = True
    steadied: Steadied | None = None


def parse(
    endpoint: Endpoint,
    body: bytes,
    headers: Mapping[str, str],
    client: str,
    spelled: Callable[[str], str] = canonical_name,
    steady_billing_line: bool = True,
) -> Parsed:
    """Read a request. Raises BadRequest saying what is wrong.

    `client` is who takes turns with the others of its API key if the request carries no tag; `spelled` gives the name
    under which the fleet knows a model; `steady_billing_line` is the setting of that name.
    """
    document, whole = read(body)
    model = _model(document)
    fallbacks = _strings(document, "fallback_models")
    if len(fallbacks) > MOST_FALLBACKS:
        raise BadRequest(f"fallback_models names more than {MOST_FALLBACKS} models")
    tags, dropped = _tags(document, headers)
    stream = _of_type(document, "stream", bool)
    options = _of_type(document, "options", dict) or {}
    steadied = hold_still(document) if steady_billing_line and MARK_BYTES in body else None
    prompt = _prompt(document, endpoint)
    request = Request(
        endpoint=endpoint.path,
        dialect=endpoint.dialect,
        model=spelled(model),
        stream=(endpoint.streams_unasked if stream is None else stream) and endpoint.shape is not Shape.EMBEDDING,
        fallback_models=tuple(spelled(name) for name in fallbacks if name),
        tags=tags,
        prompt_tokens=prompt.tokens,
        max_tokens=_max_tokens(document, options),
        num_ctx=_positive(options.get("num_ctx")) or _positive(document.get("num_ctx")),
        prefix=prompt.chain,
        client=f"{_key(headers)}{tags[0] if tags else client}",
    )
    parameters = read_parameters(endpoint.dialect, document, options)
    return Parsed(request, document, model, dropped, parameters, whole, steadied)


def _prompt(document: Document, endpoint: Endpoint) -> Prompt:
    if endpoint.shape is Shape.EMBEDDING:  # no engine keeps a cache of these
        return Prompt(texts_of(document.get(endpoint.text_field)), ())
    try:
        return read_prompt(document, endpoint.text_field)
    except RecursionError as error:
        raise BadRequest("the request body is nested too deeply") from error


def _model(document: Document) -> str:
    model = document.get("model")
    if model is None or model == "":
        raise BadRequest("model is required")
    if not isinstance(model, str):
        raise BadRequest(f"model must be a string, not {json_type(model)}")
    if len(model) > MODEL_NAME_LIMIT:
        raise BadRequest(f"model is longer than {MODEL_NAME_LIMIT} characters")
    if not model.isprintable():
        raise BadRequest("model must be printable, without line breaks and control characters")
    return model


def _of_type(document: Document, key: str, wanted: type) -> Any:
    value = document.get(key)
    if value is not None and type(value) is not wanted:
        raise BadRequest(f"{key} must be {json_type(wanted())}, not {json_type(value)}")
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


def _tags(document: Document, headers: Mapping[str, str]) -> tuple[tuple[str, ...], int]:
    metadata = _of_type(document, "metadata", dict) or {}
    in_header, user = headers.get("x-herd-tags"), document.get("user")
    if not metadata and not in_header and not user:
        return (), 0
    # OpenAI's metadata has only strings for values, and its clients refuse to send anything else.
    told = metadata.get("tags")
    in_body = told.split(",") if isinstance(told, str) else _strings(metadata, "tags", "metadata.")
    return collect(in_body, in_header, user if isinstance(user, str) else None)


def _positive(value: object) -> int | None:
    """A count as engines read it: `4096`, and `4.096e3` too, which is the same number to Go and JavaScript."""
    if type(value) is float:
        if not isfinite(value):
            raise BadRequest("a number in the request body is too large")
        value = int(value)
    return value if type(value) is int and value > 0 else None


def _max_tokens(document: Document, options: Document) -> int | None:
    if options and (limit := _positive(options.get("num_predict"))):
        return limit
    for key in MAX_TOKENS:
        if key in document and (limit := _positive(document[key])):
            return limit
    return None
