"""Which Host names are answered, and which pages may ask or change what."""

import pytest

from herd.security.names import Names, is_host

NAMES = Names(["studio"], ["herd.example.com", " Herd.LAN "], ["https://chat.example.org", "https://*.example.net", ""])
OLLAMAS = (
    "http://localhost", "https://localhost:3000", "http://127.0.0.1:8080", "http://0.0.0.0:3000", "app://obsidian.md",
    "file://", "file://index.html", "tauri://localhost", "vscode-webview://1ab2c3", "vscode-file://vscode-app",
    "chrome-extension://abcdef", "moz-extension://f00", "safari-web-extension://f00",
)  # fmt: skip
FOREIGN = ("https://evil.example", "null", "http://tauri.localhost", "http://192.168.1.9:3000", "http://localhost.evil.example",
           "https://example.net.evil", "evil", "http://[", "")  # fmt: skip


@pytest.mark.parametrize(
    "host",
    [
        "localhost:11435", "LOCALHOST", "localhost.:11435", "127.0.0.1", "[::1]:11435", "192.168.1.5:11435", "0.0.0.0",
        "host.docker.internal:11435", "gateway.docker.internal", "host.containers.internal", "x.localhost:1",
        "herd.local", "studio", "STUDIO:11435", "studio.local", "herd.example.com", "herd.lan:80", "",
    ],
)  # fmt: skip
def test_the_names_that_ollama_answers_to_are_answered(host):
    """Containers call their host `host.docker.internal`; what worked with Ollama works here."""
    assert is_host(host)
    assert NAMES.may_be_called(host)


@pytest.mark.parametrize("host", ["evil.example", "local", "internal:80", "evil.local.example", "studio.lan", "?"])
def test_a_name_that_public_dns_could_point_here_is_not_answered(host):
    """A page whose name points at this machine would have the fleet."""
    assert not NAMES.may_be_called(host)


@pytest.mark.parametrize(
    "host", ["local host", "localhost@evil", "localhost:x", "localhost/", "[::1", "a:1:2", "é.local"]
)
def test_what_is_no_host_is_none(host):
    """Two readers of it could find two hosts."""
    assert not is_host(host)


@pytest.mark.parametrize(
    "origin", [*OLLAMAS, "https://chat.example.org", "https://a.b.example.net", "http://herd.lan:3000"]
)
def test_pages_that_ollama_serves_and_those_that_the_operator_adds_may_ask(origin):
    """Obsidian, editors and extensions send such origins; people use them with Ollama without any setting."""
    assert NAMES.may_ask(origin, "localhost:11435")
    assert NAMES.may_ask(origin.upper(), "localhost:11435")


@pytest.mark.parametrize("origin", FOREIGN)
def test_other_pages_may_not_ask(origin):
    """Whoever is visited with a browser would have the fleet for the length of the visit."""
    assert not NAMES.may_ask(origin, "localhost:11435")


@pytest.mark.parametrize("origin", [*OLLAMAS[1:], *FOREIGN, "https://chat.example.org"])
def test_no_page_but_the_routers_own_may_change_anything(origin):
    """An extension that may chat is no operator, and neither is the page on another port of this machine."""
    assert not NAMES.may_change(origin, "localhost:11435")


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "host.docker.internal:11435"),
        ("http://localhost:11435", "localhost:11435"),
        ("http://192.168.1.5:11435", "192.168.1.5:11435"),
        ("http://studio.local:11435", "studio.local:11435"),
        ("https://herd.example.com", "127.0.0.1:11435"),
        ("https://herd.lan", "herd.lan"),
    ],
)
def test_the_routers_own_page_and_what_is_no_page_may_change(origin, host):
    """Behind a proxy the page's name is another than the one that the proxy calls."""
    assert NAMES.may_change(origin, host)


@pytest.mark.parametrize("name", ["evil.local:11435", "evil.internal", "x.localhost:11435"])
def test_a_page_whose_near_name_was_pointed_here_may_not_change(name):
    """Anyone on the same network can answer to a name in `.local`."""
    assert not NAMES.may_change(f"http://{name}", name)


def test_a_browser_that_says_the_fetch_is_from_elsewhere_is_believed():
    """It says so where it says no origin, too."""
    assert not NAMES.may_change(None, "localhost", "cross-site")
    assert not NAMES.may_change("http://localhost", "localhost", "same-site")
    assert NAMES.may_change("http://localhost", "localhost", "same-origin")


def test_a_star_opens_what_its_setting_is_about_and_no_more():
    """`allowed_origins = *` is for chat pages everywhere, not for their operators."""
    anywhere = Names(["studio"], [], ["*"])
    assert anywhere.may_ask("https://evil.example", "localhost")
    assert not anywhere.may_change("https://evil.example", "localhost")
    assert Names([], ["*"]).may_be_called("anything.example")
