"""A router's recording side alone, to be killed: `python -m tests.recorder.router HOME COUNT`.

It records so many requests a millisecond or two before it says so on its output, and then records no more.
"""

import asyncio
import os
import sys
from pathlib import Path

from herd.recorder.recorder import Kept, Recorder
from tests.store import builders


async def main(home: Path, count: int) -> None:
    recorder = Recorder(Kept(home / "latency.db", home / "logs", retention_days=36_500))
    await recorder.start(30)
    for number in range(count):
        recorder.take(builders.finished(f"r{number}"))
        if number % 20 == 0:
            await asyncio.sleep(0)
    await asyncio.sleep(0.002)
    print(recorder.pid, flush=True)
    os.read(0, 1)


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
