"""Where a command finds what was served: by asking a router, or in a database, which needs no router.

Both give the same documents. What the user names is asked; else this machine's router is, and where that is away or
does not know, the user's own database.
"""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

from herd.commands import CommandError
from herd.commands.places import data_dir, named_url, router_url
from herd.commands.router import NotThere, RouterAway, ask
from herd.store.fleet_events import EventFilter
from herd.store.queries import Reader, StoreUnreadable
from herd.store.traces import TraceFilter, whole

Document = dict[str, Any]
T = TypeVar("T")
MADE_BY_HERD: Final = re.compile(r"[0-9a-f]{32}")
SHORT: Final = 12  # digits of such an id that nobody will see twice
MOST_NAMED: Final = 5


class Records(Protocol):
    """What was served, newest first, and one request by its id or by the unique beginning of it."""

    where: str

    def page(self, which: TraceFilter, limit: int) -> list[Document]:
        """The newest requests that a filter lets through. Raises CommandError."""

    def events(self, which: EventFilter, limit: int) -> list[Document]:
        """The latest events of the fleet that a filter lets through. Raises CommandError."""

    def one(self, request_id: str) -> Document:
        """Everything about one request. Raises NotThere where there is none, CommandError for anything else."""


class FromRouter:
    """The records that a router keeps."""

    def __init__(self, url: str) -> None:
        self.where = url

    def page(self, which: TraceFilter, limit: int) -> list[Document]:
        """As Records."""

        def read(cursor: str | None, rows: int) -> tuple[Sequence[Document], str | None]:
            parameters = {**asdict(which), "limit": rows, "cursor": cursor}
            document = ask(self.where, "/dashboard/api/traces", "traces", parameters)
            return document["traces"], document["next_cursor"]

        return _filled(read, limit)

    def events(self, which: EventFilter, limit: int) -> list[Document]:
        """As Records."""
        parameters = {"since": which.since, "until": which.until, "kind": which.kinds, "node_id": which.node_id}
        return list(ask(self.where, "/dashboard/api/events", "events", {**parameters, "limit": limit})["events"])

    def one(self, request_id: str) -> Document:
        """As Records."""
        try:
            return self._exactly(request_id)
        except NotThere as unknown:
            return self._exactly(the_one(request_id, unknown.document.get("ids", []), self.where))

    def _exactly(self, request_id: str) -> Document:
        return ask(self.where, f"/dashboard/api/traces/{quote(request_id, safe='')}", "attempts")


class FromDatabase:
    """The records in a data directory."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "latency.db"
        self.where = str(self._path)

    @property
    def exists(self) -> bool:
        """Whether there is a database at all."""
        return self._path.is_file()

    def page(self, which: TraceFilter, limit: int) -> list[Document]:
        """As Records."""

        def fill(reader: Reader) -> list[Document]:
            def read(cursor: str | None, rows: int) -> tuple[Sequence[Document], str | None]:
                page = reader.traces(which, cursor, rows)
                return page.traces, page.next_cursor

            return _filled(read, limit)

        return self._read(fill)

    def events(self, which: EventFilter, limit: int) -> list[Document]:
        """As Records."""
        return self._read(lambda reader: reader.events(which, limit))

    def one(self, request_id: str) -> Document:
        """As Records."""

        def find(reader: Reader) -> Document:
            found = reader.trace(request_id)
            if found is None:
                found = reader.trace(the_one(request_id, reader.ids(request_id, MOST_NAMED + 1), self.where))
            if found is None:  # retention took it just now
                raise NotThere(f"request {request_id} is no longer in {self._path}")
            return whole(found)

        return self._read(find)

    def _read(self, question: Callable[[Reader], T]) -> T:
        if not self.exists:
            raise NotThere(f"no database at {self._path}; set a data directory with --data-dir or a router with --url")
        reader = Reader(self._path)
        try:
            return question(reader)
        except StoreUnreadable as error:
            raise CommandError(str(error)) from error
        finally:
            reader.close()


def _filled(read: Callable[[str | None, int], tuple[Sequence[Document], str | None]], limit: int) -> list[Document]:
    """So many traces, or all there are: a page of a long search can end before it is full."""
    found: list[Document] = []
    cursor = None
    while len(found) < limit:
        traces, cursor = read(cursor, limit - len(found))
        found += traces
        if cursor is None:
            break
    return found


def first_that_knows(arguments: argparse.Namespace, question: Callable[[Records], T]) -> T:
    """The answer of the first place that has one. Raises CommandError with what the first of them said."""
    trouble: list[CommandError] = []
    for records in _places(arguments):
        try:
            answer = question(records)
        except (RouterAway, NotThere) as error:
            trouble.append(error)
            continue
        if trouble:  # said, since what a database holds may be of another time than what a router would say
            sys.stderr.write(f"herd: {trouble[0]}; this is from {records.where}\n")
        return answer
    raise trouble[0]


def _places(arguments: argparse.Namespace) -> Sequence[Records]:
    database = FromDatabase(data_dir(arguments.data_dir))
    if arguments.data_dir:
        return [database]
    if url := named_url(arguments.url):
        return [FromRouter(url)]
    router = FromRouter(router_url(None))
    return [router, database] if database.exists else [router]


def the_one(prefix: str, ids: Sequence[str], where: str) -> str:
    """The one id that begins with a prefix. Raises NotThere for none, CommandError for several."""
    found = sorted(each for each in ids if prefix and each.startswith(prefix))
    if not found:
        raise NotThere(f"no request {prefix!r} in {where}; it may still be in progress, or deleted by retention")
    if len(found) > 1:
        some = ", ".join(found[:MOST_NAMED]) + (", …" if len(found) > MOST_NAMED else "")
        raise CommandError(f"several requests begin with {prefix!r} ({some}); use a longer prefix")
    return found[0]


def short(request_id: str) -> str:
    """As much of an id as `herd explain` needs; a caller's own id whole, since those often begin alike."""
    return request_id[:SHORT] if MADE_BY_HERD.fullmatch(request_id) else request_id
