"""A server of the router's own connections in front of an application that says what it was sent."""

import asyncio
import json
import re
import socket
import threading
from contextlib import contextmanager

import pytest
import uvicorn

from herd.security.connection import Limits, connection_type
from tests.harness import until


async def echo(scope, receive, send):
    """Answer with method, path, headers and body; `/wait` answers once `/go` was asked, `/early` before the body."""
    assert scope["type"] == "http"
    body = b""
    while scope["path"] != "/early":
        message = await receive()
        body += message.get("body", b"")
        if message["type"] == "http.disconnect" or not message["more_body"]:
            break
    if scope["path"] == "/wait":
        await echo.gate.wait()
    elif scope["path"] == "/go":
        echo.gate.set()
    headers = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    query = scope["query_string"].decode()
    told = {"method": scope["method"], "path": scope["path"], "query": query, "headers": headers, "body": body.decode()}
    content = json.dumps(told).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]})
    await send({"type": "http.response.body", "body": content})


class Talk:
    """One raw connection: what is sent, and all that comes back."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def send(self, data):
        """Send bytes; a server that has closed takes no more."""
        try:
            self.socket.sendall(data)
        except OSError:
            return False
        return True

    def begun(self):
        """Wait until the server reads the body of a request that expects to be told to go on."""
        assert self.socket.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"

    def rest(self):
        """Everything until the server closes."""
        found = b""
        try:
            while part := self.socket.recv(65536):
                found += part
        except ConnectionResetError:
            pass
        return found

    def answer(self):
        """One answer with a length: status and the document in it."""
        found = b""
        while b"\r\n\r\n" not in found:
            part = self.socket.recv(65536)
            assert part, f"closed after {found!r}"
            found += part
        head, _, body = found.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        while len(body) < length:
            body += self.socket.recv(65536)
        assert len(body) == length, "there is more than one answer"
        return int(head.split()[1]), json.loads(body)


@contextmanager
def serving(**limits):
    """A way to open connections to such a server, within these limits; they are closed at its end."""
    listener = socket.create_server(("127.0.0.1", 0))
    kind = connection_type(Limits(**limits))
    server = uvicorn.Server(
        uvicorn.Config(echo, loop="uvloop", http=kind, ws="none", lifespan="off", log_config=None, access_log=False)
    )

    async def run():
        echo.gate = asyncio.Event()
        await server.serve(sockets=[listener])

    thread = threading.Thread(target=asyncio.run, args=(run(),), daemon=True)
    thread.start()
    until(lambda: server.started, "the server is up")
    opened = []

    def talk():
        opened.append(Talk(listener.getsockname()[1]))
        return opened[-1]

    try:
        yield talk
    finally:
        for each in opened:
            each.socket.close()
        server.should_exit = True
        thread.join(20)
        listener.close()


@pytest.fixture(scope="module")
def talk():
    """Opens a connection to a server with the limits that the router has."""
    with serving() as found:
        yield found


def statuses(data):
    """The status of each answer in what came back."""
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})", data)]
