"""What a request says of where it comes from and whom it asks: Host and Origin, and what they may be.

Pure. For inference and reading they may be what Ollama allows by default, so that whatever works with it works here;
for changes only what is the router's own. A browser says its page's origin with everything but plain reads, so that a
change without an Origin is no page's.
"""

import ipaddress
import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache
from urllib.parse import urlsplit

HOST = re.compile(r"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{1,64}\])(:[0-9]{1,5})?")
# Names that no public DNS gives out: containers, machines on the same network, this machine.
NEAR = (".localhost", ".local", ".internal")
# Pages that are part of an installed program: app shells, editors, extensions.
APPS = frozenset({
    "app", "file", "tauri", "vscode-webview", "vscode-file",
    "chrome-extension", "moz-extension", "ms-browser-extension", "safari-extension", "safari-web-extension",
})  # fmt: skip
MOST_KNOWN = 256  # hosts that were judged already; every request of a client has the same one
OWN_FETCHES = frozenset({"same-origin", "none"})


class Names:
    """What this router is called, and which pages may use it.

    `own` are the machine's names beside `localhost`; `named` those that the operator adds (`*`: any); `origins` are
    patterns of further pages that may ask, such as `https://chat.example.com` or `https://*.example.com`.
    """

    def __init__(self, own: Iterable[str], named: Iterable[str] = (), origins: Iterable[str] = ()) -> None:
        self._named = {name for each in named if (name := each.strip().lower())}
        self._own = {"localhost", *(name for each in own for name in (each.lower(), f"{each.lower()}.local"))}
        patterns = [translate(text.lower().rstrip("/")) for each in origins if (text := each.strip())]
        self._here: dict[str, bool] = {}
        self._origins = re.compile("|".join(patterns)) if patterns else None

    def may_be_called(self, host: str) -> bool:
        """Whether a Host header names this machine in a way that a public page cannot arrange by DNS."""
        name = host_name(host)
        return not host or self._is_own(name) or name.endswith(NEAR)

    def is_of_this_machine(self, host: str) -> bool:
        """Whether a Host header means this machine as its own users call it, and not what a proxy serves."""
        if (known := self._here.get(host)) is None:
            if len(self._here) >= MOST_KNOWN:
                self._here.clear()
            known = self._here[host] = self._means_this_machine(host)
        return known

    def _means_this_machine(self, host: str) -> bool:
        name = host_name(host)
        if is_address(name):
            return ipaddress.ip_address(name).is_loopback
        return not host or name in self._own or (name.endswith(NEAR) and not self._is_named(name))

    def may_ask(self, origin: str | None, host: str) -> bool:
        """Whether a page may use the fleet and read its answers."""
        if origin is None:
            return True
        scheme, _, place = origin.lower().partition("://")
        name = host_name(place)
        near = scheme in {"http", "https"} and (_is_this_machine(name) or self._is_named(name) or place == host.lower())
        return near or scheme in APPS or bool(self._origins and self._origins.fullmatch(origin.lower()))

    def may_change(self, origin: str | None, host: str, fetch_site: str = "") -> bool:
        """Whether a request may change something: the router's own page may, and whatever is no page."""
        if fetch_site and fetch_site not in OWN_FETCHES:
            return False
        if origin is None:
            return True
        place = origin.lower().partition("://")[2]
        return host_name(place) in self._named or (place == host.lower() and self._is_own(host_name(host)))

    def _is_own(self, name: str) -> bool:
        return name in self._own or self._is_named(name) or is_address(name)

    def _is_named(self, name: str) -> bool:
        return name in self._named or "*" in self._named


def is_host(text: str) -> bool:
    """Whether a Host header is a name or an address, with or without a port; an empty one names nobody."""
    return not text or HOST.fullmatch(text) is not None


@lru_cache(maxsize=256)  # every request of a client has the same one
def host_name(place: str) -> str:
    """The host of `host:port`, lower case, without brackets and without the dot that ends a full name."""
    try:
        return (urlsplit(f"//{place}").hostname or "").removesuffix(".")
    except ValueError:  # a bracket that is not closed
        return "?"


@lru_cache(maxsize=256)
def is_address(name: str) -> bool:
    """Whether a host is a literal address, which no DNS can make another's."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_this_machine(name: str) -> bool:
    if not is_address(name):
        return name == "localhost"
    address = ipaddress.ip_address(name)
    return address.is_loopback or address.is_unspecified
