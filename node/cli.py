"""The command `herd-node`: turns options and environment into Settings, puts the agent together, minds the signals."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NoReturn

from herd import wire
from herd.wire.files import FileUnsafe
from herd.wire.identity import shown

from .addresses import bind_address, is_loopback, server_url
from .agent import Agent
from .discovery import find_router
from .engines import EngineProbe
from .engines.llamacpp import LlamaCppProbe
from .engines.ollama import OllamaProbe
from .introduction import Introduction, code_files
from .logs import fields, start_logging
from .probe import Machine
from .process import claim_directory, has_terminal, prepare_process
from .router import RouterLink
from .settings import DEFAULT_PORTS, INTERVAL_S, METRICS_PORT, ROUTER_PORT, Settings, sanitised_node_id
from .telemetry import Telemetry
from .telemetry.metrics import AgentMetrics
from .telemetry.server import MetricsServer
from .telemetry.spans import make_spans

USAGE = 64  # EX_USAGE of sysexits.h
EXIT_S = 3.0  # how long a measurement that hangs in a driver may hold up the end of the process
LEVELS = ("debug", "info", "warning", "error")
NEEDS_TOKEN = (
    "--metrics-bind {} is reached from other machines, so it needs a credential: set HERD_METRICS_TOKEN "
    "to a long random text, the same on all machines, and give it to Prometheus; or bind 127.0.0.1"
)

DESCRIPTION = """\
The agent of a Herd node. It reports this machine and its engine (Ollama or llama.cpp) to the router: models, loaded
models, memory, load. Run one on each machine with an engine. It needs no configuration: it looks for the router on this
machine, then on the local network.
"""
EPILOG = """\
examples:
  herd-node                                                     local Ollama; discover the router
  herd-node --router-url http://box:11435                       use this router
  herd-node --engine llamacpp --engine-url http://127.0.0.1:8080
  OLLAMA_HOST=0.0.0.0 ollama serve                              lets a router on another machine reach Ollama

The router is --router-url, else HERD_ROUTER_URL, else http://localhost:11435 if a router responds there, else the one
found by multicast DNS (_herd._tcp.local.). Ctrl-C or SIGTERM shuts down cleanly; a second one exits immediately.
Two agents on one machine need different --node-id and --data-dir.

--metrics-bind serves the agent's own metrics to Prometheus; on any address but loopback it requires the token
HERD_METRICS_TOKEN. With OTEL_EXPORTER_OTLP_ENDPOINT, spans of heartbeats and engine probes are exported there.
"""

logger = logging.getLogger(__name__)


class Parser(argparse.ArgumentParser):
    """A parser whose errors end with the status of a wrong command line, as the router's do."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and what is wrong with the command line."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The options; those with an environment variable take it as their default."""
    options = Parser(
        prog="herd-node",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    options.add_argument("--version", action="version", version=f"herd-node {wire.RELEASE}")
    _engine_options(options.add_argument_group("the engine"))
    _router_options(options.add_argument_group("the router"))
    _agent_options(options.add_argument_group("the agent"))
    return options


def _engine_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--engine", choices=tuple(DEFAULT_PORTS), default="ollama", help="engine type (default: ollama)")
    group.add_argument(
        "--ollama-host",
        metavar="ADDRESS",
        type=_address(DEFAULT_PORTS["ollama"]),
        default=os.environ.get("OLLAMA_HOST") or "127.0.0.1",
        help="Ollama's address, in any form of OLLAMA_HOST (env OLLAMA_HOST; default: 127.0.0.1:11434)",
    )
    group.add_argument(
        "--engine-url",
        metavar="URL",
        help="engine URL (default: --ollama-host; 127.0.0.1:8080 for llamacpp)",
    )
    group.add_argument(
        "--slots",
        metavar="N",
        type=_number(int, 1, 1024),
        help="concurrent requests per model, if they cannot be detected from Ollama's OLLAMA_NUM_PARALLEL or "
        "llama.cpp's slots (default: 4; 1 if Ollama has no such setting)",
    )
    group.add_argument(
        "--advertise-url",
        metavar="URL",
        help="engine URL for the router, if it differs from the local one (containers, tunnels)",
    )


def _router_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--router-url",
        metavar="URL",
        type=_address(ROUTER_PORT),
        default=os.environ.get("HERD_ROUTER_URL") or None,
        help="router URL (env HERD_ROUTER_URL; default: discover it)",
    )
    group.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_number(float, 0.1, 300),
        default=INTERVAL_S,
        help="heartbeat interval; changes are reported immediately (default: 5)",
    )


def _agent_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--node-id", metavar="NAME", help="name in the fleet (default: host name)")
    group.add_argument(
        "--data-dir",
        metavar="FOLDER",
        type=Path,
        default=os.environ.get("HERD_DATA_DIR") or "~/.fleet-manager",
        help="directory of logs/herd-node.jsonl (env HERD_DATA_DIR; default: ~/.fleet-manager)",
    )
    group.add_argument(
        "--metrics-bind",
        metavar="HOST:PORT",
        type=_bind,
        default=os.environ.get("HERD_METRICS_BIND") or None,
        help=f"serve /metrics on this address (env HERD_METRICS_BIND; default: off; default port {METRICS_PORT})",
    )
    group.add_argument(
        "--log-level", type=str.lower, choices=LEVELS, default="info", help="lowest level to log (default: info)"
    )


def _address(default_port: int) -> Callable[[str], str]:
    def address(text: str) -> str:
        try:
            return server_url(text, default_port)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return address


def _bind(text: str) -> tuple[str, int]:
    try:
        return bind_address(text, METRICS_PORT)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _number(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], int | float]:
    def number(text: str) -> int | float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(0)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: a number from {least} to {most} is needed")
        return value

    return number


def settings_from(arguments: Sequence[str] | None = None) -> Settings:
    """Settings from the command line and the environment; ends the process with a message when they are wrong."""
    options = parser()
    given = options.parse_args(arguments)
    try:
        engine_url = _engine_url(given)
        advertise_url = server_url(given.advertise_url, DEFAULT_PORTS[given.engine]) if given.advertise_url else None
    except ValueError as error:
        options.error(str(error))
    token = os.environ.get("HERD_METRICS_TOKEN", "").strip() or None
    is_open = given.metrics_bind is not None and not is_loopback(given.metrics_bind[0])
    if is_open and token is None:
        options.error(NEEDS_TOKEN.format(given.metrics_bind[0]))
    return Settings(
        node_id=sanitised_node_id(given.node_id or socket.gethostname()),
        engine=given.engine,
        engine_url=engine_url,
        router_url=given.router_url,
        data_dir=given.data_dir.expanduser(),
        slots=given.slots,
        interval_s=given.interval,
        advertise_url=advertise_url,
        log_level=given.log_level.upper(),
        metrics_bind=given.metrics_bind,
        metrics_token=token if is_open else None,
    )


def _engine_url(given: argparse.Namespace) -> str:
    if given.engine_url:
        return server_url(given.engine_url, DEFAULT_PORTS[given.engine])
    return given.ollama_host if given.engine == "ollama" else server_url("127.0.0.1", DEFAULT_PORTS["llamacpp"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent until a signal; returns the exit status."""
    prepare_process()
    settings = settings_from(arguments)
    if wrong := claim_directory(settings.data_dir):
        print(f"herd-node: {wrong}", file=sys.stderr)
        return 1
    start_logging(settings.log_level, settings.data_dir)
    telemetry = Telemetry(AgentMetrics(wire.RELEASE), make_spans(settings.node_id, wire.RELEASE))
    try:
        introduction = Introduction(settings.data_dir, settings.node_id, code_files(settings.data_dir, os.environ))
    except FileUnsafe as error:
        print(f"herd-node: {error}", file=sys.stderr)
        return 1
    try:
        settings = _serving(settings, telemetry)
    except OSError as error:
        logger.error("Metrics cannot be served", extra=fields(bind=settings.metrics_bind, error=error))
        return 1
    asyncio.run(_run(settings, telemetry, introduction))
    return 0


def _serving(settings: Settings, telemetry: Telemetry) -> Settings:
    """Serve the metrics where that is asked for; the settings with the port that it came to be. OSError if not."""
    if settings.metrics_bind is None:
        return settings
    server = MetricsServer(*settings.metrics_bind, telemetry.metrics, settings.metrics_token)
    server.start()
    return replace(settings, metrics_bind=(server.host, server.port))


async def _run(settings: Settings, telemetry: Telemetry, introduction: Introduction) -> None:
    stop = asyncio.Event()
    _stop_on_signals(stop)
    version = wire.RELEASE
    engine: EngineProbe = (
        OllamaProbe(settings.engine_url, settings.slots)
        if settings.engine == "ollama"
        else LlamaCppProbe(settings.engine_url, settings.slots)
    )
    router = RouterLink(settings.router_url, find_router, version, telemetry, introduction)
    logger.info(
        "Agent starts", extra=fields(
            node_id=settings.node_id, engine=settings.engine_url, agent_version=version,
            key=shown(introduction.identity.id),
        ),
    )  # fmt: skip
    try:
        await Agent(settings, engine, Machine(), router, version, telemetry).run(stop)
    finally:
        await engine.close()
        await router.close()
        await asyncio.to_thread(telemetry.spans.close)
    _end_within(EXIT_S)


def _stop_on_signals(stop: asyncio.Event) -> None:
    """The first signal asks for an orderly end, a second one ends the process at once."""
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if seen:
            os._exit(128 + number)
        seen.append(number)
        loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    on_terminal = has_terminal()

    def on_hangup(number: int, frame: FrameType | None) -> None:
        if on_terminal and not has_terminal():
            on_signal(number, frame)

    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` asks that it be ignored
        signal.signal(signal.SIGHUP, on_hangup)


def _end_within(seconds: float) -> None:
    """End the process even if a thread hangs: the loop's own end waits for all of them."""
    last = threading.Timer(seconds, os._exit, (0,))
    last.daemon = True
    last.start()
