"""What is measured: each contender as processes of its own on loopback, and what those processes cost.

A contender is started once and kept for the whole run. It knows no workload.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import psutil

from benchmarks.node import MODEL
from herd import wire
from herd.security.local_code import found

READY_S: Final = 60.0
STOP_S: Final = 30.0
SETTLE_S: Final = 5.0
LOOK_S: Final = 0.1
HEARTBEAT_S: Final = 5.0
GIB: Final = 1024**3
SLOTS: Final = 1024
NGINX: Final = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000000;
  upstream node {{ server 127.0.0.1:{node}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://node; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory in MiB of all processes together; PSS counts shared pages once, and is None where /proc has no smaps."""

    rss_mib: float
    pss_mib: float | None
    processes: int


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that answers at a port; `process` is None where nothing stands between the client and the node."""

    name: str
    port: int
    process: psutil.Process | None = None

    def everyone(self) -> list[psutil.Process]:
        """All processes of it that live now."""
        if self.process is None:
            return []
        return [self.process, *self.process.children(recursive=True)]

    def cpu_s(self) -> float:
        """Seconds of the processors, user and system, of all of them until now, ended children included."""
        return sum(sum(each.cpu_times()[:4]) if each == self.process else sum(each.cpu_times()[:2])
                   for each in self.everyone())  # fmt: skip

    def settle(self) -> None:
        """Wait until it has done what it put off: records that are written behind an answer are part of its cost."""
        end = time.monotonic() + SETTLE_S
        before = self.cpu_s()
        while time.monotonic() < end:
            time.sleep(LOOK_S)
            now = self.cpu_s()
            if now - before <= LOOK_S / 5:
                return
            before = now

    def footprint(self) -> Footprint:
        """What it holds now."""
        everyone = self.everyone()
        full = [each.memory_full_info() for each in everyone]
        pss = [getattr(each, "pss", None) for each in full]
        known = [value for value in pss if value is not None]
        return Footprint(
            sum(each.rss for each in full) / 2**20,
            sum(known) / 2**20 if known and len(known) == len(pss) else None,
            len(everyone),
        )


@dataclass(slots=True)
class Stage:
    """Starts processes and ends them, each by its id, in reverse order; leave it by its context."""

    folder: Path
    pin: bool = False
    _ends: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> "Stage":
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def run(
        self, command: Sequence[str], name: str, core: int = 1, environment: Mapping[str, str] | None = None
    ) -> psutil.Process:
        """Start a program; what it says goes to a file named after it. `core` is its own where cores are pinned."""
        said = self._ends.enter_context((self.folder / f"{name}.txt").open("wb"))
        own = {**os.environ, "PYTHONWARNINGS": "ignore", **(environment or {})}
        started = subprocess.Popen(command, env=own, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self._ends.callback(_end, started)
        self.place(started.pid, core)
        return psutil.Process(started.pid)

    def place(self, pid: int, core: int) -> None:
        """Keep a process on one core, where that was asked for."""
        if self.pin:
            psutil.Process(pid).cpu_affinity([core])

    def scripted_node(self, name: str = "node") -> int:
        """Start a scripted node; returns its port."""
        port = free_port()
        self.run([sys.executable, "-m", "benchmarks.node", str(port)], name, core=0)
        _ready(f"http://127.0.0.1:{port}/")
        return port

    def nginx(self, node: int) -> Contender:
        """One worker of nginx that buffers no answer; raises FileNotFoundError where it is not installed."""
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise FileNotFoundError("nginx is not installed")
        port, folder = free_port(), self.folder / "nginx"
        folder.mkdir()
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "conf").write_text(NGINX.format(folder=folder, node=node, port=port, user=user))
        process = self.run([program, "-p", str(folder), "-c", str(folder / "conf"), "-e", "stderr"], "nginx-said")
        return self._answering(Contender("nginx", port, process))

    def bare(self, node: int) -> Contender:
        """The bare proxy of `benchmarks/bare_proxy.py`."""
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.bare_proxy", str(port), f"http://127.0.0.1:{node}"]
        process = self.run(command, "bare")
        return self._answering(Contender("bare", port, process))

    def herd(self, name: str, node: int, database: Path | None = None, **settings: str) -> Contender:
        """A router with a home of its own and one node, with everything on; `database` is what it finds there."""
        home, port = self.folder / name, free_port()
        data = home / ".fleet-manager"
        data.mkdir(parents=True)
        if database:
            shutil.copyfile(database, data / "latency.db")
        own = {"HOME": str(home), "HERD_PORT": str(port), "HERD_RETENTION_DAYS": "400", **settings}
        own.setdefault("OTEL_EXPORTER_OTLP_ENDPOINT", "")
        process = self.run([sys.executable, "-m", "herd"], f"{name}-said", environment=own)
        url = f"http://127.0.0.1:{port}"
        _ready(f"{url}/readyz", only=(200, 503))
        self._ends.enter_context(heartbeats(url, f"http://127.0.0.1:{node}", home / ".fleet-manager"))
        return self._answering(Contender(name, port, process))

    def _answering(self, contender: Contender) -> Contender:
        url, end = f"http://127.0.0.1:{contender.port}/v1/chat/completions", time.monotonic() + READY_S
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 16}
        while time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.post(url, json=chat, timeout=5).status_code == 200:
                    return contender
            time.sleep(LOOK_S)
        raise TimeoutError(f"{contender.name} does not answer within {READY_S:g} s; see {self.folder}")


@contextlib.contextmanager
def heartbeats(router: str, engine: str, home: Path) -> Iterator[None]:
    """Be the agent of the one node: a heartbeat now and every few seconds."""
    over = threading.Event()

    def beat() -> None:
        with httpx.Client(timeout=10) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    headers = {"Authorization": f"Bearer {found(home)}"}
                    client.post(f"{router}/heartbeat", content=heartbeat(engine).model_dump_json(), headers=headers)
                if over.wait(HEARTBEAT_S):
                    return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(STOP_S)


def heartbeat(engine: str) -> wire.Heartbeat:
    """A machine with room for every request of a round, and the model in memory."""
    entry = {"name": MODEL, "model": MODEL, "size": 2 * GIB, "digest": "0" * 64}
    return wire.Heartbeat(
        node_id="bench",
        sent_at=time.time(),
        interval_s=HEARTBEAT_S,
        cpu=wire.Cpu(cores=8, utilization=0.2),
        memory=wire.Memory(total_bytes=64 * GIB, used_bytes=8 * GIB, available_bytes=56 * GIB),
        disk=wire.Disk(total_bytes=1024 * GIB, free_bytes=512 * GIB),
        engine=wire.Engine(
            kind="ollama", url=engine, reachable=True, version="0.12.3", endpoints=list(wire.OLLAMA_ENDPOINTS),
            slots=SLOTS, models=[wire.Model(name=MODEL, size_bytes=2 * GIB, context_length=131_072, entry=entry)],
            loaded=[wire.LoadedModel(name=MODEL, size_bytes=3 * GIB, vram_bytes=3 * GIB, context_length=8192,
                                     entry=entry)],
        ),
    )  # fmt: skip


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def same_answers(contenders: Mapping[str, Contender]) -> None:
    """Raise ValueError where a contender's answer is not the node's, byte for byte: speed that cheats is no speed."""
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    for stream in (False, True):
        answers = {
            name: httpx.post(
                f"http://127.0.0.1:{contender.port}/v1/chat/completions", json={**chat, "stream": stream}
            ).raise_for_status().content
            for name, contender in contenders.items()
        }  # fmt: skip
        if wrong := [name for name, answer in answers.items() if answer != answers["direct"]]:
            raise ValueError(f"not the node's answer: {', '.join(wrong)} (stream: {stream})")


def _ready(url: str, only: tuple[int, ...] = (200,)) -> None:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2).status_code in only:
                return
        time.sleep(LOOK_S)
    raise TimeoutError(f"nothing answers at {url} within {READY_S:g} s")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)
