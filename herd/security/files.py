"""Whose the data directory is, and what a process of ours needs before it opens anything."""

import os
import stat
import sys
from pathlib import Path

WRITTEN = ("latency.db", "router.json", "logs/herd.jsonl")


class NotOurs(Exception):
    """A directory or file that another user owns, or may write to; the text says which, and what to do."""


def prepare_process() -> None:
    """What is made from now on is this user's alone, and no file takes the place of a closed terminal.

    A file that were opened as number 2 would get whatever is written to stderr.
    """
    os.umask(0o077)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    if sys.stdout is None or sys.stderr is None:  # they were closed
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process is
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere


def claim_directory(home: Path) -> bool:
    """Make a data directory, or take one that is safe; whether others could read it until now.

    Raises NotOurs where others own or may write it, OSError where it cannot be made.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (home, home / "logs"):
        if path.exists():
            _check(path, path.stat())
    for path in (home / name for name in WRITTEN):
        if path.is_symlink() and path.lstat().st_uid != os.geteuid():
            raise NotOurs(f"{path} is a link that another user made: remove it")
    wide = home.stat().st_mode & 0o077
    if wide:
        home.chmod(0o700)
    return bool(wide)


def _check(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode):
        raise NotOurs(f"{path} is no directory")
    if found.st_uid != os.geteuid():
        raise NotOurs(f"{path} belongs to another user (uid {found.st_uid}): chown it, or choose another --data-dir")
    if found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        raise NotOurs(f"{path} may be written by others (mode {mode:o}): chmod 700 it, or choose another --data-dir")
