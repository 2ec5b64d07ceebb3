"""What a test tells a node and asks it over HTTP: `/sim/state`, `/sim/script`, `/sim/hardware`."""

import json
from collections import Counter
from dataclasses import fields
from typing import Any, Protocol

from pydantic import TypeAdapter, ValidationError

from herd.sim.engine import Refusal
from herd.sim.faults import Fault
from herd.sim.heartbeat import Hardware
from herd.sim.reply import Reply
from herd.sim.voice import JSON_PLAIN

KNOWN = "known: GET /sim/state, POST and DELETE /sim/script, POST /sim/hardware"
FAULTS = TypeAdapter(list[Fault])
FIELDS = {field.name for field in fields(Fault)}


class Controlled(Protocol):
    """The node, as far as it is controlled from here."""

    hardware: Hardware

    def script(self, *faults: Fault) -> None:
        """Set faults."""

    async def clear(self) -> None:
        """Forget all faults."""

    def state(self) -> dict[str, Any]:
        """What the node is doing."""


class Tally:
    """Requests by endpoint: under way, answered, refused, left by their client, broken by a fault."""

    NAMES = ("in_flight", "served", "refused", "aborted", "faulted")

    def __init__(self) -> None:
        self.in_flight: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.aborted: Counter[str] = Counter()
        self.faulted: Counter[str] = Counter()

    def add(self, name: str, path: str, count: int = 1) -> None:
        """Count a request of the engine's; what is asked about the simulation itself is not one."""
        if not path.startswith("/sim/"):
            getattr(self, name)[path] += count

    def as_json(self) -> dict[str, dict[str, int]]:
        """All counts that are not zero."""
        return {name: {path: count for path, count in getattr(self, name).items() if count} for name in self.NAMES}


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Refusal(400, f"not JSON: {error}") from None


def _faults(body: bytes) -> list[Fault]:
    value = _json(body)
    for each in value if isinstance(value, list) else [value]:
        unknown = sorted(set(each) - FIELDS) if isinstance(each, dict) else []
        if unknown:
            raise Refusal(400, f"not a fault: no field is called {unknown[0]}")
    try:
        return FAULTS.validate_python(value if isinstance(value, list) else [value])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"][1:]))
        raise Refusal(400, f"not a fault: {where}: {first['msg']}") from None


def _set_hardware(node: Controlled, body: bytes) -> None:
    value = _json(body)
    if not isinstance(value, dict):
        raise Refusal(400, "an object is needed")
    try:
        node.hardware.set(**value)
    except (TypeError, ValueError) as error:
        raise Refusal(400, str(error)) from None


async def control(node: Controlled, method: str, path: str, body: bytes, reply: Reply) -> None:
    """Answer one request to `/sim/…` with the state after it; Refusal for what is not there or is wrong."""
    if (method, path) == ("POST", "/sim/script"):
        node.script(*_faults(body))
    elif (method, path) == ("DELETE", "/sim/script"):
        await node.clear()
    elif (method, path) == ("POST", "/sim/hardware"):
        _set_hardware(node, body)
    elif (method, path) != ("GET", "/sim/state"):
        raise Refusal(404, KNOWN)
    await reply.whole(200, JSON_PLAIN, json.dumps(node.state()).encode())
