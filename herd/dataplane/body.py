"""The only reasons for which a body is changed before a node sees it; where none applies the bytes pass untouched."""

from typing import Any

from herd.core.errors import BadRequest
from herd.dataplane.billing import Steadied
from herd.dataplane.document import changed, extended
from herd.dataplane.parse import Parsed
from herd.dataplane.phases import Asked


def for_node(asked: Asked, model: str, loaded_num_ctx: int | None, usage_in_streams: bool) -> tuple[bytes, bool]:
    """The bytes for a node, and whether herd asked for usage that the client did not ask for.

    Rules: herd's own fields (`fallback_models`, `metadata.tags`) are taken out; another `model` is written where a
    fallback answers; `num_ctx` gives way to the loaded context (`loaded_num_ctx`) where context protection says so;
    `stream_options.include_usage` is added; the changing values of Claude Code's billing line are held still. What no
    rule names stays as the client wrote it, byte for byte.
    """
    parsed, body = asked.parsed, asked.body
    changes = _changes(asked, model, loaded_num_ctx)
    on_request = asked.received.endpoint.usage_on_request and asked.request.stream
    asking = usage_in_streams and on_request and not _asks_usage(parsed)
    if asking:
        changes["stream_options"] = {**(parsed.document.get("stream_options") or {}), "include_usage": True}
    if parsed.steadied:
        body = _steadied(body, parsed, parsed.steadied, changes)
    if not changes:
        return body, asking
    try:
        if changes.keys() == {"stream_options"} and "stream_options" not in parsed.document and parsed.whole:
            return extended(body, changes), asking
        return changed(body, changes), asking
    except RecursionError as error:
        raise BadRequest("the request body is nested too deeply") from error
    except ValueError as error:
        raise BadRequest("the request body holds a number that is too large") from error


def _changes(asked: Asked, model: str, loaded_num_ctx: int | None) -> dict[str, Any]:
    """The members that become others, None where they go."""
    document = asked.parsed.document
    changes: dict[str, Any] = {}
    if "fallback_models" in document:
        changes["fallback_models"] = None
    if isinstance(metadata := document.get("metadata"), dict) and "tags" in metadata:
        changes["metadata"] = {key: value for key, value in metadata.items() if key != "tags"} or None
    if model != asked.request.model:
        changes["model"] = model
    if loaded_num_ctx is not None:
        changes |= _with_num_ctx(document, loaded_num_ctx)
    return changes


def _steadied(body: bytes, parsed: Parsed, line: Steadied, changes: dict[str, Any]) -> bytes:
    """The body with the billing line held still in its place, or unchanged where that takes a change of its member."""
    before = line.before.encode()
    if body.count(before) == 1:
        return body.replace(before, line.after.encode())
    changes.setdefault(line.key, parsed.document[line.key])  # somebody quotes it, or it is written with escapes
    return body


def _asks_usage(parsed: Parsed) -> bool:
    options = parsed.document.get("stream_options")
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
