"""Simulated nodes on the test's own event loop, and a look at their bytes without any client library in between."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from herd.sim import SimConfig, SimModel, SimNode

LLAMA = SimModel("llama3.2:3b", size_gb=2.0)
QWEN = SimModel("qwen3:8b", size_gb=5.2, family="qwen3", capabilities=("completion", "tools", "thinking"))
GEMMA = SimModel("gemma3:4b", size_gb=3.3, family="gemma3", capabilities=("completion", "vision"))
NOMIC = SimModel("nomic-embed-text", size_gb=0.3, family="nomic-bert", capabilities=("embedding",))
MODELS = (LLAMA, QWEN, GEMMA, NOMIC)
HELLO = [{"role": "user", "content": "Say hello to the herd."}]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Oslo?"}]
Start = Callable[..., Awaitable[SimNode]]
PATIENCE_S = 20.0


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts nodes from the fields of a SimConfig; all are stopped at the end."""
    nodes: list[SimNode] = []

    async def start_node(**fields) -> SimNode:
        node = SimNode(SimConfig(**{"models": MODELS, **fields}))
        await node.start()
        nodes.append(node)
        return node

    yield start_node
    for node in nodes:
        await node.stop()


@pytest.fixture
async def node(start) -> SimNode:
    """A node without delays whose answers depend on the request alone."""
    return await start(frozen_time=True)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def until(condition, what, deadline_s=PATIENCE_S):
    """Waits for a condition; fails with `what` when the deadline is over."""
    async with asyncio.timeout(deadline_s):
        try:
            while not condition():  # noqa: ASYNC110 - what is waited for may be in another process
                await asyncio.sleep(0.002)
        except TimeoutError:
            pytest.fail(f"not in time: {what}")


async def post(http, node, path, **body):
    """Status, headers and bytes of one answer; the model is llama3.2:3b unless said otherwise."""
    async with http.post(node.url + path, json={"model": LLAMA.name, **body}) as answer:
        return answer.status, answer.headers, await answer.read()


class Wire:
    """One TCP connection to a node, read byte by byte."""

    def __init__(self, node):
        self.node = node

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.node.port)
        return self

    async def __aexit__(self, *_):
        self.writer.close()

    async def send(self, path, **body):
        data = json.dumps({"model": LLAMA.name, "messages": HELLO, **body}).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)
        await self.writer.drain()

    async def head(self):
        return (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)).decode()

    async def chunk(self):
        size = int(await asyncio.wait_for(self.reader.readline(), PATIENCE_S), 16)
        return (await asyncio.wait_for(self.reader.readexactly(size + 2), PATIENCE_S))[:-2]

    async def rest(self):
        return await asyncio.wait_for(self.reader.read(), PATIENCE_S)

    async def silent(self):
        """Whether nothing comes while another request on the node is answered."""
        async with aiohttp.ClientSession() as other, other.get(f"{self.node.url}/sim/state") as answer:
            await answer.read()
        return not self.reader._buffer and not self.reader.at_eof()
