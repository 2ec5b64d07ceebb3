"""A real collector for tests: PyPI's `rotel`, a program in Rust that decodes OTLP by itself and hands on what it took.

It listens on loopback, passes every span on to an `OtlpReceiver`, and is ended by its process id.
"""

import socket
import subprocess
from pathlib import Path

import rotel

from tests.harness import free_port, until

PROGRAM = Path(rotel.__file__).with_name("rotel-agent")


class Collector:
    """One collector; `url` is the endpoint to export to, `said` what it prints."""

    def __init__(self, home: Path, onward: str) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._said = home / "collector.txt"
        self._options = (
            "--otlp-http-endpoint", f"127.0.0.1:{self._port}", "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}",
            "--exporter", "otlp", "--otlp-exporter-endpoint", onward, "--otlp-exporter-protocol", "http",
            "--batch-timeout", "100ms",
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it listens."""
        with self._said.open("wb") as said:
            self._process = subprocess.Popen([PROGRAM, "start", *self._options], stdout=said, stderr=said)
        until(self._listens, "the collector listens")

    def stop(self) -> None:
        """End it, and wait for its end."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            finally:
                self._process.kill()

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._said.read_text(errors="replace")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
