"""Keeps the router's view of the nodes fresh, and strikes those out of the fleet that were revoked meanwhile.

It looks twice a second, so that a revoked node gets no further request although it sends no heartbeat either.
"""

import asyncio
from typing import Final

from herd.fleet.keeper import Keeper
from herd.security.node_door import NodeDoor
from herd.security.nodes import State

LOOK_EVERY_S: Final = 0.5


class NodeWatch:
    """Runs beside the router."""

    def __init__(self, door: NodeDoor, keeper: Keeper) -> None:
        self._door = door
        self._keeper = keeper

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._door.refresh()
            self.strike()
            await asyncio.sleep(LOOK_EVERY_S)

    def strike(self) -> None:
        """Take the nodes that are revoked now out of the fleet."""
        for member in self._door.members:
            if member.state is State.REVOKED and member.node_id in self._keeper.cell.entries:
                self._keeper.expel(member.node_id)
