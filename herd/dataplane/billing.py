"""Claude Code's billing line: the first words of its system prompt, with values that change from request to request.

Pure. An engine keeps the cache of a prompt up to the first token that differs, so that nothing is left of it after this
line. It says nothing to a model: Anthropic's own servers take it out, vLLM does, and llama.cpp holds its checksum still
on /v1/messages. Ollama reads it as text. Herd holds the values still for all engines and dialects alike (ADR 14).
"""

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

MARK: Final = "x-anthropic-billing-header:"
MARK_BYTES: Final = MARK.encode()
LINE: Final = re.compile(MARK + r'(?:[ \t]*[\w-]{1,64}=[^;"\\\x00-\x1f\x7f-\U0010ffff]{0,256};){1,32}', re.ASCII)
CHECKSUM: Final = re.compile(r"\bcch=[^;]*")
# What follows the number is a digest of the conversation's first words.
VERSION: Final = re.compile(r"\b(cc_version=\d+\.\d+\.\d+)\.\w+")


class Steadied(NamedTuple):
    """A billing line as it came and with its values held still, and the key of the body under which it stands."""

    key: str
    before: str
    after: str


def hold_still(document: Mapping[str, Any]) -> Steadied | None:
    """Hold the line's values still in a document that has one at the head of its system prompt; None if it has none."""
    for key in ("system", "instructions", "messages", "input"):
        if (place := _first_text(document, key)) is None:
            continue
        holder, name = place
        found = LINE.match(holder[name])
        if found is None:
            return None
        after = steady(found[0])
        if after == found[0]:
            return None
        holder[name] = after + holder[name][found.end() :]
        return Steadied(key, found[0], after)
    return None


def steady(line: str) -> str:
    """The line with the same words in every request."""
    return VERSION.sub(r"\1.fff", CHECKSUM.sub("cch=fffff", line))


def _first_text(document: Mapping[str, Any], key: str) -> tuple[Any, Any] | None:
    """Where the first words of the system prompt are: what holds them, and under which key or number."""
    holder: Any = document
    name: Any = key
    if key in {"messages", "input"}:
        first = _first(document.get(key))
        if not isinstance(first, dict) or first.get("role") not in {"system", "developer"}:
            return None
        holder, name = first, "content"
    if isinstance(value := holder.get(name), list):
        holder, name = _first(value), "text"
        value = holder.get(name) if isinstance(holder, dict) else None
    return (holder, name) if isinstance(value, str) else None


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else None
