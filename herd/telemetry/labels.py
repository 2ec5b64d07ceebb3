"""What may become a label's value: names that the fleet knows, up to a cap. Everything else is `_unknown`.

A user's string never reaches a label, so no request can add a series; but for tags, where the operator let so many in.
"""

from collections.abc import Callable, Collection, Mapping

from herd.telemetry.catalog import UNKNOWN


def clean(text: str) -> str:
    """The text with what UTF-8 cannot carry replaced: one lone surrogate would break the whole exposition."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class Names:
    """The values of one open label; who is in stays in while the fleet knows it. Each use of one too many is told."""

    def __init__(self, cap: int, overflow: Callable[[], None]) -> None:
        self._cap = cap
        self._overflow = overflow
        self._known: Mapping[str, str] = {}
        self._beyond: Collection[str] = ()

    @property
    def known(self) -> Collection[str]:
        """The label values in use."""
        return self._known.values()

    def of(self, name: str | None) -> str:
        """The label value for a name."""
        label = self._known.get(name) if name is not None else None
        if label is not None:
            return label
        if name in self._beyond:
            self._overflow()
        return UNKNOWN

    def peek(self, name: str) -> str:
        """The same, by somebody who only looks: a scrape must not count."""
        return self._known.get(name, UNKNOWN)

    def update(self, names: Collection[str]) -> tuple[set[str], set[str]]:
        """Take the fleet's names; returns the label values that came and those that went."""
        before = set(self.known)
        stay = [name for name in self._known if name in names]
        come = sorted(name for name in names if name not in self._known)
        taken = [*stay, *come][: self._cap]
        # Replaced, not changed: a scrape in another thread reads the old or the new, never half of each.
        self._known = {name: clean(name) for name in taken}
        self._beyond = frozenset(names).difference(taken)
        after = set(self.known)
        return after - before, before - after


class FirstCome:
    """The values of a label that callers choose: the first `cap` of them are let in. Each use of another is told."""

    def __init__(self, cap: int, overflow: Callable[[], None]) -> None:
        self.cap = cap
        self._overflow = overflow
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The label value for a name."""
        label = self._known.get(name)
        if label is None and len(self._known) < self.cap:
            label = self._known[name] = clean(name)
        if label is None:
            self._overflow()
        return label or UNKNOWN
