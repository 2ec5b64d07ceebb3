"""One request's life, from its first byte to its one Finished event: read, decide, wait, try, relay, record.

The coroutine that enters `serve` owns the request to its end; nothing else sends to its client or gives back its slot.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

from herd.core import errors
from herd.core.clock import Clock, moment
from herd.core.context import loaded_instead, protect
from herd.core.dialects import Endpoint
from herd.core.events import (
    Attempt,
    AttemptFailed,
    ContextAction,
    ContextProtected,
    Event,
    Finished,
    FleetChanged,
    Status,
    StreamBroken,
    TraceIds,
)
from herd.core.fleet import Node
from herd.core.observed import Told
from herd.core.quarantine import Death, Quarantine, digest_of
from herd.core.room import Room
from herd.core.routing import Policy
from herd.dataplane.body import for_node
from herd.dataplane.client import Client, ClientGone, Receive, Scope, Send
from herd.dataplane.coding import unpacked
from herd.dataplane.commands import Command, also, candidate_of, is_unload, named, spokesman, unload_from
from herd.dataplane.equivalents import with_equivalents
from herd.dataplane.exchange import Call, Upstream
from herd.dataplane.flights import STOPPING, STOPPING_RETRY_S, Flight, Flights, stopped
from herd.dataplane.headers import request_headers
from herd.dataplane.keyed import check_models
from herd.dataplane.parse import parse
from herd.dataplane.phases import (
    COMPLETED,
    LEFT,
    Asked,
    Attempted,
    Decided,
    Ending,
    Planned,
    Received,
    ended_by,
    finished,
)
from herd.dataplane.relay import Limits, Relay
from herd.dataplane.replies import own_headers, refusal, send_error
from herd.dataplane.request_ids import RequestIds
from herd.dataplane.testimony import Testimony, confirmed
from herd.dataplane.trace_ids import new_span_id
from herd.fleet.keeper import Keeper
from herd.fleet.slots import Bid, Granted
from herd.settings.values import Settings

logger = logging.getLogger(__name__)
NewIds = Callable[[str | None], TraceIds]
ALIVE_WITHIN_S = 1.0  # a dead engine's machine refuses at once; one that says nothing is dead, too
LEAST_RETRIES = 3  # requests that may be retried at once however few there are


class DataPlane:
    """What every request needs; one for the router's life.

    `supply` is asked where the plan is empty: it brings a model that no node has, and gives the request under the name
    that the model has then; None where that is not what is missing.
    """

    def __init__(
        self,
        settings: Settings,
        keeper: Keeper,
        upstream: Upstream,
        emit: Callable[[Event], None],
        new_ids: NewIds,
        request_ids: RequestIds,
        new_clock: Callable[[], Clock] = Clock,
        room: Room | None = None,
    ) -> None:
        self.flights = Flights()
        self.quarantine = Quarantine()
        self.stopping = False
        self.supply: Callable[[Decided], Awaitable[Asked] | None] = _no_supply
        self._settings = settings
        self._keeper = keeper
        self._upstream = upstream
        self._emit = emit
        self._new_ids = new_ids
        self._request_ids = request_ids
        self._new_clock = new_clock
        self._room = room

    async def serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one inference request; it ends in exactly one Finished."""
        client = Client(scope, receive, send, self._room)
        flight = Flight(client, self._received(endpoint, client))
        self.flights.add(flight)
        ending = Ending(Status.FAILED, 500)
        try:
            await self._run(flight)
            ending = COMPLETED
        except ClientGone:
            ending = LEFT
        except errors.HerdError as error:
            ending = ended_by(error, flight.phase, client.started)
        except asyncio.CancelledError:
            ending = ended_by(stopped(flight.phase), flight.phase, started=False)
            raise
        except Exception as defect:  # a defect of ours must not cost the record of the request
            logger.exception("Request %s met a defect", flight.request_id)
            told = f"internal error ({type(defect).__name__}); the log has request {flight.request_id}"
            ending = ended_by(errors.Internal(told), flight.phase, client.started)
        finally:
            self.flights.remove(flight)
            client.let_go()
            self._record(finished(flight.phase, ending))
        if ending.error and not client.gone and not isinstance(ending.error, errors.Stuck):
            with suppress(ClientGone, asyncio.CancelledError):  # the client left while it was told
                await send_error(flight, ending.error)

    def reap(self) -> None:
        """End the requests that are stuck; called about once a second."""
        for flight in self.flights.reap(asyncio.get_running_loop().time()):
            phase = flight.phase
            tried = phase.candidate if isinstance(phase, Attempted) else None
            data = {"request_id": flight.request_id, "trace_id": phase.received.ids.trace_id}
            node_id, model = (tried.node_id, tried.model) if tried else (None, None)
            self._emit(FleetChanged(phase.received.clock.now(), "zombie_reaped", node_id, model, data))

    async def drain(self, grace_s: float) -> None:
        """Take no more requests, let the running ones end, and after `grace_s` end those that are left."""
        self.stopping = True
        await self.flights.drain(grace_s)

    @property
    def _body_limit(self) -> int:
        return self._settings.count("body_limit_mb") * 2**20

    def _received(self, endpoint: Endpoint, client: Client) -> Received:
        request_id = self._request_ids.take(client.named.get("x-request-id", ""))
        policy = Policy(loaded_fallback=self._settings.flag("loaded_fallback"))  # it keeps the rules that it began with
        clock = self._new_clock()
        ids = self._new_ids(client.named.get("traceparent"))
        return Received(request_id, ids, endpoint, client.address, policy, clock, clock.now(), client.caller)

    def _record(self, event: Finished) -> None:
        if event.status is Status.INCOMPLETE and event.chosen:
            self._emit(
                StreamBroken(event.request_id, event.ids.trace_id, event.chosen.node_id, event.chosen.model,
                             event.error_type or "", event.error_message or "")
            )  # fmt: skip
        self._emit(event)

    async def _run(self, flight: Flight) -> None:
        client, received = flight.client, flight.phase.received
        body = await client.body(self._body_limit)
        asked = flight.reach(self._ask(received, client, body))
        async with client.watched():
            if self.stopping:
                raise errors.NoNode(STOPPING, STOPPING_RETRY_S)
            self._refuse_quarantined(asked)
            if is_unload(received.endpoint.path, asked.parsed.document) and await self._unload(flight, asked):
                return
            self._keeper.cell.asked(asked.request.model, moment())
            decided = flight.reach(self._decide(asked))
            if not decided.choice.decision.plan:
                decided = await self._supplied(flight, decided)
            await self._try_nodes(flight, decided)

    async def _unload(self, flight: Flight, asked: Asked) -> bool:
        """Have every node that has a model in memory put it out, now; False where no node could."""
        client, received, model = flight.client, asked.received, asked.request.model
        nodes = unload_from(self._keeper.cell.fleet(moment()), received.endpoint.path, model)
        if not nodes:
            return False
        decided, due_s = flight.reach(self._decide(asked)), self._settings.number("stall_timeout_s")
        path, ids = received.endpoint.path, received.ids
        command = Command("POST", path, client.headers, asked.body, model, ids, received.clock, due_s)
        told = await command.carry_out(self._upstream, nodes)
        speaks = spokesman(told, all_must=False)
        phase = flight.reach(Attempted(decided, candidate_of(decided, speaks.node, model), (speaks.attempt,)))
        for each in told:
            if each.done:
                self._keeper.unloaded(each.node.node_id, model)
            if each is not speaks:
                self._emit(also(flight.request_id, ids, path, each, client))
        if speaks.answer is None:
            assert speaks.error is not None
            raise speaks.error
        status, headers, body = speaks.answer
        length = (b"content-length", str(len(body)).encode())
        if speaks.error is not None:
            speaks.error.answer = speaks.answer
            raise speaks.error
        await client.start(status, [*headers, *named(own_headers(phase), told), length])
        await client.finish(body)
        return True

    async def _supplied(self, flight: Flight, decided: Decided) -> Decided:
        """Decide again once the model is there that no node had; raises a refusal where that is not to be."""
        if coming := self.supply(decided):
            clock = decided.received.clock
            began = clock.now()
            try:
                asked = await coming
            finally:
                waits = decided.waits.ended(began, clock.now(), attempted=False)
                decided = flight.reach(replace(decided, waits=waits))
            decided = flight.reach(replace(self._decide(asked), waits=waits))
        if not decided.choice.decision.plan:
            raise refusal(decided)
        return decided

    def _ask(self, received: Received, client: Client, body: bytes) -> Asked:
        steady = self._settings.flag("steady_billing_line")
        packed, body = len(body), unpacked(body, client.named.get("content-encoding", ""), self._body_limit)
        client.hold(len(body) - packed)
        parsed = parse(received.endpoint, body, client.named, client.address, self._keeper.cell.spelled, steady)
        request = parsed.request
        check_models(received.caller, request)
        if parsed.document.get("fallback_models") is None:  # an empty list says that no other model will do
            request = with_equivalents(request, self._settings.text("equivalent_models"))
        return Asked(received, request, body, parsed)

    def _decide(self, asked: Asked) -> Decided:
        clock = asked.received.clock
        began = clock.now()
        choice = self._keeper.cell.decide(asked.request, asked.received.policy, moment())
        return Decided(asked, choice, clock.now() - began)

    async def _try_nodes(self, flight: Flight, phase: Planned) -> None:
        """Try the plan's nodes one after the other, as long as nothing reached the client and the error allows it."""
        testimony = Testimony(self._keeper)
        try:
            await self._next_nodes(flight, phase, testimony)
        finally:
            testimony.settle()

    async def _next_nodes(self, flight: Flight, phase: Planned, testimony: Testimony) -> None:
        excluded: frozenset[str] = frozenset()
        while True:
            phase, granted = await self._slot(flight, phase, excluded)
            # Whose request tries out a node for all others shall not pay for it; there is one such request at a time.
            probe = self._keeper.cell.probing(granted.place, moment())
            phase, error = await self._attempt(flight, phase, granted, testimony)
            if error is None:
                return
            excluded |= {granted.place.node_id}
            if error.retryable:
                excluded |= self._gone_since(phase.decided)
            retries, spent = self._may_retry(flight, phase, error, excluded, probe)
            received = phase.received
            self._emit(AttemptFailed(received.request_id, received.ids.trace_id, phase.attempts[-1], retries, spent))
            if not retries:
                raise error
            flight.retrying = True

    async def _slot(self, flight: Flight, phase: Planned, excluded: frozenset[str]) -> tuple[Planned, Granted]:
        """A slot at the best free place of the plan, and the phase with the decision in which the place was found."""
        decided, clock = phase.decided, phase.received.clock
        bid = Bid(decided.asked.request, decided.received.policy, excluded)
        if granted := self._keeper.at_once(bid, decided.choice):
            return phase, granted
        if not phase.attempts:
            decided = replace(decided, predicted=decided.choice.predicted(excluded))
        began = clock.now()
        try:
            granted = await self._keeper.slot(bid, decided.choice)
            decided = replace(decided, choice=granted.choice)
        finally:
            waits = decided.waits.ended(began, clock.now(), attempted=bool(phase.attempts))
            phase = flight.reach(phase.redecided(replace(decided, waits=waits)))
        return phase, granted

    async def _attempt(
        self, flight: Flight, phase: Planned, granted: Granted, testimony: Testimony
    ) -> tuple[Attempted, errors.AttemptError | None]:
        """Try one node: the phase after it, and the error that it ended with. Gives the slot back, judges the node."""
        told: Told | None = None  # what a client breaks off says nothing of the node
        began = moment().tick
        try:
            attempted, failure = await self._exchange(flight, phase, granted)
            error = testimony.hear(attempted.attempts, failure)
            if error is not failure:
                attempted = flight.reach(replace(attempted, attempts=confirmed(attempted.attempts)))
            if error is None:
                told = Told(attempted.decided.asked.request, attempted.attempts[-1], attempted.reading.usage)
                self._answered(attempted)
            elif error.died:
                error = await self._died(flight, attempted, error, began)
        finally:
            self._keeper.give_back(granted, told)
        return attempted, error

    async def _exchange(
        self, flight: Flight, phase: Planned, granted: Granted
    ) -> tuple[Attempted, errors.AttemptError | None]:
        asked, received, candidate = phase.decided.asked, phase.received, granted.candidate
        node = next(node for node in granted.choice.fleet.nodes if node.node_id == candidate.node_id)
        context, payload, strip = self._payload(asked, granted, node)
        began = received.clock.now()
        attempt = Attempt(
            len(phase.attempts) + 1, node.node_id, candidate.model, node.url, new_span_id(), began, ended_at=began
        )
        attempted = Attempted(phase.decided, candidate, (*phase.attempts, attempt), context=context)
        flight.reach(attempted)
        limits = Limits.of(self._settings, candidate.loaded)
        relay = Relay(flight, limits, own_headers(attempted), asked.request.stream, strip)
        relay.on_first_content = lambda: self._keeper.answered(granted)
        headers = request_headers(flight.client.headers, received.ids, attempt.span_id)
        error: errors.AttemptError | None = None
        flight.trying, flight.reading = True, relay.reading
        try:
            await relay.run(self._upstream, Call("POST", node.url + received.endpoint.path, headers, payload))
        except errors.AttemptError as failure:
            error = failure
        finally:
            flight.trying = False
            flight.due_at = None  # a wait for the next slot has a limit of its own
            attempted = flight.reach(relay.ended(attempted, error))
        return attempted, error

    def _payload(self, asked: Asked, granted: Granted, node: Node) -> tuple[ContextAction | None, bytes, bool]:
        """What is done about num_ctx, the bytes for the node, and whether herd alone asked for usage."""
        mode, model = self._settings.text("context_protection"), granted.candidate.model
        context = protect(asked.request, node, model, mode, granted.choice.fleet.nodes)
        if context:
            received = asked.received
            self._emit(ContextProtected(received.request_id, received.ids.trace_id, context))
        # llama.cpp tells without being asked, and asked it would tell its clients less: its timings move.
        usage = self._settings.flag("usage_in_streams") and node.engine != "llamacpp"
        payload, strip = for_node(asked, model, loaded_instead(context, mode), usage)
        return context, payload, strip

    def _gone_since(self, decided: Decided) -> frozenset[str]:
        """The nodes of the plan to which a new request would not go any more: what was decided stays decided."""
        fresh = self._decide(decided.asked).choice.decision.plan
        open_now = {(candidate.node_id, candidate.model) for candidate in fresh}
        plan = decided.choice.decision.plan
        return frozenset(each.node_id for each in plan if (each.node_id, each.model) not in open_now)

    def _may_retry(
        self, flight: Flight, phase: Attempted, error: errors.AttemptError, excluded: frozenset[str], probe: bool
    ) -> tuple[bool, bool]:
        """Whether another node is tried, and whether only the budget stands in the way."""
        left = any(candidate.node_id not in excluded for candidate in phase.decided.choice.decision.plan)
        few = len(phase.attempts) <= self._settings.count("retries")
        may = error.retryable and not flight.client.started and left and few
        spent = may and error.budgeted and not (error.died or probe) and self._budget_spent(flight)
        return may and not spent, spent

    def _refuse_quarantined(self, asked: Asked) -> None:
        if self.quarantine and (found := self.quarantine.held(digest_of(asked.body), moment().tick)):
            assert found.until is not None
            names = ", ".join(death.node_id for death in found.deaths)
            raise errors.Quarantined(
                f"a request with the same body was the end of {names}; it is refused for another "
                f"{found.until - moment().tick:.0f} s (settings deaths_per_request and quarantine_s)"
            )

    def _answered(self, attempted: Attempted) -> None:
        if self.quarantine:
            self.quarantine.answered(digest_of(attempted.decided.asked.body))

    async def _died(
        self, flight: Flight, lost: Attempted, error: errors.AttemptError, began: float
    ) -> errors.AttemptError:
        """A connection was lost that began at a tick: the same error, or one that ends a request that kills nodes."""
        attempt, hold_s = lost.attempts[-1], self._settings.number("quarantine_s")
        if await self._upstream.lives(attempt.url, ALIVE_WITHIN_S):
            return error  # something between cut the connection, or a runner behind the engine died
        most, received = self._settings.count("deaths_per_request"), lost.received
        death = Death(attempt.node_id, attempt.model, received.request_id, began, moment().tick)
        found = self.quarantine.died(digest_of(lost.decided.asked.body), death, most, hold_s)
        if len(found.deaths) < most or found.deaths[-1] != death:
            return error
        nodes = ", ".join(each.node_id for each in found.deaths)
        data: dict[str, str | float | None] = {"request_id": death.request_id, "trace_id": received.ids.trace_id}
        data |= {"digest": found.digest, "nodes": nodes, "seconds": hold_s}
        self._emit(FleetChanged(received.clock.now(), "request_quarantined", death.node_id, death.model, data))
        if flight.client.started:
            return error
        return errors.RequestKills(f"{error.message}; {nodes} died in a row on this body, refused for {hold_s:g} s")

    def _budget_spent(self, flight: Flight) -> bool:
        # When everything fails, retries would multiply the load by the number of nodes just when there is least room.
        retrying = self.flights.retrying() - flight.retrying
        return retrying >= max(LEAST_RETRIES, self._settings.number("retry_budget_pct") / 100 * len(self.flights))


def _no_supply(_: Decided) -> None:
    return None
