"""What an answer says of its node's speeds."""

import pytest

from herd.core.observed import worked_on


@pytest.mark.parametrize(
    ("estimate", "tokens", "cached", "expected"),
    [(100, 400, 0, 100), (100, 400, 300, 25), (100, 80, 80, 0), (0, 400, 100, 300), (100, 0, 0, 0), (100, 50, 60, 0)],
)
def test_a_prompts_work_is_counted_in_the_tokens_that_a_prediction_knows(estimate, tokens, cached, expected):
    """A model whose tokenizer makes four tokens where the estimate says one would answer four times too late."""
    assert worked_on(estimate, tokens, cached) == expected
