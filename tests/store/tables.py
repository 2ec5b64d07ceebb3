"""The page's tables as tests ask for them: the rows of the last days."""

import time

from herd.store import reports
from herd.store.queries import Reader

DAY_S = 86_400.0


def rows(reader, table, days, now):
    return reader.report(table, (time.time() if now is None else now) - days * DAY_S).data


def apps(reader: Reader, days: float, now: float | None = None):
    """Sums by tag."""
    return rows(reader, reports.apps, days, now)


def apps_daily(reader: Reader, days: float, now: float | None = None):
    """Sums by tag and UTC day."""
    return rows(reader, reports.apps_daily, days, now)


def usage(reader: Reader, days: float, now: float | None = None):
    """Sums by UTC day, node and model."""
    return rows(reader, reports.usage, days, now)
