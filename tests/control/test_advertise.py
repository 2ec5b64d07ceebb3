"""What other machines are told of this one's addresses, and what is believed of what they say of theirs."""

import httpx

from herd.fleet.advertise import interface_addresses, reachable
from tests.harness import Router, free_port

ASK = {"model": "m:1", "prompt": "hi"}
FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


def test_only_addresses_that_another_machine_may_reach_are_announced():
    """Debian resolves a machine's own name to 127.0.1.1: every agent on the network was sent to itself."""
    found = [
        "127.0.0.1",
        "127.0.1.1",
        "192.168.1.5",
        "169.254.3.4",
        "10.0.0.7",
        "192.168.1.5",
        "::1",
        "fe80::1",
        "fd00::5",
    ]
    assert reachable(found, with_v6=False) == ["192.168.1.5", "10.0.0.7"]
    assert reachable(found, with_v6=True) == ["192.168.1.5", "10.0.0.7", "fd00::5"]
    assert "127.0.0.1" in interface_addresses()  # they are those of this machine


def test_nobody_is_believed_who_says_that_a_request_came_from_elsewhere(router):
    """Any program on this machine could put another's address into every record."""
    answer = httpx.post(router.url + "/api/generate", json=ASK, headers=FORWARDED)
    assert router.row(answer.headers["x-request-id"])["client_ip"] == "127.0.0.1"


def test_a_proxy_that_the_operator_trusts_is_believed(tmp_path):
    """Else all clients of a proxy would be one."""
    behind = Router(tmp_path / "home", free_port(), HERD_TRUSTED_PROXIES="127.0.0.1, 10.0.0.0/8")
    behind.start()
    answer = httpx.post(behind.url + "/api/generate", json=ASK, headers=FORWARDED)
    row = behind.row(answer.headers["x-request-id"])
    behind.stop()
    assert row["client_ip"] == "203.0.113.9"
