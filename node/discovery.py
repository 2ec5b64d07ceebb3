"""Finds a router that nobody named: on this machine first, then by multicast DNS on the local network.

Whoever answers is asked whether it is herd. That is no proof; it keeps heartbeats from servers that happen to be there.
"""

import asyncio
import logging

import httpx
from zeroconf import InterfaceChoice, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from .addresses import bracketed
from .engines.parse import table
from .settings import ROUTER_PORT

SERVICE = "_herd._tcp.local."
LOCAL_URL = f"http://localhost:{ROUTER_PORT}"
BROWSE_S = 3.0
RESOLVE_MS = 1000
IS_HERD_S = 2.0

logger = logging.getLogger(__name__)


async def find_router(
    local_url: str = LOCAL_URL,
    interfaces: InterfaceChoice | list[str] = InterfaceChoice.All,
    browse_s: float = BROWSE_S,
) -> str | None:
    """The URL of a router, None if none answered in time."""
    async with httpx.AsyncClient(trust_env=False, timeout=IS_HERD_S) as http:
        if await is_herd(http, local_url):
            return local_url
        return await _browse(http, interfaces, browse_s)


async def is_herd(http: httpx.AsyncClient, url: str) -> bool:
    """Whether a herd router answers at a URL."""
    try:
        answer = await http.get(f"{url}/healthz")
        return answer.status_code == 200 and table(answer.json()).get("service") == "herd"
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False


async def _browse(http: httpx.AsyncClient, interfaces: InterfaceChoice | list[str], browse_s: float) -> str | None:
    try:
        zeroconf = AsyncZeroconf(interfaces=interfaces)
    except (OSError, RuntimeError) as error:  # no network with multicast; no network at all
        logger.debug("No multicast DNS here: %s", error)
        return None
    names: asyncio.Queue[str] = asyncio.Queue()

    def on_change(zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:  # noqa: ARG001 - zeroconf calls by keyword
        if state_change is not ServiceStateChange.Removed:
            names.put_nowait(name)

    browser = AsyncServiceBrowser(zeroconf.zeroconf, SERVICE, handlers=[on_change])
    try:
        async with asyncio.timeout(browse_s):
            return await _first_herd(http, zeroconf, names)
    except TimeoutError:
        return None
    finally:
        await browser.async_cancel()
        await zeroconf.async_close()


async def _first_herd(http: httpx.AsyncClient, zeroconf: AsyncZeroconf, names: asyncio.Queue[str]) -> str:
    while True:
        service = AsyncServiceInfo(SERVICE, await names.get())
        if not await service.async_request(zeroconf.zeroconf, RESOLVE_MS):
            continue
        for address in service.parsed_scoped_addresses():
            url = f"http://{bracketed(address)}:{service.port}"
            if await is_herd(http, url):
                return url
