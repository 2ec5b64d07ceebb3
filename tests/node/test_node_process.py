"""The agent as operators meet it: the real process between a real router's endpoint and a real engine's."""

import signal

import pytest

from herd import wire
from tests.node.servers import until

SLOWLY = ("--interval", "60")  # so slow that whatever arrives within a test's deadline came at once


async def test_the_first_heartbeat_tells_the_router_all_it_needs_to_route(start_agent, router, ollama):
    """A node that joins is usable at once, not an interval later."""
    ollama.load("tiny:latest")
    await start_agent("--ollama-host", f"127.0.0.1:{ollama.port}", "--router-url", router.url, *SLOWLY)
    first = await router.heard()
    engine = first.engine
    assert (first.node_id, first.v, first.interval_s, first.leaving) == ("n1", wire.VERSION, 60.0, False)
    assert (engine.kind, engine.url, engine.reachable, engine.version) == ("ollama", ollama.url, True, "0.17.4")
    assert [(m.name, m.size_bytes, m.context_length, m.entry["digest"]) for m in engine.models] == [
        ("tiny:latest", 700, 8192, "d1")
    ]
    loaded = engine.loaded[0]
    assert (loaded.name, loaded.vram_bytes, loaded.context_length) == ("tiny:latest", 600, 2048)
    assert set(engine.endpoints) == set(wire.OLLAMA_ENDPOINTS)
    assert first.memory.total_bytes > first.memory.available_bytes > 0
    assert first.disk is not None


async def test_a_load_and_an_unload_are_told_at_once(start_agent, router, ollama):
    """Routing to a warm node only works if the router knows within a second that it is warm."""
    await start_agent("--ollama-host", ollama.url, "--router-url", router.url, *SLOWLY)
    await router.heard(lambda beat: not beat.engine.loaded)
    ollama.load("tiny")
    await router.heard(lambda beat: [model.name for model in beat.engine.loaded] == ["tiny:latest"])
    heard = len(router.heartbeats)
    ollama.loaded = []
    await router.heard(lambda beat: not beat.engine.loaded, after=heard)


async def test_a_moving_expiry_is_not_told_at_once(start_agent, router, ollama):
    """Every request moves it; telling it at once would double the router's traffic."""
    ollama.load("tiny:latest")
    await start_agent("--ollama-host", ollama.url, "--router-url", router.url, *SLOWLY)
    await router.heard()
    ollama.loaded = []
    ollama.load("tiny:latest", expires_at="2026-11-23T10:30:00Z")
    seen = ollama.polls
    await until(lambda: ollama.polls >= seen + 2)
    assert len(router.heartbeats) == 1


async def test_an_engine_that_goes_away_is_reported_and_the_agent_stays(start_agent, router, ollama):
    """An Ollama update must not cost the node its place in the fleet."""
    agent = await start_agent("--ollama-host", ollama.url, "--router-url", router.url, *SLOWLY)
    await router.heard(lambda beat: beat.engine.reachable)
    await ollama.stop()
    away = await router.heard(lambda beat: not beat.engine.reachable)
    assert "ollama serve" in away.engine.error
    assert (away.engine.loaded, [model.name for model in away.engine.models]) == ([], ["tiny:latest"])
    heard = len(router.heartbeats)
    await ollama.start()
    back = await router.heard(lambda beat: beat.engine.reachable, after=heard)
    assert back.engine.error is None
    assert agent.process.returncode is None


async def test_an_agent_without_an_engine_joins_and_says_so(start_agent, router, ollama):
    """Machines start in any order; what is missing must be visible in the fleet, not in a dead process."""
    await ollama.stop()
    await start_agent("--ollama-host", ollama.url, "--router-url", router.url, *SLOWLY)
    first = await router.heard()
    assert (first.engine.reachable, first.engine.models) == (False, [])


async def test_a_router_that_goes_away_is_found_again_without_a_restart(start_agent, router, ollama):
    """A router's upgrade must not need a visit to every machine."""
    agent = await start_agent("--ollama-host", ollama.url, "--router-url", router.url, "--interval", "0.3")
    await router.heard()
    await router.stop()
    assert (await agent.logged("Router is away"))["level"] == "WARNING"
    heard = len(router.heartbeats)
    await router.start()
    await router.heard(after=heard)
    assert [line["event"] for line in agent.log].count("Router is away") == 1


async def test_the_agent_may_start_before_the_router(start_agent, router, ollama):
    """After a power cut everything starts at once."""
    await router.stop()
    agent = await start_agent("--ollama-host", ollama.url, "--router-url", router.url, *SLOWLY)
    await agent.logged("Router is away")
    await router.start()
    assert (await router.heard()).engine.reachable


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_says_goodbye_and_ends_with_0(start_agent, router, ollama, number):
    """A node that leaves in order is no incident: the router must not call it lost."""
    agent = await start_agent("--ollama-host", ollama.url, "--router-url", router.url, *SLOWLY)
    await router.heard()
    assert await agent.ends_with(number) == 0
    assert [beat.leaving for beat in router.heartbeats] == [False, True]
    assert "Traceback" not in agent.stderr


async def test_a_second_signal_ends_the_agent_at_once(start_agent, router, ollama):
    """An operator in a hurry is not made to wait for a router that hangs."""
    router.hang_on_leaving = True
    agent = await start_agent("--ollama-host", ollama.url, "--router-url", router.url, *SLOWLY)
    await router.heard()
    agent.process.send_signal(signal.SIGTERM)
    await router.heard(lambda beat: beat.leaving)
    assert await agent.ends_with(signal.SIGTERM) == 128 + signal.SIGTERM


async def test_a_hanging_router_does_not_hold_the_agent_back_from_leaving(start_agent, router, ollama):
    """Shutting a machine down must not wait for another machine."""
    router.hang_on_leaving = True
    agent = await start_agent("--ollama-host", ollama.url, "--router-url", router.url, *SLOWLY)
    await router.heard()
    assert await agent.ends_with(signal.SIGTERM) == 0
    assert (await agent.logged("Left without the router's answer"))["level"] == "WARNING"


async def test_a_refused_heartbeat_is_logged_with_its_field_and_does_not_stop_the_agent(start_agent, router, ollama):
    """A router of another version must leave a trace that names the difference, and no storm of retries."""
    router.refuse = {"error": "malformed", "fields": [{"field": "cpu.cores", "message": "must be odd"}]}
    agent = await start_agent("--ollama-host", ollama.url, "--router-url", router.url, *SLOWLY)
    line = await agent.logged("The router refuses the heartbeat")
    assert (line["level"], line["field"]) == ("ERROR", "cpu.cores: must be odd")
    assert len(router.heartbeats) == 1
    router.refuse = None
    ollama.load("tiny:latest")
    await router.heard(lambda beat: beat.engine.loaded)
    await agent.logged("Router takes heartbeats")
    assert len(router.heartbeats) == 2


async def test_the_log_is_json_lines_that_the_operators_grep_finds(start_agent, router, ollama):
    """`grep '"level": "INFO"'` is a documented command; its space is part of the contract."""
    agent = await start_agent("--ollama-host", ollama.url, "--router-url", router.url, "--log-level", "info")
    await agent.logged("Router takes heartbeats")
    first = agent.log_text.splitlines()[0]
    assert '"level": "INFO"' in first
    assert list(agent.log[0])[:4] == ["timestamp", "level", "logger", "event"]
    assert agent.log[0]["timestamp"].endswith("Z")
    assert "INFO    Agent starts node_id=n1" in agent.stderr


async def test_another_version_of_the_router_is_mentioned_once(start_agent, router, ollama):
    """Worth knowing, not worth a line every five seconds."""
    agent = await start_agent("--ollama-host", ollama.url, "--router-url", router.url, "--interval", "0.2")
    await router.heard(lambda beat: len(router.heartbeats) >= 4)
    lines = [line for line in agent.log if line["event"] == "Agent and router are of different versions"]
    assert [line["router_version"] for line in lines] == ["0.0.9"]


async def test_a_llama_cpp_server_joins_with_its_own_endpoints(start_agent, router, llamacpp):
    """A node must never be sent a request in a dialect that its engine does not speak."""
    await start_agent("--engine", "llamacpp", "--engine-url", llamacpp.url, "--router-url", router.url, *SLOWLY)
    engine = (await router.heard()).engine
    assert (engine.kind, engine.slots, engine.version) == ("llamacpp", 2, "b1-abc")
    assert not any(path.startswith("/api/") for path in engine.endpoints)


async def test_the_environment_serves_instead_of_options(start_agent, router, ollama):
    """Services and containers are configured by environment; a host name of any form is made a valid node id."""
    await start_agent(
        "--interval", "60", node_id="Büro 1 (links)", OLLAMA_HOST=f"127.0.0.1:{ollama.port}", HERD_ROUTER_URL=router.url
    )
    first = await router.heard()
    assert (first.node_id, first.engine.url) == ("B-ro-1-links", ollama.url)


async def test_a_wrong_option_is_explained_and_starts_nothing(start_agent):
    """A typing error must not look like a network problem."""
    agent = await start_agent("--router-url", "ftp://box")
    assert await agent.process.wait() == 64
    assert "the scheme must be http or https" in agent.stderr


async def test_an_agent_given_an_address_advertises_that_one(start_agent, router, ollama):
    """Behind containers and tunnels only the operator knows where the router reaches the engine."""
    given = ("--ollama-host", ollama.url, "--router-url", router.url, "--advertise-url", "http://box.example:1234")
    await start_agent(*given)
    engine = (await router.heard()).engine
    assert (engine.url, engine.reachable) == ("http://box.example:1234", True)
