"""Which credential opens which path: every route of the OpenAPI document times every credential, from near and afar."""

from dataclasses import replace
from types import MappingProxyType

import pytest

from herd.app import Router
from herd.core.access import Scope
from herd.security.access import Access
from herd.security.allowances import Allowances
from herd.security.credentials import Credentials
from herd.security.gate import Gate, settled
from herd.security.keys import Key, digest_of, spell
from herd.security.names import Names
from herd.security.scopes import need_of
from herd.settings.load import load

NOW = 1_800_000_000.0
OPEN, NODE, LIST, INFERENCE, READ, ADMIN = "open", "node", "list", "inference", "read", "admin"
# By hand, and not from the product's table: a new route stands in neither until somebody has thought about it.
ROUTES = {
    "GET /": OPEN, "GET /healthz": OPEN, "GET /readyz": OPEN, "GET /dashboard": OPEN, "GET /dashboard/runbook": OPEN,
    "GET /dashboard/static/{path}": OPEN, "POST /heartbeat": NODE, "POST /fleet/join": NODE,
    "GET /fleet/requests": READ, "POST /fleet/requests/{request_id}/cancel": ADMIN, "GET /dashboard/api/events": READ,
    "GET /dashboard/api/calibration": READ, "GET /dashboard/api/plan": READ,
    "GET /api/version": LIST, "GET /api/tags": LIST, "GET /api/ps": LIST, "GET /v1/models": LIST,
    "GET /v1/models/{name}": LIST, "POST /api/show": LIST,
    "POST /api/chat": INFERENCE, "POST /api/generate": INFERENCE, "POST /api/embed": INFERENCE,
    "POST /api/embeddings": INFERENCE, "POST /v1/chat/completions": INFERENCE, "POST /v1/completions": INFERENCE,
    "POST /v1/embeddings": INFERENCE, "POST /v1/responses": INFERENCE, "POST /v1/messages": INFERENCE,
    "POST /v1/messages/count_tokens": INFERENCE, "POST /rerank": INFERENCE, "POST /v1/rerank": INFERENCE,
    "POST /v1/audio/transcriptions": INFERENCE, "POST /v1/images/generations": INFERENCE,
    "POST /v1/images/edits": INFERENCE, "POST /tokenize": INFERENCE, "POST /detokenize": INFERENCE,
    "POST /apply-template": INFERENCE, "POST /api/me": INFERENCE, "GET /props": LIST, "GET /api/status": LIST,
    "GET /metrics": READ, "GET /fleet/status": READ, "GET /dashboard/events": READ, "GET /dashboard/api/traces": READ,
    "GET /dashboard/api/traces/{request_id}": READ, "GET /dashboard/api/apps": READ,
    "GET /dashboard/api/apps/daily": READ, "GET /dashboard/api/usage": READ, "GET /dashboard/api/models": READ,
    "GET /dashboard/api/trends": READ, "GET /dashboard/api/latency": READ, "GET /dashboard/api/recommendations": READ,
    "GET /dashboard/api/health": READ, "GET /dashboard/api/health/findings": READ, "GET /dashboard/api/settings": READ,
    "POST /dashboard/api/settings": ADMIN, "POST /dashboard/api/health/findings/{finding_id}/acknowledge": ADMIN,
    "POST /dashboard/api/health/findings/{finding_id}/silence": ADMIN, "POST /fleet/nodes/{node_id}/drain": ADMIN,
    "DELETE /fleet/nodes/{node_id}": ADMIN, "POST /api/pull": ADMIN, "POST /api/create": ADMIN,
    "POST /api/copy": ADMIN, "POST /api/push": ADMIN, "DELETE /api/delete": ADMIN,
    "HEAD /api/blobs/{digest}": ADMIN, "POST /api/blobs/{digest}": ADMIN,
}  # fmt: skip
# Which of them each credential opens from another machine; from this one inference and reading are open to all.
OPENS = {
    "none": {OPEN, NODE},
    "another's": {OPEN, NODE},
    "inference": {OPEN, NODE, LIST, INFERENCE},
    "read": {OPEN, NODE, LIST, READ},
    "admin": {OPEN, NODE, LIST, INFERENCE, READ, ADMIN},
    "revoked": {OPEN, NODE},
    "expired": {OPEN, NODE},
}
HERE = {OPEN, NODE, LIST, INFERENCE, READ}
NAMES = Names(["box"])


def made(name, number, **values):
    """A key with its text."""
    key_id, text = spell(bytes([number] * 5), bytes([number] * 32))
    return text, Key(key_id, name, values.pop("scope", Scope.INFERENCE), digest_of(text), NOW - 100, **values)


KEYS = {
    "inference": made("inference", 1),
    "read": made("read", 2, scope=Scope.READ),
    "admin": made("admin", 3, scope=Scope.ADMIN),
    "revoked": made("revoked", 4, scope=Scope.ADMIN, revoked_at=NOW - 1),
    "expired": made("expired", 5, scope=Scope.ADMIN, expires_at=NOW - 1),
}


def shown(who):
    """The headers with which somebody asks."""
    if who in KEYS:
        return {b"authorization": f"Bearer {KEYS[who][0]}".encode()}
    return {b"authorization": b"Bearer sk-another"} if who == "another's" else {}


@pytest.fixture
def gate(tmp_path):
    """Makes a gate with these keys and settings."""

    def build(**given):
        credentials = Credentials(Access(tmp_path), "herd-local-code")
        credentials.keys = {key.id: key for _, key in KEYS.values()}
        return Gate(load(given, {"HERD_DATA_DIR": str(tmp_path)}), NAMES, credentials, Allowances(), lambda: NOW)

    return build


def asked(gate, route, headers=MappingProxyType({}), client="192.168.1.9", host="box:11435", port=40_000):
    """The verdict about a request for a route."""
    method, _, path = route.partition(" ")
    scope = {
        "type": "http",
        "method": method,
        "path": path.replace("{", "x").replace("}", ""),
        "client": (client, port),
    }
    return gate.judge(scope, headers, host)


async def test_every_route_of_the_document_stands_in_the_table_of_this_test(tmp_path):
    """A new route that nobody gave a scope would be open to whoever asks from this machine."""
    router = Router(load({"data_dir": str(tmp_path)}, {}))
    application = router.asgi._app._control_plane
    document = application.openapi()["paths"]
    await router.recorder.start(20)
    assert await router.recorder.close(20)
    routes = {f"{method.upper()} {path}" for path, operations in document.items() for method in operations}
    assert routes == ROUTES.keys()
    for route, need in ROUTES.items():
        assert need_of(*route.split(" ", 1)) == need, route


@pytest.mark.parametrize("who", OPENS)
def test_a_credential_opens_from_afar_what_its_scope_says_and_nothing_else(gate, who):
    """The whole matrix, for each credential."""
    door = gate()
    opened_up = {route for route in ROUTES if asked(door, route, shown(who)).error is None}
    assert opened_up == {route for route, need in ROUTES.items() if need in OPENS[who]}


@pytest.mark.parametrize("who", OPENS)
def test_on_this_machine_inference_and_reading_are_open_but_a_key_that_is_no_good_is_told(gate, who):
    """A newcomer notices nothing; whoever shows a key learns whether it works."""
    door = gate()
    found = {route for route in ROUTES if asked(door, route, shown(who), "127.0.0.1", "localhost").error is None}
    judged = who in {"inference", "read", "admin", "revoked", "expired"}
    allowed = OPENS[who] if judged else HERE
    assert found == {route for route, need in ROUTES.items() if need in allowed}


@pytest.mark.parametrize(
    ("client", "host", "headers"),
    [
        ("127.0.0.1", "localhost", {b"x-forwarded-for": b"203.0.113.9"}),
        ("127.0.0.1", "localhost", {b"forwarded": b"for=127.0.0.1"}),
        ("127.0.0.1", "localhost", {b"via": b"1.1 proxy"}),
        ("::1", "[::1]:11435", {b"x-real-ip": b"127.0.0.1"}),
        ("127.0.0.1", "herd.example.com", {}),
        ("127.0.0.1", "192.168.1.5:11435", {}),
        ("192.168.1.9", "localhost", {}),
        ("172.18.0.1", "127.0.0.1:11435", {}),
        ("", "localhost", {}),
    ],
)
def test_what_is_handed_on_by_a_proxy_is_not_of_this_machine(gate, client, host, headers):
    """nginx, a tunnel and a container's port arrive from loopback, with anybody's requests."""
    door = gate(allowed_hosts="herd.example.com")
    for route in ("POST /api/chat", "GET /metrics", "POST /dashboard/api/settings"):
        verdict = asked(door, route, headers, client, host)
        assert (verdict.error.status, verdict.ask_system) == (401, False)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:11435", "[::1]", "box.local", "host.docker.internal", ""])
def test_this_machines_own_names_need_no_credential_for_inference(gate, host):
    """What worked on one machine goes on working."""
    for client in ("127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert asked(gate(), "POST /api/chat", {}, client, host).error is None


@pytest.mark.parametrize(
    ("anonymous", "client", "route", "may"),
    [
        ("inference", "192.168.1.9", "POST /api/chat", True),
        ("inference", "100.64.3.4", "GET /api/tags", True),
        ("inference", "fd00::5", "POST /v1/messages", True),
        ("inference", "192.168.1.9", "GET /dashboard/api/traces", False),
        ("read", "192.168.1.9", "GET /dashboard/api/traces", True),
        ("read", "192.168.1.9", "POST /fleet/nodes/{node_id}/drain", False),
        ("read", "8.8.8.8", "POST /api/chat", False),
        ("", "192.168.1.9", "POST /api/chat", False),
    ],
)
def test_private_networks_may_do_what_anonymous_says_and_nobody_else(gate, anonymous, client, route, may):
    """`ollama run` cannot show a key; whoever trusts his network says so."""
    door = gate(anonymous=anonymous)
    assert (asked(door, route, client=client).error is None) is may
    behind = asked(door, route, {b"x-forwarded-for": client.encode()}, client)
    assert behind.error is not None, "a proxy in a private network may serve the whole world"
    told = asked(door, route, {b"x-forwarded-for": client.encode()}, client, port=0)
    assert (told.error is None) is may, "a trusted proxy says who it is"


def test_always_asks_this_machine_too_and_off_asks_nobody(gate):
    """Behind a proxy on the same machine nothing tells near from afar, so that the operator has to."""
    for route, need in ROUTES.items():
        always = asked(gate(auth="always", anonymous="read"), route, {}, "127.0.0.1", "localhost")
        assert (always.error is None, always.ask_system) == (need in {OPEN, NODE}, False)
        assert asked(gate(auth="off"), route, {}, "8.8.8.8").error is None
    code = {b"authorization": b"Bearer herd-local-code"}
    route = "POST /dashboard/api/settings"
    assert asked(gate(auth="always"), route, code, "127.0.0.1", "localhost").caller.local
    assert asked(gate(auth="always"), route, code, "192.168.1.9").error is not None


def test_observe_lets_everybody_in_and_says_what_it_would_have_refused(gate):
    """Whoever upgrades sees who has no key yet before anything is refused."""
    door = gate(auth="observe")
    verdict = asked(door, "POST /api/chat")
    assert (verdict.observed, verdict.error.status, verdict.reason) == (True, 401, "no_credential")
    assert not asked(door, "POST /api/chat", shown("inference")).observed
    assert all(verdict.observed or not verdict.error for verdict in (asked(door, route) for route in ROUTES))


def test_changes_from_this_machine_are_for_the_routers_own_user(gate):
    """Who can read the router's secrets needs to show none; another user on the machine does."""
    verdict = asked(gate(), "DELETE /fleet/nodes/{node_id}", {}, "127.0.0.1", "localhost")
    assert verdict.ask_system
    assert settled(verdict, False).error.status == 401
    own = settled(verdict, True)
    assert (own.error, own.caller.local, own.caller.scope) == (None, True, Scope.ADMIN)
    keyed = asked(gate(), "POST /dashboard/api/settings", shown("admin"), "127.0.0.1", "localhost")
    assert settled(keyed, True).caller == replace(keyed.caller, local=True)
    assert not asked(gate(), "POST /dashboard/api/settings", shown("admin")).caller.local


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"])
def test_a_key_is_read_wherever_an_sdk_puts_it(gate, name):
    """OpenAI's, Anthropic's, Azure's and Google's each have a header of their own."""
    text = KEYS["inference"][0].encode()
    headers = {name: b"Bearer " + text if name == b"authorization" else text}
    caller = asked(gate(), "POST /v1/messages", headers).caller
    assert (caller.key_id, caller.name) == (KEYS["inference"][1].id, "inference")
    both = {b"authorization": b"Bearer sk-for-another", **headers} if name != b"authorization" else headers
    assert asked(gate(), "POST /v1/messages", both).caller.name == "inference"


def test_a_refusal_says_what_is_wrong_and_what_opens_the_door(gate):
    """A client's log is where the operator reads it."""
    door, text = gate(), KEYS["inference"][0]
    said = {
        "": asked(door, "POST /api/chat").error.message,
        "revoked": asked(door, "POST /api/chat", shown("revoked")).error.message,
        "expired": asked(door, "POST /api/chat", shown("expired")).error.message,
        "scope": asked(door, "POST /dashboard/api/settings", shown("inference")).error.message,
        "misspelt": asked(door, "POST /api/chat", {b"x-api-key": text[:-1].encode() + b"!"}).error.message,
    }
    assert "herd key create NAME, then Authorization: Bearer" in said[""]
    assert said["revoked"] == f"the key herd_{KEYS['revoked'][1].id} was revoked on 15 Jan 2027"
    assert "expired on 15 Jan 2027" in said["expired"]
    assert said["scope"] == 'the key "inference" may do inference, not changes (scope admin)'
    assert "misspelt" in said["misspelt"]
    assert not any(text[15:40] in words for words in said.values())


def test_who_tries_wrong_keys_again_and_again_is_put_off_and_the_right_one_still_works(gate):
    """Guessing costs; a colleague behind the same address is not shut out by it."""
    door, wrong = gate(), {b"x-api-key": spell(b"wrong", bytes(32))[1].encode()}
    statuses = [asked(door, "POST /api/chat", wrong).error.status for _ in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert asked(door, "POST /api/chat", wrong, "192.168.1.10").error.status == 401
    assert asked(door, "POST /api/chat", shown("inference")).error is None
