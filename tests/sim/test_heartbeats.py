"""What a node tells its router, and when: the agent's part, against a real HTTP server that takes heartbeats."""

from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from herd import wire
from herd.sim import Fault, FaultKind
from tests.harness import free_port
from tests.sim.conftest import HELLO, LLAMA, NOMIC, Wire, post, until


class Listener:
    """A server that takes heartbeats as a router does: through `wire.Heartbeat`, or with a 422."""

    def __init__(self):
        self.heard: list[wire.Heartbeat] = []
        self.url = ""

    async def take(self, request):
        try:
            self.heard.append(wire.Heartbeat.model_validate_json(await request.read()))
        except ValueError as error:
            return web.Response(status=422, text=str(error))
        return web.json_response(wire.HeartbeatReply(router_version="0").model_dump())

    @property
    def last(self):
        return self.heard[-1]


@asynccontextmanager
async def listening(listener, port=0):
    app = web.Application()
    app.router.add_post("/heartbeat", listener.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    listener.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield listener
    finally:
        await runner.cleanup()


@pytest.fixture
async def router():
    async with listening(Listener()) as listener:
        yield listener


async def test_a_node_tells_the_address_that_others_reach_it_by(start, router):
    """In a container its own address is nobody else's."""
    await start(node_id="box", router_url=router.url, advertised_url="http://box.internal:11434")
    await until(lambda: router.heard, "the first heartbeat")
    assert router.last.engine.url == "http://box.internal:11434"


async def test_a_node_reports_at_once_and_says_what_it_is(start, router):
    """A fleet is there seconds after its start, not intervals after."""
    node = await start(node_id="box", router_url=router.url, interval_s=60, memory_gb=32, vram_gb=8, cores=4, slots=2)
    await until(lambda: router.heard, "the first heartbeat")
    beat = router.last
    assert (beat.node_id, beat.engine.url, beat.engine.slots, beat.cpu.cores) == ("box", node.url, 2, 4)
    assert beat.memory.total_bytes == 32 * 2**30
    assert [gpu.memory_total_bytes for gpu in beat.gpus] == [8 * 2**30]
    assert [model.name for model in beat.engine.models][:2] == ["llama3.2:3b", "qwen3:8b"]
    assert beat.engine.models[0].entry["details"]["parameter_size"] == "3.2B"
    assert set(beat.engine.endpoints) == set(wire.OLLAMA_ENDPOINTS)


async def test_a_llamacpp_node_says_that_it_speaks_v1_only(start, router):
    """A router must not send it `/api/chat`."""
    node = await start(engine="llamacpp", router_url=router.url)
    await until(lambda: node.engine.ready and router.heard and router.last.engine.loaded, "the model is loaded")
    assert (router.last.engine.kind, set(router.last.engine.endpoints)) == ("llamacpp", set(wire.LLAMACPP_ENDPOINTS))


async def test_a_load_and_an_unload_are_reported_at_once(http, start, router):
    """Routing to a warm model depends on knowing that it is warm."""
    node = await start(router_url=router.url, interval_s=60)
    await until(lambda: router.heard, "the first heartbeat")
    await post(http, node, "/api/chat", messages=HELLO)
    await until(lambda: [each.name for each in router.last.engine.loaded] == [LLAMA.name], "the load")
    entry = router.last.engine.loaded[0]
    assert (entry.context_length, entry.entry["name"]) == (4096, LLAMA.name)
    await post(http, node, "/api/generate", keep_alive=0)
    await until(lambda: not router.last.engine.loaded, "the unload")


async def test_a_model_that_still_loads_is_not_reported_as_loaded(start, router):
    """Requests that are sent there for its warmth would wait."""
    node = await start(router_url=router.url, interval_s=60, load_bytes_per_s=1e6)
    async with Wire(node) as wire_:
        await wire_.send("/api/chat")
        await until(lambda: node.state()["loaded"], "the load begins")
        heard = len(router.heard)
        await until(lambda: len(router.heard) > heard or node.state()["heartbeats"]["sent"] > 1, "a heartbeat")
        assert not router.last.engine.loaded


async def test_memory_and_load_follow_the_work(start, router):
    """Made-up sensors that never move would test nothing."""
    node = await start(router_url=router.url, interval_s=60, memory_gb=16)
    await until(lambda: router.heard, "the first heartbeat")
    idle = router.last
    node.script(Fault(FaultKind.HANG_MID_STREAM))
    async with Wire(node) as busy:
        await busy.send("/api/chat")
        await busy.head()
        await node.report()
        assert router.last.cpu.utilization > idle.cpu.utilization
    assert router.last.memory.used_bytes > idle.memory.used_bytes + 2 * 10**9
    assert router.last.memory.available_bytes == 16 * 2**30 - router.last.memory.used_bytes


async def test_hardware_is_set_from_python_and_over_http_and_let_go_again(http, start, router):
    """Every reason to leave a node out needs a way to come about."""
    node = await start(router_url=router.url, interval_s=60)
    async with http.post(f"{node.url}/sim/hardware", json={"pressure": "critical", "throttled": True}) as got:
        assert got.status == 200
    await until(lambda: router.heard and router.last.memory.pressure == "critical", "the pressure is reported")
    assert router.last.cpu.throttled
    node.hardware.set(pressure=None, draining=True, agent_version="0.0.1")
    await until(lambda: router.last.draining, "the drain is reported")
    assert (router.last.memory.pressure, router.last.agent_version) == ("normal", "0.0.1")


@pytest.mark.parametrize("wrong", [b"[]", b"x", b'{"presure":"critical"}'])
async def test_wrong_hardware_is_refused(http, node, wrong):
    """A typo must not make a rejection test pass by itself."""
    async with http.post(f"{node.url}/sim/hardware", data=wrong) as got:
        assert got.status == 400


async def test_an_unreachable_engine_is_reported_without_models(start, router):
    """The agent lives when its Ollama does not."""
    node = await start(router_url=router.url, interval_s=60)
    node.hardware.set(reachable=False)
    await until(lambda: router.heard and not router.last.engine.reachable, "the loss is reported")
    assert (router.last.engine.models, router.last.engine.error) == ([], "connection refused")


async def test_a_silent_node_serves_but_says_nothing(http, start, router):
    """Only the missing heartbeat tells that something is wrong."""
    node = await start(router_url=router.url, interval_s=0.01)
    await until(lambda: router.heard, "the first heartbeat")
    node.hardware.set(silent=True)
    assert await node.report() is False
    assert (await post(http, node, "/api/chat", messages=HELLO))[0] == 200


async def test_a_stop_says_goodbye_and_a_kill_does_not(start, router):
    """A departure is not a loss."""
    leaver = await start(node_id="leaver", router_url=router.url, interval_s=60)
    crasher = await start(node_id="crasher", router_url=router.url, interval_s=60)
    await until(lambda: len({beat.node_id for beat in router.heard}) == 2, "both are there")
    await leaver.stop()
    await crasher.kill()
    assert [beat.node_id for beat in router.heard if beat.leaving] == ["leaver"]


async def test_a_router_that_is_away_is_found_when_it_comes(start):
    """Nodes and routers start in any order."""
    port = free_port()
    node = await start(router_url=f"http://127.0.0.1:{port}", interval_s=0.02)
    await until(lambda: node.state()["heartbeats"]["failed"], "the router is away")
    async with listening(Listener(), port) as router:
        await until(lambda: router.heard, "the router has come")
    assert router.last.node_id == "sim"


async def test_heartbeats_keep_coming_every_interval(start, router):
    """Silence is how a router knows a loss."""
    await start(router_url=router.url, interval_s=0.01, models=(NOMIC,))
    await until(lambda: len(router.heard) >= 4, "heartbeats without any change")
    times = [beat.sent_at for beat in router.heard]
    assert times == sorted(times)


async def test_a_node_without_a_router_reports_to_nobody(start):
    """Benchmarks run bare nodes."""
    node = await start()
    assert node.state()["heartbeats"] is None
    assert await node.report() is False
