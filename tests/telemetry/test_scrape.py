"""Gauges: what a scrape reads from a view of the moment."""

from herd import wire
from herd.telemetry.scrape import NodeSeen, ScrapeView
from tests.telemetry import exposition
from tests.telemetry.exposition import (
    MODEL,
    OTHER,
    accelerator,
    engine,
    full_view,
    node_seen,
    sink_with,
    text_families,
    value,
)


def heartbeat(**engine):
    """What an agent sends, with two accelerators that it gives the same index."""
    return wire.Heartbeat(
        node_id="ada", sent_at=1.0, agent_version="0.9", cpu=wire.Cpu(cores=8, utilization=0.5),
        memory=wire.Memory(total_bytes=100, used_bytes=60, available_bytes=40, pressure="critical"),
        gpus=[wire.Gpu(memory_total_bytes=10), wire.Gpu(memory_total_bytes=20, utilization=0.75)],
        engine=wire.Engine(kind="ollama", url="http://ada:11434", reachable=True, endpoints=[], **engine),
    )  # fmt: skip


def test_a_node_s_gauges_are_those_of_the_view():
    """The node table of the health dashboard."""
    sink, view = sink_with(MODEL), full_view()
    assert value(sink, "herd_node_up", view, node="ada") == 1
    assert value(sink, "herd_node_draining", view, node="ada") == 1
    assert value(sink, "herd_requests_in_flight", view, node="ada") == 3
    assert value(sink, "herd_node_memory_bytes", view, node="ada", kind="used") == 12_000
    assert value(sink, "herd_node_memory_pressure", view, node="ada") == 1
    assert value(sink, "herd_node_gpu_memory_bytes", view, node="ada", gpu="0", kind="total") == 24_000
    assert value(sink, "herd_model_vram_bytes", view, node="ada", model=MODEL) == 3_000
    labels = {"node": "ada", "version": "1.2.3", "engine": "ollama", "engine_version": "0.11.4"}
    assert value(sink, "herd_node_info", view, **labels) == 1


def test_a_lost_node_is_down_not_absent():
    """An alert on `herd_node_up == 0` needs the series to stay."""
    sink = sink_with(MODEL)
    view = ScrapeView(nodes=(node_seen(up=False),))
    assert value(sink, "herd_node_up", view, node="ada") == 0


def test_a_node_that_is_there_but_takes_nothing_is_up_and_not_ready():
    """A fleet of such nodes refuses every request, and `herd_node_up` alone would call it well."""
    sink = sink_with(MODEL)
    view = ScrapeView(nodes=(node_seen(ready=False),))
    assert (value(sink, "herd_node_up", view, node="ada"), value(sink, "herd_node_ready", view, node="ada")) == (1, 0)


def test_what_a_node_cannot_measure_has_no_sample():
    """A zero would read as an idle GPU or a full disk."""
    sink = sink_with(MODEL)
    bare = node_seen(exposition.heartbeat(disk=None, gpus=[accelerator(utilization=None)]))
    families = text_families(sink, ScrapeView(nodes=(bare,)))
    assert families["herd_node_disk_free_bytes"].samples == []
    assert families["herd_node_gpu_utilization_ratio"].samples == []


def test_there_is_no_oldest_request_while_there_is_none():
    """`time() - 0` would be fifty years, and RequestStuck would fire for ever."""
    sink = sink_with(MODEL)
    assert value(sink, "herd_oldest_request_timestamp_seconds", ScrapeView()) is None
    assert value(sink, "herd_oldest_request_timestamp_seconds", full_view()) is not None


def test_queues_of_unknown_models_are_added_up_under_one_label():
    """Two samples with the same labels would make Prometheus refuse the whole scrape."""
    sink = sink_with(MODEL)
    view = ScrapeView(queue_depth={"x:1": 2, "y:1": 3})
    assert value(sink, "herd_queue_depth", view, model="_unknown") == 5
    assert value(sink, "herd_queue_depth", view, model=MODEL) == 0


def test_memory_of_models_beyond_the_cap_is_added_up_too():
    """As above, for a node that holds more models than have series."""
    sink = sink_with("a:1", MODEL, OTHER, max_models=1)
    loaded = [wire.LoadedModel(name=MODEL, vram_bytes=3), wire.LoadedModel(name=OTHER, vram_bytes=4)]
    view = ScrapeView(nodes=(node_seen(exposition.heartbeat(engine=engine(loaded))),))
    assert value(sink, "herd_model_vram_bytes", view, node="ada", model="_unknown") == 7


def test_a_node_that_the_sink_was_not_told_of_shows_no_gauges():
    """Nodes get series by registering, not by being in a view."""
    view = ScrapeView(nodes=(node_seen(exposition.heartbeat("stranger")),))
    assert b"stranger" not in sink_with(MODEL).render("", view)[0]


def test_a_view_without_a_store_says_that_the_store_is_down():
    """A router whose store never opened must not look healthy."""
    assert value(sink_with(MODEL), "herd_trace_store_up", ScrapeView()) == 0


def test_a_heartbeat_is_read_as_it_came():
    """The seam between what agents send and what is scraped."""
    beat = heartbeat(loaded=[wire.LoadedModel(name="llama3.2", vram_bytes=5)], version="0.11")
    view = ScrapeView(nodes=(NodeSeen(beat, up=True, ready=True, draining=False, last_seen=7.0, in_flight=2),))
    sink = sink_with("llama3.2:latest")
    labels = {"node": "ada", "version": "0.9", "engine": "ollama", "engine_version": "0.11"}
    assert value(sink, "herd_node_info", view, **labels) == 1
    gauges = ("cpu_ratio", "memory_pressure", "last_seen_timestamp_seconds", "left", "draining")
    assert [value(sink, f"herd_node_{gauge}", view, node="ada") for gauge in gauges] == [0.5, 2, 7, 0, 0]
    assert value(sink, "herd_model_vram_bytes", view, node="ada", model="llama3.2:latest") == 5
    assert value(sink, "herd_models_loaded", view, node="ada") == 1
    assert value(sink, "herd_breaker_state", view, node="ada") == 0
    assert value(sink, "herd_node_disk_free_bytes", view, node="ada") is None


def test_accelerators_that_share_an_index_are_still_told_apart():
    """Two samples with the same labels would make Prometheus refuse the whole scrape."""
    view = ScrapeView(nodes=(node_seen(heartbeat()),))
    for index, total in (("0", 10), ("1", 20)):
        labels = {"node": "ada", "gpu": index, "kind": "total"}
        assert value(sink_with(MODEL), "herd_node_gpu_memory_bytes", view, **labels) == total


def test_counts_of_other_threads_are_shown_as_counters():
    """Telemetry's own losses belong on the same page as what it tells."""
    sink, view = sink_with(MODEL), full_view()
    assert value(sink, "herd_trace_rows_total", view, outcome="dropped") == 2
    assert value(sink, "herd_log_lines_total", view, level="ERROR") == 1
    assert value(sink, "herd_log_lines_total", view, level="WARNING") == 0
    assert value(sink, "herd_log_dropped_total", view) == 3
    assert value(sink, "herd_spans_exported_total", view) == 11
    assert value(sink, "herd_sink_failures_total", view) == 1
