"""HTTP/1.1 byte by byte, without a socket: what a request looks like, what an answer is taken for, when it is late."""

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.dataplane.http1 import ROOM, Address, Connection, Late, Lost, NotHttp, head_of, target_of

NODE = Address(False, "127.0.0.1", 11434)
OK = b"HTTP/1.1 200 OK\r\n"


class Wire(asyncio.Transport):
    """The node's end of a connection, as a test sees it."""

    def __init__(self):
        super().__init__()
        self.sent, self.ended, self.reading, self.writes = b"", False, True, 0

    def write(self, data):
        self.sent += data
        self.writes += 1

    def abort(self):
        self.ended = True

    def is_closing(self):
        return self.ended

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


class Clock:
    """As much of an event loop as a connection needs, whose time a test moves."""

    def __init__(self):
        self.now, self.set, self.made = 0.0, [], 0
        self.futures = asyncio.new_event_loop()

    def time(self):
        return self.now

    def create_future(self):
        return self.futures.create_future()

    def call_at(self, when, call):
        self.made += 1
        self.set.append(timer := Timer(when, call))
        return timer

    def move_to(self, moment):
        """Ring what is set until then, in order."""
        while due := [timer for timer in self.set if timer.when <= moment and not timer.cancelled]:
            first = min(due, key=lambda timer: timer.when)
            self.set.remove(first)
            self.now = max(self.now, first.when)
            first.call()
        self.now = moment


class Timer:
    def __init__(self, when, call):
        self.when, self.call, self.cancelled = when, call, False

    def cancel(self):
        self.cancelled = True


@pytest.fixture(scope="module")
def clock():
    """A clock for tests in which time stands still."""
    made = Clock()
    yield made
    made.futures.close()


@pytest.fixture
def moving():
    """A clock that a test moves."""
    made = Clock()
    yield made
    made.futures.close()


def asked(clock, method="GET"):
    """A connection on which a request went out, and the node's end of it."""
    connection, wire = Connection(clock, NODE, lambda _: None), Wire()
    connection.connection_made(wire)
    connection.begin(b"GET / HTTP/1.1\r\n\r\n", None, bodiless=method == "HEAD", chunks_follow=False)
    return connection, wire


def heard(clock, pieces, method="GET", closed=False):
    """All that can be seen of an answer that comes in these pieces."""
    connection, wire = asked(clock, method)
    for piece in pieces:
        if not wire.ended:
            connection.data_received(piece)
    if closed and not wire.ended:
        connection.eof_received()
    body = b"".join(connection.pieces)
    error = connection.error
    return (connection.status, connection.headers if connection.status else None, body, connection.complete,
            type(error), str(error), connection.keep_alive and not wire.ended,
            connection.content_length if connection.status else None)  # fmt: skip


def cut(data, places):
    """The data in pieces, cut at these places."""
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


names = st.text("ABCxyz-", min_size=1, max_size=12).map(str.encode)
values = st.text("abc =;\t\xe9", max_size=20).map(lambda text: text.encode("latin-1"))
lines = st.lists(st.tuples(names, values), max_size=4).map(
    lambda found: b"".join(b"%b: %b\r\n" % header for header in found)
)
bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
statuses = st.sampled_from([b"200 OK", b"200", b"204 No Content", b"304 Not Modified", b"404 Not Found", b"500 Oops"])
interims = st.sampled_from([b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" * 3])


@st.composite
def answers(draw):
    """The bytes of an answer: of every framing, and often with something wrong in them."""
    head = draw(interims) + b"HTTP/1." + draw(st.sampled_from(b"01")).to_bytes(1, "big") + b" " + draw(statuses)
    head += b"\r\n" + draw(lines)
    pieces = draw(bodies)
    match draw(st.sampled_from(["length", "chunked", "close"])):
        case "length":
            answer = head + b"Content-Length: %d\r\n\r\n" % len(b"".join(pieces)) + b"".join(pieces)
        case "chunked":
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
            answer = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + draw(lines) + b"\r\n"
        case _:
            answer = head + b"\r\n" + b"".join(pieces)
    place = draw(st.integers(0, len(answer)))
    wrong = draw(st.sampled_from([b"", b"", b"", b"\0", b"\n", b"\r", b" ", b"7", b"\x7f", b"Z: " + b"z" * ROOM]))
    return answer[:place] + wrong + answer[place:]


@given(answers(), st.lists(st.integers(0, 2**20), max_size=12), st.sampled_from(["GET", "HEAD"]), st.booleans())
def test_an_answer_is_the_same_however_its_bytes_are_cut(clock, answer, places, method, closed):
    """Packets end where they like; what a client gets must not depend on it."""
    assert heard(clock, cut(answer, places), method, closed) == heard(clock, [answer], method, closed)


@given(answers(), st.sampled_from(["GET", "HEAD"]), st.booleans())
def test_an_answer_is_the_same_byte_by_byte(clock, answer, method, closed):
    """The hardest cut."""
    answer = answer[:3000] if len(answer) > 3000 else answer
    single = [answer[place : place + 1] for place in range(len(answer))]
    assert heard(clock, single, method, closed) == heard(clock, [answer], method, closed)


@pytest.mark.parametrize(
    ("url", "address", "lines"),
    [
        (
            "http://127.0.0.1:11434/api/chat",
            (False, "127.0.0.1", 11434),
            b" /api/chat HTTP/1.1\r\nhost: 127.0.0.1:11434",
        ),
        ("http://studio.local/", (False, "studio.local", 80), b" / HTTP/1.1\r\nhost: studio.local"),
        ("https://studio.local/v1", (True, "studio.local", 443), b" /v1 HTTP/1.1\r\nhost: studio.local"),
        ("https://studio.local:80", (True, "studio.local", 80), b" / HTTP/1.1\r\nhost: studio.local:80"),
        ("http://[::1]:8080/x", (False, "::1", 8080), b" /x HTTP/1.1\r\nhost: [::1]:8080"),
        ("http://[fe80::1%eth0]:1/x", (False, "fe80::1%eth0", 1), b" /x HTTP/1.1\r\nhost: [fe80::1]:1"),
        ("http://bücher:1/x", (False, "bücher", 1), b" /x HTTP/1.1\r\nhost: xn--bcher-kva:1"),
        ("http://a:1/x%2Fy/../z?q=1", (False, "a", 1), b" /x%2Fy/../z?q=1 HTTP/1.1\r\nhost: a:1"),
        ("http://a:1/x y\r\nz", (False, "a", 1), b" /x%20y%0D%0Az HTTP/1.1\r\nhost: a:1"),
        ("http://a:1/\xe9", (False, "a", 1), b" /\xe9 HTTP/1.1\r\nhost: a:1"),
    ],
)
def test_a_url_is_an_address_and_a_path_that_goes_out_as_it_is(url, address, lines):
    """A node sees the path that the client wrote, and its own name as Host: Ollama answers 403 to others."""
    assert target_of(url) == (address, lines + b"\r\n")


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:1", "ftp://a/", "http://", "http://a:99999/", "http://a:b/", "http://[::1/"]
)
def test_what_is_no_address_is_a_value_error(url):
    """A node that announces such a thing cannot be reached, and that is all there is to it."""
    with pytest.raises(ValueError, match=r".+"):
        target_of(url)


async def pieces_of(*pieces):
    for piece in pieces:
        yield piece


@pytest.mark.parametrize(
    ("method", "body", "framing"),
    [
        ("GET", None, b""),
        ("DELETE", None, b""),
        ("POST", None, b"content-length: 0\r\n"),
        ("POST", b"", b"content-length: 0\r\n"),
        ("DELETE", b"{}", b"content-length: 2\r\n"),
        ("POST", pieces_of(b"x"), b"transfer-encoding: chunked\r\n"),
    ],
)
def test_a_request_says_how_long_its_body_is(method, body, framing):
    """A server that must guess waits for more, or takes the next request for a part of this one."""
    head = head_of(method, target_of("http://a:1/x"), [(b"x-one", b"1"), (b"x-two", b"")], body)
    assert head == method.encode() + b" /x HTTP/1.1\r\nhost: a:1\r\nx-one: 1\r\nx-two: \r\n" + framing + b"\r\n"


def test_a_head_and_a_small_body_go_out_together(clock):
    """A packet less, and a node that reads once."""
    for size, writes in ((0, 1), (1000, 1), (1_000_000, 2)):
        connection, wire = Connection(clock, NODE, lambda _: None), Wire()
        connection.connection_made(wire)
        connection.begin(b"head", b"x" * size, bodiless=False, chunks_follow=False)
        assert (wire.writes, wire.sent) == (writes, b"head" + b"x" * size)


@pytest.mark.parametrize("header", [(b"x", b"1\r\ny: 2"), (b"x", b"1\n"), (b"x\r", b"1"), (b"x", b"1\0")])
def test_a_header_cannot_smuggle_another_one(header):
    """Whoever can write a line break into a header could write a second request to the node."""
    with pytest.raises(ValueError, match="line break"):
        head_of("GET", target_of("http://a:1/x"), [header], None)


@pytest.mark.parametrize(
    "wrong",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        OK + b"A: x\x01y\r\n\r\n",
        OK + b"A: x\0y\r\n\r\n",
        OK + b"A: x\x7fy\r\n\r\n",
        OK + b"A\x01: y\r\n\r\n",
        OK + b"A : y\r\n\r\n",
        OK + b"A: x\ry\r\n\r\n",
        OK + b"A: x\nB: y\r\n\r\n",
        OK + b"A: y\r\n z\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/3.7 200 OK\r\n\r\n",
    ],
)
def test_what_is_not_http_is_not_taken_for_an_answer(clock, wrong):
    """What one reader takes for one answer and another for two is how requests get the answers of others."""
    connection, wire = asked(clock)
    connection.data_received(wrong)
    assert isinstance(connection.error, NotHttp)
    assert (connection.status, wire.ended) == (0, True)


def test_a_head_has_room_for_what_engines_send_and_no_more(clock):
    """A head is held in memory before anybody can say no to it."""
    full = OK + b"".join(b"X-%03d: y\r\n" % number for number in range(99)) + b"Content-Length: 0\r\n\r\n"
    assert heard(clock, [full])[3:5] == (True, type(None))
    assert heard(clock, [full.replace(b"X-000: y", b"X-000: y\r\nX-more: y")])[4:6] == (
        NotHttp, "its head has over 100 header lines",
    )  # fmt: skip
    long = OK + b"Content-Length: 2\r\nX: " + b"x" * (ROOM - len(OK) - 26) + b"\r\n\r\n"
    assert len(long) == ROOM
    assert heard(clock, [long + b"hi"])[2:5] == (b"hi", True, type(None))
    for pieces in ([long.replace(b"X: ", b"X: x") + b"hi"], [long[:-4], b"xxxxx"], [OK, b"X: " + b"x" * ROOM]):
        assert heard(clock, pieces)[4:6] == (NotHttp, "its head is over 64 KiB")


def test_interim_answers_without_end_are_too_much(clock):
    """A node could hold a request for ever, and its deadline is that of the first byte of content."""
    connection, wire = asked(clock)
    for _ in range(ROOM // 25 + 1):
        connection.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert isinstance(connection.error, NotHttp)
    assert wire.ended


def test_only_the_final_head_is_the_answers(clock):
    """Neither what was said ahead of it, nor what comes behind the body: its headers have gone to the client."""
    early = b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
    late = OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Late: x\r\n\r\n"
    assert heard(clock, [early + late])[:4] == (200, [(b"transfer-encoding", b"chunked")], b"", True)


def test_framing_without_content_is_too_much(clock):
    """Chunk extensions and trailers are bytes that nobody reads and no deadline counts."""
    connection, _ = asked(clock)
    connection.data_received(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n")
    connection.data_received(b"X: " + b"y" * (2 * ROOM))
    assert isinstance(connection.error, NotHttp)


def test_what_follows_an_answer_ends_its_connection(clock):
    """It would be taken for the answer to the next request, which may be somebody else's."""
    whole = OK + b"Content-Length: 2\r\n\r\nhi"
    for more in (whole, b"H", b"\0"):
        for pieces in ([whole + more], [whole, more]):
            assert heard(clock, pieces) == (200, [(b"content-length", b"2")], b"hi", True, type(None), "None", False, 2)


def test_what_comes_while_nobody_asks_ends_the_connection(clock):
    """The same, after the answer was given to its reader."""
    connection, wire = asked(clock)
    connection.data_received(OK + b"Content-Length: 0\r\n\r\n")
    assert connection.reusable()
    connection.rest()
    connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert wire.ended


def test_a_body_to_a_head_request_is_no_body(clock):
    """It may announce a length; what nevertheless follows belongs to nothing."""
    head = OK + b"Content-Length: 2\r\n\r\n"
    assert heard(clock, [head], "HEAD") == (200, [(b"content-length", b"2")], b"", True, type(None), "None", True, 2)
    assert heard(clock, [head + b"hi"], "HEAD")[2:7] == (b"", True, type(None), "None", False)


def test_the_parser_is_ready_again_after_a_head_request(clock):
    """It would take the next answer for the body that the last one spoke of."""
    connection, _ = asked(clock, "HEAD")
    connection.data_received(OK + b"Content-Length: 90\r\n\r\n")
    connection.rest()
    connection.begin(b"", None, bodiless=False, chunks_follow=False)
    connection.data_received(OK + b"Content-Length: 2\r\n\r\nhi")
    assert (connection.status, connection.take(), connection.complete) == (200, b"hi", True)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (OK + b"Content-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 20\r\n\r\n", True),
        (OK + b"Connection: close\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", True),
        (OK + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n", True),
    ],
)
def test_a_connection_is_kept_where_the_node_wants_to(clock, answer, kept):
    """A request on a connection that is about to close is lost."""
    connection, _ = asked(clock)
    connection.data_received(answer)
    assert (connection.complete, connection.reusable()) == (True, kept)


def test_a_body_that_nobody_reads_stops_the_reading(clock):
    """A client that is slower than its node would have the router hold the whole answer."""
    connection, wire = asked(clock)
    connection.data_received(OK + b"Content-Length: 10000000\r\n\r\n")
    sent = 0
    while wire.reading:
        connection.data_received(b"x" * 10_000)
        sent += 10_000
        assert sent < 4 * ROOM
    assert len(connection.take()) == sent
    assert wire.reading


async def test_a_body_that_the_node_does_not_read_is_not_asked_for():
    """An upload of gigabytes would end up in the router's memory."""
    connection, wire, given = Connection(asyncio.get_running_loop(), NODE, lambda _: None), Wire(), []

    async def body():
        for number in range(5):
            given.append(number)
            yield b"x"

    connection.connection_made(wire)
    connection.begin(b"", None, bodiless=False, chunks_follow=True)
    connection.pause_writing()
    sending = asyncio.create_task(connection.send_chunks(body()))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (given, wire.sent) == ([0], b"")
    connection.resume_writing()
    await sending
    assert (given, wire.sent) == ([0, 1, 2, 3, 4], b"1\r\nx\r\n" * 5 + b"0\r\n\r\n")


async def test_a_body_that_is_sent_no_further_is_closed_at_once():
    """It is a client's connection, which must not stay in the hands of whoever no longer reads from it."""
    connection, ended = Connection(asyncio.get_running_loop(), NODE, lambda _: None), []

    async def body():
        try:
            yield b"x"
        finally:
            ended.append(True)

    connection.connection_made(Wire())
    connection.begin(b"", None, bodiless=False, chunks_follow=True)
    connection.pause_writing()
    sending = asyncio.create_task(connection.send_chunks(body()))
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait([sending])
    assert ended == [True]


def test_a_body_until_close_ends_well_only_with_an_orderly_end(clock):
    """A reset in the middle looks like an end to whoever does not ask."""
    for loss, complete in ((None, True), (ConnectionResetError("reset"), False)):
        connection, _ = asked(clock)
        connection.data_received(OK + b"\r\nhi")
        connection.connection_lost(loss)
        assert (connection.take(), connection.complete, isinstance(connection.error, Lost)) == (
            b"hi", complete, not complete,
        )  # fmt: skip


def test_what_is_due_later_than_at_first_is_not_late(moving):
    """The reader moves the deadline with every chunk."""
    connection, _ = asked(moving)
    waiting = connection.arrival(10.0)
    connection.data_received(OK + b"Content-Length: 9\r\n\r\n")
    assert waiting.done()
    for moment in range(1, 100):
        waiting = connection.arrival(moment + 10.0)
        moving.move_to(moment)
    assert (waiting.done(), connection.error) == (False, None)
    moving.move_to(109.0)
    assert waiting.done()
    assert isinstance(connection.error, Late)


def test_what_is_due_sooner_than_at_first_is_late_then(moving):
    """Silence in the middle of an answer has a shorter limit than the wait for its beginning."""
    connection, wire = asked(moving)
    connection.arrival(600.0)
    connection.data_received(OK + b"Content-Length: 9\r\n\r\n")
    waiting = connection.arrival(30.0)
    moving.move_to(29.9)
    assert not waiting.done()
    moving.move_to(30.0)
    assert isinstance(connection.error, Late)
    assert (waiting.done(), wire.ended) == (True, True)


def test_many_waits_share_one_timer(moving):
    """A timer for each chunk is a quarter of what a chunk costs."""
    connection, _ = asked(moving)
    for moment in range(1000):
        connection.arrival(moment / 1000 + 30.0)
    assert moving.made == 1


def test_nobody_who_does_not_wait_is_late(moving):
    """A client that reads slowly is no fault of the node's."""
    connection, _ = asked(moving)
    connection.arrival(10.0)
    connection.data_received(OK + b"Content-Length: 9\r\n\r\nhi")
    moving.move_to(1000.0)
    assert (connection.error, connection.take()) == (None, b"hi")


def test_no_deadline_is_none(moving):
    """An upload takes as long as it takes."""
    connection, _ = asked(moving)
    connection.arrival(10.0)
    waiting = connection.arrival(float("inf"))
    moving.move_to(1e9)
    assert (waiting.done(), moving.made) == (False, 1)
