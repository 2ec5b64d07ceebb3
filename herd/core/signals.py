"""The seven signals: one pure function each, in a table. Each is a time in seconds that choosing a node costs or saves.

A signal sees one node, one model, the request and the fleet, all of it in an `Outlook`: what is foreseen there. It
never removes a node; `routing` does.
"""

from bisect import bisect_left
from collections.abc import Callable
from functools import lru_cache
from math import exp, inf
from typing import NamedTuple

from herd.core.fleet import Fleet, Loaded, Node, Traffic
from herd.core.learning import USUAL_ANSWER, prior
from herd.core.prediction import AT, Pace, Times, ahead
from herd.core.request import Request
from herd.core.work import Job, Work

GIB = 1024**3
LATELY_S = 600.0  # how long the file cache of an unloaded model is taken to be warm
KV_SHARE = 0.10  # what context and buffers take beside the weights, as a share of them
THROTTLED = 1.5  # a machine that heat slows takes so many times as long
SPILLED = 8.0  # what lies in main memory beside a full GPU takes so many times as long
# What a further load takes from others (disk, memory that the next model will need) cannot be measured beforehand; it
# keeps a burst for a cold model to the one load that is under way where a second would gain a moment.
TAKEN = 0.1
KEPT_S = 300.0  # how long an engine keeps a model that nobody asks for, where it does not say


class Case(NamedTuple):
    """One node considered for one model, with what is known of the two."""

    request: Request
    model: str
    node: Node
    fleet: Fleet
    loaded: Loaded | None
    traffic: Traffic
    work: Work

    @classmethod
    def of(cls, request: Request, model: str, node: Node, fleet: Fleet) -> "Case":
        """The case, looked up."""
        node_id = node.node_id
        return cls(request, model, node, fleet, node.in_memory(model), fleet.traffic_of(node_id, model),
                   fleet.work_of(node_id))  # fmt: skip

    @property
    def slots(self) -> int:
        """How many requests of this model the node works on at once."""
        return self.traffic.slots or self.node.slots or 1

    @property
    def needed(self) -> int:
        """Bytes that loading would take here: 0 if loaded, and 0 if the size is unknown."""
        return 0 if self.loaded else int(self.node.size_of(self.model) * (1 + KV_SHARE))

    @property
    def reclaimable(self) -> int:
        """Bytes that the engine could free by unloading other models."""
        return sum(other.size_bytes for other in self.node.loaded.values() if other is not self.loaded)

    @property
    def warm(self) -> bool:
        """Whether the model is in memory here, or on its way there for a request that is in flight."""
        return self.loaded is not None or self.model in self.work.held


class Room(NamedTuple):
    """How a model comes into a node's memory: whether it must be loaded once all before it was, and for whom there."""

    cold: bool
    evicted: tuple[str, ...] = ()


class Outlook(NamedTuple):
    """What is foreseen for one request at one node: the job that it would be there, and when what happens.

    `saved_s` is what the cached part of its prompt would have taken, `reload_s` a load that its context forces.
    """

    case: Case
    pace: Pace
    job: Job
    times: Times
    saved_s: float = 0.0
    reload_s: float = 0.0

    @property
    def load_s(self) -> float:
        """Seconds of loading that it waits for, whoever caused the load."""
        return self.times.work_at - self.times.load_at

    @property
    def prefill_s(self) -> float:
        """Seconds from the beginning of work to the first token, at the load that is there."""
        return self.times.first_at - self.times.work_at

    @property
    def decode_s(self) -> float:
        """Seconds from the first token to the end; for a stream, as if it were alone."""
        return self.job.answer_s if self.case.request.stream else self.times.end_at - self.times.first_at


IN_MEMORY = Room(False)


def outlook(case: Case) -> Outlook:
    """Run the node forward with this request on it."""
    pace = pace_of(case)
    job, cached, reload_s = job_at(case, pace)
    times = ahead(case.work, case.fleet.at, pace, job, case.slots, not case.request.stream)
    if not cached:
        return Outlook(case, pace, job, times, 0.0, reload_s)
    slowed = (times.first_at - times.work_at) / job.prefill_s if job.prefill_s else 1.0
    return Outlook(case, pace, job, times, cached * pace.prompt_s * slowed, reload_s)


def job_at(case: Case, pace: Pace) -> tuple[Job, int, float]:
    """The job that a request would be at a node, its cached tokens there, and seconds of a reload for its context."""
    request, model, node, fleet, loaded, _, work = case
    room = IN_MEMORY if loaded and not work.loading and not work.pending else room_for(case)
    reload_s = _context_reload_s(case, pace) if loaded else 0.0
    prompt_tokens, cached = request.prompt_tokens, 0
    if fleet.cached and not room.cold and not reload_s:
        cached = min(fleet.cached.get(node.node_id, 0), prompt_tokens)
    job = Job(
        None,
        model,
        pace.start_s + pace.prompt_s * (prompt_tokens - cached),
        pace.token_s * fleet.answer_tokens.get(model, USUAL_ANSWER),
        _load_s(case, pace) if room.cold else 0.0,
        room.evicted,
    )
    return job, cached, reload_s


def pace_of(case: Case) -> Pace:
    """The node's speeds with the model: learned ones, else guessed from the model's size."""
    node = case.node
    pace = case.traffic.pace or _guessed(node.size_of(case.model))
    if pace.measured and not node.throttled:
        return pace
    slower = THROTTLED if node.throttled else 1.0
    if not pace.measured and node.vram_total and case.needed > node.vram_total:
        slower *= 1 + (SPILLED - 1) * (1 - node.vram_total / case.needed)
    return pace if slower == 1.0 else pace.slower(slower)


def room_for(case: Case) -> Room:
    """What the engine unloads for a model, after the loads that are due: idle ones, the longest unused first."""
    node, work, model = case.node, case.work, case.model
    free, needed = node.free, int(node.size_of(model) * (1 + KV_SHARE))
    if not work.loading and not work.pending:
        if case.loaded:
            return IN_MEMORY
        if free >= needed:
            return Room(True)
    there = sorted(node.loaded.items(), key=_last_wanted) if len(node.loaded) > 1 else node.loaded.items()
    sizes = {name: loaded.size_bytes for name, loaded in there}
    for job in (*work.loading, *work.pending):  # in their order
        if job.load_s > 0:
            free += sum(sizes.pop(victim, 0) for victim in job.victims)
            if job.model not in sizes:
                sizes[job.model] = int(node.size_of(job.model) * (1 + KV_SHARE))
                free -= sizes[job.model]
    if model in sizes or node.same_as.get(model) in sizes:
        return Room(case.loaded is None)
    evicted = []
    for name in sorted(sizes, key=work.held.__contains__):
        if free >= needed:
            break
        free += sizes[name]
        evicted.append(name)
    return Room(True, tuple(evicted))


def thermal(seen: Outlook) -> float:
    """time to load the model: 0 if loaded; otherwise from measured speed, less if it is in the file cache."""
    return seen.load_s


def memory_fit(seen: Outlook) -> float:
    """cost of evicting other models for the requests that need them, plus a tenth of a load not yet started."""
    if not seen.job.load_s or seen.case.warm:
        return 0.0
    return TAKEN * seen.job.load_s + sum(_missed_s(seen.case, victim) for victim in seen.job.victims)


def queue_depth(seen: Outlook) -> float:
    """time until a slot and compute are free: the expected remaining time of the requests on the node."""
    return seen.times.load_at


def wait_time(seen: Outlook) -> float:
    """time to the first token at the node's current load; to the end of the answer without streaming."""
    times = seen.times
    return (times.first_at if seen.case.request.stream else times.end_at) - times.work_at + seen.saved_s


def role_affinity(seen: Outlook) -> float:
    """time saved by a cached prefix (negative), plus the delay to first tokens of other requests on the node."""
    return delay_of_others(seen) - seen.saved_s


def availability_trend(seen: Outlook) -> float:
    """chance that the node fails or is lost meanwhile, from its recent losses, times the cost of starting over."""
    node = seen.case.node
    if not node.losses and node.uptime >= 1:
        return 0.0
    return (1 - exp(-(node.losses + 1 - node.uptime) / 3600 * seen.times.end_at)) * seen.times.end_at


def context_fit(seen: Outlook) -> float:
    """time of the reload that this request's context forces; 0 if the loaded context suffices or is unknown."""
    return seen.reload_s


Signal = Callable[[Outlook], float]
SIGNALS: dict[str, Signal] = {
    "thermal": thermal,
    "memory_fit": memory_fit,
    "queue_depth": queue_depth,
    "wait_time": wait_time,
    "role_affinity": role_affinity,
    "availability_trend": availability_trend,
    "context_fit": context_fit,
}


def delay_of_others(seen: Outlook) -> float:
    """Seconds by which the first tokens of the requests at work there come later because of this one, in all."""
    work, mine = seen.case.work, seen.job.prefill_s + seen.job.answer_s
    prompts, clock = work.prompts, work.clock
    if not prompts:
        return 0.0
    due = bisect_left(prompts, (work.floor,)) if work.floor else 0
    sooner = max(due, bisect_left(prompts, (clock + mine,)))
    read: float = sum(map(AT, prompts[due:sooner])) - (sooner - due) * clock
    return seen.pace.prompt_fall * (due * min(work.floor - clock, mine) + read + (len(prompts) - sooner) * mine)


def _missed_s(case: Case, victim: str) -> float:
    """What it costs that a model is no longer here: its load, if someone asks before it would have gone anyway."""
    rate = case.fleet.demand.get(victim, 0.0)
    if not rate or any(victim in node.loaded for node in case.fleet.nodes if node is not case.node):
        return 0.0
    loaded = case.node.loaded.get(victim)
    stays_s = max(0.0, loaded.expires_at - case.fleet.at) if loaded and loaded.expires_at else KEPT_S
    pace = case.fleet.traffic_of(case.node.node_id, victim).pace or _guessed(case.node.size_of(victim))
    return (1 - exp(-rate * stays_s)) * pace.load_s


def _load_s(case: Case, pace: Pace) -> float:
    gone = case.traffic.unloaded_at
    return pace.reload_s if gone is not None and case.fleet.at - gone <= LATELY_S else pace.load_s


def _context_reload_s(case: Case, pace: Pace) -> float:
    """An engine loads a model again for a context that it was not loaded with."""
    loaded, asked = case.loaded, case.request.num_ctx
    if not asked or loaded is None or not loaded.context_length or case.node.engine != "ollama":
        return 0.0
    # Context protection puts the loaded context in the place of a smaller one that the client named.
    fits = asked == loaded.context_length or bool(case.request.num_ctx and asked < loaded.context_length)
    return 0.0 if fits else pace.reload_s


def _last_wanted(named: tuple[str, Loaded]) -> float:
    return inf if named[1].expires_at is None else named[1].expires_at


@lru_cache(maxsize=1024)
def _guessed(size: int) -> Pace:
    return prior(size).pace
