"""How findings format numbers: counts, percentages, bytes, durations, and lists cut to a length."""

from collections.abc import Iterable, Sequence
from typing import Any

GIB = 1024**3
LISTED = 4
LONGEST_NAME = 80  # a client may ask for a model by any name


def many(count: float, word: str) -> str:
    """`1 request`, `20 requests`."""
    return f"{count:,.0f} {word}{'' if count == 1 else 's'}"


def percent(share: float) -> str:
    """A share of 0 to 1 as a percentage, with a decimal below 10: `0.4%`, `12%`."""
    return f"{share * 100:.1f}%" if share < 0.0995 else f"{share * 100:.0f}%"


def gib(size: float) -> str:
    """Bytes as GiB."""
    return f"{size / GIB:.1f} GiB"


def span(seconds: float) -> str:
    """Seconds in a readable unit: `45 s`, `4.2 min`, `3.0 h`, `2.1 days`."""
    for limit, size, unit in ((100.0, 1.0, "s"), (6000.0, 60.0, "min"), (172_800.0, 3600.0, "h")):
        if seconds < limit:
            return f"{seconds / size:.{0 if unit == 's' and seconds >= 10 else 1}f} {unit}"
    return f"{seconds / 86_400:.1f} days"


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def short(name: str) -> str:
    """The name, truncated if it is long."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def listed(names: Sequence[str]) -> str:
    """`a, b and 3 more`."""
    shown = ", ".join(short(name) for name in names[:LISTED])
    return shown if len(names) <= LISTED else f"{shown} and {len(names) - LISTED} more"


def most(counts: Iterable[tuple[str, float]], word: str = "") -> str:
    """Names with their counts, largest first: `a 12, b 3`."""
    ranked = sorted(counts, key=lambda pair: (-pair[1], pair[0]))
    return listed([f"{short(name)} {count:,.0f}{word}" for name, count in ranked])


def share(part: float, whole: float) -> float:
    """`part / whole`, or 0 if the whole is 0."""
    return part / whole if whole else 0.0


def shows(count: int, what: str, since: float, **filters: str | float | bool | None) -> dict[str, Any]:
    """What a finding counted, as the parameters of a list of requests that has exactly those; `since` in unix s."""
    given = {name: value for name, value in filters.items() if value is not None}
    return {"count": count, "what": what, "filters": {**given, "since": round(since, 3)}}
