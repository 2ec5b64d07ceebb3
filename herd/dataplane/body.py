"""The only reasons for which a body is changed before a node sees it; where none applies the bytes pass untouched."""

from typing import Any

from herd.dataplane.dialects import Endpoint, dump
from herd.dataplane.parse import Parsed
from herd.errors import BadRequest


def for_node(
    body: bytes, parsed: Parsed, endpoint: Endpoint, model: str, strip_num_ctx: bool, usage_in_streams: bool
) -> tuple[bytes, bool]:
    """The bytes for a node, and whether herd asked for usage that the client did not ask for.

    Rules: herd's own fields (`fallback_models`, `metadata.tags`) are taken out; another `model` is written where a
    fallback answers; `num_ctx` goes where context protection stripped it; `stream_options.include_usage` is added.
    """
    document = parsed.document
    changes: dict[str, Any] = {}
    if "fallback_models" in document:
        changes["fallback_models"] = None
    if isinstance(metadata := document.get("metadata"), dict) and "tags" in metadata:
        changes["metadata"] = {key: value for key, value in metadata.items() if key != "tags"} or None
    if model != parsed.request.model:
        changes["model"] = model
    if strip_num_ctx:
        changes |= _without_num_ctx(document)
    asked = usage_in_streams and endpoint.usage_on_request and parsed.request.stream and not _asks_usage(document)
    if asked:
        changes["stream_options"] = {**(document.get("stream_options") or {}), "include_usage": True}
    if not changes:
        return body, False
    merged = {**document, **changes}
    try:
        return dump({key: value for key, value in merged.items() if key not in changes or value is not None}), asked
    except RecursionError as error:
        raise BadRequest("the request body is nested too deeply") from error


def _asks_usage(document: dict[str, Any]) -> bool:
    options = document.get("stream_options")
    # What is not an object is the node's to refuse; herd does not mend it.
    return options is not None and (not isinstance(options, dict) or options.get("include_usage") is not None)


def _without_num_ctx(document: dict[str, Any]) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    options = document.get("options")
    if isinstance(options, dict) and "num_ctx" in options:
        changes["options"] = {key: value for key, value in options.items() if key != "num_ctx"} or None
    if "num_ctx" in document:
        changes["num_ctx"] = None
    return changes
