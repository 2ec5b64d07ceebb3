"""What happens to spans, and does not happen to anything else, when the collector is away."""

import threading
import time
from collections.abc import Iterator

import pytest

from herd.telemetry.span_fields import span_count
from herd.telemetry.spans import SpanSink
from tests.harness import free_port
from tests.store import builders
from tests.telemetry.otlp import OtlpReceiver

BOUND_S = 3.0
ENDLESS_S = 20.0  # generous to a busy machine; left to itself the SDK takes thirty seconds


@pytest.fixture(autouse=True)
def no_thread_outlives_its_test() -> Iterator[None]:
    """An exporter that was given up still tries for a while, and would do so in the next test's time."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(ENDLESS_S)
        assert not thread.is_alive(), thread.name


def refused_url() -> str:
    """An address that nobody listens on."""
    return f"http://127.0.0.1:{free_port()}"


def closing(sink: SpanSink) -> float:
    """How long a shutdown took."""
    before = time.monotonic()
    sink.close(BOUND_S)
    return time.monotonic() - before


def test_a_collector_that_is_not_there_costs_the_spans_and_nothing_else():
    """Telemetry that is down must not be an outage."""
    sink = SpanSink(refused_url())
    event = builders.finished()
    sink.take(event)
    assert closing(sink) < ENDLESS_S
    assert (sink.stats().exported, sink.stats().dropped) == (0, span_count(event))


def test_a_collector_that_answers_500_costs_the_spans_and_nothing_else():
    """As above, for one that is there and broken."""
    with OtlpReceiver("500") as receiver:
        sink, event = SpanSink(receiver.url), builders.finished()
        sink.take(event)
        assert sink.flush(10)
        assert receiver.requests >= 1
        assert (sink.stats().exported, sink.stats().dropped) == (0, span_count(event))
        assert closing(sink) < ENDLESS_S


def test_a_collector_that_hangs_does_not_hang_the_shutdown():
    """The SDK would wait thirty seconds, whatever it is told."""
    with OtlpReceiver("hanging") as receiver:
        sink, events = SpanSink(receiver.url), [builders.finished() for _ in range(200)]
        for event in events:
            sink.take(event)
        assert receiver.wait_for(lambda seen: seen.requests)
        assert closing(sink) < ENDLESS_S
        assert (sink.stats().exported, sink.stats().dropped) == (0, sum(map(span_count, events)))


def test_a_flush_gives_up_after_its_timeout_while_the_collector_hangs():
    """The SDK's own ignores the timeout that it is given."""
    with OtlpReceiver("hanging") as receiver:
        sink = SpanSink(receiver.url)
        sink.take(builders.finished())
        assert sink.flush(0.3) is False
        closing(sink)


def test_taking_goes_on_while_the_collector_hangs():
    """The request's path ends at the queue: what does not fit is counted, never waited for."""
    with OtlpReceiver("hanging") as receiver:
        sink, event = SpanSink(receiver.url, capacity=10), builders.finished()
        for _ in range(5_000):
            sink.take(event)
        assert sink.stats().dropped > 0
        assert closing(sink) < ENDLESS_S


def test_spans_are_exported_again_when_the_collector_is_back():
    """Nobody restarts a router because a collector was restarted."""
    with OtlpReceiver("500") as receiver:
        sink = SpanSink(receiver.url)
        sink.take(builders.finished())
        assert sink.flush(10)
        receiver.mode = "ok"
        event = builders.finished()
        sink.take(event)
        assert sink.flush(10)
        assert {span.trace_id for span in receiver.spans} == {event.ids.trace_id}
        assert sink.close(10)


def test_a_full_queue_of_spans_is_accounted_for_to_the_last_one(monkeypatch):
    """Exported and dropped add up to what was made, or the alert on losses lies."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "20")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    with OtlpReceiver() as receiver:
        sink, events = SpanSink(receiver.url), [builders.finished() for _ in range(300)]
        for event in events:
            sink.take(event)
        assert sink.flush(10)
        stats = sink.stats()
        assert stats.exported == len(receiver.spans)
        assert stats.exported + stats.dropped == sum(map(span_count, events))
        assert stats.dropped > 0
        assert sink.close(10)


def test_a_wrong_setting_of_the_sdk_s_is_said_and_does_not_stop_the_start(monkeypatch, caplog):
    """An operator's typing error in a variable of tracing is no reason not to route."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "5")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "500")
    sink = SpanSink(refused_url())
    assert sink.provider is None
    assert "Spans are not exported" in caplog.text


def test_another_protocol_is_said_not_to_be_spoken(monkeypatch, caplog):
    """Otherwise one looks for the error in the collector."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    sink = SpanSink(refused_url())
    assert "http/protobuf" in caplog.text
    sink.close(BOUND_S)


@pytest.mark.parametrize("tail", ["", "/", "/v1/traces", "/v1/traces/"])
def test_the_endpoint_may_be_given_with_or_without_its_path(tail):
    """The standard variable has no path, the standard's other variable has one."""
    with OtlpReceiver() as receiver:
        sink = SpanSink(receiver.url + tail)
        sink.take(builders.refused())
        assert sink.close(10)
        assert len(receiver.spans) == 1


def test_threads_of_spans_do_not_keep_the_process_alive():
    """A router that does not end is killed, and with it its last rows."""
    before = set(threading.enumerate())
    with OtlpReceiver("hanging") as receiver:
        sink = SpanSink(receiver.url)
        sink.take(builders.finished())
        assert [thread.name for thread in set(threading.enumerate()) - before if not thread.daemon] == []
        closing(sink)
