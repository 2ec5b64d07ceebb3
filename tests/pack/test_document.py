"""docs/observability.md as somebody follows it: what it says to copy works, and where it points there is something."""

import re
import subprocess
import sys

import yaml

from tests.pack.contents import OPTIONAL, ROOT, dashboard
from tests.pack.test_names import anchors
from tests.pack.test_rules import promtool

FILE = ROOT / "docs" / "observability.md"
TEXT = FILE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_what_is_to_be_added_to_a_prometheus_is_accepted_by_it(tmp_path):
    """The first thing that an operator copies."""
    (block,) = [block for _, block in BLOCKS if "scrape_configs" in block]
    config = tmp_path / "prometheus.yml"
    config.write_text(block.replace("/path/to/herd", str(ROOT)))
    assert "SUCCESS: 2 rule files found" in promtool("check", "config", config)
    assert yaml.safe_load(block)["scrape_configs"][0]["job_name"] == "herd"


def test_the_database_is_given_to_grafana_for_reading_only_and_as_the_dashboard_asks_for_it():
    """A second writer would be in the router's way."""
    (block,) = [block for _, block in BLOCKS if "datasources" in block]
    (source,) = yaml.safe_load(block)["datasources"]
    (choice,) = [each for path in OPTIONAL for each in dashboard(path)["templating"]["list"]]
    assert (source["type"], source["jsonData"]["pathOptions"]) == (choice["query"], "mode=ro")


def test_every_link_leads_somewhere():
    """To a file of the repository, or to a heading of this one."""
    here = anchors(TEXT)
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        path, _, anchor = target.partition("#")
        file = FILE.parent / path if path else FILE
        assert file.exists(), target
        assert not anchor or anchor in (anchors(file.read_text(encoding="utf-8")) if path else here), target


def test_every_path_that_is_named_exists():
    """A file that was moved is still named by somebody."""
    named = re.findall(r"`((?:otel|grafana|packaging)/[\w./*{},-]*)`", TEXT)
    assert "otel/alertmanager.example.yml" in named
    for pattern in named:
        choices = re.search(r"\{(.*?)\}", pattern)
        names = [pattern.replace(choices[0], name) for name in choices[1].split(",")] if choices else [pattern]
        assert all(list(ROOT.glob(name.rstrip("/"))) for name in names), pattern


def test_the_services_that_are_named_are_those_of_the_compose_file():
    """`docker compose up` of a name that is not there starts nothing."""
    (services,) = re.findall(r"`docker compose up ([a-z ]+)`", TEXT)
    assert set(services.split()) == set(COMPOSE["services"]) - {"studio", "gpu-box", "traffic", "spans-folder"}
    published = {port.split(":")[1] for service in COMPOSE["services"].values() for port in service.get("ports", ())}
    assert set(re.findall(r"<http://localhost:(\d+)", TEXT)) <= published


def test_the_command_that_finds_the_rules_of_an_installed_herd_finds_them():
    """It is the only way to them without a checkout."""
    (command,) = [block for _, block in BLOCKS if block.startswith("python -c")]
    own = command.replace("python", sys.executable, 1)
    told = subprocess.run(["bash", "-c", own], check=True, capture_output=True, text=True, timeout=30)
    assert told.stdout.strip().endswith("rules")
