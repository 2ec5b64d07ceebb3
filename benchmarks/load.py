"""Cheap clients: rounds come in on standard input, one JSON object per line, and results go out on standard output.

Each client is one kept connection on an `asyncio.Protocol`: it writes prepared bytes, finds the end of the answer by
Content-Length or the last chunk, and asks again at once. It knows nothing of the contenders, only its `Round`.
"""

import asyncio
import gc
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from typing import Final, cast

import uvloop

from benchmarks.node import MODEL, STAMP, STAMP_DIGITS, TOKENS, TOKENS_PER_S

END_OF_CHUNKS: Final = b"0\r\n\r\n"
LAST_ANSWERS_S: Final = 20.0
OPENING_S: Final = 1.0  # paced streams begin spread over this long, so that their tokens do not come in step
SYSTEM: Final = "You are a concise assistant. Answer in one sentence and in the language of the question."


@dataclass(frozen=True, slots=True)
class Round:
    """What to do for how long: `clients` at once, first `warm_s` that do not count, then `seconds` that do.

    With `paths` each client gets these in turn, else it chats: `stream` or not, `paced` by the node or at once.
    """

    port: int
    clients: int
    seconds: float
    warm_s: float = 0.2
    stream: bool = False
    paced: bool = False
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round gave. Times in ms; `all_requests` counts those outside the window too, `delay` is a token's way."""

    requests: int
    all_requests: int
    window_s: float
    p50_ms: float
    p99_ms: float
    tokens: int
    delay_p50_ms: float
    delay_p99_ms: float
    failed: int
    failure: str


class Tally:
    """What all clients of a round share: the window, and what fell into it."""

    def __init__(self) -> None:
        self.open = False
        self.stopping = False
        self.seconds: list[float] = []
        self.delays: list[int] = []
        self.requests = 0
        self.failed = 0
        self.failure = ""
        self.busy = 0
        self.idle = asyncio.Event()

    def fail(self, why: str) -> None:
        """An answer was no answer."""
        self.failed += 1
        self.failure = self.failure or why
        self.stopping = True


class Client(asyncio.Protocol):
    """One client: asks, reads to the end, asks again until the round stops."""

    def __init__(self, tally: Tally, requests: list[bytes]) -> None:
        self._tally = tally
        self._requests = requests
        self._asked = 0
        self._waiting = False
        self._began = 0.0
        self._buffer = b""
        self._left = 0  # bytes to come of an answer with a length; -1: chunked; 0: the head is awaited
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are none by name

    def ask(self) -> None:
        """Send the next request, or end where the round is over."""
        if self._tally.stopping:
            self._transport.close()
            return
        self._tally.busy += 1
        self._waiting = True
        request = self._requests[self._asked % len(self._requests)]
        self._asked += 1
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """A part of the answer."""
        if not self._left:
            data = self._buffer + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            self._buffer = b""
            data = self._read_head(data, end)
        if self._left < 0:
            self._read_chunks(data)
            return
        self._left -= len(data)
        if not self._left:
            self._ended()

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever closes a connection within an answer did not answer."""
        if self._waiting:
            self._tally.fail(f"the connection closed within an answer: {error}")
            self._waiting = False
            self._leave()

    def _read_head(self, data: bytes, end: int) -> bytes:
        """Note how the body ends; returns what there is of it."""
        if data[9:12] != b"200":
            self._tally.fail(data.decode("latin-1")[:500])
        head = data[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            self._left = -1
        else:
            self._left = int(head[at + 17 :].split(b"\r\n", 1)[0])
        return data[end + 4 :]

    def _read_chunks(self, data: bytes) -> None:
        """Look for stamps and for the end; frames end with newlines, so only the last line can be incomplete."""
        data = self._buffer + data
        if STAMP in data and self._tally.open:
            self._read_stamps(data)
        if data.endswith(END_OF_CHUNKS):
            self._buffer = b""
            self._left = 0
            self._ended()
        else:
            self._buffer = b"" if data.endswith(b"\n\r\n") else data[data.rfind(b"\n", 0, -2) + 1 :]

    def _read_stamps(self, data: bytes) -> None:
        now = time.monotonic_ns() // 1000
        at = data.find(STAMP)
        complete = data.rfind(b"\n")
        while 0 <= at < complete:
            begin = at + len(STAMP)
            self._tally.delays.append(now - int(data[begin : begin + STAMP_DIGITS]))
            at = data.find(STAMP, begin)

    def _ended(self) -> None:
        tally = self._tally
        tally.requests += 1
        if tally.open:
            tally.seconds.append(time.perf_counter() - self._began)
        self._waiting = False
        self._leave()
        self.ask()

    def _leave(self) -> None:
        self._tally.busy -= 1
        if self._tally.stopping and not self._tally.busy:
            self._tally.idle.set()


def prepared(ask: Round) -> list[bytes]:
    """The requests of a round as bytes."""
    host = f"Host: 127.0.0.1:{ask.port}\r\nUser-Agent: bench\r\nAccept: */*\r\n"
    if ask.paths:
        return [f"GET {path} HTTP/1.1\r\n{host}\r\n".encode() for path in ask.paths]
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Why is the sky blue?"}]
    document = {"model": MODEL, "messages": messages, "stream": ask.stream, "max_tokens": TOKENS}
    if ask.paced:
        document["paced_tokens"] = int((ask.seconds + ask.warm_s + OPENING_S) * TOKENS_PER_S)
    body = json.dumps(document).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\n{host}Accept-Encoding: gzip, deflate\r\nAuthorization: Bearer any\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return [head.encode() + body]


async def run(ask: Round) -> Outcome:
    """Do a round; says on output when its window begins and ends."""
    loop, tally = asyncio.get_running_loop(), Tally()
    requests = prepared(ask)
    clients = []
    for _ in range(ask.clients):
        _, client = await loop.create_connection(lambda: Client(tally, requests), "127.0.0.1", ask.port)
        clients.append(client)
    for client in clients:
        client.ask()
        if ask.paced:
            await asyncio.sleep(OPENING_S / ask.clients)
    await asyncio.sleep(ask.warm_s)
    say({"phase": "begin"})
    tally.open, began = True, time.perf_counter()
    await asyncio.sleep(ask.seconds)
    tally.open, window_s = False, time.perf_counter() - began
    say({"phase": "end"})
    tally.stopping = True
    async with asyncio.timeout(LAST_ANSWERS_S):
        if tally.busy:
            await tally.idle.wait()
    seconds, delays = sorted(tally.seconds), sorted(tally.delays)
    return Outcome(
        len(seconds), tally.requests, window_s, percentile(seconds, 0.5) * 1e3, percentile(seconds, 0.99) * 1e3,
        len(delays), percentile(delays, 0.5) / 1e3, percentile(delays, 0.99) / 1e3, tally.failed, tally.failure,
    )  # fmt: skip


def percentile(ordered: list[float] | list[int], share: float) -> float:
    """By nearest rank; 0 of nothing."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0


def say(document: dict[str, object]) -> None:
    """One line of output, at once."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Do the rounds that standard input asks for, until it ends."""
    for line in sys.stdin:
        gc.collect()
        gc.disable()  # a collection of ours would be a latency of theirs
        say(asdict(uvloop.run(run(Round(**json.loads(line))))))


if __name__ == "__main__":
    main()
