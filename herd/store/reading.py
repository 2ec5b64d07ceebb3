"""A process that reads the database for another one, so that the other one's threads never hold its interpreter for it.

`python -m herd.store.reading PATH LIFE CALLS …`: each of CALLS is a socket on which one question after the other is
asked, by a thread of its own here. It ends when LIFE is closed at the other end, whatever it is in the middle of.
"""

import os
import pickle
import signal
import socket
import sys
import threading
from pathlib import Path
from struct import Struct
from typing import Any, Final

from herd.store.connections import Connections

LENGTH: Final = Struct("<Q")
LET_GO: Final = b"l"
# What a defect in a query can raise; the asker gets it, as if the query had run there.
ANY_ERROR: Final = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def send(peer: socket.socket, value: Any) -> None:
    """Send a value. OSError if the other end is closed."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    peer.sendall(LENGTH.pack(len(data)) + data)


def receive(peer: socket.socket) -> Any:
    """The next value. EOFError at the end, OSError if the other end is closed."""
    return pickle.loads(_exactly(peer, LENGTH.unpack(_exactly(peer, LENGTH.size))[0]))


def _exactly(peer: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        read = peer.recv_into(view)
        if not read:
            raise EOFError
        view = view[read:]
    return data


def answer(connections: Connections, peer: socket.socket) -> None:
    """Answer one query after another until the pipe is closed."""
    while True:
        try:
            empty, query, args, kwargs = receive(peer)
        except (EOFError, OSError):
            return
        found: Any = None
        error: Exception | None = None
        try:
            found = connections.read(empty, query, *args, **kwargs)
        except ANY_ERROR as raised:
            error = raised
        try:
            send(peer, (found, error))
        except OSError:
            return


def main(arguments: list[str]) -> None:
    """Answer until the other process has gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    path, life, *calls = arguments
    connections = Connections(Path(path))
    for each in calls:
        peer = socket.socket(fileno=int(each))
        threading.Thread(target=answer, args=(connections, peer), daemon=True).start()
    with socket.socket(fileno=int(life)) as alive:
        while alive.recv(1) == LET_GO:
            connections.let_go()
            alive.sendall(LET_GO)
    os._exit(0)  # a long query would hold up an orderly end, and there is nothing to put in order


if __name__ == "__main__":
    main(sys.argv[1:])
