"""The file itself: rotation, full disks, and files that somebody moved."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from herd.telemetry.log import configure_logging
from herd.telemetry.log_file import LogFile
from tests.store import builders

YESTERDAY_S = 86_400


def an_old_file(folder: Path, text: str = "old\n") -> Path:
    """A log file that was last written to a day ago."""
    path = folder / "herd.jsonl"
    path.write_text(text)
    then = path.stat().st_mtime - YESTERDAY_S
    os.utime(path, (then, then))
    return path


def test_a_router_that_starts_on_a_new_day_begins_a_new_file(tmp_path):
    """A router is often down at midnight."""
    path = an_old_file(tmp_path)
    file = LogFile(path)
    assert file.write(b"new\n") == 1
    file.close()
    assert path.read_text() == "new\n"
    (rotated,) = (found for found in tmp_path.iterdir() if found != path)
    assert rotated.read_text() == "old\n"
    assert rotated.name.startswith("herd.jsonl.20")


def test_a_router_that_restarts_on_the_same_day_goes_on_in_its_file(tmp_path):
    """One file a day, not one a start."""
    path = tmp_path / "herd.jsonl"
    for line in (b"one\n", b"two\n"):
        file = LogFile(path)
        file.write(line)
        file.close()
    assert path.read_text() == "one\ntwo\n"
    assert list(tmp_path.iterdir()) == [path]


def test_half_a_line_that_a_kill_left_behind_does_not_swallow_the_next_one(tmp_path):
    """A power cut may end a write in the middle; only what was half there is lost."""
    path = tmp_path / "herd.jsonl"
    path.write_bytes(b'{"whole": 1}\n{"ha')
    file = LogFile(path)
    assert file.write(b'{"next": 2}\n') == 1
    file.close()
    assert path.read_bytes().splitlines() == [b'{"whole": 1}', b'{"ha', b'{"next": 2}']


def test_only_so_many_old_files_are_kept_and_other_files_are_left_alone(tmp_path):
    """The log must not fill the disk, nor the log's owner delete what is not its own."""
    path = an_old_file(tmp_path)
    for day in range(1, 6):
        (tmp_path / f"herd.jsonl.2020-01-{day:02}").touch()
    (tmp_path / "notes.txt").touch()
    file = LogFile(path, files_kept=3)
    file.write(b"new\n")
    file.close()
    kept = sorted(found.name for found in tmp_path.iterdir() if "jsonl.2" in found.name)
    assert kept[:2] == ["herd.jsonl.2020-01-04", "herd.jsonl.2020-01-05"]
    assert len(kept) == 3
    assert (tmp_path / "notes.txt").exists()


def test_a_folder_that_is_not_there_is_made(tmp_path):
    """The first start on a machine."""
    file = LogFile(tmp_path / "data" / "logs" / "herd.jsonl")
    assert file.write(b"one\n") == 1
    file.close()


@pytest.mark.parametrize("take_away", [lambda path: path.unlink(), lambda path: path.rename(path.with_suffix(".1"))])
def test_a_file_that_was_moved_away_is_made_anew(tmp_path, take_away):
    """logrotate, or an operator with `rm`: lines written to a file without a name are gone."""
    path = tmp_path / "herd.jsonl"
    file = LogFile(path)
    file.write(b"one\n")
    take_away(path)
    file.write(b"two\n")
    file.close()
    assert path.read_text() == "two\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_is_an_error_and_not_a_lie(tmp_path):
    """Whoever counts lines must know which are there."""
    path = tmp_path / "herd.jsonl"
    path.symlink_to("/dev/full")
    file = LogFile(path)
    with pytest.raises(OSError, match="No space left"):
        file.write(b"one\n")
    file.close()


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB, where one may be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)  # lazily: a failed test may hold the file open


def test_on_a_disk_that_fills_up_whole_lines_stay_and_half_ones_do_not(tiny_disk):
    """Half a line would be glued to the first line after the disk has room again, and both be lost to grep."""
    path, line = tiny_disk / "herd.jsonl", b'{"n": "' + b"x" * 991 + b'"}\n'
    file = LogFile(path)
    written = file.write(line * 200)
    assert 0 < written < 200
    assert path.read_bytes() == line * written
    (tiny_disk / "ballast").unlink(missing_ok=True)
    with path.open("rb+") as emptied:
        emptied.truncate(0)
    assert file.write(line) == 1
    assert path.read_bytes() == line
    file.close()


def test_a_folder_that_cannot_be_written_does_not_stop_the_start(tmp_path):
    """The router's work is requests; the count and stderr tell of the rest."""
    (tmp_path / "logs").write_text("a file where the folder should be")
    sink = configure_logging(tmp_path / "logs")
    sink.take(builders.finished())
    assert sink.flush(10)
    assert sink.stats().dropped == 1
    assert sink.close(10)


def test_a_line_written_by_a_dying_process_is_in_the_file(tmp_path):
    """The last lines of a crash are those that count."""
    script = (
        "import logging, pathlib, sys; from herd.telemetry.log import configure_logging;"
        "configure_logging(pathlib.Path(sys.argv[1])); logging.getLogger('herd').error('last words'); sys.exit(3)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert json.loads((tmp_path / "herd.jsonl").read_text())["event"] == "last words"
