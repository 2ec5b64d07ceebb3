"""The sentence that says why a node answered: one for every case, true to the row, and nowhere else written down."""

from pathlib import Path

import pytest

from herd.core.routing import Candidate, Decision, Predicted, Reason, RejectionReason
from herd.core.why import FALLBACKS, LEFT_OUT, NO_SLOT, NOBODY, SENTENCES, Outcome, why
from herd.telemetry.catalog.labels import FALLBACK_REASON

HERD = Path(__file__).parents[2] / "herd"


def plan(*node_ids, reason=Reason.MODEL_LOADED):
    return Decision(tuple(Candidate(each, "m:1b", {}, 0.0, True, 0.1) for each in node_ids), reason=reason)


def test_every_reason_and_every_fallback_has_its_sentence():
    """A new reason would be a page that breaks."""
    assert set(SENTENCES) == set(Reason)
    assert set(LEFT_OUT) == set(RejectionReason)
    assert set(FALLBACKS) == set(FALLBACK_REASON.values)


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (Outcome("ada", "m:1b", "m:1b"), "ada was the only candidate with m:1b loaded."),
        (
            Outcome("bob", "m:1b", "m:1b"),
            "ada was first in the plan but had no free slot; bob was the next with one.",
        ),
        (Outcome("bob", "m:1b", "m:1b", retry_count=1), "The previous attempt failed, and bob was next in the plan."),
        (Outcome(None, None, "m:1b"), NO_SLOT),
        (
            Outcome("ada", "m:1b", "x:1b", fallback_used=True, fallback_reason="model_unavailable"),
            "No node could serve x:1b; m:1b is the client's first fallback that a node could serve.",
        ),
        (Outcome("ada", "m:1b", "x:1b", fallback_used=True), "m:1b answered on ada instead of x:1b."),
    ],
)
def test_the_sentence_is_about_what_happened_not_only_about_what_was_planned(outcome, says):
    """The first of the plan is not always the one that answered."""
    assert why(plan("ada", "bob"), outcome) == says


def seconds(node_id, ttft_s, total=None, queue_s=0.0, load_s=0.0):
    predicted = Predicted(queue_s, load_s, ttft_s - queue_s - load_s, 2.0)
    return Candidate(node_id, "m:1b", {}, ttft_s if total is None else total, not load_s, ttft_s, predicted=predicted)


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        (seconds("gpu", 0.4), seconds("mini", 2.1, load_s=1.7),
         "Predicted time to first token: 0.4 s on gpu; 2.1 s on mini, of which 1.7 s load."),
        (seconds("gpu", 3.0, queue_s=2.5), seconds("mini", 9.0),
         "Predicted time to first token: 3.0 s on gpu, of which 2.5 s queue; 9.0 s on mini."),
        (seconds("gpu", 0.4), seconds("mini", 0.05, 1.25),
         "Predicted time to first token: 0.4 s on gpu; 50 ms on mini, delaying other requests by 1.2 s."),
    ],
)  # fmt: skip
def test_what_was_predicted_is_said_in_seconds_beside_the_best_of_the_others(first, second, says):
    """A number with a unit can be held against what happened."""
    told = why(Decision((first, second), reason=Reason.LEAST_LOADED), Outcome("gpu", "m:1b", "m:1b"))
    assert told.endswith(says)


def test_a_row_in_points_says_nothing_of_seconds():
    """What was not predicted then cannot be told now."""
    assert "Predicted" not in why(plan("ada", "bob"), Outcome("ada", "m:1b", "m:1b"))


def test_a_plan_of_nobody_says_so():
    """There is no node to speak of."""
    assert why(Decision(), Outcome(None, None, "m:1b")) == NOBODY


def test_a_name_with_braces_is_only_a_name():
    """Clients choose the names of models."""
    assert "{node} and {0}" in why(plan("ada"), Outcome("ada", "m:1b", "{node} and {0}", fallback_used=True))


def test_no_other_file_puts_a_decision_into_words():
    """Two lists of the same sentences would drift apart."""
    files = [*HERD.rglob("*.py"), *HERD.rglob("*.js")]
    for words in ("next in the plan", "not support this endpoint"):
        assert [file.name for file in files if words in file.read_text(encoding="utf-8")] == ["why.py"]
    page = (HERD / "dashboard/sections/trace.js").read_text(encoding="utf-8")
    assert "trace.decision.why" in page
    assert "entry.why" in page
