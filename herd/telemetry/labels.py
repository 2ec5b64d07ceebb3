"""Label values: names that the fleet knows, up to a cap, or a closed list. Nothing else becomes a label value.

A user's string never reaches a label, so no request can add a series; but for tags, where the operator let so many in.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from herd.telemetry.catalog.labels import UNKNOWN
from herd.telemetry.catalog.shapes import Label

Resolve = Callable[[tuple[str | None, ...]], tuple[str, ...] | None]


def clean(text: str) -> str:
    """The text with what UTF-8 cannot carry replaced: one lone surrogate would break the whole exposition."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class Known(Protocol):
    """Maps names to label values."""

    def of(self, name: str) -> str:
        """The label value for a name; counts an overflow if it is beyond the cap."""

    def next_event(self) -> None:
        """Count further overflows as those of a new event."""


class Names:
    """The values of one open label; who is in stays in while the fleet knows it.

    A name without room counts as overflow, once for each event that uses it.
    """

    def __init__(self, cap: int, overflow: Callable[[], None]) -> None:
        self._cap = cap
        self._overflow = overflow
        self._known: Mapping[str, str] = {}
        self._beyond: Collection[str] = ()
        self._counted: set[str] = set()

    @property
    def known(self) -> Collection[str]:
        """The label values in use."""
        return self._known.values()

    def of(self, name: str) -> str:
        """The label value for a name."""
        label = self._known.get(name)
        if label is not None:
            return label
        if name in self._beyond and name not in self._counted:
            self._counted.add(name)
            self._overflow()
        return UNKNOWN

    def next_event(self) -> None:
        """Count further overflows as those of a new event."""
        self._counted.clear()

    def peek(self, name: str) -> str:
        """The same without counting, for scrapes."""
        return self._known.get(name, UNKNOWN)

    def update(self, names: Collection[str]) -> tuple[set[str], set[str]]:
        """Set the fleet's names; returns the label values that were added and removed."""
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
    """The values of a label that callers choose: the first `cap` of them are let in; another one is an overflow."""

    def __init__(self, cap: int, overflow: Callable[[], None]) -> None:
        self._cap = cap
        self._overflow = overflow
        self._known: dict[str, str] = {}
        self._counted: set[str] = set()

    def of(self, name: str) -> str:
        """The label value for a name."""
        label = self._known.get(name)
        if label is None and len(self._known) < self._cap:
            label = self._known[name] = clean(name)
        if label is None and name not in self._counted:
            self._counted.add(name)
            self._overflow()
        return label or UNKNOWN

    def next_event(self) -> None:
        """Count further overflows as those of a new event."""
        self._counted.clear()


def resolver(labels: Collection[Label], names: Mapping[str, Known]) -> Resolve:
    """A function from what an event gives to label values; it gives None where such a thing is not counted."""
    picks = [_pick(label, names) for label in labels]

    def resolve(values: tuple[str | None, ...]) -> tuple[str, ...] | None:
        found = []
        for pick, value in zip(picks, values, strict=True):
            picked = pick(value)
            if picked is None:
                return None
            found.append(picked)
        return tuple(found)

    return resolve


def _pick(label: Label, names: Mapping[str, Known]) -> Callable[[str | None], str | None]:
    if label.names is not None:
        known = names[label.names]
        return lambda value: label.other if value in {None, label.other} else known.of(value or "")
    if label.values is None:
        raise ValueError(f"the label {label.name} is neither a closed list nor has it names, so nothing can be counted")
    closed: Mapping[str | None, str] = {value: value for value in label.values}
    return lambda value: closed.get(value, label.other)
