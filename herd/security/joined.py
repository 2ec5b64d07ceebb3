"""A transport that sends an answer's head together with what follows it.

The server writes the head by itself, and each write is a call of the system and a packet: of an answer that is one
part, or whose first part is there, that was every second one.
"""

import asyncio
from typing import Any, Final

HEAD: Final = b"HTTP/1."
MOST_JOINED: Final = 64 * 2**10  # bytes; what is larger is not copied for it


class Joined:
    """Holds a head back until the next write, at the latest until the end of this turn of the event loop."""

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        """Send data, behind a head that is held."""
        if self._head:
            if len(data) > MOST_JOINED:
                self._flush()
            else:
                data, self._head = self._head + data, b""
        elif data.startswith(HEAD):  # a body that begins so is held for a moment, too
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def write_eof(self) -> None:
        """Send what is held, and that no more comes."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Send what is held, and close."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closed, or will be."""
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head:
            self._transport.write(head)
