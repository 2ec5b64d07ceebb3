"""Sums by tag, node, model and day are exactly what the rows say."""

import math
import random
from collections import defaultdict

import pytest

from herd.core.events import Status
from tests.store import builders
from tests.store.tables import apps, apps_daily, usage

DAY = 86_400.0
MIDNIGHT = builders.NOON - DAY / 2
NOW = builders.NOON


def by(rows, *names):
    return {tuple(row[name] for name in names): row for row in rows}


def nearest_rank(values, share):
    return sorted(values)[math.ceil(share * len(values)) - 1]


@pytest.mark.parametrize("number", [1, 2, 19, 20, 21, 100, 333])
def test_the_95th_percentile_is_exact(reader, keep, number):
    """An estimate from buckets would be off by a bucket just where it matters."""
    dice = random.Random(number)
    latencies = [round(dice.lognormvariate(0, 1), 3) for _ in range(number)]
    keep(*(builders.finished(tags=("app",), at=NOW - 10, latency_s=seconds) for seconds in latencies))
    keep(builders.failed(tags=("app",), at=NOW - 10, latency_s=9999.0))
    (row,) = apps(reader, 7, NOW)
    told = [event["latency_ms"] for event in reader.traces(limit=1000).traces if event["status"] == "completed"]
    assert row["p95_latency_ms"] == nearest_rank(told, 0.95)
    assert row["avg_latency_ms"] == pytest.approx(sum(told) / number, abs=0.001)


def test_an_app_is_told_by_its_statuses_and_tokens(reader, keep):
    """Counts by status must add up to the requests, or one of them is a lie."""
    keep(*(builders.finished(tags=("app",), at=NOW - 50, status=status, tokens=(3, 5)) for status in Status))
    keep(builders.finished(tags=("app",), at=NOW - 90, tokens=(None, 7), ttft_s=0.5))
    (row,) = apps(reader, 7, NOW)
    names = ("completed", "failed", "incomplete", "client_disconnected", "rejected")
    assert [row[f"{name}_count"] for name in names] == [2, 1, 1, 1, 1]
    assert (row["tag"], row["request_count"], row["error_rate_pct"]) == ("app", 6, 50.0)
    assert (row["total_prompt_tokens"], row["total_completion_tokens"]) == (15, 32)
    assert row["avg_ttft_ms"] == pytest.approx((5 * 250 + 500) / 6, abs=0.001)
    assert (row["first_seen"], row["last_seen"]) == (NOW - 90, NOW - 50)


def test_the_error_rate_is_failed_and_broken_off_of_those_not_rejected_whose_client_stayed(reader, keep):
    """Every table that has it means the same by it, or two pages contradict each other."""
    ends = (Status.COMPLETED, Status.COMPLETED, Status.COMPLETED, *Status)
    keep(*(builders.finished(tags=("app",), at=NOW - 50, status=status) for status in ends))
    tables = (apps(reader, 7, NOW), apps_daily(reader, 7, NOW), usage(reader, 7, NOW))
    rows = [row for table in tables for row in table]
    assert [row["error_rate_pct"] for row in rows] == [33.33] * 3
    assert [row["request_count"] for row in rows] == [8] * 3


def test_where_only_clients_left_or_were_refused_there_is_no_error_rate(reader, keep):
    """Nothing was tried to its end, so neither 0 nor 100 is true."""
    keep(*(builders.finished(tags=("app",), at=NOW - 5, status=Status(name))
           for name in ("client_disconnected", "rejected")))  # fmt: skip
    assert [row["error_rate_pct"] for row in apps(reader, 7, NOW)] == [None]


def test_a_request_counts_under_each_of_its_tags_and_an_untagged_one_under_none(reader, keep):
    """Teams and apps share requests; the sums of two tags are not a sum of requests."""
    keep(
        builders.finished(tags=("a", "b"), at=NOW - 5),
        builders.finished(tags=("b",), at=NOW - 5),
        builders.finished(at=NOW - 5),
    )
    assert [(row["tag"], row["request_count"]) for row in apps(reader, 7, NOW)] == [("b", 2), ("a", 1)]


def test_an_app_that_completed_nothing_has_no_latency(reader, keep):
    """Zero would read as fast."""
    keep(builders.failed(tags=("app",), at=NOW - 5))
    (row,) = apps(reader, 7, NOW)
    assert (row["avg_latency_ms"], row["p95_latency_ms"], row["avg_ttft_ms"]) == (None, None, None)
    assert (row["total_prompt_tokens"], row["error_rate_pct"]) == (0, 100.0)


def test_what_lies_before_the_window_does_not_count(reader, keep):
    """Seven days are seven days."""
    keep(builders.finished(tags=("a",), at=NOW - 7 * DAY - 1), builders.finished(tags=("a",), at=NOW - 7 * DAY))
    assert [row["request_count"] for row in apps(reader, 7, NOW)] == [1]
    assert [row["request_count"] for row in usage(reader, 7, NOW)] == [1]
    assert [row["request_count"] for row in usage(reader, 8, NOW)] == [2]


def test_a_day_ends_at_midnight_utc(reader, keep):
    """The server's time zone must not move a request to another day."""
    keep(builders.finished(tags=("a",), at=MIDNIGHT - 0.001), builders.finished(tags=("a",), at=MIDNIGHT))
    assert [(row["day"], row["request_count"]) for row in apps_daily(reader, 7, NOW)] == [
        ("2026-01-07", 1), ("2026-01-06", 1),
    ]  # fmt: skip


def test_daily_percentiles_are_those_of_their_own_day(reader, keep):
    """A bad day must not colour the others."""
    seconds = defaultdict(list)
    for number in range(60):
        at, latency_s = MIDNIGHT - DAY * (number % 3) + 60, 1.0 + number * (1 + number % 3)
        keep(builders.finished(tags=("a",), at=at, latency_s=latency_s))
        seconds[f"2026-01-{7 - number % 3:02}"].append(latency_s)
    told = {row["day"]: row["p95_latency_ms"] for row in apps_daily(reader, 7, NOW)}
    assert told == {day: pytest.approx(nearest_rank(found, 0.95) * 1000, abs=0.01) for day, found in seconds.items()}


def test_usage_tells_nodes_models_and_days_apart(reader, keep):
    """Capacity is planned by machine and model."""
    keep(
        builders.finished(at=NOW - 5, node_id="ada", attempts=3),
        builders.finished(at=NOW - 5, node_id="ada", status=Status.FAILED),
        builders.finished(at=NOW - 5, node_id="bob", model="big:70b", served="small:7b"),
        builders.finished(at=NOW - DAY, node_id="ada"),
    )
    rows = by(usage(reader, 7, NOW), "day", "node_id", "model")
    assert set(rows) == {
        ("2026-01-07", "ada", "llama3.2:3b"), ("2026-01-07", "bob", "small:7b"), ("2026-01-06", "ada", "llama3.2:3b"),
    }  # fmt: skip
    today = rows["2026-01-07", "ada", "llama3.2:3b"]
    assert (today["request_count"], today["completed_count"], today["failed_count"]) == (2, 1, 1)
    assert (today["retry_count"], today["fallback_count"]) == (2, 0)
    assert rows["2026-01-07", "bob", "small:7b"]["fallback_count"] == 1


def test_usage_counts_requests_that_reached_no_node(reader, keep):
    """They are demand that the fleet did not meet."""
    keep(builders.refused(at=NOW - 5))
    (row,) = usage(reader, 7, NOW)
    assert (row["node_id"], row["model"], row["rejected_count"], row["avg_latency_ms"]) == (None, None, 1, None)


def test_the_sums_of_usage_are_all_requests(reader, keep):
    """No request may fall between two groups."""
    dice = random.Random(7)
    statuses = list(Status)
    for _ in range(200):
        keep(
            builders.finished(
                at=NOW - dice.random() * 6 * DAY, node_id=dice.choice("abc"), status=dice.choice(statuses)
            )
        )
    rows = usage(reader, 7, NOW)
    counted = sum(row[f"{status.value}_count"] for row in rows for status in Status)
    assert counted == sum(row["request_count"] for row in rows) == 200
    assert sum(row["total_completion_tokens"] for row in rows) == 200 * 40
