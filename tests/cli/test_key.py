"""`herd key`: what it prints, what it keeps, and what it refuses."""

import json
import re

import pytest

from herd.cli import main
from herd.security.access import Access


@pytest.fixture
def said(tmp_path, capsys):
    """Runs `herd key` on a data directory; gives the exit code and what was printed."""

    def run(*arguments):
        code = main(["key", *arguments, "--data-dir", str(tmp_path / "data")])
        found = capsys.readouterr()
        return code, found.out, found.err

    return run


def test_a_key_is_printed_once_alone_and_kept_nowhere(said, tmp_path):
    """`KEY=$(herd key create ci)` works, and no file has the secret."""
    code, out, err = said("create", "ci")
    text = out.strip()
    assert (code, bool(re.fullmatch(r"herd_[a-z2-7]{8}_[\w-]{43}_\w{6}", text))) == (0, True)
    assert "not shown again" in err
    assert text not in err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and text[14:57] in path.read_text()]
    listed = said("list")[1]
    assert "ci" in listed
    assert text[14:57] not in listed


def test_limits_scope_and_expiry_are_listed_as_they_were_given(said):
    """The operator sees what he handed out."""
    options = ("--scope", "admin", "--models", "qwen3:*, llama3.2", "--rpm", "60", "--tokens-per-day", "1000")
    said("create", "grafana", *options, "--expires", "90d")
    found = json.loads(said("list", "--json")[1])["keys"][0]
    assert (found["scope"], found["models"], found["state"]) == ("admin", ["qwen3:*", "llama3.2"], "good")
    assert (found["requests_per_minute"], found["tokens_per_day"]) == (60, 1000)
    assert found["expires_at"] - found["created_at"] == pytest.approx(90 * 86_400)
    assert "digest" not in found


def test_a_key_that_goes_to_a_file_is_not_printed_and_is_its_owners_alone(said, tmp_path):
    """Prometheus reads a file; nothing of it is to be in a terminal's history."""
    target = tmp_path / "prometheus.key"
    code, out, _ = said("create", "prometheus", "--scope", "read", "--to", str(target))
    assert (code, out) == (0, "")
    assert (target.stat().st_mode & 0o777, target.read_text().startswith("herd_")) == (0o600, True)


@pytest.mark.parametrize("how", ["name", "id", "whole"])
def test_a_key_is_revoked_by_its_name_its_id_or_itself(said, how):
    """Whoever finds a leaked key may paste it."""
    text = said("create", "ci")[1].strip()
    named = {"name": "ci", "id": text[5:13], "whole": text}[how]
    assert said("revoke", named)[0] == 0
    assert json.loads(said("list", "--json")[1])["keys"][0]["state"] == "revoked"
    code, _, err = said("revoke", named)
    assert (code, "there is no key" in err) == (1, True)
    assert text[14:57] not in err
    assert said("create", "ci")[0] == 0


def test_what_cannot_be_meant_is_refused_in_a_sentence_and_makes_no_key(said, tmp_path):
    """A name twice, none at all, a scope that is none, a file that is no list of keys."""
    assert said("create")[0] == 64
    assert said("create", "a\x1bb")[0] == 64
    assert said("create", "ci", "--scope", "root")[0] == 64
    assert said("create", "ci", "--expires", "soon")[0] == 64
    said("create", "ci")
    code, _, err = said("create", "ci")
    assert (code, "already" in err) == (1, True)
    access = Access(tmp_path / "data")
    access.change("keys", lambda rows: [*rows, {"id": 5}])
    code, _, err = said("list")
    assert (code, "no key" in err) == (1, True)
