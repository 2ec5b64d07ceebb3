"""What a connection may ask of the server, from outside over raw sockets."""

import json

import pytest

from herd.security.connection import MOST_PIPELINED
from tests.security.conftest import serving, statuses

OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
CLOSE = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
INNER = b"GET /inner HTTP/1.1\r\nHost: x\r\n\r\n"


def post(*lines, path=b"/api/chat", body=b""):
    """A request with these lines in its head."""
    head = b"".join(b"%b\r\n" % line for line in (b"Host: x", *lines))
    return b"POST " + path + b" HTTP/1.1\r\n" + head + b"\r\n" + body


@pytest.mark.parametrize("offer", [OFFER, OFFER.replace(b"h2c", b"websocket"), OFFER.replace(b"h2c", b"foo/2, bar")])
@pytest.mark.parametrize("cut", [None, 20, 90, 150, -3], ids=str)
def test_an_offer_of_another_protocol_is_ignored_and_the_body_is_read(talk, offer, cut):
    """Every Java client offers h2c on cleartext; a server may ignore that, and must not lose the body."""
    length = post(offer[:-2], b"Content-Length: 9", body=b'{"a": 12}')
    chunked = post(offer[:-2], b"Transfer-Encoding: chunked", body=b'9\r\n{"a": 12}\r\n0\r\n\r\n')
    for request in (length, chunked):
        client = talk()
        client.send(request[:cut])
        if cut:
            client.send(request[cut:])
        status, told = client.answer()
        assert (status, told["path"], told["body"]) == (200, "/api/chat", '{"a": 12}')
        assert not {"upgrade", "http2-settings"} & {name for name, _ in told["headers"]}


def test_a_request_without_a_body_may_offer_too_and_the_connection_goes_on(talk):
    """The offer is made on each request of a kept connection, and each is one request."""
    client = talk()
    client.send(b"GET /one HTTP/1.1\r\nHost: x\r\n" + OFFER + b"\r\n")
    assert client.answer()[1]["path"] == "/one"
    client.send(b"GET /two?a=b HTTP/1.1\r\nHost: x\r\n" + OFFER + b"\r\n")
    assert client.answer()[1]["path"] == "/two"
    client.send(CLOSE)
    assert statuses(client.rest()) == [200]


@pytest.mark.parametrize(
    "request_",
    [
        post(OFFER[:-2], b"Content-Length: %d" % len(INNER), body=INNER),
        post(OFFER[:-2], b"Transfer-Encoding: chunked", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(INNER), INNER)),
        post(b"Content-Length: %d" % len(INNER), body=INNER),
        post(b"Expect: 100-continue", b"Content-Length: %d" % len(INNER), body=INNER),
    ],
    ids=["offer", "offer-chunked", "plain", "expect"],
)
def test_a_body_that_looks_like_a_request_is_a_body(talk, request_):
    """Two answers to one request give the second to whoever comes next on a proxy's connection."""
    head, _, rest = request_.partition(b"\r\n\r\n")
    client = talk()
    client.send(head + b"\r\n\r\n")
    client.send(rest + CLOSE)
    data = client.rest().replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    assert statuses(data) == [200, 200]
    assert b'"/inner"' not in data
    assert b'"/last"' in data


@pytest.mark.parametrize(
    "request_",
    [
        post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"),
        post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
        post(b"Transfer-Encoding: identity", body=b""),
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0"),
        post(b"Content-Length: 0", b"Content-Length: 40"),
        post(b"Content-Length: +4", body=b"abcd"),
        post(b"Content-Length : 4", body=b"abcd"),
        post(b"A: b\r\n c"),
        post(b"A: b\nContent-Length: 4", body=b"abcd"),
        post(b"Transfer-Encoding: chunked", body=b"0x3\r\nabc\r\n0\r\n\r\n"),
        post(b"Transfer-Encoding: chunked", body=b"3\r\nabcdef\r\n0\r\n\r\n"),
        post(b"Transfer-Encoding: chunked", body=b"3;a\nabc\r\n0\r\n\r\n"),
        b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=range(20),
)
def test_framing_that_two_readers_could_read_differently_is_one_400_and_the_end(talk, request_):
    """A proxy in front that reads such a request another way would give its rest to another client."""
    client = talk()
    client.send(request_ + INNER)
    data = client.rest()
    assert statuses(data) == [400]
    assert b'{"error":' in data
    assert b"/inner" not in data


def test_what_follows_the_body_in_trailers_is_no_header(talk):
    """The request was judged by its head: a trailer may not give it another Host or key."""
    client = talk()
    body = b"2\r\nhi\r\n0\r\nAuthorization: Bearer x\r\nHost: evil\r\n\r\n"
    client.send(post(b"Transfer-Encoding: chunked", body=body))
    told = client.answer()[1]
    assert (told["body"], [name for name, _ in told["headers"]]) == ("hi", ["host", "transfer-encoding"])
    client.send(post(b"Transfer-Encoding: chunked", body=b"0\r\n" + b"a: b\r\n" * 20_000))
    assert statuses(client.rest()) == [431]


def test_garbage_behind_a_request_does_not_end_up_in_its_answer(talk):
    """An error written into a running answer would be read as its body."""
    client = talk()
    client.send(post(b"Content-Length: 2", path=b"/wait", body=b"hi") + b"garbage\r\n\r\n")
    other = talk()
    other.send(b"GET /go HTTP/1.1\r\nHost: x\r\n\r\n")
    assert other.answer()[0] == 200
    data = client.rest()
    assert statuses(data) == [200]
    assert data.endswith(b'"body": "hi"}')


def test_nothing_is_read_after_the_last_request_of_a_connection(talk):
    """Who says `Connection: close` sends nothing more; what comes all the same is from somebody else."""
    client = talk()
    client.send(CLOSE + INNER)
    data = client.rest()
    assert statuses(data) == [200]
    assert b"/inner" not in data


def test_a_target_that_names_its_host_is_a_path_at_that_host(talk):
    """Proxies' clients send it; its host must not be another than the one that the doors look at."""
    client = talk()
    client.send(b"GET http://localhost:9?a=b HTTP/1.1\r\nHost: evil\r\nA: b\r\n\r\n")
    told = client.answer()[1]
    assert (told["path"], told["query"]) == ("/", "a=b")
    assert told["headers"] == [["host", "localhost:9"], ["a", "b"]]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /" + b"a" * (16 * 2**10 - 1) + b" HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /" + b"a" * (16 * 2**10) + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"a" * 2**22, 414),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100 + b"\r\n", 200),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10**6, 431),
        (b"GET / HTTP/1.1\r\na: " + b"b" * (65_536 - 6) + b"\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\na: " + b"b" * (65_536 - 5) + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\na: " + b"b" * 2**23, 431),
        (b"GET / HTTP/1.1\r\n" + b"a" * 2**23, 431),
        (b"\r\n" * 2**22, 431),
        (post(b"Transfer-Encoding: chunked", body=b"1;" + b"a" * 2**23), 431),
    ],
    ids=range(12),
)
def test_a_head_has_a_size_and_beyond_it_is_refused_in_words(talk, request_, status):
    """One connection with a head of 180 MB stalled the router for three seconds, and a million lines were answered."""
    client = talk()
    client.send(request_)
    client.send(CLOSE)
    data = client.rest()
    assert statuses(data)[0] == status
    if status != 200:
        assert json.loads(data.partition(b"\r\n\r\n")[2])["error"].startswith(("the head", "the URL"))


def test_a_large_body_is_no_large_head(talk):
    """What is limited is the head: pictures go through, and so does the request that is sent right behind one."""
    client = talk()
    body = b"x" * 3_000_000
    request = post(b"Content-Length: %d" % len(body), body=body)
    client.send(request + request[: len(request) // 2])
    assert len(client.answer()[1]["body"]) == len(body)
    client.send(request[len(request) // 2 :] + CLOSE)
    data = client.rest()
    assert statuses(data) == [200, 200]
    assert len(data) > len(body)


def test_an_error_of_the_head_is_in_the_dialect_of_its_path(talk):
    """openai-python shows `error.message`, and nothing else."""
    client = talk()
    client.send(b"GET /v1/models HTTP/1.1\r\n" + b"a: b\r\n" * 200)
    error = json.loads(client.rest().partition(b"\r\n\r\n")[2])["error"]
    assert (error["code"], error["message"][:9]) == ("bad_request", "the head ")


@pytest.mark.parametrize("first", [b"G", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n", INNER + b"GET / HTTP/1.1\r\n"])
def test_a_head_that_does_not_end_is_given_up(first):
    """Half-sent heads stayed for ever, each with its file."""
    with serving(head_s=0.2) as talk:
        client = talk()
        client.send(first)
        assert statuses(client.rest())[-1] == 408


def test_an_idle_connection_is_not_a_slow_head():
    """Pools keep connections for minutes between requests."""
    with serving(head_s=0.05) as talk:
        idle, kept = talk(), talk()
        kept.send(INNER)
        assert kept.answer()[0] == 200
        slow = talk()
        slow.send(b"GET")
        assert statuses(slow.rest()) == [408]  # so much time has passed
        for client in (idle, kept):
            client.send(INNER)
            assert client.answer()[0] == 200


def test_the_connection_that_is_idle_longest_makes_room_for_a_new_one():
    """400 idle connections shut everyone else out; what works is never cut."""
    half = post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hi")
    with serving(connections=3) as talk:
        first, second, third = (talk() for _ in range(3))
        for client in (second, first):
            client.send(INNER)
            assert client.answer()[0] == 200
        third.send(half)
        third.begun()
        newest = talk()
        newest.send(INNER)
        assert newest.answer()[0] == 200
        assert second.rest() == b""
        for client in (first, newest):
            client.send(half)
            client.begun()
        told = talk().rest()
        assert statuses(told) == [429]
        assert b"\r\nretry-after: 1\r\n" in told
        for client in (first, third, newest):
            client.send(b"you")
            assert client.answer()[1]["body"] == "hiyou"


def test_requests_that_are_sent_ahead_are_answered_in_order_up_to_a_number(talk):
    """Each is held until those before it are answered; a client that sends thousands would fill the memory."""
    client = talk()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(20)) + CLOSE)
    data = client.rest()
    assert statuses(data) == [200] * 21
    assert data.index(b'"/1"') < data.index(b'"/19"') < data.index(b'"/last"')
    client = talk()
    client.send(post(path=b"/wait") + INNER * 10_000)
    other = talk()
    other.send(b"GET /go HTTP/1.1\r\nHost: x\r\n\r\n")
    assert len(statuses(client.rest())) <= MOST_PIPELINED
