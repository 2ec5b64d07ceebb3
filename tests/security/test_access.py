"""The file of keys, sessions and nodes: its owner's alone, whole at every moment, and seen by who reads it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from herd.security.access import Access, AccessUnreadable

ADDING = """
import sys
from pathlib import Path
from herd.security.access import Access
for number in range(10):
    Access(Path(sys.argv[1])).change("keys", lambda rows: [*rows, {"id": f"{sys.argv[2]}{number}"}])
"""


def test_what_one_writes_the_other_sees_after_a_look(tmp_path):
    """The command line makes a key, and a running router knows it at once."""
    router, command = Access(tmp_path), Access(tmp_path)
    assert router.refresh()
    assert router.rows("keys") == []
    command.change("keys", lambda rows: [*rows, {"id": "a"}])
    command.change("nodes", lambda _: [{"id": "n"}])
    assert router.refresh()
    assert (router.rows("keys"), router.rows("nodes")) == ([{"id": "a"}], [{"id": "n"}])
    assert not router.refresh()


def test_the_file_is_its_owners_alone_whatever_the_umask_says(tmp_path):
    """Hashes of keys say who may do what; no other user is to read or replace them."""
    before = os.umask(0)
    try:
        Access(tmp_path).change("keys", lambda _: [])
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"access.json": 0o600, "access.lock": 0o600}


def test_a_file_that_is_open_to_others_is_not_believed_and_what_was_known_stays(tmp_path):
    """Whoever can write it could give himself a key; and a mistake must not strike all keys."""
    access = Access(tmp_path)
    access.change("keys", lambda _: [{"id": "a"}])
    access.path.chmod(0o644)
    os.utime(access.path, (1, 1))
    with pytest.raises(AccessUnreadable, match="chmod 600"):
        access.refresh()
    assert access.rows("keys") == [{"id": "a"}]


@pytest.mark.parametrize("content", ["", "[]", '{"keys": 1}', "{"])
def test_a_file_that_is_none_of_ours_is_refused_in_words_and_not_overwritten(tmp_path, content):
    """A router that took it for empty would let nobody in, and the next key would be the only one."""
    access = Access(tmp_path)
    access.path.write_text(content)
    access.path.chmod(0o600)
    with pytest.raises(AccessUnreadable, match=r"access\.json"):
        access.refresh()
    with pytest.raises(AccessUnreadable):
        access.change("keys", lambda rows: rows)
    assert access.path.read_text() == content


def test_a_link_in_the_files_place_is_not_followed(tmp_path):
    """Else whoever made the link chose what is believed."""
    (tmp_path / "other").write_text("{}")
    access = Access(tmp_path)
    access.path.symlink_to(tmp_path / "other")
    with pytest.raises(AccessUnreadable, match="not followed"):
        access.refresh()


def test_processes_that_write_at_the_same_time_lose_nothing(tmp_path):
    """The router notes when a key was used while the command line makes another."""
    command = [sys.executable, "-c", ADDING, str(tmp_path)]
    writers = [subprocess.Popen([*command, name], cwd=Path(__file__).parents[2]) for name in ("a", "b", "c")]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    access = Access(tmp_path)
    access.refresh()
    assert len(access.rows("keys")) == 30
