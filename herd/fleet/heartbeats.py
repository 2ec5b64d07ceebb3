"""From the wire to the core: what a heartbeat says as a frozen Node, and what changed between two of them."""

from collections.abc import Mapping

from pydantic import JsonValue

from herd import wire
from herd.core.events import FleetChanged
from herd.core.fleet import Loaded, Model, Node


def node_from(heartbeat: wire.Heartbeat) -> Node:
    """The node that a heartbeat describes; its status is the roster's to set."""
    engine, memory = heartbeat.engine, heartbeat.memory
    separate = [gpu for gpu in heartbeat.gpus if gpu.kind != "apple"]  # Apple's memory is the machine's own
    vram_total = sum(gpu.memory_total_bytes for gpu in separate)
    return Node(
        node_id=heartbeat.node_id,
        url=engine.url.rstrip("/"),
        engine=engine.kind,
        engine_reachable=engine.reachable,
        endpoints=frozenset(engine.endpoints),
        slots=engine.slots,
        draining=heartbeat.draining,
        throttled=heartbeat.cpu.throttled or any(gpu.throttled for gpu in heartbeat.gpus),
        pressure=memory.pressure,
        memory_total=memory.total_bytes,
        memory_available=memory.available_bytes,
        vram_total=vram_total,
        vram_free=max(0, vram_total - sum(gpu.memory_used_bytes for gpu in separate)),
        disk_free=heartbeat.disk.free_bytes if heartbeat.disk else 0,
        models={
            (name := wire.canonical_name(model.name)): Model(name, model.size_bytes, model.context_length)
            for model in engine.models
        },
        loaded={
            (name := wire.canonical_name(model.name)): Loaded(
                name, model.size_bytes, model.vram_bytes, model.context_length, model.expires_at
            )
            for model in engine.loaded
        },
        same_as=_other_names(engine),
    )


def _other_names(engine: wire.Engine) -> dict[str, str]:
    # Ollama's `cp`, or `m:3b` beside `m:latest`: one digest, one runner, listed under the name that loaded it.
    loaded = {
        str(digest): wire.canonical_name(each.name) for each in engine.loaded if (digest := each.entry.get("digest"))
    }
    named = ((wire.canonical_name(model.name), str(model.entry.get("digest"))) for model in engine.models)
    return {name: loaded[digest] for name, digest in named if digest in loaded and loaded[digest] != name}


def model_from(listed: dict[str, JsonValue], known: Mapping[str, wire.Model]) -> wire.Model:
    """A model as Ollama lists it; its context length is taken over from what was known, since listings have none.

    Raises ValueError where the listing is not of the form.
    """
    name, size = str(listed.get("name")), listed.get("size")
    context_length = known[name].context_length if name in known else None
    return wire.Model(
        name=name, size_bytes=size if isinstance(size, int) else 0, context_length=context_length, entry=listed
    )


def changes_between(before: Node, after: Node, leaving: bool, now: float) -> list[FleetChanged]:
    """The events that tell one state of a node from its next."""
    node_id = after.node_id
    if leaving:
        return [FleetChanged(now, "node_left", node_id)] if before.status != "offline" else []
    changes = []
    if before.status != after.status:
        changes.append(FleetChanged(now, "node_degraded" if after.status == "degraded" else "node_back", node_id))
    if before.engine_reachable != after.engine_reachable:
        changes.append(FleetChanged(now, "engine_back" if after.engine_reachable else "engine_lost", node_id))
    if before.draining != after.draining:
        changes.append(FleetChanged(now, "drain_changed", node_id, data={"draining": after.draining}))
    if not after.engine_reachable:
        return changes  # an engine that is away lists nothing; that says nothing of its models
    for kind, names in (
        ("model_added", after.models.keys() - before.models.keys()),
        ("model_removed", before.models.keys() - after.models.keys()),
        ("model_loaded", after.loaded.keys() - before.loaded.keys()),
        ("model_unloaded", before.loaded.keys() - after.loaded.keys()),
    ):
        changes += [FleetChanged(now, kind, node_id, name) for name in sorted(names)]
    return changes
