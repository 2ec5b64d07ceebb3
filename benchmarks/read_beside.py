"""Does reading the page's longest windows hold up requests? `python -m benchmarks.read_beside PATH [--code . OTHER]`.

A router of its own serves the database, with one simulated node. One client asks for an answer again and again, by
turns alone and beside somebody who reads a month without a pause; a line for each source tree and each of the
interpreter's switch intervals, which are tried in turn, round by round. What else runs on the machine only ever adds to
a figure, so beside the median round stands the best one. PATH is a database that make_database wrote; the routers may
add to it.
"""

import argparse
import http.client
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Final

from benchmarks.contenders import free_port
from benchmarks.read_api import percentile

MODEL: Final = "llama3.2:3b"
BODY: Final = json.dumps({"model": MODEL, "prompt": "Hello", "stream": False, "options": {"num_predict": 4}})
API: Final = "/dashboard/api"
WINDOWS: Final = ("trends?hours=720", "latency?hours=720", "usage?days=30", "models?days=30", "apps/daily?days=30",
                  "traces?limit=1000")  # fmt: skip
READ: Final = "import http.client, itertools, sys\n" \
    "c = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=120)\n" \
    "for path in itertools.cycle(sys.argv[2:]): c.request('GET', path); c.getresponse().read()"  # fmt: skip
START: Final = "import sys; sys.setswitchinterval(float(sys.argv[1])); from herd.cli import main; sys.exit(main([]))"


def main() -> None:
    """Read the arguments, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--switch-ms", type=float, nargs="+", default=[5.0], help="the interpreter's switch intervals")
    parser.add_argument("--code", type=Path, nargs="+", default=[Path()], help="source trees whose herd is measured")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=200, help="in each round, alone and beside the reader")
    asked = parser.parse_args()
    kinds = list(itertools.product(asked.code, asked.switch_ms))
    p50s, p99s = defaultdict(list), defaultdict(list)
    with ExitStack() as stack:
        ports = {kind: stack.enter_context(_served(asked.path, *kind)) for kind in kinds}
        for _ in range(asked.rounds):
            for kind, port in ports.items():
                for how, reading in (("alone", nullcontext()), ("beside", _reading(port))):
                    with reading:
                        found = timed(port, asked.requests)
                    p50s[kind, how].append(percentile(found, 0.5) * 1000)
                    p99s[kind, how].append(percentile(found, 0.99) * 1000)
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; ms, {asked.rounds} rounds")
    print(
        f"{'code':>16} {'interval':>8} {'p50':>7} {'beside':>7} {'p99':>7} {'beside':>7} {'best p99':>9} {'beside':>7}"
    )
    for code, switch_ms in kinds:
        alone, beside = ((code, switch_ms), "alone"), ((code, switch_ms), "beside")
        figures = (statistics.median(p50s[alone]), statistics.median(p50s[beside]), statistics.median(p99s[alone]),
                   statistics.median(p99s[beside]))  # fmt: skip
        told = " ".join(f"{figure:7.2f}" for figure in figures)
        print(f"{code!s:>16} {switch_ms:8g} {told} {min(p99s[alone]):9.2f} {min(p99s[beside]):7.2f}")


def timed(port: int, count: int) -> list[float]:
    """Seconds of each request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found = []
    for _ in range(count):
        begun = time.perf_counter()
        connection.request("POST", "/api/generate", BODY)
        answer = connection.getresponse()
        answer.read()
        found.append(time.perf_counter() - begun)
        assert answer.status == 200, answer.status
    connection.close()
    return found


@contextmanager
def _reading(port: int) -> Iterator[None]:
    reader = subprocess.Popen([sys.executable, "-c", READ, str(port), *(f"{API}/{each}" for each in WINDOWS)])
    try:
        yield
    finally:
        reader.kill()
        reader.wait()


@contextmanager
def _served(path: Path, code: Path, switch_ms: float) -> Iterator[int]:
    with tempfile.TemporaryDirectory(prefix="read-beside-") as folder, ExitStack() as stack:
        port, node = free_port(), free_port()
        (Path(folder) / "latency.db").symlink_to(path.absolute())
        own = {"HERD_DATA_DIR": folder, "HERD_PORT": str(port), "HERD_RETENTION_DAYS": "400"}
        sim = ("-m", "herd.sim", "--node-id", "sim", "--port", str(node), "--model", f"{MODEL}=1", "--slots", "64",
               "--router", f"http://127.0.0.1:{port}", "--tokens-per-s", "0", "--load-bytes-per-s", "0")  # fmt: skip
        for command in (("-c", START, str(switch_ms / 1000)), sim):
            started = subprocess.Popen(
                [sys.executable, *command], env={**os.environ, **own}, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, cwd=code,
            )  # fmt: skip
            stack.callback(started.wait, 60)
            stack.callback(started.terminate)
        _wait_until_it_answers(port)
        yield port


def _wait_until_it_answers(port: int) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            timed(port, 1)
        except (OSError, AssertionError):
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("no answer from a router within 60 s")


if __name__ == "__main__":
    main()
