"""The end of a log, to find the lines in it that another process wrote before it died.

Knows whole lines and files, not what they say.
"""

from collections import Counter
from collections.abc import Iterator
from os import SEEK_END
from pathlib import Path
from typing import Final

BESIDE: Final = 2_000  # lines that others may have written among those that are looked for
CHUNK: Final = 2**20
MOST_BYTES: Final = 64 * 2**20


class LogTail:
    """The last lines of a log, those before the last rotation included where there are too few; each is found once."""

    def __init__(self, path: Path, lines: int) -> None:
        self._path = path
        self._wanted = lines + BESIDE
        self._found: Counter[bytes] | None = None  # read when first asked: before that, nobody needs it

    def has(self, line: bytes) -> bool:
        """Whether a line stands there, and was not asked for before as often as it does."""
        if self._found is None:
            self._found = self._read()
        if not self._found[line]:
            return False
        self._found[line] -= 1
        return True

    def _read(self) -> Counter[bytes]:
        found: list[bytes] = []
        for path in _newest_first(self._path):
            found.extend(_last_lines(path, self._wanted - len(found)))
            if len(found) >= self._wanted:
                break
        return Counter(found)


def _newest_first(path: Path) -> Iterator[Path]:
    """A log and the file that it was before midnight."""
    yield path
    yield from sorted(path.parent.glob(f"{path.name}.*"))[-1:]


def _last_lines(path: Path, count: int) -> list[bytes]:
    """So many lines of a file's end, their ends included; none where it cannot be read."""
    data = b""
    try:
        with path.open("rb") as file:
            begin = file.seek(0, SEEK_END)
            while begin and data.count(b"\n") <= count and len(data) < MOST_BYTES:
                size = min(begin, CHUNK)
                begin = file.seek(begin - size)
                data = file.read(size) + data
    except OSError:
        return []
    return data.splitlines(keepends=True)[-count:]
