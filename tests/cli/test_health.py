"""`herd health`: what it shows, what it says of findings, and the exit status that scripts go by."""

import json
import re
import subprocess
import sys

import pytest

from herd.sim import SimConfig
from tests.cli.conftest import LLAMA
from tests.harness import Nodes, Router, free_port, until


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A router with one node whose illness a test chooses."""
    router = Router(tmp_path_factory.mktemp("watched"), free_port(), HERD_HEALTH_RESOLVE_AFTER_S="0.1")
    router.start()
    nodes = Nodes()
    nodes.start(SimConfig("ada", models=(LLAMA,), router_url=router.url, interval_s=0.5))
    until(lambda: router.online() == 1, "the node is online")
    yield router, nodes.nodes["ada"]
    nodes.stop()
    router.stop()


def sick(watched, inside, wanted, **sensors):
    """The command once it ends with the wanted status, with these sensors of the node."""
    router, node = watched
    node.hardware.set(**{"agent_version": None, "memory_available_gb": None, **sensors})
    return until(lambda: _ending(inside("health", "--url", router.url), wanted), f"the exit status is {wanted}")


def _ending(told, wanted):
    return told if told.returncode == wanted else None


def test_a_healthy_fleet_is_two_lines_and_status_0(watched, inside):
    """All is well is said at a glance, and what was looked at by name."""
    told = sick(watched, inside, 0)
    verdict, nothing, names = told.stdout.splitlines()
    assert verdict.startswith("health 100 of 100; 25 of 25 checks pass")
    checks = [check["check_id"] for check in watched[0].get("/dashboard/api/health")["checks"]]
    assert (nothing, names) == ("", f"Passing: {', '.join(checks)}")


def test_the_checks_that_pass_are_named_below_the_findings(watched, inside):
    """24 of 25 checks pass leaves open which: the names are listed."""
    told = sick(watched, inside, 1, agent_version="0.0.1")
    names = told.stdout.splitlines()[-1].removeprefix("Passing: ").split(", ")
    assert len(names) == 24
    assert "version_mismatch" not in names


def test_a_warning_is_status_1_and_says_what_to_do(watched, inside):
    """A script can tell it from something critical."""
    told = sick(watched, inside, 1, agent_version="0.0.1")
    assert "WARNING  Node ada runs a different version" in told.stdout
    assert "pip install --upgrade" in told.stdout
    assert "version_mismatch" in told.stdout


def test_something_critical_is_status_2_and_stands_first(watched, inside):
    """Whoever sees one line sees that one."""
    told = sick(watched, inside, 2, agent_version="0.0.1", memory_available_gb=1)
    assert told.stdout.index("CRITICAL") < told.stdout.index("WARNING")


def test_no_router_is_status_3_with_one_sentence(inside):
    """That nobody answers is worse than any finding, and another matter."""
    told = inside("health", "--url", f"127.0.0.1:{free_port()}")
    assert (told.returncode, told.stdout, told.stderr.count("\n")) == (3, "", 1)


def test_what_answers_and_is_no_router_is_status_3_too(inside, tmp_path):
    """Its word is no warning about the fleet, which 1 would be."""
    site = subprocess.Popen(
        [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"], cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        port = re.search(r"port (\d+)", site.stdout.readline())[1]
        told = inside("health", "--url", f"http://127.0.0.1:{port}")
    finally:
        site.kill()
        site.communicate()
    assert (told.returncode, told.stdout, told.stderr.count("\n")) == (3, "", 1)


def test_the_help_says_what_each_exit_status_means(inside):
    """The author of a crontab reads it there."""
    told = inside("health", "--help")
    for status, meaning in ((0, "no findings"), (1, "warning"), (2, "critical"), (3, "no router"), (64, "usage error")):
        assert re.search(rf"^ +{status}  .*{meaning}", told.stdout, re.MULTILINE)
    assert told.returncode == 0


def test_json_is_the_routers_own_document_with_the_same_status(watched, inside):
    """A program gets everything, and cron its status."""
    sick(watched, inside, 1, agent_version="0.0.1")
    told = inside("health", "--json", "--url", watched[0].url)
    assert told.returncode == 1
    assert json.loads(told.stdout).keys() == watched[0].get("/dashboard/api/health").keys()


def test_acknowledging_keeps_the_status_and_silencing_ends_it(watched, inside):
    """Known is not mended; silenced is not heard."""
    sick(watched, inside, 1, agent_version="0.0.2")
    url = ("--url", watched[0].url)
    (entry,) = json.loads(inside("health", "--json", *url).stdout)["recommendations"]
    told = inside("health", "ack", entry["id"], "--note", "on Monday", *url)
    assert (told.returncode, "(acknowledged: on Monday)" in told.stdout) == (0, True)
    assert inside("health", *url).returncode == 1
    assert "silenced until" in inside("health", "silence", entry["id"], "--hours", "2", *url).stdout
    assert inside("health", *url).returncode == 0
    assert "silenced" not in inside("health", "silence", entry["id"], "--hours", "0", *url).stdout
    assert inside("health", *url).returncode == 1


def test_what_is_over_is_shown_as_the_past(watched, inside):
    """Was there something last night?"""
    sick(watched, inside, 1, agent_version="0.0.1")
    sick(watched, inside, 0)
    past = ("health", "--past", "--url", watched[0].url)
    told = until(lambda: _holding(inside(*past), "runs a different version"), "it is over")
    assert told.returncode == 0
    assert json.loads(inside(*past, "--json").stdout)["findings"][0]["resolved_at"]


def _holding(told, words):
    return told if words in told.stdout else None


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("ack",), 64, "missing finding id"),
        (("ack", "nope"), 1, "no open finding 'nope'"),
        (("silence", "../nope"), 1, "Not Found"),
        (("mute", "x"), 64, "invalid choice"),
        (("silence", "x", "--hours", "-1"), 64, "--hours"),
        (("--note", "x"), 64, "--note requires `herd health ack ID`"),
        (("--hours", "3"), 64, "--hours requires `herd health silence ID`"),
        (("ack", "nope", "--hours", "3"), 64, "--hours requires `herd health silence ID`"),
        (("silence", "nope", "--note", "x"), 64, "--note requires `herd health ack ID`"),
        (("ack", "nope", "--past"), 64, "--past"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(watched, inside, arguments, status, says):
    """Nothing is changed by a mistyped command."""
    told = inside("health", *arguments, "--url", watched[0].url)
    assert told.returncode == status
    assert says in told.stderr
