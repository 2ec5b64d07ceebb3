"""Mixed traffic for tests: dialects, streams, tags, fallbacks, mistakes and clients that leave."""

import asyncio
import json
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

HELLO = [{"role": "user", "content": "Hello there, tell me something short."}]


@dataclass
class Seen:
    """What one client saw of its request; status 0 where it left on its own account."""

    request_id: str
    status: int
    body: bytes = b""


@dataclass
class Ask:
    """One request to make; `leave` closes the connection after the first bytes."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    leave: bool = False


def ask(path: str, leave: bool = False, headers: dict[str, str] | None = None, **body: Any) -> Ask:
    return Ask(path, json.dumps(body).encode(), headers or {}, leave)


@contextmanager
def asking(port: int, path: str, request_id: str = "leaves", **body: Any) -> Iterator[None]:
    """A client that has sent its request, reads nothing, and leaves at the end of the block."""
    content = json.dumps(body)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: {request_id}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())
        yield


def mixed(count: int, seed: int) -> list[Ask]:
    """`count` requests of every kind, the same for the same seed."""
    dice = random.Random(seed)
    makers = (
        lambda: ask("/api/chat", model="llama3.2:3b", messages=HELLO),
        lambda: ask("/api/chat", model="llama3.2:3b", messages=HELLO, stream=False, metadata={"tags": ["prod", "a"]}),
        lambda: ask("/api/generate", model="qwen3:8b", prompt="Once", headers={"X-Herd-Tags": "batch, night"}),
        lambda: ask("/v1/chat/completions", model="llama3.2:3b", messages=HELLO, user="ann"),
        lambda: ask("/v1/chat/completions", model="llama3.2:3b", messages=HELLO, stream=True),
        lambda: ask("/v1/completions", model="qwen3:8b", prompt="Once", stream=True),
        lambda: ask("/v1/responses", model="llama3.2:3b", input="Hi", stream=True),
        lambda: ask("/v1/messages", model="qwen3:8b", messages=HELLO, max_tokens=30, stream=dice.random() < 0.5),
        lambda: ask("/api/embed", model="nomic-embed-text", input=["a", "b"]),
        lambda: ask("/v1/embeddings", model="nomic-embed-text", input="a"),
        lambda: ask("/api/chat", model="absent:1b", fallback_models=["llama3.2:3b"], messages=HELLO),
        lambda: ask("/api/chat", model="llama3.2:3b", messages=HELLO, options={"num_ctx": 2048}),
        lambda: ask("/v1/chat/completions", model="nope:1b", messages=HELLO),
        lambda: ask("/api/chat", model="llama3.2:3b", messages=HELLO, metadata={"tags": "wrong"}),
        lambda: Ask("/api/generate", b"{not json"),
        lambda: ask("/api/chat", leave=True, model="slow:1b", messages=HELLO),
    )
    weights = (8, 5, 5, 5, 5, 3, 3, 3, 3, 2, 2, 2, 1, 1, 1, 1)
    return [maker() for maker in dice.choices(makers, weights, k=count)]


async def send(url: str, asks: list[Ask], at_once: int) -> list[Seen]:
    """Send all, `at_once` at a time; request ids are r0, r1, …"""
    waiting = list(enumerate(asks))
    seen: list[Seen] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def worker() -> None:
            while waiting:
                number, wanted = waiting.pop()
                seen.append(await _one(session, url, wanted, f"r{number}"))

        await asyncio.gather(*(worker() for _ in range(at_once)))
    return seen


async def _one(session: aiohttp.ClientSession, url: str, wanted: Ask, request_id: str) -> Seen:
    headers = {"X-Request-Id": request_id, **wanted.headers}
    async with session.post(url + wanted.path, data=wanted.body, headers=headers) as answer:
        if wanted.leave and answer.status == 200:
            await answer.content.readany()
            answer.close()
            return Seen(request_id, 0)
        return Seen(request_id, answer.status, await answer.read())
