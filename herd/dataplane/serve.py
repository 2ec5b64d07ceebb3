"""One request's life, from its first byte to its one Finished event: read, decide, wait, try, relay, record.

The coroutine that enters `serve` owns the request to its end; nothing else sends to its client or gives back its slot.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from herd import errors
from herd.config import Settings
from herd.core.admission import Place
from herd.core.context import loaded_instead, protect
from herd.core.events import AttemptFailed, ContextProtected, Finished, FleetChanged, Status, StreamBroken, TraceIds
from herd.core.fleet import Fleet
from herd.core.routing import Candidate, Decision, Policy, decide, job, open_to
from herd.dataplane.answer import refusal, send_error
from herd.dataplane.body import for_node
from herd.dataplane.client import Client, ClientGone, Receive, Scope, Send
from herd.dataplane.dialects import Endpoint
from herd.dataplane.equivalents import with_equivalents
from herd.dataplane.flights import LAST_WORDS_S, STOPPED, STOPPING, STOPPING_RETRY_S, Flights, stopped
from herd.dataplane.life import Life, http_status_of
from herd.dataplane.parse import Parsed, parse
from herd.dataplane.pulls import Pulls
from herd.dataplane.relay import Limits, Relay
from herd.dataplane.request_ids import RequestIds
from herd.dataplane.slots import Slots
from herd.dataplane.upstream import Upstream, request_headers
from herd.roster import Roster
from herd.telemetry.emit import Emitter
from herd.telemetry.trace_ids import new_span_id

logger = logging.getLogger(__name__)
NewIds = Callable[[str | None], TraceIds]
LEAST_RETRIES = 3  # requests that may be retried at once however few there are
CLIENT_CLOSED = 499  # nginx's number for a client that left; nobody receives it


class DataPlane:
    """What every request needs; one for the router's life."""

    def __init__(
        self, settings: Settings, roster: Roster, slots: Slots, upstream: Upstream, emit: Emitter, new_ids: NewIds
    ) -> None:
        self.settings = settings
        self.roster = roster
        self.slots = slots
        self.upstream = upstream
        self.emit = emit
        self.new_ids = new_ids
        self.flights = Flights()
        self.errands: dict[asyncio.Task[object], Client] = {}
        self.request_ids = RequestIds()
        self.pulls = Pulls(settings, roster, upstream, emit)
        self.stopping = False
        self.on_change: Callable[[], None] = lambda: None

    @property
    def policy(self) -> Policy:
        """The operator's rules as they are now; a request keeps those that it began with."""
        return Policy(loaded_fallback=self.settings.flag("loaded_fallback"))

    async def serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one inference request; it ends in exactly one Finished."""
        client = Client(scope, receive, send)
        life = self._begin(endpoint, client)
        error: errors.HerdError | None = None
        status, http_status = Status.FAILED, 500
        try:
            await self._run(life, client)
            status, http_status = Status.COMPLETED, 200
        except ClientGone:
            status, http_status = Status.CLIENT_DISCONNECTED, CLIENT_CLOSED
        except errors.HerdError as failure:
            error = failure
            status, http_status = life.status_of(error, client.started), http_status_of(error, client.started)
        except asyncio.CancelledError:
            error = stopped(life)
            if not life.attempts:
                status, http_status = Status.REJECTED, error.status
            raise
        except Exception as defect:  # a defect of ours must not cost the record of the request
            logger.exception("Request %s met a defect", life.request_id)
            error = errors.Internal(f"internal error ({type(defect).__name__}); the log has request {life.request_id}")
            status, http_status = life.status_of(error, client.started), http_status_of(error, client.started)
        finally:
            self._end(life, life.finished(status, http_status, error))
        if error and not client.gone and not isinstance(error, errors.Stuck):
            with suppress(asyncio.CancelledError):  # the client left while it was told
                await send_error(client, life, error)

    def changed(self, changes: Sequence[FleetChanged]) -> None:
        """The roster changed: tell it, and let those who wait have what is free now."""
        for change in changes:
            self.emit(change)
        self.slots.resize(self.roster.sizes())
        if changes:
            self.slots.replan()
            self.on_change()

    def reap(self) -> None:
        """End the requests that are stuck; called about once a second."""
        for life in self.flights.reap():
            node_id, model = (life.chosen.node_id, life.chosen.model) if life.chosen else (None, None)
            data = {"request_id": life.request_id, "trace_id": life.ids.trace_id}
            self.emit(FleetChanged(life.clock.now(), "zombie_reaped", node_id, model, data))

    async def drain(self, grace_s: float) -> None:
        """Take no more requests, let the running ones end, and after `grace_s` end those that are left."""
        self.stopping = True
        ends = asyncio.get_running_loop().time() + grace_s
        await self.flights.drain(grace_s)
        if self.errands:
            await asyncio.wait(self.errands, timeout=max(0.0, ends - asyncio.get_running_loop().time()))
        if told := [task for task, client in tuple(self.errands.items()) if client.end(errors.Internal(STOPPED))]:
            await asyncio.wait(told, timeout=LAST_WORDS_S)

    def _begin(self, endpoint: Endpoint, client: Client) -> Life:
        request_id = self.request_ids.take(client.named.get("x-request-id", ""))
        life = Life(request_id, self.new_ids(client.named.get("traceparent")), endpoint, client.address, self.policy)
        self.flights.add(life, client)
        return life

    def _end(self, life: Life, event: Finished) -> None:
        self.flights.remove(life)
        if event.status is Status.INCOMPLETE and event.chosen:
            self.emit(
                StreamBroken(event.request_id, event.ids.trace_id, event.chosen.node_id, event.chosen.model,
                             event.error_type or "", event.error_message or "")
            )  # fmt: skip
        self.emit(event)
        self.roster.learn(event, life.mark, life.busy)

    async def _run(self, life: Life, client: Client) -> None:
        body = await client.body(self.settings.count("body_limit_mb") * 2**20)
        parsed = parse(life.endpoint, body, client.named, client.address, self.roster.spelled)
        life.request = parsed.request
        if parsed.document.get("fallback_models") is None:  # an empty list says that no other model will do
            life.request = with_equivalents(parsed.request, self.settings.text("equivalent_models"))
        self.roster.asked(life.request.model, life.clock.now())
        life.dropped_tags, life.parameters = parsed.dropped_tags, parsed.parameters
        async with client.watched():
            if self.stopping:
                raise errors.NoNode(STOPPING, STOPPING_RETRY_S)
            if not self._decide(life).plan and await self.pulls.supply(life, parsed.model_as_asked):
                self._decide(life)
            if not life.decision or not life.decision.plan:
                raise refusal(life, parsed.model_as_asked)
            await self._try_nodes(life, client, parsed, body)

    def _decide(self, life: Life) -> Decision:
        assert life.request is not None
        began = life.clock.now()
        life.fleet = self._fleet(life, began)
        life.decision = decide(life.request, life.fleet, life.policy)
        life.decision_s = life.clock.now() - began
        return life.decision

    async def _try_nodes(self, life: Life, client: Client, parsed: Parsed, body: bytes) -> None:
        assert life.decision is not None
        assert life.request is not None
        excluded: frozenset[str] = frozenset()
        while True:
            candidate = await self._wait_for_slot(life, excluded)
            place, held_from = Place(candidate.node_id, candidate.model), life.clock.now()
            judged = False  # what a client breaks off says nothing of the node
            probe = self.roster.probing(candidate.node_id, candidate.model, held_from)
            self._give(life, candidate, waits=False)
            try:
                await self._attempt(life, client, parsed, candidate, body)
                judged = True
                return
            except errors.AttemptError as error:
                judged = True
                excluded |= {candidate.node_id}
                if error.retryable:
                    excluded |= self._gone_since(life)
                will_retry = self._may_retry(life, client, error, excluded, probe)
                failed = life.attempts[-1]
                self.emit(AttemptFailed(life.request_id, life.ids.trace_id, failed, will_retry, life.budget_spent))
                if not will_retry:
                    raise
                life.retrying = True
            finally:
                life.mark, life.busy = self.roster.ended(candidate.node_id, life.request_id, life.clock.now())
                self.slots.release(place, life.clock.now() - held_from)
                if judged and (changes := self.roster.attempted(life.attempts[-1], life.clock.now())):
                    self.changed(changes)

    def _gone_since(self, life: Life) -> frozenset[str]:
        """The nodes of the plan to which a new request would not go any more: what was decided stays decided."""
        assert life.request is not None
        assert life.decision is not None
        fleet = self._fleet(life, life.clock.now())
        open_now = {(candidate.node_id, candidate.model) for candidate in decide(life.request, fleet, life.policy).plan}
        plan = life.decision.plan
        return frozenset(each.node_id for each in plan if (each.node_id, each.model) not in open_now)

    def _fleet(self, life: Life, now: float) -> Fleet:
        assert life.request is not None
        return self.roster.snapshot(life.request, now, life.request_id)

    def _give(self, life: Life, candidate: Candidate, waits: bool) -> None:
        """Tell the roster that a request goes to a node now, or waits for it."""
        assert life.request is not None
        assert life.fleet is not None
        there = job(life.request_id, life.request, candidate, life.fleet, waits)
        self.roster.begun(candidate.node_id, there, life.clock.now())
        life.on_first = lambda at: self.roster.answered(candidate.node_id, life.request_id, at)

    async def _wait_for_slot(self, life: Life, excluded: frozenset[str]) -> Candidate:
        assert life.request is not None
        assert life.decision is not None

        waits_for: Place | None = None

        def wait_for(places: tuple[Place, ...]) -> tuple[Place, ...]:
            nonlocal waits_for
            if waits_for:
                self.roster.ended(waits_for.node_id, life.request_id, life.clock.now())
            waits_for = None
            if places and not self.slots.any_free(places):
                waits_for = places[0]
                assert life.decision is not None
                self._give(life, _chosen(life.decision, waits_for), waits=True)
            return places

        def plan_again() -> tuple[Place, ...]:
            return wait_for(_places(self._decide(life), excluded))

        places = wait_for(_places(life.decision, excluded))
        waits_from = None if self.slots.any_free(places) else life.clock.now()
        try:
            place = await self.slots.acquire(life.request.model, life.request.client, places, plan_again)
        finally:
            if waits_for:
                self.roster.ended(waits_for.node_id, life.request_id, life.clock.now())
            if waits_from is not None:
                life.waited(waits_from)
        return _chosen(life.decision, place)

    def _may_retry(
        self, life: Life, client: Client, error: errors.AttemptError, excluded: frozenset[str], probe: bool
    ) -> bool:
        assert life.decision is not None
        left = any(candidate.node_id not in excluded for candidate in life.decision.plan)
        few = len(life.attempts) <= self.settings.count("retries")
        may = error.retryable and not client.started and left and few
        # Whose request tried out a node for all others shall not pay for it; there is one such request at a time.
        return may and (probe or not self._budget_spent(life))

    def _budget_spent(self, life: Life) -> bool:
        # When everything fails, retries would multiply the load by the number of nodes just when there is least room.
        retrying = sum(1 for other in self.flights if other.retrying and other is not life)
        allowed = max(LEAST_RETRIES, self.settings.number("retry_budget_pct") / 100 * len(self.flights))
        life.budget_spent = retrying >= allowed
        return life.budget_spent

    async def _attempt(self, life: Life, client: Client, parsed: Parsed, candidate: Candidate, body: bytes) -> None:
        assert life.request is not None
        assert life.fleet is not None
        node = next(node for node in life.fleet.nodes if node.node_id == candidate.node_id)
        span_id = new_span_id()
        mode = self.settings.text("context_protection")
        life.context = protect(life.request, node, candidate.model, mode, life.fleet.nodes)
        payload, strip = for_node(
            body, parsed, life.endpoint, candidate.model, loaded_instead(life.context, mode),
            # llama.cpp tells without being asked, and asked it would tell its clients less: its timings move.
            self.settings.flag("usage_in_streams") and node.engine != "llamacpp",
        )  # fmt: skip
        if life.context:
            self.emit(ContextProtected(life.request_id, life.ids.trace_id, life.context))
        headers = request_headers(client.headers, life.ids, span_id)
        relay = Relay(life, client, Limits.of(self.settings, candidate.loaded), strip)
        life.begin_attempt(candidate, node.url, span_id)
        error: errors.AttemptError | None = None
        try:
            await relay.run(self.upstream, headers, payload)
        except errors.AttemptError as failure:
            error = failure
            raise
        finally:
            life.end_attempt(error)


def _chosen(decision: Decision, place: Place) -> Candidate:
    return next(c for c in decision.plan if (c.node_id, c.model) == (place.node_id, place.model))


def _places(decision: Decision, excluded: frozenset[str]) -> tuple[Place, ...]:
    return tuple(Place(candidate.node_id, candidate.model) for candidate in open_to(decision.plan, excluded))
