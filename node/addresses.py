"""Addresses as people write them, turned into URLs; knows no network, only this machine's own names and addresses.

The rules are Ollama's own for OLLAMA_HOST, so that one variable serves both: without a scheme the port is the
program's default, with `http://` it is 80, with `https://` 443.
"""

import ipaddress
import re
import socket
from urllib.parse import urlsplit

import psutil

from herd import wire

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # what a server binds, and where it answers
SCHEME_PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"[A-Za-z0-9._:%-]{0,200}")


def server_url(text: str, default_port: int) -> str:
    """`scheme://host:port` of an address such as `0.0.0.0`, `:8080`, `box:11434`, `[::1]` or `https://box`.

    A bind address (`0.0.0.0`, `::`) becomes the loopback address that answers there. ValueError says what is wrong.
    """
    cleaned = text.strip().strip("\"'")
    scheme, separator, rest = cleaned.rpartition("://")
    scheme = scheme.lower() if separator else "http"
    if scheme not in SCHEME_PORTS:
        raise ValueError(f"{text!r}: the scheme must be http or https")
    host, port = _host_and_port(text, rest, SCHEME_PORTS[scheme] if separator else default_port)
    return f"{scheme}://{bracketed(EVERYWHERE.get(host, host))}:{port}"


def bind_address(text: str, default_port: int) -> tuple[str, int]:
    """Host and port to listen on, of `127.0.0.1:9000`, `box`, `[::1]:9000` or `:9000` (every address of this machine).

    ValueError says what is wrong.
    """
    host, port = _host_and_port(text, text.strip(), default_port)
    return host or "0.0.0.0", port


def _host_and_port(text: str, rest: str, default_port: int) -> tuple[str, int]:
    rest = f"[{rest}]" if _is_ipv6(rest) else rest
    parts = urlsplit(f"//{rest}")
    if "@" in rest:
        raise ValueError("an address must not contain credentials")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"{text!r}: only host and port, no path")
    host = parts.hostname or ""
    if not HOST.fullmatch(host) or re.search(r"\s", rest) or (host and not wire.is_place(bracketed(host))):
        raise ValueError(f"{text!r}: not a host name or address")
    try:
        return host, default_port if parts.port is None else parts.port
    except ValueError:
        raise ValueError(f"{text!r}: the port must be a number up to 65535") from None


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def bracketed(host: str) -> str:
    """A host as it stands in a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def host_of(url: str) -> str:
    """The host of a URL, without brackets."""
    return urlsplit(url).hostname or ""


def port_of(url: str) -> int:
    """The port of a URL."""
    parts = urlsplit(url)
    return parts.port or SCHEME_PORTS.get(parts.scheme, 80)


def with_host(url: str, host: str) -> str:
    """The same URL at another host."""
    return f"{urlsplit(url).scheme}://{bracketed(host)}:{port_of(url)}"


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine and can mean no other."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_this_machine(host: str) -> bool:
    """Whether a host is loopback, this machine's name, or an address of one of its interfaces."""
    if is_loopback(host) or host.lower() == socket.gethostname().lower():
        return True
    own = (address.address for found in psutil.net_if_addrs().values() for address in found)
    return host in {address.partition("%")[0] for address in own}
