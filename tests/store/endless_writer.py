"""A process for tests to kill: it writes without end, and prints how many requests are surely kept."""

import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from herd.store.writer import Writer
from tests.store import builders
from tests.store.waiting import written

writer = Writer(Path(sys.argv[1]), retention_days=36_500)
writer.start()
for number in count():
    writer.take(builders.finished(f"r{number}", attempts=2))
    if number % 20 == 19 and written(writer):
        print(number + 1, flush=True)
