"""What a change of the fleet or of its traffic would do, from the requests of the past.

The window is simulated as it was and with the change, both under Herd's own routing. How far the first is from what
was seen is the error of the second.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor
from random import Random
from typing import Final, NamedTuple

from herd.core.learning import PROMPT_FALL, TOKEN_FALL
from herd.core.learning import Machine as OnPaper
from herd.core.signals import KV_SHARE
from herd.planning.arrivals import Arrival
from herd.planning.engine import Machine
from herd.planning.figures import Figures, bias, by, errors, seen, simulated
from herd.planning.live import GB, Learned, Options
from herd.planning.recorded import Site, Traffic, speed, traffic
from herd.planning.replay import HERD, router, run
from herd.planning.simulate import Result
from herd.store.recorded import Past, Recorded

SEED: Final = 1
SPREAD_S: Final = 600.0  # a further request comes at most so long after the one that it is made of
UNTAGGED: Final = "none"


class NewNode(NamedTuple):
    """A machine that may be bought: how it is called, GB that models may take there, and what is known on paper."""

    node_id: str
    memory: float
    paper: OnPaper
    slots: int = 4


class NewModel(NamedTuple):
    """A model that may be offered: bytes of its weights, and the share of all requests that would ask for it."""

    name: str
    size: int
    share: float


@dataclass(frozen=True, slots=True)
class Change:
    """What would be different; `slots` of every node, or of those that are named."""

    add_nodes: tuple[NewNode, ...] = ()
    remove_nodes: tuple[str, ...] = ()
    add_models: tuple[NewModel, ...] = ()
    times: float = 1.0
    slots: Mapping[str | None, int] = field(default_factory=dict)


class Beside(NamedTuple):
    """The same requests before and after a change, and the error of their figures, where it is known."""

    before: Figures
    after: Figures
    errors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer: `was` is as it was seen, `busy` each node's share of time at work before and after."""

    was: Figures
    all: Beside
    models: Mapping[str, Beside]
    tags: Mapping[str, Beside]
    busy: Mapping[str, tuple[float | None, float | None]]
    bias: Mapping[str, float]
    notes: tuple[str, ...]


def plan(past: Recorded, site: Site, change: Change, options: Options = Options()) -> Plan:  # noqa: B008 - frozen
    """Serve a window's requests as they came, and as they would come. ValueError for a change that cannot be."""
    told = traffic(past)
    new_site = changed_site(site, change)
    new_told = Traffic(changed_arrivals(told.arrivals, change), told.assumed)
    before = run(site, told, router(HERD, site, options))
    after = run(new_site, new_told, router(HERD, new_site, options))
    rows = past.requests
    return Plan(
        seen(rows),
        Beside(simulated(before.served, before.refused), simulated(after.served, after.refused), errors(rows, before)),
        _beside(rows, before, after, lambda each: each.model),
        _beside(rows, before, after, lambda each: each.tag or UNTAGGED),
        _busy(site, before.busy, new_site, after.busy),
        bias(rows, before),
        tuple(_notes(past, told, site, new_site)),
    )


def _beside(
    past: Sequence[Past], before: Result, after: Result, name_of: Callable[[Arrival | Past], str]
) -> dict[str, Beside]:
    """The requests by group, before and after, the largest of the past first."""
    first, second = by(before, name_of), by(after, name_of)
    return {
        name: Beside(
            first.get(name, Figures()),
            second.get(name, Figures()),
            errors(past, before, lambda each, name=name: name_of(each) == name),  # type: ignore[misc]
        )
        for name in dict.fromkeys((*first, *second))
    }


def changed_site(site: Site, change: Change) -> Site:
    """The fleet with the change. ValueError where it names a node that is not there, or leaves none."""
    here = {machine.node_id for machine in site.machines}
    if unknown := [name for name in (*change.remove_nodes, *filter(None, change.slots)) if name not in here]:
        raise ValueError(f"there is no node {unknown[0]}; there are {', '.join(sorted(here))}")
    machines = [each for each in site.machines if each.node_id not in change.remove_nodes]
    learned = {each.node_id: site.learned[each.node_id] for each in machines}
    peers = [each.machine for each in learned.values()]
    weights = _weights(site, change.add_models)
    for new in change.add_nodes:
        node_id = _free_name(new.node_id, learned)
        learned[node_id] = known = Learned(new.paper.among(peers))
        empty = Machine(node_id, new.memory, {}, new.slots, PROMPT_FALL, TOKEN_FALL, known.machine.kind,
                        (known.machine.bandwidth or 0.0) / GB, _stays_s(machines))  # fmt: skip
        machines.append(_with_models(empty, weights, known))
    for model in change.add_models:
        if model.name not in site.models:
            machines = [_with_models(each, {model.name: model.size}, learned[each.node_id]) for each in machines]
    if not machines:
        raise ValueError("no node would be left")
    every = change.slots.get(None)
    made = (replace(each, slots=change.slots.get(each.node_id, every or each.slots)) for each in machines)
    return Site(tuple(made), learned, site.measured)


def changed_arrivals(arrivals: Sequence[Arrival], change: Change, seed: int = SEED) -> tuple[Arrival, ...]:
    """The traffic with the change: more or less of it, and a share of it for other models. The same each time."""
    random = Random(seed)
    found: list[Arrival] = []
    for each in arrivals:
        times = floor(change.times) + (random.random() < change.times % 1)
        found += [each] * min(times, 1)
        found += (replace(each, at=each.at + random.uniform(0, SPREAD_S), row=None) for _ in range(1, times))
    for model in change.add_models:
        found = [replace(each, model=model.name, row=None) if random.random() < model.share else each for each in found]
    return tuple(sorted(found, key=lambda each: each.at))


def _with_models(machine: Machine, weights: Mapping[str, int], known: Learned) -> Machine:
    """The machine with these models as well, as far as each fits into its memory."""
    speeds = dict(machine.models)
    for name, size in weights.items():
        taken = size * (1 + KV_SHARE) / GB
        if name not in speeds and taken <= machine.memory:
            speeds[name] = speed(taken, known.machine.expects(size))
    return replace(machine, models=speeds)


def _weights(site: Site, new: Iterable[NewModel]) -> dict[str, int]:
    """Bytes of the weights of every model, as the machines that hold it take it."""
    held = {
        name: int(there.size / (1 + KV_SHARE) * GB) for each in site.machines for name, there in each.models.items()
    }
    return held | {each.name: each.size for each in new if each.name not in held}


def _stays_s(machines: Sequence[Machine]) -> float:
    return min((each.keep_alive_s for each in machines), default=300.0)


def _free_name(name: str, taken: Mapping[str, object]) -> str:
    number, found = 2, name
    while found in taken:
        number, found = number + 1, f"{name}-{number}"
    return found


def _busy(
    site: Site, before: Sequence[float], new: Site, after: Sequence[float]
) -> dict[str, tuple[float | None, float | None]]:
    first = {machine.node_id: share for machine, share in zip(site.machines, before, strict=True)}
    second = {machine.node_id: share for machine, share in zip(new.machines, after, strict=True)}
    return {
        name: (first.get(name), second.get(name)) for name in (*first, *(each for each in second if each not in first))
    }


def _notes(past: Recorded, told: Traffic, site: Site, new: Site) -> Iterable[str]:
    """What is not known, in sentences."""
    if past.left_out:
        yield f"{past.left_out:,} earlier requests are left out."
    if told.assumed:
        yield f"{told.assumed:,} requests have no recorded length; the median of their model is used."
    here = {machine.node_id for machine in site.machines}
    if gone := {each.node_id for each in past.requests if each.node_id} - here:
        yield f"Requests served by nodes that are no longer known ({_listed(sorted(gone))}) go to the other nodes."
    asked = {each.model for each in past.requests}
    pairs = [(name, machine.node_id) for machine in new.machines for name in machine.models
             if name in asked or name not in site.models]  # fmt: skip
    if guessed := [f"{name} on {node_id}" for name, node_id in sorted(pairs) if (node_id, name) not in new.measured]:
        yield f"Not measured yet, so estimated from data sheets and the fleet's other speeds: {_listed(guessed)}."
    if missing := sorted(asked - new.models):
        yield f"No node would hold {_listed(missing)}: those requests are rejected."


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
