"""The nodes' door: whose heartbeats are taken, and how a node is introduced. Values and files; no router runs."""

import pytest

from herd.security import nodes
from herd.security.access import Access
from herd.security.node_door import Asked, NodeDoor, Refused
from herd.security.nodes import State
from herd.wire import joining
from herd.wire.identity import made, shown
from tests.fleet.test_cell import beat

CODE = "herd-local-abc"
ROUTER, STUDIO, THIEF = made("router"), made("studio"), made("thief")
HERE, STUDIO_AT, THIEF_AT = "127.0.0.1", "192.168.1.7", "192.168.1.66"


class Door:
    """A door with its file, and nodes that knock at it."""

    def __init__(self, home, mode="auto"):
        self.mode, self.alive, self.now = mode, set(), 1000.0
        self.access = Access(home)
        self.door = NodeDoor(Access(home), ROUTER, CODE, lambda: self.mode, self.alive.__contains__, lambda: self.now)

    def join(self, who=STUDIO, name="studio", client=STUDIO_AT, code="", secret="", private=False):
        """Introduce a node; the reply."""
        proof = joining.node_proof(code, name, who.id) if code else ""
        certificate = joining.encoded(who.certificate)
        said = joining.JoinRequest(node_id=name, certificate=certificate, secret=secret, proof=proof)
        body = said.model_dump_json().encode()
        headers = joining.signed_headers(who, joining.JOIN_PATH, "", 0, body)
        return self.door.introduce(Asked(joining.JOIN_PATH, headers, client, body, private))

    def accepted(self, who=STUDIO, name="studio", client=STUDIO_AT):
        """Introduce a node, and accept it as an operator does."""
        self.join(who, name, client)
        self.change(name, state=State.ACCEPTED)

    def change(self, name, **fields):
        """Change a node as the command line does."""
        self.access.change(nodes.NODES, lambda rows: nodes.changed(rows, nodes.named(rows, name), **fields))

    def hears(
        self, who=STUDIO, name="studio", url=None, sequence=1, client=STUDIO_AT, router=ROUTER.id, other=None, **said
    ):
        """Hand in a heartbeat, signed by `who`, with the body `other` in its place if given; what is taken of it."""
        word = beat(name, **said)
        engine = word.engine.model_copy(update={"url": url or f"http://{client}:11434"})
        word = word.model_copy(update={"engine": engine})
        body = word.model_dump_json().encode()
        signed = joining.signed_headers(who, "/heartbeat", router, sequence, body) if who else {}
        taken, self.observed = self.door.taken(Asked("/heartbeat", signed, client, other or body), word)
        return taken

    def refuses(self, match, **heard):
        """Hand in a heartbeat that is not taken; the status and the reason."""
        with pytest.raises(Refused, match=match) as refused:
            self.hears(**heard)
        return refused.value.error.status, refused.value.reason


@pytest.fixture
def door(tmp_path):
    """A door that nobody has come to."""
    return Door(tmp_path)


def test_a_node_that_knows_nothing_waits_until_an_operator_accepts_its_key(door):
    """A stranger on the network is a line in a list, and gets no prompt."""
    assert door.join().state == "waiting"
    assert door.refuses("not known under the name studio") == (401, "unknown_credential")
    door.change(shown(STUDIO.id)[:4], state=State.ACCEPTED)
    assert door.hears().engine.url == f"http://{STUDIO_AT}:11434"
    assert door.join().state == "accepted"


def test_a_known_name_with_another_key_is_refused_whatever_is_shown(door):
    """One forged heartbeat with a known name brought the next prompt to the attacker in clear."""
    door.accepted()
    door.hears()
    assert door.refuses("known with another key", who=THIEF, client=THIEF_AT) == (409, "other_key")
    assert door.refuses("known with another key", who=None, client=THIEF_AT) == (409, "other_key")
    with pytest.raises(Refused, match=r"herd node reset studio\. Otherwise somebody pretends"):
        door.join(THIEF, client=THIEF_AT)
    with pytest.raises(Refused, match="another key"):
        door.join(THIEF, client=HERE, code=CODE)


def test_a_heartbeat_that_is_repeated_or_comes_late_is_refused(door):
    """Whoever records one on the network cannot send it again, and needs no clock to be stopped."""
    door.accepted()
    door.hears(sequence=5)
    assert door.refuses("later heartbeat", sequence=5) == (409, "repeated")
    assert door.refuses("later heartbeat", sequence=4) == (409, "repeated")
    assert door.refuses("signature", sequence=-7) == (401, "signature")
    door.hears(sequence=6)


def test_a_heartbeat_that_was_altered_or_meant_for_another_router_is_refused(door):
    """The signature is of every byte, of the path and of the router: leaving and draining are under it, too."""
    door.accepted()
    assert door.refuses("does not match", other=b'{"leaving": true}') == (401, "signature")
    assert door.refuses("does not match", router=THIEF.id) == (401, "signature")
    word = beat("studio", url=f"http://{STUDIO_AT}:11434")
    forged = joining.signed_headers(THIEF, "/heartbeat", ROUTER.id, 1, b"") | {joining.NODE: STUDIO.id}
    with pytest.raises(Refused, match="does not match"):
        door.door.taken(Asked("/heartbeat", forged, STUDIO_AT, b""), word)
    assert door.hears().node_id == "studio"


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.1.66:11434",
        "http://127.0.0.1:11434",
        "http://studio.local:1",
        "http://169.254.1.1",
        "http://[::1]:1",
    ],
)
def test_a_node_from_elsewhere_is_reached_where_it_comes_from_and_nowhere_else(door, url):
    """A recorded heartbeat from a thief's address, or a node's word for another machine, must not move prompts."""
    door.accepted()
    assert door.refuses("herd node direct studio http", url=url) == (403, "address")
    assert door.refuses("comes from", client=THIEF_AT, url=f"http://{STUDIO_AT}:11434") == (403, "address")
    assert door.hears(url="http://[::ffff:192.168.1.7]:11434").node_id == "studio"


def test_the_operator_may_name_another_place_for_a_node(door):
    """Address translation, a tunnel, an engine on a third machine: the operator says so, not the node."""
    door.accepted()
    door.change("studio", direct="http://10.0.0.9:11434")
    taken = door.hears(url="http://127.0.0.1:1", metrics_address=f"{THIEF_AT}:9")
    assert (taken.engine.url, taken.metrics_address) == ("http://10.0.0.9:11434", None)
    assert door.hears(sequence=2, metrics_address=f"{STUDIO_AT}:9").metrics_address == f"{STUDIO_AT}:9"


def test_the_local_code_lets_this_users_nodes_in_with_nothing_to_type(door):
    """`herd` and `herd-node` on one machine are two commands without an option."""
    reply = door.join(client=HERE, code=CODE)
    assert (reply.state, reply.proof) == ("accepted", joining.router_proof(CODE, ROUTER.id, STUDIO.id))
    assert door.hears(client=HERE, url="http://gpu-box.lan:11434").engine.url == "http://gpu-box.lan:11434"
    with pytest.raises(Refused, match="another start or another router"):
        door.join(THIEF, "thief", HERE, code="herd-local-xyz")


def test_a_reinstalled_node_of_this_user_has_its_name_again_once_the_old_one_is_silent(door):
    """Who can read the local code can also edit the file; but two agents under one name are found, not mixed."""
    door.join(client=HERE, code=CODE)
    door.alive.add("studio")
    with pytest.raises(Refused, match="another key"):
        door.join(THIEF, client=HERE, code=CODE)
    door.alive.clear()
    assert door.join(THIEF, client=HERE, code=CODE).state == "accepted"
    assert door.refuses("another key", client=HERE) == (409, "other_key")


def test_a_revoked_node_is_refused_at_once_and_not_let_in_by_the_local_code(door):
    """Revocation takes effect with the file, and only an operator undoes it."""
    door.join(client=HERE, code=CODE)
    door.hears(client=HERE)
    door.change("studio", state=State.REVOKED)
    assert door.refuses("was revoked", client=HERE, sequence=2) == (401, "revoked")
    for how in ({"code": CODE}, {}):
        with pytest.raises(Refused, match="was revoked"):
            door.join(client=HERE, **how)
    door.change("studio", state=State.ACCEPTED)
    door.hears(client=HERE, sequence=3)


def test_without_a_signature_only_the_local_code_speaks_and_only_from_this_machine(door):
    """Simulated nodes and scripts of the router's own user have no keys."""
    word, bearer = beat("sim"), {"authorization": f"Bearer {CODE}"}
    assert door.door.taken(Asked("/heartbeat", bearer, HERE, b""), word) == (word, None)
    for headers, client in ((bearer, STUDIO_AT), ({"authorization": "Bearer x"}, HERE), ({}, HERE)):
        with pytest.raises(Refused, match="no signature"):
            door.door.taken(Asked("/heartbeat", headers, client, b""), word)


def test_observe_takes_what_it_would_refuse_and_says_so_and_off_asks_for_nothing(door):
    """An older fleet is upgraded node by node, and its operator sees who is left."""
    door.mode = "observe"
    assert door.hears(who=None).node_id == "studio"
    assert (door.observed.door, door.observed.reason) == ("node", "no_credential")
    door.mode = "off"
    assert door.hears(who=None).node_id == "studio"
    assert door.observed is None


def test_an_introduction_is_signed_with_the_key_that_it_introduces(door):
    """Nobody enrols another's certificate."""
    said = joining.JoinRequest(node_id="studio", certificate=joining.encoded(STUDIO.certificate))
    body = said.model_dump_json().encode()
    headers = joining.signed_headers(THIEF, joining.JOIN_PATH, "", 0, body)
    with pytest.raises(Refused, match="not signed with the certificate's key"):
        door.door.introduce(Asked(joining.JOIN_PATH, headers, HERE, body))


def test_at_most_sixteen_strangers_wait_and_none_for_more_than_ten_minutes(door):
    """Knocking is free, so what it leaves behind is bounded."""
    for number in range(20):
        door.join(made("x"), f"n{number}")
    assert len(door.access.refresh() and door.access.rows(nodes.NODES)) == 16
    door.now += nodes.WAITING_S + 1
    door.join(made("x"), "later")
    door.access.refresh()
    assert [row["node_id"] for row in door.access.rows(nodes.NODES)] == ["later"]
