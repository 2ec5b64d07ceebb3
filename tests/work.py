"""Work counted instead of time: the calls and bytecodes that a router's event loop spends on one request.

`python -m tests.work FOLDER` prints them as JSON, and with `--top 40` the functions that cost the most. The router is
the whole ASGI application, called as its server calls it, with a real node on loopback that goes in step with the
client: each chunk leaves the node once the client has the one before, so that a chunk is always one read and one write
and the counts are the same on every machine. Other threads, other processes and this file are not counted.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, Self, cast

import uvloop

from herd import wire
from herd.app import Router
from herd.settings.load import load

RUNS: Final = 15  # what a timer does meanwhile only adds, so the least of some runs is the request's own work
CHUNKS: Final = (10, 110)
PATIENCE_S: Final = 30.0
GIB: Final = 1024**3
MODEL: Final = "llama3.2:3b"
Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Work:
    """Calls of Python functions and of C functions (a coroutine that goes on is a call), and bytecodes."""

    calls: int
    opcodes: int


class Counting:
    """Counts what this thread does inside the context, but for the code of this file."""

    def __init__(self) -> None:
        self.calls: Counter[CodeType] = Counter()
        self.opcodes: Counter[CodeType] = Counter()

    def __enter__(self) -> Self:
        sys.settrace(self._traced)
        sys.setprofile(self._profiled)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        sys.settrace(None)

    @property
    def work(self) -> Work:
        """What was counted."""
        return Work(self.calls.total(), self.opcodes.total())

    def less(self, other: "Counting", parts: int) -> list[tuple[str, float, float]]:
        """By function, what this is over another count, shared among so many: its name, calls and bytecodes."""
        found = [
            (f"{code.co_qualname} {'/'.join(code.co_filename.split('/')[-2:])}",
             (self.calls[code] - other.calls[code]) / parts, (self.opcodes[code] - other.opcodes[code]) / parts)
            for code in self.opcodes
        ]  # fmt: skip
        return sorted(found, key=lambda each: -each[2])

    def _profiled(self, frame: FrameType, event: str, _: object) -> None:
        if event in {"call", "c_call"} and frame.f_code.co_filename != __file__:
            self.calls[frame.f_code] += 1

    def _traced(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "call":
            if frame.f_code.co_filename == __file__:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        elif event == "opcode":
            self.opcodes[frame.f_code] += 1
        return self._traced


class Node(asyncio.Protocol):
    """A scripted upstream: it answers each request with its head and first part, and each further part when told."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._left: list[bytes] = []
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """A request, or its body where that comes by itself."""
        if data.endswith(b"}"):
            self._left = self.parts[::-1]
            self.go_on()

    def go_on(self) -> None:
        """Send the next part, if there is one."""
        if self._left:
            self._transport.write(self._left.pop())


class Client:
    """A client of an ASGI application that stays to the end; each part of its answer lets the node go on."""

    def __init__(self, app: App, node: Node) -> None:
        self._app = app
        self._node = node
        self._never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._body: bytes | None = None
        self.status = 0
        self.answer: list[bytes] = []

    async def ask(self, path: str, body: bytes) -> bytes:
        """POST and return the whole answer."""
        self._body, self.answer = body, []
        names = ((b"host", b"127.0.0.1:11435"), (b"user-agent", b"bench"), (b"content-type", b"application/json"))
        scope: Message = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [*names, (b"content-length", str(len(body)).encode())], "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 11435), "state": {},
        }  # fmt: skip
        await self._app(scope, self._receive, self._send)
        return b"".join(self.answer)

    async def _receive(self) -> Message:
        if self._body is None:
            return await self._never
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message.get("body"):
            self.answer.append(message["body"])
            self._node.go_on()


class Lifespan:
    """An ASGI application between its start and its end."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._said: asyncio.Queue[str] = asyncio.Queue()
        self._ends = asyncio.Event()
        self._begun = False

    async def __aenter__(self) -> None:
        self._task = asyncio.ensure_future(self._app({"type": "lifespan", "state": {}}, self._receive, self._send))
        await self._said.get()

    async def __aexit__(self, *_: object) -> None:
        self._ends.set()
        await self._task

    async def _receive(self) -> Message:
        if self._begun:
            await self._ends.wait()
            return {"type": "lifespan.shutdown"}
        self._begun = True
        return {"type": "lifespan.startup"}

    async def _send(self, message: Message) -> None:
        assert message["type"] in {"lifespan.startup.complete", "lifespan.shutdown.complete"}, message
        self._said.put_nowait(message["type"])


def chunk(data: bytes) -> bytes:
    """A chunk of a body whose length is not known."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def frame(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """A frame of an OpenAI stream, as Ollama writes it."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL,
                "system_fingerprint": "fp_ollama", "choices": [choice]}  # fmt: skip
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def whole_answer() -> list[bytes]:
    """An answer that does not stream."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "word " * 16}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 26, "completion_tokens": 16, "total_tokens": 42}
    body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice],
                       "usage": usage}).encode()  # fmt: skip
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return [head.encode() + body]


def stream_of(count: int) -> list[bytes]:
    """A stream of so many frames of content, each a chunk, and its end."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    frames = [chunk(frame({"role": "assistant", "content": f" word{number}"})) for number in range(count)]
    end = chunk(frame({"role": "assistant", "content": ""}, "stop")) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return [head + frames[0], *frames[1:], end]


def question(stream: bool) -> bytes:
    """A body that is as usual."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sky blue?"}]
    asked = {"stream_options": {"include_usage": False}} if stream else {}
    return json.dumps({"model": MODEL, "messages": messages, "stream": stream, "max_tokens": 16, **asked}).encode()


def heartbeat(url: str) -> bytes:
    """The heartbeat of a node that has the model in memory."""
    beat = wire.Heartbeat(
        node_id="scripted", sent_at=time.time(), cpu=wire.Cpu(cores=8),
        memory=wire.Memory(total_bytes=64 * GIB, used_bytes=8 * GIB, available_bytes=56 * GIB),
        engine=wire.Engine(
            kind="ollama", url=url, reachable=True, version="0.12.3", endpoints=list(wire.OLLAMA_ENDPOINTS),
            models=[wire.Model(name=MODEL, size_bytes=2 * GIB, context_length=8192)],
            loaded=[wire.LoadedModel(name=MODEL, size_bytes=3 * GIB, context_length=8192)],
        ),
    )  # fmt: skip
    return beat.model_dump_json().encode()


async def least(
    client: Client, node: Node, parts: list[bytes], stream: bool, settled: Callable[[float], Awaitable[bool]]
) -> Counting:
    """The count of the run that did least, after one that fills caches and opens the connection.

    The event is sent to the recorder in it; what the recorder tells of it comes when it likes, so before the next run.
    """
    node.parts, found = parts, []
    for run in range(RUNS + 1):
        with Counting() as counting:
            answer = await client.ask("/v1/chat/completions", question(stream))
            await asyncio.sleep(0)
        assert await settled(PATIENCE_S)
        assert client.status == 200, answer
        assert not stream or len(client.answer) == len(parts), "a chunk is one read and one write"
        if run:
            found.append(counting)
    return min(found, key=lambda each: each.work.opcodes)


async def measure(folder: Path) -> tuple[Counting, Counting, Counting]:
    """A request that does not stream, a short stream and a long one."""
    node = Node()
    server = await asyncio.get_running_loop().create_server(lambda: node, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    router = Router(load({"data_dir": str(folder), "auth": "off"}, {}))
    app, settled = cast(App, router.asgi), router.recorder.settled
    async with Lifespan(app):
        client = Client(app, node)
        await client.ask("/heartbeat", heartbeat(f"http://127.0.0.1:{port}"))
        request = await least(client, node, whole_answer(), False, settled)
        short, long = [await least(client, node, stream_of(count), True, settled) for count in CHUNKS]
    server.close()
    return request, short, long


def main() -> None:
    """Count, on the loop that the router runs on, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the router's data directory")
    parser.add_argument("--top", type=int, default=0, help="so many functions, by the bytecodes of each")
    asked = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        request, short, long = runner.run(measure(asked.folder))
    further = CHUNKS[1] - CHUNKS[0]
    chunks = Work((long.work.calls - short.work.calls) // further, (long.work.opcodes - short.work.opcodes) // further)
    print(json.dumps({"request": asdict(request.work), "stream": asdict(short.work), "chunk": asdict(chunks)}))
    for title, counted, other, parts in (("a request", request, Counting(), 1), ("a chunk", long, short, further)):
        for name, calls, opcodes in counted.less(other, parts)[: asked.top]:
            print(f"{title}: {calls:8.1f} calls {opcodes:8.1f} bytecodes  {name}")


if __name__ == "__main__":
    main()
