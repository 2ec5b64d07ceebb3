"""`local.code`: a secret that a router leaves in its data directory while it runs.

Whoever can read the file is the router's own user on this machine, so nothing has to be typed there. It is another one
at each start, and is taken from this machine only.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

NAME: Final = "local.code"
PREFIX: Final = "herd-local-"


@contextmanager
def left(home: Path) -> Iterator[str]:
    """A new code, in its file for as long as the router runs. Raises OSError where it cannot be written."""
    code = PREFIX + secrets.token_urlsafe(32)
    path = home / NAME
    path.unlink(missing_ok=True)  # a link that stands there is removed, not followed
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(code)
    try:
        yield code
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def found(home: Path) -> str | None:
    """The code of the router that runs with this data directory, for its own user; None where there is none."""
    try:
        descriptor = os.open(home / NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor, "r", encoding="ascii", errors="replace") as file:
        kept = os.fstat(descriptor)
        if kept.st_uid != os.geteuid() or stat.S_IMODE(kept.st_mode) & 0o077:
            return None
        code = file.read(200).strip()
    return code if code.startswith(PREFIX) else None
