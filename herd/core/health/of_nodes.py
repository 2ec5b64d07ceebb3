"""Checks of one node at a time: availability, memory, disk, use, clock and version."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from herd.core.finding import Finding, Severity
from herd.core.health.amounts import GIB, gib, listed, many, most, percent, sentence, share, shows, span
from herd.core.health.report import HOUR_S, HealthReport, NodeFacts

ROOMY = 100 * GIB  # a disk with this much free space is never low, however large it is
SPILL = 0.05  # of a model: engines always keep a few tensors in main memory
LEAST_LATELY: Final = 5  # streams in the last hour; fewer do not show that it still is so
LEAST_GAP_S: Final = 0.5  # nobody notices a smaller difference, whatever its ratio
# What to do about late first tokens, by the part with most of the difference.
DRIFTS: Final[Mapping[str, str]] = {
    "queue": "Answers hold their slots longer than expected: `herd traces --node NODE` shows which. A token limit in "
    "the clients shortens them.",
    "load": "Model loads have become slower: check the disk for other load and free space, and whether the models fit "
    "into the file cache.",
    "prefill": "Check the node for other programs or clients that use the engine directly, thermal throttling, a GPU "
    "driver that fell back to the CPU, or fewer slots in the engine than the agent reports.",
}
SOONER: Final = (
    "Herd sends this node fewer requests than it could handle. Predictions adapt within a few dozen answers; if they "
    "do not, the engine may report wrong durations: compare the parts of a request with `herd explain`."
)


def no_node_ready(report: HealthReport) -> Iterator[Finding]:
    """No node can accept requests."""
    if any(node.ready or node.awaited for node in report.nodes):
        return
    states = [f"{node.node_id} {_why_not_ready(node)}" for node in report.nodes]
    yield Finding(
        "no_node_ready",
        Severity.CRITICAL,
        "No node can accept requests",
        f"{listed(states)}. Every request is rejected." if states else "No node has joined yet.",
        "Start `herd-node` on a machine that runs Ollama or llama.cpp. If it is already running, its `herd-node.jsonl` "
        "shows which router it reports to. `herd undrain NODE` resumes a draining node."
        if states
        else "Start `herd-node` on a machine that runs Ollama or llama.cpp. `herd demo` shows a simulated fleet.",
        data={"nodes": len(report.nodes)},
    )


def _why_not_ready(node: NodeFacts) -> str:
    if not node.here:
        return "has shut down" if node.left else "is offline"
    if not node.reachable:
        return "has no reachable engine"
    return "is draining" if node.draining else "is out of memory"


def node_offline(report: HealthReport) -> Iterator[Finding]:
    """Nodes that have sent no heartbeat for `heartbeat_offline_s` and did not shut down cleanly."""
    for node in report.nodes:
        if node.here or node.left or node.awaited:
            continue
        elsewhere = {model for other in report.nodes if other.here for model in other.models}
        alone = sorted(node.models - elsewhere)
        lost = f" No other node has {listed(alone)}." if alone else ""
        yield Finding(
            "node_offline",
            Severity.CRITICAL,
            f"Node {node.node_id} is offline",
            f"Last heartbeat {span(node.silent_s)} ago. No requests are sent to it.{lost}",
            "Check that the machine is on and `herd-node` is running, and read its log, `herd-node.jsonl`. To remove "
            f"the node for good: `DELETE /fleet/nodes/{node.node_id}` on this router.",
            node_id=node.node_id,
            data={"silent_s": round(node.silent_s, 1), "models_only_there": alone},
        )


def node_degraded(report: HealthReport) -> Iterator[Finding]:
    """Nodes with late heartbeats, an unreachable engine, failing attempts or memory pressure."""
    for node in report.nodes:
        reasons = list(_worries(report, node)) if node.here else []
        if reasons:
            yield Finding(
                "node_degraded",
                Severity.WARNING,
                f"Node {node.node_id} is degraded",
                sentence("; ".join(reasons)),
                f"`herd status` shows its memory and engine, `herd traces --tried {node.node_id}` the requests with a "
                "failed attempt there. Restart its engine if it does not answer; free memory if pressure is high; look "
                "at the network between it and the router if heartbeats are late.",
                node_id=node.node_id,
                data={
                    "reasons": reasons,
                    "pressure": node.pressure,
                    "silent_s": round(node.silent_s, 1),
                    **_failed_there(report, node),
                },
            )


def _worries(report: HealthReport, node: NodeFacts) -> Iterator[str]:
    if node.silent_s >= report.threshold("heartbeat_degraded_s"):
        yield f"last heartbeat {span(node.silent_s)} ago"
    if not node.reachable:
        yield f"engine unreachable ({node.engine_error or 'no reason given'})"
    if node.pressure != "normal":
        yield f"the operating system reports memory pressure `{node.pressure}`"
    for tries in report.past.tries:
        failing = share(tries.failed, tries.attempts) * 100 > report.threshold("health_node_errors_pct")
        if tries.node_id == node.node_id and failing and tries.attempts >= report.threshold("health_min_requests"):
            yield (
                f"{tries.failed} of {many(tries.attempts, 'attempt')} in the last hour failed "
                f"({percent(share(tries.failed, tries.attempts))})"
            )


def _failed_there(report: HealthReport, node: NodeFacts) -> dict[str, Any]:
    tries = next((each for each in report.past.tries if each.node_id == node.node_id and each.failed), None)
    return {"shows": shows(tries.failed, "attempt", report.at - HOUR_S, tried=node.node_id)} if tries else {}


def memory_pressure(report: HealthReport) -> Iterator[Finding]:
    """Nodes whose memory is almost full, or whose VRAM is too small for their models."""
    warning, critical = (report.threshold(f"health_memory_{name}_pct") / 100 for name in ("warning", "critical"))
    for node in report.nodes:
        used = {"memory": (node.memory_total - node.memory_available, node.memory_total)}
        tight = {name: pair for name, pair in used.items() if node.here and pair[1] and share(*pair) >= warning}
        reasons = list(_too_little_vram(report, node)) if node.here and node.vram_total else []
        if reasons:
            tight["VRAM"] = (node.vram_used, node.vram_total)
        if not tight:
            continue
        worst = max(share(*pair) for pair in tight.values())
        told = [f"{gib(part)} of {gib(whole)} {name} in use ({percent(share(part, whole))})"
                for name, (part, whole) in tight.items()]  # fmt: skip
        yield Finding(
            "memory_pressure",
            Severity.CRITICAL if worst >= critical else Severity.WARNING,
            f"{node.node_id} is short of {' and '.join(tight)}",
            f"{'; '.join([*told, *reasons])}. Loaded: {listed([each.model for each in node.loaded]) or 'nothing'}.",
            "Unload models that are not needed (`ollama stop MODEL` on the node), lower OLLAMA_MAX_LOADED_MODELS, "
            "OLLAMA_NUM_PARALLEL or the models' num_ctx, or move a model to a node with more memory.",
            node_id=node.node_id,
            data={name: {"used_bytes": part, "total_bytes": whole} for name, (part, whole) in tight.items()},
        )


def _too_little_vram(report: HealthReport, node: NodeFacts) -> Iterator[str]:
    """Signs of too little VRAM; VRAM full of models is normal."""
    for loaded in node.loaded:
        if loaded.spilled > SPILL * loaded.size:
            yield f"{gib(loaded.spilled)} of {loaded.model} did not fit and run on the CPU"
    for tries in report.past.tries:
        if tries.node_id == node.node_id and tries.out_of_memory:
            yield f"{many(tries.out_of_memory, 'attempt')} in the last hour ran out of memory"


def underutilized_node(report: HealthReport) -> Iterator[Finding]:
    """Healthy nodes that hold requested models but served no requests."""
    known_s = report.threshold("health_idle_h") * 3600
    busy = {each.node_id for each in report.past.served} | {tries.node_id for tries in report.past.tries}
    for node in report.nodes:
        if node.status != "online" or node.draining or node.in_flight or node.known_s < known_s or node.node_id in busy:
            continue
        asked: Counter[str] = Counter()
        for each in report.past.served:
            if each.model in node.models and each.node_id is not None:
                asked[each.model] += each.requests
        if asked.total() >= report.threshold("health_min_requests"):
            yield Finding(
                "underutilized_node",
                Severity.INFO,
                f"Node {node.node_id} is idle",
                f"No requests in 24 h, while other nodes served {many(asked.total(), 'request')} for models "
                f"that it also has ({most(asked.items())}).",
                "`herd explain REQUEST_ID` of such a request shows why other nodes scored better: usually a cold "
                "model, low memory or failed attempts. Load the model there, or use the machine for something else.",
                node_id=node.node_id,
                data={"asked_of_others": dict(asked)},
            )


def version_mismatch(report: HealthReport) -> Iterator[Finding]:
    """Nodes whose agent version differs from the router's."""
    for node in report.nodes:
        if node.here and node.agent_version and node.agent_version != report.router_version:
            yield Finding(
                "version_mismatch",
                Severity.WARNING,
                f"Node {node.node_id} runs a different version",
                f"herd-node {node.agent_version}, router {report.router_version}.",
                "Install the same version on both (`pip install --upgrade .` from one checkout), then restart both.",
                node_id=node.node_id,
                data={"agent_version": node.agent_version, "router_version": report.router_version},
            )


def node_version_unknown(report: HealthReport) -> Iterator[Finding]:
    """Nodes that do not report the version of their agent or engine."""
    for node in report.nodes:
        silent = [name for name, version in (("agent", node.agent_version), ("engine", node.engine_version))
                  if not version and (name == "agent" or node.reachable)]  # fmt: skip
        if node.here and silent:
            yield Finding(
                "node_version_unknown",
                Severity.INFO,
                f"Node {node.node_id} does not report a version",
                f"Unknown version: {' and '.join(silent)}.",
                "Upgrade the agent. For the engine, see whether it answers `curl http://NODE:11434/api/version`. "
                "Version checks skip this node until then.",
                node_id=node.node_id,
                data={"unknown": silent},
            )


def clock_skew(report: HealthReport) -> Iterator[Finding]:
    """Nodes whose clock differs from the router's."""
    limit = report.threshold("health_clock_skew_s")
    for node in report.nodes:
        if node.here and abs(node.clock_skew_s) > limit:
            way = "ahead of" if node.clock_skew_s > 0 else "behind"
            yield Finding(
                "clock_skew",
                Severity.WARNING,
                f"The clock of {node.node_id} is wrong",
                f"{span(abs(node.clock_skew_s))} {way} the router's clock (limit {span(limit)}).",
                "Enable time synchronisation on the node (`timedatectl set-ntp true`; macOS: Date & Time, set "
                "automatically). Until then its logs and spans do not line up with the router's.",
                node_id=node.node_id,
                data={"clock_skew_s": round(node.clock_skew_s, 2)},
            )


def breaker_open(report: HealthReport) -> Iterator[Finding]:
    """Circuit breakers that keep requests for a model away from a node where it keeps failing."""
    for node in report.nodes:
        for model, state in sorted(node.breakers.items()) if node.here else ():
            yield Finding(
                "breaker_open",
                Severity.WARNING,
                f"Circuit breaker open: {model} on {node.node_id}",
                f"The breaker is {state.replace('_', '-')} because five attempts in a row, or half of the last "
                "twenty, failed.",
                f"`herd traces --node {node.node_id}` shows the errors. Herd retries with a single request at least "
                "once a minute. If that keeps failing, restart the engine.",
                node_id=node.node_id,
                model=model,
                data={"state": state},
            )


def disk_low(report: HealthReport) -> Iterator[Finding]:
    """Disks that are almost full: those that hold models, and the one that holds Herd's records."""
    disks = [(node.node_id, node.disk_total, node.disk_free) for node in report.nodes if node.here]
    for node_id, total, free in (*disks, (None, report.telemetry.disk_total, report.telemetry.disk_free)):
        if not total or free is None or free >= ROOMY:
            continue
        left = share(free, total) * 100
        if left >= report.threshold("health_disk_warning_pct"):
            continue
        critical = left < report.threshold("health_disk_critical_pct")
        yield Finding(
            "disk_low",
            Severity.CRITICAL if critical else Severity.WARNING,
            f"Low disk space on {node_id}" if node_id else "Low disk space on the router",
            f"{gib(free)} of {gib(total)} free ({percent(left / 100)}).",
            "Delete unused models (`ollama rm MODEL`); `herd traces` shows which are in use."
            if node_id
            else "Shorten `retention_days` or `store_limit_mb`, or move the data directory to another disk.",
            node_id=node_id,
            data={"free_bytes": free, "total_bytes": total},
        )


def prediction_drift(report: HealthReport) -> Iterator[Finding]:
    """Nodes whose time to first token has been far from the prediction for six hours, and still is."""
    limit = report.threshold("health_prediction_factor")
    for drift in report.past.drifts:
        few = drift.streams < report.threshold("health_min_requests") or drift.lately < LEAST_LATELY
        if few or abs(drift.seen_s - drift.predicted_s) < LEAST_GAP_S:
            continue
        factors = (drift.factor, drift.factor_lately)
        slower = min(factors) >= limit
        if not slower and max(factors) > 1 / limit:
            continue
        yield Finding(
            "prediction_drift",
            Severity.WARNING,
            f"{drift.node_id} is {'slower' if slower else 'faster'} than predicted",
            f"The median time to first token is {drift.factor:.2g} times the prediction: {drift.seen_s:.1f} s instead "
            f"of {drift.predicted_s:.1f} s ({many(drift.streams, 'stream')} in 6 h; {drift.factor_lately:.2g} times in "
            f"the last hour). Most of the difference is in the {drift.part}.",
            DRIFTS[drift.part] if slower else SOONER,
            node_id=drift.node_id,
            data={"streams": drift.streams, "factor": round(drift.factor, 2), "part": drift.part,
                  "predicted_s": round(drift.predicted_s, 3), "seen_s": round(drift.seen_s, 3)},
        )  # fmt: skip
