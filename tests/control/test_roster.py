"""The roster: what heartbeats make of the fleet, and what silence does."""

import pytest

from herd import wire
from herd.core.events import Attempt, NodeKnown
from herd.core.prediction import Job
from herd.core.request import Dialect, Request
from herd.roster import Roster

GIB = 1024**3
ASKED = Request("/api/chat", Dialect.OLLAMA, "llama:8b", prefix="p")


def beat(node_id="a", models=("llama:8b",), loaded=(), reachable=True, **changes):
    engine = wire.Engine(
        kind="ollama",
        url="http://127.0.0.1:11434",
        reachable=reachable,
        endpoints=list(wire.OLLAMA_ENDPOINTS),
        models=[wire.Model(name=name, size_bytes=5 * GIB) for name in models] if reachable else [],
        loaded=[wire.LoadedModel(name=name, size_bytes=5 * GIB, context_length=4096) for name in loaded],
    )
    memory = wire.Memory(total_bytes=64 * GIB, used_bytes=8 * GIB, available_bytes=56 * GIB)
    return wire.Heartbeat(
        **{"node_id": node_id, "sent_at": 0.0, "cpu": wire.Cpu(cores=8), "memory": memory, "engine": engine, **changes}
    )


def kinds(changes):
    return [(change.kind, change.model) for change in changes]


def status(roster, node_id="a"):
    return roster.entries[node_id].node.status


def test_a_first_heartbeat_joins_a_node_and_a_second_changes_nothing():
    """A heartbeat every five seconds must not be an event every five seconds."""
    roster = Roster()
    assert kinds(roster.apply(beat(), 0.0)) == [("node_joined", None)]
    assert roster.apply(beat(), 5.0) == []


def test_loads_and_unloads_pulls_and_deletes_are_told_by_model():
    """The history of a node is made of these."""
    roster = Roster()
    roster.apply(beat(models=("x", "y")), 0.0)
    told = kinds(roster.apply(beat(models=("x", "z"), loaded=("x",)), 1.0))
    assert told == [("model_added", "z:latest"), ("model_removed", "y:latest"), ("model_loaded", "x:latest")]
    assert kinds(roster.apply(beat(models=("x", "z")), 2.0)) == [("model_unloaded", "x:latest")]


def test_a_silent_node_is_degraded_then_lost_then_back():
    """15 and 30 seconds, each told once."""
    roster = Roster(15, 30)
    roster.apply(beat(), 0.0)
    assert (roster.expire(14.0), status(roster)) == ([], "online")
    assert (kinds(roster.expire(15.0)), status(roster)) == ([("node_degraded", None)], "degraded")
    assert roster.expire(16.0) == []
    assert (kinds(roster.expire(30.0)), status(roster)) == ([("node_lost", None)], "offline")
    assert (kinds(roster.apply(beat(), 40.0))[0], status(roster)) == (("node_back", None), "online")


def test_a_node_that_left_in_order_is_not_lost():
    """An orderly stop must not raise an alarm 30 seconds later."""
    roster = Roster()
    roster.apply(beat(), 0.0)
    assert kinds(roster.apply(beat(leaving=True), 1.0)) == [("node_left", None)]
    assert roster.expire(100.0) == []
    assert roster.entries["a"].left


def test_an_engine_that_went_away_keeps_its_models_on_disk():
    """It lists nothing while it is away, and its model must not become unknown by that."""
    roster = Roster()
    roster.apply(beat(), 0.0)
    assert kinds(roster.apply(beat(reachable=False), 1.0)) == [("node_degraded", None), ("engine_lost", None)]
    assert roster.knows("llama:8b")
    assert kinds(roster.apply(beat(), 2.0)) == [("node_back", None), ("engine_back", None)]


def test_an_operators_drain_outlives_the_nodes_next_heartbeats():
    """Otherwise a drain would last five seconds."""
    roster = Roster()
    roster.apply(beat(), 0.0)
    roster.drain("a", True, 1.0)
    roster.apply(beat(), 5.0)
    assert roster.entries["a"].node.draining
    roster.drain("a", False, 6.0)
    assert not roster.entries["a"].node.draining


def restored(heartbeat=None, at=0.0, **known):
    roster, heartbeat = Roster(15, 30), heartbeat or beat()
    roster.restore(heartbeat, NodeKnown(heartbeat.node_id, {}, **{"last_seen": at - 3, **known}), at)
    return roster


def test_a_node_from_before_a_restart_is_offline_without_being_news_until_it_had_its_time():
    """A restart of three seconds is no reason to call a whole fleet lost, and no reason to send requests there."""
    roster = restored()
    assert (status(roster), roster.sizes(), roster.samples({}, 1.0)) == ("offline", {}, [])
    assert (roster.expire(29.0), status(roster)) == ([], "offline")
    assert kinds(roster.expire(30.0)) == [("node_lost", None)]
    assert (roster.expire(31.0), status(roster)) == ([], "offline")
    assert [sample.status for sample in roster.samples({}, 31.0)] == ["offline"]


def test_a_node_that_reports_in_time_after_a_restart_has_all_its_slots():
    """Every restart would otherwise begin with a fleet of one request at a time."""
    roster = restored()
    assert kinds(roster.apply(beat(loaded=("llama:8b",)), 5.0)) == [("node_back", None), ("model_loaded", "llama:8b")]
    assert (status(roster), roster.sizes()) == ("online", {"a": 4})
    assert kinds(roster.expire(31.0)) == [("node_degraded", None)]


def test_a_node_that_left_before_a_restart_is_not_lost_after_it():
    """Switched off for the night stays switched off for the night."""
    roster = restored(beat(leaving=True), left=True)
    assert (roster.entries["a"].left, roster.expire(100.0)) == (True, [])
    assert kinds(roster.apply(beat(), 101.0))[0] == ("node_back", None)
    assert not roster.entries["a"].left


def test_a_clock_that_was_set_back_does_not_keep_a_silent_node_awaited():
    """A last heartbeat of the future would otherwise be fresh for hours."""
    roster = restored(last_seen=9000.0)
    assert kinds(roster.expire(30.0)) == [("node_lost", None)]
    assert status(roster) == "offline"


def test_what_is_kept_of_a_node_makes_the_same_node_again():
    """Drained by the operator, it must not get requests because the router was restarted."""
    roster = Roster()
    roster.apply(beat(models=("x", "y"), loaded=("x",)), 7.0)
    roster.drain("a", True, 8.0)
    (known,) = roster.known()
    assert (known.node_id, known.last_seen, known.left, known.drained) == ("a", 7.0, False, True)
    again = restored(wire.Heartbeat.model_validate(known.heartbeat), drained=known.drained)
    again.apply(beat(models=("x", "y"), loaded=("x",)), 9.0)
    assert again.entries["a"].node == roster.entries["a"].node


def test_a_node_that_was_awaited_can_be_struck_off():
    """A machine that was sold need not be waited for."""
    roster = restored()
    assert kinds(roster.forget("a", 1.0)) == [("node_forgotten", None)]
    assert (roster.expire(40.0), roster.known()) == ([], [])


def test_losses_of_the_last_hour_are_counted_and_forgotten_after_it():
    """A node that flaps is worth fewer points for an hour, not for ever."""
    roster = Roster()
    for at in (0.0, 100.0):
        roster.apply(beat(), at)
        roster.expire(at + 40)
    roster.apply(beat(), 200.0)
    assert roster.entries["a"].node.losses == 2
    roster.apply(beat(), 4000.0)
    assert roster.entries["a"].node.losses == 0


def failed(error_type="connect"):
    return Attempt(1, "a", "llama:8b", "http://a", "s", 0.0, 0.0, error_type=error_type)


@pytest.mark.parametrize(("error_type", "opens"), [("connect", True), ("upstream_5xx", True), ("upstream_4xx", False)])
def test_five_faults_of_the_node_open_its_breaker_and_a_clients_mistakes_do_not(error_type, opens):
    """A client that sends bad requests must not take a node away from everyone."""
    roster = Roster()
    roster.apply(beat(), 0.0)
    told = [change for _ in range(5) for change in roster.attempted(failed(error_type), 1.0)]
    assert roster.snapshot(ASKED, 2.0).traffic_of("a", "llama:8b").breaker_open is opens
    assert bool(told) is opens


def test_an_open_breaker_lets_one_probe_through_and_closes_when_it_succeeds():
    """Half-open: one request finds out, not all of them."""
    roster = Roster()
    roster.apply(beat(), 0.0)
    for _ in range(5):
        roster.attempted(failed(), 0.0)
    blocked = [roster.snapshot(ASKED, at).traffic_of("a", "llama:8b").breaker_open for at in (4.9, 5.1)]
    roster.begun("a", Job("probe", "llama:8b", 0.1, 1.0), 5.1)
    blocked.append(roster.snapshot(ASKED, 5.1).traffic_of("a", "llama:8b").breaker_open)
    assert blocked == [True, False, True]
    assert kinds(roster.attempted(failed(None), 5.2))[0] == ("breaker_changed", "llama:8b")
    assert not roster.snapshot(ASKED, 5.3).traffic_of("a", "llama:8b").breaker_open


def test_a_failed_probe_opens_the_breaker_for_twice_as_long():
    """A node that stays broken is asked less and less often, up to once a minute."""
    roster = Roster()
    roster.apply(beat(), 0.0)
    for _ in range(5):
        roster.attempted(failed(), 0.0)
    roster.attempted(failed(), 5.0)
    assert [roster.breaker_state("a", at) for at in (14.9, 15.0)] == ["open", "half_open"]


def slots_over_time(roster, *moments):
    found = []
    for at in moments:
        roster.apply(beat(), at)
        roster.expire(at)
        found.append(roster.sizes()["a"])
    return found


def test_a_node_that_says_it_is_busy_gets_half_its_slots_and_then_one_more_at_a_time():
    """It knows its limit better than a setting does; and it is not busy for ever."""
    roster = Roster()
    roster.apply(beat(), 0.0)
    told = roster.attempted(failed("upstream_busy"), 0.0)
    assert [(change.kind, change.data["slots"]) for change in told] == [("slots_limited", 2)]
    assert slots_over_time(roster, 1.0, 2.0, 3.0, 4.0, 5.0) == [2, 3, 3, 4, 4]


def test_a_node_that_comes_back_is_not_buried_at_once():
    """Slow start: one request finds out whether it is well."""
    roster = Roster()
    roster.apply(beat(), 0.0)
    roster.expire(40.0)
    assert slots_over_time(roster, 41.0, 43.0, 45.0, 47.0) == [1, 2, 3, 4]


def test_a_node_that_joins_for_the_first_time_has_all_its_slots():
    """A node that nobody knows is not weak for that."""
    roster = Roster()
    roster.apply(beat(), 0.0)
    assert roster.sizes() == {"a": 4}
