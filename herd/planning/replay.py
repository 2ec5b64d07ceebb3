"""The requests of the past under a policy of today, beside the same requests where they really went.

Both are simulated on the same machines, so that what differs is the policy's doing; how far the simulation itself is
from what was seen is said beside it.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from herd.planning.compare import POLICIES
from herd.planning.engine import Engine, Job
from herd.planning.figures import Figures, bias, by, errors, seen, simulated
from herd.planning.live import Herd, Options
from herd.planning.policies import LeastLoaded
from herd.planning.recorded import Site, Traffic, traffic
from herd.planning.simulate import Result, Router, Simulation
from herd.store.recorded import Past, Recorded

HERD = "herd"


class AsRecorded(LeastLoaded):
    """Gives each request to the node that answered it then; one that none did, to the least loaded."""

    def __init__(self, engines: Sequence[Engine], past: Sequence[Past]) -> None:
        super().__init__(engines)
        self.past = past
        self.places = {engine.machine.node_id: place for place, engine in enumerate(engines)}

    def choose(self, job: Job, holders: list[int]) -> int:
        """The same place as then."""
        row = job.arrival.row
        place = self.places.get(self.past[row].node_id or "") if row is not None else None
        return place if place in holders and place is not None else super().choose(job, holders)


@dataclass(frozen=True, slots=True)
class Replay:
    """A window under a policy: figures as seen, simulated as it was, and simulated under the policy.

    `moved` counts the requests that would have gone elsewhere, by where they went and where they would have gone.
    """

    was: Figures
    before: Figures
    after: Figures
    models: Mapping[str, tuple[Figures, Figures, int]]
    moved: Mapping[tuple[str, str], int]
    errors: Mapping[str, float]
    bias: Mapping[str, float]
    traffic: Traffic
    away: int


def replay(past: Recorded, site: Site, policy: str = HERD, options: Options = Options()) -> Replay:  # noqa: B008 - frozen
    """Serve a window's requests again. KeyError where there is no such policy."""
    told = servable(traffic(past), site)
    before = run(site, told, lambda engines: AsRecorded(engines, past.requests))
    after = run(site, told, router(policy, site, options))
    names = [machine.node_id for machine in site.machines]
    went = {fate.arrival.row: fate.place for fate in before.served}
    moves = [
        (went[fate.arrival.row], fate.place, fate.arrival.model)
        for fate in after.served
        if fate.arrival.row in went and went[fate.arrival.row] != fate.place
    ]
    of_model = Counter(model for _, _, model in moves)
    firsts, seconds = by(before, lambda each: each.model), by(after, lambda each: each.model)
    return Replay(
        seen(past.requests),
        simulated(before.served, before.refused),
        simulated(after.served, after.refused),
        {name: (firsts.get(name, Figures()), each, of_model[name]) for name, each in seconds.items()},
        Counter((names[here], names[there]) for here, there, _ in moves),
        errors(past.requests, before),
        bias(past.requests, before),
        told,
        sum(each.node_id is not None and each.node_id not in names for each in past.requests),
    )


def router(policy: str, site: Site, options: Options) -> Callable[[Sequence[Engine]], Router]:
    """A policy's router for a fleet as it was; Herd knows what it had learned. KeyError where there is none."""
    made = POLICIES[policy]
    if policy != HERD:
        return made
    known = Options(options.policy, options.queue_limit, options.queue_timeout_s, site.learned)
    return partial(Herd, options=known)


def servable(told: Traffic, site: Site) -> Traffic:
    """The traffic without the requests for models that no machine holds: they say nothing of a policy."""
    models = site.models
    return Traffic(tuple(each for each in told.arrivals if each.model in models), told.assumed)


def run(site: Site, told: Traffic, router_of: Callable[[Sequence[Engine]], Router]) -> Result:
    """One run over a fleet as it was."""
    return Simulation(site.machines, router_of).run(told.arrivals)
