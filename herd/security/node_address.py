"""Where a node's engine is, as far as the node may say so. Pure.

A node says its address under its signature, and its connection comes from one: both must be the same, so that neither
a stolen heartbeat nor a false word sends a prompt elsewhere. The operator may name another place for a node.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from herd import wire

Address = IPv4Address | IPv6Address


class AddressRefused(Exception):
    """A node may not say that its engine is there; the text says what the operator can do."""


@dataclass(frozen=True, slots=True)
class Sender:
    """What of a node matters here: its operator's word, and whether it is the router's own user's."""

    direct: str = ""
    is_trusted: bool = False


def placed(beat: wire.Heartbeat, sender: Sender, client: str) -> wire.Heartbeat:
    """The heartbeat with the addresses at which the node is reached. Raises AddressRefused."""
    if sender.is_trusted and not sender.direct:
        return beat
    own = _address(client)
    url = sender.direct or _own_url(beat, own, client)
    metrics = beat.metrics_address
    if metrics is not None and _address(urlsplit(f"//{metrics}").hostname or "") != own:
        metrics = None
    return beat.model_copy(update={"engine": beat.engine.model_copy(update={"url": url}), "metrics_address": metrics})


def _own_url(beat: wire.Heartbeat, own: Address | None, client: str) -> str:
    host = urlsplit(beat.engine.url).hostname or ""
    if own is None or _address(host) != own:
        raise AddressRefused(
            f"{beat.node_id} says that its engine is at {host}, and its heartbeat comes from {client}; "
            f"if that is right: herd node direct {beat.node_id} {beat.engine.url}"
        )
    return beat.engine.url


def _address(host: str) -> Address | None:
    """A literal address, v4 where it is one in v6's clothes; None for a name."""
    try:
        found = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
