"""What an agent says of a real engine is what the engine says of itself, and it is said at once."""

import httpx
import pytest

from tests.harness import until
from tests.real.asks import post
from tests.real.engines import Agent, LlamaServer, Ollama

pytestmark = pytest.mark.real


def loaded(fleet, node_id):
    """The context of each loaded model that the router knows of."""
    return {model["name"]: model["context_length"] for model in fleet.node(node_id)["ollama"]["models_loaded"]}


def test_an_agent_beside_ollama_tells_its_version_models_and_slots(fleet):
    """Routing builds on these; a guess in place of one of them would be wrong on some machine."""
    engine = fleet.node("olla")["ollama"]
    assert engine["version"] == httpx.get(fleet.ollama.url + "/api/version").json()["version"]
    assert (engine["engine"], engine["reachable"], engine["error"], engine["slots"]) == ("ollama", True, None, 2)
    assert {"tiny:latest", "solo:latest", "slow:latest"} <= set(engine["models_available"])


def test_an_agent_beside_llamacpp_tells_its_build_names_context_and_slots(fleet):
    """Its one model has several names, and a context that belongs to each slot."""
    engine = fleet.node("cpp")["ollama"]
    props = httpx.get(fleet.llamas["cpp"].url + "/props").json()
    assert (engine["engine"], engine["version"]) == ("llamacpp", props["build_info"])
    assert (engine["reachable"], engine["slots"]) == (True, props["total_slots"])
    assert engine["models_available"] == ["cpp:latest", "tiny:latest"]
    assert set(loaded(fleet, "cpp").values()) == {props["default_generation_settings"]["n_ctx"]}


def test_a_load_and_an_unload_behind_the_routers_back_are_told_at_once(fleet):
    """Somebody uses Ollama directly; the router must know what is warm all the same."""
    fleet.ollama.create("fresh", fleet.tiny, "PARAMETER num_ctx 1536")
    until(lambda: "fresh:latest" in fleet.node("olla")["ollama"]["models_available"], "the new model is known")
    post(fleet.ollama.url, "/api/generate", "fresh")
    until(lambda: loaded(fleet, "olla").get("fresh:latest") == 1536, "the load is known, with its context")
    post(fleet.ollama.url, "/api/generate", "fresh", keep_alive=0)
    until(lambda: "fresh:latest" not in loaded(fleet, "olla"), "the unload is known")
    assert {"model_added", "model_loaded"} <= {kind for kind in ("model_added", "model_loaded") if fleet.events(kind)}


def test_what_is_on_disk_and_what_fits_comes_with_its_true_size(fleet):
    """Sizes decide whether a model fits; Ollama's and llama.cpp's are in different places."""
    listed = {model["name"]: model for model in httpx.get(fleet.url + "/api/tags").json()["models"]}
    direct = {model["name"]: model for model in httpx.get(fleet.ollama.url + "/api/tags").json()["models"]}
    assert {key: value for key, value in listed["solo:latest"].items() if key != "nodes"} == direct["solo:latest"]
    assert listed["cpp"]["size"] == httpx.get(fleet.llamas["cpp"].url + "/v1/models").json()["data"][0]["meta"]["size"]


def test_a_llamacpp_server_that_is_still_loading_is_not_offered_work(fleet, slow_model, tmp_path):
    """Its port is open from the start, and every request would be refused with a 503."""
    server, agent = LlamaServer(tmp_path / "late"), Agent(tmp_path / "agent", "late")
    try:
        agent.start(fleet.url, server)
        until(lambda: any(n["node_id"] == "late" for n in fleet.router.get("/fleet/status")["nodes"]), "it has joined")
        assert fleet.node("late")["ollama"]["reachable"] is False
        server.start(slow_model, "late")
        until(lambda: fleet.node("late")["ollama"]["reachable"], "the agent sees the server")
        assert loaded(fleet, "late") == {"late": 4096}
    finally:
        agent.stop()
        server.stop()
    assert fleet.node("late")["status"] == "offline"


def test_an_ollama_that_was_told_nothing_of_parallel_requests_has_one_slot(fleet, tmp_path):
    """Four requests sent to one slot wait where no other node can take them."""
    server, agent = Ollama(tmp_path / "plain"), Agent(tmp_path / "agent", "plain")
    try:
        server.start()
        agent.start(fleet.url, server)
        until(lambda: any(n["node_id"] == "plain" for n in fleet.router.get("/fleet/status")["nodes"]), "it has joined")
        assert fleet.node("plain")["ollama"]["slots"] == 1
    finally:
        agent.stop()
        server.stop()
