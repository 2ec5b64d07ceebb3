"""Keeps the router's view of `access.json` fresh, ends what a revoked key has under way, and notes when keys were used.

It looks twice a second, so that no request has to.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from herd.security import keys
from herd.security.access import AccessUnreadable, Rows
from herd.security.credentials import Credentials

logger = logging.getLogger(__name__)
LOOK_EVERY_S: Final = 0.5
Unfit = Callable[[str], str | None]


class AccessWatch:
    """Runs beside the router. `on_change` is given what says, of a key's id, why the key is no longer good, if so."""

    def __init__(self, credentials: Credentials, on_change: Callable[[Unfit], None]) -> None:
        self._credentials = credentials
        self._on_change = on_change
        self._told = ""

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()
            if found := self._credentials.used:
                self._credentials.used = {}
                await asyncio.to_thread(self._note, found)

    def look(self) -> None:
        """Take over what changed. A file that cannot be read is told of once, and what was known stays."""
        try:
            changed = self._credentials.refresh()
        except (AccessUnreadable, KeyError, TypeError, ValueError) as error:
            if str(error) != self._told:
                logger.error("Keys stay as they are: %s", error)
                self._told = str(error)
            return
        self._told = ""
        if changed or self._credentials.any_expired(time.time()):
            self._on_change(self._unfit)

    def _unfit(self, key_id: str) -> str | None:
        key = self._credentials.keys.get(key_id)
        if key is None:
            return f"the key herd_{key_id} was struck off"
        wrong = key.wrong_at(time.time())
        return wrong[1] if wrong else None

    def _note(self, used: dict[str, float]) -> None:
        """Write down which keys were used today."""

        def noted(rows: Rows) -> Rows:
            return [keys.noted(row, used) for row in rows]

        try:
            self._credentials.access.change(keys.SECTION, noted)
        except (AccessUnreadable, OSError) as error:
            logger.warning("When keys were used is not on file: %s", error)
