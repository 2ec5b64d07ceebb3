"""Context protection: a num_ctx that changes nothing for the answer must not cost a reload."""

import pytest

from herd.core.context import loaded_instead, protect
from tests.core.builders import node, request

M = "llama:8b"
WARM = node("warm", loaded={M: 8192})


@pytest.mark.parametrize(
    ("asked", "mode", "action"),
    [
        (2048, "strip", "stripped"),
        (2048, "warn", "warned"),
        (2048, "off", None),
        (8192, "strip", None),
        (16384, "strip", "warned"),
        (None, "strip", None),
    ],
)
def test_a_num_ctx_is_stripped_only_where_the_loaded_context_serves_as_well(asked, mode, action):
    """A larger one may be what the answer needs; an equal one costs nothing."""
    found = protect(request(num_ctx=asked), WARM, M, mode)
    assert (found.action if found else None) == action


@pytest.mark.parametrize("others", [[], [node("narrow", loaded={M: 1024})]], ids=["alone", "beside a narrower one"])
def test_an_embedding_keeps_the_context_that_cuts_its_text(others):
    """With 16 tokens asked for and more loaded it was made of 40 tokens instead of 14: another vector, unnoticed."""
    found = protect(request(num_ctx=2048, endpoint="/api/embed"), WARM, M, "strip", others)
    assert (found.action, loaded_instead(found, "strip")) == ("warned", None)


def test_nothing_is_done_where_the_model_is_not_loaded():
    """It has to be loaded anyway, and may as well be loaded as asked."""
    assert protect(request(num_ctx=2048), node("cold"), M, "strip") is None


def test_a_context_that_was_loaded_under_another_name_is_protected_too():
    """The engine reloads it all the same, whatever it is called."""
    warm = node("warm", {M: 5.0, "llama:latest": 5.0}, loaded={"llama:latest": 8192}, same_as={M: "llama:latest"})
    assert protect(request(num_ctx=2048), warm, M, "strip").action == "stripped"


def test_a_request_that_came_here_because_another_context_was_too_small_is_called_moved():
    """The operator sees that the larger context saved a reload."""
    found = protect(request(num_ctx=6000), WARM, M, "strip", [WARM, node("narrow", loaded={M: 4096})])
    assert found.action == "moved"
    assert loaded_instead(found, "strip") == 8192


@pytest.mark.parametrize(("context", "action"), [(6000, "stripped"), (5999, "moved"), (None, "stripped")])
def test_only_a_context_that_is_known_and_too_small_has_a_request_moved(context, action):
    """An engine that does not tell its context says nothing of what a request would have cost there."""
    other = node("other", loaded={M: context})
    assert protect(request(num_ctx=6000), WARM, M, "strip", [WARM, other]).action == action


def test_what_is_warned_about_stays_in_the_body():
    """Warning and changing are two things."""
    assert loaded_instead(protect(request(num_ctx=16384), WARM, M, "strip"), "strip") is None
    assert loaded_instead(protect(request(num_ctx=2048), WARM, M, "warn"), "warn") is None
