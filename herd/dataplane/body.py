"""The only reasons for which a body is changed before a node sees it; where none applies the bytes pass untouched."""

from typing import Any

from herd.core.errors import BadRequest
from herd.dataplane.dialects import dump
from herd.dataplane.phases import Asked

USAGE_WANTED = b',"stream_options":{"include_usage":true}}'


def for_node(asked: Asked, model: str, loaded_num_ctx: int | None, usage_in_streams: bool) -> tuple[bytes, bool]:
    """The bytes for a node, and whether herd asked for usage that the client did not ask for.

    Rules: herd's own fields (`fallback_models`, `metadata.tags`) are taken out; another `model` is written where a
    fallback answers; `num_ctx` gives way to the loaded context (`loaded_num_ctx`) where context protection says so;
    `stream_options.include_usage` is added.
    """
    document = asked.document
    changes: dict[str, Any] = {}
    if "fallback_models" in document:
        changes["fallback_models"] = None
    if isinstance(metadata := document.get("metadata"), dict) and "tags" in metadata:
        changes["metadata"] = {key: value for key, value in metadata.items() if key != "tags"} or None
    if model != asked.request.model:
        changes["model"] = model
    if loaded_num_ctx is not None:
        changes |= _with_num_ctx(document, loaded_num_ctx)
    on_request = asked.received.endpoint.usage_on_request and asked.request.stream
    asking = usage_in_streams and on_request and not _asks_usage(document)
    if not changes and asking and "stream_options" not in document:
        return asked.body.rstrip()[:-1] + USAGE_WANTED, True  # behind what the client wrote, which stays as it is
    if asking:
        changes["stream_options"] = {**(document.get("stream_options") or {}), "include_usage": True}
    if not changes:
        return asked.body, False
    merged = {**document, **changes}
    try:
        return dump({key: value for key, value in merged.items() if key not in changes or value is not None}), asking
    except RecursionError as error:
        raise BadRequest("the request body is nested too deeply") from error


def _asks_usage(document: dict[str, Any]) -> bool:
    options = document.get("stream_options")
    # What is not an object is the node's to refuse; herd does not mend it.
    return options is not None and (not isinstance(options, dict) or options.get("include_usage") is not None)


def _with_num_ctx(document: dict[str, Any], loaded: int) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    options = document.get("options")
    if isinstance(options, dict) and "num_ctx" in options:
        # Left out, Ollama would take the model's default for it, and reload where another context is loaded.
        changes["options"] = {**options, "num_ctx": loaded}
    if "num_ctx" in document:
        changes["num_ctx"] = None
    return changes
