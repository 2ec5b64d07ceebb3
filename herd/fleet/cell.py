"""The one cell that holds what changes of the fleet: its nodes, their breakers, and who has or waits for a slot.

Every method returns at once, on the event loop, with what changed and who was granted a slot; the keeper acts on that.
It knows no task, no socket and no clock: the moment is given.
"""

from collections.abc import Callable, Iterable, Mapping

from pydantic import JsonValue

from herd import wire
from herd.core.admission import Place
from herd.core.breaker import BreakerState
from herd.core.clock import Moment
from herd.core.demand import Demand
from herd.core.events import Attempt, FleetChanged, NodeKnown, NodeSampled
from herd.core.fleet import Fleet
from herd.core.learning import Machine, Observation
from herd.core.observed import Mark, Told
from herd.core.prefix import PrefixIndex, Room
from herd.core.request import Request
from herd.core.routing import Policy, decide_jobs
from herd.core.value import value
from herd.fleet.entry import USUAL_PATIENCE, Entry, Patience
from herd.fleet.heartbeats import changes_between, model_from
from herd.fleet.slots import Bid, Choice, Granted, Slots

SWAP_PATIENCE_S = 30.0
NOBODY: tuple[int, ...] = ()
LATE_TICK_S = 5.0  # a look that comes so much later than the last says that the router itself was away
CLOCK_STEP_S = 2.0  # a smaller difference between the two clocks is drift, not a jump


@value
class Changes:
    """What one call changed: events for the records, slots that were granted, and tickets that no place suits now."""

    events: tuple[FleetChanged, ...] = ()
    granted: tuple[Granted, ...] = ()
    stranded: tuple[int, ...] = ()


class TwinHeard(Exception):
    """A heartbeat under the name of a node that is there already, at another address."""


class Cell:
    """The fleet as it is now."""

    def __init__(
        self,
        patience: Patience = USUAL_PATIENCE,
        queue_limit: int = 100,
        swap_patience_s: float = SWAP_PATIENCE_S,
        on_paper: Callable[[wire.Heartbeat], Machine] = lambda _: Machine(),
    ) -> None:
        self._patience = patience
        self._on_paper = on_paper
        self._entries: dict[str, Entry] = {}
        self.slots = Slots(self._entries, queue_limit, swap_patience_s)
        self._demand = Demand()
        self._clock_offset: float | None = None
        self._prefixes = PrefixIndex()
        self._looked: Moment | None = None

    # What it says

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

    def fleet(self, now: Moment) -> Fleet:
        """All nodes as frozen values, without traffic."""
        return Fleet(now.at, tuple(entry.node for entry in self._entries.values()))

    def snapshot(self, request: Request, now: Moment, ticket: int | None = None) -> Fleet:
        """The fleet as frozen values, with what is known of the request's models, and without the ticket's own job."""
        at = self._unix(now)
        # What may have to make room, and then be missed: no decision asks how much other models are wanted.
        wanted = {
            model for entry in self._entries.values() for model in (*entry.node.loaded, *entry.workload.work.held)
        }
        return Fleet(
            at=at,
            nodes=tuple(entry.node for entry in self._entries.values()),
            traffic={
                name: {
                    model: entry.traffic(model, now, self._machines)
                    for model in dict.fromkeys((*request.models, *entry.node.loaded))
                }
                for name, entry in self._entries.items()
            },
            work={
                name: entry.workload.without(ticket, at)
                for name, entry in self._entries.items()
                if entry.workload.work.jobs
            },
            cached=self._prefixes.cached(request.model, request.prefix),
            answer_tokens=self._demand.lengths(request),
            demand=self._demand.rates(at, wanted),
        )

    def decide(self, request: Request, policy: Policy, now: Moment, ticket: int | None = None) -> Choice:
        """Where a request should go, as the fleet is now."""
        fleet = self.snapshot(request, now, ticket)
        return Choice(fleet, *decide_jobs(request, fleet, policy))

    def probing(self, place: Place, now: Moment) -> bool:
        """Whether a request that goes there now is the one that tells if a node and model are well again."""
        service = self._entries[place.node_id].services.get(place.model)
        return service is not None and service.breaker.state(now.tick) is BreakerState.HALF_OPEN

    def samples(self, now: Moment) -> list[NodeSampled]:
        """One sample of each node that has not left and is not awaited: how those are nobody knows yet."""
        in_flight = self.slots.in_flight()
        return [
            entry.sample(sum(in_flight.get(name, {}).values()), now)
            for name, entry in self._entries.items()
            if not entry.left and entry.awaited_since is None
        ]

    # What changes it: requests

    def asked(self, model: str, now: Moment) -> None:
        """A request asks for a model."""
        self._demand.asked(model, self._unix(now))

    def may_begin(self, bid: Bid, choice: Choice, now: Moment) -> bool:
        """Whether a request that asks now would have a slot at once."""
        return self.slots.may_begin(bid, choice, self._unix(now))

    def ask(self, ticket: int, bid: Bid, choice: Choice, now: Moment) -> Granted | None:
        """A slot at the best free place, or None: then the ticket waits. Ask whether the lane is full first."""
        return self.slots.ask(ticket, bid, choice, self._unix(now))

    def take(self, ticket: int, place: Place, now: Moment) -> bool:
        """A slot at this place and no other, for a load and not for an answer, if one is free."""
        return self.slots.take(ticket, place, self._unix(now))

    def leave(self, ticket: int, now: Moment) -> None:
        """A waiting ticket gives up."""
        self.slots.leave(ticket, self._unix(now))

    def answered(self, ticket: int, place: Place, now: Moment) -> None:
        """The first content of a ticket's answer came."""
        if entry := self._entries.get(place.node_id):
            entry.workload.answered(ticket, self._unix(now))

    def give_back(self, ticket: int, place: Place, now: Moment, told: Told | None = None) -> Changes:
        """A slot is free again; whoever it suits next has it. `told` is what an answer that came whole says."""
        mark, granted = self.slots.give_back(ticket, place, self._unix(now))
        entry = self._entries.get(place.node_id)
        if told is not None and entry is not None:
            self._learn(entry, told, mark, now)
        return Changes(granted=granted)

    # What changes it: nodes

    def heard(self, heartbeat: wire.Heartbeat, now: Moment) -> Changes:
        """Take a heartbeat in. Raises TwinHeard where the name is another machine's."""
        entry = self._entries.get(heartbeat.node_id)
        if entry is None:
            entry = Entry.joined(heartbeat, now, self._patience, self._on_paper(heartbeat))
            self._entries[heartbeat.node_id] = entry
            data = {"engine": entry.node.engine, "url": entry.node.url}
            return self._changed([FleetChanged(now.at, "node_joined", heartbeat.node_id, data=data)], now)
        self._refuse_twin(entry, heartbeat, now)
        before, awaited = entry.node, entry.awaited_since is not None
        entry.hear(heartbeat, now, self._patience)
        changes = changes_between(before, entry.node, heartbeat.leaving, now.at)
        if before.status == "offline" and not heartbeat.leaving and not awaited:
            changes.append(entry.use(1, now, self._patience))  # slow start: what just came back is not buried at once
        self._follow(entry, changes, now)
        return self._changed(changes, now)

    def unloaded(self, node_id: str, model: str, now: Moment) -> Changes:
        """A node was told to unload a model, and did. What is still at work there keeps it until the next heartbeat."""
        entry = self._entries.get(node_id)
        loaded = entry.node.in_memory(model) if entry else None
        if entry is None or loaded is None or self.slots.in_flight().get(node_id, {}).get(model):
            return Changes()
        before = entry.node
        entry.put_out(loaded.name)
        changes = changes_between(before, entry.node, leaving=False, now=now.at)
        self._follow(entry, changes, now)
        return self._changed(changes, now)

    def relisted(self, node_id: str, listed: list[dict[str, JsonValue]], now: Moment) -> Changes:
        """Take an Ollama's own listing of its models, asked for between two heartbeats."""
        entry = self._entries.get(node_id)
        if entry is None:
            return Changes()
        known = {model.name: model for model in entry.heartbeat.engine.models}
        before = entry.node
        entry.relist([model_from(item, known) for item in listed])
        return self._changed(changes_between(before, entry.node, leaving=False, now=now.at), now)

    def looked(self, now: Moment) -> Changes:
        """Degrade and lose the nodes that fell silent, and decide anew for all who wait; called once a second."""
        changes = self._own_absence(now)
        for entry in self._entries.values():
            before, missed = entry.node.status, entry.missed(now, self._patience)
            entry.raise_limit(now)
            entry.refresh(now, self._patience)
            if entry.left or (entry.node.status == before and not missed):
                continue
            if entry.node.status == "offline":
                entry.losses.append(now.tick)
                self._prefixes.forget(entry.node.node_id)
            kind = {"offline": "node_lost", "degraded": "node_degraded", "online": "node_back"}[entry.node.status]
            changes.append(FleetChanged(now.at, kind, entry.node.node_id))
        return self._changed(changes, now, replan=True)  # what was learned since may open a place to those who wait

    def attempted(self, attempt: Attempt, now: Moment) -> Changes:
        """Take in how an attempt ended: it moves the breaker of its node and model."""
        entry = self._entries.get(attempt.node_id)
        if entry is None:
            return Changes()
        if attempt.error_type == "upstream_busy":
            return self._changed([entry.use(max(1, entry.node.slots // 2), now, self._patience)], now)
        state = entry.judge(attempt, now)
        if state is None:
            return Changes()
        changes = [FleetChanged(now.at, "breaker_changed", attempt.node_id, attempt.model, {"to": state.value})]
        if state is BreakerState.CLOSED:
            changes.append(entry.use(1, now, self._patience))
        return self._changed(changes, now)

    def drained(self, node_id: str, drained: bool, now: Moment) -> Changes:
        """The operator wants no more requests there (or wants them again). KeyError if there is no such node."""
        entry = self._entries[node_id]
        entry.drained = drained
        entry.refresh(now, self._patience)
        event = FleetChanged(now.at, "drain_changed", node_id, data={"draining": entry.node.draining})
        return self._changed([event], now)

    def forgot(self, node_id: str, now: Moment) -> Changes:
        """Strike a departed node off. KeyError if there is no such node, ValueError if it is still there."""
        if self._entries[node_id].node.status != "offline":
            raise ValueError(f"node {node_id} still sends heartbeats; stop its herd-node first")
        del self._entries[node_id]
        return self._changed([FleetChanged(now.at, "node_forgotten", node_id)], now)

    def restored(self, heartbeat: wire.Heartbeat, known: NodeKnown, now: Moment) -> None:
        """Begin with a node from before the router's start."""
        machine = self._on_paper(heartbeat)
        self._entries[heartbeat.node_id] = Entry.restored(heartbeat, known, now, self._patience, machine)

    def set_uptimes(self, uptimes: Mapping[str, float]) -> None:
        """Take each node's share of the last day, made from the samples of the past."""
        for node_id, uptime in uptimes.items():
            if entry := self._entries.get(node_id):
                entry.set_uptime(uptime)

    def remember(self, answers: Mapping[tuple[str, str], Iterable[Observation]]) -> None:
        """Take what earlier answers say of nodes and models that were not seen at work since the start."""
        for (node_id, model), seen in answers.items():
            if (entry := self._entries.get(node_id)) and entry.service(model).speeds is None:
                for observation in seen:
                    entry.remember(model, observation)

    def set_limits(self, patience: Patience, queue_limit: int, swap_patience_s: float) -> None:
        """Take nodes for silent, lanes for full, and who is overtaken for overdue, by these limits from now on."""
        self._patience = patience
        self.slots.set_limits(queue_limit, swap_patience_s)

    def _follow(self, entry: Entry, changes: list[FleetChanged], now: Moment) -> None:
        """Take in which models came into a node's memory, and left it."""
        for change in changes:
            if change.kind == "model_unloaded" and change.model:
                entry.unloaded(change.model, self._unix(now))
                self._prefixes.forget(entry.node.node_id, change.model)
            elif change.kind == "model_loaded" and change.model:
                entry.workload.loaded(change.model, self._unix(now))

    def _changed(self, events: list[FleetChanged], now: Moment, replan: bool = False) -> Changes:
        at, stranded = self._unix(now), NOBODY
        granted = self.slots.resize(at)
        if events or replan:
            more, stranded = self.slots.replan(lambda bid, ticket: self._again(bid, ticket, now), at)
            granted += more
        return Changes(tuple(events), granted, stranded)

    def _again(self, bid: Bid, ticket: int, now: Moment) -> Choice:
        return self.decide(bid.request, bid.policy, now, ticket)

    def _learn(self, entry: Entry, told: Told, mark: Mark | None, now: Moment) -> None:
        """Remember what an answer says of its node: speeds, lengths, and whose cache holds its beginning."""
        request, attempt, usage = told
        if usage.completion_tokens:
            self._demand.answered(attempt.model, request.tags, usage.completion_tokens)
        if entry.learn(told, mark, now):
            for other in self._entries.values():
                if not (other.workload.machine.seen and other.workload.machine.loads_seen):
                    other.guesses.clear()  # what is expected of an unknown machine goes by those that are known
        loaded = entry.node.in_memory(attempt.model)
        room = Room.of(entry.node.slots, loaded.context_length if loaded else None, entry.node.engine)
        prompt, cached = usage.prompt_tokens, usage.cached_tokens
        self._prefixes.answered(attempt.node_id, attempt.model, request.prefix, prompt, cached, room)

    def _machines(self) -> list[Machine]:
        return [entry.workload.machine for entry in self._entries.values()]

    def _unix(self, now: Moment) -> float:
        """Unix seconds that never jump: the wall clock's at the start, moved on by the monotonic one."""
        if self._clock_offset is None:
            self._clock_offset = now.at - now.tick
        return self._clock_offset + now.tick

    def _refuse_twin(self, entry: Entry, heartbeat: wire.Heartbeat, now: Moment) -> None:
        """The default id is the host's name, so cloned machines share it; the first one there keeps it."""
        first, other = entry.heartbeat.engine.url, heartbeat.engine.url
        alive = not entry.left and entry.awaited_since is None and entry.silent_s(now) < self._patience.degraded_s
        if first != other and alive:
            raise TwinHeard(
                f"node_id {heartbeat.node_id} belongs to the node at {first}; "
                f"the one at {other} needs a name of its own: herd-node --node-id"
            )

    def _own_absence(self, now: Moment) -> list[FleetChanged]:
        """A late look of the router's own says nothing of others: everybody's patience begins anew."""
        before, self._looked = self._looked, now
        if before is None:
            return []
        late_s, step_s = now.tick - before.tick, (now.at - before.at) - (now.tick - before.tick)
        if late_s > LATE_TICK_S:
            for entry in self._entries.values():
                entry.heard = min(now.tick, entry.heard + late_s)
        if abs(step_s) > CLOCK_STEP_S:
            return [FleetChanged(now.at, "clock_jumped", data={"seconds": round(step_s, 1)})]
        return []
