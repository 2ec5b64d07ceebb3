"""What tests wait for: that a writer has written what it took."""

from herd.store.writer import Writer
from tests.harness import until

PATIENCE_S = 60.0


def written(writer: Writer) -> bool:
    """Wait until the database is open and nothing waits; whether all that was taken before is in the database."""
    before = writer.stats()
    writer.hurry()
    after = until(lambda: (stats := writer.stats()).up and not stats.waiting and stats, "all is written", PATIENCE_S)
    return (after.failed, after.others_lost) == (before.failed, before.others_lost)
