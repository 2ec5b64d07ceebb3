"""`herd demo` as a newcomer runs it: one command, everything there within seconds, everything gone at the end."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys

import httpx
import pytest

from tests.harness import free_port, until

READY_S = 40


class Demo:
    """One `herd demo` in a process group of its own, as a shell would start it."""

    def __init__(self, home, port, *options):
        self.home, self.port = home, port
        self.data = home / "data"
        self.url = f"http://127.0.0.1:{port}"
        self.out = home / "out.txt"
        command = [sys.executable, "-m", "herd", "demo", "--port", str(port), "--data-dir", str(self.data), *options]
        with self.out.open("wb") as out:
            environment = {**os.environ, "HOME": str(home), "PYTHONWARNINGS": "ignore"}
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True)

    def said(self):
        return self.out.read_text()

    def wait_for(self, words):
        def there():
            assert self.process.poll() is None or words in self.said(), self.said()
            return words in self.said()

        until(there, f"the demo says {words!r}", READY_S)

    def rows(self):
        if not (self.data / "latency.db").exists():
            return []
        connection = sqlite3.connect(f"file:{self.data / 'latency.db'}?mode=ro", uri=True)
        try:
            return connection.execute("SELECT model, status, tags FROM request_traces").fetchall()
        except sqlite3.OperationalError:  # the file is there a moment before its tables
            return []
        finally:
            connection.close()

    def router_pid(self):
        return int(re.search(r'"pid": ?(\d+)', (self.data / "router.json").read_text()).group(1))

    def end(self):
        self.process.terminate()  # not by force: its router would be left behind
        try:
            self.process.wait(50)
        finally:
            self.process.kill()


@pytest.fixture
def run(tmp_path):
    demos = []

    def start(*options, port=None):
        demos.append(Demo(tmp_path, port or free_port(), *options))
        return demos[-1]

    yield start
    for demo in demos:
        demo.end()


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_all_four_records_fill_and_the_addresses_of_all_are_printed(run):
    """A newcomer looks at four places and must find something in each."""
    demo = run("--seconds", "60")
    demo.wait_for("Ctrl-C stops it.")
    for address in (
        f"http://localhost:{demo.port}/metrics",
        str(demo.data / "latency.db"),
        "herd.jsonl",
        "status --url",
    ):
        assert address in demo.said()
    until(lambda: {"llama3.2:3b", "nomic-embed-text:latest"} <= {model for model, _, _ in demo.rows()}, "rows of both")
    until(lambda: any(tags and "prod" in tags for _, _, tags in demo.rows()), "rows with a tag")
    until(lambda: "request_finished" in (demo.data / "logs" / "herd.jsonl").read_text(), "lines")
    metrics = httpx.get(f"{demo.url}/metrics").text
    assert re.search(r'herd_requests_total\{.*status="completed".*\} [1-9]', metrics)
    assert httpx.get(f"{demo.url}/fleet/status").json()["fleet"]["nodes_online"] == 3


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_terminal_ends_everything_in_order(run, kind):
    """Ctrl-C reaches every process of the terminal at once, and still nothing may be lost or left."""
    demo = run()
    demo.wait_for("Ctrl-C stops it.")
    router = demo.router_pid()
    os.killpg(demo.process.pid, kind)
    assert demo.process.wait(50) == 0
    assert "Traceback" not in demo.said()
    assert not listens(demo.port)
    with pytest.raises(ProcessLookupError):
        os.kill(router, 0)


def test_it_ends_by_itself_after_the_given_seconds(run):
    """A demo in a script must not wait for a person."""
    demo = run("--seconds", "1")
    assert demo.process.wait(60) == 0
    assert "Traceback" not in demo.said()
    assert not listens(demo.port)


def test_a_port_in_use_is_one_sentence_with_what_to_do(run):
    """The commonest first failure of all."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = run(port=port)
        assert demo.process.wait(30) == 1
    assert demo.said().count("\n") == 1
    assert f"port {port} is in use" in demo.said()
    assert "--port" in demo.said()


def test_a_router_that_dies_ends_the_demo_with_a_word_about_it(run):
    """Nodes and traffic without a router would be a puzzle."""
    demo = run()
    demo.wait_for("Ctrl-C stops it.")
    os.kill(demo.router_pid(), signal.SIGKILL)
    assert demo.process.wait(30) == 1
    assert "the router exited" in demo.said()
    assert "Traceback" not in demo.said()


def test_the_users_own_records_are_never_touched(run, tmp_path):
    """Neither by default nor by mistake."""
    own = tmp_path / ".fleet-manager"
    demo = run("--seconds", "1", "--data-dir", str(own))
    assert demo.process.wait(30) == 1
    assert "your own records" in demo.said()
    assert not own.exists()
