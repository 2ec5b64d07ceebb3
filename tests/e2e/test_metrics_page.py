"""`/metrics` as scrapers, probes and proxies ask for it: with a body, without one, small."""

import gzip

import httpx
import pytest

from herd.telemetry.metrics import OPENMETRICS
from tests.e2e.conftest import started


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A router that no node has joined."""
    running = started(tmp_path_factory.mktemp("alone"))
    yield running
    running.nodes.stop()
    running.router.stop()


def asked(fleet, method="GET", **headers):
    """The answer as it came over the wire, its headers and its bytes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with httpx.Client() as client, client.stream(method, f"{fleet.url}/metrics", headers=named) as answer:
        return answer, b"".join(answer.iter_raw())


def test_who_asks_for_the_head_alone_gets_no_body_and_no_error(alone):
    """Probes and link checkers ask so; 405 would be reported as a router that is down."""
    answer, body = asked(alone, "HEAD")
    assert (answer.status_code, body) == (200, b"")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
def test_the_exposition_is_compressed_for_who_can_read_it(alone, accept):
    """Prometheus asks for gzip; over a home's wireless a fleet's exposition is a fifteenth of its size."""
    answer, packed = asked(alone, accept=accept, accept_encoding="gzip")
    _, plain = asked(alone, accept=accept, accept_encoding="identity")
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(packed) < len(plain) / 4
    assert "Accept-Encoding" in answer.headers["vary"]
    names = {line.split()[2] for line in plain.splitlines() if line.startswith(b"# TYPE")}
    assert {line.split()[2] for line in gzip.decompress(packed).splitlines() if line.startswith(b"# TYPE")} == names


@pytest.mark.parametrize("encodings", ["", "identity", "br", "gzip;q=0", "deflate, gzip;q=nonsense"])
def test_nobody_is_sent_gzip_who_did_not_ask_for_it(alone, encodings):
    """`curl | grep` is in every runbook."""
    answer, body = asked(alone, accept_encoding=encodings)
    assert "content-encoding" not in answer.headers
    assert b"herd_build_info" in body
