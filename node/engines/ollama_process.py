"""What the Ollama server process on this machine was started with, where the operating system lets it be read.

Reads other processes' environments; knows nothing of HTTP.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..addresses import host_of, is_this_machine, port_of, server_url
from ..settings import DEFAULT_PORTS

NAMES = frozenset({"ollama", "ollama.exe"})
SLOTS_AT_MOST = 1024  # the limit of wire.Engine

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerEnvironment:
    """What matters of the server's environment; None where it is not set, or `is_read` is false: it may not be read."""

    slots: int | None = None
    models_folder: Path | None = None
    is_read: bool = False


NOTHING_KNOWN = ServerEnvironment()


def server_environment(url: str) -> ServerEnvironment:
    """The environment of the `ollama serve` that listens at a URL; it walks the process table, so it blocks."""
    if not is_this_machine(host_of(url)):
        return NOTHING_KNOWN
    for environment in _environments():
        if _listens_at(environment, port_of(url)):
            return ServerEnvironment(_slots(environment), _folder(environment), is_read=True)
    return NOTHING_KNOWN


def _environments() -> Iterator[Mapping[str, str]]:
    for process in psutil.process_iter():
        try:
            if process.name().lower() in NAMES and "serve" in process.cmdline():
                yield process.environ()
        except (psutil.Error, OSError):
            continue  # gone, or another user's


def _listens_at(environment: Mapping[str, str], port: int) -> bool:
    try:
        return port_of(server_url(environment.get("OLLAMA_HOST", ""), DEFAULT_PORTS["ollama"])) == port
    except ValueError:
        return False


def _slots(environment: Mapping[str, str]) -> int | None:
    text = environment.get("OLLAMA_NUM_PARALLEL", "").strip()
    # Ollama takes 0 for "choose yourself", which says nothing
    return min(int(text), SLOTS_AT_MOST) if text.isascii() and text.isdigit() and int(text) else None


def _folder(environment: Mapping[str, str]) -> Path | None:
    if given := environment.get("OLLAMA_MODELS"):
        return Path(given)
    home = environment.get("HOME")
    return Path(home) / ".ollama" / "models" if home else None
