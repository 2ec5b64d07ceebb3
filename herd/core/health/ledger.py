"""Findings over time: when each opened, whether it still holds, what the operator noted, when it was resolved.

Pure bookkeeping in memory; what changed comes back as events, and as alerts for the webhook.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from herd.core.events import FindingChanged
from herd.core.finding import Episode, Finding, Severity, Subject

KEEP_EVERY_S: Final = 30.0  # how often an unchanged finding is written again


@dataclass(frozen=True, slots=True)
class Alert:
    """A webhook notification: a critical finding opened or was resolved."""

    status: Literal["firing", "resolved"]
    episode: Episode


@dataclass(frozen=True, slots=True)
class Taken:
    """What one evaluation changed."""

    changes: tuple[FindingChanged, ...] = ()
    alerts: tuple[Alert, ...] = ()


class Ledger:
    """The open episodes; `new_id` makes an id for each new one."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._open: dict[Subject, Episode] = {}
        self._kept_at: dict[str, float] = {}
        self._silences: dict[Subject, float] = {}
        self._being_told: set[str] = set()
        self._critical_at: dict[str, float] = {}
        self._since = 0.0

    @property
    def open(self) -> Mapping[Subject, Episode]:
        """The unresolved episodes by subject."""
        return self._open

    def restore(self, episodes: Iterable[Episode], now: float) -> None:
        """Continue with the episodes stored before a restart; open ones get time to be seen again."""
        self._since = now
        for episode in episodes:
            subject = episode.finding.subject
            if episode.resolved_at is None:
                self._open.setdefault(subject, episode)
            if episode.silenced_until is not None:
                self._silences[subject] = max(self._silences.get(subject, 0.0), episode.silenced_until)

    def take(self, findings: Iterable[Finding], now: float, resolve_after_s: float, alerting: bool) -> Taken:
        """Record the findings at `now`; an episode is resolved when it was not seen for `resolve_after_s`."""
        changes: list[FindingChanged] = []
        for finding in findings:
            changes += self._see(finding, now)
        for episode in tuple(self._open.values()):
            if now - max(episode.last_seen, self._since) > resolve_after_s:
                changes.append(self._resolve(episode, now))
        return self._alerted(changes, now, resolve_after_s) if alerting else Taken(tuple(changes))

    def told(self, episode_id: str, now: float) -> FindingChanged | None:
        """The webhook has delivered an episode's alert; until then a restart sends it again. None if it is resolved."""
        if episode_id not in self._being_told:
            return None
        self._being_told.discard(episode_id)
        return self._keep(replace(self._of(episode_id), alerted=True), "seen", now)

    def acknowledge(self, episode_id: str, note: str, now: float) -> FindingChanged:
        """Acknowledge an episode; an empty note keeps the previous one. KeyError if no open episode has the id."""
        before = self._of(episode_id)
        return self._keep(replace(before, acknowledged_at=now, note=note or before.note), "acknowledged", now)

    def silence(self, episode_id: str, until: float, now: float) -> FindingChanged:
        """Silence an episode's subject until then, including new episodes. KeyError as above."""
        episode = replace(self._of(episode_id), silenced_until=until if until > now else None)
        self._silences[episode.finding.subject] = until
        return self._keep(episode, "silenced", now)

    def _of(self, episode_id: str) -> Episode:
        found = next((episode for episode in self._open.values() if episode.id == episode_id), None)
        if found is None:
            raise KeyError(episode_id)
        return found

    def _see(self, finding: Finding, now: float) -> list[FindingChanged]:
        before = self._open.get(finding.subject)
        if before is None:
            silenced = self._silences.get(finding.subject, 0.0)
            began = Episode(self._new_id(), finding, now, now, silenced_until=silenced if silenced > now else None)
            return [self._keep(began, "opened", now)]
        episode = before.seen(finding, now)
        if before.finding.severity != finding.severity:
            return [self._keep(episode, "changed", now)]
        if now - self._kept_at.get(episode.id, 0.0) >= KEEP_EVERY_S:
            return [self._keep(episode, "seen", now)]
        self._open[finding.subject] = episode
        return []

    def _keep(self, episode: Episode, change: str, now: float) -> FindingChanged:
        self._open[episode.finding.subject] = episode
        self._kept_at[episode.id] = now
        return FindingChanged(now, change, episode)

    def _resolve(self, episode: Episode, now: float) -> FindingChanged:
        del self._open[episode.finding.subject]
        self._kept_at.pop(episode.id, None)
        episode = replace(episode, alerted=episode.alerted or episode.id in self._being_told)
        self._being_told.discard(episode.id)
        self._critical_at.pop(episode.id, None)
        return FindingChanged(now, "resolved", replace(episode, resolved_at=now))

    def _alerted(self, changes: list[FindingChanged], now: float, resolve_after_s: float) -> Taken:
        """The changes plus the webhook's alerts: unsilenced critical findings that opened or ended."""
        alerts = [Alert("resolved", change.episode) for change in changes if _ends_an_alert(change)]
        for episode in tuple(self._open.values()):
            told = episode.alerted or episode.id in self._being_told
            if episode.finding.severity is not Severity.CRITICAL:
                # A value that flaps around its threshold is one alert, not ten.
                if told and now - self._critical_at.get(episode.id, 0.0) > resolve_after_s:
                    self._being_told.discard(episode.id)
                    calmed = replace(episode, alerted=False)
                    changes.append(self._keep(calmed, "seen", now))
                    alerts.append(Alert("resolved", calmed))
            elif episode.last_seen == now:
                self._critical_at[episode.id] = now
                if not told and not episode.silenced(now):
                    self._being_told.add(episode.id)
                    alerts.append(Alert("firing", episode))
        return Taken(tuple(changes), tuple(alerts))


def _ends_an_alert(change: FindingChanged) -> bool:
    return change.change == "resolved" and change.episode.alerted
