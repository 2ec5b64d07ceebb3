"""Figures of requests side by side, as tables and as JSON: what `herd replay` and `herd plan` show."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from herd.commands.moments import duration
from herd.planning.figures import SECONDS, Figures

MOST_LOADS: Final = 2  # times the simulated loads: more have another cause
NAMES: Final = {
    "ttft_p50_s": "first token, p50", "ttft_p95_s": "first token, p95",
    "answer_p50_s": "whole answer, p50", "answer_p95_s": "whole answer, p95",
}  # fmt: skip


def figure_rows(
    was: Figures, before: Figures, after: Figures, errors: Mapping[str, float]
) -> Iterator[tuple[object, ...]]:
    """Each figure: actual, simulated before and after, the change, and the error of the simulation."""
    for name, words in NAMES.items():
        first, second = getattr(before, name), getattr(after, name)
        yield (
            words,
            duration(getattr(was, name)),
            duration(first),
            duration(second),
            change(first, second),
            error(errors.get(name)),
        )
    yield "loads", was.loads, before.loads, after.loads, change(before.loads, after.loads), error(errors.get("loads"))
    yield "refused", was.refused, before.refused, after.refused, None, None


def change(before: float | None, after: float | None) -> str | None:
    """By how much something changes, in percent; None where that says nothing."""
    if not before or after is None:
        return None
    return f"{100 * (after / before - 1):+.0f}%"


def error(share: float | None) -> str | None:
    """An error as a share of the figure; `?` where it is not known."""
    return "?" if share is None else f"± {100 * share:.0f}%"


def verdict(before: Figures, after: Figures, errors: Mapping[str, float]) -> str:
    """What it comes to, in a sentence."""
    name = "ttft_p95_s" if before.ttft_p95_s is not None and after.ttft_p95_s is not None else "answer_p95_s"
    first, second, off = getattr(before, name), getattr(after, name), errors.get(name)
    if first is None or second is None:
        return "Nothing was served that could be compared."
    words = f"{NAMES[name].replace(', ', ' (')}) {duration(first)} before, {duration(second)} after"
    if off is None:
        return f"{words.capitalize()}; too few requests to know the error."
    if abs(second - first) <= off * max(first, second):
        return f"{words.capitalize()}: a difference within the simulation's error of {100 * off:.0f}%."
    return f"{words.capitalize()} (± {duration(off * second)}): {'slower' if second > first else 'faster'}."


def backtest(was: Figures, before: Figures, bias: Mapping[str, float], errors: Mapping[str, float]) -> Iterator[str]:
    """How well the simulation of the window matches what happened in it."""
    off = errors.get("ttft_p95_s", errors.get("answer_p95_s"))
    ratio = bias.get("ttft_p95_s", bias.get("answer_p95_s"))
    if off is None or ratio is None:
        yield "Too few requests for a back-test: the error of the simulation is unknown."
    else:
        yield f"Back-test: the simulated p95 is {ratio:.2f} times the actual one, with an error of {100 * off:.0f}%."
    if was.loads > MOST_LOADS * max(1, before.loads):
        yield (
            f"{was.loads:,} model loads happened, the simulation has {before.loads:,}: loads that a changed context, "
            "another client or keep_alive causes are not simulated."
        )


def figures_json(found: Figures) -> dict[str, Any]:
    """Figures for programs."""
    return {name: round(value, 4) if name in SECONDS and value is not None else value
            for name, value in asdict(found).items()}  # fmt: skip


def shares_json(found: Mapping[str, float]) -> dict[str, float]:
    """Errors and ratios for programs."""
    return {name: round(value, 4) for name, value in found.items()}
