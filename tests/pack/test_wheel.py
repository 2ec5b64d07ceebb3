"""What is installed: a wheel built from what the Dockerfile copies, unpacked where the working tree is not, and run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile

import httpx
import pytest

from herd.sim import SimConfig
from tests.e2e.conftest import LLAMA
from tests.harness import Nodes, free_port, until
from tests.pack.contents import ROOT, RULES

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
COPIED = [
    source
    for line in re.findall(r"^COPY ((?!--from).+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for source in shlex.split(line)
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel's content, in a folder of its own."""
    home = tmp_path_factory.mktemp("wheel")
    for source in COPIED:
        into = home / "source" / source
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            into.parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / source, into)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", home]
    subprocess.run(build, cwd=home / "source", check=True, capture_output=True, timeout=60)
    (wheel,) = home.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home / "installed")
    return home / "installed"


def files(folder, root):
    """Every file below a folder, what Python compiled left out."""
    return {str(path.relative_to(root)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def start(installed, script, *options, **environment):
    """One of the console scripts, as pip would make it, with the wheel before everything else."""
    module, _, function = SCRIPTS[script].partition(":")
    code = f"import sys, {module} as m; sys.argv[0] = {script!r}; sys.exit(m.{function}())"
    own = {"PYTHONPATH": str(installed), "HOME": str(installed.parent), "PYTHONDONTWRITEBYTECODE": "1", **environment}
    with (installed.parent / f"{script}.txt").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-c", code, *options], cwd=installed.parent, env={**os.environ, **own}, stdout=said,
            stderr=said,
        )  # fmt: skip


@pytest.fixture(scope="module")
def running(installed):
    """Router and agent from the wheel, beside a simulated engine; gives the router's address."""
    nodes, url = Nodes(), f"http://127.0.0.1:{free_port()}"
    engine = nodes.start(SimConfig("engine", models=(LLAMA,)))
    router = start(installed, "herd", HERD_PORT=url.rpartition(":")[2], HERD_DATA_DIR=str(installed.parent / "data"))
    options = ("--node-id", "n1", "--ollama-host", engine.url, "--router-url", url)
    code = str(installed.parent / "data" / "local.code")
    agent = start(installed, "herd-node", *options, "--data-dir", str(installed.parent / "node"), HERD_JOIN_FILE=code)

    def online():
        assert router.poll() is None, (installed.parent / "herd.txt").read_text()
        try:
            return httpx.get(f"{url}/fleet/status").json()["fleet"]["nodes_online"] == 1
        except httpx.ConnectError:
            return False

    until(online, "the node is online", 30)
    yield url
    for process in (agent, router):
        process.terminate()
        assert process.wait(30) == 0
    nodes.stop()


def test_the_wheel_holds_every_file_of_the_packages_and_nothing_else(installed):
    """A page without its scripts, or a folder of tests in everybody's site-packages."""
    written = {file for package in ("herd", "node") for file in files(ROOT / package, ROOT)}
    rules = {f"herd/pack/rules/{path.name}" for path in RULES}
    assert {path for path in files(installed, installed) if ".dist-info/" not in path} == written | rules


def test_router_and_agent_run_from_the_wheel(running):
    """What is there from the working tree, and missing from the wheel, is missed by users first."""
    body = {"model": "llama3.2:3b", "stream": False, "messages": [{"role": "user", "content": "Hi"}]}
    answer = httpx.post(f"{running}/api/chat", json=body, timeout=20)
    assert (answer.status_code, answer.headers["x-herd-node"]) == (200, "n1")


def test_the_page_and_the_documents_come_with_it(running, installed):
    """Both are files that are read at run time."""
    page = httpx.get(f"{running}/dashboard", follow_redirects=True).text
    for path in re.findall(r'(?:src|href)="(/dashboard/[^"]+\.(?:js|css|svg))"', page):
        assert httpx.get(running + path).status_code == 200, path
    assert 'id="node_offline"' in httpx.get(f"{running}/dashboard/runbook").text
    documents = start(installed, "herd", "docs", "runbook")
    assert documents.wait(30) == 0


def test_prometheus_would_be_started_with_the_wheel_s_own_rules(installed):
    """`herd demo --observe` of an installed herd has no working tree to look into."""
    code = "import json, herd.commands.observe as o; print(json.dumps([str(p) for p in o.rule_files()]))"
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=installed.parent, env={**os.environ, "PYTHONPATH": str(installed)},
        check=True, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert json.loads(told.stdout) == sorted(str(installed / "herd" / "pack" / "rules" / path.name) for path in RULES)
