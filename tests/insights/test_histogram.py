"""Distributions add up, and a percentile of them is as near as it is said to be."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from herd.store.histogram import LEAST, MOST, RELATIVE_ERROR, Distribution, bucket_of, value_of

PERCENTS = (1, 50, 75, 95, 99, 100)
milliseconds = st.floats(min_value=0.0, max_value=1e9)
lists = st.lists(milliseconds, min_size=1, max_size=200)


def of(values):
    made = Distribution()
    for value in values:
        made.add(value)
    return made


def stored(values):
    made, read = of(values), Distribution()
    read.add_stored(made.count, made.total_us, made.packed())
    return read


def nearest_rank(values, percent):
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


def near(told, exact):
    return abs(told - exact) <= max(exact * (RELATIVE_ERROR + 1e-5), LEAST)


@given(lists)
def test_percentiles_of_single_values_are_exact(values):
    """A short window has no reason to estimate."""
    assert of(values).quantiles(PERCENTS) == [nearest_rank(values, percent) for percent in PERCENTS]


@given(lists)
def test_percentiles_of_stored_values_are_within_the_documented_error(values):
    """The error is a promise; a page of latencies is read by it."""
    found = stored(values).quantiles(PERCENTS)
    assert all(near(told, nearest_rank(values, percent)) for told, percent in zip(found, PERCENTS, strict=True))


@given(lists, lists)
def test_two_distributions_added_are_the_distribution_of_both(one, other):
    """Hours are added to days, and days to months."""
    both, whole = stored(one), stored([*one, *other])
    both.merge(stored(other))
    assert (both.count, both.total_us, both.quantiles(PERCENTS)) == (
        whole.count, whole.total_us, whole.quantiles(PERCENTS))  # fmt: skip
    assert both.packed() == whole.packed()


def test_many_stored_ones_added_are_the_distribution_of_all():
    """A month of a busy fleet is thousands of them, and they are added another way than a few."""
    dice = random.Random(4)
    parts = [[dice.lognormvariate(6, 2) for _ in range(60)] for _ in range(50)]
    both, whole = Distribution(), stored([value for part in parts for value in part])
    for part in parts:
        both.add_stored(of(part).count, of(part).total_us, of(part).packed())
    assert both.quantiles(PERCENTS) == whole.quantiles(PERCENTS)
    assert both.packed() == whole.packed()


@given(lists, lists)
def test_values_and_stored_ones_may_be_mixed(one, other):
    """The edges of a long window are single rows."""
    mixed = stored(one)
    mixed.merge(of(other))
    assert mixed.quantiles(PERCENTS) == stored([*one, *other]).quantiles(PERCENTS)
    assert (mixed.count, mixed.total_us) == (len(one) + len(other), of([*one, *other]).total_us)


@given(st.lists(st.integers(min_value=0, max_value=10**9), max_size=100))
def test_sums_do_not_depend_on_the_order(microseconds):
    """Floats added in another order give another sum; whole microseconds do not."""
    values = [each / 1000 for each in microseconds]
    shuffled = random.Random(1).sample(values, len(values))
    assert of(values).total_us == of(shuffled).total_us == sum(microseconds)


@given(st.floats(min_value=LEAST, max_value=MOST))
def test_every_value_is_near_the_one_that_stands_for_its_bucket(value):
    """One bucket that is too wide would be enough to break the promise."""
    assert near(value_of(bucket_of(value)), value)


def test_nothing_has_no_mean_and_no_percentile():
    """Zero would read as fast."""
    assert (Distribution().average, Distribution().quantiles((50, 99))) == (None, [None, None])
    assert Distribution().packed() is None


def test_times_too_small_to_measure_count_all_the_same():
    """A queue in which nobody waited has a median: next to nothing."""
    none = stored([0.0] * 10)
    assert (none.count, none.average, none.quantiles((50,))) == (10, 0.0, [LEAST])
