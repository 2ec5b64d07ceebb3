"""`herd`: starts the router in this process and ends it in order; knows sockets, signals and uvicorn, no requests."""

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import Final

import uvicorn

from herd import __version__
from herd.app import Router
from herd.commands import CommandError
from herd.commands.runfile import announced
from herd.fleet.advertise import is_loopback
from herd.security.access import AccessUnreadable
from herd.security.connection import Limits, connection_type
from herd.security.files import NotOurs, claim_directory
from herd.security.local_code import left
from herd.settings.load import SettingError
from herd.settings.values import Settings
from herd.wire.files import FileUnsafe
from herd.wire.identity import Identity, kept, made

logger = logging.getLogger(__name__)
BACKLOG: Final = 2048
# Every stream takes two. The second is the most that macOS allows where its hard limit says that there is none.
OPEN_FILES: Final = (65_536, 10_240)
WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}


def run(settings: Settings) -> int:
    """Run the router until a signal; 0 for an orderly end, 1 where it could not start.

    Raises CommandError where the data directory or the port cannot be had.
    """
    allow_open_files()
    _make_data_dir(settings)
    listener = listen(settings.text("host"), settings.count("port"))
    with listener, announced(settings.data_dir, url_of(settings)), _local_code(settings) as code:
        router = _router(settings, code)
        if warning := open_door(settings):
            logger.warning(warning)
        with suppress(OSError, ValueError):  # nobody is there to read it
            sys.stderr.write(start_block(settings))
            sys.stderr.flush()
        server = Server(_uvicorn_config(router, settings), router, settings.number("shutdown_grace_s"))
        return _serve(server, listener)


@contextmanager
def _local_code(settings: Settings) -> Iterator[str]:
    """The code of this machine; none where it cannot be written, which is no reason not to route."""
    with ExitStack() as stack:
        try:
            code = stack.enter_context(left(settings.data_dir))
        except OSError as error:
            logger.warning("No code for this machine's own user (%s): commands may need a key", error.strerror)
            code = ""
        yield code


def _identity(settings: Settings) -> Identity:
    """The router's key; one for this start alone where none can be kept. Raises CommandError for one that is unsafe."""
    name = f"herd on {socket.gethostname()}"
    try:
        return kept(settings.data_dir, name)
    except FileUnsafe as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        logger.warning("The router's key cannot be kept (%s): nodes will not know it again", error.strerror)
        return made(name)


def _router(settings: Settings, code: str) -> Router:
    try:
        return Router(settings, code, _identity(settings))
    except AccessUnreadable as error:
        raise CommandError(str(error)) from error


def allow_open_files() -> None:
    """Raise this process's limit of open files as far as it may; shells give 256 or 1024, often."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in OPEN_FILES:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft == resource.RLIM_INFINITY or soft >= most:
            return
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; raises CommandError with what to do where there can be none."""
    if port > 65535:  # getaddrinfo would take the remainder
        raise SettingError(f"port must be 65535 or less, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise CommandError(f"cannot listen on {host!r} ({error}); choose another --host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise CommandError(_why_not(error, host, port)) from error
    return listener


def open_door(settings: Settings) -> str | None:
    """What to say of settings that let strangers in; None where there are none."""
    host, auth = settings.text("host"), settings.text("auth")
    if auth == "off":
        where = "on this machine" if is_loopback(host) else "who reaches this port"
        return f"auth is off: anyone {where} may use the fleet, read its records and change it"
    if is_loopback(host):
        return None
    if auth == "observe":
        return f"Listening on {host} with auth = observe: nobody is refused yet; `herd docs metrics` has the counter"
    plain = f"Listening on {host}: keys and prompts cross your network in clear; clients need a key (herd key create)"
    return plain if not settings.text("anonymous") else f"{plain}, but for what anonymous opens to private networks"


def url_of(settings: Settings) -> str:
    """The router's address as a client on this machine would write it."""
    host, port = settings.text("host"), settings.count("port")
    bracketed = f"[{host}]" if ":" in host else host
    return f"http://{WILDCARDS.get(host, bracketed)}:{port}"


def start_block(settings: Settings) -> str:
    """The startup message."""
    url = url_of(settings)
    everywhere = " (and every other address of this machine)" if settings.text("host") in WILDCARDS else ""
    return "".join((
        f"herd {__version__}\n",
        f"  address   {url}{everywhere}\n",
        f"  data      {settings.data_dir} (latency.db, logs/herd.jsonl)\n",
        "  nodes     start `herd-node` on each machine with Ollama\n",
        f"  page      {url}/dashboard\n",
        f"  metrics   {url}/metrics\n",
        "  commands  herd status, herd traces, herd --help\n",
    ))  # fmt: skip


def _make_data_dir(settings: Settings) -> None:
    try:
        if claim_directory(settings.data_dir):
            logger.warning("%s was readable by other users; permissions restricted", settings.data_dir)
    except NotOurs as error:
        raise CommandError(f"the data directory is not safe: {error}") from error
    except OSError as error:
        raise CommandError(
            f"the data directory {settings.data_dir} cannot be created ({error.strerror}); choose another --data-dir"
        ) from error


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use, perhaps by another router (check `herd status`):  "
            "stop it, or choose another with --port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"this machine has no address {host}; use one of its own, or 0.0.0.0 for all"
    if error.errno == errno.EACCES:
        return f"no permission to listen on port {port}; choose a --port above 1023"
    return f"cannot listen on {host} port {port} ({error.strerror}); choose another --host or --port"


def _uvicorn_config(router: Router, settings: Settings) -> uvicorn.Config:
    limits = Limits(connections=settings.count("connections_per_address"))
    proxies = [each.strip() for each in settings.text("trusted_proxies").split(",") if each.strip()]
    return uvicorn.Config(
        router.asgi,
        loop="uvloop",
        http=connection_type(limits, router.refusals),
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        ws="none",  # an offer of WebSocket is ignored like any other
        lifespan="on",
        workers=1,
        access_log=False,
        log_config=None,  # its loggers go where all others go
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,  # `Router.drain` has waited before
    )


class Server(uvicorn.Server):
    """Lets running requests end before it closes its doors; a second signal closes them at once."""

    def __init__(self, config: uvicorn.Config, router: Router, grace_s: float) -> None:
        super().__init__(config)
        self._router = router
        self._on_terminal = has_terminal()
        self._grace_s = grace_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None
        self._rereading: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and remember the loop that a signal wakes."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second one ends."""
        if self._loop is None or self._router.plane.stopping:
            super().handle_exit(sig, frame)
        else:
            self._loop.call_soon_threadsafe(self._begin_to_end, sig, frame)

    def handle_hangup(self, sig: int, frame: FrameType | None) -> None:
        """The terminal is gone: end in order. Else an operator means that the settings be read again."""
        if self._on_terminal and not has_terminal():
            self.handle_exit(sig, frame)
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin_to_reread)

    def _begin_to_reread(self) -> None:
        self._rereading = asyncio.create_task(self._reread())

    async def _reread(self) -> None:
        try:
            changes = await self._router.switchboard.reread()
        except SettingError as error:
            logger.error("Settings not reloaded: %s", error)
        else:
            logger.info("Settings reloaded: %d changed", len(changes))

    def _begin_to_end(self, sig: int, frame: FrameType | None) -> None:
        self._ending = asyncio.create_task(self._end(sig, frame))

    async def _end(self, sig: int, frame: FrameType | None) -> None:
        await self._router.drain(self._grace_s, signal.Signals(sig).name)
        super().handle_exit(sig, frame)


def has_terminal() -> bool:
    """Whether this process has a terminal, which ends it by closing."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _serve(server: Server, listener: socket.socket) -> int:
    ends: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        # uvicorn takes signals while it runs, and raises them again when it is done: then this is what they do.
        ends.append(number)
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # `nohup` asks that it be ignored
        signal.signal(signal.SIGHUP, server.handle_hangup)
    server.run(sockets=[listener])
    return 0 if server.started or ends else 1
