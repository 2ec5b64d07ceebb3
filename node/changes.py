"""What changed between two states of an engine, and whether the router should hear of it at once. Pure."""

from typing import Any

from herd import wire

Change = tuple[str, dict[str, Any]]
Essence = tuple[object, ...]


def essence(engine: wire.Engine) -> Essence:
    """What is news at once; two engines with the same essence differ in nothing that cannot wait for the interval.

    `expires_at` moves with every request and is left out, or each request would cause a heartbeat.
    """
    return (
        engine.reachable,
        engine.version,
        engine.slots,
        frozenset((model.name, model.size_bytes, model.context_length) for model in engine.models),
        frozenset((model.name, model.vram_bytes, model.context_length) for model in engine.loaded),
    )


def told(before: wire.Engine | None, after: wire.Engine) -> list[Change]:
    """The changes as log lines: event and fields."""
    changes: list[Change] = []
    if before is None or before.reachable != after.reachable:
        changes.append(_reachability(after))
    if before is None or not (before.reachable and after.reachable):
        return changes
    was, is_now = _names(before.loaded), _names(after.loaded)
    had, has = _names(before.models), _names(after.models)
    for event, names in (
        ("Model loaded", is_now - was),
        ("Model unloaded", was - is_now),
        ("Model added on disk", has - had),
        ("Model removed from disk", had - has),
    ):
        changes += [(event, {"model": name}) for name in sorted(names)]
    return changes


def _reachability(engine: wire.Engine) -> Change:
    if not engine.reachable:
        return "Engine is away", {"error": engine.error}
    return "Engine answers", {
        "engine": engine.kind,
        "version": engine.version,
        "models": len(engine.models),
        "loaded": len(engine.loaded),
        "slots": engine.slots,
    }


def _names(models: list[wire.Model] | list[wire.LoadedModel]) -> set[str]:
    return {model.name for model in models}
