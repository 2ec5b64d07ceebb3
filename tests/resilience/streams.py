"""Many streams at once, and something that happens in the middle of all of them."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp


@dataclass
class Stream:
    """What one client saw: the answer's bytes so far, and whether the connection broke before the answer's end."""

    request_id: str
    model: str
    words: int
    status: int = 0
    text: bytes = b""
    broken: bool = False

    @property
    def last(self) -> dict[str, object]:
        """The last line of the answer."""
        found = json.loads(self.text.splitlines()[-1])
        assert isinstance(found, dict)
        return found

    @property
    def whole(self) -> bool:
        """Whether the answer came to its proper end."""
        return not self.broken and self.last.get("done") is True


async def at_once(url: str, streams: list[Stream], meanwhile: Callable[[], object]) -> None:
    """Ask for all of them at once, call `meanwhile` on a thread when each has begun, and read all to their end."""
    begun, all_begun = [0], asyncio.Event()

    async def one(session: aiohttp.ClientSession, stream: Stream) -> None:
        text = f"Write {stream.words} words about {stream.request_id}."
        body = {"model": stream.model, "messages": [{"role": "user", "content": text}]}
        headers = {"X-Request-Id": stream.request_id}
        try:
            async with session.post(f"{url}/api/chat", json=body, headers=headers) as answer:
                stream.status = answer.status
                async for chunk in answer.content.iter_any():
                    begun[0] += not stream.text
                    stream.text += chunk
                    if begun[0] == len(streams):
                        all_begun.set()
        except aiohttp.ClientError:
            stream.broken = True

    async def then() -> None:
        async with asyncio.timeout(60):
            await all_begun.wait()
        await asyncio.to_thread(meanwhile)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(then(), *(one(session, stream) for stream in streams))
