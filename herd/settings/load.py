"""Reading the settings at startup.

Sources, later ones winning: default, `config.toml` in the data directory, `HERD_*` in the environment,
the command line, a change at run time. An unknown name, a wrong type, or two values that contradict each
other prevent the start, with a message that says which and where.
"""

import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final, get_args

from herd.settings.table import ASCENDING, BY_NAME, NAME, TABLE, TRACE_ID, VARIABLE, Setting, Value
from herd.settings.values import Settings


class SettingError(ValueError):
    """A setting's name or value is wrong; the text says which, and where it was read."""


def load(command_line: Mapping[str, Value] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """All settings; raises SettingError for a wrong name or value in any source."""
    environment = os.environ if environment is None else environment
    values: dict[str, Value] = {setting.name: setting.default for setting in TABLE}
    sources = dict.fromkeys(values, "default")

    def take(source: str, where: Callable[[str], str], found: Mapping[str, object]) -> None:
        for name, value in found.items():
            values[name] = checked(name, value, where(name))
            sources[name] = source

    spoken = {name: _from_text(name, text) for name, text in _from_environment(environment).items()}
    early = {**values, **spoken, **(command_line or {})}
    path = Path(str(early["data_dir"])).expanduser() / NAME
    text, found = _from_file(path)

    def in_file(name: str) -> str:
        line = _line_of(name, text)
        return f"{path}, line {line}" if line else str(path)

    take("file", in_file, found)
    take("environment", lambda name: f"{_variable(name)} in the environment", spoken)
    take("command line", lambda _: "the command line", command_line or {})
    for name, words in contradictions(values).items():
        if sources[name] != "default":  # at least one is not, since the defaults agree
            raise SettingError(f"{in_file(name) if sources[name] == 'file' else f'the {sources[name]}'}: {words}")
    return Settings(values, sources, path)


def contradictions(values: Mapping[str, Value]) -> dict[str, str]:
    """Contradictions between values that are valid by themselves: a message for each setting involved."""
    found: dict[str, str] = {}
    for less, more in ASCENDING:
        if values[less] > values[more]:  # type: ignore[operator]  # both are numbers
            words = f"{less} must not exceed {more} ({values[less]:g} > {values[more]:g})"
            found.update(dict.fromkeys((less, more), words))
    if values["trace_url"] and TRACE_ID not in str(values["trace_url"]):
        found["trace_url"] = f"trace_url must contain {TRACE_ID}, not {_written(values['trace_url'])}"
    return found


def checked(name: str, value: object, where: str = "") -> Value:
    """The value if it is valid for the setting; raises SettingError with the reason."""
    setting = BY_NAME.get(name)
    place = f"{where}: " if where else ""
    if setting is None:
        raise SettingError(f"{place}unknown setting {_written(name)}{_meant(name, str)}")
    wanted = type(setting.default)
    if wanted is float and type(value) is int:
        value = float(max(-LARGE, min(LARGE, value)))  # some integers overflow a float
    if type(value) is not wanted or not isinstance(value, get_args(Value)):
        raise SettingError(f"{place}{name} must be {_TYPE_WORDS[wanted]}, not {_written(value)}")
    if wrong := _out_of_bounds(setting, value):
        raise SettingError(f"{place}{name} must be {wrong}, not {_written(value)}")
    return value


def _out_of_bounds(setting: Setting, value: Value) -> str | None:
    """What a value of the right type must be and is not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            return "a finite number"
        if value < setting.minimum:
            return f"{setting.minimum:g} or more"
        return f"{setting.maximum:.12g} or less" if value > setting.maximum else None
    if setting.choices and value not in setting.choices:
        return f"one of {', '.join(setting.choices)}"
    if setting.pattern and value and not re.fullmatch(setting.pattern, str(value)):
        return f"empty or of the form `{setting.form}`"
    return None


def _meant(name: str, spell: Callable[[str], str]) -> str:
    near = get_close_matches(name, BY_NAME, 1)
    return f"{f', did you mean {spell(near[0])}?' if near else ';'} `herd docs settings` lists all settings"


def _written(value: object) -> str:
    """A value as JSON, with the contents of lists and objects elided."""
    if isinstance(value, list | dict):
        return "[…]" if isinstance(value, list) else "{…}"
    return json.dumps(value, default=str)


LARGE: Final = 10**18  # beyond every setting's bounds
_TYPE_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def _from_file(path: Path) -> tuple[str, Mapping[str, object]]:
    """The file's text and values; empty if there is no file."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return "", {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{path}: {error}") from error


def _line_of(name: str, text: str) -> int | None:
    """The line of a TOML file that sets a name or opens its table; None if it is written in another way."""
    given = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.split("\n"), 1) if given.match(line)), None)


def _variable(name: str) -> str:
    return f"{VARIABLE}{name.upper()}"


_OF_OTHERS = {"router_url", "url", "metrics_bind", "metrics_token", "key"}  # the agent's and the command line's
# Kubernetes sets these in every container of the namespace for a service called herd, or herd-something.
_OF_KUBERNETES = re.compile(
    r"HERD_(\w+_)?(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d*|PORT=(tcp|udp|sctp)://.*|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?=.*)"
)


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for key, text in environment.items():
        name = key.removeprefix(VARIABLE).lower()
        if not key.startswith(VARIABLE) or name in _OF_OTHERS or _OF_KUBERNETES.fullmatch(f"{key}={text}"):
            continue
        if name not in BY_NAME:
            raise SettingError(f"the environment: unknown setting {key}{_meant(name, _variable)}")
        named[name] = text
    return named


def _from_text(name: str, text: str) -> object:
    wanted = type(BY_NAME[name].default)
    try:
        if wanted is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.strip().lower()]
        return wanted(text)
    except (KeyError, ValueError):
        return text  # `checked` rejects it with the right message
