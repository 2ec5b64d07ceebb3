"""A router and an agent as they are started, and somebody who wants the prompts."""

import subprocess
import sys

import httpx
import pytest

from herd.sim import SimConfig, SimModel
from herd.wire import joining
from herd.wire.identity import made, shown
from tests.fleet.test_cell import beat
from tests.harness import Agent, Nodes, Router, free_port, until

MODEL = SimModel("llama3.2:3b", size_gb=2.0)


class Fleet:
    """A router, an agent beside the engine of `studio`, and a thief with an engine of his own."""

    def __init__(self, home):
        self.nodes, self.router = Nodes(), Router(home / "router", free_port())
        self.engine = self.nodes.start(SimConfig("engine", models=(MODEL,)))
        self.thief = self.nodes.start(SimConfig("thief", models=(MODEL,)))
        self.agent = Agent(home / "agent", "studio", self.engine.url, self.router.url)

    def start(self):
        self.router.start()
        self.agent.start()
        until(self.there, "the agent has joined")

    def there(self):
        return self.router.online() == 1

    def stop(self):
        self.agent.stop()
        self.nodes.stop()
        self.router.stop()

    def forge(self, who=None, **headers):
        """A heartbeat of `studio` that names the thief's engine."""
        body = beat("studio", models=(MODEL.name,), loaded=(MODEL.name,), url=self.thief.url).model_dump_json().encode()
        if who:
            headers |= joining.signed_headers(who, "/heartbeat", "0" * 64, 2**60, body)
        return httpx.post(f"{self.router.url}/heartbeat", content=body, headers=headers, timeout=10)

    def ask(self):
        """One prompt; which node answered."""
        chat = {"model": MODEL.name, "messages": [{"role": "user", "content": "secret"}], "stream": False}
        answer = httpx.post(f"{self.router.url}/api/chat", json=chat, timeout=30)
        return answer.headers.get("x-herd-node"), answer.status_code

    def herd(self, *arguments):
        """A command on the router's machine; what it prints."""
        command = [sys.executable, "-m", "herd", *arguments]
        environment = self.router.environment()
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """One for the module."""
    running = Fleet(tmp_path_factory.mktemp("doors"))
    running.start()
    yield running
    running.stop()


def test_a_forged_heartbeat_is_refused_and_the_next_prompt_stays_in_the_fleet(fleet):
    """Before, one POST with a known name brought every further prompt to its sender."""
    for who in (None, made("thief")):
        refused = fleet.forge(who)
        assert (refused.status_code, refused.json()["reason"]) == (409, "other_key")
        assert "herd node reset studio" in refused.json()["error"]
        assert fleet.ask() == ("studio", 200)
    assert fleet.router.get("/fleet/status")["nodes"][0]["url"] == fleet.engine.url
    assert not list(fleet.thief.engine), "a request would have loaded the model there"
    assert fleet.router.metric("herd_access_refused_total", door="node", reason="other_key") >= 2


def test_the_secrets_of_an_introduction_are_in_no_log_and_in_no_command_line(fleet):
    """What is in a log is in the backup of the log."""
    code = (fleet.router.data_dir / "local.code").read_text()
    texts = [fleet.router.stderr(), fleet.router.log.read_text(), (fleet.agent.home / "said.txt").read_text(),
             subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout]  # fmt: skip
    assert not [text for text in texts if code in text or "PRIVATE KEY" in text]
    found = [*fleet.router.data_dir.glob("*.*"), *(fleet.agent.home / "node").iterdir()]
    wide = [path.name for path in found if path.is_file() and path.stat().st_mode & 0o077]
    assert not wide


def test_a_stranger_waits_in_the_operators_list_and_a_revoked_node_is_out_within_seconds(fleet):
    """The whole of an operator's work with nodes, by the commands that the messages name."""
    stranger = made("stranger")
    said = joining.JoinRequest(node_id="mini", certificate=joining.encoded(stranger.certificate))
    body = said.model_dump_json().encode()
    headers = joining.signed_headers(stranger, joining.JOIN_PATH, "", 0, body)
    answer = httpx.post(f"{fleet.router.url}{joining.JOIN_PATH}", content=body, headers=headers)
    assert (answer.status_code, answer.json()["state"]) == (202, "waiting")
    listed = fleet.herd("nodes")
    assert "waiting" in listed
    assert shown(stranger.id) in listed
    assert "mini may join" in fleet.herd("node", "accept", shown(stranger.id)[:4])
    again = httpx.post(f"{fleet.router.url}{joining.JOIN_PATH}", content=body, headers=headers)
    assert (again.status_code, again.json()["state"]) == (200, "accepted")

    fleet.herd("node", "revoke", "studio")
    until(lambda: not fleet.router.get("/fleet/status")["nodes"], "the revoked node is out")
    assert fleet.ask()[1] in {404, 503}
    fleet.herd("node", "accept", "studio")
    until(fleet.there, "the node is back")
    assert fleet.ask() == ("studio", 200)
