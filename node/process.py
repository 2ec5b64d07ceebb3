"""What the agent's process does before it opens anything, and whose its data directory is. Knows no settings."""

import os
import signal
import sys
from pathlib import Path


def prepare_process() -> None:
    """What is made from now on is this user's alone, and no file takes the place of a closed terminal."""
    os.umask(0o077)
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    if sys.stdout is None or sys.stderr is None:  # they were closed
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open as long as the process is
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # whoever means another program by it must not end this one


def has_terminal() -> bool:
    """Whether this process has a terminal, which ends it by closing."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def claim_directory(home: Path) -> str | None:
    """Make the data directory, or take one that is safe; what is wrong with one that is not.

    One that cannot be made costs the log file and no more.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = [(path, path.stat()) for path in (home, home / "logs") if path.exists()]
    except OSError:
        return None
    for path, state in found:
        if state.st_uid != os.geteuid():
            return f"{path} belongs to another user (uid {state.st_uid}): chown it, or choose another --data-dir"
        if state.st_mode & 0o022:
            return f"{path} may be written by others: chmod 700 it, or choose another --data-dir"
    return None
