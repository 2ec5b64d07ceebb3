"""Real processes for the tests: Ollama, llama.cpp's server, and herd's own agent beside each, ended by process id."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil

from tests.harness import HOMES, free_port, until

ENGINES = Path(os.environ.get("REAL_ENGINES") or Path(__file__).parents[2] / ".engines")
TINY = ENGINES / "models" / "tiny.gguf"
# What the machine's user has set for an Ollama or a herd of his own must not reach these.
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("OLLAMA_", "HERD_", "LLAMA_", "OTEL_"))}


class Process:
    """One program with a folder of its own, in which `log.txt` is what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: psutil.Popen | None = None

    def launch(self, *command: str, **environment: str) -> None:
        """Start it with a home of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("ab") as log:
            own = {"HOME": str(self.folder), "PYTHONWARNINGS": "ignore", **environment}
            self.running = psutil.Popen(command, env={**CLEAN, **own}, stdout=log, stderr=subprocess.STDOUT)

    def said(self) -> str:
        """The end of what it said."""
        return (self.folder / "log.txt").read_text(errors="replace")[-2000:]

    def family(self) -> list[psutil.Process]:
        """The process and those that it started: Ollama's runners outlive a server that was killed."""
        if self.running is None or not self.running.is_running():
            return []
        return [self.running, *self.running.children(recursive=True)]

    def kill(self) -> None:
        """End it and what it started as a crash would: no goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order, and by force where that takes too long."""
        self._end(signal.SIGTERM)

    def _end(self, kind: signal.Signals) -> None:
        family = self.family()
        for process in family[:1] if kind is signal.SIGTERM else family:
            process.send_signal(kind)
        _, alive = psutil.wait_procs(family, timeout=5)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=5)
        self.running = None


class Server(Process):
    """An inference server that answers at `url`."""

    kind: str
    ready_path: str

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def await_ready(self) -> None:
        """Wait until it answers."""
        until(self.is_ready, f"{self.kind} answers; it said: {self.said()}", 60)

    def is_ready(self) -> bool:
        """Whether it answers now."""
        assert self.running is not None
        assert self.running.poll() is None, f"{self.kind} ended: {self.said()}"
        try:
            return httpx.get(self.url + self.ready_path, timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def is_idle(self) -> bool:
        """Whether it uses next to no processor time, measured over a third of a second; asks it nothing."""
        assert self.running is not None
        return bool(self.running.cpu_percent(0.3) < 10)


class Ollama(Server):
    """`ollama serve` with models of its own."""

    kind, ready_path = "ollama", "/api/version"

    def start(self, **environment: str) -> None:
        """Start and wait until it answers."""
        settings = {
            "OLLAMA_MODELS": str(self.folder / "models"), "OLLAMA_NO_CLOUD": "1", "OLLAMA_KEEP_ALIVE": "1h",
            "OLLAMA_MAX_LOADED_MODELS": "9",
        }  # fmt: skip
        self.launch(
            str(ENGINES / "bin" / "ollama"), "serve",
            **{"OLLAMA_HOST": f"127.0.0.1:{self.port}", **settings, **environment},
        )  # fmt: skip
        self.await_ready()

    def create(self, name: str, model: Path, *parameters: str) -> None:
        """`ollama create` from a model's file, with further lines of a Modelfile."""
        modelfile = self.folder / f"Modelfile.{name}"
        modelfile.write_text("\n".join([f"FROM {model}", *parameters, ""]))
        command = [str(ENGINES / "bin" / "ollama"), "create", name, "-f", str(modelfile)]
        own = {"OLLAMA_HOST": f"127.0.0.1:{self.port}", "HOME": str(self.folder)}
        made = subprocess.run(command, env={**CLEAN, **own}, capture_output=True, text=True, timeout=60, check=False)
        assert made.returncode == 0, made.stderr

    def loaded(self) -> dict[str, int]:
        """The context of each model in memory, by its name."""
        models = httpx.get(self.url + "/api/ps", timeout=10).json()["models"]
        return {model["name"]: model["context_length"] for model in models}

    def runners(self) -> set[int]:
        """The process ids of its runners: a model that was loaded anew has a new one."""
        return {process.pid for process in self.family()[1:]}


class LlamaServer(Server):
    """llama.cpp's server with one model under the names given to it."""

    kind, ready_path = "llama-server", "/health"

    def start(self, model: Path, *names: str, slots: int = 2, options: tuple[str, ...] = ()) -> None:
        """Start and wait until its model is loaded; the context of one slot is 4096 tokens."""
        self.launch(
            str(ENGINES / "bin" / "llama-server"), "-m", str(model), "-a", ",".join(names), "-t", "1", "-tb", "1",
            "--host", "127.0.0.1", "--port", str(self.port), "-np", str(slots), "-c", str(4096 * slots), *options,
        )  # fmt: skip
        self.await_ready()

    def working(self) -> int:
        """How many of its slots are at work."""
        return sum(slot["is_processing"] for slot in httpx.get(self.url + "/slots", timeout=10).json())


class Agent(Process):
    """`herd-node` beside a server."""

    def __init__(self, folder: Path, node_id: str) -> None:
        super().__init__(folder)
        self.node_id = node_id

    def start(self, router_url: str, server: Server, *options: str) -> None:
        """Start; it joins the router by itself."""
        engine = ["--ollama-host", server.url]
        if isinstance(server, LlamaServer):
            engine = ["--engine", "llamacpp", "--engine-url", server.url]
        self.launch(
            sys.executable, "-m", "node", "--router-url", router_url, "--node-id", self.node_id,
            "--data-dir", str(self.folder), *engine, *options,
            HERD_JOIN_FILE=str(HOMES[router_url] / "local.code"),
        )  # fmt: skip
