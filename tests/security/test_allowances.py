"""What a key may use up, and when it begins anew."""

import pytest

from herd.core.access import Caller, Limits
from herd.core.errors import AllowanceUsed
from herd.core.events import Attempt, Finished, Status, TraceIds, Usage
from herd.security.allowances import DAY_S, Allowances

NOON = 1_800_000_000.0 // DAY_S * DAY_S + 43_200


def ended(key_id, prompt, completion, at=NOON):
    """A request of a key that is over."""
    attempt = Attempt(1, "n", "http://n:1", "s" * 16, "m:1", at, at)
    return Finished(
        "r", TraceIds("t" * 32, "s" * 16), "/api/chat", "ollama", Status.COMPLETED, 200, at, at,
        usage=Usage(prompt_tokens=prompt, completion_tokens=completion), api_key_id=key_id, attempts=(attempt,),
    )  # fmt: skip


def test_a_key_has_its_requests_of_a_minute_and_then_the_next_minutes():
    """The answer says how long to wait, and that is true."""
    allowances, ci = Allowances(), Caller("k", "ci", Limits(requests_per_minute=2))
    allowances.spend(ci, NOON + 10)
    allowances.spend(ci, NOON + 20)
    with pytest.raises(AllowanceUsed, match='"ci" has used 2 requests this minute') as refused:
        allowances.spend(ci, NOON + 25)
    assert refused.value.retry_after_s == 35
    allowances.spend(Caller("other", "x", Limits(requests_per_minute=2)), NOON + 25)
    allowances.spend(ci, NOON + 25 + 35)


def test_a_key_has_its_tokens_of_a_day_prompts_and_answers():
    """Whatever the model read and wrote for it."""
    allowances, ci = Allowances(), Caller("k", "ci", Limits(tokens_per_day=1000))
    allowances.take(ended("k", 250, 250))
    allowances.take(ended("k", 300, 100))
    allowances.take(ended(None, 5000, 5000))
    allowances.spend(ci, NOON)
    allowances.take(ended("k", 60, 40))
    with pytest.raises(AllowanceUsed, match="1000 tokens of the 1000 of this day") as refused:
        allowances.spend(ci, NOON)
    assert refused.value.retry_after_s <= 60
    allowances.spend(ci, NOON + DAY_S)


def test_a_key_without_limits_is_never_refused():
    """0 is no limit."""
    allowances, free = Allowances(), Caller("k", "free")
    for _ in range(500):
        allowances.spend(free, NOON)
    allowances.take(ended("k", 10**9, 10**9))
    allowances.spend(free, NOON)
