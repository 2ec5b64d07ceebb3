"""Distributions that can be added up: exact while they are made of single values, counts in buckets after that.

A bucket's width grows with its values, so that a quantile is off by a share of itself and never by more than
RELATIVE_ERROR, whatever was added to what. Knows numbers only; values are milliseconds.
"""

import math
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Final

RELATIVE_ERROR: Final = 0.025
LEAST: Final = 0.01  # what is not larger counts as this: no clock here is finer
MOST: Final = 1e12

# Bucket i holds what is over LEAST * GROWTH**(i - 1) and not over LEAST * GROWTH**i. The value that stands for it is
# as far from one edge as from the other, in shares of the edge; that share is the error (DDSketch, VLDB 2019).
_GROWTH: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG: Final = math.log(_GROWTH)
_MIDDLE: Final = 2 / (1 + _GROWTH)


def bucket_of(value: float) -> int:
    """The bucket of a value; 0 for what is not over LEAST."""
    return 0 if value <= LEAST else math.ceil(math.log(min(value, MOST) / LEAST) / _LOG)


def value_of(bucket: int) -> float:
    """What stands for all values of a bucket."""
    return _VALUES[bucket]


_VALUES: Final = (
    LEAST,
    *(float(f"{LEAST * _GROWTH**bucket * _MIDDLE:.6g}") for bucket in range(1, bucket_of(MOST) + 1)),
)


@dataclass(slots=True)
class Distribution:
    """Numbers of one kind: how many, their sum, and how they are spread. `total_us` is in whole microseconds.

    Values that rows gave are kept as they are; what was stored comes as buckets. Only where there are buckets a
    quantile is an estimate. (None of them is there before it is needed, and what was stored is kept packed until
    somebody asks: a window has thousands of these.)
    """

    count: int = 0
    total_us: int = 0
    values: list[float] | None = None
    packs: list[bytes] | None = None
    buckets: dict[int, int] | None = None

    def add(self, value: float) -> None:
        """Take a value."""
        self.count += 1
        self.total_us += round(value * 1000)
        if self.values is None:
            self.values = []
        self.values.append(value)

    def merge(self, other: "Distribution") -> None:
        """Take everything that another one holds."""
        self.count += other.count
        self.total_us += other.total_us
        if other.values:
            self.values = [*(self.values or ()), *other.values]
        if other.packs:
            self.packs = self.packs or []
            self.packs += other.packs
        if other.buckets:
            self.buckets = _sum(self.buckets, other.buckets)

    def settle(self) -> None:
        """Put everything into buckets, before this is merged into many others."""
        if self.values:
            self.buckets = _sum(self.buckets, Counter(map(bucket_of, self.values)))
            self.values = None
        if self.packs:
            added = _added(self.packs)
            self.buckets = _sum(self.buckets, added) if self.buckets else added
            self.packs = None

    def add_stored(self, count: int, total_us: int, packed: bytes | None) -> None:
        """Take what was stored; without `packed` there is a mean, and no quantile to ask for."""
        self.count += count
        self.total_us += total_us
        if packed:
            if self.packs is None:
                self.packs = []
            self.packs.append(packed)

    def packed(self) -> bytes | None:
        """The spread as bytes: buckets in 16 bits each, rising, then counts in 32; None where there is nothing."""
        self.settle()
        if not self.buckets:
            return None
        found = dict(sorted(self.buckets.items()))
        return _layout(len(found)).pack(*found, *found.values())

    @property
    def average(self) -> float | None:
        """The mean; None where there is nothing."""
        return round(self.total_us / 1000 / self.count, 3) if self.count else None

    def quantiles(self, percents: Sequence[int]) -> list[float | None]:
        """For each percent, ascending, the least value that so many of 100 values do not exceed; None without any."""
        if not self.count:
            return [None] * len(percents)
        places = [(percent * self.count + 99) // 100 for percent in percents]
        if self.buckets is None and self.packs is None:
            exact = sorted(self.values or ())
            return [exact[place - 1] for place in places]
        ranked, counts = self._ranked()
        passed = list(accumulate(counts))
        return [_VALUES[ranked[bisect_left(passed, place)]] for place in places]

    def _ranked(self) -> tuple[Sequence[int], Iterable[int]]:
        """The buckets, rising, and how many are in each."""
        if self.packs and len(self.packs) == 1 and not self.values and not self.buckets:
            return _unpack(self.packs[0])
        self.settle()
        found = self.buckets or {}
        ranked = sorted(found)
        return ranked, map(found.__getitem__, ranked)


def _unpack(packed: bytes) -> tuple[Sequence[int], Sequence[int]]:
    size = len(packed) // 6
    numbers = _layout(size).unpack(packed)
    return numbers[:size], numbers[size:]


def _pairs(packed: bytes) -> Iterator[tuple[int, int]]:
    size = len(packed) // 6
    numbers = _layout(size).unpack(packed)
    return zip(numbers, numbers[size:], strict=False)  # ends with the counts, which are the shorter


@lru_cache(maxsize=1024)
def _layout(size: int) -> struct.Struct:
    return struct.Struct(f"<{size}H{size}I")


def _added(packs: Sequence[bytes]) -> dict[int, int]:
    """The buckets of all of them; where they are many, added up in a list, which is the faster."""
    sums: dict[int, int] = {}
    if sum(map(len, packs)) < 6 * len(_VALUES):
        for packed in packs:
            for bucket, count in _pairs(packed):
                sums[bucket] = sums.get(bucket, 0) + count
        return sums
    every = [0] * len(_VALUES)
    for packed in packs:
        for bucket, count in _pairs(packed):
            every[bucket] += count
    return {bucket: count for bucket, count in enumerate(every) if count}


def _sum(counts: dict[int, int] | None, more: Mapping[int, int]) -> dict[int, int]:
    """Both together; the first of them may be changed."""
    if counts is None:
        return dict(more)
    for bucket, count in more.items():
        counts[bucket] = counts.get(bucket, 0) + count
    return counts
