"""`herd node` and `herd nodes`: which nodes the router on this machine knows by their keys, and what they may.

It changes the router's `access.json`, which a running router looks at twice a second.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, Final

from herd.commands import CommandError, WrongUse
from herd.commands.moments import duration
from herd.commands.output import show, show_json, table
from herd.commands.places import data_dir
from herd.security import nodes
from herd.security.access import Access, AccessUnreadable, Rows
from herd.security.nodes import Member, NotKnown, OtherKey, State
from herd.wire import is_place
from herd.wire.identity import shown

HEAD: Final = ("NODE", "STATE", "KEY", "FROM", "SINCE", "ENGINE AT")
NO_NODE: Final = "No node has introduced itself yet: start `herd-node` on this machine, or `herd invite` another one"
DONE: Final = {
    "accept": "{0} may join: its key is {1}",
    "revoke": "{0} is out, and its key {1} is refused",
    "reset": "{0} is unknown again: the next key that joins under this name has it",
    "direct": "{0} is asked at {2}",
}


def run(arguments: argparse.Namespace) -> int:
    """List the nodes, or change one. Raises CommandError where that cannot be."""
    access, action = Access(data_dir(arguments.data_dir)), getattr(arguments, "action", "list")
    try:
        access.refresh()
        if action == "list":
            return _list(nodes.members(access.rows(nodes.NODES)), arguments.json)
        member = nodes.named(access.rows(nodes.NODES), _name(arguments))
        access.change(nodes.NODES, _change(action, member, arguments.engine_url or ""))
    except (NotKnown, OtherKey, AccessUnreadable) as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{access.path} cannot be written ({error.strerror})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CommandError(f"{access.path} holds a node that is none ({error})") from error
    show(DONE[action].format(member.node_id, shown(member.key_id), arguments.engine_url or "its own address"))
    return 0


def _name(arguments: argparse.Namespace) -> str:
    if not arguments.name:
        raise WrongUse(f"herd node {arguments.action} takes a node's name, or the beginning of its key")
    url = arguments.engine_url or ""
    scheme, _, place = url.partition("://")
    is_right = arguments.action == "direct" and scheme in {"http", "https"} and is_place(place)
    if url and not is_right:
        raise WrongUse("only `herd node direct NAME URL` takes a URL, such as http://192.168.1.7:11434")
    return str(arguments.name)


def _change(action: str, member: Member, url: str) -> Callable[[Rows], Rows]:
    if action == "reset":
        return lambda rows: nodes.without(rows, member.node_id)
    changes: dict[str, dict[str, Any]] = {
        "accept": {"state": State.ACCEPTED}, "revoke": {"state": State.REVOKED}, "direct": {"direct": url},
    }  # fmt: skip
    return lambda rows: nodes.changed(rows, member, **changes[action])


def _list(known: list[Member], as_json: bool) -> int:
    now = time.time()
    there = [each for each in known if each.state is not State.WAITING or now - each.since < nodes.WAITING_S]
    if as_json:
        names = ("node_id", "key_id", "state", "way", "since", "address", "direct")
        show_json({"nodes": [{name: getattr(each, name) for name in names} for each in there]})
        return 0
    show(table(HEAD, [_row(each, now) for each in there]) if there else NO_NODE)
    for each in there:
        if each.state is State.WAITING:
            show(f"Accept {each.node_id} if its own log shows this key: herd node accept {shown(each.key_id)[:4]}")
    return 0


def _row(each: Member, now: float) -> tuple[str, ...]:
    engine = each.direct or ("as it says" if each.is_trusted_with_urls else "its own address")
    return each.node_id, each.state.value, shown(each.key_id), each.address, f"{duration(now - each.since)} ago", engine
