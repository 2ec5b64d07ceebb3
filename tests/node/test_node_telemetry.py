"""What the agent tells of itself, as Prometheus and a collector get it: the real process, asked over real sockets."""

import asyncio
import signal
import socket
from contextlib import suppress

import httpx
import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic

from node.agent import Agent
from node.engines.ollama import OllamaProbe
from node.probe import Machine
from node.router import RouterLink
from node.settings import Settings
from node.telemetry import Telemetry
from node.telemetry.catalog import BY_NAME
from node.telemetry.metrics import AgentMetrics
from node.telemetry.server import MetricsServer
from tests.harness import free_port
from tests.node.servers import until
from tests.telemetry.otlp import OtlpReceiver

TOKEN = "of-the-whole-fleet"
OF_GPUS = {name for name in BY_NAME if "_gpu_" in name}  # this machine may have none
BOTH = {"OTEL_BSP_SCHEDULE_DELAY": "100"}


@pytest.fixture
def sink():
    """A collector."""
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture
async def http():
    """A client of the agent's page."""
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


@pytest.fixture
def served(start_agent, router, ollama):
    """Starts an agent that serves its metrics at a host of this machine; gives it, and the page's address."""

    async def start(host="127.0.0.1", *options, **environment):
        port = free_port()
        addresses = ("--ollama-host", ollama.url, "--router-url", router.url, "--interval", "0.2")
        agent = await start_agent(*addresses, "--metrics-bind", f"{host}:{port}", *options, **environment)
        return agent, f"http://127.0.0.1:{port}/metrics"

    return start


def samples(families):
    """The values by name and label values."""
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


async def scraped(http, page, **headers):
    """The samples as they are now."""
    return samples(classic((await http.get(page, headers=headers)).raise_for_status().text))


def is_recorded(flags):
    """The bit of a traceparent that says so."""
    return bool(int(flags, 16) & 1)


async def becomes(http, page, wanted):
    """The samples once they are as wanted; an agent that starts does not answer at once."""
    async with asyncio.timeout(30):
        while True:
            with suppress(httpx.ConnectError):
                if wanted(found := await scraped(http, page)):
                    return found
            await asyncio.sleep(0.05)


async def test_an_agent_that_was_asked_for_nothing_listens_nowhere_and_loads_no_exporter(start_agent, router, ollama):
    """Most agents have neither Prometheus nor a collector; they open no port and stay small."""
    agent = await start_agent("--ollama-host", ollama.url, "--router-url", router.url, PYTHONPROFILEIMPORTTIME="1")
    assert (await router.heard()).metrics_address is None
    assert router.traceparents[0] == ""
    assert "prometheus_client" in agent.stderr  # what is imported does stand there
    assert "opentelemetry" not in agent.stderr
    own = psutil.Process(agent.process.pid).net_connections(kind="inet")
    assert [each for each in own if each.status == psutil.CONN_LISTEN] == []


async def test_on_loopback_anybody_gets_every_metric_of_the_table(served, router, ollama, http):
    """What is declared and not served is a panel without data; no credential is asked for on one's own machine."""
    ollama.load("tiny:latest")
    _, page = await served()
    await router.heard()
    found = await becomes(http, page, lambda now: now["herd_agent_heartbeats_total", "accepted"] >= 2)
    assert found["herd_agent_engine_reachable",] == 1
    assert (found["herd_agent_models_loaded",], found["herd_agent_slots",]) == (1, router.heartbeats[-1].engine.slots)
    assert found["herd_agent_memory_bytes", "total"] == psutil.virtual_memory().total
    assert found["herd_agent_disk_free_bytes",] > 0
    assert 0 <= found["herd_agent_cpu_ratio",] <= 1
    assert found["herd_agent_engine_look_duration_seconds_count", "answered"] >= 1
    assert found["herd_agent_last_accepted_heartbeat_timestamp_seconds",] > router.heartbeats[0].sent_at - 1
    for outcome in ("refused", "failed", "no_router"):
        assert found["herd_agent_heartbeats_total", outcome] == 0
    asked = await http.get(page, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    text = (await http.get(page)).text
    for families in (openmetrics(asked.text), classic(text)):
        names = {name for sample in samples(families) for name in BY_NAME if sample[0].startswith(name)}
        assert names | OF_GPUS == BY_NAME.keys()


async def test_with_the_router_gone_and_the_engine_gone_the_agent_still_tells(served, router, ollama, http):
    """What the router cannot tell is why an agent is asked at all."""
    _, page = await served()
    before = await becomes(http, page, lambda now: now["herd_agent_heartbeats_total", "accepted"])
    await router.stop()
    await ollama.stop()
    after = await becomes(
        http, page, lambda now: now["herd_agent_heartbeats_total", "failed"] and not now["herd_agent_engine_reachable",]
    )
    seen = "herd_agent_last_accepted_heartbeat_timestamp_seconds"
    assert after[seen,] >= before[seen,]
    assert after["herd_agent_engine_look_duration_seconds_count", "away"] >= 1
    assert after["herd_agent_memory_bytes", "total"] == before["herd_agent_memory_bytes", "total"]


async def test_a_refused_heartbeat_is_counted_as_such(served, router, http):
    """A version that the router does not take is another trouble than a router that is away."""
    router.refuse = {"error": "malformed"}
    _, page = await served()
    found = await becomes(http, page, lambda now: now["herd_agent_heartbeats_total", "refused"])
    assert found["herd_agent_heartbeats_total", "accepted"] == 0
    assert ("herd_agent_last_accepted_heartbeat_timestamp_seconds",) not in found


async def test_beyond_loopback_only_who_has_the_token_is_answered(served, router, http):
    """Whoever is on the network could read how large and how busy each machine is."""
    agent, page = await served("0.0.0.0", HERD_METRICS_TOKEN=TOKEN)
    assert (await router.heard()).metrics_address == page.removeprefix("http://").removesuffix("/metrics")
    for given in ({}, {"Authorization": "Bearer another"}, {"Authorization": TOKEN}, {"Authorization": "Bearer ü"}):
        refused = await http.get(page, headers={key: value.encode() for key, value in given.items()})
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert "herd_agent_" not in refused.text
    assert await scraped(http, page, Authorization=f"Bearer {TOKEN}")
    assert (await http.head(page)).status_code == 401
    assert TOKEN not in agent.log_text + agent.stderr


async def test_beyond_loopback_without_a_token_the_agent_does_not_start_and_says_what_to_do(served, router):
    """An open door must be somebody's decision, and the sentence is read by whoever makes it."""
    agent, _ = await served("0.0.0.0")
    assert await agent.process.wait() == 64
    assert "set HERD_METRICS_TOKEN" in agent.stderr
    assert "or bind 127.0.0.1" in agent.stderr
    assert router.heartbeats == []


async def test_the_environment_can_say_where_metrics_are_served(start_agent, router, ollama, http):
    """Services are configured by environment."""
    port = free_port()
    where = {"HERD_METRICS_BIND": f"localhost:{port}", "HERD_ROUTER_URL": router.url, "OLLAMA_HOST": ollama.url}
    await start_agent(**where)
    assert (await router.heard()).metrics_address == f"localhost:{port}"
    assert await scraped(http, f"http://localhost:{port}/metrics")


async def test_a_port_that_is_taken_stops_the_start_with_a_line_that_says_so(served, router):
    """An agent that serves nothing, although it was told to, would be found out by its alert."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        agent, _ = await served("127.0.0.1", "--metrics-bind", f"127.0.0.1:{taken.getsockname()[1]}")
        assert await agent.process.wait() == 1
    assert (await agent.logged("Metrics cannot be served"))["level"] == "ERROR"
    assert router.heartbeats == []


async def test_an_agent_that_finds_no_router_still_tells_of_its_machine(tmp_path, ollama):
    """It is the one who knows that there is none."""
    telemetry, stop = Telemetry(), asyncio.Event()

    async def find():
        return None

    engine, link = OllamaProbe(ollama.url), RouterLink(None, find, None, telemetry)
    settings = Settings("n1", ollama.url, tmp_path)
    running = asyncio.create_task(Agent(settings, engine, Machine(), link, None, telemetry).run(stop))
    try:
        found = await until(
            lambda: 'outcome="no_router"} 1' in (text := telemetry.metrics.render("")[0].decode()) and text
        )
    finally:
        stop.set()
        await running
        await engine.close()
        await link.close()
    assert samples(classic(found))["herd_agent_memory_bytes", "total"] == psutil.virtual_memory().total


@pytest.fixture
def page():
    """The page alone, in this process."""
    server = MetricsServer("127.0.0.1", 0, AgentMetrics("1.2.3"), None)
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    server.server_close()


async def test_a_scrape_is_answered_while_the_agent_s_loop_does_something_else(page):
    """Neither may wait for the other: this very call holds up the loop that the test runs on."""
    assert 'version="1.2.3"' in httpx.get(f"{page}/metrics").text  # noqa: ASYNC210 - on purpose


def test_head_says_what_get_would_and_sends_nothing_of_it(page):
    """Probes and load balancers ask so."""
    host, _, port = page.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as raw:
        raw.sendall(b"HEAD /metrics HTTP/1.0\r\n\r\n")
        head, _, body = b"".join(iter(lambda: raw.recv(65_536), b"")).partition(b"\r\n\r\n")
    assert body == b""
    got = httpx.get(f"{page}/metrics")
    assert f"Content-Length: {len(got.content)}" in head.decode().split("\r\n")
    assert f"Content-Type: {got.headers['content-type']}" in head.decode().split("\r\n")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:1", 200),
        ("localhost", 200),
        ("[::1]:1", 200),
        ("evil.example:1", 401),
        ("10.0.0.5", 401),
        ("[", 401),
    ],
)
def test_on_loopback_a_page_that_has_its_own_name_lead_there_learns_nothing(page, host, status):
    """A browser sends whoever visits it there; what it cannot do is to name loopback."""
    assert httpx.get(f"{page}/metrics", headers={"Host": host}).status_code == status


def test_another_path_is_not_found_and_a_silent_client_holds_nobody_up(page):
    """Somebody who connects and says nothing is on every network."""
    address = page.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))):
        assert httpx.get(f"{page}/heartbeat").status_code == 404
        assert httpx.post(f"{page}/metrics").status_code == 501


async def test_a_heartbeat_s_span_is_the_parent_of_what_the_router_does_with_it(start_agent, router, ollama, sink):
    """A proxy between the two can be seen in the trace."""
    options = ("--ollama-host", ollama.url, "--router-url", router.url, "--interval", "0.2")
    await start_agent(*options, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, **BOTH)
    await until(lambda: sink.named("POST /heartbeat") and sink.named("herd.look"))
    version, *ids, flags = router.traceparents[0].split("-")
    assert version == "00"
    assert ids in [[span.trace_id, span.span_id] for span in sink.named("POST /heartbeat")]
    assert is_recorded(flags)
    assert {(span.resource["service.name"], span.resource["service.instance.id"]) for span in sink.spans} == {
        ("herd-node", "n1")
    }


async def test_what_fails_is_an_error_with_its_type(start_agent, router, ollama, sink):
    """The search for what went wrong begins with `error.type`."""
    router.refuse = {"error": "malformed"}
    await ollama.stop()
    options = ("--ollama-host", ollama.url, "--router-url", router.url, "--interval", "0.2")
    await start_agent(*options, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{sink.url}/v1/traces", **BOTH)
    await until(lambda: sink.named("herd.look") and sink.named("POST /heartbeat"))
    look, beat = sink.named("herd.look")[0], sink.named("POST /heartbeat")[0]
    assert (look.is_error, look.attributes["error.type"]) == (True, "engine_away")
    assert "ollama serve" in look.message
    assert (beat.is_error, beat.attributes["error.type"], beat.attributes["http.response.status_code"]) == (
        True, "422", 422,
    )  # fmt: skip
    await router.stop()
    await until(lambda: "ConnectError" in {span.attributes.get("error.type") for span in sink.spans})


async def test_the_sampler_of_the_environment_decides(start_agent, router, ollama, sink):
    """Four spans a second of each node may be more than somebody wants to keep."""
    options = ("--ollama-host", ollama.url, "--router-url", router.url, "--interval", "0.2")
    sampler = {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, **BOTH}
    agent = await start_agent(*options, **sampler)
    await router.heard(lambda _: len(router.heartbeats) >= 3)
    assert not any(is_recorded(header.rpartition("-")[2]) for header in router.traceparents)
    assert await agent.ends_with(signal.SIGTERM) == 0
    assert sink.requests == 0


async def test_a_collector_that_hangs_does_not_hold_the_agent_back_from_leaving(start_agent, router, ollama):
    """Left to itself the SDK waits for as long as it was told to wait for an answer, here for ever."""
    with OtlpReceiver("hanging") as hanging:
        options = ("--ollama-host", ollama.url, "--router-url", router.url, "--interval", "0.2")
        forever = {"OTEL_EXPORTER_OTLP_ENDPOINT": hanging.url, "OTEL_EXPORTER_OTLP_TIMEOUT": "600", **BOTH}
        agent = await start_agent(*options, **forever)
        await until(lambda: hanging.requests)
        assert await agent.ends_with(signal.SIGTERM) == 0
        assert router.heartbeats[-1].leaving
