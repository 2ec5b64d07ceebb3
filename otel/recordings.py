"""The recording rules, as a table: every sum is recorded once, and what is judged is made of the sums.

Names are level:metric:operation. Windows over two hours stand in a group of their own, which is evaluated seldom: three
days of a hundred series are read in one go, and the answer hardly changes in two minutes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from otel.thresholds import NOT_HERDS_FAULT, Span, faster

SHORT: Final = ("5m", "30m", "1h", "2h")
LONG: Final = ("6h", "1d", "3d")
LONG_INTERVAL: Final = "2m"
MODEL_WINDOWS: Final = {"1h": SHORT, "6h": LONG}  # what ModelFailing looks at
COMPLETED: Final = 'herd_requests_finished_total{status="completed"}'


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording rule."""

    record: str
    expr: str


def recordings(thresholds: Mapping[str, float], speed: float = 1) -> list[Recording]:
    """Sums and ratios over the short windows, one for each router, and for each of its models."""
    return _over(SHORT, thresholds, faster(speed))


def long_recordings(thresholds: Mapping[str, float], speed: float = 1) -> list[Recording]:
    """The same over the long windows."""
    return _over(LONG, thresholds, faster(speed))


def _over(windows: tuple[str, ...], thresholds: Mapping[str, float], span: Span) -> list[Recording]:
    rules = [rule for window in windows for rule in _of_routers(window, thresholds, span)]
    return rules + [rule for window in windows if window in MODEL_WINDOWS for rule in _of_models(window, span)]


def _of_routers(window: str, thresholds: Mapping[str, float], span: Span) -> list[Recording]:
    """What a client asked wrong or left is neither good nor bad; a refusal for want of room is bad.

    A first token that is late because the model was read from disk is not counted as late: that is what a model costs
    that is seldom asked for, and ModelThrashing speaks of those that are loaded too often.
    """

    def grown(selector: str) -> str:
        return f"sum by (instance) (increase({selector}[{span(window)}]))"

    failed, judged = (f"instance:herd_requests_{what}:increase{window}" for what in ("failed", "judged"))
    streams, late = (f"instance:herd_{what}:increase{window}" for what in ("streams", "streams_late"))
    le = f'{{le="{float(thresholds["ttft_s"])}"}}'
    loads = f"{grown('herd_model_load_seconds_count')} - {grown(f'herd_model_load_seconds_bucket{le}')}"
    in_time = grown(f"herd_time_to_first_token_seconds_bucket{le}")
    return [
        Recording(failed, grown(f'herd_request_errors_total{{error_type!~"{NOT_HERDS_FAULT}"}}')),
        Recording(judged, f"{grown(COMPLETED)} + {failed}"),
        Recording(_ratio(failed), f"{failed} / ({judged} > 0) or 0 * {judged}"),
        Recording(streams, f"{grown('herd_time_to_first_token_seconds_count')} or 0 * {judged}"),
        Recording(late, f"clamp_min({streams} - {in_time} - ({loads} or 0 * {streams}), 0) or 0 * {streams}"),
        Recording(_ratio(late), f"{late} / ({streams} > 0) or 0 * {streams}"),
    ]


def _of_models(window: str, span: Span) -> list[Recording]:
    over = f"[{span(window)}]"
    failed = f"instance_model:herd_requests_failed:increase{window}"
    completed = f'sum by (instance, model) (increase(herd_requests_total{{status="completed"}}{over}))'
    return [
        Recording(failed, f"sum by (instance, model) (increase(herd_requests_failed_total{over}))"),
        Recording(_ratio(failed), f"{failed} / ({completed} + {failed} > 0)"),
    ]


def _ratio(increase: str) -> str:
    return increase.replace(":increase", ":ratio_increase")
