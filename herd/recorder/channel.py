"""One recorder process and the two pipes to it, without an event loop: whoever has one says when to write and to read.

Writing never waits: what the pipe has no room for stays here, and no more is packed before it is gone.
"""

import fcntl
import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from herd.recorder.frames import ITEMS, Report, Splitter, framed, report_in
from herd.recorder.outbox import Outbox
from herd.recorder.packing import Packer, plain

logger = logging.getLogger(__name__)

COMMAND: Final = (sys.executable, "-m", "herd.recorder")
PIPE_BYTES: Final = 2**20  # a second of a busy router, where the system allows it
BATCH: Final = 32  # events in a frame
CHUNK: Final = 2**16
DEFECTS: Final = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Channel:
    """A recorder that was started, and is first sent `beginning`. OSError where none can be."""

    def __init__(self, beginning: bytes, command: Sequence[str] = COMMAND) -> None:
        theirs, self.output = os.pipe()
        self.input, theirs_too = os.pipe()
        try:
            with suppress(OSError, AttributeError):  # Linux, and only so much for each user
                fcntl.fcntl(self.output, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            os.set_blocking(self.output, False)
            os.set_blocking(self.input, False)
            # In a session of its own: a Ctrl-C on the router's terminal is for the router, which ends it in order.
            self.process = subprocess.Popen(
                [*command, str(theirs), str(theirs_too)],
                pass_fds=(theirs, theirs_too), stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        except OSError:
            os.close(self.output)
            os.close(self.input)
            raise
        finally:
            os.close(theirs)
            os.close(theirs_too)
        self._packer = Packer()
        self._splitter = Splitter()
        self._orders: deque[bytes] = deque()
        self._rest = memoryview(beginning)
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether the pipe took less than it was given."""
        return bool(self._rest)

    def tell(self, message: bytes) -> None:
        """Have a message sent behind everything that is to be sent by then."""
        self._orders.append(message)

    def send(self, outbox: Outbox, batches: int) -> bool:
        """Write so many batches of what is to be sent, as far as the pipe takes them; True where nothing is left.

        Raises OSError where nobody reads any more.
        """
        while True:
            if self._rest:
                self._rest = self._rest[self._write(self._rest) :]
            if self._rest:
                return False
            if outbox.unsent and not batches:
                return False
            if outbox.unsent:
                batches -= 1
                self._rest = memoryview(self._frame(outbox))
            elif self._orders:
                self._rest = memoryview(self._orders.popleft())
            else:
                return True

    def reports(self) -> list[Report] | None:
        """What the recorder told since this was last asked; None where it will tell no more."""
        try:
            data = os.read(self.input, CHUNK)
        except BlockingIOError:
            return []
        return [report_in(message) for message in self._splitter.feed(data)] if data else None

    def close(self) -> None:
        """Let go of the pipes: the recorder writes what it has, and ends."""
        if not self._closed:
            self._closed = True
            os.close(self.output)
            os.close(self.input)

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self.output, data)
        except BlockingIOError:
            return 0

    def _frame(self, outbox: Outbox) -> bytes:
        packed: list[tuple[Any, ...]] = []
        for entry, repeat in outbox.to_send(BATCH):
            try:
                packed.append((entry.lanes, entry.at, repeat, *self._packer.pack(entry.item)))
            except DEFECTS:
                outbox.give_up(entry)
                logger.exception("A %s cannot be recorded", type(entry.item).__name__)
        message = (ITEMS, *self._packer.shared(), packed)
        try:
            return framed(message)
        except ValueError:
            return framed(plain(message))
