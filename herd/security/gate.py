"""Who may do what here: judges each request by what it asks for, where it comes from and what it shows.

    auth      from this machine                         from anywhere else
    auto      inference and reading are open;           a credential for everything; `anonymous` opens inference,
              changes are for this user's processes     or that and reading, to private networks
    always    a credential for everything               a credential for everything
    observe   as auto, but what would be refused is let in, and counted
    off       everything is open to everybody

Whoever shows one of the router's keys is judged by it, wherever he is. Host and Origin were judged before.
"""

import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, Final

from herd.core.access import ENOUGH, NOBODY, Caller, Need, Scope
from herd.core.errors import AllowanceUsed, Forbidden, HerdError, Unauthorized
from herd.security.allowances import Allowances
from herd.security.credentials import LOCAL_CALLER, NOTHING, Credentials, Proof
from herd.security.names import Names
from herd.security.place import Place, place_of
from herd.security.scopes import need_of
from herd.settings.values import Settings

Headers = Mapping[bytes, bytes]
ASK_FOR_KEY: Final = "this router asks for a key: herd key create NAME, then Authorization: Bearer …"
ASK_FOR_ADMIN: Final = (
    "changes take an admin key (herd key create NAME --scope admin), or the router's own user on its machine"
)
OPEN_HERE: Final = frozenset({Need.LIST, Need.INFERENCE, Need.READ})
ANONYMOUS: Final = {
    "": frozenset[Need](),
    "inference": frozenset({Need.LIST, Need.INFERENCE}),
    "read": frozenset({Need.LIST, Need.INFERENCE, Need.READ}),
}
WORDS: Final = {
    Need.LIST: "listing models", Need.INFERENCE: "inference", Need.READ: "reading records", Need.ADMIN: "changes",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """Who asks, and with `error` why not; `ask_system`: let in if the connection is of this user's, or local if it is.

    `reason` is a word of `core.doors.REASONS`; `observed`: the request goes on all the same.
    """

    caller: Caller = NOBODY
    error: HerdError | None = None
    reason: str = ""
    ask_system: bool = False
    observed: bool = False


LET_IN: Final = Verdict()


class Gate:
    """Judges requests; one for the router's life."""

    def __init__(
        self,
        settings: Settings,
        names: Names,
        credentials: Credentials,
        allowances: Allowances,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._names = names
        self._credentials = credentials
        self._allowances = allowances
        self._clock = clock

    def judge(self, scope: MutableMapping[str, Any], headers: Headers, host: str) -> Verdict:
        """Whether a request may pass, as far as that can be said without asking the system."""
        need = need_of(scope["method"], scope["path"])
        if need is Need.OPEN or need is Need.NODE or scope["method"] == "OPTIONS":
            return LET_IN
        need = need or Need.LIST  # nothing is there; who may ask anything at all may be told so
        mode, now = self._settings.text("auth"), self._clock()
        place = place_of(scope, headers, host, self._names)
        proof = self._credentials.proven(headers, now)
        if proof is NOTHING and need in OPEN_HERE and place is Place.HERE and mode != "always":
            return LET_IN  # what one machine does all day
        verdict = self._judged(need, mode, place, proof)
        if verdict.error is None and need is Need.INFERENCE and verdict.caller.key_id:
            verdict = self._spent(verdict, now)
        elif verdict.reason == "unknown_credential" and mode != "off":
            verdict = self._tried(verdict, scope, now)
        if verdict.error and mode == "off":
            return Verdict(ask_system=verdict.ask_system)
        return replace(verdict, observed=True) if verdict.error and mode == "observe" else verdict

    def _judged(self, need: Need, mode: str, place: Place, proof: Proof) -> Verdict:
        here = place is Place.HERE and mode != "always"
        caller = proof.caller
        if proof.reason and proof.trouble:
            return Verdict(caller, Unauthorized(proof.trouble), proof.reason)
        if caller.local and place is not Place.HERE:
            return Verdict(NOBODY, Unauthorized("the code of this machine is taken from this machine only"), "scope")
        asks = here and need is Need.ADMIN and not caller.local
        if caller.scope is not None:
            if caller.scope in ENOUGH[need]:
                return Verdict(caller, ask_system=asks)
            text = f'the key "{caller.name}" may do {caller.scope}, not {WORDS[need]} (scope {_scope_of(need)})'
            return Verdict(caller, Forbidden(text), "scope")
        if mode == "off" or self._is_open(need, here, place):
            return Verdict(ask_system=asks)
        text = ASK_FOR_ADMIN if need is Need.ADMIN else ASK_FOR_KEY
        if proof.reason:
            text = f"what was shown is no key of this router's; {text}"
        return Verdict(NOBODY, Unauthorized(text), proof.reason or "no_credential", ask_system=asks)

    def _is_open(self, need: Need, here: bool, place: Place) -> bool:
        if here and need in OPEN_HERE:
            return True
        if self._settings.text("auth") == "always":
            return False
        return place is not Place.AFAR and need in ANONYMOUS[self._settings.text("anonymous")]

    def _spent(self, verdict: Verdict, now: float) -> Verdict:
        try:
            self._allowances.spend(verdict.caller, now)
        except AllowanceUsed as error:
            return replace(verdict, error=error, reason="limit")
        return verdict

    def _tried(self, verdict: Verdict, scope: MutableMapping[str, Any], now: float) -> Verdict:
        client = scope.get("client")
        try:
            self._allowances.wrong(client[0] if client else "", now)
        except AllowanceUsed as error:
            return replace(verdict, error=error, reason="limit")
        return verdict


def settled(verdict: Verdict, is_own_user: bool) -> Verdict:
    """The verdict once the system has said whether the connection is of the router's own user."""
    if not is_own_user:
        return verdict
    if verdict.caller.scope is None:
        return Verdict(LOCAL_CALLER)
    return replace(verdict, caller=replace(verdict.caller, local=True))


def _scope_of(need: Need) -> Scope:
    return next(scope for scope in Scope if scope in ENOUGH[need])
