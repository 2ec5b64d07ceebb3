"""One exchange with a node over loopback: every way in which it ends, what is kept, and that nothing is left behind."""

import asyncio
import math
import os
import resource
import socket
import ssl
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from herd.core import errors
from herd.core.breaker import FAULTS_OF_THE_NODE
from herd.dataplane.exchange import Call, Upstream, status_error
from tests.dataplane.scripted import CLOSE, DEAF, HALF_CLOSE, OK, RESET, SILENCE, chunked, node, read_request, soon
from tests.harness import free_port

CERTIFICATE = Path(__file__).parent / "loopback.pem"
SHORT_S, LONG_S = 0.05, 20.0


@pytest_asyncio.fixture
async def upstream():
    """Connections to nodes; whatever a test does, none is left, and no task either."""
    tasks = asyncio.all_tasks()
    made = Upstream(LONG_S, tls=ssl.create_default_context(cafile=CERTIFICATE))
    yield made
    await made.close()
    assert made.connections == 0
    await soon(lambda: asyncio.all_tasks() <= tasks | {asyncio.current_task()}, "all tasks have ended")


def within(seconds):
    return asyncio.get_running_loop().time() + seconds


async def fetch(upstream, url, method="GET", body=None, headers=(), due_s=LONG_S):
    """An exchange that is read to its end: the answer, and its body."""
    async with upstream.exchange(Call(method, url, headers, body), within(due_s)) as answer:
        parts = []
        while part := await answer.read():
            parts.append(part)
    return answer, b"".join(parts)


async def pieces_of(*pieces):
    for piece in pieces:
        yield piece


def server_tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@asynccontextmanager
async def mute():
    """A port that takes connections, and never begins the encryption that is expected there."""
    async with node([SILENCE]) as there:
        there.url = there.url.replace("http:", "https:")
        yield there


# Answers


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        chunked(b"he", b"l", b"lo"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK,
    ],
)
async def test_a_body_comes_whole_whatever_says_where_it_ends(upstream, answer):
    """Engines use every way: a length, chunks, and the end of the connection."""
    async with node([answer, CLOSE]) as there:
        heard, body = await fetch(upstream, there.url)
    assert (heard.status, body) == (200, b"hello")


async def test_an_answer_has_its_headers_as_they_came(upstream):
    """They are handed on; names that differ in case only would be looked for in vain."""
    head = b"HTTP/1.1 201 Made\r\nX-B: 2\r\nContent-Length: 5\r\nx-a:\r\nX-B: 3\r\n\r\nhello"
    async with node([head]) as there:
        answer, _ = await fetch(upstream, there.url)
    assert answer.headers == [(b"x-b", b"2"), (b"content-length", b"5"), (b"x-a", b""), (b"x-b", b"3")]
    assert (answer.status, answer.content_length, answer.reconnected) == (201, 5, False)
    assert (answer.header(b"x-b"), answer.header(b"x-c")) == (b"2", None)


async def test_a_node_gets_the_request_byte_for_byte(upstream):
    """What it is asked is what the client asked, in one packet where that is small."""
    async with node([OK, OK]) as there:
        host = there.url.removeprefix("http://").encode()
        await fetch(upstream, there.url + "/api/chat?x=%2F", "POST", b"{}", [(b"content-type", b"application/json")])
        await fetch(upstream, there.url, "POST", b"x" * 200_000)
    assert there.requests == [
        b"POST /api/chat?x=%2F HTTP/1.1\r\nhost: " + host + b"\r\ncontent-type: application/json\r\n"
        b"content-length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nhost: " + host + b"\r\ncontent-length: 200000\r\n\r\n" + b"x" * 200_000,
    ]


@pytest.mark.parametrize("head", [b"200 OK\r\nContent-Length: 5", b"204 No Content", b"304 Not Modified"])
async def test_an_answer_without_a_body_ends_with_its_head(upstream, head):
    """Waiting for the bytes that HEAD announces would last until the deadline."""
    async with node([b"HTTP/1.1 " + head + b"\r\n\r\n", OK]) as there:
        answer, body = await fetch(upstream, there.url, "HEAD")
        assert (answer.status, body) == (int(head[:3]), b"")
        assert (await fetch(upstream, there.url))[1] == b"hello"
        assert there.accepted == 1


async def test_a_large_answer_comes_whole_to_a_slow_reader(upstream):
    """Reading stops and goes on many times; no byte may be lost or come twice."""
    body = b"".join(b"%07d\n" % number for number in range(500_000))
    async with node([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body]) as there:
        async with upstream.exchange(Call("GET", there.url), within(LONG_S)) as answer:
            got, largest = [], 0
            while part := await answer.read():
                got.append(part)
                largest = max(largest, len(part))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        assert b"".join(got) == body
        assert largest < 2**20


async def test_a_limited_read_ends_at_its_limit(upstream):
    """An engine's error may be a whole page; what is kept of it is not."""
    async with node([chunked(b"hello"), chunked(b"hello", b"x" * 100_000)]) as there:
        async with upstream.exchange(Call("GET", there.url), within(LONG_S)) as answer:
            assert await answer.read_limited(5) == (b"hello", True)
        async with upstream.exchange(Call("GET", there.url), within(LONG_S)) as answer:
            body, whole = await answer.read_limited(1000)
        assert (body[:6], len(body) > 1000, whole) == (b"hellox", True, False)


async def test_no_proxy_of_the_environment_is_used(upstream, monkeypatch):
    """Prompts would leave the house by a variable that was set for something else."""
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{free_port()}")
    async with node([OK]) as there:
        assert (await fetch(upstream, there.url))[1] == b"hello"


async def test_a_node_may_have_an_ipv6_address(upstream):
    """Its literal stands in brackets, in the URL and in Host."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with node([OK], host="::1") as there:
        assert (await fetch(upstream, there.url))[1] == b"hello"
    assert b"\r\nhost: [::1]:" in there.requests[0]


# Connections that are kept


async def test_a_connection_serves_one_request_after_another(upstream):
    """A new connection for each costs more than the request."""
    async with node([OK, chunked(b"hello"), OK]) as there:
        for _ in range(3):
            assert (await fetch(upstream, there.url, "POST", b"x"))[1] == b"hello"
        assert (there.accepted, upstream.connections) == (1, 1)


async def test_as_many_connections_are_made_as_are_used_at_once(upstream):
    """An answer that takes a minute must hold up no other."""
    go = asyncio.Event()
    async with node([go, OK]) as there:
        asked = [asyncio.create_task(fetch(upstream, there.url)) for _ in range(5)]
        await soon(lambda: there.accepted == 5)
        go.set()
        assert {body for _, body in await asyncio.gather(*asked)} == {b"hello"}


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        OK + OK,
    ],
)
async def test_a_connection_that_is_about_to_close_is_not_used_again(upstream, first):
    """Nor one on which there is more than was asked for."""
    async with node([first, SILENCE], [OK]) as there:
        for _ in range(2):
            answer, body = await fetch(upstream, there.url)
            assert (body, answer.reconnected) == (b"hello", False)
        assert there.accepted == 2


@pytest.mark.parametrize("first", [OK, chunked(b"hello", b"world"), chunked(b"hello", end=False)])
async def test_a_connection_whose_answer_was_not_read_to_its_end_is_closed(upstream, first):
    """The rest would be taken for the next answer; and a node may go on generating until it sees the end."""
    async with node([first, SILENCE], [OK]) as there:
        async with upstream.exchange(Call("GET", there.url), within(LONG_S)):
            pass
        await soon(lambda: there.open == 0)
        assert (await fetch(upstream, there.url))[1] == b"hello"
        assert there.accepted == 2


async def test_an_error_of_the_readers_keeps_a_connection_whose_answer_was_read(upstream):
    """A status of 404 is an error of the tree, and no reason to connect anew."""

    async def refused(url):
        async with upstream.exchange(Call("GET", url), within(LONG_S)) as answer:
            await answer.read_limited(100)
            raise errors.Upstream4xx("no", 404)

    async with node([OK, OK]) as there:
        with pytest.raises(errors.Upstream4xx):
            await refused(there.url)
        await fetch(upstream, there.url)
        assert there.accepted == 1


@pytest.mark.parametrize("end", [CLOSE, RESET])
async def test_a_kept_connection_that_ends_unanswered_is_tried_once_more_afresh(upstream, end):
    """The node closed it while the request was on its way, so it never saw it: no fault, and no failed request."""
    async with node([OK, b"", end], [OK, b"", end], [OK]) as there:
        await fetch(upstream, there.url, "POST", b"first")
        answer, body = await fetch(upstream, there.url, "POST", b"second")
        assert (answer.reconnected, body, there.accepted) == (True, b"hello", 2)
        answer, _ = await fetch(upstream, there.url, "POST", b"third")
        assert answer.reconnected
    asked = [request.partition(b"\r\n\r\n")[2] for request in there.requests]
    assert asked == [b"first", b"second", b"second", b"third", b"third"]


async def test_a_request_is_sent_twice_at_the_most(upstream):
    """A request that ends every connection that it comes to is not to be tried on and on."""
    async with node([OK, b"", CLOSE], [b"", CLOSE]) as there:
        await fetch(upstream, there.url)
        with pytest.raises(errors.ConnectionLost):
            await fetch(upstream, there.url)
        assert (there.accepted, len(there.requests)) == (2, 3)


@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_request_that_the_node_has_begun_to_answer_is_not_sent_again(upstream, said):
    """It may have been carried out; nobody but the client can know whether twice is the same as once."""
    async with node([OK, said, CLOSE]) as there:
        await fetch(upstream, there.url)
        with pytest.raises(errors.ConnectionLost):
            await fetch(upstream, there.url)
        assert (there.accepted, len(there.requests)) == (1, 2)


async def test_a_body_that_is_read_as_it_is_sent_goes_on_a_fresh_connection(upstream):
    """It cannot be sent again, so it must not come to a connection that may be closed."""
    async with node([OK, SILENCE], [OK, OK]) as there:
        await fetch(upstream, there.url)
        answer, body = await fetch(upstream, there.url, "POST", pieces_of(b"ab", b"", b"c"))
        assert (body, there.accepted, answer.reconnected) == (b"hello", 2, False)
        assert there.requests[1].endswith(b"\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")
        await fetch(upstream, there.url)
        assert there.accepted == 2


@pytest.mark.parametrize("last", [(), ((b"HTTP/1.1 408 Request Timeout\r\n\r\n",),)], ids=["closed", "talking"])
async def test_an_idle_connection_that_the_node_ends_is_thrown_out_at_once(upstream, last):
    """llama.cpp announces keep-alive and closes after each streamed answer."""
    go = asyncio.Event()
    async with node([OK, go, *last, SILENCE] if last else [OK, go, CLOSE], [OK]) as there:
        await fetch(upstream, there.url)
        assert (upstream.connections, upstream.idle) == (1, 1)
        go.set()
        await soon(lambda: upstream.connections == 0)
        assert upstream.idle == 0
        answer, _ = await fetch(upstream, there.url)
        assert not answer.reconnected


async def test_an_idle_connection_is_closed_after_a_while(upstream):
    """Nodes come and go; their sockets must not stay."""
    brief = Upstream(LONG_S, idle_s=SHORT_S)
    async with node([OK, SILENCE]) as there:
        await fetch(brief, there.url)
        assert (brief.connections, there.open) == (1, 1)
        await soon(lambda: brief.connections == 0 and there.open == 0)
        await fetch(brief, there.url)
        await soon(lambda: brief.connections == 0 and there.open == 0)


async def test_each_idle_connection_is_closed_in_its_own_time(upstream):
    """One look is made for all of them, and there must be another one for those that came later."""
    brief, go = Upstream(LONG_S, idle_s=SHORT_S), asyncio.Event()
    async with node([OK, SILENCE], [go, OK, SILENCE]) as there:
        async with brief.exchange(Call("GET", there.url), within(LONG_S)) as first:
            second = asyncio.create_task(fetch(brief, there.url))
            await soon(lambda: there.accepted == 2)
            await first.read()
        asyncio.get_running_loop().call_later(SHORT_S / 2, go.set)
        await second
        await soon(lambda: (brief.connections, brief.idle, there.open) == (0, 0, 0))


async def test_a_connection_that_is_made_while_all_are_closed_is_closed_too(upstream):
    """Nobody would look for it afterwards."""
    async with node([SILENCE]) as there:
        task = asyncio.create_task(fetch(upstream, there.url))
        await asyncio.sleep(0)
        await upstream.close()
        with pytest.raises(errors.ConnectionLost):
            await task
        await soon(lambda: there.accepted == 1 and there.open == 0)


async def test_closing_ends_what_is_idle_and_what_is_under_way(upstream):
    """The router stops within its time, whatever nodes do."""
    async with node([chunked(b"hello", end=False), SILENCE], [OK, SILENCE]) as there:
        assert upstream.connections == 0
        async with upstream.exchange(Call("GET", there.url), within(LONG_S)) as answer:
            assert await answer.read() == b"hello"
            await fetch(upstream, there.url)
            assert upstream.connections == 2
            await upstream.close()
            assert upstream.connections == 0
            with pytest.raises(errors.StreamAborted):
                await answer.read()
        await soon(lambda: there.open == 0)


# Failures


async def failure(upstream, url, content_seen=False, due_s=LONG_S, **asked):
    """The error that an exchange ends in, and what of the body came before it."""
    body = b""

    async def run():
        nonlocal body
        async with upstream.exchange(Call("POST", url, **asked), within(due_s)) as answer:
            answer.content_seen = content_seen
            while part := await answer.read():
                body += part

    with pytest.raises(errors.AttemptError) as caught:
        await run()
    return caught.value, body


@pytest.mark.parametrize(
    ("script", "kind", "message", "body"),
    [
        ([b"", CLOSE], errors.ConnectionLost, "connection was lost before it answered", b""),
        ([b"HTTP/1.1 200 OK\r\nConte", CLOSE], errors.ConnectionLost, "connection was lost before it answered", b""),
        ([b"", RESET], errors.ConnectionLost, "connection was lost before it answered: ", b""),
        ([b"SSH-2.0-OpenSSH_9.6\r\n"], errors.BadResponse, "the node's answer is not HTTP: Expected HTTP/", b""),
        ([OK.replace(b"OK\r\n", b"OK\r\nX: \x01\r\n")], errors.BadResponse, "Invalid header value char", b""),
        ([OK.replace(b"OK\r\n", b"OK\r\nX: " + b"x" * 70_000)], errors.BadResponse, "is over 64 KiB", b""),
        ([OK.replace(b"OK\r\n", b"OK\r\n" + b"X: y\r\n" * 100)], errors.BadResponse, "over 100 header lines", b""),
        ([OK[:-1], CLOSE], errors.StreamAborted, "its connection closed before the end", b"hell"),
        ([OK[:-1], HALF_CLOSE, SILENCE], errors.StreamAborted, "its connection closed before the end", b"hell"),
        ([chunked(b"hello", end=False), CLOSE], errors.StreamAborted, "closed before the end", b"hello"),
        ([chunked(b"hello", end=False) + b"zz\r\n"], errors.StreamAborted, "broke off: Invalid character", b"hello"),
    ],
)
async def test_an_answer_that_fails_does_so_by_name(upstream, script, kind, message, body):
    """The breaker, the retry, the four records and the client's words all depend on which it is."""
    async with node(script) as there:
        error, came = await failure(upstream, there.url)
        await soon(lambda: there.open == 0)
    assert (type(error), came) == (kind, body)
    assert message in error.message


async def test_a_reset_in_the_middle_is_an_answer_that_broke_off(upstream):
    """The bytes before it reach the client first, where the system still has them."""
    go = asyncio.Event()

    async def read(url):
        async with upstream.exchange(Call("GET", url), within(LONG_S)) as answer:
            assert await answer.read() == b"hello"
            go.set()
            with pytest.raises(errors.StreamAborted, match="its connection closed before the end"):
                await answer.read()

    async with node([chunked(b"hello", end=False), go, RESET]) as there:
        await read(there.url)


async def test_a_node_that_says_it_will_say_nothing_is_not_waited_for(upstream):
    """Not even until it has taken the rest of the request, which it may never do."""
    async with node([HALF_CLOSE, DEAF]) as there:
        error, _ = await failure(upstream, there.url, body=b"x" * 20_000_000)
    assert isinstance(error, errors.ConnectionLost)


async def test_a_node_that_worked_and_is_gone_was_not_merely_unreachable(upstream):
    """Whoever reads "connect" looks at cables, and for 1.5 s the node had been at work on the request."""

    async def serve(reader, writer):
        await read_request(reader)
        writer.write(OK)
        await read_request(reader)
        server.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await fetch(upstream, url)
    assert await upstream.lives(url, LONG_S)
    error, _ = await failure(upstream, url)
    assert isinstance(error, errors.ConnectionLost)
    assert not await upstream.lives(url, LONG_S)


async def test_silence_is_named_by_what_came_before_it(upstream):
    """One says that a node is slow to begin, the other that it stopped in the middle."""
    async with node([b"", SILENCE], [chunked(b"hello", end=False), SILENCE]) as there:
        error, _ = await failure(upstream, there.url, due_s=SHORT_S)
        assert isinstance(error, errors.FirstByteTimeout)
        error, body = await failure(upstream, there.url, due_s=SHORT_S)
        assert (type(error), body) == (errors.FirstByteTimeout, b"hello")
        error, body = await failure(upstream, there.url, content_seen=True, due_s=SHORT_S)
        assert (type(error), body) == (errors.StallTimeout, b"hello")
        await soon(lambda: there.open == 0)


async def test_a_reader_may_give_a_node_more_time(upstream):
    """A stream as a whole lasts longer than any silence in it may."""
    go, loop = asyncio.Event(), asyncio.get_running_loop()

    async def patient(url):
        async with upstream.exchange(Call("GET", url), within(SHORT_S)) as answer:
            assert await answer.read() == b"hello"
            loop.call_at(answer.due_at + SHORT_S, go.set)
            answer.due_at = math.inf
            return await answer.read()

    async with node([chunked(b"hello", end=False), go, (b"0\r\n\r\n",)]) as there:
        assert await patient(there.url) == b""


async def test_a_port_on_which_nobody_listens_is_the_nodes_fault(upstream):
    """What the breaker is for."""
    error, _ = await failure(upstream, f"http://127.0.0.1:{free_port()}")
    assert isinstance(error, errors.ConnectFailed)
    assert error.error_type in FAULTS_OF_THE_NODE
    assert "the node could not be reached: [Errno 111]" in error.message


@pytest.mark.parametrize("url", ["http://a..b/", "http://127.0.0.1:99999/", "http://[::1/", "no-such-host.invalid"])
async def test_an_address_that_is_none_cannot_be_reached(upstream, url):
    """Nodes say themselves where they are."""
    error, _ = await failure(upstream, url)
    assert isinstance(error, errors.ConnectFailed)


async def test_a_node_that_does_not_take_the_connection_in_time_is_told_apart(upstream):
    """Another node can answer long before the wait for a first byte is over."""
    async with mute() as there:
        upstream.set_connect_timeout(SHORT_S)
        error, _ = await failure(upstream, there.url)
        assert (type(error), there.accepted) == (errors.ConnectTimeout, 1)
        upstream.set_connect_timeout(LONG_S)
        error, _ = await failure(upstream, there.url, due_s=SHORT_S)
        assert isinstance(error, errors.FirstByteTimeout)
        await soon(lambda: there.open == 0)


@contextmanager
def no_further_file():
    """This process can open no file for a moment, by its real limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_router_out_of_files_does_not_blame_the_node(upstream):
    """Breakers would close the whole fleet for what is wrong with the router's own limit."""
    port = free_port()
    with no_further_file():
        error, _ = await failure(upstream, f"http://127.0.0.1:{port}")
    assert (type(error), error.status, error.retryable) == (errors.OutOfFiles, 503, False)
    assert error.error_type not in FAULTS_OF_THE_NODE
    assert "ulimit -n" in error.message


# Encryption


async def test_a_node_behind_https_is_asked_like_any_other(upstream):
    """The certificate is one that this router trusts."""
    async with node([OK, chunked(b"hello")], tls=server_tls()) as there:
        for _ in range(2):
            assert (await fetch(upstream, there.url, "POST", b"x" * 100_000))[1] == b"hello"
        assert there.accepted == 1


async def test_a_certificate_that_nobody_vouches_for_is_refused():
    """Who can stand in for a node reads every prompt."""
    strangers = Upstream(LONG_S)
    async with node([OK], tls=server_tls()) as there:
        error, _ = await failure(strangers, there.url)
    assert isinstance(error, errors.ConnectFailed)
    assert "certificate verify failed" in error.message
    assert there.requests == []
    await strangers.close()


async def test_a_certificate_for_another_name_is_refused(upstream):
    """A trusted certificate is still only its own host's."""
    async with node([OK], tls=server_tls()) as there:
        error, _ = await failure(upstream, there.url.replace("127.0.0.1", "127.0.0.2"))
        assert isinstance(error, errors.ConnectFailed)
    assert there.requests == []


# Bodies that are read as they are sent


async def test_a_node_may_answer_before_it_has_the_whole_body(upstream):
    """A model that it has already, a digest that is wrong: it need not wait for gigabytes to say so."""
    ended = []

    async def body():
        try:
            yield b"x"
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with node([(OK,), SILENCE]) as there:
        answer, heard = await fetch(upstream, there.url, "POST", body())
        assert (answer.status, heard, ended) == (200, b"hello", [True])
        await soon(lambda: there.open == 0)
        assert upstream.connections == 0


async def test_a_node_that_reads_nothing_does_not_make_the_router_read(upstream):
    """An upload of gigabytes would end up in the router's memory."""
    given, whole = 0, 4000

    async def body():
        nonlocal given
        for given in range(1, whole + 1):  # noqa: B007  what was given last is looked at below
            yield b"x" * 65536
            await asyncio.sleep(0)

    async with node([DEAF]) as there:
        error, _ = await failure(upstream, there.url, due_s=0.5, body=body())
    assert isinstance(error, errors.FirstByteTimeout)
    assert 0 < given < whole


async def test_what_a_body_raises_is_what_the_exchange_raises(upstream):
    """A client that left, or whose body is too large, is no fault of the node's."""

    async def body():
        yield b"x"
        raise errors.BodyTooLarge("too large")

    async with node([SILENCE], [(chunked(b"hello", end=False),), SILENCE]) as there:
        with pytest.raises(errors.BodyTooLarge):
            await fetch(upstream, there.url, "POST", body())
        await soon(lambda: there.accepted == 1 and there.open == 0)


async def test_a_node_never_sees_the_end_of_a_body_that_broke_off(upstream):
    """It would take the half of a file for the whole of it."""
    go = asyncio.Event()

    async def body():
        yield b"x"
        await go.wait()
        raise errors.BadRequest("stopped")

    async with node([(b"HTTP/1.1 200 OK\r\n\r\nhello",), OK]) as there:
        async with upstream.exchange(Call("POST", there.url, body=body()), within(LONG_S)) as answer:
            assert await answer.read() == b"hello"
            go.set()
            with pytest.raises(errors.BadRequest):
                await answer.read()
        await soon(lambda: there.open == 0)
        assert there.requests == []


# Cancellation


async def cancelled_after(steps, upstream, call):
    """Cancel an exchange after so many turns of the loop; whether it was still under way."""

    async def run():
        async with upstream.exchange(call, within(LONG_S)) as answer:
            while await answer.read():
                continue

    task = asyncio.create_task(run())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done = await asyncio.gather(task, return_exceptions=True)
    return isinstance(done[0], asyncio.CancelledError)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("body", [b"x", "chunks"])
async def test_a_cancelled_exchange_leaves_nothing_behind_wherever_it_was(upstream, tls, body):
    """A client may leave at any moment; the node must see that, or it works on for nobody."""
    async with node([chunked(b"hello"), SILENCE], tls=server_tls() if tls else None) as there:
        for steps in range(60):
            call = Call("POST", there.url, body=pieces_of(b"a", b"b") if body == "chunks" else body)
            before = asyncio.all_tasks()
            if await cancelled_after(steps, upstream, call):
                assert upstream.connections <= 1
                await soon(lambda: upstream.connections == 0, f"closed after {steps} steps")
                await soon(lambda: there.open == 0, f"the node sees the end after {steps} steps")
                await soon(lambda tasks=before: asyncio.all_tasks() <= tasks, f"no task is left after {steps} steps")


@pytest.mark.parametrize("script", [[b"", SILENCE], [chunked(b"hello", end=False), SILENCE]])
async def test_a_cancelled_wait_closes_the_connection_at_once(upstream, script):
    """In the wait for the headers as in the middle of the body."""
    async with node(script) as there:
        task = asyncio.create_task(fetch(upstream, there.url))
        await soon(lambda: there.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await soon(lambda: there.open == 0)


async def test_a_cancelled_connect_closes_its_socket(upstream):
    """A node that takes no connection is where clients lose their patience."""
    async with mute() as there:
        task = asyncio.create_task(fetch(upstream, there.url))
        await soon(lambda: there.open == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await soon(lambda: there.open == 0)


async def test_a_cancelled_upload_ends_its_body_and_its_connection(upstream):
    """The body is a client's connection: whoever asks for the next part of it must be gone, too."""
    begun, ended = asyncio.Event(), []

    async def body():
        try:
            yield b"x"
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with node([SILENCE]) as there:
        task = asyncio.create_task(fetch(upstream, there.url, "POST", body()))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]
        await soon(lambda: there.open == 0)


# Statuses


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (404, "model 'x' not found, try pulling it first", errors.NodeLacksModel),
        (404, "404 page not found", errors.Upstream4xx),
        (400, "the request exceeds the available context size", errors.Upstream4xx),
        (429, "slow down", errors.UpstreamBusy),
        (503, "Loading model", errors.UpstreamBusy),
        (501, "This server does not support embeddings", errors.NodeCannot),
        (500, "image input is not supported - hint: provide the mmproj", errors.NodeCannot),
        (500, "[json.exception.parse_error.101] parse error", errors.Upstream4xx),
        (500, "llama runner process has terminated", errors.Upstream5xx),
        (502, "' is required", errors.Upstream5xx),
    ],
)
def test_a_status_of_an_engines_is_taken_for_what_it_means(status, message, kind):
    """Engines call a client's mistake a failure of their own, and would lose the node to all other clients."""
    error = status_error(status, message)
    assert (type(error), error.http_status, error.message) == (kind, status, message)
