"""`python -m herd.sim`: one simulated node as a process. Prints its URL as one line of JSON when it is ready."""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import uvloop

from herd.sim.config import SimConfig, SimModel
from herd.sim.node import SimNode

CAPABILITIES = {
    "embed": ("embedding",),
    "vision": ("completion", "vision"),
    "llava": ("completion", "vision"),
    "qwen3": ("completion", "tools", "thinking"),
    "deepseek-r1": ("completion", "tools", "thinking"),
    "gpt-oss": ("completion", "tools", "thinking"),
}
PLAIN = ("completion", "tools")


def parse_model(text: str) -> SimModel:
    """A model out of `name=GB[:context]`; what it can do is told by its name, as a person would tell."""
    name, _, rest = text.partition("=")
    size, _, context = rest.partition(":")
    if not name:
        raise argparse.ArgumentTypeError("a model is name=GB[:context]")
    can = next((each for part, each in CAPABILITIES.items() if part in name), PLAIN)
    loaded = int(context) if context else 4096
    return SimModel(name, size_gb=float(size or 2.0), loaded_context=loaded, capabilities=can)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m herd.sim", description="A simulated inference server.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--advertise-url", metavar="URL", help="what the router is told, where that differs")
    parser.add_argument("--node-id", default="sim")
    parser.add_argument("--router", metavar="URL", help="report to this router")
    parser.add_argument("--router-home", metavar="DIR", type=Path, help="the router's data directory, on this machine",
                        default=os.environ.get("HERD_DATA_DIR") or "~/.fleet-manager")  # fmt: skip
    parser.add_argument("--interval", type=float, default=5.0, help="seconds between heartbeats")
    parser.add_argument("--engine", choices=("ollama", "llamacpp"), default="ollama")
    parser.add_argument("--memory-gb", type=float, default=64.0)
    parser.add_argument("--vram-gb", type=float, default=0.0)
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--slots", type=int, default=4, help="requests of one model at once")
    parser.add_argument("--tokens-per-s", type=float, default=0.0, help="0: no delays at all")
    parser.add_argument("--load-bytes-per-s", type=float)
    parser.add_argument("--speed", type=float, default=1.0, help="run the node's time this much faster")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frozen-time", action="store_true", help="times and ids are a function of the request")
    parser.add_argument("--preload", action="append", default=[], metavar="MODEL", help="loaded from the start")
    parser.add_argument("--model", type=parse_model, action="append", metavar="NAME=GB[:CONTEXT]")
    return parser


def config_of(options: argparse.Namespace) -> SimConfig:
    """The node that the options describe."""
    return SimConfig(
        node_id=options.node_id, host=options.host, port=options.port, advertised_url=options.advertise_url,
        router_url=options.router, router_home=options.router_home.expanduser(), interval_s=options.interval,
        engine=options.engine, memory_gb=options.memory_gb, vram_gb=options.vram_gb, cores=options.cores,
        slots=options.slots, tokens_per_s=options.tokens_per_s, load_bytes_per_s=options.load_bytes_per_s,
        speed=options.speed, seed=options.seed, frozen_time=options.frozen_time, preload=tuple(options.preload),
        models=tuple(options.model or SimConfig().models),
    )  # fmt: skip


async def run(config: SimConfig) -> None:
    """Serve until SIGTERM or SIGINT, then leave in order."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with SimNode(config) as node:
        ready = {"node_id": node.node_id, "url": node.url, "pid": os.getpid()}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        await stop.wait()


def main() -> int:
    """Run a node; 1 with a sentence when its port is taken."""
    options = arguments().parse_args()
    try:
        uvloop.run(run(config_of(options)))
    except OSError as error:
        sys.stderr.write(f"The node cannot listen on port {options.port}: {error}. Give another --port, or 0.\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
