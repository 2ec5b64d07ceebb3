"""The settings' values as they are now, and where each came from."""

from collections.abc import Mapping
from pathlib import Path

from herd.settings.table import Value


class Settings:
    """All values as they are now, and where each came from.

    Sources are `default`, `file`, `environment`, `command line` and `run time`. Whoever needs a value asks each time
    that it is needed: those that may change at run time do. `file` is the one that the next start reads as well,
    wherever it sends the data.
    """

    def __init__(self, values: Mapping[str, Value], sources: Mapping[str, str], file: Path) -> None:
        self._now = (values, sources)  # replaced as one, since other threads read them
        self.file = file

    @property
    def values(self) -> Mapping[str, Value]:
        """Every setting's value by its name."""
        return self._now[0]

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each value came from."""
        return self._now[1]

    def change(self, values: Mapping[str, Value], source: str = "run time") -> None:
        """Take these values from now on; they are checked before."""
        before, sources = self._now
        self._now = {**before, **values}, {**sources, **dict.fromkeys(values, source)}

    def text(self, name: str) -> str:
        """A setting that is a string."""
        value = self.values[name]
        assert isinstance(value, str), name
        return value

    def number(self, name: str) -> float:
        """A setting that is a number."""
        value = self.values[name]
        assert isinstance(value, int | float), name
        return float(value)

    def count(self, name: str) -> int:
        """A setting that is a whole number."""
        value = self.values[name]
        assert isinstance(value, int), name
        return value

    def flag(self, name: str) -> bool:
        """A setting that is true or false."""
        value = self.values[name]
        assert isinstance(value, bool), name
        return value

    @property
    def data_dir(self) -> Path:
        """The data directory, with `~` resolved."""
        return Path(self.text("data_dir")).expanduser()

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.data_dir / "latency.db"

    @property
    def log_dir(self) -> Path:
        """The folder of `herd.jsonl`."""
        return self.data_dir / "logs"
