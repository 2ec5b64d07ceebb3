"""The proxy breaks connections as it says, and passes everything else unchanged: the other tests here lean on it."""

import socket
import threading

import pytest

from tests.harness import until
from tests.resilience.proxy import Proxy, Rule

ANSWER = bytes(range(256)) * 40
WHOLE = len(ANSWER)


@pytest.fixture(scope="module")
def answering():
    """A server that answers each `ask…` line with the same bytes, and says what it was told otherwise."""
    heard = []

    def serve(connection):
        with connection, connection.makefile("rb") as lines:
            for line in lines:
                heard.append(line)
                if line.startswith(b"ask"):
                    connection.sendall(ANSWER)

    def take():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=take, daemon=True).start()
        yield listener.getsockname()[1], heard
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def through(answering):
    """A proxy before that server, and connections through it."""
    proxy, opened = Proxy(target=answering[0]).start(), []

    def connect(rule):
        proxy.set(rule)
        opened.append(socket.create_connection(("127.0.0.1", proxy.port), 10))
        opened[-1].sendall(b"ask\n")
        return opened[-1]

    connect.proxy, connect.heard = proxy, answering[1]
    yield connect
    for connection in opened:
        connection.close()
    proxy.stop()


def read(connection, count=WHOLE):
    data = b""
    while len(data) < count and (more := connection.recv(count - len(data))):
        data += more
    return data


def test_by_itself_it_changes_nothing(through):
    """A proxy that alters bytes would prove nothing about what stands behind it."""
    client = through(Rule())
    assert read(client) == ANSWER
    client.sendall(b"ask again\n")
    assert read(client) == ANSWER


@pytest.mark.parametrize("at", [0, 1, 1000])
def test_it_cuts_behind_the_byte_that_it_is_told(through, at):
    """Byte n is what the fault matrix speaks of."""
    assert read(through(Rule("cut", at))) == ANSWER[:at]


def test_the_count_begins_anew_with_each_answer(through):
    """A pooled connection carries many."""
    client = through(Rule("cut", WHOLE))
    assert read(client) == ANSWER
    through.proxy.set(Rule("cut", 500))
    client.sendall(b"ask again\n")
    assert read(client) == ANSWER[:500]


def test_a_reset_is_a_reset_and_no_orderly_end(through):
    """The two are different errors to whoever reads."""
    client = through(Rule("reset", 100, hold=b"ask"))
    assert read(client, 100) == ANSWER[:100]
    through.proxy.proceed(b"ask")
    with pytest.raises(ConnectionResetError):
        read(client)


def test_a_half_closed_connection_still_listens(through):
    """That is what makes it different from one that is cut."""
    client = through(Rule("half_close", 100))
    assert read(client) == ANSWER[:100]
    client.sendall(b"still there\n")
    until(lambda: b"still there\n" in through.heard, "the server hears what is said afterwards")


def test_a_partition_passes_nothing_and_closes_nothing_until_it_is_over(through):
    """A pulled cable says nothing, and everything is there once it is back."""
    client = through(Rule("partition", 100))
    assert read(client, 100) == ANSWER[:100]
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(10)
    through.proxy.set(Rule())
    assert read(client, WHOLE - 100) == ANSWER[100:]


def test_what_is_held_goes_on_when_its_own_request_is_named(through):
    """A test can then break an answer behind bytes that surely arrived."""
    client = through(Rule("flow", 100, hold=b"ask"))
    assert read(client, 100) == ANSWER[:100]
    through.proxy.proceed(b"another")
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(1)
    client.settimeout(10)
    through.proxy.proceed(b"ask")
    assert read(client, WHOLE - 100) == ANSWER[100:]


def test_a_refusing_proxy_takes_no_connection_and_takes_them_again_on_the_same_port(through):
    """A node that crashes and comes back."""
    read(through(Rule()))
    through.proxy.refuse()
    assert through.proxy.links() == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", through.proxy.port), 10)
    through.proxy.accept()
    assert read(through(Rule())) == ANSWER
