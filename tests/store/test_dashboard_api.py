"""The read API: shapes as in the contract, wrong parameters named, and JSON whatever a client once sent."""

import json
import sqlite3
import time
from contextlib import closing
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from herd.core.signals import SIGNALS
from herd.routes import dashboard_api
from tests.store import builders

NOON = builders.NOON


@pytest.fixture
async def get(reader):
    """GET a path below /dashboard/api: status and document."""
    app = FastAPI()
    app.state.surface = SimpleNamespace(reader=reader)
    app.include_router(dashboard_api.router)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://herd/dashboard/api") as client:

        async def answer(path, **query):
            response = await client.get(path, params=query)
            assert response.content.isascii()
            return response.status_code, response.json()

        yield answer


async def test_a_router_that_has_served_nothing_answers_with_nothing(get):
    """An empty page is no error."""
    assert await get("/traces") == (200, {"traces": [], "next_cursor": None, "searched_until": None})
    for path in ("/apps", "/apps/daily", "/usage"):
        assert await get(path) == (200, {"days": 7, "data": [], "relative_error": 0.0})


async def test_traces_have_the_fields_that_operators_were_promised(get, keep):
    """Scripts read them by name."""
    keep(builders.finished("r", tags=("prod",)))
    status, document = await get("/traces", limit=20)
    (trace,) = document["traces"]
    promised = {
        "request_id", "model", "original_model", "node_id", "score", "scores_breakdown", "status", "latency_ms",
        "time_to_first_token_ms", "prompt_tokens", "completion_tokens", "retry_count", "fallback_used", "tags",
    }  # fmt: skip
    assert status == 200
    assert promised <= trace.keys()
    assert set(trace["scores_breakdown"]) == {*SIGNALS, "total"}
    assert (trace["tags"], trace["fallback_used"], trace["stream"]) == (["prod"], False, True)


async def test_pages_are_turned_by_the_cursor(get, keep):
    """As printed in the answer, so it must go into the next question."""
    keep(*(builders.finished(f"r{number}", at=NOON + number / 3) for number in range(5)))
    _, first = await get("/traces", limit=3)
    _, second = await get("/traces", limit=3, cursor=first["next_cursor"])
    assert [row["request_id"] for row in (*first["traces"], *second["traces"])] == ["r4", "r3", "r2", "r1", "r0"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status": "failed"}, {"lost"}),
        ({"model": "qwen3:8b"}, {"other"}),
        ({"node_id": "bob"}, {"bobs"}),
        ({"tag": "prod"}, {"bobs"}),
        ({"min_latency_ms": "1500"}, {"bobs", "lost"}),
        ({"q": "refused"}, {"lost"}),
        ({"since": str(NOON + 20)}, {"other", "lost"}),
        ({"since": "2026-01-07T12:00:20Z"}, {"other", "lost"}),
        ({"since": "2026-01-07T14:00:20+02:00"}, {"other", "lost"}),
        ({"since": "2026-01-07T14:00:20 02:00"}, {"other", "lost"}),
        ({"since": "2026-01-07T12:00:20"}, {"other", "lost"}),
        ({"since": "2026-01-07 12:00:20"}, {"other", "lost"}),
        ({"until": "2026-01-07T12:00:20Z"}, {"bobs"}),
        ({"since": "2026-01-08"}, set()),
    ],
)
async def test_each_filter_reaches_the_store(get, keep, query, expected):
    """A parameter that is quietly ignored shows everything, and looks like an answer."""
    keep(
        builders.finished("bobs", at=NOON, node_id="bob", tags=("prod",), latency_s=9.0),
        builders.finished("other", at=NOON + 20, model="qwen3:8b", latency_s=1.0),
        builders.failed("lost", at=NOON + 30),
    )
    status, document = await get("/traces", **query)
    assert (status, {row["request_id"] for row in document["traces"]}) == (200, expected)


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/traces", {"limit": "0"}, "limit"),
        ("/traces", {"limit": "1001"}, "limit"),
        ("/traces", {"limit": "many"}, "limit"),
        ("/traces", {"status": "broken"}, "status"),
        ("/traces", {"since": "yesterday"}, "since"),
        ("/traces", {"since": "nan"}, "since"),
        ("/traces", {"until": "1e999"}, "until"),
        ("/traces", {"until": ""}, "until"),
        ("/traces", {"min_latency_ms": "-1"}, "min_latency_ms"),
        ("/traces", {"min_latency_ms": "inf"}, "min_latency_ms"),
        ("/traces", {"cursor": "elsewhere"}, "cursor"),
        ("/traces", {"q": "x" * 257}, "q"),
        ("/traces", {"model": ""}, "model"),
        ("/apps", {"days": "0"}, "days"),
        ("/apps/daily", {"days": "366"}, "days"),
        ("/usage", {"days": "1.5"}, "days"),
        ("/traces", {"format": "xml"}, "format"),
        ("/apps", {"format": "CSV"}, "format"),
    ],
)
async def test_a_wrong_parameter_is_named(get, keep, path, query, field):
    """422 and which one: a default in its place would be an answer to another question."""
    keep(builders.finished())
    status, document = await get(path, **query)
    assert status == 422
    assert [problem["loc"] for problem in document["detail"]] == [["query", field]]


@pytest.mark.parametrize(
    ("path", "query", "field", "there"),
    [
        ("/traces", {"mdoel": "llama3.2:3b"}, "mdoel", "model"),
        ("/traces/r", {"limit": "1"}, "limit", "takes none"),
        ("/apps", {"hours": "24"}, "hours", "days"),
        ("/apps/daily", {"tags": "prod"}, "tags", "tag"),
        ("/trends", {"days": "1", "hours": "24"}, "days", "hours"),
        ("/latency", {"node": "ada"}, "node", "node_id"),
    ],
)
async def test_a_parameter_that_does_not_exist_is_named_with_those_that_do(get, keep, path, query, field, there):
    """A mistyped filter that is ignored shows everything, and looks like an answer."""
    keep(builders.finished("r"))
    status, document = await get(path, **query)
    (problem,) = document["detail"]
    assert (status, problem["loc"]) == (422, ["query", field])
    assert there in problem["msg"]


async def test_one_trace_shows_the_decision_with_all_signals_and_rejections(get, keep):
    """Why this node and no other, in one answer."""
    seen = builders.fleet(builders.node("ada"), builders.node("bob", loaded={}), builders.node("cyd", draining=True))
    keep(builders.finished("r", seen=seen, attempts=2))
    status, trace = await get("/traces/r")
    decision = trace["decision"]
    assert (status, trace["request_id"], [attempt["number"] for attempt in trace["attempts"]]) == (200, "r", [1, 2])
    assert [(entry["node_id"], set(entry["signals"])) for entry in decision["plan"]] == [
        ("ada", set(SIGNALS)), ("bob", set(SIGNALS)),
    ]  # fmt: skip
    assert decision["rejected"] == [{"node_id": "cyd", "model": "llama3.2:3b", "reason": "draining", "why": "draining"}]
    assert (decision["reason"], decision["replays"]) == ("model_loaded", True)
    assert decision["why"].startswith("The previous attempt failed, and ada was next in the plan. Predicted time to")
    assert decision["unit"] == "seconds"
    assert set(decision["plan"][0]["predicted"]) == {"queue_s", "load_s", "prefill_s", "decode_s"}


async def test_a_decision_that_cannot_be_replayed_is_not_said_to_replay(get, keep, database):
    """The word of proof must be able to fail."""
    keep(builders.finished("r"))
    with closing(sqlite3.connect(database)) as other, other:
        other.execute("UPDATE request_traces SET decision = json_set(decision, '$.decision.plan[0].total', 1.5)")
    assert (await get("/traces/r"))[1]["decision"]["replays"] is False


async def test_a_request_that_was_refused_has_no_decision_and_says_why(get, keep):
    """Null with a reason, not a broken page."""
    keep(builders.refused("bad"))
    status, trace = await get("/traces/bad")
    assert (status, trace["decision"], trace["attempts"]) == (200, None, [])
    assert "before anything was decided" in trace["decision_missing"]


async def test_an_unknown_request_is_a_404_that_says_what_may_be(get, keep):
    """The id may be right and the row not there yet, or no longer."""
    keep(builders.finished("r"))
    status, document = await get("/traces/nobody")
    assert (status, document["ids"]) == (404, [])
    assert "'nobody'" in document["error"]


async def test_the_beginning_of_an_id_leads_to_the_ids_that_begin_so(get, keep):
    """`herd explain` takes a beginning, and must not read a month for it."""
    keep(*(builders.finished(f"job-{number}") for number in range(12)), builders.finished("my-job-1"))
    status, document = await get("/traces/job-1")
    assert (status, document["request_id"]) == (200, "job-1")
    status, document = await get("/traces/job-")
    assert (status, len(document["ids"])) == (404, 10)
    assert all(each.startswith("job-") for each in document["ids"])


async def test_a_models_impossible_name_does_not_break_the_answer(get, keep):
    """A lone surrogate has no bytes in UTF-8, and a client may send one."""
    keep(builders.finished("r", model="\ud800bad:latest", tags=("caf\u00e9",)))
    status, trace = await get("/traces/r")
    assert (status, trace["tags"]) == (200, ["caf\u00e9"])
    assert trace["decision"]["request"]["model"] == "\ud800bad:latest"
    assert (await get("/traces"))[0] == 200


async def test_apps_and_usage_have_the_fields_of_the_contract(get, keep):
    """Names here do not change; anything may be added."""
    keep(builders.finished(at=time.time() - 5, tags=("prod",), attempts=2), builders.finished(at=time.time() - 5))
    app = {
        "tag", "request_count", "completed_count", "failed_count", "error_rate_pct", "avg_latency_ms",
        "p95_latency_ms", "avg_ttft_ms", "total_prompt_tokens", "total_completion_tokens", "first_seen", "last_seen",
    }  # fmt: skip
    apps, daily, usage = [(await get(path, days=3))[1] for path in ("/apps", "/apps/daily", "/usage")]
    assert (apps["days"], len(apps["data"]), len(daily["data"])) == (3, 1, 1)
    assert app <= apps["data"][0].keys()
    assert app | {"day"} <= daily["data"][0].keys()
    assert {"day", "node_id", "model", "retry_count", "fallback_count", "avg_ttft_ms"} <= usage["data"][0].keys()
    assert usage["data"][0]["request_count"] == 2


async def test_days_are_counted_back_from_now(get, keep):
    """A default of seven days must not show the eighth."""
    keep(builders.finished(at=time.time() - 8 * 86_400, tags=("old",)))
    assert (await get("/apps"))[1]["data"] == []
    assert [row["tag"] for row in (await get("/apps", days=9))[1]["data"]] == ["old"]


async def test_a_file_that_cannot_be_read_is_said_to_be_so(get, database):
    """503 with the reason, while requests go on being served."""
    database.parent.mkdir()
    database.write_bytes(json.dumps(["not", "a", "database"] * 100).encode())
    status, document = await get("/traces")
    assert status == 503
    assert "not a database" in document["error"]
