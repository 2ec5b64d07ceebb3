"""What the health checks ask the database: each sum from rows that a test wrote down."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from herd.core.events import Attempt, ContextAction, ContextProtected, FindingChanged, FleetChanged
from herd.core.finding import Episode, Finding, Severity
from herd.core.health.report import WINDOWS_S, History
from herd.store import health_queries
from herd.store.health_queries import LEAST_PACE
from tests.store import builders
from tests.store.waiting import written

NOW = builders.NOON
MODEL = "llama3.2:3b"


def asked(reader, limits=None):
    return reader.health(NOW, limits or {})


def test_a_store_without_rows_has_an_empty_day(reader):
    """A router that was started a minute ago is not ill."""
    assert asked(reader) == History()
    assert (reader.usual_latency(), reader.episodes()) == ({}, [])


def test_requests_are_counted_by_node_model_and_end_with_what_each_window_holds(keep, reader):
    """One scan answers a dozen checks."""
    ages = (60, 600, 5000, 80_000, 90_000)
    keep(*(builders.finished(at=NOW - age, attempts=2, tokens=(age, 1)) for age in ages))
    keep(builders.failed(at=NOW - 60, node_id="bob"))
    found = {(each.node_id, each.status): each for each in asked(reader).served}
    done = found["ada", "completed"]
    assert (done.model, done.requests, done.retries, done.largest_tokens) == (MODEL, 4, 4, 80_001)
    assert done.recent == {"5m": 1, "30m": 2, "1h": 2, "2h": 3, "6h": 3, "1d": 4}
    assert list(done.recent) == list(WINDOWS_S)
    assert found["bob", "failed"].requests == 1


def test_what_was_not_completed_is_counted_by_its_error(keep, reader):
    """Which error it was decides whose fault it was."""
    keep(builders.finished(at=NOW - 60), builders.refused(at=NOW - 90_000))
    keep(*(builders.failed(at=NOW - age, node_id="bob") for age in (60, 7000)), builders.refused(at=NOW - 60))
    found = {(each.status, each.error_type, each.node_id): each for each in asked(reader).trouble}
    assert {key: each.requests for key, each in found.items()} == {
        ("failed", "connect", "bob"): 2, ("rejected", "bad_request", None): 1}  # fmt: skip
    assert found["failed", "connect", "bob"].recent["1h"] == 1


def test_fallbacks_are_counted_by_who_answered_for_whom(keep, reader):
    """Those of yesterday's yesterday are not."""
    made = [builders.finished(at=NOW - age, model="big:70b", served=MODEL) for age in (60, 70, 90_000)]
    keep(*made)
    (found,) = asked(reader).fallbacks
    assert (found.from_model, found.to_model, found.requests) == ("big:70b", MODEL, 2)
    assert found.reason in {"loaded_alternative", "model_unavailable", "retry"}


def test_context_actions_are_counted_with_the_largest_context_asked_and_the_least_loaded(writer, reader):
    """Their events are told when they come, so these are of now."""
    for action, asked_for, loaded in (("warned", 9000, 4096), ("warned", 65_536, 8192), ("stripped", 100, 4096)):
        writer.take(ContextProtected("r", "t", ContextAction(action, "ada", MODEL, asked_for, loaded)))
    assert written(writer)
    found = {each.action: each for each in reader.health(NOW, {}).context}
    assert {name: (each.count, each.most_asked, each.least_loaded) for name, each in found.items()} == {
        "warned": (2, 65_536, 4096), "stripped": (1, 100, 4096)}  # fmt: skip


def changed(kind, age, node_id="ada", model=MODEL):
    return FleetChanged(NOW - age, kind, node_id, model)


def test_loads_and_unloads_of_the_last_hour_are_counted_together(keep, reader):
    """Those before it are another story."""
    keep(*(changed(kind, age) for kind in ("model_loaded", "model_unloaded") for age in (10, 20, 4000)))
    (found,) = asked(reader).turnover
    assert (found.node_id, found.model, found.loads, found.unloads) == ("ada", MODEL, 2, 2)


def test_requests_for_another_context_are_counted_beside_the_loads_that_they_cause(writer, reader):
    """Their events are told when they come, so these are of now."""
    for action in ("warned", "warned", "stripped"):
        writer.take(ContextProtected("r", "t", ContextAction(action, "ada", MODEL, 9000, 4096)))
    assert written(writer)
    (found,) = reader.health(NOW, {}).turnover
    assert (found.node_id, found.model, found.context_changes) == ("ada", MODEL, 2)


def test_attempts_are_counted_where_they_were_made_and_only_faults_of_the_node(keep, reader):
    """The request ended well elsewhere; the attempt did not."""
    attempts = [
        Attempt(number, node_id, MODEL, "u", "s", NOW, NOW, error_type=error_type)
        for number, (node_id, error_type) in enumerate(
            [("bad", "connect"), ("picky", "upstream_4xx"), ("bad", "upstream_5xx"), ("ada", None)], start=1
        )
    ]
    keep(builders.finished(at=NOW - 60), builders.finished(at=NOW - 4000))
    keep(replace(builders.finished(at=NOW - 60), attempts=tuple(attempts)))
    found = {each.node_id: (each.attempts, each.failed) for each in asked(reader).tries}
    assert found == {"bad": (2, 2), "picky": (1, 0), "ada": (2, 0)}


def test_usual_is_what_95_of_100_stay_under_and_slow_is_counted_within_the_day(keep, reader):
    """Nineteen requests make no habit."""
    keep(*(builders.finished(at=NOW - 60, latency_s=1.0 + n / 100) for n in range(100)))
    keep(*(builders.finished(at=NOW - age, latency_s=50.0) for age in (60, 70, 90_000)))
    keep(*(builders.finished(model="new:1b", at=NOW - 60) for _ in range(LEAST_PACE - 1)))
    usual = reader.usual_latency()
    assert set(usual) == {MODEL}
    assert usual[MODEL] == pytest.approx(1.97, abs=0.03)
    (pace,) = asked(reader, {MODEL: (usual[MODEL], 30.0)}).paces
    assert (pace.p95_s, pace.limit_s, pace.slow) == (usual[MODEL], 30.0, 2)


def test_reaped_requests_are_counted_by_node(keep, reader):
    """Also those that had no node yet."""
    keep(changed("zombie_reaped", 10), changed("zombie_reaped", 20, node_id=None), changed("zombie_reaped", 90_000))
    assert asked(reader).zombies == {"ada": 1, None: 1}


def test_nodes_of_the_day_are_known_with_when_they_were_first_there(keep, reader):
    """A node of an hour has had no time to be useful."""
    keep(*(builders.sample(node_id, at=NOW - age) for node_id in ("ada", "bob") for age in (600_000, 500, 100)))
    keep(builders.sample("ada", at=NOW - 50, status="offline"), builders.sample("old", at=NOW - 90_000))
    assert asked(reader).first_seen == {"ada": NOW - 600_000, "bob": NOW - 600_000}


def episode(episode_id, **changes):
    finding = Finding(
        "error_rate", Severity.WARNING, "t", "d", "f", model="m\ud800", data={"failed": 3, "types": ["a"]}
    )
    return Episode(episode_id, finding, **{"first_seen": NOW, "last_seen": NOW, **changes})


def test_an_episode_is_kept_once_as_it_was_told_last(keep, reader):
    """The history is one line a finding, not one a look."""
    keep(FindingChanged(NOW, "opened", episode("x")))
    said = episode("x", last_seen=NOW + 30, acknowledged_at=NOW + 1, note="known", silenced_until=NOW + 9, alerted=True)
    keep(FindingChanged(NOW, "seen", said))
    (found,) = reader.episodes()
    assert found.finding.model == "m\\ud800"
    assert found.finding.data == {"failed": 3, "types": ["a"]}
    assert (found.finding.severity, found.alerted, found.note) == (Severity.WARNING, True, "known")
    assert (found.first_seen, found.last_seen, found.silenced_until) == (NOW, NOW + 30, NOW + 9)


def test_the_history_is_the_latest_first_and_can_be_asked_by_state(keep, reader):
    """What is over stands apart from what is not."""
    keep(FindingChanged(NOW, "opened", episode("open", last_seen=NOW + 1)))
    keep(
        *(FindingChanged(NOW, "resolved", episode(f"over{n}", last_seen=NOW + n, resolved_at=NOW + n)) for n in (2, 0))
    )
    by_state = {state: [each.id for each in reader.episodes(state)] for state in ("open", "resolved", "all")}
    assert by_state == {"open": ["open"], "resolved": ["over2", "over0"], "all": ["over2", "open", "over0"]}
    assert [each.id for each in reader.episodes("all", limit=1)] == ["over2"]


def test_no_question_reads_the_table_from_end_to_end(keep, database):
    """At a million rows that is the difference between a moment and seconds."""
    keep(builders.finished(at=NOW - 60))
    asked_for = []
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        connection.set_trace_callback(asked_for.append)
        health_queries.history(connection, NOW, {MODEL: (1.0, 3.0)})
        connection.set_trace_callback(None)
        plans = [row[3] for text in asked_for for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
    assert len(asked_for) > 8
    assert [line for line in plans if line.startswith("SCAN request_") and "INDEX" not in line] == []
