"""The nodes' door: who is introduced to the fleet, and whose heartbeats are taken.

A heartbeat is signed with a key that the router knows under the heartbeat's own name, and its sequence number is
greater than the last one's. Who shows the local code needs no key for names that no key has: it is read where
the router's own key is.
"""

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from herd import wire
from herd.core.errors import Forbidden, HerdError, NameTaken, Unauthorized
from herd.security import nodes
from herd.security.access import Access, AccessUnreadable, Rows
from herd.security.node_address import AddressRefused, Sender, placed
from herd.security.nodes import Member, NotKnown, OtherKey, Revoked, State, Way
from herd.security.refusals import Refusal
from herd.wire import joining
from herd.wire.identity import Identity, id_of, is_signed, public_key, shown

logger = logging.getLogger(__name__)
Headers = Mapping[str, str]
LETS_ALL_IN: Final = frozenset({"off", "observe"})
UNSIGNED: Final = (
    "the heartbeat carries no signature, and this router takes none without; an agent of this version introduces "
    "itself. While older ones are about: herd --auth observe"
)


class Refused(Exception):
    """A node is not let in; `error` has the status and the text, `reason` is a word of `core.doors.REASONS`."""

    def __init__(self, error: HerdError, reason: str) -> None:
        super().__init__(error.message)
        self.error = error
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of a node as it came."""

    path: str
    headers: Headers
    client: str
    body: bytes = field(repr=False)
    is_private: bool = False  # it came over the fleet port's TLS

    @property
    def is_local(self) -> bool:
        """Whether it comes from this machine, as far as its connection says."""
        try:
            found = ip_address(self.client)
        except ValueError:
            return False
        return (getattr(found, "ipv4_mapped", None) or found).is_loopback


class NodeDoor:
    """Knows nodes by `access.json`; `mode` says what the setting `auth` is, `is_alive` whether a node is heard of."""

    def __init__(
        self,
        access: Access,
        identity: Identity,
        local_code: str,
        mode: Callable[[], str],
        is_alive: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.access = access
        self.identity = identity
        self._local_code = local_code
        self._mode = mode
        self._is_alive = is_alive
        self._clock = clock
        self._members: dict[tuple[str, str], Member] = {}
        self._keys: dict[str, EllipticCurvePublicKey] = {}
        self._last: dict[tuple[str, str], int] = {}
        self._edition = 0
        self._trouble = ""

    @property
    def members(self) -> list[Member]:
        """The nodes that are known, as of the last look."""
        return list(self._members.values())

    def refresh(self) -> bool:
        """Take over what others wrote; whether there was anything. What cannot be read leaves all as it was."""
        try:
            self.access.refresh()
            if (edition := self.access.edition) == self._edition:  # a change of our own has been looked at by itself
                return False
            found = nodes.members(self.access.rows(nodes.NODES))
            self._keys = {each.key_id: public_key(joining.decoded(each.certificate)) for each in found}
            self._members = {(each.node_id, each.key_id): each for each in found}
        except (AccessUnreadable, KeyError, TypeError, ValueError) as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                logger.error("Nodes stay as they are: %s", error)
            return False
        self._trouble, self._edition = "", edition
        return True

    # Heartbeats

    def taken(self, asked: Asked, beat: wire.Heartbeat) -> tuple[wire.Heartbeat, Refusal | None]:
        """The heartbeat with the node's addresses, and what the setting alone lets in. Raises Refused."""
        self.refresh()
        try:
            return self._judged(asked, beat), None
        except Refused as refused:
            mode = self._mode()
            if mode not in LETS_ALL_IN:
                raise
            return beat, self.refusal(asked, refused) if mode == "observe" else None

    def refusal(self, asked: Asked, refused: Refused) -> Refusal:
        """A refusal for the records."""
        return Refusal("node", refused.error, asked.client, "POST", asked.path, asked.headers, refused.reason)

    def _judged(self, asked: Asked, beat: wire.Heartbeat) -> wire.Heartbeat:
        key_id = asked.headers.get(joining.NODE)
        if key_id is None:
            return self._unsigned(asked, beat)
        member = self._members.get((beat.node_id, key_id))
        if member is None or member.state is State.WAITING:
            self._refuse_other_key(beat.node_id)
            text = f"the key {_shown(key_id)} is not known under the name {beat.node_id}"
            raise Refused(Unauthorized(f"{text}; herd node accept {_shown(key_id)}"), "unknown_credential")
        if member.state is State.REVOKED:
            raise Refused(Unauthorized(str(Revoked(member))), "revoked")
        sequence = _sequence(asked.headers)
        if not self._signs(self._keys[key_id], asked, self.identity.id, sequence):
            raise Refused(Unauthorized(f"{beat.node_id}'s signature does not match"), "signature")
        if sequence <= self._last.get((beat.node_id, key_id), 0):
            text = (
                f"{beat.node_id} has sent a later heartbeat: this one is repeated, or two agents share a data directory"
            )
            raise Refused(NameTaken(text), "repeated")
        beat = self._at_its_place(beat, Sender(member.direct, member.is_trusted_with_urls), asked.client)
        self._last[beat.node_id, key_id] = sequence
        return beat

    def _unsigned(self, asked: Asked, beat: wire.Heartbeat) -> wire.Heartbeat:
        self._refuse_other_key(beat.node_id)
        shown_code = asked.headers.get("authorization", "").partition(" ")[2].strip()
        if asked.is_local and self._local_code and hmac.compare_digest(shown_code.encode(), self._local_code.encode()):
            return beat
        raise Refused(Unauthorized(UNSIGNED), "no_credential")

    def _refuse_other_key(self, node_id: str) -> None:
        for each in self._members.values():
            if each.node_id == node_id and each.state is State.ACCEPTED:
                raise Refused(NameTaken(str(OtherKey(each))), "other_key")

    def _at_its_place(self, beat: wire.Heartbeat, sender: Sender, client: str) -> wire.Heartbeat:
        try:
            return placed(beat, sender, client)
        except AddressRefused as error:
            raise Refused(Forbidden(str(error)), "address") from error

    def _signs(self, key: EllipticCurvePublicKey, asked: Asked, router_id: str, sequence: int) -> bool:
        try:
            signature = joining.decoded(asked.headers.get(joining.SIGNATURE, ""))
        except ValueError:
            return False
        form = joining.signed_form("POST", asked.path, router_id, sequence, asked.body)
        return is_signed(key, signature, form)

    # Introductions

    def introduce(self, asked: Asked) -> joining.JoinReply:
        """Take a node in, or have it wait.

        Raises Refused, pydantic's ValidationError, AccessUnreadable, or OSError where nothing can be kept.
        """
        request = joining.JoinRequest.model_validate_json(asked.body)
        try:
            certificate = joining.decoded(request.certificate)
            key = public_key(certificate)
        except ValueError as error:
            raise Refused(Unauthorized(f"the certificate cannot be used: {error}"), "malformed") from error
        if not self._signs(key, asked, joining.UNKNOWN_ROUTER, 0):
            raise Refused(Unauthorized("the introduction is not signed with the certificate's key"), "signature")
        new = Member(
            request.node_id,
            id_of(certificate),
            request.certificate,
            State.ACCEPTED,
            Way.LOCAL,
            self._clock(),
            asked.client,
        )
        try:
            return self._reply(self._introduced(asked, request, new))
        except (OtherKey, Revoked, NotKnown) as error:
            taken = isinstance(error, OtherKey)
            reason = "other_key" if taken else "revoked" if isinstance(error, Revoked) else "unknown_credential"
            raise Refused((NameTaken if taken else Unauthorized)(str(error)), reason) from error
        finally:
            self.refresh()

    def _introduced(self, asked: Asked, request: joining.JoinRequest, new: Member) -> Member:
        if request.secret:
            if not asked.is_private:
                raise NotKnown("a join code is taken on the fleet port only: herd-node join")
            return self._by_code(joining.decoded(request.secret), new)
        if request.proof:
            wanted = joining.node_proof(self._local_code, new.node_id, new.key_id)
            if not self._local_code or not hmac.compare_digest(request.proof, wanted):
                raise NotKnown("the local code is of another start or another router")
            may_replace = not self._is_alive(new.node_id)
            return _of(self._write(lambda rows: nodes.introduced(rows, new, may_replace)), new)
        waiting = Member(new.node_id, new.key_id, new.certificate, State.WAITING, Way.KNOCKED, new.since, new.address)
        self.refresh()
        rows = self.access.rows(nodes.NODES)
        if nodes.knocked(rows, waiting) is not rows:  # a stranger's second knock costs no write
            rows = self._write(lambda found: nodes.knocked(found, waiting))
        return _of(rows, waiting)

    def _by_code(self, secret: bytes, new: Member) -> Member:
        member = Member(new.node_id, new.key_id, new.certificate, State.ACCEPTED, Way.CODE, new.since, new.address)
        nodes.introduced(self.access.rows(nodes.NODES), member, False)  # a name that is taken uses nothing up
        self.access.change(nodes.INVITATIONS, lambda rows: nodes.used(rows, secret, new.node_id, new.since))
        return _of(self._write(lambda rows: nodes.introduced(rows, member, False)), member)

    def _write(self, change: Callable[[Rows], Rows]) -> Rows:
        return self.access.change(nodes.NODES, change)

    def _reply(self, member: Member) -> joining.JoinReply:
        if member.state is State.REVOKED:
            raise Revoked(member)
        router = self.identity
        proof = joining.router_proof(self._local_code, router.id, member.key_id) if self._local_code else ""
        accepted = member.state is State.ACCEPTED
        certificate = joining.encoded(router.certificate)
        return joining.JoinReply(state="accepted" if accepted else "waiting", certificate=certificate, proof=proof)


def _of(rows: Rows, member: Member) -> Member:
    """A node as the section has it; itself where there was no room for it."""
    same = (each for each in nodes.members(rows) if (each.node_id, each.key_id) == (member.node_id, member.key_id))
    return next(same, member)


def _sequence(headers: Headers) -> int:
    text = headers.get(joining.SEQUENCE, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _shown(key_id: str) -> str:
    try:
        return shown(key_id)
    except ValueError:
        return "of no form"
