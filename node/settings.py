"""The agent's settings as one frozen value, independent of their source."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from herd import wire

EngineKind = Literal["ollama", "llamacpp"]
DEFAULT_PORTS: dict[EngineKind, int] = {"ollama": 11434, "llamacpp": 8080}
ROUTER_PORT = 11435
METRICS_PORT = 11436
INTERVAL_S = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The agent's settings; URLs are `scheme://host:port`, None where the agent finds out by itself.

    `metrics_bind` is where the metrics are served, None for nowhere; `metrics_token` who asks for them must have.
    """

    node_id: str
    engine_url: str
    data_dir: Path
    engine: EngineKind = "ollama"
    router_url: str | None = None
    slots: int | None = None
    interval_s: float = INTERVAL_S
    advertise_url: str | None = None
    log_level: str = "INFO"
    metrics_bind: tuple[str, int] | None = None
    metrics_token: str | None = field(default=None, repr=False)


def sanitised_node_id(name: str) -> str:
    """A name cut to what `wire.NODE_ID_PATTERN` allows; `node` if nothing of it remains."""
    if re.fullmatch(wire.NODE_ID_PATTERN, name):
        return name
    allowed = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:64].rstrip("-")
    return allowed or "node"
