"""More requests at once than a shell's usual limit of open files lets a program have connections."""

import asyncio

import aiohttp
import pytest

from herd.commands.start import allow_open_files
from herd.sim import SimConfig, SimModel
from tests.e2e.conftest import Fleet
from tests.e2e.traffic import HELLO
from tests.harness import Nodes, Router, free_port

MANY = 240
# All of them wait for one load of two seconds, so that their connections are open at the same time.
WIDE = SimConfig(
    "wide", memory_gb=512, tokens_per_s=10_000, load_bytes_per_s=1e9, slots=MANY, models=(SimModel("wide:1b"),)
)


class Confined(Router):
    """A router whose shell lets it open 256 files unless it asks for more, as macOS does."""

    def __init__(self, home, port):
        super().__init__(home, port)
        self.command = ["sh", "-c", 'ulimit -S -n 256; exec "$@"', "sh", *self.command]


@pytest.fixture
def confined(tmp_path):
    """Such a router, and one node with many slots."""
    allow_open_files()  # clients and node are in this process
    running = Fleet(Confined(tmp_path, free_port()), Nodes())
    running.router.start()
    running.join(WIDE)
    yield running
    running.nodes.stop()
    running.router.stop()


async def statuses(url, count):
    """The status codes of so many requests at once."""
    body = {"model": "wide:1b", "messages": HELLO, "options": {"num_predict": 2}}

    async def one(session):
        async with session.post(url + "/api/chat", json=body) as answer:
            await answer.read()
            return answer.status

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        return await asyncio.gather(*(one(session) for _ in range(count)))


async def test_a_router_started_with_few_files_serves_more_streams_than_that(confined):
    """Each takes two; a router at its limit could neither take connections nor make them."""
    assert await asyncio.wait_for(statuses(confined.url, MANY), 40) == [200] * MANY
