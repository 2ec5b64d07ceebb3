"""Stands in for `Upstream`: each node answers from scripts, without a socket, so that a test says what happens when.

A script is a list of steps: a `Head` (where none is given, a stream's with 200 comes before the first bytes), bytes of
the body, an AttemptError that the exchange raises there, an Event that is waited for, seconds that pass, or SILENCE
until the answer is due; HANG is an exchange that misses even that, as a defect of ours would have it. The answer that a
reader holds is the real `Answer`; only its connection is played.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import AsyncIterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from herd.core import errors
from herd.dataplane.exchange import Answer
from herd.dataplane.http1 import Late

SILENCE, HANG = math.inf, "hang"


@dataclass
class Head:
    """What an answer begins with; `length` is the Content-Length, `reconnected` that a kept connection was closed."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/x-ndjson"})
    length: int | None = None
    reconnected: bool = False


STREAM = Head()
EVENTS = Head(headers={"content-type": "text/event-stream"})
JSON = Head(headers={"content-type": "application/json"})


class Played:
    """One connection: the fields of `http1.Connection` that an `Answer` reads."""

    def __init__(self, script):
        self.script = list(script)
        self.pieces, self.error, self.complete = [], None, False
        self.status, self.headers, self.content_length = 0, [], None

    async def arrival(self, due_at):
        """Play the next step, or as much of it as is over by then."""
        step = self.script.pop(0) if self.script else None
        if isinstance(step, errors.AttemptError):
            raise step
        if step is HANG:
            await asyncio.Event().wait()
        elif isinstance(step, asyncio.Event | int | float):
            await self.wait(step, due_at)
        elif step is None:
            self.complete = True
        else:
            self.pieces.append(step)

    async def wait(self, step, due_at):
        """Let time pass, until something happens or the node is late."""
        moving = step.wait() if isinstance(step, asyncio.Event) else asyncio.sleep(min(step, 1e9))
        try:
            async with asyncio.timeout_at(due_at):
                await moving
        except TimeoutError:
            self.error = Late()

    async def begin(self, due_at):
        """Play up to the head, and take it in."""
        while self.script and not isinstance(self.script[0], Head | bytes):
            await self.arrival(due_at)
            if self.error:
                raise errors.FirstByteTimeout("the node sent no content in time")
        head = self.script.pop(0) if self.script and isinstance(self.script[0], Head) else STREAM
        self.status, self.content_length = head.status, head.length
        self.headers = [(name.encode(), value.encode()) for name, value in head.headers.items()]
        return head

    def take(self):
        """What came."""
        return self.pieces.pop()


class ScriptedUpstream:
    """`scripts` are each node's, by the host of its URL, in the order of its calls; the last one again for all more."""

    def __init__(self, **scripts):
        self.scripts = scripts
        self.calls, self.bodies = [], []
        self.asked = defaultdict(int)
        self.open = 0
        self.dead = set()

    async def lives(self, url, within_s):
        """As Upstream's: all but those that a test calls dead."""
        return url.split("/")[2].partition(":")[0] not in self.dead

    @asynccontextmanager
    async def exchange(self, call, due_at):
        """As Upstream's."""
        host = call.url.split("/")[2].partition(":")[0]
        scripts = self.scripts[host]
        played = Played(scripts[min(self.asked[host], len(scripts) - 1)])
        self.calls.append(call)
        self.asked[host] += 1
        self.open += 1
        try:
            if isinstance(call.body, AsyncIterable):  # the node reads all of it before it answers
                self.bodies.append([part async for part in call.body])
            head = await played.begin(due_at)
            yield Answer(played, due_at, head.reconnected)
        finally:
            self.open -= 1

    @property
    def tried(self):
        """The hosts in the order in which they were asked."""
        return [call.url.split("/")[2].partition(":")[0] for call in self.calls]
