"""Prometheus beside the demo: with the pack's own rules, on loopback, its data in the demo's folder, ended by its pid.

It needs `prometheus` on the PATH and nothing else; it knows nothing of the demo but a router's address and a folder.
"""

import asyncio
import json
import shutil
import socket
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import aiohttp

import herd
from herd.commands import CommandError
from herd.commands.children import child, last_words

USUAL_PORT: Final = 9090
READY_S: Final = 20.0
STOP_S: Final = 10.0
POLL_S: Final = 0.1
INTERVAL: Final = "2s"  # short, so that there is something to see at once


def rule_files() -> list[Path]:
    """The pack's rules: in the installed package, or beside it in a working tree. CommandError where there are none."""
    package = Path(herd.__file__).parent
    for folder in (package / "pack" / "rules", package.parent / "otel" / "rules"):
        if found := sorted(folder.glob("*.yml")):
            return found
    raise CommandError("the pack's rules are missing: reinstall Herd, or omit --observe")


def program() -> str:
    """Where Prometheus is. CommandError with what to do where it is not."""
    if found := shutil.which("prometheus"):
        return found
    raise CommandError(
        "--observe needs `prometheus` on the PATH: apt-get install prometheus, brew install prometheus, or "
        "https://prometheus.io/download"
    )


def configuration(target: str, agents: Path) -> str:
    """Prometheus's configuration, with the router's file of agents' targets; JSON is YAML."""
    return json.dumps({
        "global": {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(path) for path in rule_files()],
        "scrape_configs": [
            {"job_name": "herd", "static_configs": [{"targets": [target]}]},
            {"job_name": "herd-agents", "file_sd_configs": [{"files": [str(agents)]}]},
        ],
    }, indent=2)  # fmt: skip


def free_port(usual: int = USUAL_PORT) -> int:
    """Prometheus's own port, or another where that is taken."""
    for port in (usual, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise CommandError("no free port for Prometheus")


@asynccontextmanager
async def prometheus(home: Path, target: str) -> AsyncIterator[str]:
    """Prometheus, scraping `target`; gives the address of its page of alerts. CommandError where it does not start."""
    folder, port = home / "prometheus", free_port()
    folder.mkdir(exist_ok=True)
    config, said = folder / "prometheus.yml", folder / "prometheus.out"
    config.write_text(configuration(target, folder / "agents.json"), encoding="utf-8")
    command = (
        program(), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage", "--log.level=warn",
    )  # fmt: skip
    async with child(command, said, STOP_S) as process:
        await _until_ready(process, f"http://127.0.0.1:{port}", said)
        yield await _alerts_page(f"http://localhost:{port}")


async def _alerts_page(url: str) -> str:
    """Debian builds Prometheus with its older pages, which are below another path."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/alerts") as answer:
        return f"{url}/alerts" if answer.status == 200 else f"{url}/classic/alerts"


async def _until_ready(process: Process, url: str, said: Path) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(READY_S), aiohttp.ClientSession() as session:
            while process.returncode is None:
                with suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/-/ready") as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(POLL_S)
    raise CommandError(f"Prometheus failed to start: {last_words(said)} (its output is in {said})")
