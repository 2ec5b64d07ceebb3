"""The one table of thresholds, and the durations that the rules are written in."""

from collections.abc import Callable, Mapping
from typing import Final

NOT_HERDS_FAULT: Final = "bad_request|unauthorized|model_missing|upstream_4xx|cancelled"
UNITS: Final = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
SHORTEST_S: Final = 5  # a window needs a few samples, however fast a test runs

THRESHOLDS: Final[Mapping[str, float]] = {
    "error_objective": 0.99,  # share of requests that must not fail on our side
    "ttft_objective": 0.95,  # share of streams whose first token comes in time
    "ttft_s": 10,  # in time: a bound of the histogram's buckets, and of a load's
    "least_requests": 20,  # in the longer window, or a ratio says nothing
    "least_failures": 5,  # in the longer window: two of 25 are bad luck
    "model_failing_ratio": 0.02,  # of one model's requests over six hours, twice what all may
    "flaps": 3,  # times down and up again in an hour
    "restarts": 3,  # of the router in half an hour; an upgrade is one
    "queue_depth": 20,
    "queue_wait_s": 30,  # at p95, a bound of the histogram's buckets
    "rejections": 5,  # in five minutes; clients that retry get over fewer by themselves
    "thrashing_loads": 6,  # cold loads of one model on one node in half an hour
    "stuck_s": 900,
    "overhead_s": 0.05,
    "overhead_least_rps": 0.1,
    "stalls": 10,  # times in five minutes that the event loop came over 0.1 s late
    "disk_bytes": 10 * 2**30,
    "usage_missing_ratio": 0.1,
}
Span = Callable[[str], str]


def seconds(span: str) -> int:
    """Seconds of a duration such as `5m`."""
    return int(span[:-1]) * UNITS[span[-1]]


def faster(speed: float) -> Span:
    """A function that shortens durations by `speed`; 1 leaves them as they are."""

    def shortened(span: str) -> str:
        return span if speed == 1 or span == "0m" else f"{max(SHORTEST_S, round(seconds(span) / speed))}s"

    return shortened
