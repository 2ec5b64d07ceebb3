"""The shapes of PromQL that panels are made of: rates, sums and quantiles over the interval that Grafana chooses.

Every query asks for the chosen routers alone, and adds up what several of them say, or names which one says it.
"""

from typing import Final

OVER: Final = "[$__rate_interval]"
RANGE: Final = "[$__range]"
NODE: Final = 'node=~"$node"'
MODEL: Final = 'model=~"$model"'
FROM_CELL: Final = "${__value.raw}&${instance:queryparam}&${__url_time_range}"  # what a link takes along from a cell
ROUTER: Final = 'instance=~"$instance"'
BOTH: Final = f"{NODE}, {MODEL}"


def of(metric: str, selector: str = "") -> str:
    """A metric's series, of the routers that are chosen; what an agent tells by itself has another `instance`."""
    of_agents = metric.startswith("herd_agent_")
    inside = ", ".join(part for part in (selector, "" if of_agents else ROUTER) if part)
    return f"{metric}{{{inside}}}" if inside else metric


def rate(metric: str, selector: str = "", by: str = "", over: str = OVER) -> str:
    """Events a second, summed."""
    return _summed(f"rate({of(metric, selector)}{over})", by)


def increase(metric: str, selector: str = "", by: str = "", over: str = OVER) -> str:
    """Events within the interval, summed."""
    return _summed(f"increase({of(metric, selector)}{over})", by)


def quantile(q: float, metric: str, selector: str = "", by: str = "", over: str = OVER) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({q:g}, {rate(f'{metric}_bucket', selector, f'le, {by}' if by else 'le', over)})"


def total(metric: str, selector: str = "", by: str = "") -> str:
    """A gauge, summed."""
    return _summed(of(metric, selector), by)


def most(metric: str, selector: str = "", by: str = "") -> str:
    """The largest of a gauge's values."""
    return f"max by ({by}) ({of(metric, selector)})" if by else f"max({of(metric, selector)})"


def worst(recorded: str) -> str:
    """A recorded ratio, which is one for each router: that of the worst of those that are chosen."""
    return most(recorded)


def or_zero(expr: str) -> str:
    """0 where there is no series yet; for aggregates without `by`, or it would be one more series beside the data."""
    return f"{expr} or vector(0)"


def _summed(expr: str, by: str) -> str:
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"
