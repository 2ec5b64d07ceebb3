"""The one mutable cell: which nodes there are, and what their recent work looked like.

It takes heartbeats, expires the silent, and gives frozen fleets to whoever decides. What changes comes back as events;
the roster itself records nothing.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from math import exp

from pydantic import JsonValue

from herd import wire
from herd.core.breaker import Breaker, BreakerState
from herd.core.events import Attempt, Finished, FleetChanged, NodeKnown, NodeSampled, Status
from herd.core.fleet import Fleet, Node, NodeStatus, Traffic
from herd.core.learning import Length, Machine, Speeds, expected_tokens
from herd.core.observed import Mark, observed
from herd.core.prediction import IDLE, Job, Pace, Work
from herd.core.request import Request
from herd.heartbeats import changes_between, model_from, node_from

PREFIXES_KEPT = 10_000
LOSS_WINDOW_S = 3600.0
LIMIT_STEP_S = 2.0  # a node that was busy, or has just come back, gets one more slot each time this is over
DEMAND_S = 600.0  # a request of so long ago counts a third


@dataclass(slots=True)
class Service:
    """What is known of one node's work on one model; `speeds` is None until the first answer."""

    speeds: Speeds | None = None
    unloaded_at: float | None = None
    usual_context: int | None = None
    breaker: Breaker = field(default_factory=Breaker)


@dataclass(slots=True)
class Entry:
    """All that is known of one node: its last heartbeat, when it came, and what the operator wants of it.

    `awaited_since` is when the router began, while a node from before that may still report without having been lost;
    `limit` is how many of its slots are used while it is busy or has just come back; None: all of them.
    """

    heartbeat: wire.Heartbeat
    node: Node
    last_seen: float
    clock_skew_s: float = 0.0
    drained: bool = False
    awaited_since: float | None = None
    limit: int | None = None
    limit_moved_at: float = 0.0
    losses: list[float] = field(default_factory=list)
    services: dict[str, Service] = field(default_factory=dict)
    machine: Machine = field(default_factory=Machine)
    guesses: dict[str, Pace] = field(default_factory=dict)
    work: Work = IDLE
    busy: float = 0.0
    marks: dict[Hashable, Mark] = field(default_factory=dict)

    @property
    def left(self) -> bool:
        """Whether the node left in order."""
        return self.heartbeat.leaving


class Roster:
    """The fleet as it is now; all methods are called on the event loop and return at once."""

    def __init__(
        self, degraded_s: float = 15.0, offline_s: float = 30.0,
        on_paper: Callable[[wire.Heartbeat], Machine] = lambda _: Machine(),
    ) -> None:  # fmt: skip
        self._on_paper = on_paper
        self._degraded_s = degraded_s
        self._offline_s = offline_s
        self._entries: dict[str, Entry] = {}
        self._prefixes: OrderedDict[str, str] = OrderedDict()
        self._lengths: dict[tuple[str, str], Length] = {}
        self._demand: dict[str, tuple[float, float]] = {}

    def set_patience(self, degraded_s: float, offline_s: float) -> None:
        """Take a node for degraded, and for lost, after so many seconds without a heartbeat from now on."""
        self._degraded_s, self._offline_s = degraded_s, offline_s

    @property
    def entries(self) -> Mapping[str, Entry]:
        """Every node ever heard of and not forgotten, by node_id."""
        return self._entries

    def knows(self, model: str) -> bool:
        """Whether any node, silent ones included, holds a model."""
        return any(entry.node.holds(model) for entry in self._entries.values())

    def spelled(self, model: str) -> str:
        """The fleet's spelling of a model's name, whose case engines do not mind; an unknown name in canonical form."""
        name = wire.canonical_name(model)
        if self.knows(name):
            return name
        there = (known for models in self.models().values() for known in sorted(models))
        return next((known for known in there if known.lower() == name.lower()), name)

    def models(self) -> Mapping[str, frozenset[str]]:
        """The models of each node, on disk or in memory."""
        return {name: frozenset({*entry.node.models, *entry.node.loaded}) for name, entry in self._entries.items()}

    def restore(self, heartbeat: wire.Heartbeat, known: NodeKnown, now: float) -> None:
        """Begin with a node from before the router's start: offline, and awaited for the time that makes one lost."""
        entry = Entry(heartbeat, node_from(heartbeat), min(known.last_seen, now), drained=known.drained)
        entry.machine = self._on_paper(heartbeat)
        entry.awaited_since = None if entry.left else now
        self._entries[heartbeat.node_id] = entry
        self._refresh(entry, now)

    def known(self) -> list[NodeKnown]:
        """What a restarted router must know of each node."""
        return [self.known_of(name) for name in self._entries]

    def known_of(self, node_id: str) -> NodeKnown:
        """The same of one node. KeyError if there is no such node."""
        entry = self._entries[node_id]
        return NodeKnown(node_id, entry.heartbeat.model_dump(), entry.last_seen, entry.left, entry.drained)

    def apply(self, heartbeat: wire.Heartbeat, now: float) -> list[FleetChanged]:
        """Take a heartbeat in; returns what it changed."""
        entry = self._entries.get(heartbeat.node_id)
        node = node_from(heartbeat)
        if entry is None:
            entry = self._entries[heartbeat.node_id] = Entry(heartbeat, node, now, machine=self._on_paper(heartbeat))
            self._refresh(entry, now)
            return [FleetChanged(now, "node_joined", node.node_id, data={"engine": node.engine, "url": node.url})]
        before, awaited, entry.awaited_since = entry.node, entry.awaited_since is not None, None
        entry.heartbeat, entry.last_seen, entry.clock_skew_s = heartbeat, now, heartbeat.sent_at - now
        entry.node = replace(node, status=before.status, uptime=before.uptime, busy_usually=before.busy_usually)
        if not heartbeat.engine.reachable:  # an engine that is away lists nothing; its disk still holds its models
            entry.node = replace(entry.node, models=before.models)
        self._refresh(entry, now)
        changes = changes_between(before, entry.node, heartbeat.leaving, now)
        if before.status == "offline" and not heartbeat.leaving and not awaited:
            changes += self._limit(entry, 1, now)  # slow start: what just came back is not buried at once
        for change in changes:
            if change.kind == "model_unloaded" and change.model:
                entry.services.setdefault(change.model, Service()).unloaded_at = now
        return changes

    def relist(self, node_id: str, listed: list[dict[str, JsonValue]], now: float) -> list[FleetChanged]:
        """Take an Ollama's own listing of its models, asked for between two heartbeats; returns what it changed."""
        entry = self._entries.get(node_id)
        if entry is None:
            return []
        known = {model.name: model for model in entry.heartbeat.engine.models}
        models = [model_from(item, known) for item in listed]
        engine = entry.heartbeat.engine.model_copy(update={"models": models})
        entry.heartbeat = entry.heartbeat.model_copy(update={"engine": engine})
        fresh = node_from(entry.heartbeat)
        before, entry.node = entry.node, replace(entry.node, models=fresh.models, same_as=fresh.same_as)
        return changes_between(before, entry.node, leaving=False, now=now)

    def expire(self, now: float) -> list[FleetChanged]:
        """Degrade and lose the nodes that fell silent; called about once a second."""
        changes = []
        for entry in self._entries.values():
            before, missed = entry.node.status, self._is_missed(entry, now)
            self._raise_limit(entry, now)
            self._refresh(entry, now)
            if entry.left or (entry.node.status == before and not missed):
                continue
            if entry.node.status == "offline":
                entry.losses.append(now)
            kind = {"offline": "node_lost", "degraded": "node_degraded", "online": "node_back"}[entry.node.status]
            changes.append(FleetChanged(now, kind, entry.node.node_id))
        return changes

    def fleet(self, now: float) -> Fleet:
        """All nodes as frozen values, without traffic."""
        return Fleet(now, tuple(entry.node for entry in self._entries.values()))

    def snapshot(self, request: Request, now: float, ticket: Hashable = None) -> Fleet:
        """The fleet as frozen values, with the traffic of the request's models and without the ticket's own job."""
        cached = self._prefixes.get(request.prefix) if request.prefix else None
        work = {node_id: entry.work for node_id, entry in self._entries.items() if entry.work.jobs}
        for node_id, there in work.items():
            if ticket is not None and any(job.ticket == ticket for job in there.jobs):
                work[node_id] = there.ended(ticket, now)
        return Fleet(
            at=now,
            nodes=tuple(entry.node for entry in self._entries.values()),
            traffic={
                node_id: {model: self._traffic(entry, model, now)
                          for model in dict.fromkeys((*request.models, *entry.node.loaded))}
                for node_id, entry in self._entries.items()
            },
            work=work,
            cached={cached: request.prompt_tokens} if cached else {},
            answer_tokens={model: self._expected(request, model) for model in request.models},
            demand={model: rate * exp(-(now - at) / DEMAND_S) for model, (rate, at) in self._demand.items()},
        )  # fmt: skip

    def asked(self, model: str, now: float) -> None:
        """A request asks for a model."""
        rate, at = self._demand.get(model, (0.0, now))
        self._demand[model] = (rate * exp(-(now - at) / DEMAND_S) + 1 / DEMAND_S, now)

    def begun(self, node_id: str, there: Job, now: float) -> None:
        """A request was given to a node, or waits for a slot there."""
        if entry := self._entries.get(node_id):
            self._move(entry, now)
            entry.work = entry.work.begun(there, now)
            entry.marks[there.ticket] = Mark(now, entry.busy)

    def answered(self, node_id: str, ticket: Hashable, now: float) -> None:
        """A request's first content came."""
        if (entry := self._entries.get(node_id)) and ticket in entry.marks:
            self._move(entry, now)
            entry.work = entry.work.answered(ticket, now)
            entry.marks[ticket].first_at, entry.marks[ticket].first_busy = now, entry.busy

    def ended(self, node_id: str, ticket: Hashable, now: float) -> tuple[Mark | None, float]:
        """A request is done with a node, or waits for it no longer; returns its mark and who was at work up to now."""
        if (entry := self._entries.get(node_id)) is None:
            return None, 0.0
        self._move(entry, now)
        entry.work = entry.work.ended(ticket, now)
        return entry.marks.pop(ticket, None), entry.busy

    def learn(self, event: Finished, mark: Mark | None = None, busy: float = 0.0) -> None:
        """Remember what a finished request says of its node: speed, loads, and whose cache holds its beginning."""
        entry = self._entries.get(event.chosen.node_id) if event.chosen else None
        if entry is None or event.chosen is None or event.request is None or event.status is not Status.COMPLETED:
            return
        model, usage = event.chosen.model, event.usage
        if usage.completion_tokens:
            for tag in dict.fromkeys(("", *event.request.tags[:1])):
                self._lengths[model, tag] = self._lengths.get((model, tag), Length()).after(usage.completion_tokens)
        service, size = entry.services.setdefault(model, Service()), entry.node.size_of(model)
        told = observed(event, mark, busy, service.unloaded_at)
        service.speeds = (service.speeds or entry.machine.expects(size)).after(told)
        entry.machine = entry.machine.after(told, size)
        for each in self._entries.values():
            if each is entry or not (each.machine.seen and each.machine.loads_seen):
                each.guesses.clear()
        pace = service.speeds.pace
        entry.work = replace(entry.work, prompt_fall=pace.prompt_fall, token_fall=pace.token_fall)
        if event.request.prefix:
            self._prefixes[event.request.prefix] = event.chosen.node_id
            self._prefixes.move_to_end(event.request.prefix)
            if len(self._prefixes) > PREFIXES_KEPT:
                self._prefixes.popitem(last=False)

    def attempted(self, attempt: Attempt, now: float) -> list[FleetChanged]:
        """Move the breaker of the attempt's node and model; returns what that changed."""
        entry = self._entries.get(attempt.node_id)
        if entry is None:
            return []
        if attempt.error_type == "upstream_busy":
            return self._limit(entry, max(1, entry.node.slots // 2), now)
        service = entry.services.setdefault(attempt.model, Service())
        before, service.breaker = service.breaker, service.breaker.after(attempt.error_type, now)
        was, is_open = before.open_until is not None, service.breaker.open_until is not None
        if was == is_open:
            return []
        data = {"to": service.breaker.state(now).value}
        changes = [FleetChanged(now, "breaker_changed", attempt.node_id, attempt.model, data)]
        return changes if is_open else changes + self._limit(entry, 1, now)

    def sizes(self) -> dict[str, int]:
        """The slots for each model, by node; nodes that are not there have none."""
        return {name: entry.node.slots for name, entry in self._entries.items() if entry.node.status != "offline"}

    def probing(self, node_id: str, model: str, now: float) -> bool:
        """Whether a request that goes there now is the one that tells if a node and model are well again."""
        service = self._entries[node_id].services.get(model)
        return service is not None and service.breaker.state(now) is BreakerState.HALF_OPEN

    def breaker_state(self, node_id: str, now: float) -> BreakerState:
        """The worst state among the breakers of a node's models."""
        states = {service.breaker.state(now) for service in self._entries[node_id].services.values()}
        return next((s for s in (BreakerState.OPEN, BreakerState.HALF_OPEN) if s in states), BreakerState.CLOSED)

    def set_history(self, history: Mapping[str, tuple[float, float]]) -> None:
        """Take each node's share of time up and usual busyness, made from the samples of the past."""
        for node_id, (uptime, busy) in history.items():
            if entry := self._entries.get(node_id):
                entry.node = replace(entry.node, uptime=uptime, busy_usually=busy)

    def drain(self, node_id: str, drained: bool, now: float) -> list[FleetChanged]:
        """The operator wants no more requests there (or wants them again). KeyError if there is no such node."""
        entry = self._entries[node_id]
        entry.drained = drained
        self._refresh(entry, now)
        return [FleetChanged(now, "drain_changed", node_id, data={"draining": entry.node.draining})]

    def forget(self, node_id: str, now: float) -> list[FleetChanged]:
        """Strike a departed node off. KeyError if there is no such node, ValueError if it is still there."""
        if self._entries[node_id].node.status != "offline":
            raise ValueError(f"node {node_id} still sends heartbeats; stop its herd-node first")
        del self._entries[node_id]
        return [FleetChanged(now, "node_forgotten", node_id)]

    def samples(self, in_flight: Mapping[str, Mapping[str, int]], now: float) -> list[NodeSampled]:
        """One sample of each node that has not left and is not awaited: how those are nobody knows yet."""
        return [
            NodeSampled(now, name, entry.node.status, entry.heartbeat.cpu.utilization,
                        entry.heartbeat.memory.used_bytes, entry.heartbeat.memory.total_bytes,
                        entry.node.pressure, tuple(entry.node.loaded), sum(in_flight.get(name, {}).values()),
                        entry.node.slots)
            for name, entry in self._entries.items() if not entry.left and entry.awaited_since is None
        ]  # fmt: skip

    def _limit(self, entry: Entry, slots: int, now: float) -> list[FleetChanged]:
        """Use no more than these slots of a node for now; `_raise_limit` gives them back one by one."""
        entry.limit, entry.limit_moved_at = slots, now
        self._refresh(entry, now)
        return [FleetChanged(now, "slots_limited", entry.node.node_id, data={"slots": entry.node.slots})]

    def _raise_limit(self, entry: Entry, now: float) -> None:
        if entry.limit is not None and now - entry.limit_moved_at >= LIMIT_STEP_S:
            more = entry.limit + 1
            entry.limit, entry.limit_moved_at = (None if more >= entry.heartbeat.engine.slots else more), now

    def _refresh(self, entry: Entry, now: float) -> None:
        entry.losses = [at for at in entry.losses if now - at < LOSS_WINDOW_S]
        status = self._status(entry, now)
        draining = entry.drained or entry.heartbeat.draining
        slots = min(entry.heartbeat.engine.slots, entry.limit or entry.heartbeat.engine.slots)
        node, losses = entry.node, len(entry.losses)
        if (node.status, node.draining, node.losses, node.slots) != (status, draining, losses, slots):
            entry.node = replace(node, status=status, draining=draining, losses=losses, slots=slots)

    def _is_missed(self, entry: Entry, now: float) -> bool:
        """Whether a node that is awaited has had its time by now; it is awaited no longer then."""
        if entry.awaited_since is None or now - entry.awaited_since < self._offline_s:
            return False
        entry.awaited_since = None
        return True

    def _status(self, entry: Entry, now: float) -> NodeStatus:
        silent_s = now - entry.last_seen
        if entry.left or entry.awaited_since is not None or silent_s >= self._offline_s:
            return "offline"
        worried = not entry.node.engine_reachable or entry.node.pressure == "critical"
        return "degraded" if worried or silent_s >= self._degraded_s else "online"

    def _traffic(self, entry: Entry, model: str, now: float) -> Traffic:
        service = entry.services.get(model) or Service()
        return Traffic(
            pace=service.speeds.pace if service.speeds else self._guessed(entry, model),
            unloaded_at=service.unloaded_at,
            breaker_open=service.breaker.blocks(now, entry.work.held.get(model, 0)),
            usual_context=service.usual_context,
        )

    def _guessed(self, entry: Entry, model: str) -> Pace:
        if model not in entry.guesses:
            machine = entry.machine.among([each.machine for each in self._entries.values()])
            entry.guesses[model] = machine.expects(entry.node.size_of(model)).pace
        return entry.guesses[model]

    def _expected(self, request: Request, model: str) -> float:
        of_tag = self._lengths.get((model, request.tags[0])) if request.tags else None
        return expected_tokens(self._lengths.get((model, ""), Length()), of_tag, request.max_tokens)

    @staticmethod
    def _move(entry: Entry, now: float) -> None:
        entry.busy += max(0.0, now - entry.work.as_of) * entry.work.at_work
