"""Secrets that reach the log by accident do not reach the file."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.telemetry.redact import REDACTED, redact, redact_text

SECRET = "s3cr3tTOKENvalue99"


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {SECRET}=",
        f"{{'Authorization': 'Bearer {SECRET}', 'Accept': '*/*'}}",
        f"[(b'authorization', b'Bearer {SECRET}')]",
        f"Cookie: a=1; session={SECRET}",
        f"Set-Cookie: id={SECRET}; Path=/",
        f"sent bearer {SECRET} to the node",
        f"Basic {SECRET}= was refused",
        f"x-api-key: {SECRET}",
        f'{{"api_key": "{SECRET}"}}',
        f"GET /v1/models?token={SECRET}&limit=5",
        f"password={SECRET}",
        f"cannot connect to http://user:{SECRET}@10.0.0.7:11434/api/chat",
        f"https://{SECRET}@collector:4318",
        f"invalid key sk-{SECRET}",
        f"hf_{SECRET} is no valid key",
    ],
)
def test_what_looks_like_a_credential_is_blotted_out(text):
    """A log is copied into tickets and chats."""
    cleaned = redact_text(text)
    assert SECRET not in cleaned
    assert REDACTED in cleaned


@pytest.mark.parametrize(
    "text",
    [
        "ada refused the connection",
        "http://ada:11434/api/chat answered 503",
        "llama3.2:3b",
        "the basic idea, and the bearer of bad news",
        "12 tokens of 40",
        "mail me at someone@example.org",
        "monkey: banana",
    ],
)
def test_ordinary_texts_stay_as_they_are(text):
    """A log full of blots explains nothing."""
    assert redact_text(text) == text


def test_values_under_telling_names_go_whole_at_any_depth():
    """Headers are often logged as a mapping."""
    found = redact({"headers": [{"X-Api-Key": "a b c", "accept": "x"}], "token": 5, "api_key_id": "k1", "cookie": None})
    expected = {
        "headers": [{"X-Api-Key": REDACTED, "accept": "x"}],
        "token": REDACTED,
        "api_key_id": "k1",
        "cookie": None,
    }
    assert found == expected


def test_the_rest_of_a_url_and_of_a_query_stays_readable():
    """Which node, which path: that is what the line is for."""
    assert (
        redact_text("http://u:p@ada:11434/x?token=abc&limit=5")
        == f"http://{REDACTED}@ada:11434/x?token={REDACTED}&limit=5"
    )


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_nothing_that_can_be_logged_makes_it_raise(value):
    """It sees whatever anybody logs."""
    redact(value)


def test_a_long_text_without_an_end_costs_no_more_than_its_length():
    """An error message may quote a whole body; a backtracking pattern would stand still on it."""
    for text in (
        "://" * 100_000,
        "a.b-" * 100_000,
        "authorization " * 50_000,
        "token" * 50_000 + "=",
        "Basic " * 50_000,
    ):
        redact_text(text)


def test_a_structure_that_contains_itself_ends():
    """Python can log one; JSON refuses it later, and the line is counted as lost."""
    endless: list[object] = []
    endless.append(endless)
    redact(endless)
