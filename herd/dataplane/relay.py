"""The way of an answer's bytes from one node to one client, with every time limit on it.

Nothing goes to the client before the first content, so that until then another node may still answer.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from herd import errors
from herd.config import Settings
from herd.dataplane.answer import decision_headers
from herd.dataplane.client import Client
from herd.dataplane.dialects import Shape
from herd.dataplane.frames import told_in
from herd.dataplane.life import Life
from herd.dataplane.tap import WHOLE_LIMIT, Tap, WholeTap
from herd.dataplane.upstream import (
    CLIENT_ERRORS,
    ERROR_BODY_LIMIT,
    Upstream,
    as_attempt_error,
    read_limited,
    response_headers,
    status_error,
)


@dataclass(frozen=True, slots=True)
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
    """One attempt: its answer, from the node's headers to the client's last byte."""

    def __init__(self, life: Life, client: Client, limits: Limits, strip_usage: bool) -> None:
        assert life.request is not None
        self._life = life
        self._client = client
        self._limits = limits
        self._stream = life.request.stream
        self._strip_usage = strip_usage
        self._answered = False
        self._began = asyncio.get_running_loop().time()

    async def run(self, upstream: Upstream, headers: Mapping[str, str], payload: bytes) -> None:
        """Send the request and relay its answer; raises an AttemptError of the tree."""
        url = self._life.attempts[-1].url + self._life.endpoint.path
        try:
            async with asyncio.timeout_at(self._deadline()):
                opened = await upstream.open("POST", url, headers, payload)
            self._answered = True
            self._life.answered(opened.response.status, opened.reconnected)
            try:
                await self._relay(opened.response)
            finally:
                opened.response.close()  # a body that was read to its end has gone back to the pool before
        except CLIENT_ERRORS as failure:
            raise as_attempt_error(failure, self._life.first_content_at is not None, self._answered) from failure

    async def _relay(self, response: aiohttp.ClientResponse) -> None:
        if response.status >= 400:
            await self._refuse(response)
        elif self._stream and response.content_type != "application/json":
            await self._relay_stream(response)
        else:
            await self._relay_whole(response)

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        async with asyncio.timeout(self._limits.stall_s):
            body, _ = await read_limited(response, ERROR_BODY_LIMIT, self._limits.stall_s)
        error = status_error(response.status, told_in(body))
        if isinstance(error, errors.Upstream4xx | errors.NodeCannot):
            error.answer = errors.NodeAnswer(response.status, response_headers(response), body)
        raise error

    async def _relay_stream(self, response: aiohttp.ClientResponse) -> None:
        tap = Tap(self._life.endpoint.shape, self._strip_usage)
        held: list[bytes] = []
        try:
            while chunk := await self._next_chunk(response):
                seen = tap.content_frames
                held.append(tap.feed(chunk))
                if tap.content_frames > seen:
                    self._life.content()
                if tap.failed and not self._client.started:
                    raise _failure_in_band(tap)
                if tap.content_frames or tap.ended or tap.commented:
                    await self._pass_on(response, held)
                if tap.failed:
                    raise errors.StreamAborted(f"the node's answer failed: {tap.error or tap.malformed}")
            await self._end_stream(response, tap, held)
        finally:
            self._life.usage, self._life.content_frames = tap.usage(), tap.content_frames
            self._life.spoken = tap.spoken
            self._client.broken_line = tap.broken_line
            if tap.error:  # the node's own error frame went to the client already
                self._client.last_words = b"data: [DONE]\n\n" if self._life.endpoint.shape is Shape.OPENAI else b""

    async def _pass_on(self, response: aiohttp.ClientResponse, held: list[bytes]) -> None:
        if not self._client.started:
            extra = [(b"x-accel-buffering", b"no")]
            await self._client.start(response.status, response_headers(response) + decision_headers(self._life) + extra)
        chunk = b"".join(held)
        held.clear()
        self._life.due_at = self._life.clock.now() + self._limits.stall_s  # a client that reads nothing stalls, too
        await self._client.write(chunk)

    async def _end_stream(self, response: aiohttp.ClientResponse, tap: Tap, held: list[bytes]) -> None:
        held.append(tap.close())
        if tap.failed and not self._client.started:
            raise _failure_in_band(tap)
        if not tap.ended:
            raise errors.StreamAborted("the node's stream ended without its proper end")
        await self._pass_on(response, held)
        await self._client.finish()

    async def _relay_whole(self, response: aiohttp.ClientResponse) -> None:
        # An engine begins such an answer when it is done, so what follows its headers should follow at once.
        async with asyncio.timeout_at(self._began + self._limits.total_s):
            body, complete = await read_limited(response, WHOLE_LIMIT, self._limits.stall_s)
        tap = WholeTap(self._life.endpoint.shape)
        if complete:
            tap.read(body)
        if not tap.only_loaded:
            self._life.content()
        if complete:
            self._life.usage, self._life.spoken = tap.usage(), tap.spoken
            if tap.malformed:
                raise errors.BadResponse(tap.malformed, response.status)
            if tap.error:
                raise errors.Upstream5xx(tap.error, response.status)
        headers = response_headers(response) + decision_headers(self._life)
        if complete:
            headers.append((b"content-length", str(len(body)).encode()))
        await self._client.start(response.status, headers)
        if not complete:
            await self._client.write(body)
            body = b""
            while chunk := await self._next_chunk(response):
                await self._client.write(chunk)
        await self._client.finish(body)
        if complete and not tap.ended:
            raise errors.StreamAborted("the node's answer says itself that it is not done")

    async def _next_chunk(self, response: aiohttp.ClientResponse) -> bytes:
        deadline = self._deadline()
        self._life.due_at = self._life.clock.now() + deadline - asyncio.get_running_loop().time()
        async with asyncio.timeout_at(deadline):
            return await response.content.readany()

    def _deadline(self) -> float:
        """The loop's time until which the next bytes must be here."""
        end = self._began + self._limits.total_s
        if not self._stream:
            return end  # an answer that does not stream sends nothing until it is done
        if self._life.first_content_at is None:
            return min(end, self._began + self._limits.first_byte_s)
        return min(end, asyncio.get_running_loop().time() + self._limits.stall_s)


def _failure_in_band(tap: Tap) -> errors.AttemptError:
    if tap.malformed:
        return errors.BadResponse(tap.malformed, 200)
    return errors.Upstream5xx(tap.error or "", 200)
