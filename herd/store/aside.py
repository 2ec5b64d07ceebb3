"""A source of answers that another process reads from the database: whoever asks only waits.

That process is started with the first question at the latest, and again where it died. It holds no lock and writes
nothing, so a question that it died over is asked once more.
"""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

from herd.store.connections import Question, StoreUnreadable
from herd.store.reading import LET_GO, receive, send

P = ParamSpec("P")
T = TypeVar("T")
AT_ONCE: Final = 2
MODULE: Final = "herd.store.reading"
PATIENCE_S: Final = 5.0


class _Process:
    """One reading process with its sockets. OSError where none can be started."""

    def __init__(self, path: Path) -> None:
        pairs = [socket.socketpair() for _ in range(AT_ONCE + 1)]
        theirs = [other.fileno() for _, other in pairs]
        command = [sys.executable, "-m", MODULE, str(path), *map(str, theirs)]
        try:
            self.process = subprocess.Popen(command, pass_fds=theirs, stdin=subprocess.DEVNULL, start_new_session=True)
        except OSError:
            for ours, _ in pairs:
                ours.close()
            raise
        finally:
            for _, other in pairs:
                other.close()
        (self.life, _), *calls = pairs
        self._calls = [ours for ours, _ in calls]
        self.idle: SimpleQueue[socket.socket] = SimpleQueue()
        for each in self._calls:
            self.idle.put(each)

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait(PATIENCE_S)
        for each in (self.life, *self._calls):
            each.close()


class Aside:
    """The source; any thread may ask, and so many at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._closed = False

    def start(self) -> None:
        """Start the process before anybody asks; where that cannot be, the first question says so."""
        with suppress(StoreUnreadable):
            self._running()

    def read(self, empty: T, query: Question[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have a query run within one snapshot of the database; `empty` where nothing was stored.

        The query and what it is given must be picklable. Raises what the query raises, and StoreUnreadable.
        """
        for last in (False, True):
            process = self._running()
            try:
                with _borrowed(process) as peer:
                    send(peer, (empty, query, args, kwargs))
                    found, error = receive(peer)
                break
            except (EOFError, OSError) as gone:
                self._replace(process)
                if last:
                    raise StoreUnreadable(f"the trace store {self.path} cannot be read: its reader died") from gone
        if error is not None:
            raise error
        answer: T = found
        return answer

    def let_go(self) -> None:
        """Have every connection closed, those in use as soon as they are not; they are when this returns."""
        with self._lock:
            process = self._process
            if process is None:
                return
            try:
                process.life.settimeout(PATIENCE_S)
                process.life.sendall(LET_GO)
                process.life.recv(1)
            except OSError:
                return  # it has died, and so let go

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            process.end()

    def _running(self) -> _Process:
        with self._lock:
            if self._closed:
                raise StoreUnreadable(f"the trace store {self.path} is closed")
            if self._process is None:
                try:
                    self._process = _Process(self.path)
                except OSError as error:
                    raise StoreUnreadable(f"no process can be started to read {self.path}: {error}") from error
            return self._process

    def _replace(self, process: _Process) -> None:
        """It answers no more; the next question starts another."""
        with self._lock:
            if self._process is process:
                self._process = None
                process.end()


@contextmanager
def _borrowed(process: _Process) -> Iterator[Any]:
    """A socket that nobody else uses meanwhile."""
    peer = process.idle.get()
    try:
        yield peer
    finally:
        process.idle.put(peer)
