"""Programs that the demo starts: what they say goes into a file, and they end with what started them."""

import asyncio
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path


@asynccontextmanager
async def child(
    command: Sequence[str], said: Path, patience_s: float, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    """A program in a session of its own, so that Ctrl-C on the terminal is for its parent alone.

    At the end it is asked to end, and made to after `patience_s`. `environment` replaces the parent's.
    """
    with said.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=out, stderr=out, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
            try:
                async with asyncio.timeout(patience_s):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


def last_words(said: Path) -> str:
    """The last line that it said."""
    lines = said.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
