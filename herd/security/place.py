"""Where a request comes from: this machine itself, a private network, or who knows where.

Pure. An address alone says little: whatever a proxy, a tunnel or a container's port hands on arrives from the proxy's.
"""

from collections.abc import Mapping, MutableMapping
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final

from herd.security.names import Names

# Whoever sends one of these hands on what somebody else asked.
FORWARDING: Final = frozenset({
    b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port",
    b"x-forwarded-server", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip",
    b"cf-connecting-ip", b"fly-client-ip", b"tailscale-user-login",
})  # fmt: skip


class Place(Enum):
    """Where a request comes from, as far as its connection and its headers say."""

    HERE = "here"
    PRIVATE = "private"
    AFAR = "afar"


def place_of(scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes], host: str, names: Names) -> Place:
    """Where a request comes from.

    A proxy of `trusted_proxies` has put the client's address into the scope, with port 0; of another's word nothing is
    believed, so that such a request comes from afar, and so does one that asks loopback for a name of elsewhere.
    """
    address, port = scope.get("client") or ("", None)
    kind = _kind(address)
    if FORWARDING.isdisjoint(headers):
        if kind is Place.HERE and not names.is_of_this_machine(host):
            return Place.AFAR
        return kind
    return Place.AFAR if port != 0 or kind is Place.AFAR else Place.PRIVATE


@lru_cache(maxsize=4096)
def _kind(address: str) -> Place:
    try:
        found = ip_address(address)
    except ValueError:
        return Place.AFAR
    plain = getattr(found, "ipv4_mapped", None) or found
    if plain.is_loopback:
        return Place.HERE
    return Place.AFAR if plain.is_global or plain.is_multicast or plain.is_unspecified else Place.PRIVATE
