"""A health check's finding, and the episode that tracks it over time, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """A finding's severity; only warning and critical lower the health score."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info, 2 for critical."""
        return list(Severity).index(self)


Subject = tuple[str, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says of one subject at one moment: what it saw, in numbers, and what to do.

    `share` (0 to 1) is how much of the traffic it is about, where that does not follow from its node or model.
    """

    check_id: str
    severity: Severity
    title: str
    description: str
    fix: str
    node_id: str | None = None
    model: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0

    @property
    def subject(self) -> Subject:
        """The check, and the node and model it concerns, if any."""
        return self.check_id, self.node_id, self.model


@dataclass(frozen=True, slots=True)
class Episode:
    """A finding from when it was first seen until it was resolved; times in unix seconds.

    `alerted`: the webhook was notified that it is critical. `note` is the operator's note on acknowledging it.
    """

    id: str
    finding: Finding
    first_seen: float
    last_seen: float
    resolved_at: float | None = None
    acknowledged_at: float | None = None
    note: str | None = None
    silenced_until: float | None = None
    alerted: bool = False

    def silenced(self, now: float) -> bool:
        """Whether notifications are silenced now."""
        return self.silenced_until is not None and now < self.silenced_until

    def seen(self, finding: Finding, now: float) -> "Episode":
        """The same episode, seen again with its current text and numbers."""
        return replace(self, finding=finding, last_seen=now)
