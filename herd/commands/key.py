"""`herd key`: makes API keys, lists and revokes them, in the data directory's `access.json`; a router follows at once.

The key itself is printed once, alone on stdout, and is nowhere kept.
"""

import argparse
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from herd.commands import CommandError, WrongUse
from herd.commands.moments import local
from herd.commands.output import show, show_json, table
from herd.commands.places import data_dir
from herd.core.access import Limits, Scope
from herd.security import keys
from herd.security.access import Access, AccessUnreadable, Rows
from herd.security.files import NotOurs, claim_directory
from herd.security.keys import Key

HEAD: Final = ("ID", "NAME", "SCOPE", "STATE", "MODELS", "LIMITS", "EXPIRES", "LAST USED")
MOST: Final = 1000


def run(arguments: argparse.Namespace) -> int:
    """Create, list or revoke; raises CommandError where that cannot be."""
    access = Access(data_dir(arguments.data_dir))
    if arguments.action == "list":
        return _list(access, arguments)
    if not arguments.name:
        raise WrongUse(f"herd key {arguments.action} takes {'a name' if arguments.action == 'create' else 'an id'}")
    return _create(access, arguments) if arguments.action == "create" else _revoke(access, arguments.name)


def _create(access: Access, arguments: argparse.Namespace) -> int:
    if not keys.NAME.fullmatch(arguments.name):
        raise WrongUse("a key's name has 1 to 64 letters, digits, spaces and . _ - @ : / +")
    patterns = (text.strip() for text in (arguments.models or "").split(","))
    limits = Limits(tuple(filter(None, patterns)), arguments.rpm or 0, arguments.tokens_per_day or 0)
    now = time.time()
    name, text = keys.spell(secrets.token_bytes(keys.ID_BYTES), secrets.token_bytes(keys.SECRET_BYTES))
    expires = now + arguments.expires if arguments.expires else 0.0
    key = Key(name, arguments.name, Scope(arguments.scope), keys.digest_of(text), now, limits, expires)

    def with_it(rows: Rows) -> Rows:
        if len(rows) >= MOST:
            raise CommandError(f"there are {MOST} keys already; revoked ones leave {access.path} by hand")
        if any(row["name"] == key.name and not row["revoked_at"] for row in rows):
            raise CommandError(f'there is a key "{key.name}" already; revoke it first, or choose another name')
        return [*rows, keys.written(key)]

    with _written(access):
        access.change(keys.SECTION, with_it)
    if arguments.to:
        _put(Path(arguments.to), text)
        print(f'herd: the key "{key.name}" (herd_{name}) is in {arguments.to}', file=sys.stderr)
    else:
        print(f'herd: this is the key "{key.name}"; it is not shown again', file=sys.stderr)
        print(text)
    return 0


def _put(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, 0o600)
            file.write(text + "\n")
    except OSError as error:
        raise CommandError(f"{path} cannot be written ({error.strerror}); revoke the key and make another") from error


def _list(access: Access, arguments: argparse.Namespace) -> int:
    with _written(access):
        access.refresh()
        found = [keys.read(row) for row in access.rows(keys.SECTION)]
    now = time.time()
    if arguments.json:
        rows = [{**keys.written(key), "state": keys.state_at(key, now)} for key in found]
        show_json({"keys": [{name: row[name] for name in row if name != "digest"} for row in rows]})
    elif found:
        show(table(HEAD, [_row(key, now) for key in found]))
    else:
        show("There is no key yet. One for a program that asks models: herd key create NAME")
    return 0


def _row(key: Key, now: float) -> tuple[object, ...]:
    limits = (
        f"{key.limits.requests_per_minute}/min" if key.limits.requests_per_minute else "",
        f"{key.limits.tokens_per_day} tokens/day" if key.limits.tokens_per_day else "",
    )
    expires = local(key.expires_at)[:10] if key.expires_at else None
    models = ", ".join(key.limits.models) or None
    state = keys.state_at(key, now)
    return key.id, key.name, key.scope.value, state, models, ", ".join(filter(None, limits)) or None, expires, (
        key.last_used or None
    )  # fmt: skip


def _revoke(access: Access, named: str) -> int:
    wanted = named.removeprefix(keys.PREFIX)[:8] if named.startswith(keys.PREFIX) else named
    revoked: list[Key] = []

    def without_it(rows: Rows) -> Rows:
        found = [key for key in map(keys.read, rows) if wanted in {key.id, key.name} and not key.revoked_at]
        if not found:
            raise CommandError(f"there is no key {wanted!r} that is good; `herd key list` has them all")
        revoked.extend(found)
        now, struck = time.time(), {key.id for key in found}
        return [keys.written(replace(keys.read(row), revoked_at=now)) if row["id"] in struck else row for row in rows]

    with _written(access):
        access.change(keys.SECTION, without_it)
    for key in revoked:
        print(f'the key "{key.name}" (herd_{key.id}) is revoked; a running router refuses it within a second')
    return 0


@contextmanager
def _written(access: Access) -> Iterator[None]:
    """Say in a sentence why the file cannot be read or written."""
    try:
        claim_directory(access.path.parent)
        yield
    except (AccessUnreadable, NotOurs) as error:
        raise CommandError(str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise CommandError(f"{access.path} has a row that is no key ({error!r}): mend it") from error
    except OSError as error:
        raise CommandError(f"{access.path} cannot be written ({error.strerror})") from error
