"""The least that a proxy in Python can be, as a yardstick: raw ASGI on uvicorn, aiohttp's client, bytes passed through.

`python -m benchmarks.bare_proxy PORT NODE_URL`. It decides nothing, records nothing and watches no client.
"""

import argparse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import aiohttp
import uvicorn

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
NOT_FORWARDED: Final = {b"host", b"connection", b"content-length", b"accept-encoding"}
NOT_RETURNED: Final = {b"connection", b"transfer-encoding", b"date", b"server"}


class BareProxy:
    """An ASGI application that sends every request to one node."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._session: aiohttp.ClientSession

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, or the application's start and end."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"] if name not in NOT_FORWARDED}
        url = self._node + scope["path"]
        async with self._session.request(scope["method"], url, data=body, headers=headers) as answer:
            told = [(name.lower(), value) for name, value in answer.raw_headers if name.lower() not in NOT_RETURNED]
            await send({"type": "http.response.start", "status": answer.status, "headers": told})
            if answer.content_length is not None:
                await send({"type": "http.response.body", "body": await answer.read()})
                return
            async for chunk in answer.content.iter_any():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=timeout) as self._session:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("node", help="the node's address, http://host:port")
    asked = parser.parse_args()
    uvicorn.run(BareProxy(asked.node), port=asked.port, loop="uvloop", http="httptools", access_log=False,
                log_level="warning", backlog=2048, server_header=False)  # fmt: skip
