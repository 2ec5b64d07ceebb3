"""`herd plan`: what another node, model, traffic or number of slots would do, from the recorded requests.

It only reads the database, and asks no router. The page's section Plan runs the same command.
"""

import argparse
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import RenderableType

from herd.commands import CommandError, WrongUse
from herd.commands.figures import backtest, error, figure_rows, figures_json, shares_json, verdict
from herd.commands.moments import duration, local
from herd.commands.output import cell, show, show_json, table
from herd.commands.past import Window, options, window
from herd.core.names import canonical_name
from herd.insights.library import LIBRARY
from herd.insights.machines import described
from herd.planning.live import GB
from herd.planning.plan import Beside, Change, NewModel, NewNode, Plan, plan

HEADS: Final = ("", "ACTUAL", "SIMULATED\nBEFORE", "AFTER", "CHANGE", "ERROR")
GROUPS: Final = ("TTFT\nBEFORE", "AFTER", "ERROR", "ANSWER\nBEFORE", "AFTER", "ERROR")
COUNTS: Final = ("REQUESTS\nBEFORE", "AFTER", "LOADS\nBEFORE", "AFTER", "REFUSED\nBEFORE", "AFTER")
NODES: Final = ("NODE", "BUSY BEFORE", "AFTER")
MOST_TAGS: Final = 10
TIMES: Final = re.compile(r"[x×]?(\d+(?:\.\d+)?)")
MOST_TIMES: Final = 100.0
SLOTS: Final = re.compile(r"(?:(?P<node>[^=]+)=)?(?P<slots>[1-9]\d{0,2})")


def run(arguments: argparse.Namespace) -> int:
    """Print the figures before and after; 0 always. CommandError and WrongUse for a change that cannot be."""
    change, words = _change(arguments)
    there = window(arguments)
    try:
        found = plan(there.past, there.site, change, options(arguments))
    except ValueError as wrong:
        raise CommandError(str(wrong)) from wrong
    if arguments.json:
        show_json(_document(words, there, found))
    else:
        show(*_parts(words, there, found))
    return 0


def _change(arguments: argparse.Namespace) -> tuple[Change, list[str]]:
    """The change, and each part of it in words."""
    words = [f"add {text}" for text in arguments.add_node or ()]
    words += [f"remove {text}" for text in arguments.remove_node or ()]
    words += [f"{arguments.share:.0%} of requests to {canonical_name(text)}" for text in arguments.add_model or ()]
    words += [f"traffic × {_times(arguments.traffic):g}"] if arguments.traffic else []
    words += [f"slots {text}" for text in arguments.slots or ()]
    if not words:
        raise WrongUse(
            "nothing to plan: --add-node, --remove-node, --add-model, --traffic or --slots says what changes"
        )
    change = Change(
        tuple(_new_node(text) for text in arguments.add_node or ()),
        tuple(arguments.remove_node or ()),
        tuple(_new_model(text, arguments.share) for text in arguments.add_model or ()),
        _times(arguments.traffic) if arguments.traffic else 1.0,
        dict(_slots(text) for text in arguments.slots or ()),
    )
    return change, words


def _new_node(text: str) -> NewNode:
    try:
        machine, paper = described(text)
    except ValueError as wrong:
        raise WrongUse(f"--add-node: {wrong}") from wrong
    return NewNode(machine.node_id, machine.usable / GB, paper)


def _new_model(text: str, share: float) -> NewModel:
    name = canonical_name(text)
    if not (size := LIBRARY.size_of(name)):
        raise WrongUse(f"--add-model: {text} is not in the catalogue of models, so its size is not known")
    return NewModel(name, size, share)


def _times(text: str) -> float:
    found = TIMES.fullmatch(text.strip())
    if not found or not 0 < float(found[1]) <= MOST_TIMES:
        raise WrongUse(f"--traffic {text}: a factor such as x2 or 0.5, at most {MOST_TIMES:g}")
    return float(found[1])


def _slots(text: str) -> tuple[str | None, int]:
    found = SLOTS.fullmatch(text.strip())
    if not found:
        raise WrongUse(f"--slots {text}: a number for all nodes, or NODE=NUMBER")
    return found["node"], int(found["slots"])


def _parts(words: list[str], there: Window, found: Plan) -> Iterator[RenderableType]:
    requests = there.past.requests
    yield cell(f"Plan: {', '.join(words)}", "bold")
    yield f"{len(requests):,} requests since {local(requests[0].at)} on {len(there.site.machines)} nodes"
    yield verdict(found.all.before, found.all.after, found.all.errors)
    yield ""
    yield table(HEADS, figure_rows(found.was, *found.all), HEADS[1:])
    yield from ("", cell("By model, p95", "bold"), table(("MODEL", *GROUPS), _groups(found.models), GROUPS))
    yield ""
    yield table(("MODEL", *COUNTS), _counts(found.models), COUNTS)
    if len(found.tags) > 1:
        yield from (
            "",
            cell("By tag, p95", "bold"),
            table(("TAG", *GROUPS), list(_groups(found.tags))[:MOST_TAGS], GROUPS),
        )
    yield from ("", cell("Nodes", "bold"), table(NODES, _nodes(found), NODES[1:]))
    yield from ("", cell("Accuracy", "bold"))
    yield from _backtest(found)
    yield from found.notes


def _backtest(found: Plan) -> Iterator[str]:
    return backtest(found.was, found.all.before, found.bias, found.all.errors)


def _groups(groups: Mapping[str, Beside]) -> Iterator[tuple[object, ...]]:
    for name, (before, after, errors) in groups.items():
        yield (
            name, duration(before.ttft_p95_s), duration(after.ttft_p95_s), error(errors.get("ttft_p95_s")),
            duration(before.answer_p95_s), duration(after.answer_p95_s), error(errors.get("answer_p95_s")),
        )  # fmt: skip


def _counts(groups: Mapping[str, Beside]) -> Iterator[tuple[object, ...]]:
    for name, (before, after, _) in groups.items():
        yield name, before.requests, after.requests, before.loads, after.loads, before.refused, after.refused


def _nodes(found: Plan) -> Iterator[tuple[object, ...]]:
    for name, shares in found.busy.items():
        yield (name, *(None if share is None else f"{100 * share:.1f}%" for share in shares))


def _document(words: list[str], there: Window, found: Plan) -> dict[str, Any]:
    return {
        "change": words,
        "window": there.document,
        "verdict": verdict(found.all.before, found.all.after, found.all.errors),
        "actual": figures_json(found.was),
        **_beside(found.all),
        "models": [{"model": name, **_beside(each)} for name, each in found.models.items()],
        "tags": [{"tag": name, **_beside(each)} for name, each in found.tags.items()],
        "nodes": [{"node_id": name, "busy_before": before, "busy_after": after}
                  for name, (before, after) in found.busy.items()],
        "simulated_over_actual": shares_json(found.bias),
        "notes": [*_backtest(found), *found.notes],
    }  # fmt: skip


def _beside(found: Beside) -> dict[str, Any]:
    return {"before": figures_json(found.before), "after": figures_json(found.after),
            "errors": shares_json(found.errors)}  # fmt: skip
