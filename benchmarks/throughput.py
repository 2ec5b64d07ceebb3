"""Requests per second direct to a simulated node and by way of the router: `python -m benchmarks.throughput`.

Node, router and clients share one machine's cores, so only the ratio of two lines of the same run says something. The
clients are a process of their own; each figure is the median of several rounds in turn.
"""

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

BODY = {"model": "llama3.2:3b", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*arguments: str) -> Iterator[None]:
    """A Python module as a process, ended by its process id."""
    environment = {**os.environ, "HERD_DATA_DIR": arguments[-1]}
    started = subprocess.Popen(
        [sys.executable, "-m", *arguments[:-1]], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        started.terminate()
        started.wait(20)


async def ready(url: str) -> None:
    """Wait until a fleet of one node answers there."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(30):
        while True:
            with suppress(aiohttp.ClientError):
                async with session.post(f"{url}/v1/chat/completions", json=BODY) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)


async def round_of(url: str, stream: bool, count: int, at_once: int) -> float:
    """Requests per second of one round."""
    body = json.dumps({**BODY, "stream": stream})
    left = count
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                async with session.post(f"{url}/v1/chat/completions", data=body) as answer:
                    await answer.read()
                    assert answer.status == 200, answer.status

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(at_once)))
        return count / (time.perf_counter() - began)


async def measure(node: str, router: str, rounds: int, count: int, at_once: int) -> None:
    """Print the medians of all four cases, and their ratios."""
    await ready(router)
    print(f"{count} requests a round, {at_once} at once, 16 tokens an answer, median of {rounds} rounds\n")
    print(f"{'':14}{'direct':>10}{'routed':>10}{'ratio':>8}")
    for stream in (False, True):
        found: dict[str, list[float]] = {node: [], router: []}
        for _ in range(rounds):
            for url, rates in found.items():
                rates.append(await round_of(url, stream, count, at_once))
        direct, routed = (statistics.median(rates) for rates in found.values())
        print(f"{'streaming' if stream else 'not streaming':14}{direct:>10.0f}{routed:>10.0f}{routed / direct:>8.2f}")


def main(argv: list[str] | None = None) -> None:
    """Start node and router, measure, stop them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=32)
    chosen: Any = parser.parse_args(argv)
    node_port, port = free_port(), free_port()
    node_url, url = f"http://127.0.0.1:{node_port}", f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        router = ("herd", "--port", str(port), str(Path(folder) / "data"))
        node = ("herd.sim", "--port", str(node_port), "--node-id", "bench", "--router", url, "--memory-gb", "64",
                "--slots", str(chosen.at_once), "--model", "llama3.2:3b=2", "--tokens-per-s", "0", folder)  # fmt: skip
        with process(*router), process(*node):
            asyncio.run(measure(node_url, url, chosen.rounds, chosen.requests, chosen.at_once))


if __name__ == "__main__":
    main()
