"""The pack's collector configuration, by the collector itself: it is accepted, and spans go the way that it says."""

import asyncio
import os
import re
import subprocess

import httpx
import pytest
import yaml

from herd.sim import SimConfig
from tests.e2e.conftest import LLAMA, started
from tests.e2e.traffic import mixed, send
from tests.harness import free_port, until
from tests.pack.contents import ROOT, alerts
from tests.real.engines import ENGINES, Process
from tests.telemetry.otlp import OtlpReceiver

pytestmark = pytest.mark.real
PROGRAM = ENGINES / "bin" / "otelcol"
FILE = ROOT / "otel" / "collector.yaml"


def on_loopback(folder):
    """The configuration with ports of its own, on loopback; and those of OTLP, its metrics and its health."""
    config = yaml.safe_load(FILE.read_text())
    spans, metrics, health = free_port(), free_port(), free_port()
    config["receivers"]["otlp"]["protocols"] = {"http": {"endpoint": f"127.0.0.1:{spans}"}}
    config["extensions"]["health_check"]["endpoint"] = f"127.0.0.1:{health}"
    reader = config["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"]["prometheus"]
    reader.update(host="127.0.0.1", port=metrics)
    (folder / "collector.yaml").write_text(yaml.safe_dump(config))
    return spans, metrics, health


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """A router, the collector behind it, and a receiver in Tempo's place; gives what is where."""
    home = tmp_path_factory.mktemp("collector")
    spans, metrics, health = on_loopback(home)
    with OtlpReceiver() as tempo:
        collector = Process(home / "otelcol")
        collector.launch(str(PROGRAM), f"--config={home / 'collector.yaml'}", TEMPO_ENDPOINT=tempo.url,
                         SPANS_FILE=str(home / "spans.jsonl"))  # fmt: skip
        until(lambda: answers(f"http://127.0.0.1:{health}/"), "the collector is well")
        fleet = started(home, SimConfig("n1", models=(LLAMA,)), OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{spans}")
        yield fleet, tempo, home / "spans.jsonl", f"http://127.0.0.1:{metrics}/metrics"
        fleet.nodes.stop()
        fleet.router.stop()
        collector.stop()


def answers(url):
    """Whether somebody answers 200 there."""
    try:
        return httpx.get(url).status_code == 200
    except httpx.ConnectError:
        return False


def test_the_collector_accepts_its_configuration():
    """It ends at once where it does not, and takes every span with it."""
    told = subprocess.run(
        [PROGRAM, "validate", f"--config={FILE}"], env=os.environ, capture_output=True, text=True, check=False
    )
    assert (told.returncode, told.stderr) == (0, "")


def test_spans_reach_tempo_and_the_file_and_are_counted(way):
    """Each part can be right by itself, and the names between them wrong."""
    fleet, tempo, file, metrics = way
    asyncio.run(send(fleet.url, mixed(20, seed=3), 4))
    exported = until(lambda: fleet.router.metric("herd_spans_exported_total"), "an export")
    until(lambda: len(tempo.spans) >= exported, "all spans are at Tempo")
    assert {"SERVER", "INTERNAL", "CLIENT"} == {span.kind for span in tempo.spans}
    assert file.read_text().count('"spanId"') >= exported
    lines = [line for line in httpx.get(metrics).text.splitlines() if line.startswith("otelcol_exporter_sent_spans")]
    assert any('exporter="otlp_http/tempo"' in line and float(line.split()[-1]) >= exported for line in lines)


def test_the_alerts_ask_for_what_the_collector_says_of_itself(way):
    """A name of another version's makes an alert that never fires."""
    fleet, _, _, metrics = way
    asked = {name for alert in alerts() for name in re.findall(r"\botelcol_\w+", alert["expr"])}
    assert asked
    asyncio.run(send(fleet.url, mixed(5, seed=4), 4))
    until(lambda: asked <= names_at(metrics), "the collector's own metrics have these names", 20)
    labels = {label for line in httpx.get(metrics).text.splitlines() if line.startswith(tuple(asked))
              for label in re.findall(r"(\w+)=", line)}  # fmt: skip
    assert "exporter" in labels


def names_at(metrics):
    """The names of the metrics in an exposition."""
    return set(re.findall(r"^# TYPE (\S+)", httpx.get(metrics).text, re.MULTILINE))
