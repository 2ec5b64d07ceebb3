"""What a client is told: the headers that describe the decision, refusals, and errors before and within an answer."""

import re
from collections.abc import Sequence

from herd import errors
from herd.core.routing import Rejection, RejectionReason
from herd.core.why import LEFT_OUT
from herd.dataplane.client import Client, RawHeaders
from herd.dataplane.dialects import error_body, error_frame
from herd.dataplane.life import Life
from herd.telemetry.trace_ids import traceresponse

NOT_FOR_HEADERS = re.compile(r"[^\x21-\x7e]")
BUSY_RETRY_S = 5
NO_NODE_RETRY_S = 10  # two heartbeats: by then a node that comes back has said so


def decision_headers(life: Life) -> RawHeaders:
    """`X-Request-Id`, `traceresponse` and, once a node was chosen, the `X-Herd-…` headers of the answering attempt."""
    headers = [
        (b"x-request-id", life.request_id.encode()),
        (b"traceresponse", traceresponse(life.ids).encode()),
    ]
    if life.chosen and life.request:
        fallback = life.chosen.model != life.request.model
        headers += [
            (b"x-herd-node", life.chosen.node_id.encode()),
            (b"x-herd-model", NOT_FOR_HEADERS.sub("?", life.chosen.model).encode()),
            (b"x-herd-score", f"{life.chosen.score:.2f}".encode()),
            (b"x-herd-fallback", b"true" if fallback else b"false"),
            (b"x-herd-retries", str(max(0, len(life.attempts) - 1)).encode()),
        ]
    return headers


def refusal(life: Life, as_asked: str) -> errors.Refused:
    """Why no node of the fleet can take a request, in words that say what to do."""
    assert life.request is not None
    assert life.fleet is not None
    assert life.decision is not None
    request, fleet, decision = life.request, life.fleet, life.decision
    if not fleet.nodes:
        return no_nodes()
    if all(node.status == "offline" or not node.engine_reachable for node in fleet.nodes):
        return errors.NoNode(f"no engine answers ({_states(decision.rejected)}): start Ollama there", NO_NODE_RETRY_S)
    if not any(node.holds(model) for node in fleet.nodes for model in request.models):
        quote = '"' if request.endpoint.startswith("/api/embed") else "'"
        hint = ", try pulling it first" if request.endpoint.startswith("/api/embed") else ""
        if not any(node.models for node in fleet.nodes):
            hint = f": no node has any model yet, try `ollama pull {as_asked}` on one of them"
        return errors.ModelMissing(f"model {quote}{as_asked}{quote} not found{hint}")
    told = [entry for entry in decision.rejected if entry.reason is not RejectionReason.MODEL_ABSENT]
    return errors.NoNode(f"no node can serve model '{as_asked}' now ({_states(told)})", NO_NODE_RETRY_S)


def no_nodes() -> errors.NoNode:
    """What there is to say before the first heartbeat."""
    return errors.NoNode("no node has joined yet: start `herd-node` beside an Ollama server", NO_NODE_RETRY_S)


def _states(told: Sequence[Rejection]) -> str:
    """The reasons of some nodes, each once."""
    reasons = dict.fromkeys(f"{entry.node_id}: {LEFT_OUT[entry.reason]}" for entry in told)
    return "; ".join(list(reasons)[:8])


async def send_error(client: Client, life: Life, error: errors.HerdError) -> None:
    """Tell the client: an error answer if nothing went out yet, else an error frame within the answer."""
    if client.finished:
        return
    node_id = life.chosen.node_id if life.chosen else None
    if client.started:
        frame = client.last_words
        if frame is None:
            frame = error_frame(life.endpoint, error, client.broken_line, node_id)
        await client.finish(frame)
        return
    headers = decision_headers(life)
    if isinstance(error, errors.AttemptError) and error.answer:
        status, body = error.answer.status, error.answer.body
        headers += error.answer.headers
    else:
        status, body = error.status, error_body(life.endpoint.dialect, error, node_id)
        headers += error_headers(error)
    await client.start(status, [*headers, (b"content-length", str(len(body)).encode())])
    await client.finish(body)


def error_headers(error: errors.HerdError) -> RawHeaders:
    """The headers of an error that herd itself answers."""
    headers: RawHeaders = [(b"content-type", b"application/json")]
    if isinstance(error, errors.Refused) and error.retry_after_s is not None:
        headers.append((b"retry-after", str(error.retry_after_s).encode()))
    if isinstance(error, errors.AttemptError):
        headers.append((b"x-should-retry", b"false"))  # herd tried the other nodes already
    if isinstance(error, errors.UpstreamBusy):
        headers.append((b"retry-after", str(BUSY_RETRY_S).encode()))
    return headers
