"""The webhook: what it is told, how often it is tried, and that nobody waits for it."""

import asyncio
import json

import pytest
from aiohttp import web

from herd.core.finding import Episode, Finding, Severity
from herd.core.health.ledger import Alert
from herd.jobs.webhook import CAPACITY, Webhook, payload
from herd.settings.load import load
from tests.harness import eventually, free_port

PATIENCE_S = 20.0


def alert(status="firing", node_id="a"):
    title = f"Node {node_id} is offline"
    finding = Finding("node_offline", Severity.CRITICAL, title, "It is gone.", "Look at it.", node_id)
    return Alert(status, Episode("ab12", finding, 1.0, 2.0, 3.0 if status == "resolved" else None, alerted=True))


class Receiver:
    """A webhook on loopback that answers as scripted, then 200."""

    def __init__(self):
        self.got, self.answers, self.queries = [], [], []
        self.on_call = lambda: None
        self.came = asyncio.Event()

    async def hook(self, request):
        self.got.append(await request.json())
        self.queries.append(request.query_string)
        self.on_call()
        self.came.set()
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    async def until(self, number):
        async with asyncio.timeout(PATIENCE_S):
            while len(self.got) < number:
                self.came.clear()
                await self.came.wait()
        return self.got


@pytest.fixture
async def receiver():
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hook", made.hook)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    made.url = f"http://127.0.0.1:{port}/hook"
    yield made
    await runner.cleanup()


@pytest.fixture
async def webhook(tmp_path, receiver):
    """A webhook at work that tries again at once, and twice at most."""
    settings = load({}, {"HERD_DATA_DIR": str(tmp_path), "HERD_WEBHOOK_URL": receiver.url})
    made = Webhook(settings, lambda _: None, pauses_s=(0.0, 0.0))
    made.settings = settings
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_an_alert_has_a_text_for_chats_and_fields_for_programs():
    """`text` is all that Slack shows; a pager goes by `status` and `severity`."""
    body = payload(alert())
    assert body["text"] == "Node a is offline. It is gone. Look at it."
    known = {name: body[name] for name in ("status", "severity", "check_id", "node_id", "id", "resolved_at")}
    assert list(known.values()) == ["firing", "critical", "node_offline", "a", "ab12", None]
    assert payload(alert("resolved"))["text"] == "Resolved: Node a is offline"


def test_an_alert_can_be_read_as_one_of_prometheuss_alertmanager():
    """Bridges to pagers and chats are written for that."""
    (firing,), (over,) = payload(alert())["alerts"], payload(alert("resolved"))["alerts"]
    assert firing["labels"] == {"alertname": "node_offline", "severity": "critical", "node": "a"}
    assert firing["annotations"] == {"summary": "Node a is offline", "description": "It is gone. Look at it."}
    assert (firing["status"], firing["startsAt"], firing["endsAt"]) == (
        "firing", "1970-01-01T00:00:01.000Z", "0001-01-01T00:00:00Z",
    )  # fmt: skip
    assert (over["status"], over["endsAt"], over["fingerprint"]) == ("resolved", "1970-01-01T00:00:03.000Z", "ab12")


async def test_alerts_arrive_in_order(webhook, receiver):
    """A recovery before its alarm would leave the alarm standing."""
    for each in (alert(), alert("resolved"), alert(node_id="b")):
        webhook.put(each)
    got = await receiver.until(3)
    assert [(body["status"], body["node_id"]) for body in got] == [("firing", "a"), ("resolved", "a"), ("firing", "b")]


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_webhook_that_is_busy_is_tried_again(webhook, receiver, status):
    """Chat services refuse now and then."""
    receiver.answers = [status]
    webhook.put(alert())
    got = await receiver.until(2)
    assert got[0] == got[1]


@pytest.mark.parametrize("answers", [[404], [500, 500, 500]])
async def test_a_webhook_that_refuses_for_good_is_given_up_and_the_next_alert_goes_out(webhook, receiver, answers):
    """One lost message must not hold up all later ones."""
    receiver.answers = list(answers)
    webhook.put(alert())
    webhook.put(alert(node_id="b"))
    got = await receiver.until(len(answers) + 1)
    assert [body["node_id"] for body in got] == ["a"] * len(answers) + ["b"]


async def test_a_webhook_that_is_away_is_given_up_without_showing_its_address(tmp_path, caplog):
    """The address is a credential, and the log is read by many."""
    settings = load({}, {"HERD_DATA_DIR": str(tmp_path), "HERD_WEBHOOK_URL": f"http://127.0.0.1:{free_port()}/secret"})
    made = Webhook(settings, lambda _: None, pauses_s=(0.0,))
    made.put(alert())
    task = asyncio.create_task(made.run())
    await eventually(lambda: "Alert given up" in caplog.text, "the alert is given up")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "secret" not in caplog.text


async def test_the_address_is_that_of_the_moment(webhook, receiver):
    """Corrected while an alert is tried again, the next try goes to the right place; empty, nothing is wanted."""
    receiver.answers = [500]
    receiver.on_call = lambda: webhook.settings.change({"webhook_url": f"{receiver.url}?second"})
    webhook.put(alert())
    await receiver.until(2)
    assert receiver.queries == ["", "second"]
    webhook.settings.change({"webhook_url": ""})
    assert not webhook.wanted


async def test_too_many_alerts_are_dropped_not_waited_for(tmp_path, caplog):
    """A webhook that hangs must not fill the memory."""
    settings = load({}, {"HERD_DATA_DIR": str(tmp_path), "HERD_WEBHOOK_URL": "http://127.0.0.1:1/"})
    made = Webhook(settings, lambda _: None)
    for _ in range(CAPACITY + 1):
        made.put(alert())
    assert caplog.text.count("Alert dropped") == 1


async def test_a_name_that_utf8_cannot_carry_is_sent_all_the_same(webhook, receiver):
    """Clients choose model names."""
    finding = Finding("error_rate", Severity.CRITICAL, "t\ud800", "d", "f", model="m\ud800")
    webhook.put(Alert("firing", Episode("x", finding, 1.0, 1.0)))
    assert json.dumps((await receiver.until(1))[0]["model"]) == '"m\\ud800"'
