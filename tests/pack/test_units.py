"""The service files for systemd and launchd: they start what is installed, and give it the time that it needs."""

import configparser
import plistlib
import tomllib

import pytest

from herd.commands.start import OPEN_FILES
from herd.config import BY_NAME
from tests.pack.contents import ROOT

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
UNITS = sorted((ROOT / "packaging" / "systemd").glob("*.service"))
PLISTS = sorted((ROOT / "packaging" / "launchd").glob("*.plist"))


def unit(path):
    """A unit file's sections."""
    found = configparser.RawConfigParser(strict=True)
    found.optionxform = str
    found.read_string(path.read_text())
    return found


def test_there_is_one_of_each_kind_for_router_and_agent():
    """Both run on every machine that somebody looks after."""
    assert {path.stem for path in UNITS} == set(SCRIPTS)
    assert {path.stem.rpartition(".")[2] for path in PLISTS} == set(SCRIPTS)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_its_program_as_its_own_user_with_its_own_folder(path):
    """A service that can write anywhere will."""
    service = unit(path)["Service"]
    assert service["ExecStart"] == f"/opt/herd/bin/{path.stem}"
    assert service["User"] == "herd"
    assert service["Environment"] == f"HERD_DATA_DIR=/var/lib/{service['StateDirectory']}"
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert unit(path)["Install"]["WantedBy"] == "multi-user.target"


def test_the_router_is_given_the_time_to_end_what_runs():
    """A shorter patience than herd's own would cut answers off at every restart."""
    grace_s = float(BY_NAME["shutdown_grace_s"].default)
    assert int(unit(ROOT / "packaging/systemd/herd.service")["Service"]["TimeoutStopSec"]) > grace_s
    for path in PLISTS:
        if path.stem.endswith(".herd"):
            assert plistlib.loads(path.read_bytes())["ExitTimeOut"] > grace_s


def test_the_router_may_open_a_file_for_every_connection():
    """The usual limits of 256 or 1024 are a hundred streams or five hundred."""
    assert int(unit(ROOT / "packaging/systemd/herd.service")["Service"]["LimitNOFILE"]) == OPEN_FILES[0]
    plist = plistlib.loads((ROOT / "packaging/launchd/com.ollama-herd.herd.plist").read_bytes())
    for kind in ("SoftResourceLimits", "HardResourceLimits"):
        assert plist[kind] == {"NumberOfFiles": OPEN_FILES[0]}


@pytest.mark.parametrize("path", PLISTS, ids=lambda path: path.stem)
def test_a_plist_names_itself_and_starts_its_program(path):
    """launchctl goes by the label, people by the file's name."""
    found = plistlib.loads(path.read_bytes())
    assert found["Label"] == path.stem
    assert found["ProgramArguments"] == [f"/usr/local/herd/bin/{path.stem.rpartition('.')[2]}"]
    assert found["RunAtLoad"] is True
    assert found["KeepAlive"] == {"SuccessfulExit": False}
