"""Times as people write and read them: `10m` or ISO 8601 in, local time and short durations out."""

import argparse
import re
import time
from datetime import datetime
from typing import Final

UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
LASTING: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])?")
AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def moment(text: str) -> float:
    """Unix seconds of `90s`, `10m`, `2h`, `3d`, `1w` (so long ago) or of an ISO 8601 time, local unless it says so.

    Raises argparse.ArgumentTypeError, so that it can stand as an option's type.
    """
    ago = AGO.fullmatch(text.strip().lower())
    try:
        at = time.time() - float(ago[1]) * UNITS[ago[2]] if ago else datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError, OSError):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a duration (10m, 2h, 3d) nor an ISO 8601 time") from None
    if at < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is before 1970; use a duration (10m, 2h, 3d) or an ISO 8601 time")
    return at


def lasting(text: str) -> float:
    """Seconds of `500ms`, `5s`, `2m`, `1h` or of a bare number. Raises argparse.ArgumentTypeError."""
    found = LASTING.fullmatch(text.strip().lower())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration like 500ms, 5s or 2m")
    return float(found[1]) * {**UNITS, "ms": 0.001}[found[2] or "s"]


def local(at: float) -> str:
    """Unix seconds as local date and time, to the second."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float | None) -> str:
    """Seconds with the digits that matter: `0.4 ms`, `870 ms`, `4.12 s`, `3.5 min`, `2.1 h`, `4.0 d`; `-` for None."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.{1 if 0 < seconds < 0.00995 else 0}f} ms"
    if seconds < 100:
        return f"{seconds:.2f} s"
    unit, size = next((pair for pair in (("min", 60), ("h", 3600)) if seconds < 100 * pair[1]), ("d", 86_400))
    return f"{seconds / size:.1f} {unit}"


def milliseconds(value: float | None) -> str:
    """A column that ends in `_ms`, as a duration."""
    return duration(None if value is None else value / 1000)
