"""The interface between agent and engine: what every engine must report.

The agent knows this protocol only; how a kind of engine is asked stands in that kind's module.
"""

from pathlib import Path
from typing import Protocol

from herd import wire


class EngineProbe(Protocol):
    """Asks one engine about itself."""

    @property
    def url(self) -> str:
        """Where the agent reaches the engine, `scheme://host:port`."""

    @property
    def advice(self) -> str:
        """What to do so that other machines reach the engine."""

    async def snapshot(self) -> wire.Engine:
        """The engine as it is now; never raises: one that is away is a value too (`reachable` false, `error` why)."""

    async def answers_at(self, url: str) -> bool:
        """Whether the engine can be connected to at another address."""

    def models_folder(self) -> Path | None:
        """The folder that holds the models, as far as the last snapshot could tell."""

    async def close(self) -> None:
        """Let go of connections."""
