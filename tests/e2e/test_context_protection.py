"""A num_ctx that the loaded context serves as well must not make a node reload its model."""

import httpx
import pytest

from herd.sim import SimConfig, SimModel
from tests.e2e.conftest import started
from tests.harness import until

MODEL = SimModel("llama3.2:3b", loaded_context=4096)


@pytest.fixture(params=["strip", "off"])
def guarded(tmp_path, request):
    """One node, and a router that protects its context or does not."""
    config = SimConfig("only", models=(MODEL,), preload=("llama3.2:3b",))
    fleet = started(tmp_path / "fleet", config, HERD_CONTEXT_PROTECTION=request.param)
    fleet.mode = request.param
    yield fleet
    fleet.nodes.stop()
    fleet.router.stop()


def ask(fleet, num_ctx):
    body = {"model": "llama3.2:3b", "prompt": "Hi", "stream": False, "options": {"num_ctx": num_ctx}}
    answer = httpx.post(fleet.url + "/api/generate", json=body, timeout=20).raise_for_status()
    return answer.headers["x-request-id"]


def known_context(fleet):
    (node,) = fleet.router.get("/fleet/status")["nodes"]
    return [model["context_length"] for model in node["ollama"]["models_loaded"]]


def test_a_context_that_was_loaded_on_request_is_kept_for_requests_that_need_less(guarded):
    """Left out, the engine would take its default for it and reload; so the loaded one is named."""
    ask(guarded, 16384)
    until(lambda: known_context(guarded) == [16384], "the router knows the larger context")
    loads = guarded.nodes.nodes["only"].state()["loads"]
    request_id = ask(guarded, 2048)
    reloaded = guarded.nodes.nodes["only"].state()["loads"] != loads
    assert reloaded is (guarded.mode == "off")
    told = any(line["event"].startswith("Context protection: ") for line in guarded.router.told(request_id))
    assert told is (guarded.mode == "strip")
