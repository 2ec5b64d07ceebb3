"""Another model answers only where the client or the operator said so, and everyone can see that it did."""

import httpx
import pytest

from herd.sim import SimConfig, SimModel
from tests.e2e.conftest import started

HELLO = [{"role": "user", "content": "Hello"}]
LARGE, SMALL, OTHER = SimModel("large:70b", size_gb=40.0), SimModel("small:8b", size_gb=5.0), SimModel("other:8b")


@pytest.fixture(scope="module")
def warm_small(tmp_path_factory):
    """The large model is cold, the small one is loaded, and the operator calls them equivalent."""
    machine = SimConfig("only", memory_gb=64, models=(LARGE, SMALL, OTHER), preload=("small:8b",))
    home = tmp_path_factory.mktemp("warm")
    running = started(home, machine, HERD_EQUIVALENT_MODELS="large:70b = small:8b; absent = small:8b")
    yield running
    running.nodes.stop()
    running.router.stop()


def chat(fleet, model, **more):
    body = {"model": model, "messages": HELLO, "stream": False, **more}
    answer = httpx.post(fleet.url + "/api/chat", json=body, timeout=20)
    return answer, fleet.router.row(answer.headers["x-request-id"])


def test_an_operators_equivalent_that_is_loaded_answers_for_a_cold_model(warm_small):
    """Half a minute of loading is saved, and the row, the header and the metric say at what price."""
    answer, row = chat(warm_small, "large:70b")
    assert (answer.json()["model"], answer.headers["x-herd-fallback"]) == ("small:8b", "true")
    told = (row["original_model"], row["model"], row["fallback_used"], row["fallback_reason"])
    assert told == ("large:70b", "small:8b", 1, "loaded_alternative")
    assert warm_small.router.metric("herd_fallbacks_total", from_model="large:70b", to_model="small:8b") >= 1


def test_an_operators_equivalent_answers_for_a_model_that_no_node_has(warm_small):
    """As if the client had named it."""
    answer, row = chat(warm_small, "absent")
    assert answer.status_code == 200
    assert (row["model"], row["fallback_reason"]) == ("small:8b", "model_unavailable")


def test_a_model_without_an_equivalent_is_loaded_rather_than_replaced(warm_small):
    """Never a silent other model."""
    answer, row = chat(warm_small, "other:8b")
    assert (answer.json()["model"], answer.headers["x-herd-fallback"]) == ("other:8b", "false")
    assert (row["fallback_used"], row["fallback_reason"]) == (0, None)


def test_what_the_client_names_counts_before_what_the_operator_says(warm_small):
    """The client knows its question."""
    answer, row = chat(warm_small, "absent", fallback_models=["nor-this:1b"])
    assert answer.status_code == 404
    assert row["status"] == "rejected"


def test_an_empty_list_of_fallbacks_declines_what_the_operator_calls_equivalent(warm_small):
    """An evaluation of a model must be of that model, whoever runs the fleet."""
    answer, row = chat(warm_small, "absent", fallback_models=[])
    assert (answer.status_code, row["status"]) == (404, "rejected")
