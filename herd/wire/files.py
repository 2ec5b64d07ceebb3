"""Small files that are one user's alone: keys, pins, what the doors know. Read with a check, replaced as a whole.

A link in a file's place is not followed when it is read, and is itself replaced when it is written.
"""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 2**20


class FileUnsafe(Exception):
    """A file that others may read or that is a link, or that holds something else; the text says what to do."""


def read_alone(path: Path, most: int = MOST_BYTES) -> bytes | None:
    """A file that is this user's alone, at most `most` bytes (-1: all); None if there is none. Raises FileUnsafe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileUnsafe(f"{path} cannot be read ({error.strerror}); a link is not followed") from error
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(descriptor)
        if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & 0o077:
            raise FileUnsafe(f"{path} is to be this user's alone: chown it, and chmod 600 it")
        return file.read(most)


def write_alone(path: Path, content: bytes) -> None:
    """Put a file in its place as a whole, for this user alone, so that it outlives a power cut. Raises OSError."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except OSError:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)
