"""`herd status`: the fleet at a glance, and what it says when there is none."""

import json
import socketserver
import threading

import pytest

from tests.harness import free_port


def test_status_shows_each_node_with_what_it_has(served):
    """It is the first thing an operator types when something is slow."""
    told = served.herd("status")
    assert told.returncode == 0
    assert told.stdout.startswith("2/2 nodes online")
    rows = {line.split()[0]: line for line in told.stdout.splitlines()[3:] if line}
    assert "llama3.2:3b" in rows["big"]
    assert "online" in rows["small"]
    assert "normal" in rows["small"]


def test_status_in_json_is_the_routers_own_document(served):
    """A script must not have to parse a table."""
    told = json.loads(served.herd("status", "--json").stdout)
    assert told.keys() == served.router.get("/fleet/status").keys()
    assert [node["node_id"] for node in told["nodes"]] == ["big", "small"]


def test_status_without_a_node_says_what_to_do_next(router, inside):
    """An empty table would leave a newcomer alone."""
    told = inside("status", "--url", router.url)
    assert told.returncode == 0
    assert f"herd-node --router-url {router.url}" in told.stdout


def test_no_router_is_one_sentence_with_what_to_do(herd):
    """A traceback says nothing to someone who forgot to start it."""
    told = herd("status")
    assert told.returncode == 1
    assert told.stdout == ""
    assert told.stderr.count("\n") == 1
    assert "start one with `herd`" in told.stderr


@pytest.mark.parametrize(
    ("url", "status"),
    [("http://", 1), ("ftp://box", 64), ("http://[::1", 64), ("box:port", 64), ("http://127.0.0.1:99999", 1)],
)
def test_an_address_that_is_none_is_one_sentence(inside, url, status):
    """What was typed wrong should be named, not thrown."""
    told = inside("status", "--url", url)
    assert told.returncode == status
    assert told.stderr.count("\n") == 1
    assert "--url" in told.stderr


class Stranger(socketserver.StreamRequestHandler):
    """Answers anything as some other server would."""

    def handle(self):
        self.request.recv(4096)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\nConnection: close\r\n\r\n" + b'{"hello":"you"}')


def test_another_server_is_not_taken_for_a_router(inside):
    """Port 11434 instead of 11435 is the likeliest mistake."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", free_port()), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        told = inside("status", "--url", f"127.0.0.1:{stranger.server_address[1]}")
        stranger.shutdown()
    assert told.returncode == 1
    assert "not a Herd router" in told.stderr


def test_the_router_may_be_named_by_the_environment(served, herd):
    """Whoever operates a remote fleet sets it once."""
    assert herd("status", HERD_URL=served.url).stdout.startswith("2/2 nodes online")
