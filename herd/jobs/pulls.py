"""Automatic pulls of models that no node has: one pull for all waiting requests, reported as events.

A pull belongs to nobody: who leaves ends his own waiting only, and the model comes for the next one. Where it may go
is `core.placement`'s to say.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from herd.core import errors
from herd.core.clock import moment
from herd.core.dialects import dump
from herd.core.events import Event, FleetChanged
from herd.core.fleet import Node
from herd.core.library import is_library_name
from herd.core.placement import PULL, best_room, no_room, obstacle
from herd.dataplane.document import object_in
from herd.dataplane.exchange import Answer, Call, Upstream
from herd.dataplane.headers import JSON
from herd.dataplane.phases import Asked, Decided
from herd.dataplane.replies import refusal
from herd.fleet.cell import Cell
from herd.settings.values import Settings

MOST_AT_ONCE = 4  # each is a download of gigabytes that any client can start
RETRY_AFTER_S = 60
SILENCE_S = 600.0  # an engine says nothing while it checks the digest of what came
LISTED_WITHIN_S = 30.0  # several heartbeats
LOOK_EVERY_S = 0.05
FAILED_FOR_S = 60.0  # how long a node's "no such model" or "no room" holds: clients ask again and again
MOST_FAILED = 1000
TOLD_EVERY_PCT = 10
LINE_LIMIT = 1024 * 1024


class PullFailed(Exception):
    """A pull came to nothing; the text says why."""


@dataclass(slots=True)
class Pull:
    """One model on its way to one node; `layers` has bytes completed and total by digest, `waiting` counts requests.

    `started_at` is the event loop's time.
    """

    model: str
    node: Node
    started_at: float
    task: "asyncio.Task[str | None]" = field(init=False)
    status: str = "starting"
    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    waiting: int = 0
    told_pct: int = 0

    @property
    def completed(self) -> int:
        """Bytes that are there."""
        return sum(completed for completed, _ in self.layers.values())

    @property
    def total(self) -> int:
        """Bytes that were announced so far."""
        return sum(total for _, total in self.layers.values())

    def view(self) -> dict[str, Any]:
        """What `GET /fleet/status` shows."""
        return {
            "model": self.model,
            "node_id": self.node.node_id,
            "completed": self.completed,
            "total": self.total,
            "status": self.status,
            "waiting": self.waiting,
        }


class Pulls:
    """Every pull that herd started on its own; the setting `auto_pull` says whether it may."""

    def __init__(self, settings: Settings, cell: Cell, upstream: Upstream, emit: Callable[[Event], None]) -> None:
        self._settings = settings
        self._cell = cell
        self._upstream = upstream
        self._emit = emit
        self._under_way: dict[str, Pull] = {}
        self._failed: dict[str, tuple[float, str]] = {}

    def view(self) -> list[dict[str, Any]]:
        """Pulls in progress, oldest first."""
        return [pull.view() for pull in self._under_way.values()]

    def supply(self, decided: Decided) -> Awaitable[Asked] | None:
        """Fetch the model that a request asks for and no node has; None where that is not what keeps it from a node.

        The answer is the request under the name that the model has then. Raises ModelMissing with the node's own
        reason where the pull fails, QueueFull where too much is pulled already.
        """
        asked = decided.asked
        if not self._settings.flag("auto_pull") or not is_library_name(asked.request.model):
            return None
        if not isinstance(refusal(decided), errors.ModelMissing):
            return None
        # Engines find names in any case, so whoever writes one otherwise waits for the same download.
        same = (name for name in self._under_way if name.lower() == asked.request.model.lower())
        model = next(same, asked.request.model)
        try:
            pull = self._pull_of(model)
        except PullFailed as failure:
            raise _missing(asked, str(failure)) from None
        return self._come(pull, replace(asked, request=replace(asked.request, model=model)))

    async def close(self) -> None:
        """End all pulls; the engines keep what came, and go on from there when asked again."""
        tasks = [pull.task for pull in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pull_of(self, model: str) -> Pull:
        """The pull of a model, begun here where there is none yet; raises PullFailed where there can be none."""
        until, reason = self._failed.get(model, (0.0, ""))
        if until > _now():
            raise PullFailed(reason)
        pull = self._under_way.get(model) or self._start(model)
        if pull.waiting >= self._settings.count("queue_limit"):
            raise errors.QueueFull(f"{pull.waiting} requests already wait for the pull of {model}", RETRY_AFTER_S)
        return pull

    async def _come(self, pull: Pull, asked: Asked) -> Asked:
        pull.waiting += 1
        try:
            failure = await asyncio.shield(pull.task)
        finally:
            pull.waiting -= 1
        if failure:
            raise _missing(asked, failure)
        return asked

    def _start(self, model: str) -> Pull:
        if len(self._under_way) >= MOST_AT_ONCE:
            raise errors.QueueFull(f"{MOST_AT_ONCE} other models are already being pulled", RETRY_AFTER_S)
        fleet, expected = self._cell.fleet(moment()), self._expected()
        node = best_room(fleet, expected)
        if node is None:
            words = (f"{node.node_id}: {obstacle(node, expected[node.node_id])}" for node in fleet.nodes[:8])
            raise PullFailed(f"no node has room for it ({'; '.join(words)})")
        pull = self._under_way[model] = Pull(model, node, _now())
        pull.task = asyncio.create_task(self._run(pull))
        pull.task.add_done_callback(lambda _: self._ended(pull))
        return pull

    def _ended(self, pull: Pull) -> None:
        """Forget a pull, also one that was cancelled before its first step."""
        if self._under_way.get(pull.model) is pull:
            del self._under_way[pull.model]

    async def _run(self, pull: Pull) -> str | None:
        """Pull, and wait until the model is listed; returns why it failed, None where it did not."""
        limit_s = self._settings.number("auto_pull_timeout_s")
        reason: str | None = "internal error; the log has it"
        self._tell("pull_started", pull)
        try:
            async with asyncio.timeout(limit_s):
                await self._download(pull)
                await self._listed(pull)
            reason = None
        except TimeoutError:
            reason = f"it took longer than {limit_s:g} s (setting auto_pull_timeout_s)"
        except errors.AttemptError as error:
            reason = error.message
        except PullFailed as failure:
            reason = str(failure)
            self._remember(pull.model, reason)
        except asyncio.CancelledError:
            reason = "the router stopped"
            raise
        finally:
            self._ended(pull)
            if reason is None:
                self._tell("pull_finished", pull, seconds=round(_now() - pull.started_at, 3))
            else:
                self._tell("pull_failed", pull, reason=reason)
        return reason

    async def _download(self, pull: Pull) -> None:
        body = dump({"model": pull.model, "stream": True})
        call = Call("POST", pull.node.url + PULL, (JSON,), body)
        async with self._upstream.exchange(call, _due()) as answer:
            async for document in _documents(answer):
                self._follow(pull, document)
        if pull.status != "success":
            raise PullFailed("the pull ended before the model was complete")

    def _follow(self, pull: Pull, said: dict[str, Any]) -> None:
        """Take in one line of progress."""
        if "error" in said:
            raise PullFailed(str(said["error"])[:500])
        pull.status = str(said.get("status") or pull.status)[:200]
        digest, total, completed = said.get("digest"), said.get("total"), said.get("completed", 0)
        if not (isinstance(digest, str) and isinstance(total, int) and isinstance(completed, int)):
            return
        before = pull.total
        pull.layers[digest] = (completed, total)
        if pull.total > before:
            self._check_room(pull)
        percent = 100 * pull.completed // max(1, pull.total)
        if percent >= pull.told_pct + TOLD_EVERY_PCT:
            pull.told_pct = percent - percent % TOLD_EVERY_PCT
            self._tell("pull_progress", pull, percent=percent)

    def _check_room(self, pull: Pull) -> None:
        entry = self._cell.entries.get(pull.node.node_id)
        node = entry.node if entry else pull.node
        expected = self._expected(but=pull.model)[node.node_id]
        if reason := no_room(node, pull.total, pull.completed, expected):
            raise PullFailed(reason)

    async def _listed(self, pull: Pull) -> None:
        """Wait for the heartbeat that names the model: before, no node would be chosen for it."""
        pull.status = "waiting for the node's heartbeat"
        deadline = _now() + LISTED_WITHIN_S
        while not self._cell.knows(pull.model):
            if _now() > deadline:
                raise PullFailed(f"{pull.node.node_id} pulled the model but does not list it")
            await asyncio.sleep(LOOK_EVERY_S)

    def _expected(self, but: str = "") -> defaultdict[str, int]:
        """Bytes that pulls in progress, except one, will still write, by node."""
        left: defaultdict[str, int] = defaultdict(int)
        for pull in self._under_way.values():
            if pull.model != but:
                left[pull.node.node_id] += max(0, pull.total - pull.completed)
        return left

    def _remember(self, model: str, reason: str) -> None:
        now = _now()
        if len(self._failed) >= MOST_FAILED:
            self._failed = {name: failed for name, failed in self._failed.items() if failed[0] > now}
        if len(self._failed) < MOST_FAILED:
            self._failed[model] = (now + FAILED_FOR_S, reason)

    def _tell(self, kind: str, pull: Pull, **more: str | float) -> None:
        data = {"completed": pull.completed, "total": pull.total, "waiting": pull.waiting, **more}
        self._emit(FleetChanged(time.time(), kind, pull.node.node_id, pull.model, data))


async def _documents(answer: Answer) -> AsyncIterator[dict[str, Any]]:
    """The lines of a node's answer as they come; raises PullFailed for what is no JSON object."""
    pending = b""
    while True:
        answer.due_at = _due()
        chunk = await answer.read()
        answer.content_seen = True
        *lines, pending = (pending + chunk).split(b"\n") if chunk else (pending, b"")
        for line in filter(bytes.strip, lines):
            yield _read(line)
        if not chunk:
            return
        if len(pending) > LINE_LIMIT:
            raise PullFailed("the node's answer is not line-delimited")


def _now() -> float:
    """The event loop's time, by which pulls are measured and bounded: the wall clock jumps."""
    return asyncio.get_running_loop().time()


def _due() -> float:
    return _now() + SILENCE_S


def _missing(asked: Asked, reason: str) -> errors.ModelMissing:
    return errors.ModelMissing(f"model '{asked.parsed.model_as_asked}' not found, and it cannot be pulled: {reason}")


def _read(line: bytes) -> dict[str, Any]:
    document = object_in(line)
    if document is None:
        raise PullFailed(f"unexpected pull progress from the node: {line[:80]!r}")
    return document
