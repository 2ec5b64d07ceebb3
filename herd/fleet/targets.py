"""Tells Prometheus where the agents' metrics are, in a file of targets that it reads by itself.

The nodes are those that the cell knows and whose heartbeats say where. One that left in order goes; one that is lost
stays, so that somebody sees that it does not answer.
"""

import asyncio
import json
import logging
import os
from pathlib import Path

from herd.fleet.cell import Cell

logger = logging.getLogger(__name__)
LOOK_S = 1.0


class TargetsFile:
    """Keeps the file as the fleet is; a file that cannot be written is a line in the log, and tried again."""

    def __init__(self, cell: Cell, path: Path) -> None:
        self._cell = cell
        self._path = path
        self._written: str | None = None
        self._is_failing = False

    async def run(self) -> None:
        """Look about once a second what has changed, until cancelled."""
        while True:
            document = self.document()
            if document != self._written:
                await self._write(document)
            await asyncio.sleep(LOOK_S)

    def document(self) -> str:
        """The targets of this moment, in the form of Prometheus's file_sd_config."""
        groups = [
            {"targets": [entry.heartbeat.metrics_address], "labels": {"node": name}}
            for name, entry in sorted(self._cell.entries.items())
            if entry.heartbeat.metrics_address and not entry.left
        ]
        return json.dumps(groups, indent=2) + "\n"

    async def _write(self, document: str) -> None:
        try:
            await asyncio.to_thread(_replace, self._path, document)
        except OSError as error:
            if not self._is_failing:
                logger.warning("Prometheus cannot be told where the agents' metrics are: %s", error)
            self._is_failing = True
        else:
            self._written, self._is_failing = document, False


def _replace(path: Path, text: str) -> None:
    """Whoever reads meanwhile finds the old file or the new one, whole."""
    if not path.parent.exists():
        path.parent.mkdir()
        path.parent.chmod(0o755)  # Prometheus is another user, and reads this where it is let in
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)  # whatever it is: a link that was followed would have us write elsewhere
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
        file.write(text)
    beside.chmod(0o644)
    beside.replace(path)
