"""The router's tie to its recorder, on the event loop: keeps one running, and brings it what is in the outbox.

Nothing here waits on a request's path. A recorder that dies is replaced, and the next one gets what that one was not
done with.
"""

import asyncio
import logging
import select
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from herd.recorder.channel import Channel
from herd.recorder.frames import END, HURRY, Beginning, Report, beginning_out, framed
from herd.recorder.outbox import Outbox

logger = logging.getLogger(__name__)

BURST: Final = 1  # batches that are packed in one turn of the event loop
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0
REAP_EVERY_S: Final = 0.01
STEADY_S: Final = 10.0  # a recorder that lived so long is replaced at once


@dataclass(slots=True)
class Waiter:
    """Somebody who waits until the recorder has come somewhere."""

    reached: Callable[[], bool]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Link:
    """`beginning` gives the first message to a recorder; `heard` gets each report, None where a recorder has gone."""

    def __init__(
        self,
        outbox: Outbox,
        beginning: Callable[[], Beginning],
        heard: Callable[[Report | None], None],
        start: Callable[[bytes], Channel] = Channel,
    ) -> None:
        self._outbox = outbox
        self._beginning = beginning
        self._heard = heard
        self._start = start
        self._channel: Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = False
        self._full = False
        self._ending = False
        self._pause = FIRST_PAUSE_S
        self._started_at = 0.0
        self._waiters: list[Waiter] = []
        self._dying: subprocess.Popen[bytes] | None = None
        self.left: subprocess.Popen[bytes] | None = None  # what goes on by itself after `end`

    @property
    def pid(self) -> int | None:
        """The recorder's process, if there is one."""
        return self._channel.process.pid if self._channel else None

    def launch(self) -> None:
        """Start a recorder; where none can be started, the next one is tried later."""
        self._started_at = time.monotonic()
        try:
            self._channel = self._start(beginning_out(self._beginning()))
        except OSError as error:
            logger.warning("The recorder cannot be started: %s", error)
            self._again()
            return
        self._listen()

    def attach(self) -> None:
        """Use the running event loop from now on."""
        self._loop = asyncio.get_running_loop()
        if self._channel is None:
            self.launch()
        else:
            self._listen()

    def wake(self) -> None:
        """There is something to send: it goes at the end of this turn of the event loop, with what else there is."""
        if not self._woken and self._loop is not None:
            self._woken = True
            self._loop.call_soon(self._send)

    def tell(self, *message: object) -> None:
        """Send a message that is no event; a recorder that is started later knows it from its beginning."""
        if self._channel is not None:
            self._channel.tell(framed(message))
            self.wake()

    async def wait(self, reached: Callable[[], bool], timeout: float) -> bool:
        """Wait until something is so after a report; False where `timeout` seconds were not enough."""
        if reached():
            return True
        waiter = Waiter(reached)
        self._waiters.append(waiter)
        self.tell(HURRY)
        try:
            async with asyncio.timeout(timeout):
                await waiter.done
        except TimeoutError:
            return False
        finally:
            self._waiters.remove(waiter)
        return True

    async def end(self, timeout: float) -> bool:
        """Have everything written and the recorder end; False where `timeout` seconds were not enough.

        It goes on by itself for a while then, and ends.
        """
        self._ending = True
        deadline = time.monotonic() + timeout
        channel = self._channel
        if channel is None:
            self.left = self._dying
            return False
        self.tell(END, timeout)
        ended = await self.wait(lambda: self._channel is None, timeout)
        if self._channel is not None:
            self._unlisten(self._channel)
            self._channel.close()
            self._channel = None
        try:
            await asyncio.to_thread(channel.process.wait, max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.left = channel.process
        return ended

    def last_words(self, timeout: float) -> None:
        """Bring what waits into the pipe without an event loop: the interpreter ends."""
        channel = self._channel
        end = time.monotonic() + timeout
        with suppress(OSError):
            while channel is not None and not channel.send(self._outbox, BURST) and time.monotonic() < end:
                if channel.full:
                    select.select([], [channel.output], [], end - time.monotonic())

    def _listen(self) -> None:
        if self._loop is not None and self._channel is not None:
            self._loop.add_reader(self._channel.input, self._read)
            self.wake()

    def _unlisten(self, channel: Channel) -> None:
        if self._loop is not None:
            self._loop.remove_reader(channel.input)
            if self._full:
                self._loop.remove_writer(channel.output)
        self._full = False

    def _send(self) -> None:
        self._woken = False
        channel = self._channel
        if channel is None:
            return
        try:
            sent = channel.send(self._outbox, BURST)
        except OSError:
            self._read()  # what it told before it died is true
            self._gone(channel)
            return
        if channel.full != self._full and self._loop is not None:
            self._full = channel.full
            if self._full:
                self._loop.add_writer(channel.output, self._send)
            else:
                self._loop.remove_writer(channel.output)
        if not sent and not self._full:
            self.wake()

    def _read(self) -> None:
        channel = self._channel
        reports = channel.reports() if channel else []
        for report in reports or ():
            self._heard(report)
        if channel is not None and reports is None:
            self._gone(channel)
        for waiter in self._waiters:
            if not waiter.done.done() and waiter.reached():
                waiter.done.set_result(None)

    def _gone(self, channel: Channel) -> None:
        if self._channel is not channel:
            return
        self._unlisten(channel)
        self._channel = None
        channel.close()
        if not self._ending:
            channel.process.kill()  # it may live without its pipe: two of them would write every line twice
        self._outbox.begin_again()
        self._heard(None)
        self._dying = channel.process
        self._reap(channel)

    def _reap(self, channel: Channel) -> None:
        """Wait for the process's end, and have another begin."""
        code = channel.process.poll()
        if code is None and self._loop is not None:
            self._loop.call_later(REAP_EVERY_S, self._reap, channel)
            return
        self._dying = None
        if not self._ending:
            logger.warning(
                "The recorder ended (exit status %s): another begins, with what this one had not written", code
            )
            self._again()

    def _again(self) -> None:
        steady = time.monotonic() - self._started_at > STEADY_S
        self._pause = FIRST_PAUSE_S if steady else min(self._pause * 2, LONGEST_PAUSE_S)
        if self._loop is not None and not self._ending:
            self._loop.call_later(self._pause, self._relaunch)

    def _relaunch(self) -> None:
        if not self._ending and self._channel is None:
            self.launch()
