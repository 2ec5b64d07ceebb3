"""What herd itself says to a client: headers that describe the attempt, refusals, and errors at any point."""

import re
from collections.abc import Sequence

from herd.core import errors
from herd.core.dialects import error_body, error_frame
from herd.core.errors import NO_NODE_RETRY_S
from herd.core.fleet import Fleet
from herd.core.routing import Rejection, RejectionReason
from herd.core.why import LEFT_OUT
from herd.dataplane.client import RawHeaders
from herd.dataplane.flights import Flight
from herd.dataplane.phases import Attempted, Decided, Phase
from herd.dataplane.trace_ids import traceresponse

NOT_FOR_HEADERS = re.compile(r"[^\x21-\x7e]")
BUSY_RETRY_S = 5


def own_headers(phase: Phase) -> RawHeaders:
    """`X-Request-Id`, `traceresponse` and, once a node was tried, the `X-Herd-…` headers of that attempt."""
    received = phase.received
    headers = [
        (b"x-request-id", received.request_id.encode()),
        (b"traceresponse", traceresponse(received.ids).encode()),
    ]
    if isinstance(phase, Attempted):
        candidate = phase.candidate
        fallback = candidate.model != phase.decided.asked.request.model
        headers += [
            (b"x-herd-node", candidate.node_id.encode()),
            (b"x-herd-model", NOT_FOR_HEADERS.sub("?", candidate.model).encode()),
            (b"x-herd-score", f"{candidate.score:.2f}".encode()),
            (b"x-herd-fallback", b"true" if fallback else b"false"),
            (b"x-herd-retries", str(len(phase.attempts) - 1).encode()),
        ]
    return headers


def refusal(decided: Decided) -> errors.Refused:
    """Why no node of the fleet can take a request, in words that say what to do."""
    request, as_asked = decided.asked.request, decided.asked.parsed.model_as_asked
    fleet, decision = decided.choice.fleet, decided.choice.decision
    if not fleet.nodes:
        return no_nodes()
    if all(node.status == "offline" or not node.engine_reachable for node in fleet.nodes):
        return errors.NoNode(
            f"no engine is reachable ({_states(decision.rejected)}): start Ollama there", NO_NODE_RETRY_S
        )
    if not any(node.holds(model) for node in fleet.nodes for model in request.models):
        quote = '"' if request.endpoint.startswith("/api/embed") else "'"
        hint = ", try pulling it first" if request.endpoint.startswith("/api/embed") else ""
        if not any(node.models for node in fleet.nodes):
            hint = f": no node has any model yet, try `ollama pull {as_asked}` on one of them"
        return errors.ModelMissing(f"model {quote}{as_asked}{quote} not found{hint}")
    if kinds := not_spoken(fleet, request.endpoint, request.models):
        others = {path for node in fleet.nodes for path in node.endpoints if node.holds(request.model)}
        hint = ": use /v1/chat/completions" if "/v1/chat/completions" in others else ""
        text = f"model '{as_asked}' is only on {kinds}, which does not support {request.endpoint}"
        return errors.NotSpoken(text + hint)
    told = [entry for entry in decision.rejected if entry.reason is not RejectionReason.MODEL_ABSENT]
    return errors.NoNode(f"no node can serve model '{as_asked}' now ({_states(told)})", NO_NODE_RETRY_S)


def not_spoken(fleet: Fleet, endpoint: str, models: Sequence[str]) -> str:
    """The engines that hold a model, where none of them supports the endpoint; empty where one does, or none holds it.

    Waiting does not help then, whatever state the nodes are in.
    """
    holders = [node for node in fleet.nodes if any(node.holds(model) for model in models)]
    if any(endpoint in node.endpoints for node in holders):
        return ""
    return ", ".join(dict.fromkeys(node.engine for node in holders))


def no_nodes() -> errors.NoNode:
    """What there is to say before the first heartbeat."""
    return errors.NoNode("no node has joined yet: start `herd-node` on a machine that runs Ollama", NO_NODE_RETRY_S)


def _states(told: Sequence[Rejection]) -> str:
    """The reasons of some nodes, each once."""
    reasons = dict.fromkeys(f"{entry.node_id}: {LEFT_OUT[entry.reason]}" for entry in told)
    return "; ".join(list(reasons)[:8])


async def send_error(flight: Flight, error: errors.HerdError) -> None:
    """Tell the client: an error answer if nothing went out yet, else an error frame within the answer."""
    client, phase = flight.client, flight.phase
    if client.finished:
        return
    endpoint = phase.received.endpoint
    node_id = phase.candidate.node_id if isinstance(phase, Attempted) else None
    if client.started:
        frame = client.last_words
        if frame is None:
            frame = error_frame(endpoint, error, client.broken_line, node_id)
        await client.finish(frame)
        return
    headers = own_headers(phase)
    if isinstance(error, errors.AttemptError) and error.answer:
        status, body = error.answer.status, error.answer.body
        headers += error.answer.headers
    else:
        status, body = error.status, error_body(endpoint.dialect, error, node_id)
        headers += error_headers(error)
    await client.answer(status, headers, body)


def error_headers(error: errors.HerdError) -> RawHeaders:
    """The headers of an error that herd itself answers."""
    headers: RawHeaders = [(b"content-type", b"application/json")]
    if isinstance(error, errors.Refused) and error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if isinstance(error, errors.AttemptError | errors.NotSpoken | errors.Cancelled):
        headers.append((b"x-should-retry", b"false"))  # herd tried the other nodes already, or nothing is to be tried
    if isinstance(error, errors.UpstreamBusy):
        headers.append((b"retry-after", str(BUSY_RETRY_S).encode()))
    return headers
