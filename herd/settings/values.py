"""Current values of all settings, and their sources."""

from collections.abc import Mapping
from pathlib import Path

from herd.settings.table import Value


class Settings:
    """Current values of all settings, and their sources.

    Sources are `default`, `file`, `environment`, `command line` and `run time`. Read a value each time it is
    needed, since run-time settings change. `file` is the one that the next start reads as well,
    wherever it puts the data.
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
        """The source of each value."""
        return self._now[1]

    def change(self, values: Mapping[str, Value], source: str = "run time") -> None:
        """Apply these values, which were validated before."""
        before, sources = self._now
        self._now = {**before, **values}, {**sources, **dict.fromkeys(values, source)}

    def text(self, name: str) -> str:
        """A setting that is a string."""
        value = self._now[0][name]
        assert isinstance(value, str), name
        return value

    def number(self, name: str) -> float:
        """A setting that is a number."""
        value = self._now[0][name]
        assert isinstance(value, int | float), name
        return float(value)

    def count(self, name: str) -> int:
        """A setting that is a whole number."""
        value = self._now[0][name]
        assert isinstance(value, int), name
        return value

    def flag(self, name: str) -> bool:
        """A setting that is true or false."""
        value = self._now[0][name]
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
