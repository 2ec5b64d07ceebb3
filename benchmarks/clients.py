"""The client process, as the benchmark sees it: it requests rounds and receives their results."""

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from benchmarks.contenders import Stage
from benchmarks.load import Outcome, Round


class Clients:
    """One process of `benchmarks.load`, kept for the whole run; one round at a time. Leave it by its context."""

    def __init__(self, stage: Stage) -> None:
        command = [sys.executable, "-m", "benchmarks.load"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stage.place(self._process.pid, 0)

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(30)

    def begin(self, ask: Round) -> None:
        """Begin a round."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(asdict(ask)) + "\n")
        self._process.stdin.flush()

    def next_line(self) -> dict[str, Any]:
        """What it says next: that the window begins or ends, or the outcome."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the clients ended; what it said stands above")
        found: dict[str, Any] = json.loads(line)
        return found

    def outcome(self) -> Outcome:
        """The outcome, once the round is over; raises RuntimeError where an answer was wrong."""
        while "phase" in (found := self.next_line()):
            pass
        outcome = Outcome(**found)
        if outcome.failed:
            raise RuntimeError(f"{outcome.failed} requests failed, the first with: {outcome.failure}")
        return outcome
