"""The addresses reported to the router: the engine's, for requests, and that of the agent's metrics.

An engine on loopback means this machine to the agent, and the router's own machine to a router elsewhere, which would
then send requests to the wrong engine without an error; so loopback is told to a router on this machine only.
"""

import asyncio
import logging
import socket
from dataclasses import dataclass

from herd import wire

from .addresses import EVERYWHERE, bracketed, host_of, is_loopback, port_of, with_host
from .engines import EngineProbe
from .logs import fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Advertised:
    """The engine's URL for the router; `problem` says why nobody outside this machine reaches it there."""

    url: str
    problem: str | None = None


async def facing_address(router_url: str) -> str | None:
    """This machine's own address on the way to the router; None if there is no way. Nothing is sent."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host_of(router_url), port_of(router_url), type=socket.SOCK_DGRAM)
    except OSError:
        return None
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)  # a datagram socket only looks up the route
                own, router = probe.getsockname()[0], address[0]
        except OSError:
            continue
        # the same address at both ends: the router is on this machine, under whatever name
        return "127.0.0.1" if own == router else str(own).partition("%")[0]
    return None


def advertised_url(engine_url: str, router_url: str, facing: str | None) -> str:
    """The engine's URL for the router: its own, unless it is loopback and the router is elsewhere."""
    keep = not is_loopback(host_of(engine_url)) or is_loopback(host_of(router_url))
    if keep or facing is None or is_loopback(facing):
        return engine_url
    return with_host(engine_url, facing)


def metrics_address(bound: tuple[str, int], router_url: str, facing: str | None) -> str | None:
    """Where the agent's metrics are, seen from the router's machine: `host:port`; None where they are not, from there.

    What is bound to every address is at the one that faces the router.
    """
    host: str | None = facing if bound[0] in EVERYWHERE else bound[0]
    is_near = is_loopback(host_of(router_url)) or (facing is not None and is_loopback(facing))
    if host is None or (is_loopback(host) and not is_near):
        return None
    return f"{bracketed(host)}:{bound[1]}"


async def tried(engine: EngineProbe, url: str) -> Advertised:
    """A URL for the router of an engine that answers the agent; tried where it is not the agent's own."""
    if url == engine.url or await engine.answers_at(url):
        return Advertised(url)
    return Advertised(url, f"answers on this machine only, not at {url} where the router would ask; {engine.advice}")


def as_advertised(engine: wire.Engine, advertised: Advertised) -> wire.Engine:
    """The engine as the router should see it: one that only this machine reaches is out of the router's reach."""
    if advertised.problem and engine.reachable:
        out_of_reach = {"reachable": False, "error": f"The engine {advertised.problem}", "loaded": []}
        return engine.model_copy(update={"url": advertised.url, **out_of_reach})
    return engine.model_copy(update={"url": advertised.url})


class Advertiser:
    """Finds the engine's URL for the router again and again, and warns once of each problem."""

    def __init__(self, engine: EngineProbe, given: str | None) -> None:
        self._engine = engine
        self._given = given
        self._problem: str | None = None

    async def toward(self, router_url: str, reachable: bool) -> Advertised:
        """The address for this router; not tried if the operator gave it or the engine is away altogether."""
        if self._given:
            return Advertised(self._given)
        url = advertised_url(self._engine.url, router_url, await facing_address(router_url))
        if not reachable:
            return Advertised(url)
        found = await tried(self._engine, url)
        if found.problem and found.problem != self._problem:
            logger.warning("The router cannot reach the engine", extra=fields(problem=found.problem))
        elif self._problem and not found.problem:
            logger.info("The router can reach the engine now", extra=fields(url=found.url))
        self._problem = found.problem
        return found
