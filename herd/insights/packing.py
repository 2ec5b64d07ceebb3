"""Suggested placement: which models to keep in which node's memory, given the requests.

Greedy, in three passes. First each model once, those with the most requests per byte first, where it fills the
room best, so that room stays for large ones. Then, while there is room, each moves to where it is expected to be
clearly faster. Last, further copies of a model while each of its copies carries more than a node's equal share of all
requests. A node that is fast enough and has the model on its disk comes before one that has not, and a copy goes only
where it is fast enough. Pure; the order in which nodes and models are given changes nothing.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

READABLE: Final = 10.0  # tokens per second: reading speed
COMPARABLE: Final = 0.8  # of the fastest node's speed: estimates are no more exact than that


@dataclass(frozen=True, slots=True)
class Wanted:
    """A requested model: number of requests, bytes needed, and the nodes that have it on disk.

    `speeds` are the expected tokens per second by node, if known.
    """

    model: str
    requests: int
    needed: int
    holders: frozenset[str] = frozenset()
    speeds: Mapping[str, float] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Requests per byte."""
        return self.requests / max(1, self.needed)

    def speed_on(self, node_id: str) -> float:
        """Expected tokens per second on a node; an unknown speed counts as just fast enough."""
        return self.speeds.get(node_id, READABLE)

    def fast_on(self, node_id: str) -> bool:
        """Whether a node answers at reading speed or faster, as far as known."""
        return self.speed_on(node_id) >= READABLE

    def rank_on(self, node_id: str) -> tuple[bool, bool]:
        """Sort key that takes precedence over speed; smaller is better."""
        return not self.fast_on(node_id), node_id not in self.holders


@dataclass(frozen=True, slots=True)
class Placement:
    """A model in a node's memory; `copy` counts from 1."""

    model: str
    node_id: str
    needed: int
    copy: int = 1


@dataclass(frozen=True, slots=True)
class Mix:
    """The placements, the models without room, and the free bytes left by node."""

    placements: tuple[Placement, ...]
    unplaced: tuple[Wanted, ...]
    left: Mapping[str, int]


def pack(rooms: Mapping[str, int], wanted: Iterable[Wanted]) -> Mix:
    """The suggested placement for nodes with these usable bytes."""
    left = dict(rooms)
    order = sorted(wanted, key=lambda each: (-each.density, -each.requests, each.model))
    where: dict[str, str] = {}
    # A move makes room for other models; each round places more models or makes some faster.
    while _once(order, left, where) or _moves(order, left, where):
        pass
    placements = [Placement(each.model, where[each.model], each.needed) for each in order if each.model in where]
    _copies({each.model: each for each in order}, left, placements)
    return Mix(tuple(placements), tuple(each for each in order if each.model not in where), left)


def _once(order: Iterable[Wanted], left: dict[str, int], where: dict[str, str]) -> bool:
    """Place models that have no place yet; whether any was placed."""
    before = len(where)
    for each in order:
        fits = _fits(each, left)
        if each.model not in where and fits:
            where[each.model] = min(fits, key=lambda name: (each.rank_on(name), left[name], name))
            left[where[each.model]] -= each.needed
    return len(where) > before


def _moves(order: Iterable[Wanted], left: dict[str, int], where: dict[str, str]) -> bool:
    """Move models to clearly faster nodes with room; whether any moved."""
    moved = False
    for each in order:
        here = where.get(each.model)
        best = _fastest(each, {here, *_fits(each, left)}) if here else []
        if here and here not in best:
            where[each.model], moved = min(best, key=lambda name: (left[name], name)), True
            left[here] += each.needed
            left[where[each.model]] -= each.needed
    return moved


def _copies(wanted: Mapping[str, Wanted], left: dict[str, int], placements: list[Placement]) -> None:
    share = sum(each.requests for each in wanted.values()) / max(1, len(left))
    where = {placement.model: {placement.node_id} for placement in placements}
    open_ = set(where)
    while open_:
        model = min(open_, key=lambda name: (-wanted[name].requests / len(where[name]), name))
        node_id = None
        if wanted[model].requests / len(where[model]) > share:
            fits = [name for name in _fits(wanted[model], left) if wanted[model].fast_on(name)]
            best = _fastest(wanted[model], set(fits) - where[model])
            node_id = min(best, key=lambda name: (left[name], name), default=None)
        if node_id is None:
            open_.discard(model)
            continue
        where[model].add(node_id)
        _place(wanted[model], node_id, len(where[model]), left, placements)


def _fits(wanted: Wanted, left: Mapping[str, int]) -> list[str]:
    return [node_id for node_id, room in left.items() if room >= wanted.needed]


def _fastest(wanted: Wanted, names: Collection[str]) -> list[str]:
    """The nodes of the best rank that are about as fast as the fastest of them."""
    rank = min(map(wanted.rank_on, names), default=None)
    ranked = [name for name in names if wanted.rank_on(name) == rank]
    bound = COMPARABLE * max(map(wanted.speed_on, ranked), default=0.0)
    return [name for name in ranked if wanted.speed_on(name) >= bound]


def _place(wanted: Wanted, node_id: str, copy: int, left: dict[str, int], placements: list[Placement]) -> None:
    left[node_id] -= wanted.needed
    placements.append(Placement(wanted.model, node_id, wanted.needed, copy))
