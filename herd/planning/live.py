"""Herd as a router of the simulator: what its cell knows of the fleet, and the same `decide` and lanes as live.

It sees what a router sees: heartbeats that come late, first tokens and ends of its own requests, and what engines
report. The options take away one kind of ignorance each, so that the regret can be split.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import exp

from herd.core.fleet import Fleet, Loaded, Model, Node, Traffic
from herd.core.learning import Length, Machine, Observation, Speeds, expected_tokens
from herd.core.prediction import IDLE, Work
from herd.core.request import Dialect, Request
from herd.core.routing import Candidate, Policy, decide, job, open_to
from herd.planning.arrivals import Arrival
from herd.planning.engine import Engine, Happened
from herd.planning.engine import Job as EngineJob
from herd.planning.simulate import Give

GB = 10**9
ENDPOINT = "/api/chat"
HEARTBEAT_S = 5.0
DEMAND_S = 600.0  # a request of so long ago counts a third
KINDS = {"RTX": "nvidia", "M": "apple"}


@dataclass(frozen=True, slots=True)
class Options:
    """What this Herd knows better than a real one; `rebind`: those who wait are decided about anew at each end."""

    lengths_known: bool = False
    always_fresh: bool = False
    speeds_known: bool = False
    rebind: bool = False
    policy: Policy = field(default_factory=Policy)


@dataclass(slots=True)
class Waiting:
    job: EngineJob
    arrival: Arrival
    request: Request
    place: int = 0
    candidate: Candidate | None = None


class Herd:
    """The router. One for a run."""

    def __init__(self, engines: Sequence[Engine], options: Options = Options()) -> None:
        self.engines = engines
        self.options = options
        self.nodes: list[Node] = []
        self.places: dict[str, int] = {}
        self.work: dict[str, Work] = {}
        self.traffic: dict[str, dict[str, Traffic]] = {}
        self.machines: list[Machine] = []
        self.speeds: dict[tuple[str, str], Speeds] = {}
        self.lengths: dict[tuple[str, str], Length] = {}
        self.demand: dict[str, tuple[float, float]] = {}
        self.open: dict[int, tuple[Arrival, Request, Candidate]] = {}
        self.waiting: dict[int, Waiting] = {}
        self.decisions = 0
        self.heard_at = -1e9
        for place, engine in enumerate(engines):
            self._know(place, engine)

    def _know(self, place: int, engine: Engine) -> None:
        machine = engine.machine
        models = {name: Model(name, int(speed.size / 1.1 * GB), 131_072) for name, speed in machine.models.items()}
        memory = int(machine.memory * GB)
        self.nodes.append(
            Node(machine.node_id, "", endpoints=frozenset({ENDPOINT}), slots=machine.slots, memory_total=memory,
                 memory_available=memory, models=models)
        )  # fmt: skip
        self.places[machine.node_id] = place
        self.work[machine.node_id] = replace(IDLE, prompt_fall=machine.prefill_fall, token_fall=machine.decode_fall)
        kind = next(word for start, word in KINDS.items() if machine.kind.startswith(start))
        self.machines.append(Machine(machine.bandwidth * 1e9, kind))
        self.traffic[machine.node_id] = {}
        for name, model in models.items():
            speeds = self.speeds[machine.node_id, name] = self.machines[place].expects(model.size_bytes)
            pace = speeds.pace
            if self.options.speeds_known:
                true = machine.models[name]
                pace = replace(pace, load_s=true.load_s, reload_s=true.load_s, start_s=0.0, prompt_s=1 / true.prefill,
                               token_s=1 / true.decode, prompt_fall=machine.prefill_fall,
                               token_fall=machine.decode_fall, measured=True)  # fmt: skip
            self.traffic[machine.node_id][name] = Traffic(pace=pace)

    def arrived(self, arrival: Arrival, job: EngineJob, now: float) -> list[Give]:
        """Decide, and give the request to its node or let it wait."""
        told = self.demand.get(arrival.model, (0.0, now))
        self.demand[arrival.model] = (told[0] * exp(-(now - told[1]) / DEMAND_S) + 1 / DEMAND_S, now)
        self._listen(now)
        request = Request(ENDPOINT, Dialect.OLLAMA, arrival.model, stream=arrival.stream, tags=(arrival.tag,) if arrival.tag else (),
                          prompt_tokens=arrival.prompt_tokens, max_tokens=arrival.max_tokens)
        waiter = Waiting(job, arrival, request)
        return self._place(waiter, now)

    def _place(self, waiter: Waiting, now: float) -> list[Give]:
        fleet = self.fleet(waiter, now)
        decision = decide(waiter.request, fleet, self.options.policy)
        self.decisions += 1
        (candidate,) = open_to(decision.plan)
        place = self.places[candidate.node_id]
        work, node = fleet.work_of(candidate.node_id), fleet.nodes[place]
        free = work.held.get(candidate.model, 0) < node.slots
        there = job(waiter.job.number, waiter.request, candidate, fleet, not free)
        there = there._replace(known=self.options.lengths_known)
        self.work[candidate.node_id] = work.begun(there, now)
        waiter.place, waiter.candidate = place, candidate
        if not free:
            self.waiting[waiter.job.number] = waiter
            return []
        self.waiting.pop(waiter.job.number, None)
        self.open[waiter.job.number] = (waiter.arrival, waiter.request, candidate)
        return [Give(waiter.job, place)]

    def fleet(self, waiter: Waiting, now: float) -> Fleet:
        """The snapshot for a decision, without the one who is decided about."""
        request, number = waiter.request, waiter.job.number
        work = dict(self.work)
        if number in self.waiting:
            node_id = self.nodes[waiter.place].node_id
            work[node_id] = work[node_id].ended(number, now)
            self.work = work
            work = dict(work)
        if self.options.lengths_known:
            expected = float(waiter.arrival.answer_tokens)
        else:
            tag = self.lengths.get((request.model, request.tags[0])) if request.tags else None
            expected = expected_tokens(self.lengths.get((request.model, ""), Length()), tag, request.max_tokens)
        return Fleet(now, tuple(self.nodes), self.traffic, work, {}, {request.model: expected},
                     {model: rate * exp(-(now - at) / DEMAND_S) for model, (rate, at) in self.demand.items()})

    def happened(self, place: int, event: Happened) -> list[Give]:
        """What the router learns of it: first tokens and ends at once, the rest with a heartbeat."""
        node_id, now = self.nodes[place].node_id, event.at
        if self.options.always_fresh:
            self._look(place, now)
            if event.kind == "loaded":
                self.work[node_id] = self.work[node_id].loaded(event.model, now)
        if event.job is None:
            return []
        if event.kind == "answered":
            self.work[node_id] = self.work[node_id].answered(event.job.number, now)
            self._believe(place, event.model, self.open[event.job.number][2].evicts, now)
            return []
        self.work[node_id] = self.work[node_id].ended(event.job.number, now)
        self._learn(place, event.job)
        del self.open[event.job.number]
        return self._serve(place, event.model, now)

    def tick(self, now: float) -> list[Give]:
        """Once a second those who wait are decided about anew."""
        self._listen(now)
        gifts = []
        for waiter in list(self.waiting.values()):
            if waiter.job.number in self.waiting:
                gifts += self._place(waiter, now)
        return gifts

    def _serve(self, place: int, model: str, now: float) -> list[Give]:
        if self.options.rebind:
            return self.tick(now)
        for waiter in self.waiting.values():
            if waiter.place == place and waiter.arrival.model == model:
                return self._place(waiter, now)
        return []

    def _listen(self, now: float) -> None:
        if now - self.heard_at >= HEARTBEAT_S:
            self.heard_at = now
            for place in range(len(self.engines)):
                self._look(place, now)

    def _look(self, place: int, now: float) -> None:
        engine, node = self.engines[place], self.nodes[place]
        loaded = {
            name: Loaded(name, int(engine.machine.models[name].size * GB), 0, None, runner.used_at + 300.0)
            for name, runner in engine.loaded.items() if runner.ready
        }
        free = int((engine.machine.memory - sum(engine.machine.models[name].size for name in loaded)) * GB)
        self.nodes[place] = replace(node, loaded=loaded, memory_available=free)
        work = self.work[node.node_id]
        for job in work.jobs:
            if job.load_s > 0 and not job.waits and job.model in loaded and job in work.loading:
                self.work[node.node_id] = work = work.loaded(job.model, now)

    def _believe(self, place: int, model: str, evicted: Sequence[str], now: float) -> None:
        node = self.nodes[place]
        if model in node.loaded:
            return
        size = int(node.models[model].size_bytes * 1.1)
        gone = [name for name in evicted if name in node.loaded]
        free = node.memory_available + sum(node.loaded[name].size_bytes for name in gone) - size
        loaded = {name: each for name, each in node.loaded.items() if name not in gone}
        loaded[model] = Loaded(model, size, 0, None, now + 300.0)
        self.nodes[place] = replace(node, loaded=loaded, memory_available=max(0, free))

    def _learn(self, place: int, job: EngineJob) -> None:
        arrival, request, candidate = self.open[job.number]
        node_id = self.nodes[place].node_id
        for key in {(candidate.model, ""), (candidate.model, arrival.tag)}:
            self.lengths[key] = self.lengths.get(key, Length()).after(job.answer_tokens)
        if self.options.speeds_known:
            return
        prompt_s, answer_s = job.first_at - job.began_at, job.ended_at - job.first_at
        told = Observation(
            load_s=job.load_s or None,
            prompt_tokens=job.prompt_tokens - job.cached_tokens, prompt_s=prompt_s,
            prompt_others=max(0.0, (job.first_busy - job.began_busy) / prompt_s - 1) if prompt_s else 0.0,
            answer_tokens=job.answer_tokens, answer_s=answer_s if answer_s > 0 else None,
            answer_others=max(0.0, (job.ended_busy - job.first_busy) / answer_s - 1) if answer_s > 0 else 0.0,
        )  # fmt: skip
        speeds = self.speeds[node_id, candidate.model] = self.speeds[node_id, candidate.model].after(told)
        self.traffic[node_id][candidate.model] = replace(self.traffic[node_id][candidate.model], pace=speeds.pace)
        node = self.nodes[place]
        self.machines[place] = self.machines[place].after(told, node.models[candidate.model].size_bytes)
        for name, traffic in self.traffic[node_id].items():
            if not self.speeds[node_id, name].seen:
                fresh = self.speeds[node_id, name] = self.machines[place].expects(node.models[name].size_bytes)
                self.traffic[node_id][name] = replace(traffic, pace=fresh.pace)
        work = self.work[node_id]
        self.work[node_id] = replace(work, prompt_fall=speeds.pace.prompt_fall, token_fall=speeds.pace.token_fall)
