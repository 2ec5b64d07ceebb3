"""Routing holds its level: a small fixed set of traffic and fleets in virtual time."""

import pytest

from herd.planning.compare import CLAIRVOYANT, HERD, SIMPLE, Cell, made_trace, misses, run

CELLS = (Cell("conversation", 5, 0.5), Cell("code", 5, 0.6), Cell("code", 3, 0.3), Cell("long", 10, 0.25))
REQUESTS, SEED = 500, 3


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.trace}-{cell.machines}")
def test_herd_meets_its_targets_against_the_clairvoyant_and_beats_every_simple_policy(cell):
    """What foresight gives is to be had by prediction; whoever makes routing worse shall see it here."""
    lengths = made_trace(cell.trace, SEED)
    results = {name: run(cell, lengths, name, REQUESTS, SEED) for name in (*SIMPLE, HERD, CLAIRVOYANT)}
    assert misses(results) == []
    assert all(len(result.served) == REQUESTS for result in results.values())


def test_the_same_traffic_gives_the_same_result_each_time():
    """A difference between two runs must come from a difference between two policies."""
    cell, lengths = CELLS[0], made_trace("conversation", SEED)
    assert run(cell, lengths, HERD, 150, SEED) == run(cell, lengths, HERD, 150, SEED)
