"""The log file: complete lines only, rotation at midnight UTC, a limited number of old files.

It writes past every buffer, so that after a full disk it is known which lines are there and which are not.
"""

import logging
import os
from contextlib import suppress
from logging.handlers import TimedRotatingFileHandler
from pathlib import Path

ANY_RECORD = logging.makeLogRecord({})


class LogFile:
    """Appends lines; used by one thread. Opens on first write, and again if the file was moved away."""

    def __init__(self, path: Path, files_kept: int = 30) -> None:
        self._path = path
        self._files_kept = files_kept
        self._fd: int | None = None
        self._rotation: TimedRotatingFileHandler | None = None

    def write(self, data: bytes) -> int:
        """Append lines; returns how many of them are in the file, which after a full disk is less than all.

        Raises OSError where not even the first could be written.
        """
        fd = self._open()
        before = os.fstat(fd).st_size
        written = 0
        try:
            while written < len(data):
                written += os.write(fd, memoryview(data)[written:])
        except OSError:
            whole = data.rfind(b"\n", 0, written) + 1
            with suppress(OSError):
                os.ftruncate(fd, before + whole)  # no half line stays behind for the next to be glued to
            if not whole:
                raise
            return data.count(b"\n", 0, whole)
        return data.count(b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        rotation = self._rotation
        if rotation is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            rotation = self._rotation = TimedRotatingFileHandler(
                self._path, when="midnight", utc=True, backupCount=self._files_kept, delay=True, encoding="ascii"
            )
        if rotation.shouldRollover(ANY_RECORD):
            self.close()
            with suppress(OSError):  # a folder that lets no file be renamed still takes lines
                rotation.doRollover()
        if self._fd is not None and self._moved(self._fd):
            self.close()
        if self._fd is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                _end_half_line(fd)
            except OSError:
                os.close(fd)
                raise
            self._fd = fd
        return self._fd

    def _moved(self, fd: int) -> bool:
        """Whether another program renamed or removed the file."""
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(fd))
        except FileNotFoundError:
            return True


def _end_half_line(fd: int) -> None:
    """Terminate a line truncated by a kill or a power cut, so that the next one is intact."""
    size = os.fstat(fd).st_size
    if size and os.pread(fd, 1, size - 1) != b"\n":
        os.write(fd, b"\n")
