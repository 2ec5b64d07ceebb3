"""The service files for systemd and launchd: they start what is installed, and give it the time that it needs."""

import configparser
import plistlib
import re
import shutil
import subprocess
import tomllib

import pytest

from herd.commands.start import OPEN_FILES
from herd.settings.table import BY_NAME
from tests.pack.contents import ROOT

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
UNITS = sorted((ROOT / "packaging" / "systemd").glob("*.service"))
DOCUMENT = ROOT / "docs" / "services.md"
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
    given = dict(each.split("=") for each in service["Environment"].split())
    assert given.pop("HERD_DATA_DIR") == f"/var/lib/{service['StateDirectory']}"
    # Both run as one user, so that the agent reads the router's local code.
    assert given == ({"HERD_JOIN_FILE": "/var/lib/herd/local.code"} if path.stem == "herd-node" else {})
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


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_has_no_remark_about_a_unit(path, tmp_path):
    """An unknown key is skipped in silence at the start, and with it what it should have forbidden."""
    # The program is installed by whoever follows the document, not here.
    text = re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", path.read_text(), flags=re.MULTILINE)
    (tmp_path / path.name).write_text(text)
    command = ["systemd-analyze", "verify", tmp_path / path.name]
    told = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_the_document_says_of_a_unit_what_the_unit_says(path):
    """Who looks for the log in the wrong folder takes the service for dead."""
    service, text = unit(path)["Service"], DOCUMENT.read_text()
    folder = service["Environment"].split()[0].partition("=")[2]
    for named in (f"packaging/systemd/{path.name}", service["EnvironmentFile"].removeprefix("-"),
                  f"{folder}/logs/{path.stem}.jsonl", f"journalctl -u {path.stem}"):  # fmt: skip
        assert named in text
    assert f"python3 -m venv {service['ExecStart'].rpartition('/bin/')[0]}\n" in text
    assert f"the unit waits {unit(UNITS[0].with_name('herd.service'))['Service']['TimeoutStopSec']}" in text


@pytest.mark.parametrize("path", PLISTS, ids=lambda path: path.stem)
def test_the_document_says_of_a_plist_what_the_plist_says(path):
    """As above, on a Mac."""
    found, text = plistlib.loads(path.read_bytes()), DOCUMENT.read_text()
    assert found["StandardErrorPath"] in text
    assert f"~/Library/LaunchAgents/{path.name}" in text
    assert f"python3 -m venv {found['ProgramArguments'][0].rpartition('/bin/')[0]}\n" in text


def test_the_readme_leads_to_the_document_and_every_link_in_it_somewhere():
    """Nobody finds a page that nothing links to."""
    assert "docs/services.md" in (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", DOCUMENT.read_text()):
        assert (DOCUMENT.parent / target).exists()


@pytest.mark.parametrize("path", PLISTS, ids=lambda path: path.stem)
def test_a_plist_names_itself_and_starts_its_program(path):
    """launchctl goes by the label, people by the file's name."""
    found = plistlib.loads(path.read_bytes())
    assert found["Label"] == path.stem
    assert found["ProgramArguments"] == [f"/usr/local/herd/bin/{path.stem.rpartition('.')[2]}"]
    assert found["RunAtLoad"] is True
    assert found["KeepAlive"] == {"SuccessfulExit": False}
