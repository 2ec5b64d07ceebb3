"""The agent's two tasks, and that neither a driver, a disk nor an engine that hangs can silence the node."""

import asyncio
import threading

import pytest

from herd import wire
from node.agent import Agent
from node.changes import essence, told
from node.engines.ollama import OllamaProbe
from node.probe import Machine
from node.router import RouterLink
from node.settings import Settings


class HangingMachine(Machine):
    """A machine whose second measurement never ends until it is let go: a driver that hangs."""

    def __init__(self):
        super().__init__()
        self.reads = 0
        self.let_go = threading.Event()

    def read(self, models_folder):
        self.reads += 1
        if self.reads > 1:
            self.let_go.wait(60)
        return super().read(models_folder)


@pytest.fixture
async def run_agent(tmp_path, ollama, router):
    """Runs an agent inside the test, with the machine that the test gives."""
    stop, running, closing = asyncio.Event(), [], []

    async def run(machine):
        settings = Settings("n1", ollama.url, tmp_path, router_url=router.url, interval_s=0.2)
        engine, link = OllamaProbe(ollama.url), RouterLink(router.url, asyncio.Event().wait, "0.1.0")
        closing.extend((engine, link))
        running.append(asyncio.create_task(Agent(settings, engine, machine, link, "0.1.0").run(stop)))

    yield run
    stop.set()
    await asyncio.gather(*running)
    for open_one in closing:
        await open_one.close()


async def test_a_driver_that_hangs_does_not_silence_the_node(run_agent, router):
    """A node whose disk or GPU driver hangs still serves; it must not be called offline."""
    machine = HangingMachine()
    await run_agent(machine)
    await router.heard(lambda beat: len(router.heartbeats) >= 3)
    machine.let_go.set()
    assert machine.reads == 2
    first, second = router.heartbeats[:2]
    assert first.memory == second.memory


@pytest.fixture
def engine():
    """An engine with one model, loaded."""
    return wire.Engine(
        kind="ollama",
        url="http://127.0.0.1:1",
        reachable=True,
        endpoints=[],
        models=[wire.Model(name="a:latest", entry={"modified_at": "1"})],
        loaded=[wire.LoadedModel(name="a:latest", vram_bytes=5, context_length=2048, expires_at=1.0)],
    )


def changed(engine, **parts):
    """The engine with other parts."""
    return engine.model_copy(update=parts)


def test_news_are_what_routing_depends_on(engine):
    """Each of these would send a request to the wrong node for up to an interval."""
    loaded = wire.LoadedModel(name="a:latest", vram_bytes=5, context_length=4096)
    others = [
        changed(engine, reachable=False),
        changed(engine, loaded=[]),
        changed(engine, loaded=[loaded]),
        changed(engine, models=[]),
        changed(engine, slots=1),
    ]
    assert len({essence(engine), *map(essence, others)}) == 1 + len(others)


def test_no_news_is_what_moves_with_every_request(engine):
    """A heartbeat a request would be a load of its own."""
    later = engine.loaded[0].model_copy(update={"expires_at": 2.0, "entry": {"expires_at": "later"}})
    assert essence(changed(engine, loaded=[later])) == essence(engine)
    assert told(engine, changed(engine, loaded=[later])) == []


def test_changes_are_told_by_name(engine):
    """What an operator greps for after a slow request."""
    after = changed(engine, models=[], loaded=[wire.LoadedModel(name="b:latest")])
    assert told(engine, after) == [
        ("Model loaded", {"model": "b:latest"}),
        ("Model unloaded", {"model": "a:latest"}),
        ("Model removed from disk", {"model": "a:latest"}),
    ]


def test_an_engine_that_goes_away_does_not_unload_its_models_one_by_one(engine):
    """One cause, one line."""
    away = changed(engine, reachable=False, error="stopped", loaded=[])
    assert [event for event, _ in told(engine, away)] == ["Engine is away"]
    assert [event for event, _ in told(away, engine)] == ["Engine answers"]
