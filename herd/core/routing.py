"""Where a request goes: `decide` leaves out the nodes that cannot, predicts the rest, and ranks them.

It must not log, read a clock or roll dice: the same request, fleet and policy give the same decision, today and in a
replay.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from math import floor
from typing import NamedTuple
from zlib import crc32

from herd.core.fleet import Fleet, Node
from herd.core.request import Request
from herd.core.signals import SIGNALS, Case, Outlook, outlook
from herd.core.value import value
from herd.core.work import Job


class Reason(StrEnum):
    """Why the first of the plan is the first."""

    MODEL_LOADED = "model_loaded"
    LEAST_LOADED = "least_loaded"
    AFFINITY = "affinity"
    ONLY_CANDIDATE = "only_candidate"
    FALLBACK = "fallback"
    RETRY = "retry"
    COLD = "cold"


class RejectionReason(StrEnum):
    """Why a node was left out before scoring."""

    OFFLINE = "offline"
    ENGINE_DOWN = "engine_down"
    ENDPOINT_UNSUPPORTED = "endpoint_unsupported"
    MODEL_ABSENT = "model_absent"
    DRAINING = "draining"
    BREAKER_OPEN = "breaker_open"
    CRITICAL_PRESSURE = "critical_pressure"
    DOES_NOT_FIT = "does_not_fit"
    EXCLUDED = "excluded"


@value
class Policy:
    """The operator's rules for deciding.

    `loaded_fallback`: a fallback that the client named is taken when it is loaded and the model asked for is not.
    `salt` orders candidates that are as good as each other; where it differs from router to router and request to
    request, routers that know the same do not all choose the same. 0: the smaller node_id.
    """

    loaded_fallback: bool = True
    salt: int = 0


class Predicted(NamedTuple):
    """Seconds that a request would spend at a node: until it has a slot, loading, on its prompt, on its answer."""

    queue_s: float
    load_s: float
    prefill_s: float
    decode_s: float

    @property
    def ttft_s(self) -> float:
        """Seconds to the first token."""
        return self.queue_s + self.load_s + self.prefill_s


@value
class Candidate:
    """One node that can answer with one model: its seven signals and their sum in seconds, the smallest first.

    `predicted_ttft_s` is what its client would wait for the first token, so without what the choice costs others.
    `loaded`: the model is in its memory; `warm`: it is, or a request in flight there is loading it; `evicts`: the
    models that a load would put out.
    """

    node_id: str
    model: str
    signals: dict[str, float]
    total: float
    loaded: bool
    predicted_ttft_s: float
    warm: bool = False
    predicted: Predicted | None = None
    evicts: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The negative total, so that higher is better."""
        return 0.0 - self.total


@value
class Rejection:
    """One node that cannot answer with one model, and why."""

    node_id: str
    model: str
    reason: RejectionReason


@value
class Decision:
    """The ranked plan (retry is the next entry), and every node left out with its reason.

    `reason` says why the first is the first; None where the plan is empty.
    """

    plan: tuple[Candidate, ...] = ()
    rejected: tuple[Rejection, ...] = ()
    reason: Reason | None = None
    fallback_reason: str | None = field(default=None)


Jobs = Mapping[tuple[str, str], Job]  # by node and model
DEFAULT_POLICY = Policy()
TIE_S = 0.01  # what no prediction can tell apart: engines' own times vary by more
PARTS = 10_000  # of a second: what is stored is rounded to them before it is summed, so that a stored total adds up


def decide(
    request: Request, fleet: Fleet, policy: Policy = DEFAULT_POLICY, excluded: frozenset[str] = frozenset()
) -> Decision:
    """Rank the nodes for a request; `excluded` nodes failed an earlier attempt of it.

    Where breakers alone stand in the way, the best of those nodes is tried rather than the request refused.
    """
    return decide_jobs(request, fleet, policy, excluded)[0]


def decide_jobs(
    request: Request, fleet: Fleet, policy: Policy = DEFAULT_POLICY, excluded: frozenset[str] = frozenset()
) -> tuple[Decision, Jobs]:
    """The same, with the job that the request would be for each candidate: what its node's `Work` is told."""
    decision, jobs = _decide(request, fleet, policy, excluded, heed_breakers=True)
    if not decision.plan and any(entry.reason is RejectionReason.BREAKER_OPEN for entry in decision.rejected):
        return _decide(request, fleet, policy, excluded, heed_breakers=False)
    return decision, jobs


def _decide(
    request: Request, fleet: Fleet, policy: Policy, excluded: frozenset[str], heed_breakers: bool
) -> tuple[Decision, Jobs]:
    candidates: dict[str, list[Candidate]] = {}
    rejected: list[Rejection] = []
    jobs: dict[tuple[str, str], Job] = {}
    models = request.models
    for model in models:
        ranked = candidates.setdefault(model, [])
        for node in fleet.nodes:
            case = Case.of(request, model, node, fleet)
            reason = rejection(case, excluded, heed_breakers)
            if reason:
                rejected.append(Rejection(node.node_id, model, reason))
            else:
                seen = outlook(case)
                ranked.append(score(seen))
                jobs[node.node_id, model] = seen.job
        candidates[model] = _ranked(ranked, policy)
    order = _order_of_models(models, candidates, policy)
    plan = tuple(candidate for model in order for candidate in candidates[model])
    if rejected:
        places = {model: place for place, model in enumerate(models)}
        rejected.sort(key=lambda entry: (places[entry.model], entry.node_id))
    decision = Decision(plan, tuple(rejected), _reason(request, plan), _fallback_reason(request, plan, candidates))
    return decision, jobs


def rejection(case: Case, excluded: frozenset[str] = frozenset(), heed_breakers: bool = True) -> RejectionReason | None:
    """The first reason for which a node cannot answer with a model, or None."""
    node = case.node
    if node.status == "offline":
        return RejectionReason.OFFLINE
    if not node.engine_reachable:
        return RejectionReason.ENGINE_DOWN
    if not node.holds(case.model):
        return RejectionReason.MODEL_ABSENT
    if case.request.endpoint not in node.endpoints:
        return RejectionReason.ENDPOINT_UNSUPPORTED
    if node.node_id in excluded:
        return RejectionReason.EXCLUDED
    return _for_now(case, heed_breakers)


def _for_now(case: Case, heed_breakers: bool) -> RejectionReason | None:
    node = case.node
    if node.draining:
        return RejectionReason.DRAINING
    if heed_breakers and case.traffic.breaker_open:
        return RejectionReason.BREAKER_OPEN
    if node.pressure == "critical":
        return RejectionReason.CRITICAL_PRESSURE
    return RejectionReason.DOES_NOT_FIT if case.loaded is None and _does_not_fit(case) else None


def ready(node: Node) -> bool:
    """Whether new requests may go to a node at all: what `rejection` asks of the node, whatever the model."""
    return node.status != "offline" and node.engine_reachable and not node.draining and node.pressure != "critical"


def score(seen: Outlook) -> Candidate:
    """The seven signals of one node for one model, in whole `PARTS` of a second."""
    case = seen.case
    signals, total = {}, 0.0
    for name, signal in SIGNALS.items():
        seconds = signal(seen)
        if seconds:
            seconds = floor(seconds * PARTS + 0.5) / PARTS
            total += seconds
        signals[name] = seconds
    queue_s, work_s, first_s, _ = seen.times
    return Candidate(
        case.node.node_id,
        case.model,
        signals,
        floor(total * PARTS + 0.5) / PARTS,
        case.loaded is not None,
        floor((first_s + seen.reload_s) * PARTS) / PARTS,
        case.warm,
        Predicted(
            floor(queue_s * PARTS) / PARTS,
            floor((work_s - queue_s + seen.reload_s) * PARTS) / PARTS,
            floor((first_s - work_s) * PARTS) / PARTS,
            floor(seen.decode_s * PARTS) / PARTS,
        ),
        seen.job.victims,
    )


def open_to(plan: tuple[Candidate, ...], excluded: frozenset[str] = frozenset()) -> Candidate | None:
    """The candidate whose slot a request may take now, or waits for: the best of those left.

    The prediction has the wait for its slot in it, and the loads of others. So a request waits for a loaded node as
    long as that is sooner, many requests for a cold model cause one load, and a second node loads it only once the
    first cannot keep up.
    """
    for candidate in plan:
        if candidate.node_id not in excluded:
            return candidate
    return None


def _ranked(candidates: list[Candidate], policy: Policy) -> list[Candidate]:
    """Best first; those that no prediction can tell from the best go by the policy's salt, or by their names."""
    candidates.sort(key=lambda candidate: (candidate.total, candidate.node_id))
    if len(candidates) < 2:
        return candidates
    ties = bisect_right(candidates, candidates[0].total + TIE_S, key=lambda candidate: candidate.total)
    if ties > 1:
        candidates[:ties] = sorted(candidates[:ties], key=lambda candidate: _chance(candidate, policy))
    return candidates


def _chance(candidate: Candidate, policy: Policy) -> tuple[int, str]:
    # A checksum alone keeps neighbours together; the multiplication (Knuth's) carries its low bits up.
    salted = crc32(f"{policy.salt} {candidate.node_id}".encode()) * 2_654_435_761 % 2**32 if policy.salt else 0
    return salted, candidate.node_id


def _does_not_fit(case: Case) -> bool:
    # An unknown size is never refused: only the engine knows, and it says so itself.
    node = case.node
    room = node.vram_free + node.memory_available + case.reclaimable
    return bool(node.memory_total) and case.needed > room


def _order_of_models(
    models: tuple[str, ...], candidates: dict[str, list[Candidate]], policy: Policy
) -> tuple[str, ...] | list[str]:
    """The model asked for first, unless only a fallback that the client named is loaded."""
    if len(models) == 1:
        return models
    order = list(models)
    if policy.loaded_fallback and not any(entry.loaded for entry in candidates[models[0]]):
        loaded = [model for model in order if any(entry.loaded for entry in candidates[model])]
        order = loaded[:1] + [model for model in order if model not in loaded[:1]]
    return order


def _reason(request: Request, plan: tuple[Candidate, ...]) -> Reason | None:
    if not plan:
        return None
    first = plan[0]
    rivals = [entry for entry in plan[1:] if entry.model == first.model]
    if first.model != request.model:
        return Reason.FALLBACK
    if not rivals:
        return Reason.ONLY_CANDIDATE
    if not first.loaded:
        return Reason.COLD
    if not any(rival.loaded for rival in rivals):
        return Reason.MODEL_LOADED
    warm = next(rival for rival in rivals if rival.loaded)
    gains = {name: warm.signals[name] - first.signals[name] for name in first.signals}
    return Reason.AFFINITY if max(gains, key=lambda name: gains[name]) == "role_affinity" else Reason.LEAST_LOADED


def _fallback_reason(
    request: Request, plan: tuple[Candidate, ...], candidates: dict[str, list[Candidate]]
) -> str | None:
    if not plan or plan[0].model == request.model:
        return None
    return "loaded_alternative" if candidates[request.model] else "model_unavailable"
