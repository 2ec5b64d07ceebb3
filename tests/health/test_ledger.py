"""The findings over time: episodes that begin, go on and end, what the operator says of them, and who is told."""

from itertools import count

import pytest

from herd.core.finding import Finding, Severity
from herd.core.health.ledger import KEEP_EVERY_S, Ledger

CRITICAL, WARNING = Severity.CRITICAL, Severity.WARNING


def down(node_id="a", severity=CRITICAL):
    return Finding("node_offline", severity, f"Node {node_id} is offline", "d", "f", node_id=node_id)


class Book:
    """A ledger that resolves after a minute and alerts."""

    def __init__(self):
        numbers = count(1)
        self.ledger = Ledger(lambda: f"id{next(numbers)}")

    def at(self, now, *findings, alerting=True):
        return self.ledger.take(findings, now, 60.0, alerting)


@pytest.fixture
def book():
    return Book()


def told(taken):
    return [(change.change, change.episode.id) for change in taken.changes]


def alerts(taken):
    return [(alert.status, alert.episode.finding.node_id) for alert in taken.alerts]


def test_a_finding_begins_one_episode_however_often_it_is_seen(book):
    """A page that polls must not fill the history."""
    assert told(book.at(0.0, down())) == [("opened", "id1")]
    assert told(book.at(5.0, down())) == []
    (episode,) = book.ledger.open.values()
    assert (episode.first_seen, episode.last_seen) == (0.0, 5.0)


def test_that_it_is_still_there_is_kept_now_and_then(book):
    """A restart must know that it was there until just before."""
    book.at(0.0, down())
    assert told(book.at(KEEP_EVERY_S, down())) == [("seen", "id1")]
    assert told(book.at(KEEP_EVERY_S + 1, down())) == []


def test_it_is_over_once_it_was_not_seen_for_a_while_and_begins_anew_after_that(book):
    """A rate around its threshold is one episode, not twenty."""
    book.at(0.0, down())
    assert told(book.at(60.0)) == []
    taken = book.at(61.0)
    assert told(taken) == [("resolved", "id1")]
    assert (taken.changes[0].episode.last_seen, taken.changes[0].episode.resolved_at) == (0.0, 61.0)
    assert told(book.at(62.0, down())) == [("opened", "id2")]


def test_two_nodes_are_two_episodes(book):
    """One may come back while the other does not."""
    book.at(0.0, down("a"), down("b"))
    assert told(book.at(100.0, down("b"))) == [("seen", "id2"), ("resolved", "id1")]


def test_a_change_of_severity_is_told_and_keeps_the_episode(book):
    """It is the same disk that got fuller."""
    book.at(0.0, down(severity=WARNING))
    assert told(book.at(1.0, down())) == [("changed", "id1")]


def test_an_acknowledgement_keeps_its_note_while_the_finding_goes_on(book):
    """Whoever comes next knows that somebody is at it."""
    book.at(0.0, down())
    change = book.ledger.acknowledge("id1", "on my way", 1.0)
    assert (change.change, change.episode.acknowledged_at, change.episode.note) == ("acknowledged", 1.0, "on my way")
    book.at(2.0, down())
    assert book.ledger.open[down().subject].note == "on my way"


def test_an_acknowledgement_without_a_note_leaves_the_note_of_the_one_before(book):
    """Whoever says that he knows too must not wipe out what somebody wrote for him."""
    book.at(0.0, down())
    book.ledger.acknowledge("id1", "on my way", 1.0)
    again = book.ledger.acknowledge("id1", "", 2.0).episode
    assert (again.acknowledged_at, again.note) == (2.0, "on my way")
    assert book.ledger.acknowledge("id1", "there now", 3.0).episode.note == "there now"


@pytest.mark.parametrize(
    "act", [lambda book: book.acknowledge("id9", "", 0.0), lambda book: book.silence("id9", 1.0, 0.0)]
)
def test_what_is_not_open_cannot_be_acknowledged_or_silenced(book, act):
    """A mistyped id must not pass for done."""
    with pytest.raises(KeyError):
        act(book.ledger)


def test_a_silence_ends_by_itself_or_by_hand(book):
    """A maintenance that is over earlier."""
    book.at(0.0, down())
    episode = book.ledger.silence("id1", 100.0, 0.0).episode
    assert [episode.silenced(at) for at in (0.0, 99.0, 100.0)] == [True, True, False]
    assert book.ledger.silence("id1", 0.0, 50.0).episode.silenced(50.0) is False


def test_a_silence_holds_for_the_next_episode_of_the_same_subject_too(book):
    """A node that is repaired comes and goes; that is what it was silenced for."""
    book.at(0.0, down())
    book.ledger.silence("id1", 500.0, 0.0)
    book.at(100.0)
    taken = book.at(200.0, down(), down("b"))
    assert {change.episode.id: change.episode.silenced(200.0) for change in taken.changes} == {
        "id2": True,
        "id3": False,
    }


def test_a_critical_finding_is_alerted_once_and_its_end_once(book):
    """Two messages a night, not two a minute."""
    assert alerts(book.at(0.0, down())) == [("firing", "a")]
    assert alerts(book.at(5.0, down())) == []
    assert alerts(book.at(70.0)) == [("resolved", "a")]


def test_a_warning_is_not_alerted_until_it_becomes_critical(book):
    """And then its end is, even if it ended as a warning."""
    assert alerts(book.at(0.0, down(severity=WARNING))) == []
    assert alerts(book.at(1.0, down())) == [("firing", "a")]
    assert alerts(book.at(2.0, down(severity=WARNING))) == []
    assert alerts(book.at(70.0)) == [("resolved", "a")]


def test_what_is_no_longer_critical_is_told_once_that_lasts_and_its_return_again(book):
    """A warning of a week that becomes critical again must wake somebody; one that flickers must not all night."""
    assert alerts(book.at(0.0, down())) == [("firing", "a")]
    book.ledger.told("id1", 1.0)
    for now in (10.0, 59.0):
        assert alerts(book.at(now, down(severity=WARNING))) == []
    assert alerts(book.at(60.0, down())) == []
    for now in (80.0, 119.0):
        assert alerts(book.at(now, down(severity=WARNING))) == []
    assert alerts(book.at(121.0, down(severity=WARNING))) == [("resolved", "a")]
    assert alerts(book.at(125.0, down())) == [("firing", "a")]


def test_a_warning_that_ends_is_not_alerted(book):
    """Nobody was told of it."""
    book.at(0.0, down(severity=WARNING))
    assert alerts(book.at(70.0)) == []


def test_what_is_silenced_is_alerted_only_when_the_silence_is_over(book):
    """The night's rest ends when it was said to end."""
    book.at(0.0, down(), alerting=False)
    book.ledger.silence("id1", 50.0, 0.0)
    assert alerts(book.at(10.0, down())) == []
    assert alerts(book.at(50.0, down())) == [("firing", "a")]


def test_without_a_webhook_nothing_is_alerted_and_with_a_new_one_what_is_open_is(book):
    """Who sets the address learns what is wrong now."""
    assert alerts(book.at(0.0, down(), alerting=False)) == []
    assert alerts(book.at(1.0, down())) == [("firing", "a")]


def test_an_alert_is_remembered_in_what_is_kept(book):
    """A restart must not tell the same thing again, and must tell what was still on its way."""
    (change,) = book.at(0.0, down()).changes
    assert (change.change, change.episode.alerted) == ("opened", False)
    change = book.ledger.told("id1", 1.0)
    assert (change.change, change.episode.alerted) == ("seen", True)


def test_an_alert_that_was_not_taken_before_a_restart_is_told_after_it(book):
    """The webhook may be away for just those minutes."""
    (change,) = book.at(0.0, down()).changes
    again = Book()
    again.ledger.restore([change.episode], 1000.0)
    assert alerts(again.at(1001.0, down())) == [("firing", "a")]


def test_the_end_of_what_is_being_told_is_told_too(book):
    """Both go out in order; the first may have been taken without an answer."""
    book.at(0.0, down())
    assert alerts(book.at(70.0)) == [("resolved", "a")]
    assert book.ledger.told("id1", 71.0) is None


def test_after_a_restart_an_episode_goes_on_with_its_note_and_without_a_second_alert(book):
    """The router's restart is not the fleet's recovery."""
    book.at(0.0, down())
    book.ledger.told("id1", 0.5)
    kept = book.ledger.acknowledge("id1", "known", 1.0).episode
    again = Book()
    again.ledger.restore([kept], 1000.0)
    taken = again.at(1001.0, down())
    assert (told(taken), alerts(taken)) == ([("seen", "id1")], [])
    assert again.ledger.open[down().subject].note == "known"


def test_after_a_restart_nodes_get_their_time_to_be_heard_of_again():
    """Nothing is over only because the router has not looked yet."""
    before = Book()
    before.at(0.0, down())
    again = Book()
    again.ledger.restore([before.ledger.told("id1", 1.0).episode], 1000.0)
    assert told(again.at(1060.0)) == []
    taken = again.at(1061.0)
    assert (told(taken), alerts(taken)) == ([("resolved", "id1")], [("resolved", "a")])


def test_a_silence_outlives_a_restart_also_for_an_episode_that_was_over(book):
    """It was said of the subject, not of one of its episodes."""
    book.at(0.0, down())
    silenced = book.ledger.silence("id1", 5000.0, 0.0).episode
    over = book.at(100.0).changes[0].episode
    assert over.silenced_until == silenced.silenced_until
    again = Book()
    again.ledger.restore([over], 1000.0)
    assert again.at(1001.0, down()).changes[0].episode.silenced(1001.0)
