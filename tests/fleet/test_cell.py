"""The cell: what heartbeats make of the fleet, what silence does, and who has a slot."""

import pytest

from herd import wire
from herd.core.admission import Place
from herd.core.clock import Moment
from herd.core.events import Attempt, NodeKnown
from herd.core.request import Dialect, Request
from herd.core.routing import Policy
from herd.fleet.cell import Cell, TwinHeard
from herd.fleet.entry import Patience
from herd.fleet.slots import Bid

GIB = 1024**3
ASKED = Request("/api/chat", Dialect.OLLAMA, "llama:8b", prefix="p")


def beat(
    node_id="a", models=("llama:8b",), loaded=(), reachable=True, slots=4, url="http://127.0.0.1:11434", **changes
):
    engine = wire.Engine(
        kind="ollama",
        url=url,
        reachable=reachable,
        slots=slots,
        endpoints=list(wire.OLLAMA_ENDPOINTS),
        models=[wire.Model(name=name, size_bytes=5 * GIB) for name in models] if reachable else [],
        loaded=[wire.LoadedModel(name=name, size_bytes=5 * GIB, context_length=4096) for name in loaded],
    )
    memory = wire.Memory(total_bytes=64 * GIB, used_bytes=8 * GIB, available_bytes=56 * GIB)
    return wire.Heartbeat(
        **{"node_id": node_id, "sent_at": 0.0, "cpu": wire.Cpu(cores=8), "memory": memory, "engine": engine, **changes}
    )


def at(seconds):
    """A moment so many seconds after the router's start, on a machine whose clock stands at a million."""
    return Moment(1_000_000.0 + seconds, seconds)


def kinds(changes):
    return [(event.kind, event.model) for event in changes.events]


def status(cell, node_id="a"):
    return cell.entries[node_id].node.status


def looks(cell, first, last):
    """Look once a second, as the keeper does; gives what the last look changed."""
    for second in range(int(first), int(last) + 1):
        changes = cell.looked(at(float(second)))
    return changes


def sizes(cell):
    return dict(cell.slots._sizes)


def open_breaker(cell, seconds):
    """Whether a request would be kept away."""
    return cell.entries["a"].traffic("llama:8b", at(seconds), list).breaker_open


def test_a_first_heartbeat_joins_a_node_and_a_second_changes_nothing():
    """A heartbeat every five seconds must not be an event every five seconds."""
    cell = Cell()
    assert kinds(cell.heard(beat(), at(0.0))) == [("node_joined", None)]
    assert kinds(cell.heard(beat(), at(5.0))) == []


def test_loads_and_unloads_pulls_and_deletes_are_told_by_model():
    """The history of a node is made of these."""
    cell = Cell()
    cell.heard(beat(models=("x", "y")), at(0.0))
    told = kinds(cell.heard(beat(models=("x", "z"), loaded=("x",)), at(1.0)))
    assert told == [("model_added", "z:latest"), ("model_removed", "y:latest"), ("model_loaded", "x:latest")]
    assert kinds(cell.heard(beat(models=("x", "z")), at(2.0))) == [("model_unloaded", "x:latest")]


def test_a_silent_node_is_degraded_then_lost_then_back():
    """15 and 30 seconds, each told once."""
    cell = Cell(Patience(15, 30))
    cell.heard(beat(), at(0.0))
    assert (kinds(looks(cell, 0, 14)), status(cell)) == ([], "online")
    assert (kinds(looks(cell, 15, 15)), status(cell)) == ([("node_degraded", None)], "degraded")
    assert kinds(looks(cell, 16, 29)) == []
    assert (kinds(looks(cell, 30, 30)), status(cell)) == ([("node_lost", None)], "offline")
    assert (kinds(cell.heard(beat(), at(40.0)))[0], status(cell)) == (("node_back", None), "online")


def test_a_router_that_was_away_itself_calls_no_node_lost():
    """A laptop that wakes, a router that was stopped: its own absence says nothing of the others."""
    cell = Cell(Patience(15, 30))
    cell.heard(beat(), at(0.0))
    looks(cell, 0, 10)
    assert (kinds(cell.looked(at(500.0))), status(cell)) == ([], "online")
    assert kinds(looks(cell, 501, 505)) == [("node_degraded", None)]


def test_a_clock_that_jumps_changes_no_node_and_is_told_once():
    """NTP steps clocks; a dead node must not stay online for it, and a fleet not be lost."""
    cell = Cell(Patience(15, 30))
    cell.heard(beat(), at(0.0))
    looks(cell, 0, 3)
    jumped = Moment(500.0, 4.0)
    (event,) = cell.looked(jumped).events
    assert (event.kind, event.data["seconds"], status(cell)) == ("clock_jumped", -999_504.0, "online")
    assert cell.looked(Moment(501.0, 5.0)).events == ()


def test_a_second_machine_of_the_same_name_is_refused_while_the_first_is_there():
    """Cloned machines share a host name; alternating between them loses every second request in silence."""
    cell = Cell(Patience(15, 30))
    cell.heard(beat(), at(0.0))
    with pytest.raises(TwinHeard, match=r"127\.0\.0\.1.*127\.0\.0\.2"):
        cell.heard(beat(url="http://127.0.0.2:11434"), at(5.0))
    assert cell.entries["a"].node.url == "http://127.0.0.1:11434"
    looks(cell, 0, 20)
    cell.heard(beat(url="http://127.0.0.2:11434"), at(20.0))
    assert cell.entries["a"].node.url == "http://127.0.0.2:11434"


def test_a_node_that_left_in_order_is_not_lost():
    """An orderly stop must not raise an alarm 30 seconds later."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    assert kinds(cell.heard(beat(leaving=True), at(1.0))) == [("node_left", None)]
    assert kinds(looks(cell, 1, 100)) == []
    assert cell.entries["a"].left


def test_an_engine_that_went_away_keeps_its_models_on_disk():
    """It lists nothing while it is away, and its model must not become unknown by that."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    assert kinds(cell.heard(beat(reachable=False), at(1.0))) == [("node_degraded", None), ("engine_lost", None)]
    assert cell.knows("llama:8b")
    assert kinds(cell.heard(beat(), at(2.0))) == [("node_back", None), ("engine_back", None)]


def test_an_operators_drain_outlives_the_nodes_next_heartbeats():
    """Otherwise a drain would last five seconds."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    cell.drained("a", True, at(1.0))
    cell.heard(beat(), at(5.0))
    assert cell.entries["a"].node.draining
    cell.drained("a", False, at(6.0))
    assert not cell.entries["a"].node.draining


def restored(heartbeat=None, **known):
    cell, heartbeat = Cell(Patience(15, 30)), heartbeat or beat()
    cell.restored(heartbeat, NodeKnown(heartbeat.node_id, {}, **{"last_seen": at(0.0).at - 3, **known}), at(0.0))
    return cell


def test_a_node_from_before_a_restart_is_offline_without_being_news_until_it_had_its_time():
    """A restart of three seconds is no reason to call a whole fleet lost, and no reason to send requests there."""
    cell = restored()
    assert (kinds(looks(cell, 0, 29)), status(cell), sizes(cell), cell.samples(at(29.0))) == ([], "offline", {}, [])
    assert kinds(looks(cell, 30, 30)) == [("node_lost", None)]
    assert (kinds(looks(cell, 31, 31)), status(cell)) == ([], "offline")
    assert [sample.status for sample in cell.samples(at(31.0))] == ["offline"]


def test_a_node_that_reports_in_time_after_a_restart_has_all_its_slots():
    """Every restart would otherwise begin with a fleet of one request at a time."""
    cell = restored()
    told = kinds(cell.heard(beat(loaded=("llama:8b",)), at(5.0)))
    assert told == [("node_back", None), ("model_loaded", "llama:8b")]
    assert (status(cell), sizes(cell)) == ("online", {"a": 4})
    looks(cell, 5, 19)
    assert kinds(looks(cell, 20, 20)) == [("node_degraded", None)]


def test_a_node_that_left_before_a_restart_is_not_lost_after_it():
    """Switched off for the night stays switched off for the night."""
    cell = restored(beat(leaving=True), left=True)
    assert (cell.entries["a"].left, kinds(looks(cell, 0, 100))) == (True, [])
    assert kinds(cell.heard(beat(), at(101.0)))[0] == ("node_back", None)
    assert not cell.entries["a"].left


def test_a_clock_that_was_set_back_does_not_keep_a_silent_node_awaited():
    """A last heartbeat of the future would otherwise be fresh for hours."""
    cell = restored(last_seen=at(9000.0).at)
    looks(cell, 0, 29)
    assert kinds(looks(cell, 30, 30)) == [("node_lost", None)]
    assert status(cell) == "offline"


def test_what_is_kept_of_a_node_makes_the_same_node_again():
    """Drained by the operator, it must not get requests because the router was restarted."""
    cell = Cell()
    cell.heard(beat(models=("x", "y"), loaded=("x",)), at(7.0))
    cell.drained("a", True, at(8.0))
    known = cell.entries["a"].known
    assert (known.node_id, known.last_seen, known.left, known.drained) == ("a", at(7.0).at, False, True)
    again = restored(wire.Heartbeat.model_validate(known.heartbeat), drained=known.drained)
    again.heard(beat(models=("x", "y"), loaded=("x",)), at(9.0))
    assert again.entries["a"].node == cell.entries["a"].node


def test_a_node_that_was_awaited_can_be_struck_off():
    """A machine that was sold need not be waited for."""
    cell = restored()
    assert kinds(cell.forgot("a", at(1.0))) == [("node_forgotten", None)]
    assert (kinds(looks(cell, 1, 40)), dict(cell.entries)) == ([], {})


def test_losses_of_the_last_hour_are_counted_and_forgotten_after_it():
    """A node that flaps is worth less for an hour, not for ever."""
    cell = Cell()
    for start in (0, 100):
        cell.heard(beat(), at(float(start)))
        looks(cell, start, start + 40)
    cell.heard(beat(), at(200.0))
    assert cell.entries["a"].node.losses == 2
    cell.heard(beat(), at(4000.0))
    assert cell.entries["a"].node.losses == 0


def failed(error_type="connect"):
    return Attempt(1, "a", "llama:8b", "http://a", "s", 0.0, 0.0, error_type=error_type)


@pytest.mark.parametrize(("error_type", "opens"), [("connect", True), ("upstream_5xx", True), ("upstream_4xx", False)])
def test_five_faults_of_the_node_open_its_breaker_and_a_clients_mistakes_do_not(error_type, opens):
    """A client that sends bad requests must not take a node away from everyone."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    told = [kind for _ in range(5) for kind in kinds(cell.attempted(failed(error_type), at(1.0)))]
    assert (open_breaker(cell, 2.0), bool(told)) == (opens, opens)


def test_an_open_breaker_lets_one_probe_through_and_closes_when_it_succeeds():
    """Half-open: one request finds out, not all of them."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    for _ in range(5):
        cell.attempted(failed(), at(0.0))
    assert [open_breaker(cell, 4.9), open_breaker(cell, 5.1)] == [True, False]
    assert cell.ask(1, *bid_for(cell), at(5.1)) is not None
    assert open_breaker(cell, 5.1)
    assert kinds(cell.attempted(failed(None), at(5.2)))[0] == ("breaker_changed", "llama:8b")
    assert not open_breaker(cell, 5.3)


def test_a_failed_probe_opens_the_breaker_for_twice_as_long():
    """A node that stays broken is asked less and less often, up to once a minute."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    for _ in range(5):
        cell.attempted(failed(), at(0.0))
    cell.attempted(failed(), at(5.0))
    assert [cell.entries["a"].breaker(at(seconds)) for seconds in (14.9, 15.0)] == ["open", "half_open"]


def slots_over_time(cell, *moments):
    found = []
    for seconds in moments:
        cell.heard(beat(), at(seconds))
        cell.looked(at(seconds))
        found.append(sizes(cell)["a"])
    return found


def test_a_node_that_says_it_is_busy_gets_half_its_slots_and_then_one_more_at_a_time():
    """It knows its limit better than a setting does; and it is not busy for ever."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    told = cell.attempted(failed("upstream_busy"), at(0.0)).events
    assert [(event.kind, event.data["slots"]) for event in told] == [("slots_limited", 2)]
    assert slots_over_time(cell, 1.0, 2.0, 3.0, 4.0, 5.0) == [2, 3, 3, 4, 4]


def test_a_node_that_comes_back_is_not_buried_at_once():
    """Slow start: one request finds out whether it is well."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    looks(cell, 0, 40)
    assert slots_over_time(cell, 41.0, 43.0, 45.0, 47.0) == [1, 2, 3, 4]


def test_a_node_that_joins_for_the_first_time_has_all_its_slots():
    """A node that nobody knows is not weak for that."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    assert sizes(cell) == {"a": 4}


def bid_for(cell, request=ASKED, excluded=frozenset()):
    return Bid(request, Policy(), excluded), cell.decide(request, Policy(), at(1.0))


def test_who_asks_where_a_slot_is_free_has_it_and_who_comes_then_waits():
    """Four slots are four requests, on whatever path they came."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    granted = [cell.ask(ticket, *bid_for(cell), at(1.0)) for ticket in range(5)]
    assert [grant and grant.place for grant in granted] == [Place("a", "llama:8b")] * 4 + [None]
    assert (cell.slots.in_flight(), cell.slots.depths()) == ({"a": {"llama:8b": 4}}, {"llama:8b": 1})


def test_a_slot_that_is_given_back_goes_to_the_next_with_the_decision_that_found_it():
    """What is recorded of a request that waited is where it went, and why."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    for ticket in range(4):
        cell.ask(ticket, *bid_for(cell), at(1.0))
    bid, choice = bid_for(cell)
    assert cell.ask(9, bid, choice, at(1.0)) is None
    (granted,) = cell.give_back(0, Place("a", "llama:8b"), at(4.0)).granted
    assert (granted.ticket, granted.candidate.node_id, granted.choice) == (9, "a", choice)


def test_a_node_that_joins_takes_in_those_who_wait_and_the_grant_says_so():
    """Help that comes late is still help, and its decision knows the newcomer."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    for ticket in range(5):
        cell.ask(ticket, *bid_for(cell), at(1.0))
    (granted,) = cell.heard(beat("b", loaded=("llama:8b",)), at(2.0)).granted
    assert (granted.ticket, granted.place) == (4, Place("b", "llama:8b"))
    assert [node.node_id for node in granted.choice.fleet.nodes] == ["a", "b"]


def test_when_the_last_node_goes_those_who_wait_are_stranded_once():
    """Two minutes of silence would be the alternative."""
    cell = Cell()
    cell.heard(beat(), at(0.0))
    for ticket in range(5):
        cell.ask(ticket, *bid_for(cell), at(1.0))
    assert cell.heard(beat(leaving=True), at(1.0)).stranded == (4,)
    assert (looks(cell, 1, 2).stranded, cell.slots.depths()) == ((), {})


def test_a_node_that_a_request_failed_on_is_no_place_for_it_again():
    """The next attempt of a request goes elsewhere, or waits for elsewhere."""
    cell = Cell()
    cell.heard(beat("a"), at(0.0))
    cell.heard(beat("b"), at(0.0))
    granted = cell.ask(1, *bid_for(cell, excluded=frozenset({"a"})), at(1.0))
    assert granted.place == Place("b", "llama:8b")


def test_a_decision_knows_how_much_is_wanted_what_could_leave_memory_and_nothing_else():
    """Names that clients make up would stand in every row from then on."""
    cell = Cell()
    cell.heard(beat(loaded=("llama:8b",)), at(0.0))
    for name in ("llama:8b", "made-up:1b"):
        cell.asked(name, at(1.0))
    assert cell.snapshot(ASKED, at(1.0)).demand.keys() == {"llama:8b"}
