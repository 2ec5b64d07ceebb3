"""Foreign JSON into wire values, field by field: what is missing or odd becomes the field's zero, never an error."""

import logging
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from herd import wire

from ..logs import fields

ENTRY_AVERAGE = 1024  # times the models of both lists it is less than a heartbeat may have
VERSION = re.compile(r"[!-~]( ?[!-~])*")
FOREVER_YEAR = 2200  # Ollama writes "stays loaded" as a time some 290 years ahead
MODELS_AT_MOST, LOADED_AT_MOST = wire.MOST_MODELS, wire.MOST_LOADED

Listed = TypeVar("Listed", bound=wire.WireModel)
logger = logging.getLogger(__name__)


def moment(text: Any) -> float | None:
    """Unix seconds of an RFC 3339 time of any offset and precision; None for no time, Go's zero time and "for ever"."""
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    if at.tzinfo is None or not 1970 < at.year < FOREVER_YEAR:
        return None
    return at.timestamp()


def whole(value: Any) -> int:
    """A count of bytes or the like; 0 for what is not one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def positive(value: Any) -> int | None:
    """A count that means "unknown" when it is 0 or no number."""
    return whole(value) or None


def table(value: Any) -> dict[str, Any]:
    """A JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON array; none for anything else (Go writes an empty list as null)."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def listed(kind: type[Listed], items: Iterable[dict[str, Any]], at_most: int) -> list[Listed]:
    """The items that are valid on the wire; one that is not costs itself, not the heartbeat.

    What an engine says beyond a model's name and size is left out where it is long, or where it is too much together.
    """
    found: list[Listed] = []
    room = at_most * ENTRY_AVERAGE
    for item in items:
        size = len(to_json(item.get("entry")))
        fits = size <= min(room, wire.ENTRY_BYTES)
        try:
            found.append(kind.model_validate(item if fits else {**item, "entry": {}}))
        except ValidationError as error:
            logger.debug(
                "An engine's listing has an entry that is left out", extra=fields(error=error.errors()[0]["msg"])
            )
        room -= size if fits else 0
    return found[:at_most]


def version(value: Any) -> str | None:
    """A version as the wire has it; None for what is none."""
    text = value.strip()[:64] if isinstance(value, str) else ""
    return text if VERSION.fullmatch(text) else None
