"""What a group of requests came to: counts, sums and distributions that can be added up in any order.

Made from rows or from stored cells, told as figures. Sums are of whole numbers, so a sum of cells is exactly the sum of
their rows. Knows the columns that it needs, and no table.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from herd.core.events import Status
from herd.store.histogram import Distribution

Document = dict[str, Any]

STATUSES: Final = tuple(status.value for status in Status)
PERCENTS: Final = (50, 75, 95, 99)
COLD_LOAD_MS: Final = 500.0  # engines report some milliseconds of loading for a loaded model as well

# Latency is that of completed requests, since others end when they please; the others are of all that have them.
MEASURES: Final = {
    "latency": "latency_ms",
    "ttft": "time_to_first_token_ms",
    "time_per_output_token": "time_per_output_token_ms",
    "queue": "queue_ms",
    "overhead": "overhead_ms",
}
COUNTERS: Final = (
    *(f"{status}_count" for status in STATUSES),
    "prompt_tokens", "completion_tokens", "retry_count", "fallback_count", "cold_load_count", "cold_load_us",
)  # fmt: skip
ROW_COLUMNS: Final = (
    "id", "timestamp", "node_id", "model", "original_model", "tags", "status", "prompt_tokens", "completion_tokens",
    "retry_count", "fallback_used", "load_ms", *MEASURES.values(),
)  # fmt: skip
CELL_COLUMNS: Final = (
    "first_seen", "last_seen", *COUNTERS,
    *(f"{measure}_{part}" for measure in MEASURES for part in ("count", "us", "spread")),
)  # fmt: skip
_ALWAYS: Final = ("latency", "ttft")
_STATUS_COUNTS: Final = COUNTERS[: len(STATUSES)]
_FIRST_MEASURE: Final = 2 + len(COUNTERS)
_STATUS_AT: Final = {status: index for index, status in enumerate(STATUSES)}


class Row(NamedTuple):
    """One request as far as cells need it; the fields are ROW_COLUMNS in their order."""

    id: int
    timestamp: float
    node_id: str | None
    model: str | None
    original_model: str | None
    tags: str | None
    status: str
    prompt_tokens: int | None
    completion_tokens: int | None
    retry_count: int
    fallback_used: int
    load_ms: float | None
    latency_ms: float
    time_to_first_token_ms: float | None
    time_per_output_token_ms: float | None
    queue_ms: float | None
    overhead_ms: float | None

    def measured(self) -> tuple[float | None, ...]:
        """The values of MEASURES in their order."""
        latency_ms = self.latency_ms if self.status == Status.COMPLETED else None
        return (
            latency_ms, self.time_to_first_token_ms, self.time_per_output_token_ms, self.queue_ms, self.overhead_ms,
        )  # fmt: skip


assert Row._fields == ROW_COLUMNS


def tags_of(text: str | None) -> list[str]:
    """The tags of a row, each once, from the column's text."""
    return json.loads(text) if text else []


@dataclass(slots=True)
class Cell:
    """The sums of a group; `counters` are COUNTERS in their order, `measures` MEASURES."""

    first_seen: float = math.inf
    last_seen: float = -math.inf
    counters: list[int] = field(default_factory=lambda: [0] * len(COUNTERS))
    measures: tuple[Distribution, ...] = field(default_factory=lambda: tuple(Distribution() for _ in MEASURES))

    @property
    def requests(self) -> int:
        """How many requests."""
        return sum(self.counters[: len(STATUSES)])

    @property
    def error_rate_pct(self) -> float | None:
        """Failed and broken off, of those that were not rejected and whose client stayed; None where there are none."""
        bad = self.counter("failed_count") + self.counter("incomplete_count")
        judged = bad + self.counter("completed_count")
        return round(100 * bad / judged, 2) if judged else None

    def counter(self, name: str) -> int:
        """One of COUNTERS."""
        return self.counters[COUNTERS.index(name)]

    def measure(self, name: str) -> Distribution:
        """One of MEASURES."""
        return self.measures[tuple(MEASURES).index(name)]

    def add(self, row: Row) -> None:
        """Take a request."""
        self._seen(row.timestamp, row.timestamp)
        counters = self.counters
        counters[_STATUS_AT[row.status]] += 1
        cold = (row.load_ms or 0.0) > COLD_LOAD_MS
        for index, number in enumerate(
            (row.prompt_tokens, row.completion_tokens, row.retry_count, row.fallback_used, cold), len(STATUSES)
        ):
            counters[index] += number or 0
        if cold and row.load_ms:
            counters[-1] += round(row.load_ms * 1000)
        for distribution, value in zip(self.measures, row.measured(), strict=True):
            if value is not None:
                distribution.add(value)

    def merge(self, other: "Cell") -> None:
        """Take everything that another cell holds."""
        self._seen(other.first_seen, other.last_seen)
        self._count(other.counters)
        for distribution, more in zip(self.measures, other.measures, strict=True):
            distribution.merge(more)

    def settle(self) -> None:
        """Make this ready to be merged into many others."""
        for distribution in self.measures:
            distribution.settle()

    def add_stored(self, stored: Sequence[Any]) -> None:
        """Take a stored cell: values of CELL_COLUMNS in their order."""
        self._seen(stored[0], stored[1])
        self._count(stored[2:_FIRST_MEASURE])
        for index, distribution in enumerate(self.measures):
            distribution.add_stored(*stored[_FIRST_MEASURE + 3 * index : _FIRST_MEASURE + 3 * index + 3])

    def stored(self) -> tuple[Any, ...]:
        """The values of CELL_COLUMNS."""
        spread = (part for each in self.measures for part in (each.count, each.total_us, each.packed()))
        return (self.first_seen, self.last_seen, *self.counters, *spread)

    def figures(self, percentiles: Sequence[str] = (), percents: Sequence[int] = PERCENTS) -> Document:
        """What readers are told: counts, shares and averages, and percentiles of the measures named."""
        *_, prompt, completion, retries, fallbacks, cold, cold_us = self.counters
        requests = self.requests
        told: Document = {"request_count": requests, **dict(zip(_STATUS_COUNTS, self.counters, strict=False))}
        told["error_rate_pct"] = self.error_rate_pct
        told["total_prompt_tokens"], told["total_completion_tokens"] = prompt, completion
        told["retry_count"], told["fallback_count"], told["cold_load_count"] = retries, fallbacks, cold
        told["avg_cold_load_ms"] = round(cold_us / 1000 / cold, 3) if cold else None
        for name, distribution in zip(MEASURES, self.measures, strict=True):
            if name in _ALWAYS or name in percentiles:
                told[f"avg_{name}_ms"] = distribution.average
            if name in percentiles:
                for percent, value in zip(percents, distribution.quantiles(percents), strict=True):
                    told[f"p{percent}_{name}_ms"] = value
        return told

    def _seen(self, first: float, last: float) -> None:
        self.first_seen, self.last_seen = min(self.first_seen, first), max(self.last_seen, last)

    def _count(self, more: Sequence[int]) -> None:
        self.counters = [mine + theirs for mine, theirs in zip(self.counters, more, strict=True)]
