"""When the requests that a filter wants can have been received, by the hourly and daily sums: a list need not look
through a month for a model that was used on one day of it.

A stretch may hold nothing that is wanted, but nothing that is wanted lies outside of all stretches. Knows sums and
indexes; the rows themselves are read by `traces`.
"""

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from herd.store import rollups, schema
from herd.store.cells import STATUSES
from herd.store.rollups import ALL, DAY_S, HOUR_S, MODEL, NODE, TAG

Stretch = tuple[float, float]

MOST_FRESH: Final = 10_000  # rows that are not in the sums, from which on the sums say too little
MOST_BY_ID: Final = 500  # requests whose ids begin with the text, from which on it tells no hours apart
ERRORS: Final = "errors"  # a status that stands for two
ERRORS_ARE: Final = ("failed", "incomplete")
_BITS: Final = {"tag": TAG, "node_id": NODE, "model": MODEL}
_NAMED: Final = {NODE: "node_id", MODEL: "model", TAG: "tag"}
_NARROWING: Final = {"status", "q", *_BITS}


def stretches(
    connection: sqlite3.Connection, wanted: Mapping[str, Any], since: float, until: float
) -> Iterator[Stretch]:
    """From when until before when (unix s), the latest first, between `since` and `until`.

    `wanted` has the filters by name, and with `q` its `pattern` for LIKE and `q_end`, behind every id that begins so.
    """
    through = rollups.rolled_through(connection) if schema.version_of(connection) == schema.LATEST else 0
    newest = connection.execute("SELECT COALESCE(MAX(id), 0) FROM request_traces").fetchone()[0]
    if not _NARROWING & wanted.keys() or not through or newest - through > MOST_FRESH:
        yield since, until
        return
    fresh = _earliest(connection, "NOT INDEXED WHERE id > ?", through)
    if fresh < until:
        yield max(since, fresh), until
    narrowed = _Narrowed(connection, wanted)
    for day in _days(connection, max(since, _earliest(connection)), min(until, fresh)):
        for start, end in _joined(narrowed.hours(day)):
            if max(start, since) < min(end, until, fresh):
                yield max(start, since), min(end, until, fresh)


class _Narrowed:
    """In which hours of a day the sums have what a filter wants."""

    def __init__(self, connection: sqlite3.Connection, wanted: Mapping[str, Any]) -> None:
        self._connection = connection
        self._wanted = wanted
        self._by_id = _hours_by_id(connection, wanted) if "q" in wanted else set()

    def hours(self, day: int) -> list[int]:
        """Their beginnings, the latest first."""
        hours = range(day, day + DAY_S, HOUR_S)
        found = set(hours)
        if _BITS.keys() & self._wanted.keys() or "status" in self._wanted:
            found = self._with_cells(hours) if self._with_cells([day], DAY_S) else set()
        if found and "q" in self._wanted and self._by_id is not None:
            named = self._with_names(hours) if self._with_names([day], DAY_S) else set()
            found &= named | self._with_errors(day) | self._by_id
        return sorted(found, reverse=True)

    def _with_cells(self, starts: Sequence[int], span: int = HOUR_S) -> set[int]:
        """The hours or days with a request of that model, node and tag, one that ended so."""
        wanted = {name: self._wanted[name] for name in _BITS if name in self._wanted}
        bits = sum(_BITS[name] for name in wanted)
        kind = min(kind for kind in rollups.KINDS if kind & bits == bits)
        clauses = [f"{name} = :{name}{' COLLATE NOCASE' if name == 'model' else ''}" for name in wanted]
        if (status := self._wanted.get("status")) is not None:
            counted = ERRORS_ARE if status == ERRORS else [status] if status in STATUSES else []
            clauses.append(f"({' OR '.join(f'{each}_count > 0' for each in counted) or '0'})")
        return self._starts(starts, span, [kind], " AND ".join(clauses), wanted)

    def _with_names(self, starts: Sequence[int], span: int = HOUR_S) -> set[int]:
        """The hours or days in which a model, node or tag has the text in its name."""
        named = " OR ".join(f"(kind = {kind} AND {name} LIKE :pattern ESCAPE '\\')" for kind, name in _NAMED.items())
        return self._starts(starts, span, list(_NAMED), f"({named})", {"pattern": self._wanted["pattern"]})

    def _starts(
        self, starts: Sequence[int], span: int, kinds: Sequence[int], where: str, values: Mapping[str, Any]
    ) -> set[int]:
        found = self._connection.execute(
            f"""SELECT DISTINCT start FROM rollups INDEXED BY rollups_by_start
                WHERE start IN ({", ".join(map(str, starts))}) AND span = {span}
                  AND kind IN ({", ".join(map(str, kinds))}) AND {where}""",
            values,
        )
        return {row[0] for row in found}

    def _with_errors(self, day: int) -> set[int]:
        """The hours of a day with the text in an error."""
        found = self._connection.execute(
            """SELECT timestamp FROM request_traces INDEXED BY traces_with_error
               WHERE error_message IS NOT NULL AND timestamp >= :day AND timestamp < :next
                 AND error_message LIKE :pattern ESCAPE '\\'""",
            {"day": day, "next": day + DAY_S, "pattern": self._wanted["pattern"]},
        )
        return {_hour(row[0]) for row in found}


def _hours_by_id(connection: sqlite3.Connection, wanted: Mapping[str, Any]) -> set[int] | None:
    """The hours of the requests that the text names by their ids; None where it names too many."""
    found = connection.execute(
        f"""SELECT timestamp FROM request_traces WHERE request_id >= :q AND request_id < :q_end
            UNION ALL SELECT timestamp FROM request_traces WHERE trace_id = :q LIMIT {MOST_BY_ID + 1}""",
        wanted,
    ).fetchall()
    return {_hour(row[0]) for row in found} if len(found) <= MOST_BY_ID else None


def _days(connection: sqlite3.Connection, since: float, until: float) -> list[int]:
    found = connection.execute(
        """SELECT start FROM rollups WHERE kind = ? AND span = ? AND tag = '' AND start > ? AND start < ?
           ORDER BY start DESC""",
        (ALL, DAY_S, since - DAY_S, until),
    )
    return [row[0] for row in found]


def _earliest(connection: sqlite3.Connection, where: str = "", *values: int) -> float:
    """When the first of these requests was received; infinity where there is none."""
    found = connection.execute(f"SELECT MIN(timestamp) FROM request_traces {where}", values).fetchone()[0]
    return math.inf if found is None else float(found)


def _hour(timestamp: float) -> int:
    return int(timestamp // HOUR_S) * HOUR_S


def _joined(hours: Sequence[int]) -> list[tuple[int, int]]:
    """Hours, the latest first, as stretches: those that touch are one."""
    found: list[tuple[int, int]] = []
    for hour in hours:
        if found and found[-1][0] == hour + HOUR_S:
            found[-1] = (hour, found[-1][1])
        else:
            found.append((hour, hour + HOUR_S))
    return found
