"""Processes of ours that tests kill as a machine's trouble would: without a word, and by their own process id."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.harness import Router

PATIENCE_S = 20.0


class Module:
    """One `python -m …`; what it says goes to a file of its own. It may be started again after it was killed."""

    def __init__(self, log: Path, *arguments: str, **environment: str) -> None:
        self.log = log
        self._command = [sys.executable, "-m", *arguments]
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; whoever needs it ready waits for what it does."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """kill -9, and wait until it is gone; nothing where it is gone already."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None


def recorder_of(router: Router) -> psutil.Process:
    """The process that writes a router's records; there is one, unless it was just killed."""
    assert router.process is not None
    children = psutil.Process(router.process.pid).children()
    (found,) = [
        each for each in children if each.status() != psutil.STATUS_ZOMBIE and "herd.recorder" in each.cmdline()
    ]
    return found


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a router holds at a moment: file descriptors, tasks, threads, bytes of memory, requests in flight.

    `fds` leaves out connections to nodes, which idle in a pool for a while, and open files, whose number is how many of
    its few threads have read the database.
    """

    fds: int
    tasks: int
    threads: int
    memory: int
    in_flight: int

    def fits(self, before: "Footprint", memory: int) -> bool:
        """Whether this is no more than what was before; `memory` bytes more are no leak yet."""
        held = self.fds <= before.fds and self.tasks <= before.tasks and self.in_flight == 0
        return held and self.memory - before.memory <= memory


def footprint(router: Router, *node_ports: int) -> Footprint:
    """The footprint of a router process at this moment; `node_ports` are those that its nodes' engines listen on."""
    assert router.process is not None
    process = psutil.Process(router.process.pid)
    tasks = int(router.metric("herd_event_loop_tasks"))
    in_flight = httpx.get(router.url + "/fleet/status", timeout=10).json()["fleet"]["requests_active"]
    pooled = [each for each in process.net_connections() if each.raddr and each.raddr.port in node_ports]
    fds = process.num_fds() - len(pooled) - len(process.open_files())
    return Footprint(fds, tasks, process.num_threads(), process.memory_info().rss, in_flight)
