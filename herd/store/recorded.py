"""The requests of the past as a simulation needs them: when, for what, how long, and what came of it.

Reads rows; knows nothing of machines or policies.
"""

import sqlite3
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from herd.store.cells import tags_of

COLD_LOAD_S: Final = 0.5  # an engine that reports a longer load had to fetch the model
_MISTAKES: Final = "(400, 401, 403, 404, 413)"  # a client's: they ask nothing of a node
_MS: Final = ("time_to_first_token_ms", "latency_ms", "queue_ms", "load_ms", "prefill_ms", "decode_ms")
_PLAIN: Final = ("timestamp", "model", "node_id", "stream", "status", "prompt_tokens", "cached_tokens",
                 "completion_tokens", "tags")  # fmt: skip
_ATTEMPT: Final = ("started_at", "first_content_at", "ended_at")


class Past(NamedTuple):
    """One request of the past: unix seconds where a name ends in `_at`, seconds in `_s`; None where not on record.

    `started_at`, `first_at` and `ended_at` are those of the attempt that answered it, if one did.
    """

    at: float
    model: str
    node_id: str | None
    stream: bool
    status: str
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    tag: str
    ttft_s: float | None
    latency_s: float
    queue_s: float | None
    load_s: float | None
    prefill_s: float | None
    decode_s: float | None
    started_at: float | None
    first_at: float | None
    ended_at: float | None

    @property
    def cold(self) -> bool:
        """Whether the model had to be loaded for it."""
        return (self.load_s or 0.0) > COLD_LOAD_S


@dataclass(frozen=True, slots=True)
class Recorded:
    """The requests of a window in the order of their receipt; `left_out` came before them and were too many.

    `loaded` is what each node had in memory at the first of them, where that is on record; `most_loaded` how many
    models at most at any time.
    """

    requests: tuple[Past, ...] = ()
    left_out: int = 0
    loaded: tuple[tuple[str, tuple[str, ...]], ...] = ()
    most_loaded: tuple[tuple[str, int], ...] = ()


def recorded(connection: sqlite3.Connection, since: float, until: float, most: int) -> Recorded:
    """The latest `most` requests received in a window that asked for a model, clients' mistakes left out."""
    there = {row[1] for row in connection.execute("PRAGMA table_info(request_traces)")}
    columns = (name if name in there else f"NULL AS {name}" for name in (*_PLAIN, *_MS))  # an older file lacks some
    found = connection.execute(
        f"""SELECT {", ".join(f"trace.{name}" for name in (*_PLAIN, *_MS))},
                {", ".join(f"attempt.{name}" for name in _ATTEMPT)}
            FROM (SELECT request_id, {", ".join(columns)} FROM request_traces
                  WHERE timestamp >= ? AND timestamp < ? AND model IS NOT NULL
                      AND (status = 'completed' OR http_status NOT IN {_MISTAKES})
                  ORDER BY timestamp DESC LIMIT ?) AS trace
            LEFT JOIN request_attempts AS attempt ON attempt.request_id = trace.request_id
                AND attempt.error_type IS NULL
            ORDER BY trace.timestamp""",
        (since, until, most),
    )
    requests = tuple(_past(row) for row in found)
    first = requests[0].at if requests else until
    before = "SELECT COUNT(*) FROM request_traces INDEXED BY traces_by_time WHERE timestamp >= ? AND timestamp < ?"
    left_out: int = connection.execute(before, (since, first)).fetchone()[0] if len(requests) == most else 0
    most_loaded = connection.execute(
        """SELECT node_id, MAX(json_array_length(models_loaded)) FROM node_samples INDEXED BY samples_by_time
           WHERE at >= ? AND at < ? GROUP BY node_id""",
        (first, until),
    )
    return Recorded(requests, left_out, _loaded(connection, first), tuple(tuple(row) for row in most_loaded))


def _past(row: Any) -> Past:
    at, model, node_id, stream, status, prompt, cached, completion, tags, *rest = row
    times, moments = rest[: len(_MS)], rest[len(_MS) :]
    ttft, latency, queue, load, prefill, decode = (None if value is None else value / 1000 for value in times)
    tag = next(iter(tags_of(tags)), "")
    return Past(at, model, node_id, bool(stream), status, prompt, cached, completion, tag, ttft, latency or 0.0, queue,
                load, prefill, decode, *moments)  # fmt: skip


def _loaded(connection: sqlite3.Connection, at: float) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What each node's sample in the five minutes before said of its memory."""
    found = connection.execute(
        """SELECT node_id, (SELECT group_concat(value, char(10)) FROM json_each(models_loaded)), MAX(at)
           FROM node_samples INDEXED BY samples_by_time WHERE at > ? AND at <= ? GROUP BY node_id""",
        (at - 300.0, at),
    )
    return tuple((node_id, tuple(names.split("\n"))) for node_id, names, _ in found if names)
