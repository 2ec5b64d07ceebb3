"""What of a body a model reads: its text in the order of the engines' templates, how long it is, and its chain.

Pure. The text lives no longer than it takes to hash and to measure it. It need not be the template's own rendering: two
prompts begin alike here where they begin alike there.
"""

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from herd.core.prefix import BYTES_PER_TOKEN, EDGES, Chain, chain_of

Document = Mapping[str, Any]

IMAGE_TOKENS: Final = 768  # what one picture costs, about, with the common vision models
DEEPEST: Final = 32
TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})
# What clients move from turn to turn, and no template shows: Anthropic's marks of what to cache stand at the last turn.
UNSEEN: Final = frozenset({"cache_control"})
PICTURES: Final = frozenset({"images", "image_url"})
_DIGITS: Final = 16  # of a picture's digest
_SAMPLE: Final = 4096


class Prompt(NamedTuple):
    """The prompt's length in tokens, estimated, and its chain of block hashes."""

    tokens: int
    chain: Chain


def read_prompt(document: Document, text_field: str) -> Prompt:
    """The prompt of a chat or a completion. Raises RecursionError where tools are nested too deeply."""
    parts: list[str] = []
    for key in ("system", "instructions"):
        if (head := document.get(key)) is not None:
            _collect(head, parts)
    if tools := document.get("tools"):
        parts.append(json.dumps(tools))
    for key in ("context", text_field, "suffix", "images"):
        if (value := document.get(key)) is not None:
            _collect(value, parts, key)
    text = "\0".join(parts)
    size = len(text)
    head_of_it = text[: EDGES[-1]].encode("utf-8", "surrogatepass")
    if size and not text.isascii():  # as long in all as its beginning lets one expect
        size = size * len(head_of_it) // min(size, EDGES[-1])
    return Prompt(size // BYTES_PER_TOKEN, chain_of(head_of_it))


def texts_of(value: object, depth: int = 6) -> int:
    """How many tokens the texts of an embedding request are, about."""
    if isinstance(value, str):
        return len(value) // BYTES_PER_TOKEN
    if not depth or not isinstance(value, list):
        return 0
    if value and all(type(item) is int for item in value):  # tokens, as OpenAI takes them
        return len(value)
    return sum(texts_of(item, depth - 1) for item in value)


def _collect(value: Any, parts: list[str], key: str = "", depth: int = DEEPEST) -> None:
    """Add what is text in a value, or is shown as text, in its order."""
    kind = type(value)
    if kind is str:
        parts.append(_picture(value) if key in PICTURES else value)
    elif kind is list:
        if value and type(value[0]) is int:
            parts.append(str(value)[1:-1])  # tokens of another turn, or of the whole prompt
            return
        for item in value:
            if type(item) is dict and len(item) == 2 and type(text := item.get("content")) is str and "role" in item:
                parts += (str(item["role"]), text)
            elif depth:
                _collect(item, parts, key, depth - 1)
    elif kind is dict:
        _collect_object(value, parts, key, depth)
    elif value is not None:
        parts.append(str(value))


def _collect_object(value: dict[str, Any], parts: list[str], key: str, depth: int) -> None:
    kind = value.get("type")
    if type(text := value.get("text")) is str and kind in TEXT_PARTS:
        parts.append(text)
        return
    shown = key in {"image_url", "source"} and kind != "text"
    for name, item in value.items():
        if name not in UNSEEN and depth:
            _collect(item, parts, "images" if shown and name in {"url", "data"} else name, depth - 1)


def _picture(data: str) -> str:
    """A digest as long as the picture is in the prompt; of a sample, since pictures are megabytes."""
    sample = f"{len(data)} {data[:: len(data) // _SAMPLE + 1]}".encode("utf-8", "surrogatepass")
    digest = blake2b(sample, digest_size=_DIGITS // 2).hexdigest()
    return digest * (IMAGE_TOKENS * BYTES_PER_TOKEN // _DIGITS)
