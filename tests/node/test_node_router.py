"""The agent's link to its router and the address it advertises there."""

import time

import pytest

from herd import wire
from node.addresses import with_host
from node.advertise import Advertised, advertised_url, as_advertised, facing_address, metrics_address, tried
from node.engines.ollama import OllamaProbe
from node.router import BACKOFF_CAP_S, LOST_AFTER, RouterLink, backoff_s
from tests.node.servers import Router

BEAT = wire.Heartbeat(
    node_id="n1",
    sent_at=time.time(),
    cpu=wire.Cpu(cores=1),
    memory=wire.Memory(total_bytes=1, used_bytes=0, available_bytes=1),
    engine=wire.Engine(kind="ollama", url="http://127.0.0.1:1", reachable=True, endpoints=[]),
)


@pytest.fixture
async def link_to():
    """Makes links that find what the test says, and closes them."""
    links = []

    def made(given=None, found=()):
        finds = iter(found)

        async def find():
            return next(finds, None)

        links.append(RouterLink(given, find, "0.1.0"))
        return links[-1]

    yield made
    for link in links:
        await link.close()


@pytest.fixture
def engine_state():
    """An engine with a loaded model, as the agent sees it."""
    loaded = [wire.LoadedModel(name="tiny:latest")]
    return wire.Engine(kind="ollama", url="http://127.0.0.1:1", reachable=True, endpoints=[], loaded=loaded)


@pytest.fixture
async def probe(ollama):
    """A probe of an Ollama that listens on 127.0.0.1 only."""
    made = OllamaProbe(ollama.url)
    yield made
    await made.close()


@pytest.mark.parametrize("failures", [1, 2, 3, 5, 50, 5000])
def test_waiting_grows_to_a_cap_and_is_spread(failures):
    """A fleet that comes back in one instant would knock its router over again."""
    shortest, longest = backoff_s(failures, 0.0), backoff_s(failures, 1.0)
    assert 0 < shortest == longest / 2 <= BACKOFF_CAP_S / 2
    assert longest >= backoff_s(max(1, failures - 1), 1.0)


async def test_a_found_router_that_falls_silent_is_looked_for_again(link_to, router):
    """It may have moved to another machine, and nobody has to tell the agents."""
    gone = Router()
    await gone.start()
    link = link_to(found=[gone.url, router.url])
    assert await link.locate() == gone.url
    await gone.stop()
    assert [await link.send(BEAT) for _ in range(LOST_AFTER)] == [False] * LOST_AFTER
    assert await link.locate() == router.url
    assert await link.send(BEAT)


async def test_a_named_router_is_never_replaced(link_to, router):
    """Who names a router does not want another one to get the node."""
    link = link_to(given=router.url, found=["http://127.0.0.1:1"])
    await router.stop()
    for _ in range(LOST_AFTER + 1):
        assert not await link.send(BEAT)
    assert await link.locate() == router.url


async def test_one_lost_heartbeat_does_not_start_a_search(link_to, router):
    """A router that restarts is back in a moment, at the same place."""
    link = link_to(found=[router.url, "http://127.0.0.1:1"])
    await link.locate()
    await router.stop()
    await link.send(BEAT)
    assert await link.locate() == router.url


async def test_a_server_that_is_not_herd_counts_as_away(link_to, ollama):
    """A wrong port must be seen, not be taken for success."""
    link = link_to(given=ollama.url)
    assert not await link.send(BEAT)


async def test_draining_by_the_operator_is_logged_once_in_each_direction(link_to, router, caplog):
    """Someone at the node must be able to see why it gets no work."""
    caplog.set_level("INFO")
    link = link_to(given=router.url)
    for draining in (True, True, False, False):
        router.reply = wire.HeartbeatReply(router_version="0.1.0", draining=draining)
        await link.send(BEAT)
    told = [record.getMessage() for record in caplog.records if "drain" in record.getMessage()]
    assert told == ["The operator drains this node: it gets no new requests", "The operator no longer drains this node"]


async def test_the_same_version_is_not_mentioned(link_to, router, caplog):
    """A log that warns of nothing is not read when it warns."""
    router.reply = wire.HeartbeatReply(router_version="0.1.0")
    await link_to(given=router.url).send(BEAT)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.parametrize(
    ("engine", "router_url", "facing", "url"),
    [
        ("http://127.0.0.1:11434", "http://localhost:11435", "127.0.0.1", "http://127.0.0.1:11434"),
        ("http://127.0.0.1:11434", "http://10.0.0.1:11435", "10.0.0.5", "http://10.0.0.5:11434"),
        ("http://127.0.0.1:11434", "http://[fd00::1]:11435", "fd00::5", "http://[fd00::5]:11434"),
        ("http://[::1]:11434", "http://10.0.0.1:11435", "10.0.0.5", "http://10.0.0.5:11434"),
        ("http://10.0.0.5:11434", "http://10.0.0.1:11435", "10.0.0.6", "http://10.0.0.5:11434"),
        ("http://127.0.0.1:11434", "http://me.lan:11435", "127.0.0.1", "http://127.0.0.1:11434"),
        ("http://127.0.0.1:11434", "http://10.0.0.1:11435", None, "http://127.0.0.1:11434"),
    ],
)
def test_loopback_is_told_only_to_a_router_on_this_machine(engine, router_url, facing, url):
    """Elsewhere it means the router's own machine: requests would go to the wrong engine without an error."""
    assert advertised_url(engine, router_url, facing) == url


@pytest.mark.parametrize(
    ("host", "router_url", "facing", "address"),
    [
        ("127.0.0.1", "http://localhost:11435", "127.0.0.1", "127.0.0.1:9"),
        ("127.0.0.1", "http://me.lan:11435", "127.0.0.1", "127.0.0.1:9"),
        ("127.0.0.1", "http://10.0.0.1:11435", "10.0.0.5", None),
        ("0.0.0.0", "http://10.0.0.1:11435", "10.0.0.5", "10.0.0.5:9"),
        ("0.0.0.0", "http://localhost:11435", "127.0.0.1", "127.0.0.1:9"),
        ("0.0.0.0", "http://10.0.0.1:11435", None, None),
        ("::", "http://[fd00::1]:11435", "fd00::5", "[fd00::5]:9"),
        ("10.0.0.6", "http://10.0.0.1:11435", "10.0.0.5", "10.0.0.6:9"),
        ("box.lan", "http://10.0.0.1:11435", None, "box.lan:9"),
    ],
)
def test_the_metrics_are_told_where_the_router_s_machine_finds_them(host, router_url, facing, address):
    """Prometheus would ask its own machine for another's metrics, or an address that is none."""
    assert metrics_address((host, 9), router_url, facing) == address
    beat = BEAT.model_dump() | {"metrics_address": address}
    assert wire.Heartbeat.model_validate(beat).metrics_address == address


async def test_the_facing_address_of_a_router_here_is_loopback(router):
    """Found without sending anything; a name that leads nowhere gives none."""
    assert await facing_address(router.url) == "127.0.0.1"
    assert await facing_address("http://no-such-host.invalid:1") is None


async def test_an_engine_that_listens_on_loopback_only_is_out_of_a_far_routers_reach(probe):
    """The usual mistake with a second machine; what to do about it stands in the message."""
    elsewhere = with_host(probe.url, "127.0.0.2")  # another address of this machine, where it does not listen
    found = await tried(probe, elsewhere)
    assert found.url == elsewhere
    assert "OLLAMA_HOST=0.0.0.0" in found.problem
    assert (await tried(probe, probe.url)).problem is None


def test_an_engine_out_of_the_routers_reach_is_shown_as_away(engine_state):
    """The router would only collect failed requests; the fleet's status says why it gets none."""
    shown = as_advertised(engine_state, Advertised("http://10.0.0.5:1", "answers on this machine only"))
    assert (shown.url, shown.reachable, shown.loaded) == ("http://10.0.0.5:1", False, [])
    assert "this machine only" in shown.error


def test_an_engine_within_reach_is_shown_as_it_is(engine_state):
    """Only its address is the router's."""
    shown = as_advertised(engine_state, Advertised("http://10.0.0.5:1"))
    assert shown == engine_state.model_copy(update={"url": "http://10.0.0.5:1"})


def test_why_an_engine_is_away_is_not_covered_up(engine_state):
    """A stopped engine needs starting, not another address."""
    stopped = engine_state.model_copy(update={"reachable": False, "error": "stopped"})
    assert as_advertised(stopped, Advertised("http://10.0.0.5:1", "unreachable")).error == "stopped"
