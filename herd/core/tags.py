"""Which tags a request carries: from body, header and OpenAI's `user`; invalid ones are dropped and counted."""

import re
from collections.abc import Iterable

MOST_TAGS = 16
VALID = re.compile(r"[A-Za-z0-9 _\-.:/@+]{1,64}")


def collect(body_tags: Iterable[str], header: str | None, user: str | None) -> tuple[tuple[str, ...], int]:
    """The tags in order of first occurrence, at most 16, and how many were dropped."""
    found = [*body_tags, *(header.split(",") if header else ()), *([f"user:{user}"] if user else ())]
    trimmed = [tag.strip() for tag in found if tag.strip()]
    valid = list(dict.fromkeys(tag for tag in trimmed if VALID.fullmatch(tag)))
    invalid = sum(1 for tag in trimmed if not VALID.fullmatch(tag))
    return tuple(valid[:MOST_TAGS]), invalid + max(0, len(valid) - MOST_TAGS)
