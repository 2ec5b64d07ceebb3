"""`herd events`: what happened to the fleet and its router, the latest first; from a database where no router runs."""

import argparse
from collections.abc import Mapping
from typing import Any, Final

from herd.commands.moments import local
from herd.commands.output import show, show_json, table
from herd.commands.records import first_that_knows
from herd.store.fleet_events import EventFilter

HEAD: Final = ("TIME", "EVENT", "NODE", "MODEL", "")

PRIORITY: Final = ("EVENT", "TIME", "NODE", "MODEL", "")


def run(arguments: argparse.Namespace) -> int:
    """Print the latest events that the filters let through."""
    which = EventFilter(since=arguments.since, kinds=arguments.kind, node_id=arguments.node)
    found = first_that_knows(arguments, lambda records: records.events(which, arguments.limit))
    if arguments.json:
        show_json({"events": found})
    elif found:
        show(table(HEAD, [_row(event) for event in found], priority=PRIORITY))
    else:
        show("No matching events.")
    return 0


def _row(event: Mapping[str, Any]) -> tuple[object, ...]:
    told = ", ".join(f"{name} {value}" for name, value in (event["data"] or {}).items() if value is not None)
    return local(event["at"]), event["kind"].replace("_", " "), event["node_id"], event["model"], told
