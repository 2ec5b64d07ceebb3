"""The way to the router: which one, how a heartbeat gets there, and how long to wait when it does not.

A router that was found by itself is looked for again when it stays silent; one that the operator named is not replaced.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from pydantic import ValidationError

from herd import wire

from .introduction import Introduction
from .logs import fields
from .telemetry import Telemetry

PATH = "/heartbeat"
CLOSED = {401, 403, 409}
SEND_S = 5.0
FAREWELL_S = 2.0
LOST_AFTER = 3  # heartbeats that failed in a row before a found router is looked for again
BACKOFF_FIRST_S, BACKOFF_CAP_S = 1.0, 15.0  # the cap is half of the time after which a router calls a node offline

logger = logging.getLogger(__name__)


def backoff_s(failures: int, luck: float) -> float:
    """Seconds to wait after that many failures in a row; `luck` 0..1 spreads the fleet over the second half of it."""
    whole = min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 10))
    return whole * (0.5 + luck / 2)


class RouterLink:
    """Delivers heartbeats to the router at `given`, or to the one that `find` finds."""

    def __init__(
        self,
        given: str | None,
        find: Callable[[], Awaitable[str | None]],
        agent_version: str | None = None,
        telemetry: Telemetry | None = None,
        introduction: Introduction | None = None,
    ) -> None:
        self._introduction = introduction
        self._given = given
        self._find = find
        self._url = given
        self._agent_version = agent_version
        self._telemetry = telemetry or Telemetry()
        self._failures = 0
        self._refusal: str | None = None
        self._noted: set[str] = set()
        # A connection kept for the next heartbeat would often be closed by the router just as it is used again.
        self._http = httpx.AsyncClient(
            trust_env=False, timeout=SEND_S, limits=httpx.Limits(max_keepalive_connections=0)
        )

    async def locate(self) -> str | None:
        """The router's URL, looked for if need be; None if there is none now."""
        if self._url is None:
            self._url = await self._find()
            if self._url is None:
                self._failed("no router found; start `herd` on this machine or name one with --router-url", "no_router")
            else:
                logger.info("Router found", extra=fields(url=self._url))
        return self._url

    async def send(self, heartbeat: wire.Heartbeat) -> bool:
        """Deliver a heartbeat; True if the router took note of it, be it by refusing it (422)."""
        try:
            answer = await self._post(heartbeat)
        except httpx.HTTPError as error:
            self._failed(str(error) or type(error).__name__)
            return False
        if answer.status_code == 422:
            self._refused(_fields_named(answer))
        elif answer.status_code in CLOSED and (said := _said(answer)):
            self._turned_away(said)
            return False
        elif answer.status_code == 200 and (reply := _reply(answer)):
            self._taken(reply)
        else:
            self._failed(f"answered {answer.status_code} and nothing that a herd router says")
            return False
        return True

    async def farewell(self, heartbeat: wire.Heartbeat) -> None:
        """Deliver the last heartbeat if that goes quickly."""
        if self._url is None:
            return
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._post(heartbeat)
        except (httpx.HTTPError, TimeoutError) as error:
            logger.warning("Left without the router's answer", extra=fields(error=error or type(error).__name__))

    def pause_s(self) -> float:
        """How long to wait before the next try after a failure, in seconds."""
        return backoff_s(max(1, self._failures), random.random())

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _post(self, heartbeat: wire.Heartbeat) -> httpx.Response:
        body = heartbeat.model_dump_json().encode()
        span = self._telemetry.spans.heartbeat(str(self._url))
        headers = {"content-type": "application/json", **span.headers}
        try:
            if self._introduction is not None:
                headers |= await self._introduction.headers(self._http, str(self._url), PATH, body)
            answer = await self._http.post(f"{self._url}{PATH}", content=body, headers=headers)
        except (httpx.HTTPError, asyncio.CancelledError) as error:  # cancelled: given up, the agent leaves
            span.end(type(error).__name__, str(error))
            raise
        error_type = None if _reply(answer) else "not_herd" if answer.is_success else str(answer.status_code)
        span.end(error_type, status=answer.status_code)
        return answer

    def _failed(self, reason: str, outcome: str = "failed") -> None:
        self._failures += 1
        self._telemetry.metrics.beat(outcome)
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        logger.log(level, "Router is away", extra=fields(url=self._url, error=reason))
        if self._given is None and self._failures >= LOST_AFTER:
            self._url = None

    def _refused(self, named: str) -> None:
        self._telemetry.metrics.beat("refused")
        if named != self._refusal:
            logger.error("The router refuses the heartbeat", extra=fields(field=named))
        self._refusal, self._failures = named, 0

    def _turned_away(self, said: str) -> None:
        self._failures += 1
        self._telemetry.metrics.beat("refused")
        if self._introduction is not None:
            self._introduction.refused()
        if said != self._refusal:
            logger.error("The router refuses this node", extra=fields(url=self._url, error=said))
        self._refusal = said

    def _taken(self, reply: wire.HeartbeatReply) -> None:
        self._telemetry.metrics.beat("accepted")
        if self._failures or self._refusal or "taken" not in self._noted:
            logger.info("Router takes heartbeats", extra=fields(url=self._url, router_version=reply.router_version))
        self._refusal, self._failures = None, 0
        self._note("taken")
        if reply.router_version != self._agent_version and self._note(f"version {reply.router_version}"):
            versions = fields(agent_version=self._agent_version, router_version=reply.router_version)
            logger.warning("Agent and router are of different versions", extra=versions)
        if reply.v != wire.VERSION and self._note(f"contract {reply.v}"):
            logger.warning(
                "The router speaks another version of the heartbeat", extra=fields(ours=wire.VERSION, its=reply.v)
            )
        self._tell_draining(reply.draining)

    def _note(self, what: str) -> bool:
        """Whether this is the first time to say so."""
        new = what not in self._noted
        self._noted.add(what)
        return new

    def _tell_draining(self, draining: bool) -> None:
        if draining and self._note("draining"):
            logger.info("The operator drains this node: it gets no new requests")
        elif not draining and "draining" in self._noted:
            self._noted.discard("draining")
            logger.info("The operator no longer drains this node")


def _reply(answer: httpx.Response) -> wire.HeartbeatReply | None:
    try:
        return wire.HeartbeatReply.model_validate_json(answer.content)
    except ValidationError:
        return None


def _said(answer: httpx.Response) -> str | None:
    """The sentence with which a router turns a node away; None where no router says so."""
    try:
        document = answer.json()
    except ValueError:
        return None
    said = document.get("error") if isinstance(document, dict) else None
    return said[:500] if isinstance(said, str) else None


def _fields_named(answer: httpx.Response) -> str:
    """What a 422 complains of, as `field: message`; its text where it is of another shape."""
    try:
        document = answer.json()
    except ValueError:
        document = None
    items: Any = document.get("fields") if isinstance(document, dict) else None
    if isinstance(items, list) and items and all(isinstance(item, dict) for item in items):
        return "; ".join(f"{item.get('field')}: {item.get('message')}" for item in items[:5])[:500]
    return answer.text[:500]
