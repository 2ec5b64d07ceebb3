"""The agent's surroundings as fixtures: running servers, and the agent's own process."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.node.servers import Agent, LlamaCpp, Ollama, Router


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    """A running router's endpoint; every heartbeat that the test caused was well-formed."""
    server = Router()
    await server.start()
    yield server
    await server.stop()
    assert server.malformed == []


@pytest.fixture
async def ollama() -> AsyncIterator[Ollama]:
    """A running Ollama with one model on disk."""
    server = Ollama()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def llamacpp() -> AsyncIterator[LlamaCpp]:
    """A running llama.cpp server with one model."""
    server = LlamaCpp()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def start_agent(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts agents, and ends those that the test did not end."""
    started: list[asyncio.subprocess.Process] = []
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OLLAMA_", "HERD_"))}

    async def start(*options: str, node_id: str = "n1", **environment: str) -> Agent:
        folder = tmp_path / f"agent{len(started)}"
        folder.mkdir()
        command = [sys.executable, "-m", "node", "--node-id", node_id, "--data-dir", str(folder), *options]
        with (folder / "stderr").open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(*command, stderr=stderr, env={**clean, **environment})
        started.append(process)
        return Agent(process, folder)

    yield start
    for process in started:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
