"""What an answer says of its node's speeds, and what it does not."""

from dataclasses import replace

import pytest

from herd.core.events import Attempt, Usage
from herd.core.observed import Mark, Told, observed, worked_on
from tests.core.builders import request

ATTEMPT = Attempt(1, "n1", "llama:8b", "http://n1", "0" * 16, 100.0, 104.0, 200, 101.0)


def told(usage, attempt=ATTEMPT, stream=True):
    return observed(Told(request(stream=stream), attempt, usage), None, 0.0, None)


def test_a_stream_is_timed_by_what_the_router_saw():
    """Its first content and its last are what clients wait for."""
    seen = told(Usage(1000, 100, cached_tokens=600, load_s=0.25))
    assert (seen.prompt_tokens, seen.prompt_s, seen.answer_tokens, seen.answer_s) == (400, 0.75, 100, 3.0)
    assert seen.load_s is None  # a quarter of a second is no load


@pytest.mark.parametrize("usage", [Usage(20, 40), Usage(20, 40, prompt_eval_s=0.25, eval_s=2.0)])
def test_an_answer_that_came_in_one_piece_is_timed_by_the_engine_or_not_at_all(usage):
    """Tool calls are held back to their end: as a stream they would make an engine of a million tokens a second."""
    seen = told(usage, replace(ATTEMPT, first_content_at=103.999))
    assert (seen.prompt_s, seen.answer_s) == (usage.prompt_eval_s, usage.eval_s)


def test_the_company_of_a_prompt_is_who_was_at_work_until_its_first_content():
    """A second of two at work is one other."""
    mark = Mark(100.0, 10.0, 101.0, 12.0)
    seen = observed(Told(request(stream=True), ATTEMPT, Usage(20, 40)), mark, 15.0, None)
    assert (seen.prompt_others, seen.answer_others) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("estimate", "tokens", "cached", "expected"),
    [(100, 400, 0, 100), (100, 400, 300, 25), (100, 80, 80, 0), (0, 400, 100, 300), (100, 0, 0, 0), (100, 50, 60, 0)],
)
def test_a_prompts_work_is_counted_in_the_tokens_that_a_prediction_knows(estimate, tokens, cached, expected):
    """A model whose tokenizer makes four tokens where the estimate says one would answer four times too late."""
    assert worked_on(estimate, tokens, cached) == expected
