"""Changes settings at run time: validates them together, saves them in `config.toml`, applies them, emits events.

It knows the order of these steps; the effect of a setting is known only where it is read.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from herd.core.events import FleetChanged
from herd.settings import file
from herd.settings.load import SettingError, checked, contradictions, load
from herd.settings.table import BY_NAME, NAME, Value
from herd.settings.values import Settings

logger = logging.getLogger(__name__)
STRONGER = ("environment", "command line")  # these override the file at the next start


class Refusal(ValueError):
    """A requested change is invalid; `problems` maps names to messages, and nothing was changed."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__("; ".join(problems.values()))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Change:
    """One changed setting; `kept` False: the environment or command line overrides it at the next start."""

    name: str
    before: Value
    value: Value
    kept: bool


class Switchboard:
    """The only way to change a setting; `follow` is called after a change, to update copies of values."""

    def __init__(self, settings: Settings, emit: Callable[[FleetChanged], None], follow: Callable[[], None]) -> None:
        self.settings = settings
        self._emit = emit
        self._follow = follow
        self._one_at_a_time = asyncio.Lock()
        sources = settings.sources
        self._stronger = {name: value for name, value in settings.values.items() if sources[name] in STRONGER}

    @property
    def path(self) -> Path:
        """The file that changes are saved in: the one read at startup."""
        return self.settings.file

    async def change(self, wanted: Mapping[str, object], by: str | None = None) -> tuple[Change, ...]:
        """Apply new values, all or none; returns those that differ from before.

        Raises Refusal if a name, type or value is wrong, file.NotKept if the file cannot be written.
        """
        values = accepted(wanted)
        async with self._one_at_a_time:
            self._refuse_contradictions(values)
            changes = [
                Change(name, before, value, name not in self._stronger)
                for name, value in values.items()
                if (before := self.settings.values[name]) != value
            ]
            if changes:
                await asyncio.to_thread(file.keep, self.path, {change.name: change.value for change in changes})
                self.settings.change({change.name: change.value for change in changes})
                self._follow()
        for change in changes:
            self._emit(_event(change, by))
        return tuple(changes)

    async def reread(self) -> tuple[Change, ...]:
        """Apply run-time settings that changed in the file; settings that need a restart are logged.

        Raises SettingError if the file is invalid; then nothing changes.
        """
        async with self._one_at_a_time:
            place = {"HERD_DATA_DIR": str(self.path.parent)}
            fresh = (await asyncio.to_thread(load, self._stronger, place)).values
            other = {name: value for name, value in fresh.items() if value != self.settings.values[name]}
            for name in other.keys() - {"data_dir"}:
                if not BY_NAME[name].runtime:
                    logger.warning("%s changed in %s and takes effect at the next start", name, self.path)
            values = {name: value for name, value in other.items() if BY_NAME[name].runtime}
            changes = [Change(name, self.settings.values[name], value, True) for name, value in values.items()]
            if changes:
                self.settings.change(values, "file")
                self._follow()
        for change in changes:
            self._emit(_event(change, None))
        return tuple(changes)

    def _refuse_contradictions(self, values: Mapping[str, Value]) -> None:
        """Reject values that would contradict each other now or at the next start."""
        now = {**self.settings.values, **values}
        for together in (now, {**now, **self._stronger}):
            if wrong := contradictions(together):
                raise Refusal({name: words for name, words in wrong.items() if name in values} or wrong)


def accepted(wanted: Mapping[str, object]) -> dict[str, Value]:
    """The values by name, if all are valid and can change at run time. Raises Refusal."""
    values: dict[str, Value] = {}
    problems: dict[str, str] = {}
    for name, value in wanted.items():
        setting = BY_NAME.get(name)
        try:
            if setting and not setting.runtime:
                raise SettingError(f"{name} requires a restart: set it in {NAME} and restart the router")
            values[name] = checked(name, value)
        except SettingError as error:
            problems[name] = str(error)
    if problems:
        raise Refusal(problems)
    return values


def _event(change: Change, by: str | None) -> FleetChanged:
    setting = BY_NAME[change.name]
    data = {"name": change.name, "before": setting.shown(change.before), "value": setting.shown(change.value), "by": by}
    return FleetChanged(time.time(), "setting_changed", data=data)
