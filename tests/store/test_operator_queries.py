"""The queries of the operators' document, run by the shell as they are printed, and fast where there are many rows."""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing

import pytest

from tests.printed import (
    DAYS,
    FAILURES,
    FALLBACKS,
    FIRST_TOKEN,
    HOURS,
    PERCENTILES,
    RETRIES,
    SLOWEST,
    TAG_TOKENS,
)
from tests.store import builders

ALL = (FAILURES, RETRIES, FALLBACKS, PERCENTILES, FIRST_TOKEN, SLOWEST, TAG_TOKENS, HOURS, DAYS)

pytestmark = pytest.mark.skipif(not shutil.which("sqlite3"), reason="the sqlite3 command line is not installed")


@pytest.fixture
def shell(tmp_path, keep):
    """A shell in the operator's home, whose database has twelve answers, two failures, a fallback and a refusal."""
    at = builders.NOON
    keep(*(builders.finished(f"r{n}", at=at + n, latency_s=n + 1.0, ttft_s=0.5, tags=("prod",)) for n in range(12)))
    keep(*(builders.failed(f"f{n}", at=at + 50 + n, attempts=3, node_id="bob") for n in range(2)))
    keep(builders.finished("fb", at=at + 60, model="big:70b", served="small:7b", tags=("prod", "batch")))
    keep(builders.refused("bad", at=at - 86_400))

    def lines(command):
        environment = {**os.environ, "HOME": str(tmp_path), "TZ": "UTC"}
        done = subprocess.run(
            ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=20, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return lines


def test_recent_failures_with_details(shell):
    """The first question after a page."""
    assert shell(FAILURES) == [
        "f1|llama3.2:3b|bob|ada refused the connection|1.5|2026-01-07 12:00:51",
        "f0|llama3.2:3b|bob|ada refused the connection|1.5|2026-01-07 12:00:50",
    ]


def test_retry_frequency_by_node(shell):
    """Which machine needs attention; a request that no node took stands apart."""
    assert shell(RETRIES) == ["bob|4|2|100.0", "|0|1|0.0", "ada|0|13|0.0"]


def test_fallback_frequency_by_model(shell):
    """Which model cannot be relied on."""
    assert shell(FALLBACKS) == ["big:70b|small:7b|1"]


def test_latency_percentiles_by_model(shell):
    """Models with few requests are left out by the query itself."""
    assert shell(PERCENTILES) == ["llama3.2:3b|7.0|10.0|12.0|12"]


def test_time_to_first_token_by_node_and_model(shell):
    """Cold loads show here first."""
    assert shell(FIRST_TOKEN) == ["ada|llama3.2:3b|500.0|500.0|12"]


def test_the_slowest_requests(shell):
    """Ten of them, the slowest first."""
    found = shell(SLOWEST)
    assert found[0] == "r11|llama3.2:3b|ada|12.0|20|40|0|2026-01-07 12:00:11"
    assert [line.split("|")[0] for line in found] == [f"r{number}" for number in range(11, 1, -1)]


def test_tokens_by_tag(shell):
    """What each application used."""
    assert shell(TAG_TOKENS) == ["prod|13|260|520|780", "batch|1|20|40|60"]


def test_requests_by_hour_of_the_day(shell):
    """When the fleet is needed most."""
    assert [line.split("|")[:2] for line in shell(HOURS)] == [["12", "16"]]


def test_requests_by_day(shell):
    """The day before counts its refusal, with no tokens."""
    assert shell(DAYS) == ["2026-01-07|15|780", "2026-01-06|1|0"]


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.split('"')[1].split("FROM")[0][:40])
def test_no_query_of_the_document_reads_the_wide_rows_one_by_one(shell, database, command):
    """At a million rows that would be gigabytes: each has an index from which it is answered, or that orders it."""
    query = command.split('"')[1]
    with closing(sqlite3.connect(database)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
    scans = [step for step in plan if step.startswith(("SCAN request_traces", "SEARCH request_traces"))]
    assert scans
    assert all(" INDEX traces_" in step for step in scans), plan
