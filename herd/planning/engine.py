"""One machine and its inference server in virtual time: memory, loads, slots, and compute that all models share.

It knows true lengths and true speeds, and nothing of routing. The rules are Ollama's: what is asked for first is
loaded first, idle models make room in the order in which they were last used, and whoever comes behind a load that has
no room yet waits as well. A further request at work slows everyone by a fixed share.
"""

from collections import deque
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from herd.planning.arrivals import Arrival

ROUNDING = 1e-6  # GB


@dataclass(frozen=True, slots=True)
class Speed:
    """One model on one machine, working alone: seconds to load it, tokens a second of prompt and of answer.

    `start_s` is what each prompt takes however short it is.
    """

    size: float
    load_s: float
    prefill: float
    decode: float
    start_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and how requests share it; `kind` is its accelerator's, as agents report it.

    `memory` and sizes in GB, `bandwidth` in GB/s. With n at work a prompt takes 1 + `prefill_fall` (n - 1) times as
    long, an answer 1 + `decode_fall` (n - 1) times. A model that nobody asked for in `keep_alive_s` leaves the memory;
    `loaded` are those that are there at the beginning, `most_loaded` how many may be there at a time.
    """

    node_id: str
    memory: float
    models: Mapping[str, Speed]
    slots: int = 4
    prefill_fall: float = 0.9
    decode_fall: float = 0.2
    kind: str = ""
    bandwidth: float = 0.0
    keep_alive_s: float = inf
    loaded: tuple[str, ...] = ()
    most_loaded: float = inf


@dataclass(slots=True)
class Job:
    """One request at a machine; seconds are of a machine that works on nothing else, moments are virtual time.

    `…_busy` are the engine's `busy` at those moments: what a router needs to know how many were at work meanwhile.
    """

    number: int
    arrival: Arrival
    prefill_s: float = 0.0
    decode_s: float = 0.0
    load_s: float = 0.0
    began_at: float = 0.0
    first_at: float = 0.0
    ended_at: float = 0.0
    began_busy: float = 0.0
    first_busy: float = 0.0
    ended_busy: float = 0.0

    @property
    def model(self) -> str:
        """The model asked for."""
        return self.arrival.model

    def afresh(self) -> "Job":
        """The same request before it came to any engine."""
        return Job(self.number, self.arrival)


class Happened(NamedTuple):
    """What an engine did: `loaded`, `unloaded`, `answered` (first token) or `ended`."""

    at: float
    kind: str
    model: str
    job: Job | None = None


@dataclass(slots=True)
class _Runner:
    ready: bool
    used_at: float
    active: int = 0
    queue: deque[Job] = field(default_factory=deque)

    @property
    def idle(self) -> bool:
        """Whether it could be unloaded now."""
        return self.ready and not self.active and not self.queue


class Engine:
    """The server of one machine. `give` it jobs, ask `next_at` for its next moment, and let it `step` there."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.now = 0.0
        self.busy = 0.0  # the integral of how many were at work
        self.worked_s = 0.0  # seconds in which anybody was
        self.loaded: dict[str, _Runner] = {}
        self.loads = 0
        self._loading: tuple[float, str] | None = None
        self._pending: deque[Job] = deque()
        self._prefill: list[tuple[float, int, Job]] = []
        self._decode: list[tuple[float, int, Job]] = []
        self._prefill_clock = 0.0
        self._decode_clock = 0.0
        for name in machine.loaded:
            if self.free_memory() >= machine.models[name].size - ROUNDING:
                self.loaded[name] = _Runner(True, 0.0)

    def copied(self) -> "Engine":
        """The same engine, to be run ahead without moving this one."""
        twin = copy(self)
        twin.loaded = {
            name: _Runner(runner.ready, runner.used_at, runner.active, deque(runner.queue))
            for name, runner in self.loaded.items()
        }
        twin._pending = deque(self._pending)
        twin._prefill = list(self._prefill)
        twin._decode = list(self._decode)
        return twin

    @property
    def at_work(self) -> int:
        """How many requests share the compute now."""
        return len(self._prefill) + len(self._decode)

    @property
    def in_flight(self) -> int:
        """How many requests are here, those that wait included."""
        return self.at_work + len(self._pending) + sum(len(runner.queue) for runner in self.loaded.values())

    def free_memory(self) -> float:
        """GB that no model takes."""
        return self.machine.memory - sum(self.machine.models[name].size for name in self.loaded)

    def give(self, job: Job) -> list[Happened]:
        """A request comes in now; returns what changes at once."""
        speed = self.machine.models[job.model]
        job.prefill_s = speed.start_s + max(1, job.arrival.prompt_tokens) / speed.prefill
        job.decode_s = max(0, job.arrival.answer_tokens - 1) / speed.decode
        self._pending.append(job)
        return [*self.expire(), *self._admit()]

    def expire(self) -> list[Happened]:
        """Unload what nobody asked for in a while; returns that."""
        before = self.now - self.machine.keep_alive_s
        gone = [name for name, each in self.loaded.items() if each.used_at < before and each.idle]
        for name in gone:
            del self.loaded[name]
        return [Happened(self.now, "unloaded", name) for name in gone]

    def next_at(self) -> float:
        """When something happens next; infinity while the engine idles."""
        load_s, prefill_s, decode_s = self._until()
        return self.now + max(0.0, min(load_s, prefill_s, decode_s))

    def wait(self, until: float) -> None:
        """Work on to a moment before `next_at`."""
        elapsed, n = until - self.now, self.at_work
        if n and elapsed > 0:
            self._prefill_clock += elapsed / (1 + self.machine.prefill_fall * (n - 1))
            self._decode_clock += elapsed / (1 + self.machine.decode_fall * (n - 1))
            self.busy += elapsed * n
            self.worked_s += elapsed
        self.now = max(until, self.now)

    def step(self) -> list[Happened]:
        """Work on to `next_at`; returns what happens there."""
        load_s, prefill_s, decode_s = self._until()
        soonest = min(load_s, prefill_s, decode_s)
        if soonest == inf:
            return []
        self.wait(self.now + max(0.0, soonest))
        if load_s == soonest:
            return self._end_load()
        return self._end_prefill() if prefill_s == soonest else self._end_decode()

    def _until(self) -> tuple[float, float, float]:
        """Seconds until a load, a prompt and an answer end."""
        n = self.at_work - 1
        load_s = prefill_s = decode_s = inf
        if self._loading:
            load_s = self._loading[0] - self.now
        if self._prefill:
            prefill_s = (self._prefill[0][0] - self._prefill_clock) * (1 + self.machine.prefill_fall * n)
        if self._decode:
            decode_s = (self._decode[0][0] - self._decode_clock) * (1 + self.machine.decode_fall * n)
        return load_s, prefill_s, decode_s

    def _end_load(self) -> list[Happened]:
        assert self._loading
        _, model = self._loading
        self._loading = None
        runner = self.loaded[model]
        runner.ready, runner.used_at = True, self.now
        self._fill(runner)
        return [Happened(self.now, "loaded", model), *self._admit()]

    def _end_prefill(self) -> list[Happened]:
        _, number, job = heappop(self._prefill)
        job.first_at, job.first_busy = self.now, self.busy
        heappush(self._decode, (self._decode_clock + job.decode_s, number, job))
        return [Happened(self.now, "answered", job.model, job)]

    def _end_decode(self) -> list[Happened]:
        job = heappop(self._decode)[2]
        job.ended_at, job.ended_busy = self.now, self.busy
        runner = self.loaded[job.model]
        runner.active -= 1
        runner.used_at = self.now
        self._fill(runner)
        return [Happened(self.now, "ended", job.model, job), *self._admit()]

    def _admit(self) -> list[Happened]:
        happened: list[Happened] = []
        while self._pending:
            job = self._pending[0]
            runner = self.loaded.get(job.model)
            if runner is None:
                if self._loading or not self._make_room(self.machine.models[job.model].size, happened):
                    break
                speed = self.machine.models[job.model]
                self._loading = (self.now + speed.load_s, job.model)
                self.loads += 1
                runner = self.loaded[job.model] = _Runner(False, self.now)
                job.load_s = speed.load_s
            self._pending.popleft()
            runner.queue.append(job)
            if runner.ready:
                self._fill(runner)
        return happened

    def _make_room(self, size: float, happened: list[Happened]) -> bool:
        free, too_many = self.free_memory(), len(self.loaded) + 1 - self.machine.most_loaded
        if free >= size - ROUNDING and too_many <= 0:
            return True
        idle = sorted((runner.used_at, name) for name, runner in self.loaded.items() if runner.idle)
        if free + sum(self.machine.models[name].size for _, name in idle) < size - ROUNDING or len(idle) < too_many:
            return False  # until those at work are done; nobody who comes later is let past
        for _, name in idle:
            del self.loaded[name]
            happened.append(Happened(self.now, "unloaded", name))
            free, too_many = free + self.machine.models[name].size, too_many - 1
            if free >= size - ROUNDING and too_many <= 0:
                break
        return True

    def _fill(self, runner: _Runner) -> None:
        while runner.queue and runner.active < self.machine.slots:
            job = runner.queue.popleft()
            runner.active += 1
            runner.used_at = self.now
            job.began_at, job.began_busy = self.now, self.busy
            heappush(self._prefill, (self._prefill_clock + job.prefill_s, job.number, job))
