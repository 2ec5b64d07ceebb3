"""What the agent reads from Ollama, and what it does not fall for."""

import asyncio
import os
import signal
import stat

import psutil
import pytest

from herd import wire
from node.engines.ollama import OllamaProbe
from node.engines.parse import moment
from tests.node.servers import listed, until


@pytest.fixture
async def probe(ollama):
    """A probe of the running Ollama."""
    made = OllamaProbe(ollama.url)
    yield made
    await made.close()


@pytest.fixture
async def serve(tmp_path):
    """Starts processes that are `ollama serve` to the operating system, with an environment of the test's choice."""
    script = tmp_path / "ollama"
    script.write_text("#!/bin/sh\nread line\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    started = []

    async def start(**environment):
        process = await asyncio.create_subprocess_exec(
            script, "serve", stdin=asyncio.subprocess.PIPE, env={"PATH": os.environ["PATH"], **environment}
        )
        started.append(process)
        await until(lambda: psutil.Process(process.pid).name() == "ollama")

    yield start
    for process in started:
        process.send_signal(signal.SIGKILL)
        await process.communicate()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-23T09:01:33.214083939Z", 1795424493.214083),
        ("2026-11-23T10:01:33.214083939+01:00", 1795424493.214083),
        ("2026-11-23t09:01:33z", 1795424493.0),
        ("2026-11-23T04:31:33.2-04:30", 1795424493.2),
    ],
)
def test_times_of_any_precision_and_offset_are_read(text, seconds):
    """Go writes nanoseconds and the server's own offset."""
    assert moment(text) == pytest.approx(seconds, abs=1e-5)


@pytest.mark.parametrize(
    "text",
    ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "2318-07-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "soon",
     "", "2026-11-23T09:01:33", None, 5, ["2026"]],
)  # fmt: skip
def test_no_time_and_for_ever_are_no_expiry(text):
    """A model that stays must not look as if it were about to go, nor one whose time is unreadable."""
    assert moment(text) is None


async def test_a_models_context_is_asked_for_once(ollama, probe):
    """/api/show reads the model's file; once a second would keep a disk busy."""
    first, second = await probe.snapshot(), await probe.snapshot()
    assert [model.context_length for model in (*first.models, *second.models)] == [8192, 8192]
    assert ollama.shown == ["tiny:latest"]


async def test_a_model_replaced_on_disk_is_asked_again(ollama, probe):
    """A pull can bring other weights, with another context, under the same name."""
    await probe.snapshot()
    ollama.models = [listed("tiny:latest", "d2", 700)]
    await probe.snapshot()
    assert ollama.shown == ["tiny:latest", "tiny:latest"]


async def test_a_large_library_is_learnt_over_several_looks(ollama, probe):
    """The first heartbeat must not wait until a hundred files have been read."""
    ollama.models = [listed(f"m{number}:latest", f"d{number}", 1) for number in range(10)]
    first, second = await probe.snapshot(), await probe.snapshot()
    assert [sum(model.context_length is None for model in look.models) for look in (first, second)] == [2, 0]


async def test_a_model_that_cannot_be_shown_is_listed_without_context(ollama, probe):
    """A damaged model must cost neither the others nor a question a second."""
    ollama.models = [listed("broken:latest", "d9", 5), listed("tiny:latest", "d1", 700)]
    await probe.snapshot()
    models = (await probe.snapshot()).models
    assert {model.name: model.context_length for model in models} == {"broken:latest": None, "tiny:latest": 8192}
    assert ollama.shown.count("broken:latest") == 1


@pytest.mark.parametrize("text", ['{"models": null}', "{}", '{"models": []}', "[]"])
async def test_no_models_in_any_spelling_is_an_empty_list(ollama, probe, text):
    """Go writes an empty list as null; a fresh Ollama is no failure."""
    ollama.raw_tags = text
    engine = await probe.snapshot()
    assert (engine.reachable, engine.models) == (True, [])


async def test_an_odd_entry_is_left_out_and_the_rest_stays(ollama, probe):
    """One strange listing must not make the whole heartbeat malformed."""
    names = ["", "x" * 300, None, 7]
    ollama.models = [*({"name": name, "size": 1} for name in names), "text", listed("tiny", "d1", -5)]
    models = (await probe.snapshot()).models
    assert [(model.name, model.size_bytes) for model in models] == [("tiny:latest", 0)]


@pytest.mark.parametrize("text", ["{", "<html>", "", '{"models": [{"name": "\\ud800"}]}', '{"models": NaN}'])
async def test_an_answer_that_is_no_json_is_an_engine_that_is_away(ollama, probe, text):
    """Something else may listen on the port; and what UTF-8 cannot write, a heartbeat cannot carry."""
    ollama.raw_tags = text
    engine = await probe.snapshot()
    assert not engine.reachable
    assert "invalid JSON in the answer to GET /api/tags" in engine.error


async def test_an_engine_that_answers_an_error_is_away_and_says_which(llamacpp):
    """A wrong port must be told apart from a stopped engine."""
    llamacpp.answers["/v1/models"] = (404, {})
    probe = OllamaProbe(llamacpp.url)
    engine = await probe.snapshot()
    await probe.close()
    assert (engine.reachable, engine.error) == (False, "Ollama: answered 404 to GET /api/version")


async def test_slots_come_from_the_servers_own_environment(ollama, serve):
    """The agent's own environment says nothing of how the server was started."""
    await serve(OLLAMA_HOST=f"0.0.0.0:{ollama.port}", OLLAMA_NUM_PARALLEL="7")
    probe = OllamaProbe(ollama.url, slots=2)
    assert (await probe.snapshot()).slots == 7
    await probe.close()


@pytest.mark.parametrize("parallel", ["0", "many", "", "-3"])
async def test_an_environment_that_says_nothing_leaves_it_to_the_option(ollama, serve, parallel):
    """0 means to Ollama that it chooses itself; a node of 0 slots would get no request at all."""
    await serve(OLLAMA_HOST=f"127.0.0.1:{ollama.port}", OLLAMA_NUM_PARALLEL=parallel)
    probe = OllamaProbe(ollama.url, slots=2)
    assert (await probe.snapshot()).slots == 2
    await probe.close()


async def test_a_server_that_was_told_nothing_of_parallel_requests_has_one_slot(ollama, serve):
    """Four requests sent to its one slot would wait where no other node can take them."""
    await serve(OLLAMA_HOST=f"127.0.0.1:{ollama.port}")
    probe = OllamaProbe(ollama.url)
    assert (await probe.snapshot()).slots == 1
    await probe.close()


async def test_another_servers_environment_is_not_taken(ollama, serve):
    """Two Ollamas may run on one machine with different settings."""
    await serve(OLLAMA_HOST="127.0.0.1:1", OLLAMA_NUM_PARALLEL="7")
    await serve(OLLAMA_NUM_PARALLEL="9")
    probe = OllamaProbe(ollama.url)
    assert (await probe.snapshot()).slots == 4
    await probe.close()


async def test_the_models_folder_is_the_servers(ollama, serve, tmp_path):
    """Free space counts on the disk where a pull would write."""
    await serve(OLLAMA_HOST=f"127.0.0.1:{ollama.port}", OLLAMA_MODELS=str(tmp_path))
    probe = OllamaProbe(ollama.url)
    await probe.snapshot()
    assert probe.models_folder() == tmp_path
    await probe.close()


async def test_a_snapshot_is_valid_on_the_wire_with_thousands_of_models(ollama, probe):
    """A library beyond the contract's limit must not silence its node."""
    ollama.models = [listed(f"m{number}:latest", "same", 1) for number in range(5000)]
    engine = await probe.snapshot()
    assert len(wire.Engine.model_validate_json(engine.model_dump_json()).models) == wire.MOST_MODELS


async def test_a_router_is_no_engine_and_the_agent_says_so(router):
    """README's OLLAMA_HOST is the router's address: as its own node it sent itself its own requests, 1,025 times."""
    probe = OllamaProbe(router.url)
    engine = await probe.snapshot()
    await probe.close()
    assert not engine.reachable
    assert "is a Herd router, not an engine" in engine.error


async def test_llama_cpps_server_is_recognised_where_ollama_was_expected(llamacpp):
    """`--engine-url` alone does not say what kind of engine is there."""
    probe = OllamaProbe(llamacpp.url)
    engine = await probe.snapshot()
    await probe.close()
    assert not engine.reachable
    assert engine.error.endswith("start herd-node with `--engine llamacpp`")


async def test_what_an_engine_says_at_length_is_left_out_and_its_models_are_told(ollama, probe):
    """A heartbeat has a size; a model that is not told cannot be asked for."""
    long = {"details": {"family": "x" * 3000}}
    ollama.models = [{**listed(f"m{number}:latest", "same", 1), **long} for number in range(600)]
    ollama.models[0]["details"] = {"family": "x" * 5000}
    engine = await probe.snapshot()
    assert len(engine.model_dump_json()) < wire.MOST_BYTES
    assert (len(engine.models), engine.models[0].entry, bool(engine.models[1].entry)) == (512, {}, True)
