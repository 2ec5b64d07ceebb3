"""The seven signals: one pure function each, in a table with its range.

A signal sees one node, one model, the request and the fleet, and gives points. It never removes a node;
`routing` does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log2

from herd.core.fleet import Fleet, Loaded, Node, Traffic
from herd.core.request import Request

GIB = 1024**3
LATELY_S = 600.0  # how long the file cache of an unloaded model is taken to be warm
SMALL_BYTES, LARGE_BYTES = 2 * GIB, 40 * GIB  # the ends of the scale on which a model is small or large
KV_SHARE = 0.10  # what context and buffers take beside the weights, as a share of them
DISK_BYTES_PER_S = 1 * GIB  # a load's speed where none was seen yet
USUAL_TTFT_S = 0.5  # time to the first token where none was seen yet
PATIENCE_S = 10.0  # a wait of this length costs half of `wait_time`'s points


@dataclass(frozen=True, slots=True)
class Case:
    """One node considered for one model."""

    request: Request
    model: str
    node: Node
    fleet: Fleet

    @property
    def loaded(self) -> Loaded | None:
        """The model in this node's memory, or None."""
        return self.node.in_memory(self.model)

    @property
    def traffic(self) -> Traffic:
        """This node's recent work on this model."""
        return self.fleet.traffic_of(self.node.node_id, self.model)

    @property
    def slots(self) -> int:
        """How many requests of this model the node works on at once."""
        return max(1, self.traffic.slots or self.node.slots)

    @property
    def needed(self) -> int:
        """Bytes that loading would take here: 0 if loaded, and 0 if the size is unknown."""
        return 0 if self.loaded else int(self.node.size_of(self.model) * (1 + KV_SHARE))

    @property
    def reclaimable(self) -> int:
        """Bytes that the engine could free by unloading other models."""
        return sum(other.size_bytes for other in self.node.loaded.values() if other is not self.loaded)

    @property
    def predicted_ttft_s(self) -> float:
        """Seconds to the first token if the request went here now: load, then the queue, then its own prefill."""
        seen = self.traffic
        ttft = seen.ttft_s if seen.ttft_s is not None else USUAL_TTFT_S
        ahead = max(0, seen.in_flight + seen.waiting + 1 - self.slots)
        # Where no request has ended yet nothing says that waiting is long: a second load would be a guess.
        hold = seen.hold_s or 0.0
        return self.predicted_load_s + ahead / self.slots * hold + ttft

    @property
    def warm(self) -> bool:
        """Whether the model is in memory here, or on its way there for a request that is in flight."""
        return self.loaded is not None or self.traffic.in_flight > 0

    @property
    def predicted_load_s(self) -> float:
        """Seconds to load the model here: 0 if loaded, the measured time if there is one, else by size."""
        if self.loaded:
            return 0.0
        if self.traffic.load_s is not None:
            return self.traffic.load_s
        return self.node.size_of(self.model) / DISK_BYTES_PER_S


def thermal(case: Case) -> float:
    """0..50: 50 loaded, 25 lately loaded (still in the file cache), 10 on disk; half on a throttling machine."""
    unloaded_at = case.traffic.unloaded_at
    if case.loaded:
        points = 50.0
    elif unloaded_at is not None and case.fleet.at - unloaded_at <= LATELY_S:
        points = 25.0
    else:
        points = 10.0
    return points / 2 if case.node.throttled else points


def memory_fit(case: Case) -> float:
    """0..20: the headroom left with the model loaded; 20 from half of the memory on; 0 where it spills out of VRAM."""
    capacity = case.node.capacity
    if not capacity:
        return 0.0
    left = case.node.free - case.needed
    if left < 0:  # the engine unloads others first, which costs them a reload later: half value
        left = (case.node.free + case.reclaimable - case.needed) // 2
    return 20.0 * _clamp(left / capacity / 0.5)


def queue_depth(case: Case) -> float:
    """-30..0: requests in flight and waiting, relative to slots; -30 at three times the slots."""
    seen = case.traffic
    return -30.0 * _clamp((max(seen.in_flight_node, seen.in_flight) + seen.waiting) / case.slots / 3)


def wait_time(case: Case) -> float:
    """-25..0: the predicted seconds to the first token, t / (t + 10 s) of the points."""
    seconds = case.predicted_ttft_s
    return -25.0 * seconds / (seconds + PATIENCE_S)


def role_affinity(case: Case) -> float:
    """0..25: up to 15 for large model on large machine or small on small, 10 for holding the conversation's cache."""
    largest = max((node.capacity for node in case.fleet.nodes), default=0)
    size = case.node.size_of(case.model)
    points = 7.5
    if largest and size:
        small_to_large = _clamp(log2(max(size, SMALL_BYTES) / SMALL_BYTES) / log2(LARGE_BYTES / SMALL_BYTES))
        points = 15.0 * (1 - abs(small_to_large - case.node.capacity / largest))
    return points + (10.0 if case.loaded and case.fleet.prefix_node == case.node.node_id else 0.0)


def availability_trend(case: Case) -> float:
    """0..10: 4 for being up all day, 3 for no loss in the last hour, 3 for being free at this hour of the week."""
    node = case.node
    return 4.0 * _clamp(node.uptime) + 3.0 / (1 + node.losses) + 3.0 * (1 - _clamp(node.busy_usually))


def context_fit(case: Case) -> float:
    """-15..15: 15 if the loaded context holds the request, -15 if it needs a larger one; 0 where nothing is known."""
    needed = case.request.num_ctx or case.request.prompt_tokens + (case.request.max_tokens or 0)
    model = case.node.models.get(case.model)
    if case.loaded and case.loaded.context_length:
        return 15.0 if needed <= case.loaded.context_length else -15.0
    if model and model.context_length and needed > model.context_length:
        return -15.0
    return 0.0


Signal = Callable[[Case], float]
SIGNALS: dict[str, tuple[Signal, float, float]] = {
    "thermal": (thermal, 0.0, 50.0),
    "memory_fit": (memory_fit, 0.0, 20.0),
    "queue_depth": (queue_depth, -30.0, 0.0),
    "wait_time": (wait_time, -25.0, 0.0),
    "role_affinity": (role_affinity, 0.0, 25.0),
    "availability_trend": (availability_trend, 0.0, 10.0),
    "context_fit": (context_fit, -15.0, 15.0),
}


def _clamp(value: float) -> float:
    return min(1.0, max(0.0, value))
