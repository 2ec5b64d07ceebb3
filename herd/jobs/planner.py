"""Runs `herd plan` for the page in a process of its own: a simulation takes seconds of a core, and requests come first.

One runs at a time, at low priority and for a limited time; few may wait. What it says is the command's JSON.
"""

import asyncio
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 60.0
MOST_WAITING: Final = 4
WRONG_USE: Final = 64
NICE: Final = "nice"


@dataclass(frozen=True, slots=True)
class Planned:
    """What came of a plan: an HTTP status, and the JSON of the answer, or what was wrong in words."""

    status: int
    body: bytes = b""
    error: str = ""


class Planner:
    """The one place where plans are made for the page."""

    def __init__(self, data_dir: Path, patience_s: float = PATIENCE_S) -> None:
        self._command = [sys.executable, "-m", "herd", "plan", "--json", f"--data-dir={data_dir}"]
        if nice := shutil.which(NICE):
            self._command = [nice, "-n", "10", *self._command]
        self._patience_s = patience_s
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def plan(self, options: Sequence[str]) -> Planned:
        """The plan for these options of the command line, each as `--name=value`."""
        if self._waiting >= MOST_WAITING:
            return Planned(503, error="other plans are being made; try again in a minute")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._run(options)
        finally:
            self._waiting -= 1

    async def _run(self, options: Sequence[str]) -> Planned:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command, *options, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
        except OSError as error:
            return Planned(503, error=f"no process can be started for the plan: {error}")
        try:
            out, told = await asyncio.wait_for(process.communicate(), self._patience_s)
        except TimeoutError:
            return Planned(
                504, error=f"the plan took over {self._patience_s:.0f} s: a shorter window has fewer requests"
            )
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode == 0:
            return Planned(200, out)
        words = told.decode(errors="replace").strip().rpartition("\n")[2].removeprefix("herd: ")
        return Planned(400 if process.returncode == WRONG_USE else 409, error=words)
