"""What a restarted router should remember: how reliable its nodes are, and how fast they were."""

import json
import sqlite3
from bisect import bisect_left
from collections import defaultdict, deque
from typing import Final

from herd.core.events import NodeKnown
from herd.core.learning import Observation
from herd.core.observed import LEAST_LOAD_S, in_one_piece, worked_on
from herd.store.windows import read

DAY_S, WEEK_S, HOUR_S = 86_400, 7 * 86_400, 3_600
_MINUTE: Final = "CAST(at / 60 AS INTEGER)"
RECENT_ROWS: Final = 2_000
HALF_LIFE_S: Final = DAY_S  # a request of yesterday says half as much of what is wanted as one of now
RECENT_EACH: Final = 20  # requests of one node and model that its speeds are made of


def availability(connection: sqlite3.Connection, now: float) -> dict[str, float]:
    """By node: the share of the last day that it was there.

    The day counts from the node's first sample, and only minutes in which the router was there to look.
    """
    since = now - DAY_S
    first = dict(connection.execute(f"SELECT node_id, MIN({_MINUTE}) FROM node_samples GROUP BY node_id"))
    minutes = [
        row["minute"]
        for row in connection.execute(
            f"SELECT DISTINCT {_MINUTE} AS minute FROM node_samples WHERE at >= ? ORDER BY minute", (since,)
        )
    ]
    there = dict(
        connection.execute(
            f"""SELECT node_id, COUNT(DISTINCT {_MINUTE}) FROM node_samples
                WHERE at >= ? AND status <> 'offline' GROUP BY node_id""",
            (since,),
        )
    )
    history = {}
    for node_id, minute in first.items():
        watched = len(minutes) - bisect_left(minutes, minute)
        history[node_id] = there.get(node_id, 0) / watched if watched else 0.0
    return history


def known_nodes(connection: sqlite3.Connection) -> list[NodeKnown]:
    """The nodes that were not removed, sorted by name; rows with invalid JSON are skipped."""
    found = connection.execute(
        "SELECT node_id, heartbeat, last_seen, left, drained FROM nodes WHERE json_valid(heartbeat) ORDER BY node_id"
    )
    return [
        NodeKnown(node_id, json.loads(heartbeat), last_seen, bool(left), bool(drained))
        for node_id, heartbeat, last_seen, left, drained in found
    ]


def recent_answers(connection: sqlite3.Connection, now: float) -> dict[tuple[str, str], list[Observation]]:
    """By node and model: what the latest whole streams say of its speeds, the oldest of them first.

    How many requests were at work beside them is not on record, so they count as alone.
    """
    found = connection.execute(
        """SELECT attempt.node_id, attempt.model, COALESCE(trace.load_ms, 0) / 1000 AS load_s,
               COALESCE(trace.estimate, 0), COALESCE(trace.prompt_tokens, 0), COALESCE(trace.cached_tokens, 0),
               trace.completion_tokens,
               attempt.first_content_at - attempt.started_at, attempt.ended_at - attempt.first_content_at
           FROM (
               SELECT request_id, load_ms, prompt_tokens, cached_tokens, completion_tokens,
                   CASE WHEN json_valid(decision) THEN json_extract(decision, '$.request.prompt_tokens') END AS estimate
               FROM request_traces
               WHERE status = 'completed' AND stream = 1 AND timestamp >= ? ORDER BY timestamp DESC LIMIT ?
           ) AS trace JOIN request_attempts AS attempt USING (request_id)
           WHERE attempt.error_type IS NULL AND attempt.first_content_at IS NOT NULL""",
        (now - WEEK_S, RECENT_ROWS),
    )
    seen: defaultdict[tuple[str, str], deque[Observation]] = defaultdict(deque)
    for node_id, model, load_s, estimate, prompt, cached, answer, first_s, answer_s in found:
        latest = seen[node_id, model]
        if len(latest) < RECENT_EACH and not in_one_piece(answer, answer_s):
            latest.appendleft(Observation(
                load_s=load_s if load_s > LEAST_LOAD_S else None,
                prompt_tokens=worked_on(estimate, prompt, cached), prompt_s=max(0.0, first_s - load_s),
                answer_tokens=answer or 0, answer_s=answer_s,
            ))  # fmt: skip
    return {pair: list(latest) for pair, latest in seen.items() if latest}


def demand(connection: sqlite3.Connection, now: float) -> dict[str, float]:
    """By model: the requests that asked for it in the last week, each weighted by how long ago its hour was over."""
    hours = read(connection, now - WEEK_S, ("asked", "hour"), spreads=()).groups
    wanted: defaultdict[str, float] = defaultdict(float)
    for (model, hour), cell in hours.items():
        if model is not None:
            age_s = max(0.0, now - hour - HOUR_S)
            wanted[model] += cell.requests * 0.5 ** (age_s / HALF_LIFE_S)
    return dict(wanted)
