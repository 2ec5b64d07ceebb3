"""`herd audit`: do database, log and metrics agree about every request? Says so, or names the first that is missing.

Records are written by threads, so a difference is believed only after it has lasted.
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Final

from herd.audit.comparison import Comparison, Record
from herd.audit.counters import CounterComparison, read_scrape
from herd.audit.files import LATE_S, Lines, Rows
from herd.commands import CommandError
from herd.commands.audit_report import Findings, document, report
from herd.commands.output import show, show_json
from herd.commands.places import data_dir, named_url
from herd.commands.router import RouterAway, scrape
from herd.commands.runfile import running
from herd.store.queries import StoreUnreadable
from herd.telemetry.log_files import log_files

PATIENCE_S: Final = 5.0
LOOK_EVERY_S: Final = 0.25


class Audit:
    """One audit of a data directory: `settle` it, then read what it found."""

    def __init__(self, folder: Path, since: float | None, url: str | None) -> None:
        self._rows, self._lines = Rows(folder / "latency.db"), Lines(folder / "logs")
        self._url = url
        self._counters, self._unasked = _counters_of(url, self._rows)
        self._until = self._counters.ended if self._counters else time.time()
        # Rows go by their requests' receipt, lines are written at the end.
        self._since = max(-inf if since is None else since, self._rows.whole_since)
        self._logged_since = self._lines.whole_since
        self._comparison = Comparison()

    def settle(self) -> Findings:
        """Look until all agree, or until a difference has lasted."""
        found = self._look()
        deadline = time.monotonic() + PATIENCE_S
        while not found.agree and time.monotonic() < deadline and not self._long_ago(found):
            time.sleep(LOOK_EVERY_S)
            found = self._look()
        return found

    def close(self) -> None:
        """Let go of the files."""
        self._rows.close()
        self._lines.close()

    def _look(self) -> Findings:
        since = min(self._since, self._counters.scrape.started_at) if self._counters else self._since
        rows = self._counted(self._rows.new(since, self._until))
        self._comparison.feed(self._within(rows), self._within(self._lines.new(self._until)))
        return Findings(
            since=max(self._since, self._logged_since),
            until=self._until,
            comparison=self._comparison,
            differences=self._comparison.differences(),
            damaged=self._lines.damaged,
            url=self._url,
            counters=self._counters,
            gaps=self._counters.gaps() if self._counters else [],
            unasked=self._unasked,
        )

    def _long_ago(self, found: Findings) -> bool:
        return bool(found.differences) and found.differences[0].finished_at < self._until - LATE_S

    def _within(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if record.received_at >= self._since and record.finished_at >= self._logged_since:
                yield record

    def _counted(self, rows: Iterable[Record]) -> Iterator[Record]:
        for row in rows:
            if self._counters:
                self._counters.take_row(row)
            yield row


def run(arguments: argparse.Namespace) -> int:
    """Audit and print; 0 where all agree, 1 where not. Raises CommandError where there is nothing to compare."""
    folder = data_dir(arguments.data_dir)
    if not (folder / "latency.db").is_file() or not log_files(folder / "logs"):
        raise CommandError(
            f"{folder} has no latency.db with logs/herd.jsonl to compare; --data-dir names a router's data directory"
        )
    router = running(folder)
    url = named_url(arguments.url) or (router.url if router else None)
    try:
        with closing(Audit(folder, arguments.since, url)) as audit:
            found = audit.settle()
    except (StoreUnreadable, OSError) as error:
        raise CommandError(str(error)) from error
    if arguments.json:
        show_json(document(found))
    else:
        show(*report(found))
    return 0 if found.agree else 1


def _counters_of(url: str | None, rows: Rows) -> tuple[CounterComparison | None, str]:
    """The router's counters, or why they cannot be compared."""
    if url is None:
        return None, "no router writes to this data directory now"
    began = time.time()
    try:
        counters = CounterComparison(read_scrape(scrape(url)), began, time.time())
    except RouterAway:
        return None, f"no router responds at {url}"
    except ValueError as error:
        raise CommandError(f"{url} is not a Herd router ({error}); set --url") from error
    if rows.trimmed and counters.scrape.started_at < rows.whole_since:
        return None, f"the counters of {url} started before the oldest stored row"
    return counters, ""
