"""The checks of herd's own records: when each fires, and when it must not."""

import pytest

from herd.core.health.report import Telemetry
from tests.health.builders import found, one, report, severities


@pytest.mark.parametrize(
    ("records", "expected", "words"),
    [
        ({"store_up": False, "store_error": "disk is full"}, ["critical"], "Rows cannot be written (disk is full)"),
        ({"readable": False}, ["critical"], "The database cannot be read"),
        ({"rows_lost": 3}, ["warning"], "3 rows lost in the last hour"),
        ({"store_waiting": 500}, [], ""),
        ({}, [], ""),
    ],
)
def test_a_store_that_cannot_write_or_read_is_critical_and_lost_rows_warn(records, expected, words):
    """Requests go on without it, so nobody would notice."""
    seen = report(telemetry=Telemetry(**records))
    assert severities("trace_store_failing", seen) == expected
    assert all(words in each.description for each in found("trace_store_failing", seen))


def test_a_store_that_fails_says_how_many_rows_wait():
    """How long there is before rows are lost."""
    told = one("trace_store_failing", report(telemetry=Telemetry(store_up=False, store_waiting=4200)))
    assert "4,200 waiting" in told.description


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({"log_lines_lost": 5}, "5 log lines lost"),
        ({"spans_lost": 1}, "1 span lost"),
        ({"sink_failures": 2}, "2 events lost"),
        ({"log_lines_lost": 1, "spans_lost": 2}, "1 log line, 2 spans lost"),
    ],
)
def test_lost_telemetry_is_a_warning_with_what_was_lost(records, words):
    """Records that miss something must say so themselves."""
    told = one("telemetry_dropping", report(telemetry=Telemetry(**records)))
    assert told.severity == "warning"
    assert words in told.description


def test_telemetry_that_loses_nothing_is_silent():
    """As on every good day."""
    assert found("telemetry_dropping", report()) == []
