"""What an operator reads of the findings: one entry a check."""

from dataclasses import replace

from herd.core.finding import Episode
from herd.core.health.checks import evaluate
from herd.core.health.whole import entries
from tests.health.builders import node, report

NOW = 1000.0


def episodes(*findings):
    return [Episode(f"id{number}", each, 900.0 + number, NOW) for number, each in enumerate(findings)]


def lost(*names):
    """The findings of a fleet from which these nodes are lost."""
    return evaluate(report(node(), *(node(name, status="offline", silent_s=60.0) for name in names)))


def test_one_check_over_many_nodes_is_one_entry_with_each_node_in_it():
    """Thirty cards that say the same bury the one that says something else."""
    (entry,) = entries(episodes(*lost("bob", "cy", "dee")), NOW)
    told = entry.episode
    assert (told.finding.title, told.finding.node_id) == ("3 nodes are offline", None)
    assert told.finding.data["nodes"] == ["bob", "cy", "dee"]
    assert told.finding.description.startswith("bob: Last heartbeat 60 s ago")
    assert (told.id, told.first_seen) == ("id0,id1,id2", 900.0)
    assert [part.finding.node_id for part in entry.parts] == ["bob", "cy", "dee"]


def test_one_finding_alone_is_shown_as_it_is():
    """A node's name in the title is worth more than a number."""
    (entry,) = entries(episodes(*lost("bob")), NOW)
    assert (entry.episode.finding.title, entry.episode.id) == ("Node bob is offline", "id0")


def test_what_is_silenced_or_acknowledged_is_no_part_of_what_is_new():
    """A node that has been off for a week must not hide the one that failed now."""
    known, quiet, new = episodes(*lost("bob", "cy", "dee"))
    found = entries([replace(known, acknowledged_at=950.0), replace(quiet, silenced_until=2000.0), new], NOW)
    assert sorted(each.episode.finding.title for each in found) == [
        f"Node {name} is offline" for name in ("bob", "cy", "dee")
    ]


def test_a_long_list_names_the_first_and_counts_the_rest():
    """The whole list is in the entry's parts."""
    (entry,) = entries(episodes(*lost(*(f"n{number}" for number in range(20)))), NOW)
    assert entry.episode.finding.description.endswith("And 14 more.")
    assert len(entry.parts) == 20


def test_the_worst_entry_stands_first_whatever_the_order_of_the_checks():
    """Who reads one line should read that one."""
    ill = report(node(agent_version=None), node("bob", agent_version="2"), node("cy", status="offline"))
    found = entries(episodes(*evaluate(ill)), NOW)
    assert [each.episode.finding.severity.value for each in found] == ["critical", "warning", "info"]
