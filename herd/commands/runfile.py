"""The note that a running router leaves in its data directory, so that commands find the router that writes there.

The note is locked while its router lives: a lock that can be had means that nobody runs, however the last one ended.
"""

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from herd.commands import CommandError

NAME: Final = "router.json"
# A full disk or a file system without locks is no reason not to route; two routers on one database are.
BEARABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOLCK, errno.EOPNOTSUPP})


@dataclass(frozen=True, slots=True)
class Running:
    """A router at work: where it is asked, its process, when it began (unix seconds)."""

    url: str
    pid: int
    started_at: float


@contextmanager
def announced(data_dir: Path, url: str) -> Iterator[None]:
    """Leave the note for as long as the router runs.

    Raises CommandError where another router uses the directory, or where it cannot be written.
    """
    path = data_dir / NAME
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        if error.errno not in BEARABLE:
            raise CommandError(f"the data directory {data_dir} cannot be written ({error.strerror})") from error
        yield
        return
    try:
        _claim(descriptor, data_dir, Running(url, os.getpid(), time.time()))
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def running(data_dir: Path) -> Running | None:
    """The router that writes to a data directory now; None where there is none."""
    try:
        descriptor = os.open(data_dir / NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _claim(descriptor: int, data_dir: Path, note: Running) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(asdict(note)).encode())
    except BlockingIOError:
        other = _read(descriptor)
        who = f"the router at {other.url} (process {other.pid})" if other else "another router"
        raise CommandError(f"{who} already writes to {data_dir}: stop it, or choose another --data-dir") from None
    except OSError as error:
        if error.errno not in BEARABLE:
            raise CommandError(f"the data directory {data_dir} cannot be written ({error.strerror})") from error


def _read(descriptor: int) -> Running | None:
    try:
        return Running(**json.loads(os.pread(descriptor, 4096, 0)))
    except (OSError, TypeError, ValueError):
        return None  # its router is just about to write it
