"""Hourly and daily rollups of the rows, built incrementally, so that a month need not be read row by row.

A rollup holds the rows up to a row number that is kept in the same transaction. So each row is in it once, whatever
breaks off when, and a reader adds the few rows behind that number. Where the rollups are missing or were made another
way, they are made anew from the rows there are.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from herd.store.cells import CELL_COLUMNS, ROW_COLUMNS, Cell, Row, tags_of

FORMAT: Final = 1  # of the stored cells; another one has all of them made anew
STEP_ROWS: Final = 5_000
HOUR_S, DAY_S = 3_600, 86_400

# Which of a request's properties a kind of rollup tells apart. Every question is answered from the coarsest that tells
# enough. Tags have fewer kinds: there may be as many of them as users, so each kind costs a cell a request.
ALL, NODE, MODEL, TAG, ASKED = 0, 1, 2, 4, 8
KINDS: Final = (ALL, NODE, MODEL, NODE | MODEL, TAG, TAG | NODE | MODEL, ASKED)
COARSER: Final = {NODE | MODEL: (ALL, NODE, MODEL), TAG | NODE | MODEL: (TAG,), ASKED: ()}


class Key(NamedTuple):
    """Which cell; what a kind does not tell apart, and what a request did not have, is empty."""

    kind: int
    span: int
    tag: str
    start: int
    node_id: str
    model: str


_KEY: Final = ", ".join(Key._fields)
_ROWS: Final = f"SELECT {', '.join(ROW_COLUMNS)} FROM request_traces WHERE id > ? ORDER BY id LIMIT ?"
_CELL: Final = f"SELECT {', '.join(CELL_COLUMNS)} FROM rollups WHERE ({_KEY}) = (?, ?, ?, ?, ?, ?)"
_STORE: Final = (
    f"INSERT OR REPLACE INTO rollups ({_KEY}, {', '.join(CELL_COLUMNS)}) "
    f"VALUES ({', '.join('?' * (len(Key._fields) + len(CELL_COLUMNS)))})"
)


def step(connection: sqlite3.Connection, rows: int = STEP_ROWS) -> bool:
    """Bring the next rows into the rollups, in one transaction; True where there are more. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        through = _begin(connection)
        found = [Row(*row) for row in connection.execute(_ROWS, (through, rows))]
        if found:
            _store(connection, cells_of(found))
            _set_through(connection, found[-1].id)
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.rollback()
        raise
    return len(found) == rows


def rolled_through(connection: sqlite3.Connection) -> int:
    """The number of the last row that is in the rollups; 0 where there are none that this herd can read."""
    try:
        found = connection.execute("SELECT rolled_through FROM rollup_state WHERE format = ?", (FORMAT,)).fetchone()
    except sqlite3.OperationalError:  # a database that an older herd made, and no writer has opened since
        return 0
    return int(found[0]) if found else 0


def cells_of(rows: Iterable[Row]) -> dict[Key, Cell]:
    """The cells that rows make, of every kind and span."""
    alike: defaultdict[tuple[Any, ...], Cell] = defaultdict(Cell)
    for row in rows:
        start = int(row.timestamp // HOUR_S) * HOUR_S
        alike[start, row.node_id or "", row.model or "", row.original_model or "", row.tags].add(row)
    finest: defaultdict[Key, Cell] = defaultdict(Cell)
    for (start, node_id, model, asked, tags), cell in alike.items():
        cell.settle()
        finest[Key(NODE | MODEL, HOUR_S, "", start, node_id, model)].merge(cell)
        finest[Key(ASKED, HOUR_S, "", start, "", asked)].merge(cell)
        for tag in tags_of(tags):
            finest[Key(TAG | NODE | MODEL, HOUR_S, tag, start, node_id, model)].merge(cell)
    hours = defaultdict(Cell, finest)
    for key, cell in finest.items():
        for kind in COARSER[key.kind]:
            hours[_part(key, kind)].merge(cell)
    days: defaultdict[Key, Cell] = defaultdict(Cell)
    for key, cell in hours.items():
        days[key._replace(span=DAY_S, start=key.start // DAY_S * DAY_S)].merge(cell)
    return {**hours, **days}


def _part(key: Key, kind: int) -> Key:
    """The cell of a coarser kind that a cell is part of."""
    return key._replace(kind=kind, node_id=key.node_id if kind & NODE else "", model=key.model if kind & MODEL else "")


def _begin(connection: sqlite3.Connection) -> int:
    """Where to go on; from the beginning where the state does not fit the format, or the rows that were rolled up."""
    through = rolled_through(connection)
    newest = connection.execute("SELECT COALESCE(MAX(id), 0) FROM request_traces").fetchone()[0]
    known = connection.execute("SELECT COUNT(*) FROM rollup_state WHERE format = ?", (FORMAT,)).fetchone()[0]
    if known and through <= newest:
        return through
    connection.execute("DELETE FROM rollups")
    connection.execute("DELETE FROM rollup_state")
    _set_through(connection, 0)
    return 0


def _set_through(connection: sqlite3.Connection, through: int) -> None:
    connection.execute("INSERT OR REPLACE INTO rollup_state VALUES (1, ?, ?)", (FORMAT, through))


def _store(connection: sqlite3.Connection, cells: dict[Key, Cell]) -> None:
    for key, cell in cells.items():
        stored = connection.execute(_CELL, key).fetchone()
        if stored:
            cell.add_stored(tuple(stored))
    connection.executemany(_STORE, ((*key, *cell.stored()) for key, cell in sorted(cells.items())))
