"""The log as files: today's, the rotated ones, and how to read them from either end without holding them in memory.

It knows lines and rotation, nothing of what a line says. A line counts only once its newline is there.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

Line = Mapping[str, Any]
FILE_NAME: Final = "herd.jsonl"
BLOCK: Final = 1 << 18
LONGEST: Final = 1 << 24  # a "line" beyond this is damage; it is passed over rather than held


def log_files(log_dir: Path) -> list[Path]:
    """The rotated files, oldest first, then the one that is written now."""
    rotated = sorted(path for path in log_dir.glob(f"{FILE_NAME}.*") if path.is_file())
    current = log_dir / FILE_NAME
    return [*rotated, current] if current.is_file() else rotated


def parsed(raw: bytes) -> Line | None:
    """A line as an object; None where it is none, such as one that a crash tore."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def backwards(path: Path) -> Iterator[bytes]:
    """The whole lines of a file, the last one first, without their newlines. Raises OSError."""
    with path.open("rb") as file:
        at = file.seek(0, os.SEEK_END)
        rest, torn = b"", True  # what stands behind the last newline is not a line yet
        while at:
            size = min(BLOCK, at)
            at -= size
            file.seek(at)
            first, *others = (file.read(size) + rest).split(b"\n")
            if others and torn:
                others.pop()
                torn = False
            yield from reversed(others)
            rest = first if len(first) < LONGEST else b""
        if rest and not torn:
            yield rest


class LogReader:
    """Reads all files from the oldest line on; each `lines()` goes on where the last one ended, over rotations too."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._file: BinaryIO | None = None
        self._seen: set[tuple[int, int]] = set()  # device and inode, since rotation renames
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """The whole lines that came since the last call, oldest first. Raises OSError."""
        while True:
            if self._file is not None:
                yield from self._new_lines(self._file)
            if not self._open_next():
                return

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open_next(self) -> bool:
        for path in log_files(self._log_dir):
            try:
                file = path.open("rb")
            except FileNotFoundError:  # rotated away just now: it is found under its new name
                continue
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) not in self._seen:
                self.close()
                self._seen.add((found.st_dev, found.st_ino))
                self._file, self._rest = file, b""
                return True
            file.close()
        return False

    def _new_lines(self, file: BinaryIO) -> Iterator[bytes]:
        while block := file.read(BLOCK):
            *lines, self._rest = (self._rest + block).split(b"\n")
            if len(self._rest) > LONGEST:
                self._rest = b""
            yield from lines
