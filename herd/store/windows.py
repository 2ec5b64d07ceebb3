"""Reading a window's requests as cells, grouped and filtered: from the rows while they are few, else from the rollups.

A long window is whole days, the hours before the first whole day, and single rows at its edges; together exactly the
rows of the window. Knows how to read, not what the cells are for.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from herd.core.names import canonical_name
from herd.store import rollups
from herd.store.cells import CELL_COLUMNS, MEASURES, ROW_COLUMNS, STATUSES, Cell, Row, tags_of
from herd.store.histogram import RELATIVE_ERROR
from herd.store.rollups import ALL, ASKED, DAY_S, HOUR_S, MODEL, NODE, TAG

EXACT_ROWS: Final = 2_000  # as many rows are read one by one within some hundredths of a second
Group = tuple[Any, ...]

_ROW: Final = f"SELECT {', '.join(ROW_COLUMNS)} FROM request_traces"
_REQUESTS: Final = (
    f"SELECT COALESCE(SUM({' + '.join(f'{status}_count' for status in STATUSES)}), 0) "
    "FROM rollups WHERE kind = ? AND span = ? AND tag = '' AND start >= ?"
)
_NEVER: Final = 2**62
# The properties of a stored cell; what it does not have is empty there and None in a group, as in a row.
_GROUPED: Final = {
    "tag": "NULLIF(tag, '')",
    "node_id": "NULLIF(node_id, '')",
    "model": "NULLIF(model, '')",
    "asked": "NULLIF(model, '')",
    "day": "date(start, 'unixepoch')",
    "hour": "start / 3600 * 3600",
}
_BITS: Final = {"tag": TAG, "node_id": NODE, "model": MODEL, "asked": ASKED}


@dataclass(frozen=True, slots=True)
class Scope:
    """Which requests: those with the tag, answered with the model (in any case), or by the node; all where None."""

    tag: str | None = None
    model: str | None = None
    node_id: str | None = None

    def __post_init__(self) -> None:
        if self.model is not None:
            object.__setattr__(self, "model", canonical_name(self.model))

    @property
    def filters(self) -> dict[str, str]:
        """What is asked for, by property."""
        named = {"tag": self.tag, "model": self.model, "node_id": self.node_id}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells by group, and how far a percentile of them may be from the exact one, as a share of itself."""

    groups: dict[Group, Cell]
    relative_error: float = 0.0


EVERYTHING: Final = Scope()


def read(
    connection: sqlite3.Connection,
    since: float,
    by: Sequence[str],
    scope: Scope = EVERYTHING,
    spreads: Sequence[str] = tuple(MEASURES),
    exact: int = EXACT_ROWS,
) -> Cells:
    """The requests received from `since` (unix s) on, grouped by properties: `tag`, `node_id`, `model`, `asked` (for
    which model), `day` (UTC, ISO 8601) and `hour` (unix s of its beginning).

    A request counts in each of its tags; without a node or model it counts under None. The measures of `spreads` can
    be asked for percentiles. Up to `exact` requests are read one by one.
    """
    groups: defaultdict[Group, Cell] = defaultdict(Cell)
    through = rollups.rolled_through(connection)
    if not through or _few(connection, since, through, exact):
        _add_rows(groups, _rows(connection, "INDEXED BY traces_by_time WHERE timestamp >= ?", (since,)), by, scope)
        return Cells(dict(groups))
    _add_stored(connection, groups, since, by, scope, spreads)
    edge = "INDEXED BY traces_by_time WHERE timestamp >= ? AND timestamp < ? AND id <= ?"
    _add_rows(groups, _rows(connection, edge, (since, _next(since, HOUR_S), through)), by, scope)
    _add_rows(groups, _rows(connection, "NOT INDEXED WHERE id > ? AND timestamp >= ?", (through, since)), by, scope)
    return Cells(dict(groups), RELATIVE_ERROR)


def _few(connection: sqlite3.Connection, since: float, through: int, exact: int) -> bool:
    """Whether the rows of the window are at most `exact`, and none of its requests is left in the rollups only."""
    counted = "SELECT COUNT(*) FROM (SELECT 1 FROM request_traces INDEXED BY traces_by_time WHERE timestamp >= ?"
    if connection.execute(f"{counted} LIMIT ?)", (since, exact + 1)).fetchone()[0] > exact:
        return False
    first_day = _next(since, DAY_S)
    kept = connection.execute(f"{counted} AND id <= ?)", (first_day, through)).fetchone()[0]
    rolled = connection.execute(_REQUESTS, (ALL, DAY_S, first_day)).fetchone()[0]
    return bool(kept >= rolled)


def _add_stored(
    connection: sqlite3.Connection,
    groups: dict[Group, Cell],
    since: float,
    by: Sequence[str],
    scope: Scope,
    spreads: Sequence[str],
) -> None:
    first_hour, first_day = _next(since, HOUR_S), _next(since, DAY_S)
    cursor = connection.cursor()
    cursor.row_factory = None
    newest = cursor.execute("SELECT COALESCE(MAX(start), 0) FROM rollups").fetchone()[0]
    columns = ", ".join((*(_GROUPED[name] for name in by), *_columns(spreads)))
    for span, start, end in (
        ((HOUR_S, first_hour, _NEVER),)
        if "hour" in by
        else ((HOUR_S, first_hour, first_day), (DAY_S, first_day, _NEVER))
    ):
        where, values = _where(_kind(by, scope), range(start, min(end, newest + 1), span), scope)
        for found in cursor.execute(f"SELECT {columns} FROM rollups {where}", values):
            groups[found[: len(by)]].add_stored(found[len(by) :])


def _where(kind: int, starts: range, scope: Scope) -> tuple[str, dict[str, Any]]:
    """Which stored cells: of a kind, with these beginnings, a span from one to the next."""
    filters = scope.filters
    clauses = ["kind = :kind", "span = :span", *(f"{name} = :{name}" for name in filters if name != "model")]
    if "model" in filters:
        clauses.append("model = :model COLLATE NOCASE")
    values = {"kind": kind, "span": starts.step, "start": starts.start, "end": starts.stop, **filters}
    if kind & TAG and "tag" not in filters:
        # The cells of a tag lie together, a year of them. Where the tag is open, each beginning is looked up by itself.
        clauses.append(f"start IN ({', '.join(map(str, starts))})")
        return f"INDEXED BY rollups_by_start WHERE {' AND '.join(clauses)}", values
    if not kind & TAG:
        clauses.append("tag = ''")
    return f"WHERE {' AND '.join(clauses)} AND start >= :start AND start < :end", values


def _columns(spreads: Sequence[str]) -> Iterator[str]:
    """The cells' columns, those spreads left unread that nobody asks for."""
    unread = {f"{name}_spread" for name in MEASURES if name not in spreads}
    return ("NULL" if name in unread else name for name in CELL_COLUMNS)


def _kind(by: Sequence[str], scope: Scope) -> int:
    wanted = ALL
    for name in (*by, *scope.filters):
        wanted |= _BITS.get(name, ALL)
    return min(kind for kind in rollups.KINDS if kind & wanted == wanted)


def _told(found: dict[str, Any], name: str) -> Any:
    if name == "day":
        return _day(found["start"] // DAY_S * DAY_S)
    if name == "hour":
        return found["start"] // HOUR_S * HOUR_S
    return found["model" if name == "asked" else name] or None


def _add_rows(groups: dict[Group, Cell], rows: Iterator[Row], by: Sequence[str], scope: Scope) -> None:
    for row in rows:
        if _within(row, scope):
            for group in _groups(row, by, scope):
                groups[group].add(row)


def _within(row: Row, scope: Scope) -> bool:
    return (
        (scope.node_id is None or row.node_id == scope.node_id)
        and (scope.model is None or (row.model or "").lower() == scope.model.lower())
        and (scope.tag is None or scope.tag in tags_of(row.tags))
    )


def _groups(row: Row, by: Sequence[str], scope: Scope) -> Iterator[Group]:
    tags = [""] if "tag" not in by else [scope.tag] if scope.tag else tags_of(row.tags)
    found = {"start": int(row.timestamp), "node_id": row.node_id, "model": row.model}
    if "asked" in by:
        found["model"] = row.original_model
    for tag in tags:
        yield tuple(_told({**found, "tag": tag}, name) for name in by)


def _rows(connection: sqlite3.Connection, where: str, values: tuple[float, ...]) -> Iterator[Row]:
    return (Row(*row) for row in connection.execute(f"{_ROW} {where}", values))


def _next(moment: float, span: int) -> int:
    """The first beginning of a span that is not before a moment."""
    return int(-(-moment // span)) * span


@lru_cache(maxsize=1024)
def _day(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()
