"""Predictions held against what was seen: which requests count, and what is said of them."""

from dataclasses import replace

import pytest

from herd.core.routing import Predicted
from herd.store import calibration
from herd.store.windows import Scope
from tests.store import builders

NOW = builders.NOON + 3600.0


def stream(predicted=(0.0, 0.0, 0.25, 1.0), ttft_s=0.25, **changes):
    """A stream of 1.5 s that was predicted so."""
    return builders.finished(ttft_s=ttft_s, predicted=Predicted(*predicted), **changes)


def rows(reader, **scope):
    return reader.report(calibration.calibration, 0.0, Scope(**scope)).data


def test_a_right_prediction_has_no_error_and_one_of_twice_the_time_is_off_by_a_hundred_percent(reader, keep):
    """The share of what was seen: what a client felt."""
    keep(stream(), stream((0.0, 0.25, 0.25, 1.0), node_id="bob"))
    assert [(row["node_id"], row["p50_error_pct"], row["bias_pct"]) for row in rows(reader)] == [
        ("ada", 0.0, 0.0), ("bob", 100.0, 100.0),
    ]  # fmt: skip


def test_the_error_has_its_middle_and_its_ninetieth_percentile(reader, keep):
    """One bad prediction in ten is what a p90 is for."""
    keep(*(stream() for _ in range(9)), stream((0.0, 0.0, 0.125, 1.0)))
    (row,) = rows(reader)
    assert (row["stream_count"], row["p50_error_pct"], row["p90_error_pct"]) == (10, 0.0, 50.0)
    assert row["bias_pct"] == -5.0


def test_each_part_stands_predicted_beside_seen(reader, keep):
    """That a node is slow is known; whether it is the disk or the compute is what helps."""
    made = stream((0.1, 0.2, 0.3, 1.0), ttft_s=1.0)
    attempt = replace(made.attempts[0], started_at=builders.NOON + 0.25)
    usage = replace(made.usage, load_s=0.5)
    keep(replace(made, attempts=(attempt,), usage=usage, queued_at=builders.NOON, admitted_at=builders.NOON + 0.25))
    (row,) = rows(reader)
    parts = {name: (row[f"predicted_{name}_ms"], row[f"actual_{name}_ms"]) for name in calibration.PARTS}
    assert parts == {"queue": (100, 250), "load": (200, 500), "prefill": (300, 250), "decode": (1000, 500)}


@pytest.mark.parametrize(
    "left_out", [{"attempts": 2}, {"ttft_s": None}, {"status": builders.Status.INCOMPLETE}, {"predicted": None}]
)
def test_a_request_that_says_nothing_of_its_prediction_is_left_out(reader, keep, left_out):
    """A second attempt, an answer in one piece, one that broke off, and one from before parts were predicted."""
    keep(builders.finished(**left_out))
    assert rows(reader) == []


def test_a_table_is_of_the_tag_node_and_model_that_were_asked_for(reader, keep):
    """As every other table of the page."""
    keep(stream(tags=("a",)), stream(node_id="bob", tags=("b",)), stream(model="qwen3:8b"))
    assert [row["node_id"] for row in rows(reader, tag="b")] == ["bob"]
    assert [row["model"] for row in rows(reader, model="QWEN3:8b")] == ["qwen3:8b"]
    assert len(rows(reader, node_id="ada")) == 2


def test_a_large_window_is_sampled_evenly(reader, keep):
    """A page must not wait for a million rows."""
    keep(*(stream(at=builders.NOON + number) for number in range(40)))
    found, step = reader.answer(calibration.scored, 0.0, Scope(), 10)
    assert (len(found), step) == (10, 4)
    assert {int(each.at - builders.NOON) % 4 for each in found} == {3}


def test_a_nodes_drift_is_of_the_last_hours_and_of_the_last_hour_with_the_part_that_is_wrong(reader, keep):
    """What was wrong this morning and is right now needs nobody."""
    slow = (stream((0.0, 0.0, 0.125, 1.0), ttft_s=0.5, at=NOW - 7200 - number) for number in range(5))
    right = (stream(at=NOW - 60 - number) for number in range(3))
    keep(*slow, *right)
    (drift,) = reader.answer(calibration.drifts, NOW, 6.0)
    assert (drift.node_id, drift.streams, drift.lately) == ("ada", 8, 3)
    assert (drift.factor, drift.factor_lately, drift.part) == (4.0, 1.0, "prefill")
