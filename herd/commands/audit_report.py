"""What an audit found, as tables and sentences for people and as a document for programs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final

from rich.console import RenderableType

from herd.audit.comparison import Comparison, Difference, Tally
from herd.audit.counters import TOKEN_TYPES, CounterComparison, Gap
from herd.commands.moments import local
from herd.commands.output import table

MOST_LISTED: Final = 100


@dataclass(frozen=True, slots=True)
class Findings:
    """What an audit found; `counters` is None where no metrics were compared, and then `unasked` says why."""

    since: float
    until: float
    comparison: Comparison
    differences: Sequence[Difference]
    damaged: int
    url: str | None
    counters: CounterComparison | None
    gaps: Sequence[Gap]
    unasked: str

    @property
    def agree(self) -> bool:
        """Whether the records say the same."""
        return not self.differences and not self.gaps


def report(found: Findings) -> Iterator[RenderableType]:
    """The counts side by side, then the verdict."""
    yield f"Requests received since {_when(found.since)} that ended before {local(found.until)}"
    yield ""
    yield table(("", "DATABASE", "LOG", "AGREE"), _log_rows(found.comparison), ("DATABASE", "LOG"))
    yield ""
    if counters := found.counters:
        yield f"Requests that ended since the router at {found.url} started ({local(counters.scrape.started_at)})"
        yield ""
        yield table(("", "DATABASE", "METRICS", "AGREE"), _metric_rows(counters), ("DATABASE", "METRICS"))
    else:
        yield f"Metrics are not compared: {found.unasked}."
    yield ""
    yield "All agree." if found.agree else "\n".join(_verdict(found))


def _log_rows(comparison: Comparison) -> Iterator[tuple[object, ...]]:
    rows, lines = comparison.rows, comparison.lines
    yield _line("requests", rows.requests, lines.requests)
    for name, ours, theirs in (
        ("status", rows.status, lines.status), ("model", rows.model, lines.model),
        ("node", rows.node, lines.node), ("tokens", rows.tokens, lines.tokens),
    ):  # fmt: skip
        yield from (_line(f"{name} {key}", ours[key], theirs[key]) for key in sorted({*ours, *theirs}))


def _metric_rows(counters: CounterComparison) -> Iterator[tuple[object, ...]]:
    least, most, scrape = counters.least, counters.most, counters.scrape
    for name, low, high, counted, keys in (
        ("status", least.status, most.status, scrape.finished, {*most.status, *scrape.finished}),
        ("tokens", least.tokens, most.tokens, scrape.tokens, {*TOKEN_TYPES}),
    ):
        for key in sorted(key for key in keys if high[key] or counted[key]):
            same = low[key] <= counted[key] <= high[key]
            yield _line(f"{name} {key}", _between(low[key], high[key]), counted[key], same)


def _line(what: str, ours: object, theirs: object, same: bool | None = None) -> tuple[object, ...]:
    return what, ours, theirs, "yes" if (ours == theirs if same is None else same) else "NO"


def _between(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _verdict(found: Findings) -> Iterator[str]:
    if found.differences:
        first, others = found.differences[0], len(found.differences) - 1
        more = f" ({others} more: --json lists them)" if others else ""
        yield f"The records differ. First: {first.sentence}, received {local(first.received_at)}{more}."
    if found.gaps:
        counts = "; ".join(gap.sentence for gap in found.gaps[:3])
        yield f"{'' if found.differences else 'The records differ. '}{counts}."
    if found.damaged:
        yield f"{found.damaged} damaged log lines could not be read."
    lost = found.counters.scrape.lost if found.counters else {}
    if told := ", ".join(f"{count} {what}" for what, count in lost.items() if count):
        yield f"The router reports that it lost {told}; its log has the reason."
    elif found.gaps and not found.differences:
        yield f"Check that the router at {found.url} writes to this data directory."


def _when(at: float) -> str:
    return local(at) if abs(at) < inf else "the beginning"


def document(found: Findings) -> dict[str, Any]:
    """The same for programs."""
    return {
        "agree": found.agree,
        "since": found.since if abs(found.since) < inf else None,
        "until": found.until,
        "database": _tally(found.comparison.rows),
        "log": _tally(found.comparison.lines),
        "damaged_lines": found.damaged,
        "differences_total": len(found.differences),
        "differences": [_difference(each) for each in found.differences[:MOST_LISTED]],
        "metrics": _metrics(found, found.counters) if found.counters else None,
        "metrics_not_compared": found.unasked or None,
    }


def _difference(found: Difference) -> dict[str, Any]:
    return {
        "request_id": found.request_id,
        "received_at": found.received_at,
        "status": found.status,
        "missing_from": found.missing_from,
        "says": found.says,
        "sentence": found.sentence,
    }


def _metrics(found: Findings, counters: CounterComparison) -> dict[str, Any]:
    return {
        "url": found.url,
        "since": counters.scrape.started_at,
        "status": _counts(counters.scrape.finished),
        "tokens": _counts(counters.scrape.tokens),
        "database": _tally(counters.most),
        "gaps": [gap.sentence for gap in found.gaps],
        "lost": dict(counters.scrape.lost),
    }


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "requests": tally.requests,
        "status": _counts(tally.status),
        "model": _counts(tally.model),
        "node": _counts(tally.node),
        "tokens": _counts(tally.tokens),
    }


def _counts(counted: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counted.items()))
