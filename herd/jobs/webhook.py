"""Tells a webhook what became critical and what is over: generic JSON with a `text`, tried again, never waited for.

Whoever has an alert puts it in and goes on; a queue and a task of its own do the rest, and say when it was taken.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from herd.core.health.ledger import Alert
from herd.settings.table import BY_NAME
from herd.settings.values import Settings

logger = logging.getLogger(__name__)
CAPACITY: Final = 100
PATIENCE_S: Final = 5.0
PAUSES_S: Final = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)  # between tries; after the last the alert is given up
SETTING: Final = "webhook_url"
NEVER: Final = "0001-01-01T00:00:00Z"  # as Alertmanager writes a time that is not known


class Webhook:
    """The queue and its task; the address is the setting's of the moment at which an alert is sent."""

    def __init__(
        self, settings: Settings, on_told: Callable[[Alert], None], pauses_s: tuple[float, ...] = PAUSES_S
    ) -> None:
        self._settings = settings
        self._on_told = on_told
        self._pauses_s = pauses_s
        self._queue: asyncio.Queue[Alert] = asyncio.Queue(CAPACITY)

    @property
    def wanted(self) -> bool:
        """Whether there is an address."""
        return bool(self._settings.text(SETTING))

    def put(self, alert: Alert) -> None:
        """Have an alert sent; returns at once, and drops it where too many wait."""
        try:
            self._queue.put_nowait(alert)
        except asyncio.QueueFull:
            logger.warning("Alert dropped, %s wait for the webhook: %s", CAPACITY, alert.episode.finding.title)

    async def run(self) -> None:
        """Send queued alerts in order, until cancelled."""
        first = await self._queue.get()
        # Made on a thread and when it is first needed: reading the certificates takes the time of many requests.
        async with await asyncio.to_thread(httpx.AsyncClient, timeout=PATIENCE_S) as client:
            await self._send(client, first)
            while True:
                await self._send(client, await self._queue.get())

    async def _send(self, client: httpx.AsyncClient, alert: Alert) -> None:
        body = payload(alert)
        for pause_s in (*self._pauses_s, None):
            url = self._settings.text(SETTING)
            if not url:
                return
            problem, again = await _post(client, url, body)
            if problem is None:
                self._on_told(alert)
                return
            shown = BY_NAME[SETTING].shown(url)
            if not again or pause_s is None:
                logger.warning("Alert given up, the webhook %s %s: %s", shown, problem, body["title"])
                return
            await asyncio.sleep(pause_s)


async def _post(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> tuple[str | None, bool]:
    """What went wrong, if anything, and whether trying again may help."""
    try:
        # With escapes: a model's name may hold a lone surrogate, which UTF-8 has no bytes for.
        content = json.dumps(body).encode("ascii")
        answer = await client.post(url, content=content, headers={"content-type": "application/json"})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"cannot be reached ({type(error).__name__})", not isinstance(error, httpx.InvalidURL)
    if answer.is_success:
        return None, False
    return f"answered {answer.status_code}", answer.status_code >= 500 or answer.status_code in {408, 429}


def payload(alert: Alert) -> dict[str, Any]:
    """An alert as JSON; `text` alone is what chat programs show."""
    episode, finding = alert.episode, alert.episode.finding
    return {
        "text": _text(alert),
        "status": alert.status,
        "severity": finding.severity.value,
        "check_id": finding.check_id,
        "title": finding.title,
        "description": finding.description,
        "fix": finding.fix,
        "node_id": finding.node_id,
        "model": finding.model,
        "id": episode.id,
        "first_seen": episode.first_seen,
        "last_seen": episode.last_seen,
        "resolved_at": episode.resolved_at,
        "data": dict(finding.data),
        "version": "4",  # from here on what receivers of Prometheus's Alertmanager read
        "alerts": [_as_alertmanager(alert)],
    }


def _text(alert: Alert) -> str:
    finding = alert.episode.finding
    if alert.status == "resolved" and alert.episode.resolved_at:
        return f"Resolved: {finding.title}"
    whole = f"{finding.title}. {finding.description} {finding.fix}"
    return whole if alert.status == "firing" else f"No longer critical: {whole}"


def _as_alertmanager(alert: Alert) -> dict[str, Any]:
    episode, finding = alert.episode, alert.episode.finding
    labels = {"alertname": finding.check_id, "severity": finding.severity.value, "node": finding.node_id,
              "model": finding.model}  # fmt: skip
    return {
        "status": alert.status,
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {"summary": finding.title, "description": f"{finding.description} {finding.fix}"},
        "startsAt": _rfc3339(episode.first_seen),
        "endsAt": _rfc3339(episode.resolved_at or episode.last_seen) if alert.status == "resolved" else NEVER,
        "fingerprint": episode.id,
    }


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
