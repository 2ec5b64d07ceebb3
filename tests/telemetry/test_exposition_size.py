"""How large an exposition grows: whole at the size of fleet that it is made for, and bounded while idle beyond it."""

from dataclasses import replace
from itertools import product

import pytest

from herd import wire
from herd.core.events import Finished, Status, Usage
from herd.telemetry.catalog.labels import ERROR_TYPE
from herd.telemetry.metrics import OPENMETRICS, MetricsSink
from herd.telemetry.scrape import ScrapeView
from herd.telemetry.semconv import OPERATIONS
from tests.store import builders
from tests.telemetry.exposition import accelerator, engine, full_view, heartbeat, node_seen, script

NODES = [f"node-{number}" for number in range(10)]
MODELS = [f"model-{number}:latest" for number in range(20)]
LIMIT = 5000


def view_of(loaded: int, accelerators: int) -> ScrapeView:
    """Every gauge of every node, with so many models in memory and so many accelerators."""
    gpus = [accelerator(number) for number in range(accelerators)]
    models = engine([wire.LoadedModel(name=model, vram_bytes=1) for model in MODELS[:loaded]])
    nodes = tuple(node_seen(heartbeat(node, gpus=gpus, engine=models)) for node in NODES)
    return replace(full_view(), queue_depth={}, nodes=nodes)


VIEW = view_of(loaded=6, accelerators=4)  # what docs/observability.md promises the limit for


def series(sink: MetricsSink, view: ScrapeView = VIEW) -> set[str]:
    """Every series of an exposition, without its value."""
    lines = sink.render("", view)[0].decode().splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


def fleet_of(nodes: list[str], models: list[str]) -> MetricsSink:
    """A sink for nodes that all have these models."""
    sink = MetricsSink("1.2.3")
    sink.set_known(dict.fromkeys(nodes, models))
    return sink


def mixed() -> list[Finished]:
    """Requests for every model on every node at every path, that end in every way, streamed or not."""
    usage, found = Usage(20, 40, 8, 16, "reported", "stop", 4.0, 0.2, 1.0), []
    errors = ERROR_TYPE.values or ()
    for number, (node, model, endpoint) in enumerate(product(NODES, MODELS, OPERATIONS)):
        status = list(Status)[number % len(Status)]
        event = builders.finished(model=model, node_id=node, status=status, usage=usage)
        assert event.request is not None
        asked = replace(event.request, stream=number % 2 == 0, endpoint=endpoint)
        error_type = errors[number % len(errors)] if status is not Status.COMPLETED else None
        found.append(replace(event, endpoint=endpoint, request=asked, error_type=error_type))
    return found


@pytest.fixture(scope="module")
def used() -> tuple[set[str], set[str]]:
    """The series of ten nodes with twenty models before anything was asked of them, and after everything was."""
    sink = fleet_of(NODES, MODELS)
    before = series(sink)
    for event in [*mixed(), *script()]:
        sink.take(event)
    return before, series(sink)


def test_ten_nodes_with_twenty_models_stay_under_five_thousand_samples_however_they_are_used(used):
    """Rendering costs over ten microseconds a sample, and every scrape pays it."""
    before, after = used
    assert len(before) > 4000, "the fleet is as large as it is said to be"
    assert len(after) < LIMIT


def test_a_scrape_of_a_large_exposition_lets_the_event_loop_in_again_and_again():
    """A thread that computes without a pause holds every stream up for the interpreter's 5 ms, time after time."""
    pauses = []
    sink = MetricsSink("1.2.3", pause=pauses.append)
    sink.set_known(dict.fromkeys(NODES, MODELS))
    for accept in ("", OPENMETRICS):
        pauses.clear()
        lines = sink.render(accept, VIEW)[0].count(b"\n")
        assert len(pauses) >= lines // 300
        assert all(0 < seconds <= 0.001 for seconds in pauses), "and is not kept long by that itself"


def test_a_further_model_in_memory_is_one_sample_of_its_node_and_a_further_accelerator_three():
    """Who has more than the limit is stated for can reckon what that costs."""
    sink = fleet_of(NODES, MODELS)
    usual = len(series(sink))
    assert len(series(sink, view_of(loaded=7, accelerators=4))) == usual + len(NODES)
    assert len(series(sink, view_of(loaded=6, accelerators=5))) == usual + 3 * len(NODES)


def test_nothing_of_a_fleet_of_that_size_appears_only_when_it_is_used(used):
    """A counter born at 1 hides its first increase from Prometheus; only what no fleet knows may come later."""
    before, after = used
    assert {line for line in after - before if "_unknown" not in line and "herd_fallbacks_total" not in line} == set()


@pytest.mark.parametrize(("nodes", "models"), [(20, 50), (20, 200), (64, 200), (2, 200)])
def test_a_larger_fleet_s_idle_exposition_stays_under_five_thousand_lines(nodes, models):
    """What is made before its first use must not grow as nodes times models."""
    sink = fleet_of(
        [f"node-{number}" for number in range(nodes)], [f"model-{number}:latest" for number in range(models)]
    )
    assert sink.render()[0].count(b"\n") < LIMIT
