"""What the agent reads from llama.cpp's server, in each of the server's moods."""

import pytest

from herd import wire
from node.engines.llamacpp import LlamaCppProbe


@pytest.fixture
async def probe(llamacpp):
    """A probe of the running llama.cpp server."""
    made = LlamaCppProbe(llamacpp.url)
    yield made
    await made.close()


async def test_a_loaded_server_is_one_model_with_its_slots_context_and_size(llamacpp, probe):
    """What it was started with is all that it will ever serve, so that is also the context on offer."""
    engine = await probe.snapshot()
    assert (engine.kind, engine.reachable, engine.slots, engine.version) == ("llamacpp", True, 2, "b1-abc")
    assert tuple(engine.endpoints) == wire.LLAMACPP_ENDPOINTS
    assert {(model.name, model.size_bytes, model.context_length) for model in (*engine.models, *engine.loaded)} == {
        ("tiny", 700, 2048),
        ("wee", 700, 2048),
    }
    assert "/slots" not in llamacpp.asked


async def test_a_server_that_still_loads_is_away_and_says_so(llamacpp, probe):
    """It answers every request with 503; sending it any would only cost a retry."""
    llamacpp.answers["/health"] = (503, {"error": {"message": "Loading model"}})
    engine = await probe.snapshot()
    assert (engine.reachable, engine.error) == (False, "llama.cpp: loading its model (503)")


async def test_a_server_that_reloads_keeps_its_models_listed(llamacpp, probe):
    """A model that will be back in a moment is not unknown to the fleet."""
    await probe.snapshot()
    llamacpp.answers["/health"] = (503, {})
    engine = await probe.snapshot()
    assert ([model.name for model in engine.models], engine.loaded) == (["tiny", "wee"], [])


async def test_a_sleeping_server_holds_its_model_on_disk_only(llamacpp, probe):
    """It frees its memory when idle and loads again on the next request: that is cold, not warm."""
    llamacpp.answers["/props"][1]["is_sleeping"] = True
    engine = await probe.snapshot()
    assert (len(engine.models), engine.loaded) == (2, [])


async def test_slots_are_counted_where_props_do_not_give_them(llamacpp, probe):
    """Older servers have /slots only."""
    llamacpp.answers["/props"] = (404, {})
    engine = await probe.snapshot()
    assert (engine.slots, engine.loaded[0].context_length) == (3, None)


async def test_the_option_serves_where_the_server_says_nothing(llamacpp):
    """Both pages can be switched off."""
    llamacpp.answers["/props"], llamacpp.answers["/slots"] = (501, {}), (501, {})
    probe = LlamaCppProbe(llamacpp.url, slots=6)
    assert (await probe.snapshot()).slots == 6
    await probe.close()


async def test_a_router_of_many_models_tells_loaded_from_known(llamacpp, probe):
    """Started without a model, the server lists a folder and loads on demand."""
    status = {"value": "loaded", "args": ["--hf-token", "secret"]}
    entries = [{"id": "a", "status": status, "meta": {"n_ctx": 512}}, {"id": "b", "status": {"value": "unloaded"}}]
    llamacpp.answers["/v1/models"] = (200, {"data": entries})
    llamacpp.answers["/props"] = (200, {"role": "router", "default_generation_settings": {"n_ctx": 0}})
    engine = await probe.snapshot()
    assert [model.name for model in engine.models] == ["a", "b"]
    assert [(model.name, model.context_length) for model in engine.loaded] == [("a", 512)]
    assert "secret" not in engine.model_dump_json()
    assert "/slots" not in llamacpp.asked


async def test_a_server_that_wants_a_key_is_away_with_that_reason(llamacpp, probe):
    """Neither agent nor router has the key, so no request could succeed there."""
    llamacpp.answers["/v1/models"] = (401, {"error": {"message": "Invalid API Key"}})
    engine = await probe.snapshot()
    assert not engine.reachable
    assert "API key" in engine.error


async def test_a_server_that_is_not_there_is_away(llamacpp, probe):
    """The seam's promise: never an exception."""
    await llamacpp.stop()
    engine = await probe.snapshot()
    assert (engine.reachable, engine.models) == (False, [])
    assert "llama-server" in engine.error


async def test_the_models_folder_is_where_the_model_came_from(llamacpp, probe):
    """Its disk is the one whose free space matters."""
    await probe.snapshot()
    assert str(probe.models_folder()) == "/models"
