"""Tells the local network by mDNS where the router is, if it listens on more than loopback."""

import ipaddress
import logging
import socket
from collections.abc import Iterable

import psutil
from zeroconf import Error as ZeroconfError
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from herd import __version__
from herd.settings.values import Settings

logger = logging.getLogger(__name__)
SERVICE = "_herd._tcp.local."
INNER = ("docker", "br-", "veth", "virbr", "cni", "flannel")  # networks that end within this machine


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
        bound = self._host not in {"0.0.0.0", "::", ""}
        addresses = [self._host] if bound else reachable(interface_addresses(), self._host == "::")
        if not addresses:
            logger.warning("The router has no address that other machines reach; agents need --router-url")
            return
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


def interface_addresses() -> list[str]:
    """The addresses of this machine's interfaces that are up."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    return [
        each.address.partition("%")[0]
        for name, found in psutil.net_if_addrs().items()
        if name in up and not name.startswith(INNER)
        for each in found
        if each.family in {socket.AF_INET, socket.AF_INET6}
    ]


def reachable(addresses: Iterable[str], with_v6: bool) -> list[str]:
    """Those that another machine may reach: what a host name resolves to is 127.0.1.1 on Debian, and no such one.

    A link-local address needs the name of the sender's own interface, which mDNS does not carry.
    """
    found = (ipaddress.ip_address(address) for address in dict.fromkeys(addresses))
    return [
        str(each)
        for each in found
        if not (each.is_loopback or each.is_link_local or each.is_unspecified or each.is_multicast)
        and (each.version == 4 or with_v6)
    ]
