"""Commands that every node concerned carries out at once: unload a model, delete it. They take no slot and never wait.

It sends one request to several nodes and collects their answers; what becomes of them is the caller's.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from herd.core import errors
from herd.core.clock import Clock
from herd.core.errors import NodeAnswer
from herd.core.events import Attempt, Managed, TraceIds
from herd.core.fleet import Fleet, Node
from herd.core.placement import can_manage
from herd.core.routing import Candidate
from herd.core.signals import SIGNALS
from herd.dataplane.client import Client
from herd.dataplane.exchange import ERROR_BODY_LIMIT, Call, Upstream, status_error
from herd.dataplane.frames import told_in
from herd.dataplane.headers import RawHeaders, request_headers, response_headers
from herd.dataplane.phases import Decided
from herd.dataplane.trace_ids import new_span_id

UNLOADING: Final = frozenset({"/api/generate", "/api/chat"})
NOUGHT: Final = re.compile(r"[+-]?0+(\.0*)?(ns|us|µs|ms|s|m|h)?")


@dataclass(frozen=True, slots=True)
class Told:
    """What one node said to a command: its answer, or the error in its place."""

    node: Node
    attempt: Attempt
    answer: NodeAnswer | None = None
    error: errors.AttemptError | None = None

    @property
    def done(self) -> bool:
        """Whether the node carried the command out."""
        return self.answer is not None and self.answer.status < 400


@dataclass(frozen=True, slots=True)
class Command:
    """One request for several nodes; `due_s` seconds for each of them to answer it whole."""

    method: str
    path: str
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    model: str
    ids: TraceIds
    clock: Clock
    due_s: float

    async def carry_out(self, upstream: Upstream, nodes: Iterable[Node]) -> list[Told]:
        """Ask all of these nodes at once; their answers in the same order."""
        return await asyncio.gather(*(self._tell(upstream, node) for node in nodes))

    async def _tell(self, upstream: Upstream, node: Node) -> Told:
        url, span_id, began = node.url + self.path, new_span_id(), self.clock.now()
        attempt = Attempt(1, node.node_id, self.model, url, span_id, began, began)
        call = Call(self.method, url, request_headers(self.headers, self.ids, span_id), self.body)
        due_at = asyncio.get_running_loop().time() + self.due_s
        answer: NodeAnswer | None = None
        error: errors.AttemptError | None = None
        try:
            async with upstream.exchange(call, due_at) as came:
                said, _ = await came.read_limited(ERROR_BODY_LIMIT)
                answer = NodeAnswer(came.status, response_headers(came.headers), said)
            if answer.status >= 400:
                error = status_error(answer.status, told_in(said))
        except errors.AttemptError as failure:
            error = failure
        status = answer.status if answer else None
        ended = replace(attempt, ended_at=self.clock.now(), http_status=status)
        if error is not None:
            ended = replace(ended, error_type=error.error_type, error_message=error.message)
        return Told(node, ended, answer, error)


def spokesman(told: Sequence[Told], all_must: bool) -> Told:
    """Whose answer the client gets: the first that did it, or where `all_must` the first that did not."""
    return next((each for each in told if each.done is not all_must), told[0])


def named(headers: RawHeaders, told: Iterable[Told]) -> RawHeaders:
    """The headers with the names of all nodes that carried the command out."""
    names = ", ".join(each.node.node_id for each in told if each.done).encode()
    kept = [header for header in headers if header[0] != b"x-herd-node"]
    return [*kept, (b"x-herd-node", names)] if names else kept


def also(request_id: str, ids: TraceIds, endpoint: str, told: Told, client: Client) -> Managed:
    """The event of a further node that was told to carry a command out; `ids` are those of the request."""
    attempt, own = told.attempt, replace(ids, span_id=new_span_id(), parent_span_id=ids.span_id)
    status = told.answer.status if told.answer else told.error.status if told.error else 500
    return Managed(
        request_id, own, endpoint, attempt.model, attempt.node_id, status, attempt.started_at,
        attempt.ended_at, attempt.error_type, attempt.error_message, client.method, client.path, client.address or None,
        attempt,
    )  # fmt: skip


def is_unload(path: str, document: Mapping[str, Any]) -> bool:
    """Whether a request only puts its model out of memory, as `ollama stop` asks: no prompt, and kept for no time."""
    if path not in UNLOADING or document.get("prompt") or document.get("messages"):
        return False
    kept = document.get("keep_alive")
    if isinstance(kept, str):
        return NOUGHT.fullmatch(kept.strip()) is not None
    return type(kept) in {int, float} and kept == 0


def unload_from(fleet: Fleet, path: str, model: str) -> list[Node]:
    """The nodes that have a model in memory; where none has it, one that could have, to answer as engines do."""
    able = [node for node in fleet.nodes if can_manage(node, path)]
    return [node for node in able if node.in_memory(model)] or [node for node in able if node.holds(model)][:1]


def candidate_of(decided: Decided, node: Node, model: str) -> Candidate:
    """A node as the decision saw it, or as no decision did: draining, say, which keeps no model in its memory."""
    plan = decided.choice.decision.plan
    found = next((each for each in plan if (each.node_id, each.model) == (node.node_id, model)), None)
    return found or Candidate(node.node_id, model, dict.fromkeys(SIGNALS, 0.0), 0.0, True, 0.0)
