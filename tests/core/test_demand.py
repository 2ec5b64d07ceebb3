"""What the fleet is asked for: kept of late, and of a number of names that clients cannot make grow."""

import pytest

from herd.core.demand import DEMAND_S, MOST_NAMES, Demand
from tests.core.builders import request


def test_a_request_fades_with_time():
    """What nobody wants any more is no reason to keep it in memory."""
    demand = Demand()
    demand.asked("m:1b", 0.0)
    early, late = demand.rates(0.0, ["m:1b"])["m:1b"], demand.rates(DEMAND_S, ["m:1b"])["m:1b"]
    assert early == 1 / DEMAND_S
    assert late == pytest.approx(early / 2.718, rel=0.001)


def test_only_the_models_that_are_asked_about_and_were_asked_for_have_a_rate():
    """Every decision is stored with these: names that clients make up are not to be in it."""
    demand = Demand()
    for name in ("m:1b", "made-up"):
        demand.asked(name, 0.0)
    assert demand.rates(0.0, ["m:1b", "never"]).keys() == {"m:1b"}


def test_names_that_clients_make_up_put_out_the_oldest_and_not_what_is_in_use():
    """A client may ask for a thousand models that are nowhere, under as many tags."""
    demand, first = Demand(), request("m:1b", tags=("first",))
    demand.answered("m:1b", ("first",), 7)
    before = demand.lengths(first)
    for number in range(2 * MOST_NAMES):
        demand.asked(f"made-up-{number}", 0.0)
        demand.asked("m:1b", 0.0)
        demand.answered("m:1b", (f"tag-{number}",), 100)
    names = [f"made-up-{number}" for number in range(2 * MOST_NAMES)]
    assert len(demand.rates(0.0, ["m:1b", *names])) == MOST_NAMES
    assert demand.rates(0.0, ["m:1b"])
    assert demand.lengths(first) == demand.lengths(request("m:1b")) != before
