"""What `herd replay` and `herd plan` begin with: the recorded requests, and the fleet as the database knows it."""

import argparse
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from pydantic import ValidationError

from herd.commands import CommandError, WrongUse
from herd.commands.places import data_dir
from herd.core.routing import Policy
from herd.insights.machines import on_paper
from herd.planning.figures import LEAST_SLICE
from herd.planning.live import Options
from herd.planning.recorded import Site, site
from herd.settings.load import SettingError, load
from herd.settings.table import BY_NAME, Value
from herd.settings.values import Settings
from herd.store.queries import Reader, StoreUnreadable
from herd.store.recorded import Recorded
from herd.wire import Heartbeat

DAY_S: Final = 86_400.0
USED: Final = ("queue_limit", "queue_timeout_s", "loaded_fallback")  # settings that a simulated router goes by
Document = dict[str, object]


class Window(NamedTuple):
    """A window of the past, and the fleet that served it."""

    past: Recorded
    site: Site
    until: float

    @property
    def document(self) -> Document:
        """What it is, for programs."""
        first = self.past.requests[0].at
        return {"since": first, "until": self.until, "request_count": len(self.past.requests),
                "left_out": self.past.left_out, "nodes": [each.node_id for each in self.site.machines]}  # fmt: skip


def window(arguments: argparse.Namespace) -> Window:
    """The recorded requests since `--since`, at most `--limit`, and the nodes. CommandError where there are none."""
    until = time.time()
    reader = Reader(data_dir(arguments.data_dir) / "latency.db")
    try:
        past = reader.recorded(arguments.since or until - DAY_S, until, arguments.limit)
        heartbeats = list(_heartbeats(reader))
    except StoreUnreadable as error:
        raise CommandError(str(error)) from error
    finally:
        reader.close()
    if len(past.requests) < LEAST_SLICE:
        raise CommandError(f"{reader.path} has {len(past.requests)} requests of that time; {LEAST_SLICE} are the least "
                           "that say anything: --since reaches further back")  # fmt: skip
    if not heartbeats:
        raise CommandError(f"{reader.path} knows no node: the router writes down those that send heartbeats")
    return Window(past, site(past, heartbeats, on_paper), until)


def _heartbeats(reader: Reader) -> Iterator[Heartbeat]:
    for known in reader.known_nodes():
        try:
            yield Heartbeat.model_validate(known.heartbeat)
        except ValidationError:
            continue  # of an agent of another version: the rest of the fleet can still be simulated


def options(arguments: argparse.Namespace) -> Options:
    """The settings that a simulated router goes by: the router's own, with those of `--set`."""
    try:
        return options_of(load({"data_dir": str(data_dir(arguments.data_dir)), **_set(arguments)}))
    except SettingError as error:
        raise WrongUse(str(error)) from error


def options_of(settings: Settings) -> Options:
    """The same of settings."""
    policy = Policy(loaded_fallback=settings.flag("loaded_fallback"))
    return Options(policy, settings.count("queue_limit"), settings.number("queue_timeout_s"))


def _set(arguments: argparse.Namespace) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for text in getattr(arguments, "set", None) or ():
        name, equals, value = text.partition("=")
        if not equals or name not in USED:
            raise WrongUse(f"--set {text}: it should be one of {', '.join(f'{each}=…' for each in USED)}")
        kind = type(BY_NAME[name].default)
        try:
            found[name] = value.casefold() in {"true", "yes", "1"} if kind is bool else kind(value)
        except ValueError:
            raise WrongUse(f"--set {text}: {value!r} is no value for {name}") from None
    return found
