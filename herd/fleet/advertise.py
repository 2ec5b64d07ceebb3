"""Tells the local network by mDNS where the router is, if it listens on more than loopback."""

import ipaddress
import logging
import socket

from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from herd import __version__
from herd.config import Settings

logger = logging.getLogger(__name__)
SERVICE = "_herd._tcp.local."


class Advertisement:
    """The router's mDNS record; does nothing on loopback, or where the setting `advertise` is off."""

    def __init__(self, settings: Settings) -> None:
        self._host = settings.text("host")
        self._port = settings.count("port")
        self._wanted = settings.flag("advertise") and not is_loopback(self._host)
        self._zeroconf: AsyncZeroconf | None = None

    async def start(self) -> None:
        """Announce; a network without multicast is logged, and no more."""
        if not self._wanted:
            return
        addresses = [self._host] if self._host not in {"0.0.0.0", "::", ""} else _own_addresses()
        info = AsyncServiceInfo(
            SERVICE,
            f"herd on {socket.gethostname()}-{self._port}.{SERVICE}",
            port=self._port,
            parsed_addresses=addresses,
            properties={"version": __version__},
        )
        try:
            self._zeroconf = AsyncZeroconf()
            await self._zeroconf.async_register_service(info, allow_name_change=True)
        except (OSError, ZeroconfError) as error:
            logger.warning("The router could not announce itself by mDNS (%s); agents need --router-url", error)

    async def stop(self) -> None:
        """Take the record back."""
        if self._zeroconf:
            await self._zeroconf.async_unregister_all_services()
            await self._zeroconf.async_close()


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _own_addresses() -> list[str]:
    found = socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET, socket.SOCK_STREAM)
    return sorted({str(entry[4][0]) for entry in found})
