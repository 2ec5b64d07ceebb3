"""A node's jobs on their clock: however they came there, the same is foreseen as if each were written down anew."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.prediction import Pace, ahead
from herd.core.work import DERIVED, Job, Work

PACE = Pace()
SECONDS = st.floats(0.02, 30)
jobs = st.builds(
    Job, st.just(0), st.sampled_from("mn"), SECONDS, SECONDS, st.just(0.0) | st.just(0.0) | SECONDS,
    st.lists(st.sampled_from("mn"), max_size=1).map(tuple), st.just(False), st.booleans(), st.just(False),
)  # fmt: skip
steps = st.lists(st.tuples(st.sampled_from(["begun", "begun", "answered", "ended", "at", "loaded"]), jobs,
                           st.floats(0, 3), st.integers(0, 20)), max_size=25)  # fmt: skip


def made(steps):
    """A work after these steps, and the moment of the last one."""
    work, now, there = Work(), 0.0, []
    for number, (step, job, pause, which) in enumerate(steps):
        now += pause
        if step == "begun":
            there.append(number)
            work = work.begun(job._replace(ticket=number), now)
        elif step == "loaded":
            work = work.loaded(job.model, now)
        elif step == "at" or not there:
            work = work.at(now)
        elif step == "ended":
            work = work.ended(there.pop(which % len(there)), now)
        else:
            work = work.answered(there[which % len(there)], now)
    return work, now


@given(steps)
def test_what_is_kept_beside_the_jobs_is_what_follows_from_them(steps):
    """It is carried from one work to the next, and a slip there would be in every prediction until the node is idle."""
    work, _ = made(steps)
    anew = Work(*(getattr(work, field.name) for field in fields(Work) if field.init))
    assert {name: getattr(work, name) for name in DERIVED} == {name: getattr(anew, name) for name in DERIVED}


@given(steps, st.floats(0, 5), SECONDS, SECONDS, st.booleans(), st.sampled_from([1, 3, 100]))
def test_a_clock_for_all_prompts_foresees_what_one_for_each_would(steps, later, prefill_s, answer_s, to_end, slots):
    """A stored decision of before has what is left of each prompt, and must be decided again as it was."""
    work, now = made(steps)
    each = tuple(job._replace(prefill_s=work.left(job)) for job in work.jobs)
    alone = Work(work.as_of, each, work.prompt_fall, work.token_fall)
    new = Job(None, "m", prefill_s, answer_s)
    found = ahead(work, now + later, PACE, new, slots, to_end)
    assert found == pytest.approx(ahead(alone, now + later, PACE, new, slots, to_end))


def test_a_request_that_nobody_knows_changes_nothing():
    """A ticket of before the router's node was forgotten ends, too."""
    work = Work().begun(Job(1, "m", 1.0, 1.0), 0.0)
    assert work.ended(7, 0.0).jobs == work.answered(7, 0.0).jobs == work.jobs
