"""Loading, slots, queues, eviction, keep_alive: what a node does with more work than it can do at once."""

import asyncio
import json
import time

import pytest

from herd.sim import Fault, FaultKind, SimModel
from tests.sim.conftest import HELLO, LLAMA, NOMIC, QWEN, Wire, post, until

ONE_WORD = {"num_predict": 1}


def loaded(node):
    return {each["name"]: each["context"] for each in node.state()["loaded"]}


async def chat(http, node, **body):
    status, _, text = await post(http, node, "/api/chat", messages=HELLO, stream=False, **body)
    return status, json.loads(text)


async def test_a_load_takes_the_time_of_its_size_and_says_so(http, start):
    """Cold loads are told from warm requests by load_duration alone."""
    node = await start(load_bytes_per_s=4e9)
    _, cold = await chat(http, node)
    _, warm = await chat(http, node)
    assert cold["load_duration"] >= 0.5e9  # 2 GB at 4 GB a second
    assert warm["load_duration"] < cold["load_duration"] / 2
    assert node.engine.loads == 1


async def test_speed_runs_the_nodes_time_faster_than_the_walls(http, start):
    """Tests of slow machines must not be slow."""
    node = await start(tokens_per_s=1, speed=100_000)
    begun = time.monotonic()
    _, answer = await chat(http, node)
    assert answer["eval_count"] > 10
    assert time.monotonic() - begun < answer["eval_count"]


async def test_a_loading_model_is_not_listed_and_says_nothing(http, start):
    """Loading is silent: no header, no byte."""
    node = await start(load_bytes_per_s=1e6)
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        await until(lambda: node.state()["loaded"], "the load begins")
        async with http.get(f"{node.url}/api/ps") as got:
            assert await got.json() == {"models": []}
        assert await wire.silent()


async def test_a_client_that_leaves_while_its_model_loads_aborts_the_load(start):
    """A router that gives up and goes elsewhere starts from zero there, and nothing is left here."""
    node = await start(load_bytes_per_s=1e6)
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        await until(lambda: node.state()["pending"], "the load begins")
    await until(lambda: not node.state()["loaded"], "the load is aborted")
    assert (node.state()["aborted"], node.state()["pending"]) == ({"/api/chat": 1}, 0)


async def test_no_more_requests_of_a_model_run_than_it_has_slots(start):
    """The others wait in the engine, without a byte, and without a limit."""
    node = await start(slots=2)
    node.script(*[Fault(FaultKind.HANG_MID_STREAM)] * 5)
    async with asyncio.TaskGroup() as group:
        wires = [Wire(node) for _ in range(5)]
        for wire in wires:
            await wire.__aenter__()
            group.create_task(wire.send("/api/chat"))
    await until(lambda: node.state()["loaded"] and node.state()["loaded"][0]["waiting"] == 3, "three wait")
    assert node.state()["loaded"][0]["working"] == 2
    for wire in wires:
        await wire.__aexit__()
    await until(lambda: not node.state()["in_flight"], "all slots come back")
    assert node.state()["aborted"] == {"/api/chat": 5}


async def test_a_client_that_leaves_frees_its_slot_for_the_next(http, start):
    """A slot that is lost with its client is lost for good."""
    node = await start(slots=1)
    node.script(Fault(FaultKind.HANG_MID_STREAM))
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        await wire.head()
        waiting = asyncio.create_task(chat(http, node))
        await until(lambda: node.state()["loaded"][0]["waiting"] == 1, "the second waits")
    assert (await waiting)[0] == 200


async def test_a_client_that_leaves_while_it_waits_takes_no_slot(http, start):
    """Whoever waited behind it must not wait for a ghost."""
    node = await start(slots=1)
    node.script(Fault(FaultKind.HANG_MID_STREAM))
    async with Wire(node) as holder:
        await holder.send("/api/chat")
        await holder.head()
        async with Wire(node) as leaver:
            await leaver.send("/api/chat")
            await until(lambda: node.state()["loaded"][0]["waiting"] == 1, "it waits")
        await until(lambda: node.state()["loaded"][0]["waiting"] == 0, "it is gone")
        await node.clear()
    assert (await chat(http, node))[0] == 200


async def test_an_embedding_model_has_one_slot(http, start):
    """As in Ollama, whatever OLLAMA_NUM_PARALLEL says."""
    node = await start(slots=4)
    await post(http, node, "/api/embed", model=NOMIC.name, input="x")
    await chat(http, node)
    assert {each.model.name: each.slots._value for each in node.engine} == {NOMIC.name: 1, LLAMA.name: 4}


async def test_too_many_requests_for_a_load_are_refused(http, start):
    """Only those that need a load: for a loaded model there is no limit."""
    node = await start(load_bytes_per_s=1e6, max_queue=1)
    async with Wire(node) as first:
        await first.send("/api/chat")
        await until(lambda: node.state()["pending"], "one is pending")
        status, body = await chat(http, node, model=QWEN.name)
    busy = "server busy, please try again.  maximum pending requests exceeded"
    assert (status, body) == (503, {"error": busy})


@pytest.mark.parametrize("options", [{"num_ctx": 8192}, {"num_ctx": 2048}, {"num_thread": 2}, {"use_mmap": False}])
async def test_other_load_options_reload_the_model_and_so_does_leaving_them_out(http, start, options):
    """Tens of seconds in life: what context protection is for."""
    node = await start()
    for asked, loads in (({}, 1), (options, 2), (options, 2), ({}, 3)):
        await chat(http, node, options={**ONE_WORD, **asked})
        assert node.engine.loads == loads


async def test_options_that_are_not_of_the_load_reload_nothing(http, start):
    """Sampling is a request's own business."""
    node = await start()
    for options in ({}, {"temperature": 0.1}, {"seed": 3, "num_predict": 2}, {"num_gpu": -1}):
        await chat(http, node, options=options)
    assert node.engine.loads == 1


async def test_the_openai_dialect_cannot_say_num_ctx_and_reloads_to_the_default(http, start):
    """Two clients in two dialects can make a node reload all day."""
    node = await start()
    await chat(http, node, options={"num_ctx": 16_384})
    assert loaded(node) == {LLAMA.name: 16_384}
    await post(http, node, "/v1/chat/completions", messages=HELLO, options={"num_ctx": 16_384})
    assert loaded(node) == {LLAMA.name: 4096}


async def test_a_context_over_the_models_own_is_cut_and_does_not_reload_again(http, start):
    """Clients ask for a million tokens and mean `as many as you can`."""
    node = await start(models=(SimModel("small:1b", context_length=8192),))
    for _ in range(2):
        await chat(http, node, model="small:1b", options={"num_ctx": 999_999})
    assert (loaded(node), node.engine.loads) == ({"small:1b": 8192}, 1)


async def test_a_reload_waits_for_the_requests_under_way(http, start):
    """Streams are not cut; whoever asked for the reload waits."""
    node = await start()
    node.script(Fault(FaultKind.HANG_MID_STREAM))
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        await wire.head()
        reload = asyncio.create_task(chat(http, node, options={"num_ctx": 8192}))
        await until(lambda: node.state()["pending"] == 1, "the reload is asked for")
        assert loaded(node) == {LLAMA.name: 4096}
        await node.clear()
        assert (await reload)[0] == 200
    assert loaded(node) == {LLAMA.name: 8192}


async def test_an_idle_model_makes_room_when_memory_is_short(http, start):
    """A node holds more on disk than in memory."""
    node = await start(memory_gb=8)
    await chat(http, node)
    await chat(http, node, model=QWEN.name)
    assert list(loaded(node)) == [QWEN.name]


async def test_models_that_fit_together_stay_together(http, start):
    """Eviction without need is what model thrashing is."""
    node = await start(memory_gb=32)
    await chat(http, node)
    await chat(http, node, model=QWEN.name)
    assert set(loaded(node)) == {LLAMA.name, QWEN.name}


async def test_no_more_models_are_loaded_than_max_loaded(http, start):
    """OLLAMA_MAX_LOADED_MODELS holds even where memory would not mind."""
    node = await start(memory_gb=256, max_loaded=1)
    await chat(http, node)
    await chat(http, node, model=QWEN.name)
    assert len(loaded(node)) == 1


async def test_what_can_never_fit_is_an_error_that_names_both_sizes(http, start):
    """The operator's question is `how much is missing?`."""
    node = await start(memory_gb=4, models=(SimModel("big:70b", size_gb=43),))
    status, body = await chat(http, node, model="big:70b")
    assert status == 500
    assert body["error"].startswith("model requires more system memory (")
    assert not loaded(node)


async def test_gpu_memory_is_filled_first_and_the_rest_goes_to_main_memory(http, start):
    """A model that is half on the GPU is slow; `size_vram` is how one sees it."""
    node = await start(memory_gb=64, vram_gb=24, models=(LLAMA, SimModel("big:70b", size_gb=43)))
    await chat(http, node)
    async with http.get(f"{node.url}/api/ps") as got:
        small = (await got.json())["models"][0]
    assert small["size_vram"] == small["size"]
    await chat(http, node, model="big:70b")
    async with http.get(f"{node.url}/api/ps") as got:
        (big,) = (await got.json())["models"]  # the small one had to make room
    assert 0 < big["size_vram"] < big["size"]


async def test_keep_alive_unloads_an_idle_model_when_it_is_over(http, start):
    """Five minutes by default; a request may say otherwise, in seconds or as a duration."""
    node = await start(speed=10)
    await chat(http, node, keep_alive="10s")
    assert loaded(node)
    await until(lambda: not loaded(node), "ten seconds of the node's time are over")


async def test_keep_alive_0_unloads_after_the_answer_and_minus_1_never(http, start):
    """Both are in common use."""
    node = await start(speed=1000)
    assert (await chat(http, node, keep_alive=0))[0] == 200
    assert not loaded(node)
    await chat(http, node, keep_alive=-1)
    async with http.get(f"{node.url}/api/ps") as got:
        assert (await got.json())["models"][0]["expires_at"] > "2300"


async def test_every_request_starts_keep_alive_anew(http, start):
    """A model in use does not go."""
    node = await start()
    await chat(http, node)
    first = node.state()["loaded"][0]["expires_at"]
    await chat(http, node)
    assert node.state()["loaded"][0]["expires_at"] > first


async def test_an_unload_waits_for_the_requests_under_way(http, start):
    """It is answered at once; the model goes when its last request is over."""
    node = await start()
    node.script(Fault(FaultKind.HANG_MID_STREAM))
    async with Wire(node) as wire:
        await wire.send("/api/chat")
        await wire.head()
        _, _, body = await post(http, node, "/api/generate", keep_alive=0)
        assert json.loads(body)["done_reason"] == "unload"
        assert loaded(node)
        await node.clear()
    await until(lambda: not loaded(node), "the model is gone")


async def test_a_deleted_model_stays_in_memory_until_it_expires(http, start):
    """Disk and memory are two lists."""
    node = await start()
    await chat(http, node)
    async with http.delete(f"{node.url}/api/delete", json={"model": LLAMA.name}) as got:
        assert (got.status, await got.read()) == (200, b"")
    assert loaded(node)
    assert (await chat(http, node))[0] == 404


async def test_what_is_preloaded_is_in_memory_from_the_start(http, start):
    """A warm node must not have to be warmed by a request that is then counted."""
    node = await start(preload=(LLAMA.name,), load_bytes_per_s=1e6)
    assert loaded(node) == {LLAMA.name: 4096}
    assert (await chat(http, node))[0] == 200
    assert node.engine.loads == 0


async def test_a_conversation_that_goes_on_is_read_faster(http, start):
    """The prompt's beginning is in the cache of the node that answered last: that is what affinity is for."""
    node = await start(tokens_per_s=1e6, prefill_tokens_per_s=2_000, load_bytes_per_s=0)
    told = [{"role": "user", "content": "a long story " * 200}]
    first = json.loads((await post(http, node, "/api/chat", messages=told, stream=False))[2])
    told += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "and then?"}]
    second = json.loads((await post(http, node, "/api/chat", messages=told, stream=False))[2])
    assert second["prompt_eval_count"] > first["prompt_eval_count"]
    assert second["prompt_eval_duration"] < first["prompt_eval_duration"]


async def test_names_of_the_same_weights_share_what_is_loaded_under_the_name_that_came_first(http, start):
    """As in Ollama: `cp` costs neither disk nor memory."""
    node = await start()
    await chat(http, node)
    await post(http, node, "/api/copy", source=LLAMA.name, destination="copied:1b")
    await post(http, node, "/api/create", model="derived:1b", **{"from": LLAMA.name})
    for name in ("copied:1b", "derived:1b"):
        _, answer = await chat(http, node, model=name)
        assert answer["model"] == name
    assert (node.engine.loads, list(loaded(node))) == (1, [LLAMA.key])
