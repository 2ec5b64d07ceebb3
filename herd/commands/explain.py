"""`herd explain`: one request's life, every candidate and every node left out, and the decision made again.

It shows what is stored; that the replay agrees is `decide`'s own word, not this file's.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import RenderableType

from herd.commands.moments import duration, milliseconds
from herd.commands.output import cell, show, show_json, table
from herd.commands.records import first_that_knows
from herd.core.signals import SIGNALS

Document = Mapping[str, Any]
SECONDS: Final = (*(name.upper().replace("_", "\n") for name in SIGNALS), "TOTAL")
SCORED: Final = ("", "PREDICTED", "ACTUAL", "DIFFERENCE")
PHASES: Final = {"queue": "queue", "load": "load", "prefill": "prompt", "decode": "answer"}
LEFT_OUT: Final = ("NODE", "MODEL", "WHY")


def run(arguments: argparse.Namespace) -> int:
    """Print everything about a request; 1 where the stored decision is not what `decide` says today."""
    found = first_that_knows(arguments, lambda records: records.one(arguments.request_id))
    if arguments.json:
        show_json(found)
    else:
        show(*_parts(found))
    return 1 if found["decision"] is not None and found["decision"]["replays"] is False else 0


def _parts(found: Document) -> Iterator[RenderableType]:
    yield cell(f"Request {found['request_id']}", "bold")
    yield from _summary(found)
    if found["predicted_queue_ms"] is not None:
        yield from ("", cell("Predicted and actual", "bold"), table(SCORED, _scored(found), SCORED[1:]))
    yield from ("", cell("Life", "bold"))
    yield table(("AT", "AFTER", ""), _life(found), ("AFTER",))
    decision = found["decision"]
    if decision is None:
        yield from ("", f"No decision: {found['decision_missing']}.")
        return
    yield from ("", cell("Decision", "bold"), decision["why"])
    if decision["plan"]:
        yield from ("", table(("", "NODE", "MODEL", "LOADED", "PREDICTED\nTTFT", *SECONDS), _plan(found), SECONDS))
    if decision["rejected"]:
        yield from ("", cell("Left out", "bold"), table(LEFT_OUT, _left_out(decision["rejected"])))
    yield ""
    yield from _replay(decision)


def _summary(found: Document) -> Iterator[str]:
    served = f"{found['model']} on {found['node_id']}" if found["node_id"] else "by no node"
    fallback = f" (fallback: {found['fallback_reason']})" if found["fallback_used"] else ""
    asked = f"{found['original_model'] or 'no model'} at {found['endpoint']}"
    lines = {
        "status": f"{found['status']}, HTTP {found['http_status']}, after {milliseconds(found['latency_ms'])}",
        "error": " ".join(f"{found['error_type']}: {found['error_message']}".split()) if found["error_type"] else None,
        "asked": f"{asked}, streamed" if found["stream"] else asked,
        "tried" if found["status"] in {"failed", "rejected"} else "answered": f"{served}{fallback}",
        "tokens": _tokens(found),
        "herd took": milliseconds(found["overhead_ms"]),
        "tags": ", ".join(found["tags"]) if found["tags"] else None,
        "trace": found["trace_id"],
    }
    return (f"  {name:<10}{text}" for name, text in lines.items() if text is not None)


def _scored(found: Document) -> Iterator[tuple[object, ...]]:
    """Each part of the request as it was foreseen when it came, and as it was."""
    parts = [(words, found[f"predicted_{name}_ms"], found[f"{name}_ms"]) for name, words in PHASES.items()]
    first = ("first token", found["predicted_ttft_ms"], found["time_to_first_token_ms"])
    for words, predicted, seen in (*parts[:3], first, *parts[3:]):
        off = None if seen is None else f"{'+' if seen >= predicted else '-'}{milliseconds(abs(seen - predicted))}"
        yield words, milliseconds(predicted), milliseconds(seen), off


def _tokens(found: Document) -> str | None:
    counts = [
        (found["prompt_tokens"], "in", found["cached_tokens"], "from the cache"),
        (found["completion_tokens"], "out", found["reasoning_tokens"], "of thought"),
    ]
    told = ", ".join(
        f"{count} {word}" + (f", {part} of them {which}" if part is not None else "")
        for count, word, part, which in counts
        if count is not None
    )
    return f"{told} ({found['tokens_source']})" if told else None


def _life(found: Document) -> list[tuple[object, ...]]:
    """What happened when, in the order of time."""
    began = found["timestamp"]
    moments = [
        (began, f"received from {found['client_ip'] or 'an unknown address'}"),
        *_waiting(found),
        *(moment for attempt in found["attempts"] for moment in _attempt(attempt)),
        (found["finished_at"], f"end: {found['status']}"),
    ]
    moments.sort(key=lambda moment: moment[0])
    return [(_clock(at), f"+{duration(max(0.0, at - began))}", " ".join(text.split())) for at, text in moments]


def _waiting(found: Document) -> Iterator[tuple[float, str]]:
    if found["queue_ms"]:
        until = found["attempts"][0]["started_at"] if found["attempts"] else found["finished_at"]
        began = max(found["timestamp"], until - found["queue_ms"] / 1000)
        yield began, f"waiting for a slot, {milliseconds(found['queue_ms'])} in total"


def _attempt(attempt: Document) -> Iterator[tuple[float, str]]:
    name = f"attempt {attempt['number']}"
    again = ", on a fresh connection" if attempt["reconnected"] else ""
    yield attempt["started_at"], f"{name}: {attempt['model']} on {attempt['node_id']}{again}"
    if attempt["first_content_at"] is not None:
        yield attempt["first_content_at"], f"{name}: first content"
    if attempt["error_type"]:
        yield attempt["ended_at"], f"{name} failed, {attempt['error_type']}: {attempt['error_message']}"
    else:
        yield attempt["ended_at"], f"{name}: answered, HTTP {attempt['http_status']}"


def _plan(found: Document) -> Iterator[tuple[object, ...]]:
    for entry in found["decision"]["plan"]:
        chosen = (entry["node_id"], entry["model"]) == (found["node_id"], found["model"])
        seconds = (f"{entry['signals'][name]:.2f}" for name in SIGNALS)
        yield (
            "→" if chosen else "",
            cell(entry["node_id"], "bold" if chosen else ""),
            entry["model"],
            "yes" if entry["loaded"] else "no",
            duration(entry["predicted_ttft_s"]),
            *seconds,
            f"{entry['total']:.2f}",
        )


def _left_out(rejected: Sequence[Document]) -> Iterator[tuple[object, ...]]:
    for entry in rejected:
        yield entry["node_id"], entry["model"], entry["why"]


def _replay(decision: Document) -> Iterator[str]:
    if decision["replays"] is None:
        yield f"Recorded by an older version whose signals were {decision['unit']}, highest first."
        return
    if decision["replays"]:
        yield "replayed: same plan"
        return
    yield "replayed: NOT the same plan. `decide` says today:"
    again = decision["replayed"]
    for what in ("plan", "rejected", "reason", "fallback_reason"):
        if again[what] != decision[what]:
            yield f"  {what}: {_told(decision[what])} stored, {_told(again[what])} replayed"


def _told(value: object) -> str:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return str(value)
    entries = (f"{each['node_id']}/{each['model']} {each.get('total', each.get('reason'))}" for each in value)
    return ", ".join(entries) or "nothing"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%H:%M:%S.%f")[:-3]
