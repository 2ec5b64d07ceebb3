"""A real Prometheus for tests: a process with its own data that scrapes routers, agents and a collector."""

import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.harness import free_port, until

READY_S = 30


class Prometheus:
    """One `prometheus` on a free port of loopback; `rules` are files, `agents` is the routers' file of targets.

    Every rule is evaluated each second, in groups with an interval of their own too: no test waits for two minutes.
    """

    def __init__(self, home: Path, routers: list[str], agents: Path, rules: list[Path], collector: str = "") -> None:
        self.home = home
        self.url = f"http://127.0.0.1:{free_port()}"
        self._rules = rules
        self._config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(home / path.name) for path in rules],
            "scrape_configs": [
                {"job_name": "herd", "static_configs": [{"targets": routers}]},
                {"job_name": "herd-agents", "file_sd_configs": [{"files": [str(agents)]}]},
                {"job_name": "otel-collector", "static_configs": [{"targets": [collector] if collector else []}]},
            ],
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers queries."""
        self.home.mkdir(parents=True)
        config = self.home / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config))
        for path in self._rules:
            groups = yaml.safe_load(path.read_text())["groups"]
            hurried = [{key: value for key, value in group.items() if key != "interval"} for group in groups]
            (self.home / path.name).write_text(yaml.safe_dump({"groups": hurried}))
        options = (
            f"--config.file={config}", f"--storage.tsdb.path={self.home / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}", "--enable-feature=exemplar-storage",
            "--log.level=warn",
        )  # fmt: skip
        with (self.home / "said.txt").open("wb") as said:
            self._process = subprocess.Popen(["prometheus", *options], stdout=said, stderr=said)
        until(self._ready, "Prometheus is ready", READY_S)

    def stop(self) -> None:
        """End it by its process id."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(20)
            finally:
                self._process.kill()

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """The samples of a query at a moment, else now; fails with Prometheus's own words where it is wrong."""
        asked = {"query": expr, **({} if at is None else {"time": str(at)})}
        answer = httpx.get(f"{self.url}/api/v1/query", params=asked, timeout=20).json()
        assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
        return list(answer["data"]["result"])

    def value(self, expr: str) -> float | None:
        """The value of the first sample; None where there is none."""
        found = self.query(expr)
        return float(found[0]["value"][1]) if found else None

    def get(self, path: str, **params: str) -> Any:
        """The data of any other question."""
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=params, timeout=20).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def fired(self, since: float) -> set[str]:
        """The names of the alerts that have fired since this moment (unix seconds)."""
        window = max(1, round(time.time() - since))
        found = self.query(f'max_over_time(ALERTS{{alertstate="firing"}}[{window}s])')
        return {alert["metric"]["alertname"] for alert in found}

    def scraped(self) -> None:
        """Wait until the router has been scraped again, and rules have been evaluated on what came."""
        before = self.value('timestamp(up{job="herd"})') or 0.0
        until(lambda: (self.value('timestamp(up{job="herd"})') or 0.0) > before + 2, "two more scrapes")

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "said.txt").read_text()
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False
