"""The nodes that a router knows by their keys, and the invitations that it gave out, as sections of `access.json`.

Pure: rows in, rows out. A name belongs to one key until the operator resets it.
"""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from herd.core.access import day_of
from herd.security.access import Rows
from herd.wire.identity import shown

NODES: Final = "nodes"
INVITATIONS: Final = "invitations"
MOST_WAITING: Final = 16
WAITING_S: Final = 600.0
LEAST_OF_ID: Final = 4


class State(StrEnum):
    """Whether a node may speak."""

    WAITING = "waiting"
    ACCEPTED = "accepted"
    REVOKED = "revoked"


class Way(StrEnum):
    """How a node came to be known."""

    LOCAL = "local"
    CODE = "code"
    KNOCKED = "knocked"


@dataclass(frozen=True, slots=True)
class Member:
    """One name with the key that it is bound to; `since` in unix seconds, `direct` the engine's URL if an operator
    gave it, `address` where the introduction came from."""

    node_id: str
    key_id: str
    certificate: str
    state: State
    way: Way
    since: float
    address: str = ""
    direct: str = ""

    @property
    def is_trusted_with_urls(self) -> bool:
        """Whether it runs under the router's own user, who may as well configure the router."""
        return self.way is Way.LOCAL


@dataclass(frozen=True, slots=True)
class Invitation:
    """What is kept of a join code: the SHA-256 of its secret, the name that it is for (empty: any), uses left."""

    digest: str
    node_id: str
    uses: int
    expires_at: float


class NotKnown(Exception):
    """No node, or more than one, goes by this; the text says which."""


class Revoked(Exception):
    """The node was revoked; the text says what an operator can do."""

    def __init__(self, member: Member) -> None:
        again = f"herd node accept {member.node_id}"
        super().__init__(f"{member.node_id} was revoked; if it may come back, on the router's machine: {again}")


class OtherKey(Exception):
    """The name is bound to another key; the text says to which, and what to do."""

    def __init__(self, member: Member) -> None:
        text = (
            f"{member.node_id} is known with another key ({shown(member.key_id)[:9]}…, since {day_of(member.since)}). "
            f"Reinstalled? herd node reset {member.node_id}. Otherwise somebody pretends to be it"
        )
        super().__init__(text)


def members(rows: Iterable[dict[str, Any]]) -> list[Member]:
    """The nodes of a section. Raises KeyError, TypeError or ValueError where a row is none."""
    return [Member(**{**row, "state": State(row["state"]), "way": Way(row["way"])}) for row in rows]


def invitations(rows: Iterable[dict[str, Any]]) -> list[Invitation]:
    """The invitations of a section. Raises TypeError where a row is none."""
    return [Invitation(**row) for row in rows]


def digest_of(secret: bytes) -> str:
    """What is kept of an invitation's secret."""
    return hashlib.sha256(secret).hexdigest()


def introduced(rows: Rows, new: Member, may_replace: bool) -> Rows:
    """The section with a node added or accepted.

    `may_replace`: another key may have the name if it has it by the local code, too. Raises OtherKey where it may not;
    Revoked where it was revoked and no operator has a hand in this.
    """
    known, others = members(rows), []
    for each in known:
        if each.node_id != new.node_id:
            others.append(each)
        elif each.state is State.REVOKED and new.way is Way.LOCAL:
            raise Revoked(each)
        elif each.key_id == new.key_id:
            new = replace(new, since=each.since, direct=each.direct)
        elif each.state is State.REVOKED or (
            each.state is State.ACCEPTED and not (may_replace and each.way is Way.LOCAL)
        ):
            raise OtherKey(each)
    return [asdict(each) for each in (*others, new)]


def knocked(rows: Rows, new: Member) -> Rows:
    """The section with a node that waits to be accepted; as it was where enough wait already. Raises OtherKey."""
    kept = [each for each in members(rows) if each.state is not State.WAITING or new.since - each.since < WAITING_S]
    waiting = [each for each in kept if each.state is State.WAITING]
    if any(each.node_id == new.node_id and each.key_id == new.key_id for each in kept):
        return rows
    if bound := next((each for each in kept if each.node_id == new.node_id and each.state is not State.WAITING), None):
        raise OtherKey(bound)
    return [asdict(each) for each in (*kept, new)] if len(waiting) < MOST_WAITING else rows


def used(rows: Rows, secret: bytes, node_id: str, now: float) -> Rows:
    """The invitations after one was used. Raises NotKnown where none is of this secret, or not for this node."""
    digest, left, found = digest_of(secret), [], False
    for each in invitations(rows):
        if each.expires_at <= now:
            continue
        if hmac.compare_digest(each.digest, digest) and each.node_id in {"", node_id}:
            found, each = True, replace(each, uses=each.uses - 1)  # noqa: PLW2901 - one fewer is left
        if each.uses > 0:
            left.append(asdict(each))
    if not found:
        raise NotKnown("the code was used, is for another node, or its time is over: make another with `herd invite`")
    return left


def invited(rows: Rows, new: Invitation, now: float) -> Rows:
    """The invitations with one more, and without those whose time is over."""
    return [*(asdict(each) for each in invitations(rows) if each.expires_at > now), asdict(new)]


def named(rows: Rows, text: str) -> Member:
    """The node of a name, or of the beginning of its key's id as it is shown. Raises NotKnown."""
    known, wanted = members(rows), text.upper().replace("-", "")
    found = [each for each in known if each.node_id == text]
    if not found and len(wanted) >= LEAST_OF_ID:
        found = [each for each in known if shown(each.key_id).replace("-", "").startswith(wanted)]
    if not found:
        raise NotKnown(f"no node is known as {text!r}; `herd nodes` lists them")
    if len(found) > 1:
        keys = ", ".join(shown(each.key_id) for each in found)
        raise NotKnown(f"{text!r} may be any of these keys: {keys}; name one by its beginning")
    return found[0]


def changed(rows: Rows, member: Member, **fields: Any) -> Rows:
    """The section with one node changed; what else waited under its name goes when it is accepted."""
    new, others = replace(member, **fields), []
    for each in members(rows):
        same_name, same_key = each.node_id == member.node_id, each.key_id == member.key_id
        if not same_name or (not same_key and new.state is not State.ACCEPTED):
            others.append(each)
        elif not same_key and each.state is not State.WAITING:
            raise OtherKey(each)
    return [asdict(each) for each in (*others, new)]


def without(rows: Rows, node_id: str) -> Rows:
    """The section without any key of a name, so that the next one may have it."""
    return [asdict(each) for each in members(rows) if each.node_id != node_id]
