"""What the requests of a window came to, as tables: by tag, by node, model and day, by hour, and how long they took.

Each function gives a Report. Days and hours are UTC, windows the last so many seconds. How the figures are read is
`windows`' to know, how they are told `cells`'.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from herd.store.cells import MEASURES, Cell
from herd.store.rollups import HOUR_S
from herd.store.windows import EVERYTHING, Cells, Group, Scope, read

Document = dict[str, Any]

EVERY_MEASURE: Final = tuple(MEASURES)
TREND_PERCENTS: Final = (50, 95)
_BRIEF: Final = ("latency", "ttft")
_GENERATION: Final = (*_BRIEF, "time_per_output_token")


@dataclass(frozen=True, slots=True)
class Report:
    """A table: its rows, the columns that they have in this order, and and how far percentiles may be off.

    `relative_error` is a share of the exact percentile; 0.0: they are exact. A report of several tables has them in
    `parts`, by name; its rows are theirs, one after the other.
    """

    data: list[Document]
    columns: tuple[str, ...]
    relative_error: float = 0.0
    parts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def document(self) -> Document:
        """The report as JSON would have it."""
        return {**(self.parts or {"data": self.data}), "relative_error": self.relative_error}


Query = Callable[[sqlite3.Connection, float, Scope], Report]


def apps(connection: sqlite3.Connection, since: float, scope: Scope = EVERYTHING) -> Report:
    """What each tag's requests came to, the busiest tag first; a request with two tags counts under both."""
    return _table(connection, since, scope, ("tag",), _BRIEF, seen=True)


def apps_daily(connection: sqlite3.Connection, since: float, scope: Scope = EVERYTHING) -> Report:
    """The same by day, the latest day first."""
    return _table(connection, since, scope, ("day", "tag"), ("latency",), seen=True)


def usage(connection: sqlite3.Connection, since: float, scope: Scope = EVERYTHING) -> Report:
    """What each node did with each model on each day; None where no node or no model came into it."""
    return _table(connection, since, scope, ("day", "node_id", "model"), ())


def models(connection: sqlite3.Connection, since: float, scope: Scope = EVERYTHING) -> Report:
    """What each model was used for, and how fast it was; the busiest first."""
    return _table(connection, since, scope, ("model",), _GENERATION, seen=True)


def latency(connection: sqlite3.Connection, since: float, scope: Scope = EVERYTHING) -> Report:
    """How long requests took and with what: all in one row, then by model and by node."""
    total, by_model, by_node = _parts(connection, since, scope)
    told = total.groups.get((), Cell()).figures(EVERY_MEASURE)
    models, nodes = (
        _rows(cells, (name,), EVERY_MEASURE) for cells, name in ((by_model, "model"), (by_node, "node_id"))
    )
    return Report(
        [{"of": "all", **told}, *({"of": "model", **row} for row in models), *({"of": "node", **row} for row in nodes)],
        ("of", "model", "node_id", *told),
        total.relative_error,
        {"total": told, "by_model": models, "by_node": nodes},
    )


def _parts(connection: sqlite3.Connection, since: float, scope: Scope) -> tuple[Cells, Cells, Cells]:
    """All requests in one group, by model, and by node."""
    if scope.tag is None:
        total, by_model, by_node = (read(connection, since, by, scope) for by in ((), ("model",), ("node_id",)))
        return total, by_model, by_node
    # Within a tag, models and nodes are told apart by the same cells: they are read once.
    both = read(connection, since, ("model", "node_id"), scope)
    by_model = _merged(both, lambda group: group[:1])
    by_node = _merged(both, lambda group: group[1:])
    return _merged(by_node, lambda _: ()), by_model, by_node


def _merged(cells: Cells, group_of: Callable[[Group], Group]) -> Cells:
    """The cells of each larger group as one; exact cells stay exact."""
    groups: defaultdict[Group, Cell] = defaultdict(Cell)
    for group, cell in cells.groups.items():
        if cells.relative_error:
            cell.settle()
        groups[group_of(group)].merge(cell)
    return Cells(dict(groups), cells.relative_error)


def trends(connection: sqlite3.Connection, since: float, now: float, scope: Scope = EVERYTHING) -> Report:
    """Every hour that the window touches, the earliest first, those without requests too; `hour` is its beginning.

    The first and the last hour count from `since` and until `now`.
    """
    cells = read(connection, since, ("hour",), scope)
    first, last = (int(moment // HOUR_S) * HOUR_S for moment in (since, now))
    hours = range(first, max([last, *(hour for (hour,) in cells.groups)]) + 1, HOUR_S)
    rows = ((hour, cells.groups.get((hour,)) or Cell()) for hour in hours)
    data = [{"hour": hour, **cell.figures(EVERY_MEASURE, TREND_PERCENTS)} for hour, cell in rows]
    return Report(data, tuple(data[0]), cells.relative_error)


def asked(connection: sqlite3.Connection, since: float) -> Report:
    """How often each model was asked for, whichever one answered, and how that ended; the busiest first."""
    return _table(connection, since, EVERYTHING, ("asked",), ())


def speeds(connection: sqlite3.Connection, since: float, scope: Scope = EVERYTHING) -> Report:
    """How fast each node generated with each model; the busiest pair first."""
    return _table(connection, since, scope, ("node_id", "model"), ("time_per_output_token",))


def _table(
    connection: sqlite3.Connection,
    since: float,
    scope: Scope,
    by: Sequence[str],
    percentiles: Sequence[str],
    seen: bool = False,
) -> Report:
    cells = read(connection, since, by, scope, percentiles)
    columns = (*by, *Cell().figures(percentiles), *(("first_seen", "last_seen") if seen else ()))
    error = cells.relative_error if percentiles else 0.0
    return Report(_rows(cells, by, percentiles, seen), columns, error)


def _rows(cells: Cells, by: Sequence[str], percentiles: Sequence[str], seen: bool = False) -> list[Document]:
    rows = [
        {**dict(zip(by, group, strict=True)), **cell.figures(percentiles),
         **({"first_seen": cell.first_seen, "last_seen": cell.last_seen} if seen else {})}
        for group, cell in cells.groups.items()
    ]  # fmt: skip
    return _ordered(rows, by)


def _ordered(rows: Iterable[Document], by: Sequence[str]) -> list[Document]:
    """The latest day first, in it the busiest group, then by name."""
    named = sorted(rows, key=lambda row: [row[name] or "" for name in by if name != "day"])
    busiest = sorted(named, key=lambda row: -row["request_count"])
    return sorted(busiest, key=lambda row: row["day"], reverse=True) if "day" in by else busiest
