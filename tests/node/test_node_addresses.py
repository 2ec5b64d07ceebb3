"""Addresses in every form that people and OLLAMA_HOST give them, and names made fit for the wire."""

import re

import pytest

from herd import wire
from node.addresses import bind_address, host_of, is_loopback, is_this_machine, port_of, server_url, with_host
from node.cli import settings_from
from node.settings import sanitised_node_id


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8000", "http://127.0.0.1:8000"),
        (":8000", "http://127.0.0.1:8000"),
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("box", "http://box:11434"),
        ("box:1234", "http://box:1234"),
        (" 'box:1234' ", "http://box:1234"),
        ("http://box", "http://box:80"),
        ("https://box", "https://box:443"),
        ("HTTP://box:1234/", "http://box:1234"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:1234", "http://[::1]:1234"),
        ("::", "http://[::1]:11434"),
        ("http://[fd00::2]:1234", "http://[fd00::2]:1234"),
    ],
)
def test_every_form_of_ollama_host_leads_to_the_engine(text, url):
    """The variable that starts the server must be good enough for its agent, bind addresses included."""
    assert server_url(text, 11434) == url
    wire.Engine(kind="ollama", url=url, reachable=True, endpoints=[])


@pytest.mark.parametrize(
    "text",
    [
        "ftp://box",
        "box:port",
        "box:70000",
        "http://box/path",
        "http://box?x=1",
        "two words",
        "http://box#x",
        "b_x/../y",
    ],
)
def test_what_is_no_address_is_refused_with_a_reason(text):
    """Better a word at the start than a node that is never reached."""
    with pytest.raises(ValueError, match=re.escape(repr(text))):
        server_url(text, 11434)


def test_credentials_in_an_address_are_refused_and_not_repeated():
    """Addresses go into heartbeats and logs; a password must not."""
    with pytest.raises(ValueError, match="credentials") as refusal:
        server_url("http://me:secret@box", 11434)
    assert "secret" not in str(refusal.value)


def test_a_url_is_taken_apart_and_moved_to_another_host():
    """IPv6 hosts stand in brackets in URLs and without them elsewhere."""
    assert (host_of("http://[fd00::2]:1234"), port_of("http://[fd00::2]:1234")) == ("fd00::2", 1234)
    assert with_host("https://127.0.0.1:1234", "fd00::2") == "https://[fd00::2]:1234"
    assert with_host("http://[::1]:1234", "10.0.0.5") == "http://10.0.0.5:1234"


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("127.0.0.1:9000", ("127.0.0.1", 9000)),
        ("127.0.0.1", ("127.0.0.1", 11436)),
        ("0.0.0.0:9000", ("0.0.0.0", 9000)),
        (":9000", ("0.0.0.0", 9000)),
        ("[::1]:9000", ("::1", 9000)),
        ("::", ("::", 11436)),
        ("box.lan:9000", ("box.lan", 9000)),
    ],
)
def test_an_address_to_listen_on_is_taken_as_it_is_meant(text, bound):
    """What is bound to all addresses must not shrink to loopback, nor the other way round."""
    assert bind_address(text, 11436) == bound


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.9.1", "::1", "x.localhost"])
def test_loopback_is_known_by_name_and_number(host):
    """An address that means another machine to the router must not be told to it."""
    assert is_loopback(host)
    assert is_this_machine(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "box.invalid", "2001:db8::2", "localhost.example", ""])
def test_other_hosts_are_not_loopback(host):
    """And one that is reached by others must not be replaced."""
    assert not is_loopback(host)
    assert not is_this_machine(host)


@pytest.mark.parametrize(
    ("name", "node_id"),
    [
        ("studio", "studio"),
        ("Johns-Mac.local", "Johns-Mac.local"),
        ("a b/c", "a-b-c"),
        ("-_.x", "x"),
        ("Jörg's PC", "J-rg-s-PC"),
        ("机器", "node"),
        ("", "node"),
        ("x" * 80, "x" * 64),
        ("line\n", "line"),
    ],
)
def test_any_host_name_becomes_a_valid_node_id(name, node_id):
    """A machine must be able to join whatever its owner called it."""
    assert sanitised_node_id(name) == node_id
    assert re.fullmatch(wire.NODE_ID_PATTERN, node_id)


def test_options_come_before_the_environment(monkeypatch):
    """What is typed is what is meant."""
    monkeypatch.setenv("HERD_ROUTER_URL", "http://from-environment:1")
    monkeypatch.setenv("OLLAMA_HOST", "0.0.0.0:7")
    assert settings_from([]).router_url == "http://from-environment:1"
    assert settings_from([]).engine_url == "http://127.0.0.1:7"
    given = settings_from(["--router-url", "box", "--ollama-host", "other", "--node-id", "n"])
    assert (given.router_url, given.engine_url) == ("http://box:11435", "http://other:11434")


def test_each_engine_has_its_own_default_port(monkeypatch):
    """OLLAMA_HOST says nothing about a llama.cpp server."""
    monkeypatch.setenv("OLLAMA_HOST", "box:7")
    assert settings_from(["--engine", "llamacpp"]).engine_url == "http://127.0.0.1:8080"
    assert settings_from(["--engine", "llamacpp", "--engine-url", "box"]).engine_url == "http://box:8080"


@pytest.mark.parametrize(
    "wrong", [["--slots", "0"], ["--slots", "x"], ["--interval", "0"], ["--interval", "301"], ["--interval", "nan"],
              ["--metrics-bind", "http://a"], ["--metrics-bind", "a:b"],
              ["--engine", "vllm"], ["--engine-url", "http://a/b"], ["--router-url", "x y"], ["--rout", "http://a"]],
)  # fmt: skip
def test_wrong_options_end_with_usage(wrong, capsys):
    """A heartbeat that the contract refuses must not be sent for an hour before someone looks."""
    with pytest.raises(SystemExit) as end:
        settings_from(wrong)
    assert end.value.code == 64
    assert "error:" in capsys.readouterr().err
