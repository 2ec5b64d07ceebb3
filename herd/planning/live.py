"""Herd as a router of the simulator: what its cell knows of the fleet, and the same `decide` as live.

It sees what a router sees: heartbeats that come late, first tokens and ends of its own requests, and what engines
report. The options take away one kind of ignorance each, so that the regret can be split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from herd.core.demand import Demand
from herd.core.fleet import Fleet, Loaded, Model, Node, Traffic
from herd.core.learning import Machine, Observation, Speeds
from herd.core.prediction import Pace
from herd.core.request import Dialect, Request
from herd.core.routing import Candidate, Policy, decide_jobs, open_to
from herd.core.signals import KV_SHARE
from herd.core.work import Work
from herd.planning.engine import Engine, Happened, Job
from herd.planning.simulate import REFUSED, Give

GB = 10**9
ENDPOINT = "/api/chat"
HEARTBEAT_S = 5.0
KEEP_ALIVE_S = 300.0


@dataclass(frozen=True, slots=True)
class Learned:
    """What a router learned of one node before the run."""

    machine: Machine
    speeds: Mapping[str, Speeds] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Options:
    """The operator's rules, and what this Herd knows that a real one does not.

    Of a model at most `queue_limit` requests wait, each for `queue_timeout_s`; `learned` is by node.
    """

    policy: Policy = field(default_factory=Policy)
    queue_limit: float = inf
    queue_timeout_s: float = inf
    learned: Mapping[str, Learned] = field(default_factory=dict)
    lengths_known: bool = False
    always_fresh: bool = False
    speeds_known: bool = False


@dataclass(slots=True)
class _There:
    """What the cell keeps of one node."""

    node: Node
    machine: Machine
    work: Work
    speeds: dict[str, Speeds]
    traffic: dict[str, Traffic]


@dataclass(slots=True)
class _Asked:
    """A request that is not answered to its end yet, and where it is or waits."""

    job: Job
    request: Request
    place: int = 0
    candidate: Candidate | None = None
    waits: bool = False


USUAL = Options()


class Herd:
    """The router; one for a run."""

    def __init__(self, engines: Sequence[Engine], options: Options = USUAL) -> None:
        self.engines = engines
        self.options = options
        self.nodes = [self._know(engine) for engine in engines]
        self.places = {there.node.node_id: place for place, there in enumerate(self.nodes)}
        self.demand = Demand()
        self.asked: dict[int, _Asked] = {}
        self.decisions = 0
        self._heard_at = -HEARTBEAT_S

    def arrived(self, job: Job, now: float) -> list[Give]:
        """Decide, and give the request to its node or let it wait for a slot there."""
        arrival = job.arrival
        self.demand.asked(arrival.model, now)
        self._listen(now)
        request = Request(
            ENDPOINT, Dialect.OLLAMA, arrival.model, stream=arrival.stream, prompt_tokens=arrival.prompt_tokens,
            max_tokens=arrival.max_tokens, tags=(arrival.tag,) if arrival.tag else (),
        )  # fmt: skip
        asked = self.asked[job.number] = _Asked(job, request)
        return self._place(asked, now)

    def happened(self, place: int, event: Happened) -> list[Give]:
        """What the router learns of it: first tokens and ends at once, the rest with a heartbeat."""
        there, now = self.nodes[place], event.at
        if self.options.always_fresh:
            self._look(place, now)
        if event.job is None:
            return []
        asked = self.asked[event.job.number]
        if event.kind == "answered":
            there.work = there.work.answered(event.job.number, now)
            self._believe(there, event.model, asked.candidate, now)
            return []
        there.work = there.work.ended(event.job.number, now)
        self._learn(there, asked)
        del self.asked[event.job.number]
        waiting = (each for each in self.asked.values() if each.waits and each.place == place)
        following = next((each for each in waiting if each.job.model == event.model), None)
        return self._place(following, now) if following else []

    def tick(self, now: float) -> list[Give]:
        """Once a second those who wait are decided about anew, and who waited too long is refused."""
        self._listen(now)
        late = now - self.options.queue_timeout_s
        gone = [each for each in self.asked.values() if each.waits and each.job.arrival.at < late]
        gifts = [self._refuse(asked, now) for asked in gone]
        for asked in tuple(self.asked.values()):
            gifts += self._place(asked, now) if asked.waits else ()
        return gifts

    def fleet(self, asked: _Asked, now: float) -> Fleet:
        """The snapshot for a decision, without the one who is decided about."""
        if asked.waits:
            there = self.nodes[asked.place]
            there.work = there.work.ended(asked.job.number, now)
        if self.options.lengths_known:  # then what was said of an answer counts, and `ahead` does not know it
            for there in self.nodes:
                there.work = there.work.at(now)
        wanted = {model for there in self.nodes for model in (*there.node.loaded, *there.work.held)}
        return Fleet(
            now,
            tuple(there.node for there in self.nodes),
            {there.node.node_id: there.traffic for there in self.nodes},
            {there.node.node_id: there.work for there in self.nodes if there.work.jobs},
            answer_tokens=self._expected(asked),
            demand=self.demand.rates(now, wanted),
        )

    def _place(self, asked: _Asked, now: float) -> list[Give]:
        waited = asked.waits
        fleet = self.fleet(asked, now)
        decision, jobs = decide_jobs(asked.request, fleet, self.options.policy)
        candidate = open_to(decision.plan)
        self.decisions += 1
        if candidate is None:
            return [self._refuse(asked, now)]
        place = self.places[candidate.node_id]
        there = self.nodes[place]
        asked.waits = there.work.held.get(candidate.model, 0) >= there.node.slots
        if asked.waits and not waited and self._waiting(asked.request.model) > self.options.queue_limit:
            return [self._refuse(asked, now)]
        asked.place, asked.candidate = place, candidate
        meant = jobs[candidate.node_id, candidate.model]
        meant = meant._replace(ticket=asked.job.number, waits=asked.waits, known=self.options.lengths_known)
        there.work = there.work.begun(meant, now)
        return [] if asked.waits else [Give(asked.job, place)]

    def _waiting(self, model: str) -> int:
        return sum(each.waits and each.request.model == model for each in self.asked.values())

    def _refuse(self, asked: _Asked, now: float) -> Give:
        there = self.nodes[asked.place]
        there.work = there.work.ended(asked.job.number, now)
        del self.asked[asked.job.number]
        return Give(asked.job, REFUSED)

    def _expected(self, asked: _Asked) -> Mapping[str, float]:
        if self.options.lengths_known:
            return {asked.request.model: float(asked.job.arrival.answer_tokens)}
        return self.demand.lengths(asked.request)

    def _know(self, engine: Engine) -> _There:
        machine = engine.machine
        models = {
            name: Model(name, int(speed.size / (1 + KV_SHARE) * GB), 131_072) for name, speed in machine.models.items()
        }
        memory = int(machine.memory * GB)
        node = Node(machine.node_id, "", endpoints=frozenset({ENDPOINT}), slots=machine.slots, memory_total=memory,
                    memory_available=memory, models=models)  # fmt: skip
        before = self.options.learned.get(machine.node_id) or Learned(Machine(machine.bandwidth * GB, machine.kind))
        known = before.machine
        speeds = {name: before.speeds.get(name) or known.expects(model.size_bytes) for name, model in models.items()}
        paces = {name: self._true_pace(engine, name) if self.options.speeds_known else speeds[name].pace
                 for name in models}  # fmt: skip
        falls = (machine.prefill_fall, machine.decode_fall) if self.options.speeds_known else ()
        traffic = {name: Traffic(pace=pace) for name, pace in paces.items()}
        return _There(node, known, Work(0.0, (), *falls), speeds, traffic)

    @staticmethod
    def _expect(there: _There, machines: Sequence[Machine]) -> None:
        """Guess anew what was not seen there yet."""
        machine = there.machine.among(machines)
        for name, speeds in there.speeds.items():
            if not speeds.seen:
                there.speeds[name] = machine.expects(there.node.size_of(name))
                there.traffic[name] = Traffic(pace=there.speeds[name].pace)

    @staticmethod
    def _true_pace(engine: Engine, model: str) -> Pace:
        machine, true = engine.machine, engine.machine.models[model]
        return Pace(true.load_s, true.load_s, 0.0, 1 / true.prefill, 1 / true.decode, machine.prefill_fall,
                    machine.decode_fall)  # fmt: skip

    def _listen(self, now: float) -> None:
        if now - self._heard_at >= HEARTBEAT_S:
            self._heard_at = now
            for place in range(len(self.engines)):
                self._look(place, now)

    def _look(self, place: int, now: float) -> None:
        """A heartbeat: what is loaded, and what that leaves of the memory."""
        engine, there = self.engines[place], self.nodes[place]
        engine.expire()
        loaded = {
            name: Loaded(name, int(engine.machine.models[name].size * GB), expires_at=runner.used_at + KEEP_ALIVE_S)
            for name, runner in engine.loaded.items()
            if runner.ready
        }
        free = there.node.memory_total - sum(each.size_bytes for each in loaded.values())
        there.node = replace(there.node, loaded=loaded, memory_available=free)
        if there.work.loading and there.work.loading[0].model in loaded:
            there.work = there.work.loaded(there.work.loading[0].model, now)

    @staticmethod
    def _believe(there: _There, model: str, candidate: Candidate | None, now: float) -> None:
        """A model that answers is loaded, and what had to make room for it is not, whatever the last heartbeat said."""
        node = there.node
        if model in node.loaded or candidate is None:
            return
        loaded = {name: each for name, each in node.loaded.items() if name not in candidate.evicts}
        loaded[model] = Loaded(model, int(node.size_of(model) * (1 + KV_SHARE)), expires_at=now + KEEP_ALIVE_S)
        free = node.memory_total - sum(each.size_bytes for each in loaded.values())
        there.node = replace(node, loaded=loaded, memory_available=max(0, free))

    def _learn(self, there: _There, asked: _Asked) -> None:
        done = asked.job
        model, arrival = done.model, done.arrival
        self.demand.answered(model, asked.request.tags, arrival.answer_tokens)
        if self.options.speeds_known:
            return
        told, size = observed(done), there.node.size_of(model)
        there.speeds[model] = there.speeds[model].after(told)
        there.machine = there.machine.after(told, size)
        there.traffic[model] = Traffic(pace=there.speeds[model].pace)
        machines = [each.machine for each in self.nodes]
        for each in self.nodes:
            if each is there or not each.machine.seen or not each.machine.loads_seen:
                self._expect(each, machines)
        pace = there.speeds[model].pace
        there.work = replace(there.work, prompt_fall=pace.prompt_fall, token_fall=pace.token_fall)


def observed(done: Job) -> Observation:
    """What an engine's report of one request says of its speeds."""
    prompt_s, answer_s = done.first_at - done.began_at, done.ended_at - done.first_at
    return Observation(
        load_s=done.load_s or None,
        prompt_tokens=done.arrival.prompt_tokens,
        prompt_s=prompt_s,
        prompt_others=max(0.0, (done.first_busy - done.began_busy) / prompt_s - 1) if prompt_s > 0 else 0.0,
        answer_tokens=done.arrival.answer_tokens,
        answer_s=answer_s if answer_s > 0 else None,
        answer_others=max(0.0, (done.ended_busy - done.first_busy) / answer_s - 1) if answer_s > 0 else 0.0,
    )
