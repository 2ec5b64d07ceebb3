"""A node on loopback whose every byte a test gives, and which keeps count of its connections."""

import asyncio
import socket
import struct
import time
from contextlib import asynccontextmanager, suppress

CLOSE, RESET, HALF_CLOSE, SILENCE, DEAF = "close", "reset", "half-close", "silence", "deaf"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
GONE = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)  # a test may end before its node


def chunked(*pieces, end=True):
    """A chunked answer of these pieces, without its end if so wanted."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n" * end


class Node:
    """Plays one script for each connection, in the order in which they come; the last one again for all further.

    A step of bytes is sent after a request was read; a tuple of bytes is sent at once. An Event is waited for. A node
    that is DEAF reads nothing more, one in SILENCE reads and says nothing.
    """

    def __init__(self, scripts):
        self.scripts = list(scripts)
        self.requests = []
        self.accepted = self.open = 0
        self.url = ""

    async def serve(self, reader, writer):
        """Play one connection."""
        script = self.scripts[min(self.accepted, len(self.scripts) - 1)]
        self.accepted += 1
        self.open += 1
        try:
            for step in script:
                await self.play(step, reader, writer)
        except GONE:
            pass
        finally:
            self.open -= 1
            writer.close()
            with suppress(*GONE):
                await writer.wait_closed()

    async def play(self, step, reader, writer):
        """Do one step of a script."""
        if isinstance(step, bytes):
            self.requests.append(await read_request(reader))
            writer.write(step)
        elif isinstance(step, tuple):
            writer.writelines(step)
        elif isinstance(step, asyncio.Event):
            await step.wait()
        elif step == SILENCE:
            while await reader.read(65536):
                continue
        elif step == DEAF:
            writer.transport.pause_reading()
            await asyncio.Event().wait()
        elif step == HALF_CLOSE:
            writer.write_eof()
        elif step == RESET:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        await writer.drain()


async def read_request(reader):
    """The bytes of one request."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"\r\ntransfer-encoding: chunked\r\n" in head:
        return head + await reader.readuntil(b"\r\n0\r\n\r\n")
    length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    return head + await reader.readexactly(int(length or 0))


@asynccontextmanager
async def node(*scripts, tls=None, host="127.0.0.1"):
    """A node that plays these scripts, until the end of the block."""
    played = Node(scripts)
    server = await asyncio.start_server(played.serve, host, 0, ssl=tls)
    played.url = f"http{'s' * bool(tls)}://{f'[{host}]' if ':' in host else host}:{server.sockets[0].getsockname()[1]}"
    before = asyncio.all_tasks()
    try:
        yield played
    finally:
        server.close()
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)


async def soon(condition, what="the condition"):
    """Give the loop turns until this is true."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, f"not soon: {what}"
        await asyncio.sleep(0.001)
