"""From what the store knows of the past to a simulation of it: arrivals, machines as they were, and what was learned.

A row says how long a request took, not who was at work beside it: that is worked out from when the others began and
ended. What a row does not know is assumed, and counted.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import median
from typing import Final

from herd.core import learning
from herd.core.fleet import Node
from herd.core.learning import USUAL_ANSWER, Observation, Speeds
from herd.core.observed import in_one_piece
from herd.core.signals import KV_SHARE
from herd.fleet.heartbeats import node_from
from herd.planning.arrivals import Arrival
from herd.planning.engine import Machine, Speed
from herd.planning.live import GB, KEEP_ALIVE_S, Learned
from herd.store.recorded import Past, Recorded
from herd.wire import Heartbeat

USUAL_PROMPT: Final = 500  # tokens, where nothing was seen
LATEST: Final = 7e9  # unix seconds, far in the next century: what expires later is kept for good
MODELS_PER_GPU: Final = 3  # OLLAMA_MAX_LOADED_MODELS
LEAST_S: Final = 1e-6
Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Site:
    """A fleet as it was: its machines in virtual time, and what a router had learned of each.

    `measured` holds the pairs of node and model that were seen at work; the others go by data sheets.
    """

    machines: tuple[Machine, ...]
    learned: Mapping[str, Learned]
    measured: frozenset[Pair]

    @property
    def models(self) -> frozenset[str]:
        """Every model that any machine holds."""
        return frozenset(name for machine in self.machines for name in machine.models)


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests of the past as arrivals; `assumed` counts those whose lengths are not on record."""

    arrivals: tuple[Arrival, ...]
    assumed: int = 0


def traffic(past: Recorded) -> Traffic:
    """The arrivals of a window, from its first request on; an unknown length is the middle one of its model."""
    prompts, answers = (_middles(past.requests, name) for name in ("prompt_tokens", "completion_tokens"))
    first = past.requests[0].at if past.requests else 0.0
    assumed, arrivals = 0, []
    for row, each in enumerate(past.requests):
        unknown = each.prompt_tokens is None or (each.completion_tokens is None and each.status != "completed")
        assumed += unknown
        prompt = prompts.get(each.model, USUAL_PROMPT) if each.prompt_tokens is None else each.prompt_tokens
        answer = answers.get(each.model, USUAL_ANSWER) if unknown else each.completion_tokens or 0
        cached = min(each.cached_tokens or 0, int(prompt) - 1)  # a cache that served it then is taken to serve it again
        arrivals.append(Arrival(each.at - first, each.model, int(prompt) - max(0, cached), int(answer), each.stream,
                                each.tag, row=row))  # fmt: skip
    return Traffic(tuple(arrivals), assumed)


def site(past: Recorded, heartbeats: Iterable[Heartbeat], on_paper: Callable[[Heartbeat], learning.Machine]) -> Site:
    """The nodes that are still known, with the speeds that the rows show."""
    seen = observations(past.requests)
    loaded, most = dict(past.loaded), dict(past.most_loaded)
    nodes: list[tuple[Node, Learned]] = []
    gpus: dict[str, int] = {}
    for heartbeat in heartbeats:
        node = node_from(heartbeat)
        gpus[node.node_id] = len(heartbeat.gpus)
        speeds = {model: told for (node_id, model), told in seen.items() if node_id == node.node_id}
        nodes.append((node, _learned(node, on_paper(heartbeat), speeds)))
    peers = [learned.machine for _, learned in nodes]
    known = {node.node_id: replace(learned, machine=learned.machine.among(peers)) for node, learned in nodes}
    made = []
    for node, learned in nodes:
        models = {**node.models, **node.loaded, **learned.speeds}
        machine = _machine(node, known[node.node_id], models, loaded.get(node.node_id, ()))
        limit = _most_loaded(node, gpus[node.node_id], most.get(node.node_id, 0))
        made.append(replace(machine, most_loaded=limit))
    measured = frozenset(pair for pair in seen if pair[0] in known)
    return Site(tuple(made), known, measured)


def observations(requests: Sequence[Past]) -> dict[Pair, list[Observation]]:
    """By node and model: what each answer says of its speeds, in the order of their ends."""
    nodes: defaultdict[str, list[Past]] = defaultdict(list)
    for each in requests:
        if each.node_id and each.status == "completed" and each.started_at is not None and each.ended_at is not None:
            nodes[each.node_id].append(each)
    found: defaultdict[Pair, list[Observation]] = defaultdict(list)
    for node_id, group in nodes.items():
        busy = _Busy(group)
        for each in sorted(group, key=lambda each: each.ended_at or 0.0):
            if told := _observed(each, busy):
                found[node_id, each.model].append(told)
    return dict(found)


class _Busy:
    """How many requests were at work on one node, as the sum over time of all their lives."""

    def __init__(self, requests: Iterable[Past]) -> None:
        steps: list[tuple[float, int]] = []
        for each in requests:
            ended = each.ended_at or 0.0
            began = (each.started_at or 0.0) + (each.load_s or 0.0)  # who waits for a load computes nothing
            steps += ((min(began, ended), 1), (ended, -1))
        self._edges: list[float] = []
        self._sums: list[float] = []
        self._counts: list[int] = []
        total, count, before = 0.0, 0, 0.0
        for moment, change in sorted(steps):
            total += count * (moment - before)
            count, before = count + change, moment
            self._edges.append(moment)
            self._sums.append(total)
            self._counts.append(count)

    def others(self, since: float, until: float) -> float:
        """How many others were at work between two moments, on average."""
        return max(0.0, (self._sum(until) - self._sum(since)) / (until - since) - 1) if until > since else 0.0

    def _sum(self, at: float) -> float:
        place = bisect_right(self._edges, at) - 1
        return self._sums[place] + self._counts[place] * (at - self._edges[place]) if place >= 0 else 0.0


def _observed(each: Past, busy: _Busy) -> Observation | None:
    """What one answer says; None where neither the router saw nor the engine told how its time was spent."""
    assert each.started_at is not None
    assert each.ended_at is not None
    began = each.started_at + (each.load_s or 0.0)
    prompt = (each.prompt_tokens or 0) - (each.cached_tokens or 0)
    seen = Observation(load_s=each.load_s if each.cold else None, prompt_tokens=prompt,
                       answer_tokens=each.completion_tokens or 0)  # fmt: skip
    if each.stream and each.first_at is not None:
        first = each.first_at
        if in_one_piece(each.completion_tokens, each.ended_at - first):
            return None
        return replace(
            seen, prompt_s=max(0.0, first - began), prompt_others=busy.others(began, first),
            answer_s=each.ended_at - first, answer_others=busy.others(first, each.ended_at),
        )  # fmt: skip
    others = busy.others(began, each.ended_at)
    if not each.completion_tokens:  # an embedding is all prompt
        return replace(seen, prompt_s=max(0.0, each.ended_at - began), prompt_others=others)
    if each.prefill_s is None or each.decode_s is None:
        return None
    return replace(
        seen, prompt_s=each.prefill_s, prompt_others=others, answer_s=each.decode_s, answer_others=others
    )  # fmt: skip


def _learned(node: Node, machine: learning.Machine, seen: Mapping[str, Sequence[Observation]]) -> Learned:
    found: dict[str, Speeds] = {}
    for model, answers in seen.items():
        size = node.size_of(model)
        speeds = machine.expects(size)
        for told in answers:
            speeds, machine = speeds.after(told), machine.after(told, size)
        found[model] = speeds
    return Learned(machine, found)


def _machine(node: Node, known: Learned, models: Iterable[str], loaded: Sequence[str]) -> Machine:
    """The machine in virtual time: memory as the heartbeat has it, but at least as much as what was served there."""
    free = (node.free + sum(each.size_bytes for each in node.loaded.values())) / GB
    sizes = {model: _size(node, model) for model in models}
    memory = max([free, *(size for model, size in sizes.items() if model in known.speeds)])
    speeds = {
        model: speed(size, known.speeds.get(model) or known.machine.expects(node.size_of(model)))
        for model, size in sizes.items()
        if size <= memory
    }
    measured = [speeds.pace for speeds in known.speeds.values()]
    return Machine(
        node.node_id,
        memory,
        speeds,
        node.slots or 1,
        _fall([pace.prompt_fall for pace in measured], learning.PROMPT_FALL),
        _fall([pace.token_fall for pace in measured], learning.TOKEN_FALL),
        known.machine.kind,
        (known.machine.bandwidth or 0.0) / GB,
        _keep_alive_s(node),
        tuple(name for name in (loaded or node.loaded) if name in speeds),
    )


def speed(size: float, known: Speeds) -> Speed:
    """A model's speed on a machine in virtual time; `size` in GB."""
    pace = known.pace
    return Speed(size, pace.load_s, 1 / max(pace.prompt_s, LEAST_S), 1 / max(pace.token_s, LEAST_S), pace.start_s)


def _size(node: Node, model: str) -> float:
    there = node.loaded.get(model)
    return (there.size_bytes if there else int((node.size_of(model) or learning.UNKNOWN_SIZE) * (1 + KV_SHARE))) / GB


def _fall(falls: Sequence[float], usual: float) -> float:
    return median(falls) if falls else usual


def _keep_alive_s(node: Node) -> float:
    """How long an idle model stays; engines other than Ollama keep what they were started with."""
    if node.engine != "ollama":
        return inf
    stays = [each.expires_at for each in node.loaded.values() if each.expires_at is not None]
    # Models that stay for good expire in a far year.
    return inf if any(at > LATEST for at in stays) else KEEP_ALIVE_S


def _most_loaded(node: Node, accelerators: int, seen: int) -> float:
    """Models that an engine keeps at a time: Ollama three for each GPU unless told otherwise, which then is seen."""
    return max(MODELS_PER_GPU * max(1, accelerators), seen) if node.engine == "ollama" else inf


def _middles(requests: Iterable[Past], name: str) -> dict[str, float]:
    by_model: defaultdict[str, list[int]] = defaultdict(list)
    for each in requests:
        if (tokens := getattr(each, name)) is not None:
            by_model[each.model].append(tokens)
    return {model: median(tokens) for model, tokens in by_model.items()}
