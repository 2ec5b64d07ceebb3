"""What the command line says about itself, and how it refuses what it does not understand."""

import subprocess
import sys

import pytest

from herd import __version__
from herd.cli import USAGE
from herd.commands.listing import COMMANDS
from herd.settings.table import TABLE
from tests.cli.conftest import ROOT


def test_help_says_what_herd_is_how_to_start_and_where_data_lives(herd):
    """It is the first page that a newcomer reads, and often the only one."""
    told = herd("--help")
    assert told.returncode == 0
    for word in ("herd-node", "quick start", "latency.db", "herd.jsonl", "config.toml", "herd demo"):
        assert word in told.stdout


def test_help_lists_every_command_and_every_setting(inside):
    """An option that help does not show does not exist for its user."""
    told = inside("--help").stdout
    assert [name for name in COMMANDS if f"\n    {name} " not in told] == []
    assert [row.name for row in TABLE if f"--{row.name.replace('_', '-')}" not in told] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_its_own_options(inside, command):
    """Nobody should have to read the source to learn what --since takes."""
    told = inside(command, "--help")
    assert told.returncode == 0
    assert told.stdout.startswith(f"usage: herd {command} ")


def test_version_is_the_packages_version(inside):
    """A bug report begins with it."""
    assert inside("--version").stdout == f"herd {__version__}\n"


def test_importing_the_command_line_imports_nothing_heavy():
    """`herd status` must not pay for a web framework that only the router needs."""
    heavy = ("fastapi", "uvicorn", "aiohttp", "opentelemetry", "sqlite3", "httpx", "rich", "pydantic")
    code = f"import herd.cli, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--port", "many"), 'port must be a whole number, not "many"'),
        (("--queue-timeout-s", "soon"), 'queue_timeout_s must be a number, not "soon"'),
        (("--log-level", "LOUD"), 'log_level must be one of DEBUG, INFO, WARNING, ERROR, not "LOUD"'),
        (("--retention-days", "0"), "retention_days must be 1 or more"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_sentence(inside, arguments, says):
    """A router that starts with a half-understood setting fails later, and elsewhere."""
    refused = inside(*arguments)
    assert refused.returncode == USAGE
    assert refused.stderr.startswith("herd: ")
    assert says in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_wrong_name_in_the_environment_is_named(herd):
    """A misspelt variable that is silently ignored costs an evening."""
    refused = herd(HERD_RETENTION="30")
    assert refused.returncode == USAGE
    assert "unknown setting HERD_RETENTION, did you mean HERD_RETENTION_DAYS?" in refused.stderr


def test_an_unknown_command_does_not_start_the_router(inside):
    """`herd staus` must not leave a process behind."""
    refused = inside("staus")
    assert refused.returncode == USAGE
    assert "status" in refused.stderr


def test_a_router_option_before_a_command_is_not_silently_ignored(inside):
    """`herd --data-dir X traces` would otherwise show the traces of another directory."""
    refused = inside("--data-dir", "/nowhere", "traces")
    assert refused.returncode == USAGE
    assert "stand behind its name" in refused.stderr


@pytest.mark.parametrize("wrong", ["yesterday", "10x", "", "-5m", "99999999999999999999d"])
def test_a_time_that_is_none_is_refused_with_examples(inside, wrong):
    """A filter that means something else than what was typed shows the wrong requests."""
    refused = inside("traces", f"--since={wrong}")
    assert refused.returncode == USAGE
    assert "10m" in refused.stderr
