"""The tables of the page: their shapes, their filters, and the same as a file for a spreadsheet."""

import csv
import io
import json
import re
import time
import urllib.parse
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from herd.core.events import Status
from herd.routes import dashboard_api
from herd.store.cells import MEASURES
from herd.store.rows import TRACE_COLUMNS
from tests.store import builders

TABLES = ("apps", "apps/daily", "usage", "models", "trends", "latency")
HOUR_S = 3_600
NOON = builders.NOON


@pytest.fixture
async def ask(reader):
    """GET a path below /dashboard/api."""
    app = FastAPI()
    app.state.surface = SimpleNamespace(reader=reader)
    app.include_router(dashboard_api.router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://herd/dashboard/api/") as client:

        async def answer(path, **query):
            return await client.get(path, params=query)

        yield answer


@pytest.fixture
def busy(keep):
    """Two nodes, two models and two tags within the last hours; a failure, and a request that nobody took."""
    now = time.time()
    keep(
        builders.finished(at=now - 60, node_id="ada", tags=("prod",), latency_s=2.0, ttft_s=0.5),
        builders.finished(at=now - 90, node_id="bob", tags=("prod", "batch"), latency_s=4.0, ttft_s=1.0),
        builders.finished(at=now - 7_300, node_id="bob", model="qwen3:8b", latency_s=1.0),
        builders.failed(at=now - 30, node_id="bob", tags=("batch",)),
        builders.refused(at=now - 20),
    )


def counted(document, path):
    """How many requests a table tells."""
    rows = [document["total"]] if path == "latency" else document["data"]
    return sum(row["request_count"] for row in rows)


async def test_trends_have_every_hour_of_the_window_and_all_of_its_requests(ask, busy):
    """A gap in a chart must be an hour without requests, not an hour without a row."""
    document = (await ask("trends", hours=5)).json()
    hours = [row["hour"] for row in document["data"]]
    assert hours == list(range(hours[0], hours[0] + len(hours) * HOUR_S, HOUR_S))
    assert (len(hours), hours[0] % HOUR_S, counted(document, "trends")) == (6, 0, 5)
    empty = [row for row in document["data"] if not row["request_count"]]
    assert all(row["p95_latency_ms"] is None and row["error_rate_pct"] is None for row in empty)


async def test_an_hour_that_lies_before_the_window_does_not_count(ask, busy):
    """`hours=1` is the last hour, wherever the clock's hour begins."""
    document = (await ask("trends", hours=1)).json()
    assert (len(document["data"]), counted(document, "trends")) == (2, 4)


async def test_latency_tells_percentiles_of_five_measures_by_model_and_by_node(ask, busy):
    """An average hides the requests that people complain about."""
    document = (await ask("latency", hours=24)).json()
    names = {f"p{percent}_{measure}_ms" for percent in (50, 75, 95, 99) for measure in MEASURES}
    assert names <= document["total"].keys()
    assert (document["hours"], document["relative_error"], document["total"]["p50_latency_ms"]) == (24, 0.0, 2000.0)
    assert [(row["node_id"], row["request_count"]) for row in document["by_node"]] == [
        ("bob", 3),
        (None, 1),
        ("ada", 1),
    ]
    assert {row["model"]: row["p99_latency_ms"] for row in document["by_model"]} == {
        "llama3.2:3b": 4000.0, "qwen3:8b": 1000.0, None: None,
    }  # fmt: skip


async def test_within_a_tag_percentiles_that_are_said_to_be_exact_are(ask, busy):
    """An error of 0.0 beside a value from a bucket is a false promise."""
    document = (await ask("latency", hours=24, tag="prod")).json()
    told = [row["p99_latency_ms"] for row in (document["total"], *document["by_model"])]
    assert (document["relative_error"], told) == (0.0, [4000.0, 4000.0])


async def test_models_tell_how_much_and_how_well_they_served(ask, busy):
    """Which model to keep is a question of requests, errors, speed and tokens at once."""
    first = (await ask("models", days=7)).json()["data"][0]
    assert (first["model"], first["request_count"], first["failed_count"]) == ("llama3.2:3b", 3, 1)
    assert (first["error_rate_pct"], first["p50_ttft_ms"], first["total_completion_tokens"]) == (33.33, 500.0, 80)
    assert first["p95_time_per_output_token_ms"] == pytest.approx(3000 / 39, abs=0.001)


@pytest.mark.parametrize("path", TABLES)
async def test_every_table_means_the_same_by_the_error_rate(ask, busy, path, keep):
    """Two pages that differ about the same hour are both doubted."""
    now = time.time()
    left, broken = (Status.CLIENT_DISCONNECTED, Status.INCOMPLETE)
    keep(*(builders.finished(at=now - 40, tags=("prod",), status=status) for status in (left, broken)))
    told = (await ask(path)).json()
    rows = [told["total"], *told["by_model"], *told["by_node"]] if path == "latency" else told["data"]
    for row in rows:
        bad = row["failed_count"] + row["incomplete_count"]
        judged = row["completed_count"] + bad
        assert row["error_rate_pct"] == (round(100 * bad / judged, 2) if judged else None)
    assert any(row["incomplete_count"] and row["client_disconnected_count"] for row in rows)


@pytest.mark.parametrize("path", TABLES)
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, 5),
        ({"node_id": "bob"}, 3),
        ({"model": "llama3.2:3b"}, 3),
        ({"model": "qwen3:8b", "node_id": "ada"}, 0),
        ({"tag": "batch"}, 2),
        ({"tag": "prod", "node_id": "bob"}, 1),
        ({"tag": "nobody"}, 0),
    ],
)
async def test_each_filter_reaches_each_table(ask, busy, path, query, expected):
    """A filter that is quietly ignored shows everything, and looks like an answer."""
    found = counted((await ask(path, **query)).json(), path)
    if path.startswith("apps") and "tag" not in query:
        assert found == {(): 4, ("node_id",): 3, ("model",): 4}.get(tuple(query), 0)
    else:
        assert found == expected


async def test_a_model_is_found_by_its_short_name_too(ask, keep):
    """`m` is `m:latest` everywhere else."""
    keep(builders.finished(at=time.time() - 5, model="phi4:latest"))
    assert counted((await ask("models", model="phi4")).json(), "models") == 1


@pytest.mark.parametrize("path", TABLES)
async def test_every_table_is_a_csv_file_with_a_header_and_the_same_rows(ask, busy, path):
    """A spreadsheet is where such a table ends up."""
    answer = await ask(path, format="csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="herd-{path.replace("/", "-")}.csv"'
    document = (await ask(path)).json()
    told = [document["total"], *document["by_model"], *document["by_node"]] if path == "latency" else document["data"]
    assert [row["request_count"] for row in rows] == [str(row["request_count"]) for row in told]
    assert set(told[0]) <= set(rows[0])


@pytest.mark.parametrize("path", TABLES)
async def test_a_table_without_rows_has_its_header_all_the_same(ask, path):
    """An import into a sheet relies on the columns."""
    lines = (await ask(path, format="csv")).text.splitlines()
    assert "request_count" in lines[0].split(",")
    assert len(lines) == {"trends": 26, "latency": 2}.get(path, 1)


@pytest.mark.parametrize("tag", ["=1+2", "+cmd", "-2", "@SUM(A1)", "fine"])
async def test_a_cell_that_a_spreadsheet_would_compute_is_text(ask, keep, tag):
    """Tags are whatever a client sends, and a spreadsheet runs what begins with these."""
    keep(builders.finished(at=time.time() - 5, tags=(tag,)))
    (row,) = csv.DictReader(io.StringIO((await ask("apps", format="csv")).text))
    assert row["tag"] == (tag if tag == "fine" else f"'{tag}")


async def test_traces_are_a_csv_file_of_the_list_with_its_filters_limit_and_next_page(ask, keep):
    """Whoever asked for a file got JSON, and a spreadsheet opened it without a word."""
    keep(*(builders.finished(f"r{number}", at=NOON + number, tags=("=1+2", "b")) for number in range(4)))
    keep(builders.failed("lost", at=NOON + 9, error_message="@SUM(A1)"))
    answer = await ask("traces", format="csv", status="completed", limit=3)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-disposition"] == 'attachment; filename="herd-traces.csv"'
    assert (tuple(rows[0]), [row["request_id"] for row in rows]) == (TRACE_COLUMNS, ["r3", "r2", "r1"])
    assert (rows[0]["tags"], rows[0]["stream"], rows[0]["error_type"]) == ("'=1+2 b", "true", "")
    assert json.loads(rows[0]["scores_breakdown"])["total"] == -float(rows[0]["score"])
    after = re.fullmatch(r'<\?(.+)>; rel="next"', answer.headers["link"])[1]
    rest = await ask("traces", **dict(urllib.parse.parse_qsl(after)))
    assert [row["request_id"] for row in csv.DictReader(io.StringIO(rest.text))] == ["r0"]
    assert "link" not in rest.headers
    (lost,) = csv.DictReader(io.StringIO((await ask("traces", format="csv", status="failed")).text))
    assert lost["error_message"] == "'@SUM(A1)"


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("trends", {"hours": "0"}, "hours"),
        ("latency", {"hours": "many"}, "hours"),
        ("models", {"days": "366"}, "days"),
        ("usage", {"format": "xml"}, "format"),
        ("apps", {"tag": ""}, "tag"),
    ],
)
async def test_a_wrong_parameter_of_a_table_is_named(ask, path, query, field):
    """A default in its place would be an answer to another question."""
    answer = await ask(path, **query)
    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["query", field]]


async def test_cold_loads_are_counted_and_timed(ask, keep):
    """A fleet that reloads models all day looks slow, and this says why."""
    slow = builders.Usage(20, 40, source="reported", load_s=8.0)
    warm = builders.Usage(20, 40, source="reported", load_s=0.02)
    keep(*(builders.finished(at=time.time() - 5, usage=usage) for usage in (slow, warm, warm)))
    total = (await ask("latency")).json()["total"]
    assert (total["cold_load_count"], total["avg_cold_load_ms"]) == (1, 8000.0)


async def test_only_completed_requests_have_a_latency(ask, keep):
    """A request that a client left after an hour says nothing about the node."""
    now = time.time()
    keep(builders.finished(at=now - 5, latency_s=1.0))
    keep(builders.finished(at=now - 5, status=Status.CLIENT_DISCONNECTED, latency_s=3000.0))
    assert (await ask("latency")).json()["total"]["p99_latency_ms"] == 1000.0


@pytest.mark.parametrize("query", [{}, {"tag": "prod"}])
async def test_the_parts_of_latency_add_up_to_the_whole(ask, busy, query):
    """By model and by node are two ways to cut the same requests."""
    document = (await ask("latency", **query)).json()
    for part in ("by_model", "by_node"):
        assert sum(row["request_count"] for row in document[part]) == document["total"]["request_count"]
