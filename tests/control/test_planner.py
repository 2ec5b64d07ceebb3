"""Plans for the page: made by a process of its own, one at a time, and not for ever."""

import asyncio
import json
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI

from herd.jobs.planner import MOST_WAITING, Planner
from herd.routes import plan
from tests.planning.lived import kept


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where two nodes and sixty requests are on record, all of them of a past year."""
    return kept(tmp_path_factory.mktemp("planner"))


@pytest.fixture
async def get(data_dir):
    """GET /dashboard/api/plan: status and document."""
    app = FastAPI()
    app.state.surface = SimpleNamespace(planner=Planner(data_dir))
    app.include_router(plan.router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://herd") as client:

        async def answer(**query):
            response = await client.get("/dashboard/api/plan", params=query)
            return response.status_code, response.json()

        yield answer


async def test_a_plan_is_the_commands_own_answer(data_dir):
    """One engine, one answer."""
    planned = await Planner(data_dir).plan(["--traffic=x2", "--since=2020-01-01"])
    assert (planned.status, planned.error) == (200, "")
    assert json.loads(planned.body)["after"]["requests"] == 120


async def test_the_api_hands_each_parameter_on_and_says_what_the_command_says(get):
    """A value is one word of the command line, whatever stands in it."""
    assert await get(add_node="RTX 3091, 24 GB --json") == (400, {
        "error": "--add-node: 'RTX 3091, 24 GB --json' names no memory: it should be like `RTX 3090, 24 GB`"
    })  # fmt: skip
    status, document = await get(slots="8", days=30)
    assert (status, "0 requests" in document["error"]) == (409, True)


@pytest.mark.parametrize(
    "wrong", [{"traffic": "-1"}, {"share": "2"}, {"days": "0"}, {"limit": "1000000"}, {"nope": "1"}]
)
async def test_what_would_be_unbounded_work_is_refused_by_the_parameters(get, wrong):
    """A page must not be able to keep a core busy for hours."""
    assert (await get(**wrong))[0] == 422


async def test_a_plan_that_takes_too_long_is_ended(data_dir):
    """And its process with it: it is waited for before the answer goes out."""
    planned = await Planner(data_dir, patience_s=0.001).plan(["--traffic=x100", "--since=2020-01-01"])
    assert (planned.status, "a shorter window" in planned.error) == (504, True)


async def test_few_wait_for_their_turn_and_more_are_sent_away(data_dir):
    """Each would take a core for seconds."""
    planner = Planner(data_dir, patience_s=0.001)
    asked = [planner.plan(["--slots=8"]) for _ in range(MOST_WAITING + 1)]
    assert [each.status for each in await asyncio.gather(*asked)] == [504] * MOST_WAITING + [503]
