"""CPU that one exchange with a node costs, herd's own client beside aiohttp's: `python -m benchmarks.client`.

A scripted server in a process of its own answers with bytes that are made beforehand. Both clients are measured in one
process, in turn, with the deadlines that a router has to keep; a figure is the median of several rounds. Only the ratio
of two figures of one line says something about another machine.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import uvloop

from herd.dataplane.exchange import Call, Upstream

FIRST_BYTE_S, SILENCE_S = 60.0, 30.0
BODY = b'{"model": "llama3.2:3b", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}'
HEADERS = [(b"content-type", b"application/json"), (b"user-agent", b"benchmark"), (b"accept", b"*/*")]
PIECE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
ANSWER_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n%b\r\n\r\n"
WHOLE = ANSWER_HEAD % (b"application/json", b"Content-Length: 600") + b"{" + b" " * 598 + b"}"
STREAM_HEAD = ANSWER_HEAD % (b"text/event-stream", b"Transfer-Encoding: chunked")
PACE_S = 0.002


class Scripted(asyncio.Protocol):
    """Answers by the path: /whole with one length, /burst/n in n chunks at once, /paced/n in one after the other.

    /closing/n is /burst/n, after which the connection closes.
    """

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0 and len(self.received) >= end + 4 + len(BODY):
            self.answer(self.received.split(b" ", 2)[1].decode().strip("/").split("/"))
            self.received = self.received[end + 4 + len(BODY) :]

    def answer(self, path: list[str]) -> None:
        """Begin the answer to one request."""
        if path[0] == "whole":
            self.transport.write(WHOLE)
        elif path[0] == "burst":
            self.transport.write(STREAM_HEAD + CHUNK * int(path[1]) + b"0\r\n\r\n")
        elif path[0] == "closing":
            head = STREAM_HEAD.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
            self.transport.write(head + CHUNK * int(path[1]) + b"0\r\n\r\n")
            self.transport.close()
        else:
            self.transport.write(STREAM_HEAD)
            self.pace(int(path[1]))

    def pace(self, left: int) -> None:
        """Send a chunk, and the others after it."""
        if left:
            self.transport.write(CHUNK)
            asyncio.get_running_loop().call_later(PACE_S, self.pace, left - 1)
        else:
            self.transport.write(b"0\r\n\r\n")


async def serve() -> None:
    """Serve until the other end of standard input is closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Scripted, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


Ask = Callable[[str], Awaitable[int]]


def with_herd(upstream: Upstream) -> Ask:
    """One exchange by herd's client; returns the size of the body."""
    clock = asyncio.get_running_loop().time

    async def ask(url: str) -> int:
        size = 0
        async with upstream.exchange(Call("POST", url, HEADERS, BODY), clock() + FIRST_BYTE_S) as answer:
            while chunk := await answer.read():
                size += len(chunk)
                answer.due_at = clock() + SILENCE_S
        return size

    return ask


def with_aiohttp(session: aiohttp.ClientSession) -> Ask:
    """The same by aiohttp's client, as a router uses it."""
    headers = {name.decode(): value.decode() for name, value in HEADERS}

    async def ask(url: str) -> int:
        size = 0
        async with asyncio.timeout(FIRST_BYTE_S):
            answer = await session.request("POST", url, data=BODY, headers=headers, allow_redirects=False)
        try:
            while True:
                async with asyncio.timeout(SILENCE_S):
                    chunk = await answer.content.readany()
                if not chunk:
                    return size
                size += len(chunk)
        finally:
            answer.close()

    return ask


@dataclass(frozen=True, slots=True)
class Workload:
    """What is asked, how often in a round, and how many at once; `size` is that of the body which must come."""

    name: str
    path: str
    count: int
    at_once: int
    size: int


def workloads(scale: float) -> list[Workload]:
    """The lines of the table."""
    return [
        Workload("whole answer, 1 at a time", "/whole", int(2000 * scale), 1, 600),
        Workload("whole answer, 32 at once", "/whole", int(4000 * scale), 32, 600),
        Workload("stream of 16 chunks at once, 32 at once", "/burst/16", int(3000 * scale), 32, 16 * len(PIECE)),
        Workload("the same, its connection then closed", "/closing/16", int(1000 * scale), 32, 16 * len(PIECE)),
        Workload("stream of 200 chunks at once, 32 at once", "/burst/200", int(800 * scale), 32, 200 * len(PIECE)),
        Workload("stream of 200 chunks, 2 ms apart, 8 at once", "/paced/200", int(24 * scale), 8, 200 * len(PIECE)),
    ]


async def cpu_of(ask: Ask, url: str, work: Workload) -> float:
    """Microseconds of this process's CPU time a request, over one round."""
    left = work.count

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            size = await ask(url + work.path)
            assert size == work.size, (size, work)

    began = time.process_time()
    await asyncio.gather(*(client() for _ in range(work.at_once)))
    return (time.process_time() - began) / work.count * 1e6


async def measure(url: str, rounds: int, scale: float) -> None:
    """Print the table."""
    upstream = Upstream(5.0)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    clients = {"aiohttp": with_aiohttp(session), "herd": with_herd(upstream)}
    print(f"CPU µs a request, median of {rounds} rounds in turn ({type(asyncio.get_running_loop()).__module__})\n")
    print("| workload | aiohttp | herd | herd : aiohttp |\n| --- | ---: | ---: | ---: |")
    try:
        for work in workloads(scale):
            found: dict[str, list[float]] = {name: [] for name in clients}
            for _ in range(rounds):
                for name, ask in clients.items():
                    found[name].append(await cpu_of(ask, url, work))
            theirs, ours = (statistics.median(found[name]) for name in ("aiohttp", "herd"))
            print(f"| {work.name} | {theirs:,.0f} | {ours:,.0f} | {ours / theirs:.2f} |")
    finally:
        await upstream.close()
        await session.close()


def main(argv: list[str] | None = None) -> None:
    """Start the server, measure, end it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="how many times the usual number of requests")
    parser.add_argument("--serve", action="store_true", help="be the scripted server")
    chosen: Any = parser.parse_args(argv)
    if chosen.serve:
        uvloop.run(serve())
        return
    command = [sys.executable, "-m", "benchmarks.client", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}"
        uvloop.run(measure(url, chosen.rounds, chosen.scale))
        server.stdin.close()


if __name__ == "__main__":
    main()
