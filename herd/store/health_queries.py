"""What the health checks ask the database: the last day's endings, attempts, loads and events, summed up.

One scan of the narrow index for the requests of the day; the rest reads what small indexes hold. Knows how to count,
not what is too many.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from herd.core.breaker import FAULTS_OF_THE_NODE
from herd.core.finding import Episode, Finding, Severity
from herd.core.health.report import (
    DRIFT_H,
    WINDOWS_S,
    ContextActions,
    Fallback,
    History,
    Pace,
    Served,
    Tries,
    Trouble,
    Turnover,
)
from herd.store.calibration import drifts
from herd.store.rows import FINDING_COLUMNS

DAY_S, HOUR_S = 86_400.0, 3_600.0
LEAST_PACE: Final = 20  # completed requests from which a model has a usual latency
MOST_SLOW: Final = 10_000  # slow requests are counted no further
_RECENT: Final = ", ".join(f"SUM(timestamp >= :w{number})" for number in range(len(WINDOWS_S)))
_FAULTS: Final = ", ".join(f"'{name}'" for name in sorted(FAULTS_OF_THE_NODE))


def history(connection: sqlite3.Connection, now: float, limits_s: Mapping[str, tuple[float, float]]) -> History:
    """The day before `now` (unix s); `limits_s` has, by model, the usual latency and the one that counts as slow."""
    since = {"day": now - DAY_S, "hour": now - HOUR_S}
    windows = {f"w{number}": now - seconds for number, seconds in enumerate(WINDOWS_S.values())}
    return History(
        served=_served(connection, {**since, **windows}),
        trouble=_trouble(connection, {**since, **windows}),
        fallbacks=_fallbacks(connection, since),
        context=_context(connection, since),
        turnover=_turnover(connection, since),
        tries=_tries(connection, since),
        paces=tuple(
            Pace(model, usual, limit, _slower(connection, model, limit, since["day"]))
            for model, (usual, limit) in sorted(limits_s.items())
        ),
        drifts=drifts(connection, now, DRIFT_H),
        zombies=_zombies(connection, since),
        first_seen=_first_seen(connection, since),
    )


def usual_latency(connection: sqlite3.Connection) -> dict[str, float]:
    """By model: seconds that 95 of 100 completed requests stayed under, of all that is kept."""
    counts = connection.execute(
        """SELECT model, COUNT(*) FROM request_traces INDEXED BY traces_latency
           WHERE status = 'completed' AND model IS NOT NULL GROUP BY model HAVING COUNT(*) >= ?""",
        (LEAST_PACE,),
    ).fetchall()
    return {
        model: connection.execute(
            """SELECT latency_ms FROM request_traces INDEXED BY traces_latency
               WHERE status = 'completed' AND model = ? ORDER BY latency_ms DESC LIMIT 1 OFFSET ?""",
            (model, count // 20),
        ).fetchone()[0]
        / 1000
        for model, count in counts
    }


def episodes(connection: sqlite3.Connection, state: str, limit: int) -> list[Episode]:
    """Findings of the past, the latest first; `state` is `open`, `resolved` or `all`."""
    where = {"open": "WHERE resolved_at IS NULL", "resolved": "WHERE resolved_at IS NOT NULL", "all": ""}[state]
    found = connection.execute(
        f"SELECT {', '.join(FINDING_COLUMNS)} FROM health_findings {where} ORDER BY last_seen DESC LIMIT ?", (limit,)
    )
    return [_episode(dict(row)) for row in found]


def _episode(row: dict[str, Any]) -> Episode:
    of_finding = ("check_id", "title", "description", "fix", "node_id", "model")
    told = {name: row.pop(name) for name in of_finding}
    severity, data = Severity(row.pop("severity")), json.loads(row.pop("data"))
    alerted = bool(row.pop("alerted"))
    return Episode(finding=Finding(severity=severity, data=data, **told), alerted=alerted, **row)


def _served(connection: sqlite3.Connection, since: Mapping[str, float]) -> tuple[Served, ...]:
    found = connection.execute(
        f"""SELECT node_id, model, status, COUNT(*), SUM(retry_count),
                MAX(COALESCE(prompt_tokens, 0) + COALESCE(completion_tokens, 0)), {_RECENT}
            FROM request_traces INDEXED BY traces_by_time
            WHERE timestamp >= :day GROUP BY node_id, model, status""",
        since,
    )
    return tuple(
        Served(node_id, model, status, requests, retries, tokens, _windows(recent))
        for node_id, model, status, requests, retries, tokens, *recent in found
    )


def _trouble(connection: sqlite3.Connection, since: Mapping[str, float]) -> tuple[Trouble, ...]:
    found = connection.execute(
        f"""SELECT status, error_type, node_id, model, COUNT(*), {_RECENT}
            FROM request_traces INDEXED BY traces_trouble
            WHERE status <> 'completed' AND timestamp >= :day GROUP BY status, error_type, node_id, model""",
        since,
    )
    return tuple(
        Trouble(status, error_type, node_id, model, requests, _windows(recent))
        for status, error_type, node_id, model, requests, *recent in found
    )


def _windows(counts: list[int]) -> dict[str, int]:
    return dict(zip(WINDOWS_S, counts, strict=True))


def _fallbacks(connection: sqlite3.Connection, since: Mapping[str, float]) -> tuple[Fallback, ...]:
    found = connection.execute(
        """SELECT json_extract(data, '$.from_model'), model, json_extract(data, '$.reason'), COUNT(*)
           FROM fleet_events INDEXED BY events_by_kind WHERE kind = 'fallback' AND at >= :day GROUP BY 1, 2, 3""",
        since,
    )
    return tuple(Fallback(asked or "", served or "", reason or "", count) for asked, served, reason, count in found)


def _context(connection: sqlite3.Connection, since: Mapping[str, float]) -> tuple[ContextActions, ...]:
    found = connection.execute(
        """SELECT model, json_extract(data, '$.action'), COUNT(*),
               MAX(json_extract(data, '$.asked')), MIN(json_extract(data, '$.loaded'))
           FROM fleet_events INDEXED BY events_by_kind
           WHERE kind = 'context_protection' AND at >= :day GROUP BY 1, 2""",
        since,
    )
    return tuple(
        ContextActions(model or "", action or "", count, asked or 0, loaded or 0)
        for model, action, count, asked, loaded in found
    )


def _turnover(connection: sqlite3.Connection, since: Mapping[str, float]) -> tuple[Turnover, ...]:
    found = connection.execute(
        """SELECT node_id, model, SUM(kind = 'model_loaded'), SUM(kind = 'model_unloaded'),
               SUM(kind = 'context_protection' AND json_extract(data, '$.action') = 'warned')
           FROM fleet_events INDEXED BY events_by_kind
           WHERE kind IN ('model_loaded', 'model_unloaded', 'context_protection') AND at >= :hour
             AND node_id IS NOT NULL AND model IS NOT NULL
           GROUP BY node_id, model""",
        since,
    )
    return tuple(Turnover(*row) for row in found)


def _tries(connection: sqlite3.Connection, since: Mapping[str, float]) -> tuple[Tries, ...]:
    found = connection.execute(
        f"""SELECT attempt.node_id, COUNT(*), SUM(COALESCE(attempt.error_type IN ({_FAULTS}), 0)),
                SUM(COALESCE(attempt.error_message LIKE '%memory%', 0))
            FROM request_traces AS trace INDEXED BY traces_by_time JOIN request_attempts AS attempt USING (request_id)
            WHERE trace.timestamp >= :hour GROUP BY attempt.node_id""",
        since,
    )
    return tuple(Tries(*row) for row in found)


def _slower(connection: sqlite3.Connection, model: str, limit_s: float, since: float) -> int:
    found = connection.execute(
        """SELECT COUNT(*) FROM (
               SELECT 1 FROM request_traces INDEXED BY traces_latency
               WHERE status = 'completed' AND model = ? AND latency_ms > ? AND timestamp >= ? LIMIT ?
           )""",
        (model, limit_s * 1000, since, MOST_SLOW),
    )
    count: int = found.fetchone()[0]
    return count


def _zombies(connection: sqlite3.Connection, since: Mapping[str, float]) -> dict[str | None, int]:
    found = connection.execute(
        """SELECT node_id, COUNT(*) FROM fleet_events INDEXED BY events_by_kind
           WHERE kind = 'zombie_reaped' AND at >= :day GROUP BY node_id""",
        since,
    )
    return Counter(dict(tuple(row) for row in found))


def _first_seen(connection: sqlite3.Connection, since: Mapping[str, float]) -> dict[str, float]:
    lately = connection.execute(
        """SELECT DISTINCT node_id FROM node_samples INDEXED BY samples_by_time
           WHERE at >= :day AND status <> 'offline'""",
        since,
    ).fetchall()
    first = "SELECT MIN(at) FROM node_samples WHERE node_id = ?"
    return {node_id: connection.execute(first, (node_id,)).fetchone()[0] for (node_id,) in lately}
