"""API keys as text: made of random bytes, told from mistyped ones, kept as a hash."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.access import ENOUGH, Caller, Limits, Need, Scope
from herd.security.keys import ID_BYTES, SECRET_BYTES, Key, digest_of, id_in, is_of, read, spell, written

NOVEMBER = 1793664000.0  # 3 Nov 2026
ID, TEXT = spell(bytes(ID_BYTES), bytes(SECRET_BYTES))
KEY = Key(ID, "ci", Scope.INFERENCE, digest_of(TEXT), 1.0, Limits(("qwen3:*",), 60, 1000))


@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES), st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES))
def test_every_key_has_the_announced_form_and_gives_its_id_back(id_bytes, secret):
    """Scanners for leaked keys know them by it, and the router looks a key up by its id."""
    name, text = spell(id_bytes, secret)
    assert re.fullmatch(r"herd_[a-z2-7]{8}_[A-Za-z0-9_-]{43}_[0-9A-Za-z]{6}", text)
    assert id_in(text) == name


@given(st.integers(min_value=5, max_value=len(TEXT) - 1), st.sampled_from("abcXYZ234_-"))
def test_a_key_with_one_wrong_character_is_known_as_misspelt(place, letter):
    """Whoever mistypes one is told so, and not that the key is unknown."""
    wrong = TEXT[:place] + letter + TEXT[place + 1 :]
    assert (id_in(wrong) is None) == (wrong != TEXT)


def test_what_is_kept_of_a_key_comes_back_from_the_file_and_has_no_secret(tmp_path):
    """The file is copied and read; nobody gets a key from it."""
    assert read(written(KEY)) == KEY
    assert TEXT[14:57] not in str(written(KEY))
    assert is_of(KEY, TEXT)
    assert not is_of(KEY, TEXT.replace("A", "B", 1))


def test_a_revoked_or_expired_key_says_since_when_it_is_no_good():
    """Whoever finds it in an old script knows whom to ask."""
    assert KEY.wrong_at(NOVEMBER) is None
    assert replace(KEY, revoked_at=NOVEMBER).wrong_at(NOVEMBER) == (
        "revoked", f"the key herd_{ID} was revoked on 3 Nov 2026")  # fmt: skip
    late = replace(KEY, expires_at=NOVEMBER)
    assert late.wrong_at(NOVEMBER - 1) is None
    assert late.wrong_at(NOVEMBER) == ("expired", f"the key herd_{ID} expired on 3 Nov 2026")


@pytest.mark.parametrize(
    ("patterns", "model", "may"),
    [
        ((), "anything:1", True),
        (("qwen3:*",), "qwen3:8b", True),
        (("qwen3:*",), "qwen2.5:7b", False),
        (("llama3.2",), "llama3.2:latest", True),
        (("llama3.2",), "llama3.2:3b", False),
        (("a:1", "b*"), "bc:7", True),
    ],
)
def test_a_key_for_some_models_is_for_no_others(patterns, model, may):
    """`m` is `m:latest`, in patterns too."""
    assert Caller("k", "ci", Limits(patterns)).may_use(model) is may


def test_an_admin_may_do_everything_and_the_others_only_their_own():
    """A key for a program that asks models must not read prompts' records, nor the other way round."""
    assert all(Scope.ADMIN in ENOUGH[need] for need in Need)
    assert ENOUGH[Need.INFERENCE] & {Scope.READ} == ENOUGH[Need.READ] & {Scope.INFERENCE} == frozenset()
    assert ENOUGH[Need.ADMIN] == {Scope.ADMIN}
