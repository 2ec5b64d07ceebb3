"""What a request shows to prove who asks, and what that proves: a key, or this machine's code.

It knows the keys of `access.json` as they were at its last refresh, and no path.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from herd.core.access import NOBODY, Caller, Scope
from herd.security import keys
from herd.security.access import Access
from herd.security.keys import Key
from herd.security.local_code import PREFIX as LOCAL

# Where SDKs put a key: OpenAI's, Anthropic's, Azure's, Google's.
HEADERS: Final = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
SHOWING: Final = frozenset(HEADERS)
LOCAL_CALLER: Final = Caller(name="this machine", scope=Scope.ADMIN, local=True)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a request has proven; `reason` and `trouble` say what is wrong with what it showed."""

    caller: Caller = NOBODY
    reason: str = ""
    trouble: str = ""


NOTHING: Final = Proof()


@dataclass(slots=True)
class Credentials:
    """The keys that are known, by their ids."""

    access: Access
    local_code: str = ""
    keys: dict[str, Key] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)  # by id: the first use of a day, until it is on file
    _seen: dict[str, int] = field(default_factory=dict)
    _checked_at: float = 0.0
    _edition: int = 0

    def refresh(self) -> bool:
        """Take over what others wrote; whether there was anything. Raises AccessUnreadable, KeyError, ValueError."""
        self.access.refresh()
        if self.access.edition == self._edition:
            return False
        self._edition = self.access.edition
        self.keys = {key.id: key for key in map(keys.read, self.access.rows(keys.SECTION))}
        return True

    def any_expired(self, now: float) -> bool:
        """Whether the time of some key has run out since this was asked last."""
        before, self._checked_at = self._checked_at, now
        return any(before < key.expires_at <= now for key in self.keys.values())

    def proven(self, headers: Mapping[bytes, bytes], now: float) -> Proof:
        """What the headers of a request prove."""
        if SHOWING.isdisjoint(headers):
            return NOTHING
        text = shown(headers)
        return self._by_text(text, now) if text else NOTHING

    def _by_text(self, text: str, now: float) -> Proof:
        if text.startswith(LOCAL):
            if self.local_code and hmac.compare_digest(text.encode("latin-1"), self.local_code.encode()):
                return Proof(LOCAL_CALLER)
            return Proof(reason="unknown_credential", trouble="the code of this machine is of another start or router")
        if not text.startswith(keys.PREFIX):
            return Proof(reason="unknown_credential", trouble="")
        found = keys.id_in(text)
        if found is None:
            words = f"the key {text[:13]} is misspelt (its check does not match)"
            return Proof(reason="unknown_credential", trouble=words)
        key = self.keys.get(found)
        if key is None or not keys.is_of(key, text):
            return Proof(reason="unknown_credential", trouble=f"the key herd_{found} is not one of this router's")
        if wrong := key.wrong_at(now):
            return Proof(Caller(key.id, key.name), *wrong)
        self._saw(key.id, now)
        return Proof(key.caller)

    def _saw(self, key_id: str, now: float) -> None:
        if self._seen.get(key_id) != (day := int(now // keys.DAY_S)):
            self._seen[key_id], self.used[key_id] = day, now


def shown(headers: Mapping[bytes, bytes]) -> str:
    """The credential that a request shows; one of ours before any other, as some clients send several."""
    first = ""
    for name in HEADERS:
        if value := headers.get(name):
            text = value.decode("latin-1").strip()
            if name == b"authorization":
                kind, _, text = text.partition(" ")
                text = text.strip() if kind.lower() == "bearer" else ""
            if text.startswith((keys.PREFIX, LOCAL)):
                return text
            first = first or text
    return first
