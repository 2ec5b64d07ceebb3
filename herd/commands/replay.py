"""`herd replay`: the requests of the past under today's policy, another one, or other settings, in virtual time.

It only reads the database, and asks no router.
"""

import argparse
from collections.abc import Iterator
from typing import Any, Final

from rich.console import RenderableType

from herd.commands.figures import backtest, figure_rows, figures_json, shares_json, verdict
from herd.commands.moments import duration, local
from herd.commands.output import cell, show, show_json, table
from herd.commands.past import Window, options, window
from herd.planning.replay import Replay, replay

HEADS: Final = ("", "ACTUAL", "SIMULATED\nAS IT WAS", "REPLAYED", "CHANGE", "ERROR")
MODELS: Final = ("MODEL", "REQUESTS", "MOVED", "FIRST TOKEN\nP95 WAS", "REPLAYED", "LOADS\nWERE", "REPLAYED")
MOVES: Final = ("FROM", "TO", "REQUESTS")
MOST_MOVES: Final = 10


def run(arguments: argparse.Namespace) -> int:
    """Print what would have gone elsewhere, and what it would have gained; 0 always: this measures only."""
    rules = options(arguments)
    there = window(arguments)
    found = replay(there.past, there.site, arguments.policy, rules)
    if arguments.json:
        show_json(_document(arguments.policy, there, found))
    else:
        show(*_parts(arguments, there, found))
    return 0


def _parts(arguments: argparse.Namespace, there: Window, found: Replay) -> Iterator[RenderableType]:
    requests, moved = there.past.requests, sum(found.moved.values())
    with_settings = f" with {', '.join(arguments.set)}" if arguments.set else ""
    yield cell(
        f"{len(requests):,} requests since {local(requests[0].at)} under {arguments.policy}{with_settings}", "bold"
    )
    yield verdict(found.before, found.after, found.errors)
    yield f"{moved:,} of {found.after.requests:,} would have gone to another node."
    yield ""
    yield table(HEADS, figure_rows(found.was, found.before, found.after, found.errors), HEADS[1:])
    yield from ("", cell("By model", "bold"), table(MODELS, _models(found), MODELS[1:]))
    if found.moved:
        yield from ("", cell("Moves", "bold"), table(MOVES, _moves(found), MOVES[2:]))
    yield from ("", cell("Accuracy", "bold"))
    yield from backtest(found.was, found.before, found.bias, found.errors)
    yield from notes(there, found)


def _models(found: Replay) -> Iterator[tuple[object, ...]]:
    for name, (before, after, moved) in found.models.items():
        yield (name, after.requests, moved, duration(before.ttft_p95_s), duration(after.ttft_p95_s), before.loads,
               after.loads)  # fmt: skip


def _moves(found: Replay) -> Iterator[tuple[object, ...]]:
    ranked = sorted(found.moved.items(), key=lambda pair: (-pair[1], pair[0]))
    yield from ((here, to, count) for (here, to), count in ranked[:MOST_MOVES])


def notes(there: Window, found: Replay) -> Iterator[str]:
    """What it does not know, in sentences."""
    if there.past.left_out:
        yield f"{there.past.left_out:,} earlier requests are left out; --limit includes more."
    if found.traffic.assumed:
        yield f"{found.traffic.assumed:,} requests have no recorded length; the median of their model is used."
    if found.away:
        yield f"{found.away:,} were served by nodes that are no longer known; here the other nodes serve them."
    if unserved := len(there.past.requests) - len(found.traffic.arrivals):
        yield f"{unserved:,} asked for models that no known node holds; they are left out."
    yield "Cached prompts count as cached on every node; fallbacks and retries are not simulated."


def _document(policy: str, there: Window, found: Replay) -> dict[str, Any]:
    return {
        "policy": policy,
        "window": there.document,
        "moved": sum(found.moved.values()),
        "moves": [{"from": here, "to": to, "request_count": count} for (here, to), count in found.moved.items()],
        "actual": figures_json(found.was),
        "before": figures_json(found.before),
        "after": figures_json(found.after),
        "errors": shares_json(found.errors),
        "simulated_over_actual": shares_json(found.bias),
        "models": [
            {"model": name, "moved": moved, "before": figures_json(before), "after": figures_json(after)}
            for name, (before, after, moved) in found.models.items()
        ],
        "verdict": verdict(found.before, found.after, found.errors),
        "notes": [*backtest(found.was, found.before, found.bias, found.errors), *notes(there, found)],
    }
