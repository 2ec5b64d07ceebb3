"""Time every endpoint of the page against a database: `python -m benchmarks.read_api PATH [--calls N]`.

A router of its own serves the database from another process, on loopback, as it would any other; the database is copied
first, unless `--in-place` allows to work on it. Exit status 1 where a 95th percentile is over the limit.

Beside the time that a client waits stands the processor's time that a call costs the router: where other programs want
the processors too, only that says how fast herd is. The load at begin and end says whether they did.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import psutil

READY_S: Final = 60.0
API: Final = "/dashboard/api"


def main() -> None:
    """Read the arguments, serve, ask, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="a database that make_database wrote")
    parser.add_argument("--calls", type=int, default=20, help="calls of each endpoint")
    parser.add_argument("--limit-ms", type=float, default=150.0, help="what the 95th percentile must stay under")
    parser.add_argument("--in-place", action="store_true", help="serve the file itself; the router may add to it")
    asked = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    with (
        _served(asked.path, asked.in_place) as (url, router),
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        slow = 0
        print(f"{'endpoint':<78} {'p50 ms':>8} {'p95 ms':>8} {'CPU ms':>8} {'KiB':>8}")
        for path in endpoints(client):
            used = _used(router)
            seconds, size = timed(client, path, asked.calls)
            cpu = (_used(router) - used) / (asked.calls + 1) * 1000
            p50, p95 = (percentile(seconds, share) * 1000 for share in (0.5, 0.95))
            slow += p95 > asked.limit_ms
            over = "  over" if p95 > asked.limit_ms else ""
            print(f"{path:<78} {p50:8.1f} {p95:8.1f} {cpu:8.1f} {size / 1024:8.1f}{over}")
        print(
            f"\n{slow} over {asked.limit_ms:g} ms; idle: {stalls(client):.1f} ms at the 95th percentile of /healthz, ",
            end="",
        )
        print(f"{stalls(client, f'{API}/trends?hours=720'):.1f} ms while the heaviest window is read")
    print(f"load {os.getloadavg()[0]:.1f}")
    sys.exit(1 if slow else 0)


def endpoints(client: httpx.Client) -> list[str]:
    """What the page asks for, over the longest windows, plain and with each filter; names come from the data itself."""
    busiest = client.get(f"{API}/usage?days=2").raise_for_status().json()["data"]
    row = next(row for row in busiest if row["node_id"] and row["model"])
    tag = client.get(f"{API}/apps?days=2").raise_for_status().json()["data"][0]["tag"]
    request_id = client.get(f"{API}/traces?limit=1").raise_for_status().json()["traces"][0]["request_id"]
    filters = ["", f"&tag={tag}", f"&model={row['model']}", f"&node_id={row['node_id']}",
               f"&tag={tag}&node_id={row['node_id']}", f"&model={row['model']}&node_id={row['node_id']}"]  # fmt: skip
    tables = ("apps?days=30", "apps/daily?days=30", "usage?days=30", "models?days=30", "trends?hours=720",
              "trends?hours=24", "latency?hours=720", "latency?hours=24")  # fmt: skip
    pages = ("", "&status=failed", f"&model={row['model']}", f"&node_id={row['node_id']}", f"&tag={tag}",
             "&min_latency_ms=60000", "&q=refused", f"&q={row['model']}", f"&q={request_id[:12]}",
             # what nothing, or little, is like: there a list would have to be looked through to its end
             "&q=nothing-is-like-this", "&q=nothing-is-like-this&status=failed", "&q=node&status=rejected",
             "&model=nothing", "&tag=nothing", "&min_latency_ms=1000000000")  # fmt: skip
    return [
        *(f"{API}/{table}{which}" for table in tables for which in filters),
        *(f"{API}/traces?limit=50{which}" for which in pages),
        f"{API}/traces?limit=1000",
        f"{API}/traces?limit=1000&format=csv",
        f"{API}/traces/{request_id[:12]}",
        f"{API}/traces/{request_id}",
        f"{API}/recommendations",
        f"{API}/health",
        f"{API}/settings",
        "/fleet/status",
    ]


def timed(client: httpx.Client, path: str, calls: int) -> tuple[list[float], int]:
    """Seconds of each call, and the bytes of an answer; one call before them warms nothing but the file cache."""
    size = len(_answered(client, path).content)
    seconds = []
    for _ in range(calls):
        begun = time.perf_counter()
        _answered(client, path)
        seconds.append(time.perf_counter() - begun)
    return seconds, size


def _answered(client: httpx.Client, path: str) -> httpx.Response:
    """An answer; that nothing is there is one as well."""
    answer = client.get(path)
    return answer if answer.status_code == 404 else answer.raise_for_status()


def stalls(client: httpx.Client, beside: str | None = None) -> float:
    """The 95th percentile in milliseconds of an answer that needs nothing, beside a reader of `beside` or none."""
    url = str(client.base_url)
    ask = "import httpx,sys\nwhile True: httpx.get(sys.argv[1], timeout=60)"
    reader = subprocess.Popen([sys.executable, "-c", ask, f"{url}{beside}"]) if beside else None
    try:
        if reader:
            timed(client, beside or "", 3)
        seconds, _ = timed(client, "/healthz", 300)
    finally:
        if reader:
            reader.kill()
            reader.wait()
    return percentile(seconds, 0.95) * 1000


def percentile(values: list[float], share: float) -> float:
    """By nearest rank; the median where the share is a half."""
    return statistics.median(values) if share == 0.5 else sorted(values)[math.ceil(share * len(values)) - 1]


@contextlib.contextmanager
def _served(path: Path, in_place: bool) -> Iterator[tuple[str, psutil.Process]]:
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="read-api-") as folder:
        home = Path(folder)
        (home / ".fleet-manager").mkdir()
        place = home / ".fleet-manager" / "latency.db"
        place.symlink_to(path.absolute()) if in_place else shutil.copyfile(path, place)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        own = {"HOME": folder, "HERD_PORT": str(port), "HERD_RETENTION_DAYS": "400"}
        router = subprocess.Popen(
            [sys.executable, "-m", "herd"], env={**os.environ, **own}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield _ready(f"http://127.0.0.1:{port}"), psutil.Process(router.pid)
        finally:
            router.send_signal(signal.SIGTERM)
            router.wait(60)


def _used(router: psutil.Process) -> float:
    """Seconds of the processors that the router had until now."""
    times = router.cpu_times()
    return float(times.user + times.system)


def _ready(url: str) -> str:
    end = time.monotonic() + READY_S
    while time.monotonic() < end:
        with contextlib.suppress(httpx.HTTPError, json.JSONDecodeError):
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return url
        time.sleep(0.1)
    raise TimeoutError(f"no router at {url} within {READY_S:g} s")


if __name__ == "__main__":
    main()
