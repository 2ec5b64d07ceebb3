"""Checks of models: fallbacks, context size, memory, and how often they are loaded and unloaded."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from herd.core.finding import Finding, Severity
from herd.core.health.amounts import GIB, gib, many, most, percent, share, short
from herd.core.health.report import HealthReport, LoadedFacts, NodeFacts, Turnover

WASTE = 1 * GIB  # smaller savings are not worth a reload
LEAST_CONTEXT = 4096  # Ollama's default: with less, the first longer conversation would be truncated


def vram_fallback(report: HealthReport) -> Iterator[Finding]:
    """Requests that a fallback model answered."""
    total = sum(each.requests for each in report.past.served)
    found = sum(each.requests for each in report.past.fallbacks)
    if not found:
        return
    much = share(found, total) * 100 > report.threshold("health_fallback_warning_pct")
    judged = total >= report.threshold("health_min_requests")
    pairs: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for each in report.past.fallbacks:
        pairs[f"{short(each.from_model)} → {short(each.to_model)}"] += each.requests
        reasons[each.reason] += each.requests
    yield Finding(
        "vram_fallback",
        Severity.WARNING if much and judged else Severity.INFO,
        "Requests are answered by a fallback model",
        f"{found:,} of {many(total, 'request')} in 24 h ({percent(share(found, total))}): {most(pairs.items())}.",
        "Load the requested model on a node where it fits (`ollama run MODEL`, with a long keep_alive), or remove "
        "`fallback_models` from the requests. `herd explain REQUEST_ID` shows why the requested model was not used.",
        share=share(found, total),
        data={
            "fallbacks": found,
            "requests": total,
            "pairs": dict(pairs.most_common(20)),
            "reasons": dict(reasons),
        },
    )


def context_protection(report: HealthReport) -> Iterator[Finding]:
    """Requests whose `num_ctx` would have forced a node to reload a model, or did."""
    counts: Counter[str] = Counter()
    models: Counter[str] = Counter()
    for each in report.past.context:
        counts[each.action] += each.count
        models[each.model] += each.count
    if not counts:
        return
    warned = [each for each in report.past.context if each.action == "warned"]
    largest = max(warned, key=lambda each: each.most_asked, default=None)
    told = [f"{count:,} {action}" for action, count in counts.most_common()]
    beyond = (
        f" The largest asked {largest.model} for {largest.most_asked:,} tokens; {largest.least_loaded:,} are loaded. "
        "Each such request forces a reload."
        if largest
        else " None of them caused a reload."
    )
    yield Finding(
        "context_protection",
        Severity.WARNING if largest else Severity.INFO,
        "Requests override the loaded context size",
        f"{many(counts.total(), 'request')} in 24 h with a num_ctx other than the loaded one ({', '.join(told)}), "
        f"by model: {most(models.items())}.{beyond}",
        "Load the model with the context it needs (OLLAMA_CONTEXT_LENGTH, or `PARAMETER num_ctx` in a Modelfile), or "
        "remove num_ctx from the client's settings. `herd logs --grep 'Context protection'` lists them.",
        data={"actions": dict(counts), "models": dict(models.most_common(20))},
    )


def model_thrashing(report: HealthReport) -> Iterator[Finding]:
    """Models that a node repeatedly loads and unloads."""
    limit = report.threshold("health_thrash_loads")
    for each in report.past.turnover:
        if each.loads >= limit and each.unloads >= limit - 1:
            cause, fix = _why_it_thrashes(each)
            yield Finding(
                "model_thrashing",
                Severity.WARNING,
                f"Model thrashing: {each.model} on {each.node_id}",
                f"Loaded {each.loads} times and unloaded {each.unloads} times in the last hour.{cause}",
                fix,
                node_id=each.node_id,
                model=each.model,
                data={"loads": each.loads, "unloads": each.unloads, "context_changes": each.context_changes},
            )


def _why_it_thrashes(each: Turnover) -> tuple[str, str]:
    """The cause, as far as the hour's events show it, and what to do about it."""
    if each.context_changes * 2 >= each.loads:
        return (
            f" {many(each.context_changes, 'request')} in that hour asked for another num_ctx than the loaded one, "
            "which makes the engine reload the model.",
            "Give all clients of this model the same num_ctx, or none; load it with the context they need "
            "(OLLAMA_CONTEXT_LENGTH, or `PARAMETER num_ctx` in a Modelfile). `herd events --kind context_protection "
            f"--node {each.node_id} --since 1h` lists the requests.",
        )
    return (
        "",
        "Too many models compete for the node's memory. If there is room, raise keep_alive or "
        "OLLAMA_MAX_LOADED_MODELS. Otherwise move a model, or delete one that other nodes have.",
    )


def kv_cache_bloat(report: HealthReport) -> Iterator[Finding]:
    """Loaded models that use far more memory than their weights: KV cache grows with context and slots."""
    for node, loaded in _loaded(report):
        if not loaded.weights or loaded.size < report.threshold("health_kv_ratio") * loaded.weights:
            continue
        beside = loaded.size - loaded.weights
        severity = _kv_severity(report, share(beside, node.capacity) * 100)
        if severity:
            yield Finding(
                "kv_cache_bloat",
                severity,
                f"{loaded.model} takes {loaded.size / loaded.weights:.1f} times its weights' size on {node.node_id}",
                f"{gib(loaded.size)} for {gib(loaded.weights)} of weights: {gib(beside)} of KV cache and buffers, "
                f"{percent(share(beside, node.capacity))} of the node's memory"
                + (f", with a context of {loaded.context:,} tokens." if loaded.context else "."),
                "Lower OLLAMA_CONTEXT_LENGTH or the model's num_ctx, or OLLAMA_NUM_PARALLEL (each slot has its own "
                "cache). OLLAMA_FLASH_ATTENTION=1 with OLLAMA_KV_CACHE_TYPE=q8_0 halves the cache.",
                node_id=node.node_id,
                model=loaded.model,
                data={"loaded_bytes": loaded.size, "weights_bytes": loaded.weights, "context": loaded.context},
            )


def _kv_severity(report: HealthReport, pct: float) -> Severity | None:
    for severity in (Severity.CRITICAL, Severity.WARNING, Severity.INFO):
        if pct > report.threshold(f"health_kv_{severity.value}_pct"):
            return severity
    return None


def context_waste(report: HealthReport) -> Iterator[Finding]:
    """Models loaded with a context far larger than any request in 24 h needed."""
    requests: Counter[str | None] = Counter()
    largest: defaultdict[str | None, int] = defaultdict(int)
    for each in report.past.served:
        requests[each.model] += each.requests
        largest[each.model] = max(largest[each.model], each.largest_tokens)
    for node, loaded in _loaded(report):
        used = largest[loaded.model]
        if not used or not loaded.context or requests[loaded.model] < report.threshold("health_min_requests"):
            continue
        if loaded.context < report.threshold("health_context_factor") * used:
            continue
        doubled = 1 << (2 * used - 1).bit_length()  # the next power of two above twice the largest request
        enough = max(LEAST_CONTEXT, doubled)
        saved = (loaded.size - loaded.weights) * (1 - enough / loaded.context) if loaded.weights else 0.0
        if saved >= WASTE:
            yield Finding(
                "context_waste",
                Severity.INFO,
                f"Oversized context: {loaded.model} on {node.node_id}",
                f"Loaded with {loaded.context:,} tokens; the largest of {many(requests[loaded.model], 'request')} in "
                f"24 h used {used:,}. A context of {enough:,} would free about {gib(saved)}.",
                f"Load it with a num_ctx of {enough} (OLLAMA_CONTEXT_LENGTH, or `PARAMETER num_ctx` in a Modelfile).",
                node_id=node.node_id,
                model=loaded.model,
                data={"context": loaded.context, "largest_tokens": used, "enough": enough, "bytes": int(saved)},
            )


def _loaded(report: HealthReport) -> Iterator[tuple[NodeFacts, LoadedFacts]]:
    return ((node, loaded) for node in report.nodes if node.here for loaded in node.loaded)
