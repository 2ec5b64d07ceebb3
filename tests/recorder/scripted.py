"""A recorder that does not do what it should: `python -m tests.recorder.scripted HOW FOLDER IN OUT`.

It writes what it gets into a file of FOLDER, named by its process id, and then, by HOW: `dies` after ten events,
having told of five; `deaf` reads nothing at all; `shut` lives on with its pipe closed; `late` tells only when it is
hurried; `proper` tells at once.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from herd.recorder.frames import BEGIN, END, HURRY, ITEMS, Report, Splitter, report_out
from herd.store.writer import StoreStats
from herd.telemetry.counts import LogStats

DIES_AFTER, TELLS_OF, LIFE_S = 10, 5, 120
how, folder, inbound, outbound = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
splitter, got = Splitter(), 0


def tell(count: int) -> None:
    with suppress(BrokenPipeError):
        os.write(outbound, report_out(Report(LogStats(disposed=count), StoreStats(disposed=count, up=True))))


if how == "shut":
    os.close(inbound)
    tell(0)
if how in {"deaf", "shut"}:
    (folder / str(os.getpid())).touch()
    signal.alarm(LIFE_S)  # it ignores even the end of its router
    signal.pause()
with (folder / str(os.getpid())).open("w") as said:
    while data := os.read(inbound, 2**16):
        for kind, *rest in splitter.feed(data):
            if kind == BEGIN:
                tell(0)
            for lanes, _, repeat, _, values in rest[2] if kind == ITEMS else ():
                got += 1
                print(json.dumps([lanes, repeat, values[0]]), file=said, flush=True)
                if how == "dies" and got == DIES_AFTER:
                    tell(TELLS_OF)
                    os._exit(1)
            if kind == END:
                tell(got)
                os._exit(0)
            if how == "proper" or kind == HURRY:
                tell(got)
