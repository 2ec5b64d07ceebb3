"""How the client wants its answer made (temperature, seed, where to stop): read for the spans, and for nothing else.

Pure. What is not of the type that the dialects know, or larger than a span should carry, counts as not said; whether it
is wrong is the engine's to say.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from herd.core.request import NOTHING_SAID, Dialect, Parameters

KEYS: Final = frozenset({
    "temperature", "top_p", "top_k", "seed", "stop", "stop_sequences", "presence_penalty", "frequency_penalty", "n",
    "encoding_format",
})  # fmt: skip
LARGEST_EXACT: Final = 2**53
LARGEST_SEED: Final = 2**63
MOST_STOPS: Final = 16
LONGEST_TEXT: Final = 64


def read_parameters(dialect: Dialect, document: Mapping[str, Any], options: Mapping[str, Any]) -> Parameters:
    """The parameters of a request: on Ollama's own paths they stand in `options`, elsewhere in the body itself."""
    said = options if dialect is Dialect.OLLAMA else document
    if KEYS.isdisjoint(said):
        return NOTHING_SAID
    encoding = said.get("encoding_format")
    return Parameters(
        temperature=_number(said.get("temperature")),
        top_p=_number(said.get("top_p")),
        top_k=_number(said.get("top_k")),
        seed=_whole(said.get("seed"), LARGEST_SEED),
        stop_sequences=_texts(said.get("stop_sequences" if dialect is Dialect.ANTHROPIC else "stop")),
        presence_penalty=_number(said.get("presence_penalty")),
        frequency_penalty=_number(said.get("frequency_penalty")),
        choice_count=_whole(said.get("n"), LARGEST_EXACT),
        encoding_formats=_texts(encoding if isinstance(encoding, str) else None),
    )


def _number(value: object) -> float | None:
    if type(value) is int and abs(value) < LARGEST_EXACT:  # True is an int to isinstance, and no number here
        return float(value)
    return value if type(value) is float and isfinite(value) else None  # 1e400 is legal JSON


def _whole(value: object, limit: int) -> int | None:
    return value if type(value) is int and -limit <= value < limit else None


def _texts(value: object) -> tuple[str, ...]:
    """Short texts as they are; a longer one is left out, since a part of it would be another."""
    listed = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    return tuple(text for text in listed[:MOST_STOPS] if isinstance(text, str) and len(text) <= LONGEST_TEXT)
