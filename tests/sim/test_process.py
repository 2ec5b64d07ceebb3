"""`python -m herd.sim`: a node as a process of its own."""

import asyncio
import json
import signal
import sys

import pytest

from tests.sim.conftest import HELLO


@pytest.fixture
async def spawn():
    """Starts node processes with options; each is ended by its own handle."""
    started = []

    async def spawn_node(*options):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "herd.sim", *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        started.append(process)
        return process

    yield spawn_node
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ready(process):
    return json.loads(await asyncio.wait_for(process.stdout.readline(), 20))


async def test_it_prints_its_address_serves_and_ends_in_order(http, spawn):
    """Scripts read one line and need not guess."""
    process = await spawn("--node-id", "box", "--model", "tiny:1b=0.5:2048", "--model", "nomic-embed-text=0.3")
    told = await ready(process)
    assert (told["node_id"], told["pid"]) == ("box", process.pid)
    async with http.post(f"{told['url']}/api/chat", json={"model": "tiny:1b", "messages": HELLO}) as got:
        assert got.status == 200
    async with http.get(f"{told['url']}/api/ps") as got:
        assert [(each["name"], each["context_length"]) for each in (await got.json())["models"]] == [("tiny:1b", 2048)]
    async with http.post(f"{told['url']}/api/embed", json={"model": "nomic-embed-text", "input": "x"}) as got:
        assert got.status == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 0


async def test_a_port_in_use_is_one_sentence_and_exit_1(spawn):
    """A traceback is no message."""
    first = await ready(await spawn())
    second = await spawn("--port", first["url"].rpartition(":")[2])
    _, said = await asyncio.wait_for(second.communicate(), 20)
    assert second.returncode == 1
    assert said.decode().count("\n") == 1
    assert "--port" in said.decode()


async def test_traffic_is_a_process_too_and_ends_when_told(http, spawn):
    """The compose file starts clients as it starts nodes."""
    told = await ready(await spawn("--model", "llama3.2:3b=2", "--model", "qwen3:8b=5"))
    clients = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "herd.sim.traffic", "--url", told["url"], "--rate", "50"
    )
    try:
        async with asyncio.timeout(20):
            served = {}
            while sum(served.values()) < 10:
                async with http.get(f"{told['url']}/sim/state") as got:
                    served = (await got.json())["served"]
                await asyncio.sleep(0.05)
    finally:
        clients.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(clients.wait(), 20) == 0
