"""The seven signals: one pure function each, in a table. Each is a time in seconds that choosing a node costs or saves.

A signal sees one node, one model, the request and the fleet, all of it in an `Outlook`: what is foreseen there. It
never removes a node; `routing` does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import exp
from typing import NamedTuple

from herd.core.fleet import Fleet, Loaded, Node, Traffic
from herd.core.learning import USUAL_ANSWER, prior
from herd.core.prediction import Job, Pace, Times, Work, ahead
from herd.core.request import Request

GIB = 1024**3
LATELY_S = 600.0  # how long the file cache of an unloaded model is taken to be warm
KV_SHARE = 0.10  # what context and buffers take beside the weights, as a share of them
THROTTLED = 1.5  # a machine that heat slows takes so many times as long
SPILLED = 8.0  # what lies in main memory beside a full GPU takes so many times as long
KEPT_S = 300.0  # how long an engine keeps a model that nobody asks for, where it does not say


@dataclass(frozen=True, slots=True)
class Case:
    """One node considered for one model."""

    request: Request
    model: str
    node: Node
    fleet: Fleet

    @property
    def loaded(self) -> Loaded | None:
        """The model in this node's memory, or None."""
        return self.node.in_memory(self.model)

    @property
    def traffic(self) -> Traffic:
        """What is known of this node's work on this model."""
        return self.fleet.traffic_of(self.node.node_id, self.model)

    @property
    def work(self) -> Work:
        """What this node has to do."""
        return self.fleet.work_of(self.node.node_id)

    @property
    def slots(self) -> int:
        """How many requests of this model the node works on at once."""
        return max(1, self.traffic.slots or self.node.slots)

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
        return self.loaded is not None or self.work.held.get(self.model, 0) > 0


class Room(NamedTuple):
    """How a model comes into a node's memory: whether it must be loaded once all before it was, and for whom there."""

    cold: bool
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is foreseen for one request at one node: the job that it would be there, and when what happens."""

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
        return self.times.end_at - self.times.first_at if not self.case.request.stream else self.job.answer_s


def outlook(case: Case) -> Outlook:
    """Run the node forward with this request on it."""
    request, node, work = case.request, case.node, case.work
    pace = pace_of(case)
    room = Room(False) if case.loaded and not work.loading and not work.pending else room_for(case)
    reload_s = _context_reload_s(case, pace)
    cached = 0 if room.cold or reload_s else min(case.fleet.cached.get(node.node_id, 0), request.prompt_tokens)
    job = Job(
        ticket=None,
        model=case.model,
        prefill_s=pace.prefill(request.prompt_tokens - cached),
        answer_s=pace.answer(case.fleet.answer_tokens.get(case.model, USUAL_ANSWER)),
        load_s=_load_s(case, pace) if room.cold else 0.0,
        victims=room.evicted,
    )
    times = ahead(work, case.fleet.at, pace, job, case.slots, not request.stream)
    slowed = (times.first_at - times.work_at) / job.prefill_s if job.prefill_s else 1.0
    return Outlook(case, pace, job, times, cached * pace.prompt_s * slowed, reload_s)


def pace_of(case: Case) -> Pace:
    """The node's speeds with the model: learned ones, else guessed from the model's size."""
    pace = case.traffic.pace or _guessed(case.node.size_of(case.model))
    slower = THROTTLED if case.node.throttled else 1.0
    if not pace.measured and case.node.vram_total and not case.loaded:
        spilled = max(0.0, 1 - case.node.vram_total / case.needed) if case.needed else 0.0
        slower *= 1 + (SPILLED - 1) * spilled
    return pace if slower == 1.0 else pace.slower(slower)


def room_for(case: Case) -> Room:
    """What the engine unloads for a model, once it has loaded what it is about to: idle ones, the longest unused first."""
    node, work = case.node, case.work
    there = dict(sorted(node.loaded.items(), key=lambda item: _last_wanted(item[1])))
    sizes = {name: loaded.size_bytes for name, loaded in there.items()}
    free = node.free
    for job in work.jobs:  # loads that are under way or waited for, in their order
        if job.load_s > 0 and not job.waits:
            free += sum(sizes.pop(victim, 0) for victim in job.victims)
            if job.model not in sizes:
                sizes[job.model] = int(node.size_of(job.model) * (1 + KV_SHARE))
                free -= sizes[job.model]
    if case.model in sizes or node.same_as.get(case.model) in sizes:
        return Room(case.loaded is None)
    needed, evicted = int(node.size_of(case.model) * (1 + KV_SHARE)), []
    for name in sorted(sizes, key=lambda each: each in work.held):
        if free >= needed:
            break
        free += sizes[name]
        evicted.append(name)
    return Room(True, tuple(evicted))


def thermal(seen: Outlook) -> float:
    """loading the model here: 0 if loaded; else by measured speed, less where the file cache is known to hold it."""
    return seen.load_s


def memory_fit(seen: Outlook) -> float:
    """what evicting other models will cost those who ask for them, by how often they are asked for."""
    return sum(_missed_s(seen.case, victim) for victim in seen.job.victims)


def queue_depth(seen: Outlook) -> float:
    """until a slot and the machine's compute are free: the expected rest of the requests that are there."""
    return seen.times.load_at


def wait_time(seen: Outlook) -> float:
    """the request's own way to the first token, at the load that is there; for an answer that does not stream, to its end."""
    own = seen.prefill_s + seen.saved_s
    return own if seen.case.request.stream else own + seen.decode_s


def role_affinity(seen: Outlook) -> float:
    """less what a cached prefix saves; plus how much longer the requests there take, and those who can go nowhere else."""
    return delay_of_others(seen) - seen.saved_s


def availability_trend(seen: Outlook) -> float:
    """the chance that the node fails or is lost meanwhile, by its losses and absences of late, times starting again."""
    node = seen.case.node
    return (1 - exp(-(node.losses + 1 - node.uptime) / 3600 * seen.times.end_at)) * seen.times.end_at


def context_fit(seen: Outlook) -> float:
    """the reload that this request's context forces; 0 where the loaded one will do or nothing is known."""
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
    """Seconds by which the requests at work there come later because of this one, in all."""
    work, pace = seen.case.work, seen.pace
    mine = seen.job.prefill_s + seen.job.answer_s
    prompts = sum(min(left, mine) for left, _, _ in work.prompts)
    return pace.prompt_fall * prompts


def _missed_s(case: Case, victim: str) -> float:
    """What it costs that a model is no longer loaded here: its load, if someone asks before it would have gone anyway."""
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
    loaded = case.loaded
    if loaded is None or not loaded.context_length or case.node.engine != "ollama":
        return 0.0
    asked = case.request.num_ctx or case.traffic.usual_context
    # Context protection puts the loaded context in the place of a smaller one that the client named.
    fits = asked is None or asked == loaded.context_length or bool(case.request.num_ctx and asked < loaded.context_length)
    return 0.0 if fits else pace.reload_s


def _last_wanted(loaded: Loaded) -> float:
    return float("inf") if loaded.expires_at is None else loaded.expires_at


@lru_cache(maxsize=1024)
def _guessed(size: int) -> Pace:
    return prior(size).pace
