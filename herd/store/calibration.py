"""Predictions held against what was seen: streams that one attempt served, by node and model.

Large windows are sampled, every so many of their requests. Knows how to compare, not what is wrong.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from math import ceil
from statistics import fmean, median
from typing import Any, Final, NamedTuple

from herd.core.health.report import Drift
from herd.store.cells import tags_of
from herd.store.reports import Report
from herd.store.windows import EVERYTHING, Scope

MOST: Final = 20_000  # streams that a table is made of: some tenths of a second
MOST_FOR_HEALTH: Final = 3_000
HOUR_S: Final = 3_600.0
PARTS: Final = ("queue", "load", "prefill", "decode")
TO_FIRST: Final = PARTS[:3]
Document = dict[str, Any]


class Scored(NamedTuple):
    """One stream: seconds to the first token, and of each of `PARTS`, as predicted and as seen."""

    at: float
    node_id: str
    model: str
    predicted_s: float
    seen_s: float
    predicted: tuple[float, ...]
    seen: tuple[float, ...]

    @property
    def error(self) -> float:
        """By how much the prediction was off, as a share of what was seen."""
        return abs(self.predicted_s - self.seen_s) / self.seen_s


def calibration(connection: sqlite3.Connection, since: float, scope: Scope = EVERYTHING) -> Report:
    """Predicted against seen by node and model, the most used first; errors in percent of what was seen.

    `bias_pct` is by how much all predictions together were over what came: below 0 they were too hopeful.
    """
    found, step = scored(connection, since, scope, MOST)
    groups: defaultdict[tuple[str, str], list[Scored]] = defaultdict(list)
    for each in found:
        groups[each.node_id, each.model].append(each)
    rows = [{"node_id": node_id, "model": model, **_figures(group)} for (node_id, model), group in groups.items()]
    rows.sort(key=lambda row: (-row["stream_count"], row["node_id"], row["model"]))
    total = _figures(found)
    return Report(rows, ("node_id", "model", *total), parts={"total": total, "data": rows, "every": step})


def drifts(connection: sqlite3.Connection, now: float, hours: float) -> tuple[Drift, ...]:
    """By node: how the last hours' first tokens compare with what was predicted, and those of the last hour."""
    found, _ = scored(connection, now - hours * HOUR_S, EVERYTHING, MOST_FOR_HEALTH)
    nodes: defaultdict[str, list[Scored]] = defaultdict(list)
    for each in found:
        nodes[each.node_id].append(each)
    return tuple(_drift(node_id, group, now) for node_id, group in sorted(nodes.items()))


def scored(connection: sqlite3.Connection, since: float, scope: Scope, most: int) -> tuple[list[Scored], int]:
    """Streams received since then (unix s), and that it is every so many of them."""
    clauses = "".join(f" AND {name} = :{name}" + " COLLATE NOCASE" * (name == "model")
                      for name in scope.filters if name != "tag")  # fmt: skip
    where = f"""FROM request_traces INDEXED BY traces_by_time WHERE timestamp >= :since AND status = 'completed'
        AND retry_count = 0 AND time_to_first_token_ms > 0 AND node_id IS NOT NULL{clauses}"""
    asked = {**scope.filters, "since": since}
    count: int = connection.execute(f"SELECT COUNT(*) {where}", asked).fetchone()[0]
    step = max(1, ceil(count / most))
    found = connection.execute(
        f"""SELECT timestamp, node_id, model, time_to_first_token_ms, predicted_queue_ms, predicted_load_ms,
                predicted_prefill_ms, predicted_decode_ms, COALESCE(queue_ms, 0), COALESCE(load_ms, 0),
                COALESCE(prefill_ms, 0), COALESCE(decode_ms, 0), tags
            FROM request_traces WHERE predicted_queue_ms IS NOT NULL AND id IN (SELECT id {where} AND id % :step = 0)
            ORDER BY timestamp""",
        {**asked, "step": step},
    )
    return [_scored(row) for row in found if scope.tag is None or scope.tag in tags_of(row[-1])], step


def _scored(row: Iterable[Any]) -> Scored:
    at, node_id, model, seen, *parts, _ = row
    predicted, came = ([value / 1000 for value in half] for half in (parts[:4], parts[4:]))
    return Scored(at, node_id, model, sum(predicted[:3]), seen / 1000, tuple(predicted), tuple(came))


def _figures(found: list[Scored]) -> Document:
    errors = sorted(each.error for each in found)
    predicted, seen = sum(each.predicted_s for each in found), sum(each.seen_s for each in found)
    told: Document = {
        "stream_count": len(found),
        "p50_error_pct": _percent(errors, 0.5),
        "p90_error_pct": _percent(errors, 0.9),
        "bias_pct": round(100 * (predicted / seen - 1), 1) if seen else None,
        "predicted_ttft_ms": _mean_ms(each.predicted_s for each in found),
        "actual_ttft_ms": _mean_ms(each.seen_s for each in found),
    }
    for place, name in enumerate(PARTS):
        told[f"predicted_{name}_ms"] = _mean_ms(each.predicted[place] for each in found)
        told[f"actual_{name}_ms"] = _mean_ms(each.seen[place] for each in found)
    return told


def _drift(node_id: str, found: list[Scored], now: float) -> Drift:
    lately = [each for each in found if each.at >= now - HOUR_S]
    gaps = {name: fmean(each.seen[place] - each.predicted[place] for each in found)
            for place, name in enumerate(TO_FIRST)}  # fmt: skip
    return Drift(
        node_id,
        len(found),
        len(lately),
        _factor(found),
        _factor(lately),
        median(each.predicted_s for each in found),
        median(each.seen_s for each in found),
        max(gaps, key=lambda name: abs(gaps[name])),
    )


def _factor(found: list[Scored]) -> float:
    """How many times as long as predicted the middle stream took."""
    return median(each.seen_s / max(each.predicted_s, 1e-3) for each in found) if found else 1.0


def _percent(errors: list[float], share: float) -> float | None:
    return round(100 * errors[min(len(errors) - 1, int(len(errors) * share))], 1) if errors else None


def _mean_ms(seconds: Iterable[float]) -> float | None:
    values = list(seconds)
    return round(1000 * fmean(values), 3) if values else None
