"""From the running router to a report: nodes as facts, nodes that are missed, and losses of the last hour."""

from herd import wire
from herd.core.clock import Moment
from herd.core.events import Attempt, NodeKnown
from herd.core.health.report import LoadedFacts
from herd.fleet.cell import Cell
from herd.jobs.health_facts import Losses, Lost, node_facts
from tests.fleet.test_cell import GIB, beat

NOW = Moment(1000.0, 500.0)


def cell_with(*beats, at=NOW):
    made = Cell()
    for each in beats:
        made.heard(each, at)
    return made


def test_a_node_of_the_fleet_is_told_as_it_last_was():
    """Every check of nodes goes by this."""
    gpu = wire.Gpu(memory_total_bytes=24 * GIB, memory_used_bytes=10 * GIB)
    disk = wire.Disk(total_bytes=100, free_bytes=40)
    cell = cell_with(beat(loaded=("llama:8b",), agent_version="1.2", gpus=[gpu], disk=disk))
    facts = node_facts(cell.entries["a"], 3, NOW.at - 50, NOW.after(4))
    assert (facts.node_id, facts.status, facts.agent_version, facts.in_flight) == ("a", "online", "1.2", 3)
    assert (facts.silent_s, facts.known_s) == (4.0, 54.0)
    assert (facts.vram_total, facts.vram_used, facts.disk_total, facts.disk_free) == (24 * GIB, 10 * GIB, 100, 40)
    assert facts.loaded == (LoadedFacts("llama:8b", 5 * GIB, 5 * GIB, 4096, spilled=5 * GIB),)
    assert (facts.models, facts.breakers) == (frozenset({"llama:8b"}), {})


def test_what_a_node_does_not_measure_is_not_made_up():
    """A missing disk is not a full one."""
    facts = node_facts(cell_with(beat()).entries["a"], 0, None, NOW)
    assert (facts.disk_total, facts.disk_free, facts.vram_total, facts.known_s) == (None, None, 0, 0.0)


def test_only_breakers_that_are_not_closed_are_told():
    """Most never open."""
    cell = cell_with(beat())
    for model, failures in (("broken", 5), ("shaky", 1)):
        for _ in range(failures):
            cell.attempted(Attempt(1, "a", model, "u", "s", 0.0, 0.0, error_type="connect"), NOW)
    assert node_facts(cell.entries["a"], 0, None, NOW).breakers == {"broken": "open"}


def test_a_node_from_before_a_restart_is_awaited_and_then_missed():
    """A router that has just begun has not listened long enough to call anybody lost."""
    cell = Cell()
    cell.restored(beat(), NodeKnown("a", {}, NOW.at - 100), NOW)
    cell.restored(beat("gone", leaving=True), NodeKnown("gone", {}, NOW.at - 100, left=True), NOW)
    told = {name: node_facts(entry, 0, None, NOW) for name, entry in cell.entries.items()}
    assert (told["a"].here, told["a"].awaited, told["a"].silent_s) == (False, True, 100.0)
    assert (told["gone"].left, told["gone"].awaited) == (True, False)
    cell.looked(NOW.after(30))
    assert not node_facts(cell.entries["a"], 0, None, NOW.after(30)).awaited


def test_losses_are_those_of_the_last_hour():
    """What was lost in March is no news in May."""
    losses = Losses()
    assert losses.within_an_hour(Lost(rows=5), 10_000.0) == Lost(rows=5)
    assert losses.within_an_hour(Lost(rows=5, spans=2), 12_000.0) == Lost(rows=5, spans=2)
    assert losses.within_an_hour(Lost(rows=5, spans=2), 13_700.0) == Lost(spans=2)
    assert losses.within_an_hour(Lost(rows=6, spans=2), 15_700.0) == Lost(rows=1)
