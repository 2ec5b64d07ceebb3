"""Starting and ending a router: what it says, what it needs, and what it does not do to others."""

import signal
import socket

import pytest

from herd.commands.start import open_door
from herd.settings.load import load
from tests.harness import Router, free_port


def test_sigterm_and_sigint_end_the_router_in_order(router):
    """A supervisor takes any other exit code for a crash, and starts it again."""
    assert router.stop(signal.SIGTERM) == 0
    router.start()
    assert router.stop(signal.SIGINT) == 0
    assert "Traceback" not in router.stderr()


def test_a_killed_router_leaves_nothing_that_stops_the_next(router):
    """After a crash the next start must not need a human."""
    router.stop(signal.SIGKILL)
    router.start()
    assert router.get("/readyz") == {"status": "ready"}


def test_the_start_says_where_everything_is(served):
    """Whoever started it needs the address, the data and the next step, not a log."""
    told = served.router.stderr()
    for word in (served.url, str(served.router.data_dir), "herd-node", f"{served.url}/metrics"):
        assert word in told


def test_no_page_is_announced_that_the_router_does_not_serve(served):
    """An address that answers 404 is worse than none."""
    announced = f"{served.url}/dashboard\n" in served.router.stderr()
    assert announced == ("/dashboard" in served.router.get("/openapi.json")["paths"])


def test_the_data_directory_is_private(served):
    """Rows and logs tell who asked what, and when."""
    assert served.router.data_dir.stat().st_mode & 0o777 == 0o700


def test_two_routers_do_not_write_to_one_data_directory(served):
    """Two writers of one database and one log would make the records disagree."""
    refused = served.herd("--port", str(free_port()))
    assert refused.returncode == 1
    assert f"the router at {served.url}" in refused.stderr
    assert served.router.get("/readyz") == {"status": "ready"}


def test_a_port_in_use_is_one_sentence_with_a_way_out(herd):
    """The most common failure of all must not be a traceback."""
    with socket.create_server(("127.0.0.1", herd.port)):
        refused = herd()
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert f"port {herd.port}" in refused.stderr
    assert "--port" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code"), [(("--host", "192.0.2.1"), 1), (("--host", "300.1.1.1.1"), 1), (("--port", "70000"), 64)]
)
def test_where_it_cannot_listen_is_one_sentence_too(inside, tmp_path, arguments, code):
    """A typing error must be named."""
    refused = inside(*arguments, "--data-dir", str(tmp_path))
    assert refused.returncode == code
    assert refused.stderr.count("\n") == 1
    assert arguments[1] in refused.stderr


def test_a_data_directory_that_cannot_be_made_is_one_sentence(inside, tmp_path):
    """A router without its records would be half a router."""
    (tmp_path / "file").write_text("in the way")
    refused = inside("--port", str(free_port()), "--data-dir", str(tmp_path / "file" / "data"))
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "--data-dir" in refused.stderr


def settings(**given):
    """Settings as the command line gives them."""
    return load(given, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "box.example"])
def test_an_address_that_others_reach_is_told_of_with_what_they_need(host):
    """Whoever opens the port to a network learns that keys are asked for, and travel in clear."""
    assert "herd key create" in (open_door(settings(host=host)) or "")
    assert "anonymous" in (open_door(settings(host=host, anonymous="inference")) or "")
    assert "nobody is refused" in (open_door(settings(host=host, auth="observe")) or "")
    assert "anyone who reaches this port" in (open_door(settings(host=host, auth="off")) or "")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_loopback_is_not_warned_about_unless_nobody_is_asked(host):
    """A warning at every start is read at none."""
    assert open_door(settings(host=host)) is None
    assert "auth is off" in (open_door(settings(host=host, auth="off")) or "")


def test_a_router_whose_environment_names_another_router_starts(tmp_path):
    """HERD_URL is for commands; who operates a second router has it set while starting a first."""
    router = Router(tmp_path / "home", free_port(), HERD_URL="http://box:11435")
    router.start()
    assert router.stop() == 0
