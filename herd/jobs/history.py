"""What the store remembers of the nodes: taken over at the start, and looked at again every five minutes."""

import asyncio
import logging
import time

from pydantic import ValidationError

from herd import wire
from herd.core.clock import moment
from herd.fleet.keeper import Keeper
from herd.store.queries import Reader, StoreUnreadable

logger = logging.getLogger(__name__)
EVERY_S = 300.0
FIRST_S = 1.0  # until there is a node to learn of


class History:
    """Brings the past into the cell."""

    def __init__(self, keeper: Keeper, reader: Reader) -> None:
        self._keeper = keeper
        self._reader = reader

    async def restore(self) -> None:
        """Start with the nodes in the store; an unreadable store does not delay the start."""
        try:
            known = await self._reader.ask(self._reader.known_nodes)
        except StoreUnreadable as error:
            logger.warning("The nodes from before the start are not known: %s", error)
            return
        for node in known:
            try:
                self._keeper.cell.restored(wire.Heartbeat.model_validate(node.heartbeat), node, moment())
            except ValidationError as error:
                logger.warning("What was kept of node %s is no heartbeat of this version: %s", node.node_id, error)
        self._keeper.on_change()

    async def run(self) -> None:
        """Learn until cancelled."""
        while True:
            if self._keeper.cell.entries:
                await self._learn()
            await asyncio.sleep(EVERY_S if self._keeper.cell.entries else FIRST_S)

    async def _learn(self) -> None:
        now = time.time()
        try:
            self._keeper.cell.set_uptimes(await asyncio.to_thread(self._reader.availability, now))
            self._keeper.cell.remember(await asyncio.to_thread(self._reader.recent_answers, now))
        except StoreUnreadable as error:
            logger.warning("The nodes' history is not known: %s", error)
