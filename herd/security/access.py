"""`access.json`: what the doors know of keys, sessions and nodes, in sections; secrets are in it as hashes only.

It knows sections and no meaning. The file is its owner's alone, is replaced as a whole or not at all, and one change
follows the other however many processes make them. Whoever holds an `Access` sees what others wrote after `refresh`.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from herd.wire.files import FileUnsafe, read_alone, write_alone

NAME: Final = "access.json"
Rows = list[dict[str, Any]]
Sections = dict[str, Rows]


class AccessUnreadable(Exception):
    """The file is there and cannot be read, or is no such file; the text says what to do."""


class Access:
    """The file of one data directory. A section that is not there is empty."""

    def __init__(self, home: Path) -> None:
        self.path = home / NAME
        self.edition = 0
        self._seen: tuple[int, int, int] | None = None
        self._sections: Mapping[str, Rows] = {}

    def rows(self, section: str) -> Rows:
        """What a section has, as of the last refresh."""
        return self._sections.get(section, [])

    def refresh(self) -> bool:
        """Look whether the file is another now, and read it then; whether it was. Raises AccessUnreadable.

        Where it cannot be read, what was known before is still known.
        """
        try:
            found = self.path.lstat()
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
        except FileNotFoundError:
            seen = (0, 0, 0)
        except OSError as error:
            raise AccessUnreadable(f"{self.path} cannot be read ({error.strerror})") from error
        if seen == self._seen:
            return False
        self._sections = _read(self.path)
        self._seen, self.edition = seen, self.edition + 1
        return True

    def change(self, section: str, change: Callable[[Rows], Rows]) -> Rows:
        """Put what `change` makes of a section into the file; the section as it is then.

        Raises AccessUnreadable, or OSError where the file cannot be written; nothing is changed then.
        """
        with _alone(self.path.with_suffix(".lock")):
            sections = _read(self.path)
            sections[section] = change(sections.get(section, []))
            write_alone(self.path, json.dumps(sections, indent=1).encode() + b"\n")
        self.refresh()
        return sections[section]


def _read(path: Path) -> Sections:
    try:
        content = read_alone(path, -1)
    except FileUnsafe as error:
        raise AccessUnreadable(str(error)) from error
    if content is None:
        return {}
    try:
        sections = json.loads(content)
    except ValueError as error:
        raise AccessUnreadable(f"{path} is no JSON ({error}): mend it, or remove it and all keys") from error
    if not isinstance(sections, dict) or not all(isinstance(rows, list) for rows in sections.values()):
        raise AccessUnreadable(f"{path} is to hold lists by name: mend it, or remove it and all keys")
    return sections


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time; the lock's file stays, as a new one would be another lock."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
