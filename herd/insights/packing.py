"""Which models should be in which node's memory at once: what is asked for, packed into the room there is.

Greedy, in two passes. First each model once, those with the most requests for each byte first; then, in the room that
is left, further copies of a model while each of its copies carries more than a node's equal share of all requests. A
model goes to a node that is fast enough for it and has it on its disk, if one has room, and among equals to the one
that it fills best, so that room stays for large ones; a copy goes only where it is fast enough. Pure; the order in
which nodes and models are given changes nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

READABLE: Final = 10.0  # tokens a second: slower than this, people read faster


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model that is asked for: how often, the bytes that it needs, and where it is on disk.

    `speeds` are the expected tokens a second by node, where they are known.
    """

    model: str
    requests: int
    needed: int
    holders: frozenset[str] = frozenset()
    speeds: Mapping[str, float] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Requests for each byte."""
        return self.requests / max(1, self.needed)

    def fast_on(self, node_id: str) -> bool:
        """Whether a node answers with it as fast as one reads, as far as that is known."""
        return self.speeds.get(node_id, READABLE) >= READABLE


@dataclass(frozen=True, slots=True)
class Placement:
    """A model in a node's memory; `copy` counts from 1."""

    model: str
    node_id: str
    needed: int
    copy: int = 1


@dataclass(frozen=True, slots=True)
class Mix:
    """What goes where, what found no room, and the bytes that stay free by node."""

    placements: tuple[Placement, ...]
    unplaced: tuple[Wanted, ...]
    left: Mapping[str, int]


def pack(rooms: Mapping[str, int], wanted: Iterable[Wanted]) -> Mix:
    """The best mix for nodes with so many usable bytes."""
    left = dict(rooms)
    order = sorted(wanted, key=lambda each: (-each.density, -each.requests, each.model))
    placements: list[Placement] = []
    unplaced = []
    for each in order:
        node_id = _best(each, left, taken=frozenset())
        if node_id is None:
            unplaced.append(each)
        else:
            _place(each, node_id, 1, left, placements)
    _copies({each.model: each for each in order}, left, placements)
    return Mix(tuple(placements), tuple(unplaced), left)


def _copies(wanted: Mapping[str, Wanted], left: dict[str, int], placements: list[Placement]) -> None:
    share = sum(each.requests for each in wanted.values()) / max(1, len(left))
    where = {placement.model: {placement.node_id} for placement in placements}
    open_ = set(where)
    while open_:
        model = min(open_, key=lambda name: (-wanted[name].requests / len(where[name]), name))
        node_id = None
        if wanted[model].requests / len(where[model]) > share:
            slow = {name for name in left if not wanted[model].fast_on(name)}
            node_id = _best(wanted[model], left, frozenset(where[model] | slow))
        if node_id is None:
            open_.discard(model)
            continue
        where[model].add(node_id)
        _place(wanted[model], node_id, len(where[model]), left, placements)


def _best(wanted: Wanted, left: Mapping[str, int], taken: frozenset[str]) -> str | None:
    fits = [node_id for node_id, room in left.items() if room >= wanted.needed and node_id not in taken]
    return min(
        fits,
        key=lambda node_id: (
            not wanted.fast_on(node_id),
            node_id not in wanted.holders,
            left[node_id] - wanted.needed,
            node_id,
        ),
        default=None,
    )


def _place(wanted: Wanted, node_id: str, copy: int, left: dict[str, int], placements: list[Placement]) -> None:
    left[node_id] -= wanted.needed
    placements.append(Placement(wanted.model, node_id, wanted.needed, copy))
