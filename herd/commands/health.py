"""`herd health`: what needs attention and what to do about it; its exit status is for cron and scripts."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from rich.padding import Padding

from herd.commands import CommandError, WrongUse
from herd.commands.moments import duration, local
from herd.commands.output import cell, show, show_json, table
from herd.commands.places import router_url
from herd.commands.router import RouterAway, ask, tell

Document = Mapping[str, Any]
PATH: Final = "/dashboard/api/health"
WARNING, CRITICAL, UNREACHABLE = 1, 2, 3
ENDS: Final = {"critical": CRITICAL, "warning": WARNING, "info": 0}
BELONGS: Final = {"note": "ack", "hours": "silence"}  # which action an option is of
HOURS: Final = 8.0
STYLES: Final = {"critical": "bold red", "warning": "yellow", "info": ""}


def run(arguments: argparse.Namespace) -> int:
    """Print, or say something of a finding.

    Returns 0 where all is well or only to know, 1 for a warning, 2 for something critical, 3 where no router answers.
    Raises CommandError for an id that is not open, WrongUse for none and for an option that does not belong.
    """
    _only_what_belongs(arguments)
    url = router_url(arguments.url)
    try:
        if arguments.action is not None:
            return _say(arguments, url)
        return _past(arguments, url) if arguments.past else _now(arguments, url)
    except RouterAway as error:
        return _no_router(error)


def _only_what_belongs(arguments: argparse.Namespace) -> None:
    for option, action in BELONGS.items():
        if getattr(arguments, option) is not None and arguments.action != action:
            raise WrongUse(f"--{option} requires `herd health {action} ID`")
    if arguments.past and arguments.action is not None:
        raise WrongUse(f"--past lists resolved findings; it cannot be combined with {arguments.action}")


def _no_router(error: CommandError) -> int:
    print(f"herd: {error}", file=sys.stderr)
    return UNREACHABLE


def _now(arguments: argparse.Namespace, url: str) -> int:
    try:
        document = ask(url, PATH, "health_score")
    except WrongUse:
        raise
    except CommandError as error:
        return _no_router(error)  # whatever answers there: it is no word about the fleet, and 1 would be one
    if arguments.json:
        show_json(document)
    else:
        _print(document, url)
    heard = [entry for entry in document["recommendations"] if not entry["silenced_until"]]
    return max((ENDS[entry["severity"]] for entry in heard), default=0)


def _print(document: Document, url: str) -> None:
    checks, found = document["checks"], document["recommendations"]
    passing = [check["check_id"] for check in checks if check["status"] == "pass"]
    show(f"health {document['health_score']} of 100; {len(passing)} of {len(checks)} checks pass at {url}")
    for entry in found:
        show("", cell(entry["severity"].upper(), STYLES[entry["severity"]]).append_text(cell(f"  {_head(entry)}", "")))
        show(f"  {entry['description']}", f"  {entry['fix']}")
        show(cell(f"  since {local(entry['first_seen'])}, id {entry['id']}, {entry['check_id']}", "dim"))
    unknown = [check["check_id"] for check in checks if check["status"] == "unknown"]
    if unknown:
        show("", f"Unknown, because the database cannot be read: {', '.join(unknown)}")
    if found:
        show(
            "",
            "`herd docs runbook` explains findings; `herd health ack ID` or `silence ID` quiets them",
        )
    if passing:
        show("", Padding(cell(f"Passing: {', '.join(passing)}", "dim"), 0, expand=False))


def _head(entry: Document) -> str:
    notes = [f"acknowledged: {entry['acknowledged']['note'] or 'yes'}"] if entry["acknowledged"] else []
    notes += [f"silenced until {local(entry['silenced_until'])}"] if entry["silenced_until"] else []
    return f"{entry['title']} ({', '.join(notes)})" if notes else str(entry["title"])


def _past(arguments: argparse.Namespace, url: str) -> int:
    document = ask(url, f"{PATH}/findings", "findings", {"state": "resolved"})
    if arguments.json:
        show_json(document)
    elif not document["findings"]:
        show("No resolved findings yet.")
    else:
        show(table(("FROM", "FOR", "SEVERITY", "TITLE", "NOTE"), _rows(document["findings"])))
    return 0


def _rows(findings: Sequence[Document]) -> list[tuple[object, ...]]:
    return [
        (
            local(entry["first_seen"]),
            duration(entry["last_seen"] - entry["first_seen"]),
            entry["severity"],
            entry["title"],
            (entry["acknowledged"] or {}).get("note"),
        )
        for entry in findings
    ]


def _say(arguments: argparse.Namespace, url: str) -> int:
    if arguments.finding is None:
        raise WrongUse(f"missing finding id: `herd health {arguments.action} ID`; `herd health` lists the ids")
    path = f"{PATH}/findings/{quote(arguments.finding, safe='')}"
    if arguments.action == "ack":
        told = tell(url, f"{path}/acknowledge", {"note": arguments.note or ""}, "acknowledged")
    else:
        told = tell(
            url, f"{path}/silence", {"hours": HOURS if arguments.hours is None else arguments.hours}, "silenced_until"
        )
    if arguments.json:
        show_json(told)
    else:
        show(_head(told))
    return 0
