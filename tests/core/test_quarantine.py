"""Which bodies are refused because nodes died on them, and which are bystanders of a node's ordinary death."""

from herd.core.quarantine import MEMORY_S, MOST, Death, Quarantine, digest_of

BODY = digest_of(b"killer")


def death(node_id, began, at):
    """A node that died at this moment while it worked on a request that had begun there then."""
    return Death(node_id, "m:1b", "r1", began, at)


def died(quarantine, *deaths, digest=BODY, most=2, hold_s=60.0):
    """All of these deaths, on one body."""
    return [quarantine.died(digest, each, most, hold_s) for each in deaths][-1]


def test_a_body_that_two_nodes_died_on_in_a_row_is_refused_for_a_while():
    """It would kill the third one, too; and it must not be refused for ever."""
    quarantine = Quarantine()
    assert died(quarantine, death("a", 1.0, 2.0)).until is None
    assert quarantine.held(BODY, 2.0) is None
    found = died(quarantine, death("b", 2.0, 3.0))
    assert ([each.node_id for each in found.deaths], found.until) == (["a", "b"], 63.0)
    assert (quarantine.held(BODY, 62.9), quarantine.held(BODY, 63.0)) == (found, None)
    assert (list(quarantine.view(62.9)), list(quarantine.view(63.0))) == ([found], [])
    assert quarantine.held(digest_of(b"another"), 4.0) is None


def test_bystanders_of_one_death_and_of_two_at_once_are_not_refused():
    """Eight clients with the same body lose two nodes to one power cut: none of them was sent on and killed again."""
    quarantine = Quarantine()
    for node_id in "aaabbb":
        assert died(quarantine, death(node_id, 1.0, 2.0)).until is None
    assert len(died(quarantine, death("c", 1.9, 2.5)).deaths) == 1


def test_a_body_that_was_answered_in_between_is_beyond_suspicion():
    """An ordinary death and another one an hour later, with a thousand answers between them."""
    quarantine = Quarantine()
    died(quarantine, death("a", 1.0, 2.0))
    assert (quarantine.answered(BODY), quarantine.answered(BODY), bool(quarantine)) == (True, False, False)
    assert died(quarantine, death("b", 2.0, 3.0)).until is None
    assert died(quarantine, death("c", 3.0 + MEMORY_S, 3.0 + MEMORY_S)).until is None


def test_the_operator_says_how_many_deaths_and_how_long():
    """One death is enough for some, and others would rather lose nodes than requests."""
    assert died(Quarantine(), death("a", 1.0, 2.0), most=1, hold_s=5.0).until == 7.0
    patient = Quarantine()
    assert died(patient, death("a", 1.0, 2.0), death("b", 2.0, 3.0), most=3).until is None
    assert died(patient, death("c", 3.0, 4.0), most=3).until == 64.0
    assert died(Quarantine(), death("a", 1.0, 2.0), death("b", 2.0, 3.0), hold_s=0.0).until is None


def test_what_is_remembered_has_a_bound():
    """A flaky network and a million different bodies must not fill the memory."""
    quarantine = Quarantine()
    for number in range(MOST + 10):
        died(quarantine, death("a", 1.0, 2.0), digest=str(number), most=1)
    assert len(list(quarantine.view(3.0))) == MOST
    assert quarantine.held("0", 3.0) is None
