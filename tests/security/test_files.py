"""Whose the files are, which signals end a program, and what it does without a terminal."""

import os
import pty
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from herd.security.files import NotOurs, claim_directory
from node.process import claim_directory as agents_claim
from tests.harness import Router, free_port, until

ASK = {"model": "m:1", "prompt": "hi"}


@pytest.fixture
def lenient(tmp_path):
    """A router that was started by a shell that lets everybody read and write what it makes."""
    started = Router(tmp_path / "home", free_port())
    before = os.umask(0)
    try:
        started.home.mkdir(mode=0o700)
        started.start()
    finally:
        os.umask(before)
    yield started
    started.stop()


def test_what_a_program_makes_is_its_users_alone_whatever_the_shell_says(lenient):
    """Rows name models, tags and addresses; the log has what failed."""
    answer = httpx.post(lenient.url + "/api/generate", json=ASK)
    lenient.row(answer.headers["x-request-id"])
    lenient.told(answer.headers["x-request-id"])
    assert stat.S_IMODE(lenient.data_dir.stat().st_mode) == 0o700
    files = [path for path in lenient.data_dir.rglob("*") if path.is_file() and path.parent.name != "prometheus"]
    assert {path.name for path in files} >= {"latency.db", "herd.jsonl", "router.json"}
    assert {path.name: oct(path.stat().st_mode & 0o077) for path in files if path.stat().st_mode & 0o077} == {}


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_a_directory_that_others_may_write_is_refused_by_both_programs(tmp_path, mode):
    """They could put a link where the log goes, or a database of their own."""
    tmp_path.chmod(mode)
    with pytest.raises(NotOurs, match="chmod 700"):
        claim_directory(tmp_path)
    assert "chmod 700" in agents_claim(tmp_path)


def test_a_directory_that_others_may_read_is_closed_and_one_that_is_missing_is_made(tmp_path):
    """An earlier version left it open."""
    tmp_path.chmod(0o755)
    assert claim_directory(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert not claim_directory(tmp_path)
    assert not claim_directory(tmp_path / "new" / "one")
    assert agents_claim(tmp_path / "other") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_or_link_of_another_user_is_refused(tmp_path):
    """What is in it was put there by somebody else."""
    (tmp_path / "latency.db").symlink_to("/etc/passwd")
    os.chown(tmp_path / "latency.db", 65534, 65534, follow_symlinks=False)
    with pytest.raises(NotOurs, match="is a link"):
        claim_directory(tmp_path)
    (tmp_path / "logs").mkdir()
    os.chown(tmp_path / "logs", 65534, 65534)
    with pytest.raises(NotOurs, match="belongs to another user"):
        claim_directory(tmp_path)
    assert "belongs to another user" in agents_claim(tmp_path)


def test_an_unsafe_directory_stops_the_start_with_words(tmp_path):
    """No traceback, and nothing is written there."""
    (tmp_path / ".fleet-manager").mkdir()
    (tmp_path / ".fleet-manager").chmod(0o777)
    environment = {**os.environ, "HOME": str(tmp_path)}
    for module in ("herd", "node"):
        command = [sys.executable, "-m", module, *(["--port", str(free_port())] if module == "herd" else [])]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, "chmod 700" in ended.stderr, "Traceback" in ended.stderr) == (1, True, False)
    assert list((tmp_path / ".fleet-manager").iterdir()) == []


def test_a_hangup_reads_the_settings_again_and_ends_nothing(router):
    """Operators and logrotate send it; it killed the router with all rows that were not yet written."""
    answer = httpx.post(router.url + "/api/generate", json=ASK)
    (router.data_dir / "config.toml").write_text("retries = 7\nport = 1\n")
    router.process.send_signal(signal.SIGUSR1)
    router.process.send_signal(signal.SIGHUP)
    until(lambda: setting(router, "retries") == 7, "the file was read again")
    assert setting(router, "port") == router.port
    (router.data_dir / "config.toml").write_text("retries = 700\n")
    router.process.send_signal(signal.SIGHUP)
    until(lambda: [line for line in router.lines(None) if "not reloaded" in line["event"]], "the error is logged")
    assert setting(router, "retries") == 7
    assert router.row(answer.headers["x-request-id"])
    assert [line["data"]["value"] for line in router.lines("setting_changed")] == [7]
    assert router.stop() == 0


def setting(router, name):
    """What a setting is now."""
    return next(each["value"] for each in router.get("/dashboard/api/settings")["settings"] if each["name"] == name)


def test_a_router_whose_terminal_closes_ends_in_order(tmp_path):
    """Closing the window lost the rows of the last moments."""
    router = Router(tmp_path / "home", free_port())
    router.home.mkdir()
    parent, child = pty.openpty()
    # A session of its own with the terminal as its own, as a terminal window has it.
    command = ["setsid", "--ctty", "--wait", *router.command]
    process = subprocess.Popen(command, env=router.environment(), stdin=child, stdout=child, stderr=child)
    os.close(child)
    until(lambda: answers(router), "the router is ready")
    answer = httpx.post(router.url + "/api/generate", json=ASK)
    os.close(parent)
    process.wait(30)
    until(lambda: not answers(router), "the router has ended")
    assert router.rows("request_id = ?", answer.headers["x-request-id"])
    assert not (router.data_dir / "router.json").exists()  # which a killed router leaves behind


def answers(router):
    """Whether the router is there."""
    try:
        return httpx.get(router.url + "/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_a_router_without_a_terminal_starts_and_keeps_its_files_apart(tmp_path, closed):
    """Whatever is written to stderr went into the file that was opened in its place."""
    router = Router(tmp_path / "home", free_port())
    router.command = ["sh", "-c", f'exec "$@" {closed}', "sh", *router.command]
    router.start()
    assert httpx.get(router.url + "/healthz").status_code == 200
    assert str(Path(f"/proc/{router.process.pid}/fd/2").readlink()) == "/dev/null"
    assert router.stop() == 0
