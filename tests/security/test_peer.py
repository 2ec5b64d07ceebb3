"""Whose a connection on this machine is, asked of the real system."""

import os
import socket
import subprocess
import sys

import pytest

from herd.security import peer

CONNECTS = """
import os, socket, sys
os.setuid(int(sys.argv[2])) if int(sys.argv[2]) else None
with socket.socket() as talk:
    talk.connect(("127.0.0.1", int(sys.argv[1])))
    talk.recv(1)
"""


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
@pytest.mark.parametrize("how", ["_from_tables", "_from_processes"])
def test_a_connection_of_this_user_is_known_as_such(family, host, how):
    """A change from the page or from curl needs no credential on one's own machine."""
    if how == "_from_tables" and sys.platform != "linux":
        pytest.skip("the tables are Linux's")
    with socket.create_server((host, 0), family=family) as listener, socket.socket(family) as client:
        client.connect(listener.getsockname())
        ends = client.getsockname()[:2], client.getpeername()[:2]
        assert os.geteuid() in set(getattr(peer, how)(*ends))
        assert peer.is_same_user(*ends)
        assert not peer.is_same_user((ends[0][0], 1), ends[1])


def test_a_client_that_speaks_ipv4_through_an_ipv6_socket_is_found():
    """Go's and Java's clients do."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_INET6) as client:
        client.connect(("::ffff:127.0.0.1", listener.getsockname()[1]))
        assert peer.is_same_user(("127.0.0.1", client.getsockname()[1]), listener.getsockname())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_connection_of_another_user_is_not_taken_for_ours():
    """nginx runs as www-data, and hands on what the world asks."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        for user, own in ((0, True), (65534, False)):
            command = [sys.executable, "-S", "-c", CONNECTS, str(listener.getsockname()[1]), str(user)]
            with subprocess.Popen(command) as other:
                talk, address = listener.accept()
                with talk:
                    assert peer.is_same_user(address, listener.getsockname()) is own
                    talk.sendall(b"x")
                assert other.wait(20) == 0
