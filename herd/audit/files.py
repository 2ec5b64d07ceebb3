"""The two records that are files, as the audit wants them: rows and lines as Records, and from when on each is whole.

It reads what is new at every look, so that an audit can look again while records are still being written.
"""

import time
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any, Final

from herd.audit.comparison import Record
from herd.settings.table import BY_NAME
from herd.store.audit import Ended
from herd.store.queries import Reader
from herd.telemetry.log_files import LogReader, log_files, parsed
from herd.telemetry.redact import redact_text

CANONICAL: Final = b'"event": "request_finished"'
LATE_S: Final = 60.0  # how long after a request's end its row may come and still be seen by a second look
ROUNDING_S: Final = 0.001  # a line's time has microseconds, a row's all digits
DAY_S: Final = 86_400.0
LARGEST: Final = 2**63 - 1
# Below both of these, no setting of retention can have taken a row.
SURELY_KEPT_S: Final = BY_NAME["retention_days"].minimum * DAY_S
SURELY_KEPT_BYTES: Final = BY_NAME["store_limit_mb"].minimum * 2**20 * 0.8


class Rows:
    """The rows of one database."""

    def __init__(self, database: Path) -> None:
        self._reader = Reader(database)
        self._seen: set[str] = set()
        self._looked = False
        self._kept = self._reader.kept()
        size = database.stat().st_size if database.exists() else 0
        oldest = self._kept.oldest
        old = oldest is not None and time.time() - oldest > SURELY_KEPT_S
        # The oldest rows go first: where the first of all is still there, none was taken.
        self.trimmed = self._kept.first_id != 1 and (old or size > SURELY_KEPT_BYTES)

    @property
    def whole_since(self) -> float:
        """Requests received from then on have their row, unless it was lost (unix seconds)."""
        if self.trimmed:
            return self._kept.oldest if self._kept.oldest is not None else inf
        if self._kept.first_id is not None and self._kept.first_id > 1:
            return -inf  # the first rows are gone, and retention did not take them
        return -inf if self._kept.began is None else self._kept.began

    def new(self, since: float, until: float) -> Iterator[Record]:
        """The rows of requests that ended in a window, each once however often this is asked."""
        late = until - LATE_S
        for row in self._reader.ended(max(since, late) if self._looked else max(since, 0.0), until):
            if row.finished_at >= late:
                if row.span_id in self._seen:
                    continue
                self._seen.add(row.span_id)
            yield _of_row(row)
        self._looked = True

    def close(self) -> None:
        """Let go of the database."""
        self._reader.close()


class Lines:
    """The canonical lines of one log; `damaged` counts those that could not be read."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._reader = LogReader(log_dir)
        self.damaged = 0

    @property
    def whole_since(self) -> float:
        """Requests that ended from then on have their line, unless it was lost: when the oldest line of any kind was.

        Unix seconds; infinity where there is none.
        """
        for path in log_files(self._log_dir):
            with path.open("rb") as file:
                found = next((at for raw in file if (at := _written_at(raw)) is not None), None)
            if found is not None:
                return found
        return inf

    def new(self, until: float) -> Iterator[Record]:
        """The lines of requests that ended before `until` and were not given before."""
        for raw in self._reader.lines():
            if CANONICAL in raw:
                record = _of_line(raw)
                if record is None:
                    self.damaged += 1
                elif record.finished_at < until:
                    yield record

    def close(self) -> None:
        """Let go of the files."""
        self._reader.close()


def _written_at(raw: bytes) -> float | None:
    try:
        return datetime.fromisoformat(str((parsed(raw) or {})["timestamp"])).timestamp() - ROUNDING_S
    except (KeyError, ValueError):
        return None


def _of_row(row: Ended) -> Record:
    return Record(
        row.span_id, row.request_id, row.timestamp, row.finished_at, row.endpoint, row.status,
        _as_logged(row.model), _as_logged(row.node_id), row.prompt_tokens, row.completion_tokens,
    )  # fmt: skip


def _of_line(raw: bytes) -> Record | None:
    line = parsed(raw)
    try:
        return _record(line) if line else None
    except (KeyError, TypeError, ValueError):
        return None


def _record(line: Any) -> Record:
    return Record(
        span_id=str(line["span_id"]),
        request_id=str(line["request_id"]),
        received_at=float(line["received_at"]),
        finished_at=float(line["finished_at"]),
        endpoint=str(line["endpoint"]),
        status=str(line["status"]),
        model=_as_stored(line["model"]),
        node_id=_as_stored(line["node_id"]),
        prompt_tokens=_clamped(line["prompt_tokens"]),
        completion_tokens=_clamped(line["completion_tokens"]),
    )


# The log blots out what looks like a secret; the database has no text with lone surrogates and no integer over 64 bits.
@lru_cache(maxsize=4096)
def _as_logged(text: str | None) -> str | None:
    return None if text is None else redact_text(text)


@lru_cache(maxsize=4096)
def _as_stored(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _clamped(count: int | None) -> int | None:
    return None if count is None else max(-LARGEST, min(LARGEST, int(count)))
