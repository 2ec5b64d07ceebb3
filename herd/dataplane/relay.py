"""The way of one attempt's answer from a node to a client, with every time limit on it.

Nothing goes to the client before the first content (or what tells of progress), so that until then another node may
still answer. `ended` freezes what was read of the answer, however that was.
"""

import asyncio
from collections.abc import Callable

from herd.core import errors
from herd.core.clock import Clock
from herd.core.dialects import Shape
from herd.core.events import Attempt, Usage
from herd.core.value import value
from herd.dataplane.client import Client, RawHeaders
from herd.dataplane.exchange import ERROR_BODY_LIMIT, Answer, Call, Upstream, status_error
from herd.dataplane.flights import Flight
from herd.dataplane.frames import told_in
from herd.dataplane.headers import response_headers
from herd.dataplane.phases import Attempted, Reading
from herd.dataplane.scan import Scanner, Seen, Summary
from herd.dataplane.whole import WHOLE_LIMIT, Whole, read_whole
from herd.settings.values import Settings

OF_A_GATEWAY = frozenset({502, 504})  # something in front of the engine says so, and it says nothing of the request
LOOP = errors.LoopDetected.status  # the node leads back to this router, or to one that leads back to it
HELD_LIMIT = 2**20  # bytes of a stream that are held back while no content comes
STREAMED = (b"x-accel-buffering", b"no")
DONE = b"data: [DONE]\n\n"


@value
class Limits:
    """Seconds: to the first content, of silence after it, and of the whole attempt."""

    first_byte_s: float
    stall_s: float
    total_s: float

    @classmethod
    def of(cls, settings: Settings, loaded: bool) -> "Limits":
        """The limits of an attempt; where the model has to be loaded first, the first content may take longer."""
        load_s = 0.0 if loaded else settings.number("load_timeout_s")
        return cls(
            first_byte_s=settings.number("first_byte_timeout_s") + load_s,
            stall_s=settings.number("stall_timeout_s"),
            total_s=settings.number("total_timeout_s"),
        )


class Relay:
    """One attempt: its answer, from the node's headers to the client's last byte.

    `headers` are herd's own, which describe the attempt; `strip_usage`: herd alone asked for usage.
    """

    def __init__(self, flight: Flight, limits: Limits, headers: RawHeaders, stream: bool, strip_usage: bool) -> None:
        self.on_first_content: Callable[[], None] = lambda: None
        self._http_status: int | None = None
        self._reconnected = False
        self._first_content_at: float | None = None
        self._flight = flight
        self._client: Client = flight.client
        self._clock: Clock = flight.phase.received.clock
        self._shape: Shape = flight.phase.received.endpoint.shape
        self._limits = limits
        self._headers = headers
        self._stream = stream
        self._scanner = Scanner(self._shape, strip_usage)
        self._whole: Whole | None = None
        self._told: Summary | None = None
        self._last_content_at: float | None = None
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._end = self._began + limits.total_s

    async def run(self, upstream: Upstream, call: Call) -> None:
        """Send the request and relay its answer; raises an AttemptError of the tree."""
        # An answer that does not stream sends nothing until it is done.
        first = min(self._end, self._began + self._limits.first_byte_s) if self._stream else self._end
        self._flight.due_at = first
        async with upstream.exchange(call, first) as answer:
            self._http_status, self._reconnected = answer.status, answer.reconnected
            if answer.status >= 400:
                raise await self._refusal(answer)
            if self._stream and not (answer.header(b"content-type") or b"").startswith(b"application/json"):
                await self._relay_stream(answer)
            else:
                await self._relay_whole(answer)

    def ended(self, attempted: Attempted, error: errors.AttemptError | None) -> Attempted:
        """The attempt as it is now, with what was read of the node's answer."""
        *before, begun = attempted.attempts
        ended = Attempt(  # not by `replace`, which takes ten times as long, for every request
            begun.number, begun.node_id, begun.model, begun.url, begun.span_id, begun.started_at, self._clock.now(),
            self._http_status, self._first_content_at, error.error_type if error else None,
            error.message if error else None, self._reconnected,
        )  # fmt: skip
        attempts = (*before, ended)
        return Attempted(attempted.decided, attempted.candidate, attempts, self.reading(), attempted.context)

    def reading(self) -> Reading:
        """What was read of the answer so far."""
        if self._whole is not None:
            usage, frames, spoken = self._whole.usage, 0, self._whole.spoken
        elif self._stream:
            told = self._told or self._scanner.summary()
            usage, frames, spoken = told.usage, told.content_frames, told.spoken
        else:
            usage, frames, spoken = Usage(), 0, True
        return Reading(usage, self._first_content_at, self._last_content_at, frames, spoken)

    async def _refusal(self, answer: Answer) -> errors.AttemptError:
        """The error that a node's status of 400 or more stands for."""
        self._move_on(answer)
        body, _ = await self._read(answer, ERROR_BODY_LIMIT)
        error = status_error(answer.status, told_in(body))
        if isinstance(error, errors.Upstream4xx | errors.NodeCannot) or answer.status == LOOP:
            error.answer = errors.NodeAnswer(answer.status, response_headers(answer.headers), body)
        elif isinstance(error, errors.Upstream5xx) and answer.status not in OF_A_GATEWAY:
            error.own = errors.NodeAnswer(answer.status, response_headers(answer.headers), body)
        return error

    async def _relay_stream(self, answer: Answer) -> None:
        client, scanner, held = self._client, self._scanner, b""
        seen: Seen | None = None
        try:
            while chunk := await answer.read():
                if client.started and scanner.known(chunk):
                    await self._pass_token(answer, chunk)
                    continue
                seen = scanner.read(chunk) if client.started else scanner.feed(chunk)
                if seen.content:
                    self._content(answer)
                if seen.failed and not client.started:
                    raise _failure_in_band(answer, seen, held)
                if client.started or seen.content or seen.ended or seen.passable:
                    await self._pass_on(answer, held + seen.forward if held else seen.forward)
                    held = b""
                else:
                    held = self._hold(held + seen.forward)
                if seen.failed:
                    raise self._broken(f"the node's answer failed: {seen.error or seen.malformed}")
                if self._first_content_at is not None:
                    self._move_on(answer)
                else:
                    self._flight.due_at = answer.due_at
            await self._end_stream(answer, held)
        finally:
            told = self._told = scanner.summary()
            client.broken_line = told.broken_line
            if told.cut_by_engine:
                client.last_words = b""  # the same end as without herd
            elif seen and seen.error:  # the node's own error frame went to the client already
                client.last_words = DONE if self._shape is Shape.OPENAI else b""

    async def _pass_token(self, answer: Answer, chunk: bytes) -> None:
        """Send on what is one more frame of content, as most of a stream is."""
        self._last_content_at = self._clock.now()
        self._flight.due_at = self._loop.time() + self._limits.stall_s
        await self._client.write(chunk)
        answer.due_at = self._flight.due_at = min(self._end, self._loop.time() + self._limits.stall_s)

    async def _end_stream(self, answer: Answer, held: bytes) -> None:
        seen = self._scanner.close()
        if seen.content:
            self._content(answer)
        if seen.failed and not self._client.started:
            raise _failure_in_band(answer, seen, held)
        if not seen.ended:
            raise self._broken("the node's stream ended without an end marker")
        await self._pass_on(answer, held + seen.forward)
        await self._client.finish()

    def _broken(self, text: str) -> errors.AttemptError:
        if self._scanner.summary().cut_by_engine:
            return errors.EngineGaveUp("the engine stopped the model, because it was repeating itself")
        return errors.StreamAborted(text)

    async def _pass_on(self, answer: Answer, chunk: bytes) -> None:
        client = self._client
        # A client that reads nothing stalls, too.
        self._flight.due_at = self._loop.time() + self._limits.stall_s
        if not client.started:
            await client.start(answer.status, [*response_headers(answer.headers), *self._headers, STREAMED])
        await client.write(chunk)

    async def _relay_whole(self, answer: Answer) -> None:
        # An engine begins such an answer when it is done, so what follows its headers should follow at once.
        self._move_on(answer)
        body, complete = await self._read(answer, WHOLE_LIMIT)
        whole = self._whole = read_whole(self._shape, body) if complete else Whole()
        if not whole.only_loaded:
            self._content(answer)
        if whole.malformed:
            raise errors.BadResponse(whole.malformed, answer.status)
        if whole.error:
            raise _in_band(answer, whole.error, body)
        headers = [*response_headers(answer.headers), *self._headers]
        client = self._client
        if complete:
            await client.answer(answer.status, headers, body)
        else:
            await client.start(answer.status, headers)
            await self._relay_rest(answer, body)
        if not whole.ended:
            raise errors.EngineGaveUp("the engine stopped the model, because it was repeating itself")

    async def _relay_rest(self, answer: Answer, body: bytes) -> None:
        """An answer too large to be read whole is passed on as it comes."""
        while body:
            self._flight.due_at = self._loop.time() + self._limits.stall_s
            await self._client.write(body)
            body = await answer.read()
            self._move_on(answer)
        await self._client.finish()

    async def _read(self, answer: Answer, limit: int) -> tuple[bytes, bool]:
        """The body until it is over a limit, and whether that is all of it."""
        parts: list[bytes] = []
        size = 0
        while chunk := await answer.read():
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                return b"".join(parts), False
            self._move_on(answer)
        return b"".join(parts), True

    def _hold(self, held: bytes) -> bytes:
        if len(held) > HELD_LIMIT:
            raise errors.BadResponse(f"the node sent {HELD_LIMIT >> 20} MiB without any content")
        return held

    def _content(self, answer: Answer) -> None:
        """Content came from the node just now."""
        now = self._last_content_at = self._clock.now()
        if self._first_content_at is None:
            self._first_content_at = now
            self.on_first_content()
            answer.content_seen = True

    def _move_on(self, answer: Answer) -> None:
        """Bytes came: the next ones have their own time."""
        answer.due_at = self._flight.due_at = min(self._end, self._loop.time() + self._limits.stall_s)


def _failure_in_band(answer: Answer, seen: Seen, held: bytes) -> errors.AttemptError:
    if seen.malformed is not None:
        return errors.BadResponse(seen.malformed, 200)
    return _in_band(answer, seen.error or "", held + seen.forward)


def _in_band(answer: Answer, message: str, body: bytes) -> errors.AttemptError:
    """An error that the node tells in an answer that began well."""
    error = errors.Upstream5xx(message, answer.status)
    error.own = errors.NodeAnswer(answer.status, response_headers(answer.headers), body)
    return error
