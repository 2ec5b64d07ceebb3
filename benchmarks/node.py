"""A scripted node that costs next to nothing: `python -m benchmarks.node PORT`.

It answers prepared bytes, straight from an `asyncio.Protocol`, and knows no fleet. A chat is answered whole, or as a
stream of frames that leave in one write, or as a paced stream whose frames carry the microsecond at which they left.
Anything else is answered 200 with an empty object, so that it serves as a receiver of spans as well.
"""

import argparse
import asyncio
import json
import re
import sys
import time
from typing import Any, Final, cast

import uvloop

MODEL: Final = "llama3.2:3b"
TOKENS: Final = 16
TOKENS_PER_S: Final = 50
STAMP_DIGITS: Final = 16
STAMP: Final = b'"content":"t'  # the microseconds of the system's monotonic clock follow
PACED: Final = re.compile(rb'"paced_tokens": ?(\d+)')
USAGE: Final = {"prompt_tokens": 26, "completion_tokens": TOKENS, "total_tokens": 26 + TOKENS}
COMMON: Final = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": MODEL, "system_fingerprint": "fp_ollama"}


def _compact(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _whole(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _frame(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + _compact({**COMMON, "object": "chat.completion.chunk", "choices": [choice]}) + b"\n\n"


def _usage_frame() -> bytes:
    return b"data: " + _compact({**COMMON, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}) + b"\n\n"


HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END: Final = _chunk(_frame({"role": "assistant", "content": ""}, "stop"))
DONE: Final = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
FRAMES: Final = b"".join(_chunk(_frame({"role": "assistant", "content": f" word{n}"})) for n in range(TOKENS))
WITHOUT_USAGE: Final = END + DONE
WITH_USAGE: Final = END + _chunk(_usage_frame()) + DONE
STREAM: Final = {asked: HEAD + FRAMES + (WITH_USAGE if asked else WITHOUT_USAGE) for asked in (False, True)}
MESSAGE: Final = {"role": "assistant", "content": "".join(f" word{n}" for n in range(TOKENS))}
CHOICE: Final = {"index": 0, "message": MESSAGE, "finish_reason": "stop"}
CHAT: Final = _whole(_compact({**COMMON, "object": "chat.completion", "choices": [CHOICE], "usage": USAGE}))
NOTHING: Final = _whole(b"{}")
STAMPED: Final = _chunk(_frame({"role": "assistant", "content": "t" + "0" * STAMP_DIGITS}))
STAMP_AT: Final = STAMPED.index(STAMP) + len(STAMP)
BEFORE_STAMP, AFTER_STAMP = STAMPED[:STAMP_AT], STAMPED[STAMP_AT + STAMP_DIGITS :]


class Connection(asyncio.Protocol):
    """One client's connection; requests come one after the other, each with a Content-Length or without a body."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport
        self._held = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are none by name

    def connection_lost(self, _: Exception | None) -> None:
        """Stop a stream whose client left."""
        if self._timer:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        if self._held:
            data = self._held + data
        while data and (size := _request_size(data)) and len(data) >= size:
            self._answer(data[:size])
            data = data[size:]
        self._held = data

    def _answer(self, request: bytes) -> None:
        if not request.startswith(b"POST /v1/chat/completions "):
            self._transport.write(NOTHING)
        elif b'"stream":true' not in request and b'"stream": true' not in request:
            self._transport.write(CHAT)
        elif paced := PACED.search(request):
            self._transport.write(HEAD)
            end = WITH_USAGE if b"include_usage" in request else WITHOUT_USAGE
            self._say(int(paced[1]), self._loop.time(), end)
        else:
            self._transport.write(STREAM[b"include_usage" in request])

    def _say(self, left: int, due: float, end: bytes) -> None:
        """Write a frame now and the next one when it is due: a late one is followed by others in time."""
        if not left:
            self._transport.write(end)
            return
        self._transport.write(b"%b%016d%b" % (BEFORE_STAMP, time.monotonic_ns() // 1000, AFTER_STAMP))
        due += 1 / TOKENS_PER_S
        self._timer = self._loop.call_at(due, self._say, left - 1, due, end)


def _request_size(data: bytes) -> int:
    """Bytes of the first request, head and body; 0 while its head is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return end + 4
    return end + 4 + int(head[at + 17 :].split(b"\r\n", 1)[0])


async def serve(port: int) -> None:
    """Listen on loopback until the process ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(loop), "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def main() -> None:
    """Read the port, serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    try:
        uvloop.run(serve(parser.parse_args().port))
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
