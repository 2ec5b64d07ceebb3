"""All that is known of one node, and how silence, load and the operator's wishes change it.

It sees one node and no other; the cell asks it, and tells the fleet what changed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from herd import wire
from herd.core.breaker import Breaker, BreakerState
from herd.core.clock import Moment
from herd.core.events import Attempt, FleetChanged, NodeKnown, NodeSampled
from herd.core.fleet import Node, NodeStatus, Traffic
from herd.core.learning import Machine, Observation, Speeds
from herd.core.observed import Mark, Told, observed
from herd.core.prediction import Pace
from herd.core.value import value
from herd.fleet.heartbeats import node_from
from herd.fleet.workload import Workload

LOSS_WINDOW_S = 3600.0
LEARN_EVERY_S = 0.1  # a fit costs as much as a decision
LIMIT_STEP_S = 2.0  # a node that was busy, or has just come back, gets one more slot each time this is over


@value
class Patience:
    """Seconds without a heartbeat after which a node counts as degraded, and as lost."""

    degraded_s: float = 15.0
    offline_s: float = 30.0


USUAL_PATIENCE = Patience()


@dataclass(slots=True)
class Service:
    """What is known of one node's work on one model; `speeds` is None until the first answer.

    `known` is the same as decisions see it, kept until it changes: it is asked for with every request.
    """

    speeds: Speeds | None = None
    unloaded_at: float | None = None
    breaker: Breaker = field(default_factory=Breaker)
    learned: float = -LEARN_EVERY_S
    known: Traffic | None = None


@dataclass(slots=True)
class Entry:
    """All that is known of one node: its last heartbeat, when it came, and what the operator wants of it.

    Times are ticks of the monotonic clock, but for `last_seen`, which is for people. `awaited_since` is when the
    router began, while a node from before that may still report without having been lost; `limit` is how many of its
    slots are used while it is busy or has just come back; None: all of them.
    """

    heartbeat: wire.Heartbeat
    node: Node
    last_seen: float
    heard: float
    clock_skew_s: float = 0.0
    drained: bool = False
    awaited_since: float | None = None
    limit: int | None = None
    limit_moved: float = 0.0
    losses: list[float] = field(default_factory=list)
    services: dict[str, Service] = field(default_factory=dict)
    workload: Workload = field(default_factory=lambda: Workload(Machine()))
    guesses: dict[str, Pace] = field(default_factory=dict)

    @classmethod
    def joined(cls, heartbeat: wire.Heartbeat, now: Moment, patience: Patience, machine: Machine) -> "Entry":
        """A node that is heard of for the first time; `machine` is what to expect of it before it was seen at work."""
        entry = cls(heartbeat, node_from(heartbeat), now.at, now.tick, workload=Workload(machine))
        entry.refresh(now, patience)
        return entry

    @classmethod
    def restored(
        cls, heartbeat: wire.Heartbeat, known: NodeKnown, now: Moment, patience: Patience, machine: Machine
    ) -> "Entry":
        """A node from before the router's start: offline, and awaited for the time that makes one lost."""
        last_seen = min(known.last_seen, now.at)
        heard = now.tick - (now.at - last_seen)
        workload = Workload(machine)
        entry = cls(heartbeat, node_from(heartbeat), last_seen, heard, drained=known.drained, workload=workload)
        entry.awaited_since = None if entry.left else now.tick
        entry.refresh(now, patience)
        return entry

    @property
    def left(self) -> bool:
        """Whether the node shut down cleanly."""
        return self.heartbeat.leaving

    @property
    def known(self) -> NodeKnown:
        """What a restarted router must know of the node."""
        return NodeKnown(self.node.node_id, self.heartbeat.model_dump(), self.last_seen, self.left, self.drained)

    def service(self, model: str) -> Service:
        """What the node did with a model; begun here where it did nothing yet."""
        return self.services.setdefault(model, Service())

    def silent_s(self, now: Moment) -> float:
        """Seconds since its last heartbeat."""
        return max(0.0, now.tick - self.heard)

    def hear(self, heartbeat: wire.Heartbeat, now: Moment, patience: Patience) -> None:
        """Take a heartbeat in."""
        before, self.awaited_since = self.node, None
        self.heartbeat, self.last_seen, self.heard = heartbeat, now.at, now.tick
        self.clock_skew_s = heartbeat.sent_at - now.at
        node = node_from(heartbeat)
        self.node = replace(node, status=before.status, uptime=before.uptime)
        if not heartbeat.engine.reachable:  # an engine that is away lists nothing; its disk still holds its models
            self.node = replace(self.node, models=before.models)
        self.refresh(now, patience)

    def relist(self, models: list[wire.Model]) -> None:
        """Take a listing of its models that was asked for between two heartbeats."""
        engine = self.heartbeat.engine.model_copy(update={"models": models})
        self.heartbeat = self.heartbeat.model_copy(update={"engine": engine})
        fresh = node_from(self.heartbeat)
        self.node = replace(self.node, models=fresh.models, same_as=fresh.same_as)

    def put_out(self, model: str) -> None:
        """A model left its memory between two heartbeats."""
        engine = self.heartbeat.engine
        loaded = [each for each in engine.loaded if wire.canonical_name(each.name) != model]
        self.heartbeat = self.heartbeat.model_copy(update={"engine": engine.model_copy(update={"loaded": loaded})})
        fresh = node_from(self.heartbeat)
        self.node = replace(self.node, loaded=fresh.loaded, same_as=fresh.same_as)

    def set_uptime(self, uptime: float) -> None:
        """Take the share of the last day that it was there."""
        self.node = replace(self.node, uptime=uptime)

    def missed(self, now: Moment, patience: Patience) -> bool:
        """Whether a node that is awaited has had its time by now; it is awaited no longer then."""
        if self.awaited_since is None or now.tick - self.awaited_since < patience.offline_s:
            return False
        self.awaited_since = None
        return True

    def use(self, slots: int, now: Moment, patience: Patience) -> FleetChanged:
        """Use no more than these slots for now; `raise_limit` gives them back one by one."""
        self.limit, self.limit_moved = slots, now.tick
        self.refresh(now, patience)
        return FleetChanged(now.at, "slots_limited", self.node.node_id, data={"slots": self.node.slots})

    def raise_limit(self, now: Moment) -> None:
        """Give one more slot back where it is time."""
        if self.limit is not None and now.tick - self.limit_moved >= LIMIT_STEP_S:
            more = self.limit + 1
            self.limit, self.limit_moved = (None if more >= self.heartbeat.engine.slots else more), now.tick

    def refresh(self, now: Moment, patience: Patience) -> None:
        """Bring the node's value up to this moment."""
        self.losses = [tick for tick in self.losses if now.tick - tick < LOSS_WINDOW_S]
        status = self._status(now, patience)
        draining = self.drained or self.heartbeat.draining
        slots = min(self.heartbeat.engine.slots, self.limit or self.heartbeat.engine.slots)
        node, losses = self.node, len(self.losses)
        if (node.status, node.draining, node.losses, node.slots) != (status, draining, losses, slots):
            self.node = replace(node, status=status, draining=draining, losses=losses, slots=slots)

    def judge(self, attempt: Attempt, now: Moment) -> BreakerState | None:
        """Move the breaker of the attempt's model; returns its new state where it opened or closed."""
        service = self.service(attempt.model)
        before, service.breaker = service.breaker, service.breaker.after(attempt.error_type, now.tick)
        service.known = None
        if (before.open_until is None) == (service.breaker.open_until is None):
            return None
        return service.breaker.state(now.tick)

    def breaker(self, now: Moment) -> BreakerState:
        """The worst state among the breakers of the node's models."""
        states = {service.breaker.state(now.tick) for service in self.services.values()}
        worst = (BreakerState.OPEN, BreakerState.HALF_OPEN)
        return next((state for state in worst if state in states), BreakerState.CLOSED)

    def breakers(self, now: Moment) -> dict[str, str]:
        """The breakers that are not closed, by model."""
        states = {model: service.breaker.state(now.tick) for model, service in self.services.items()}
        return {model: state.value for model, state in states.items() if state is not BreakerState.CLOSED}

    def unloaded(self, model: str, at: float) -> None:
        """The model left the node's memory."""
        service = self.service(model)
        service.unloaded_at, service.known = at, None

    def traffic(self, model: str, now: Moment, peers: Callable[[], list[Machine]]) -> Traffic:
        """What is known of the node's work on a model: its speeds as seen, else as its machine lets expect."""
        service = self.services.get(model)
        if service is None or service.speeds is None:
            pace = self.guesses.get(model)
            if pace is None:
                machine = self.workload.machine.among(peers())
                pace = self.guesses[model] = machine.expects(self.node.size_of(model)).pace
            if service is None:
                return Traffic(pace=pace)
            service.known = Traffic(pace=pace, unloaded_at=service.unloaded_at)
        elif service.known is None:
            service.known = Traffic(pace=service.speeds.pace, unloaded_at=service.unloaded_at)
        if service.breaker.open_until is None:
            return service.known
        held = self.workload.work.held.get(model, 0)
        return replace(service.known, breaker_open=service.breaker.blocks(now.tick, held))

    def learn(self, told: Told, mark: Mark | None, now: Moment) -> bool:
        """Take in the speed of an answer that came whole, or not: of many at once, some say as much as all."""
        model, workload = told.attempt.model, self.workload
        service = self.service(model)
        if now.tick - service.learned < LEARN_EVERY_S:
            return False
        service.learned = now.tick
        self.remember(model, observed(told, mark, workload.busy, service.unloaded_at))
        return True

    def remember(self, model: str, seen: Observation) -> None:
        """Take in what an answer, of now or of earlier, says of the node's speeds with a model."""
        service, size, workload = self.service(model), self.node.size_of(model), self.workload
        service.speeds = (service.speeds or workload.machine.expects(size)).after(seen)
        workload.machine = workload.machine.after(seen, size)
        workload.follow(service.speeds.pace)
        service.known = None
        self.guesses.clear()

    def sample(self, in_flight: int, now: Moment) -> NodeSampled:
        """The node's state as its history keeps it."""
        beat, node = self.heartbeat, self.node
        return NodeSampled(
            now.at, node.node_id, node.status, beat.cpu.utilization, beat.memory.used_bytes, beat.memory.total_bytes,
            node.pressure, tuple(node.loaded), in_flight, node.slots,
        )  # fmt: skip

    def _status(self, now: Moment, patience: Patience) -> NodeStatus:
        silent_s = now.tick - self.heard
        if self.left or self.awaited_since is not None or silent_s >= patience.offline_s:
            return "offline"
        worried = not self.node.engine_reachable or self.node.pressure == "critical"
        return "degraded" if worried or silent_s >= patience.degraded_s else "online"
