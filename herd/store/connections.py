"""Connections to the database that cannot write, kept for the next question as long as the file is the same.

Any thread may ask. A store in which nothing was kept yet, or whose file is gone, has none.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from herd.store import schema
from herd.store.file import identity

P = ParamSpec("P")
T = TypeVar("T")
Question = Callable[Concatenate[sqlite3.Connection, P], T]


class StoreUnreadable(RuntimeError):
    """The database could not be read; the text says why."""


class Source(Protocol):
    """Where a reader has its answers from; all of it may be called in any thread."""

    def read(self, empty: T, query: Question[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query within one snapshot of the database; `empty` where nothing was stored."""

    def let_go(self) -> None:
        """Close every connection, those in use as soon as they are not; the next question opens a new one."""

    def close(self) -> None:
        """Let go of the file, and of everything else."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A connection, the file that it was opened on, and how often the reader had let go of everything by then."""

    connection: sqlite3.Connection
    identity: tuple[int, int]
    era: int


class Connections:
    """A source of this process: the threads that ask do the work."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._idle: list[_Opened] = []
        self._era = 0

    def read(self, empty: T, query: Question[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query within one snapshot of the database; `empty` where nothing was stored.

        Raises StoreUnreadable where the file is there but cannot be read.
        """
        try:
            with self._borrowed() as connection:
                if connection is None:
                    return empty
                connection.execute("BEGIN")
                try:
                    return query(connection, *args, **kwargs)
                finally:
                    connection.rollback()
        except (sqlite3.Error, OSError) as error:
            raise StoreUnreadable(f"the trace store {self.path} cannot be read: {error}") from error

    def let_go(self) -> None:
        """Close every connection, those in use as soon as they are not; the next question opens a new one.

        SQLite shares what it knows of a file among all connections of a process. Where the file was moved away, or its
        rights have changed, one that stays would keep the others from the file as it is now.
        """
        with self._lock:
            self._era += 1
            idle, self._idle = self._idle, []
        for each in idle:
            each.connection.close()

    def close(self) -> None:
        """Let go of the file."""
        self.let_go()

    @contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection | None]:
        """A connection that nobody else uses meanwhile; None where nothing was stored. It is kept if all went well."""
        opened = self._take()
        well = False
        try:
            yield opened.connection if opened else None
            well = True
        finally:
            if opened:
                self._give_back(opened, well)

    def _take(self) -> _Opened | None:
        there = identity(self.path)
        with self._lock:
            era, idle = self._era, self._idle
            self._idle = [each for each in idle if each.identity == there]
            found = self._idle.pop() if self._idle else None
        for each in idle:
            if each.identity != there:
                each.connection.close()
        if found or there is None:
            return found
        connection = schema.open_for_reading(self.path)
        return _Opened(connection, there, era) if connection else None

    def _give_back(self, opened: _Opened, well: bool) -> None:
        with self._lock:
            kept = well and opened.era == self._era
            if kept:
                self._idle.append(opened)
        if not kept:
            opened.connection.close()
