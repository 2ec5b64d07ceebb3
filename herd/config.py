"""The settings: one table with name, default, meaning, and whether a setting may change while the router runs.

Where a value comes from, later ones winning: default, `config.toml` in the data directory, `HERD_*` in the environment,
the command line. A name or type that is not of the table stops the start, with a sentence that says which and where.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table; the type of `default` is the type of the setting. `minimum` holds for numbers."""

    name: str
    default: Value
    help: str
    runtime: bool = False
    minimum: float = 0
    choices: tuple[str, ...] = ()


TABLE: Final = (
    Setting("host", "127.0.0.1", "Address to listen on; one that is not loopback is reachable from outside."),
    Setting("port", 11435, "Port to listen on.", minimum=1),
    Setting("data_dir", "~/.fleet-manager", "Where the database and the logs live."),
    Setting("log_level", "INFO", "Least level that is logged.", choices=("DEBUG", "INFO", "WARNING", "ERROR")),
    Setting("log_files_kept", 30, "Days of rotated log files that are kept.", minimum=1),
    Setting("allowed_hosts", "", "Further Host names to answer to, separated by commas; `*` for any."),
    Setting("body_limit_mb", 100, "Largest request body, in MiB.", minimum=1),
    Setting("heartbeat_degraded_s", 15.0, "A node without a heartbeat for this long is degraded.", minimum=1),
    Setting("heartbeat_offline_s", 30.0, "A node without a heartbeat for this long is offline.", minimum=1),
    Setting("queue_limit", 256, "Requests that may wait for one model; more are answered 429.", minimum=1),
    Setting("queue_timeout_s", 120.0, "Longest wait for a slot; then 503.", minimum=0.1),
    Setting("connect_timeout_s", 5.0, "Longest wait for a node to take a connection.", minimum=0.1),
    Setting("first_byte_timeout_s", 300.0, "Longest wait for the first content from a node.", minimum=0.1),
    Setting("load_timeout_s", 600.0, "What is added to that where the model has to be loaded first.", minimum=0),
    Setting("stall_timeout_s", 120.0, "Longest silence within an answer.", minimum=0.1),
    Setting("total_timeout_s", 3600.0, "Longest life of one attempt.", minimum=1),
    Setting("retries", 2, "Further nodes that a request may be tried on before its first content.", minimum=0),
    Setting("retry_budget_pct", 20.0, "Share of the requests in flight that may be on a retry (least: 3).", minimum=0),
    Setting("context_protection", "strip", "What to do with num_ctx that would make a node reload a model.",
            choices=("strip", "warn", "off")),
    Setting("loaded_fallback", True, "A loaded fallback that the client named beats a cold load."),
    Setting("usage_in_streams", True, "Ask nodes for token counts in OpenAI streams where the client did not."),
    Setting("retention_days", 30, "Days that rows are kept.", minimum=1),
    Setting("store_limit_mb", 10_000, "Size of the database over which the oldest rows go, in MiB.", minimum=16),
    Setting("otlp_endpoint", "", "OTLP/HTTP endpoint for spans; empty: OTEL_EXPORTER_OTLP_ENDPOINT, or none."),
    Setting("advertise", True, "Announce the router by mDNS where it listens on more than loopback."),
    Setting("shutdown_grace_s", 30.0, "How long running requests may take to end at shutdown.", minimum=0),
)  # fmt: skip
BY_NAME: Final[Mapping[str, Setting]] = {setting.name: setting for setting in TABLE}


class SettingError(ValueError):
    """A setting's name or value is not of the table; the text says which, and where it was read."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All values, and where each came from (`default`, `file`, `environment`, `command line`)."""

    values: Mapping[str, Value]
    sources: Mapping[str, str]

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


def load(command_line: Mapping[str, Value] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """All settings; raises SettingError for a wrong name or value, wherever it stands."""
    environment = os.environ if environment is None else environment
    values: dict[str, Value] = {setting.name: setting.default for setting in TABLE}
    sources = dict.fromkeys(values, "default")

    def take(source: str, where: str, found: Mapping[str, object]) -> None:
        for name, value in found.items():
            values[name] = checked(name, value, where)
            sources[name] = source

    spoken = {name: _from_text(name, text) for name, text in _from_environment(environment).items()}
    early = {**values, **spoken, **(command_line or {})}
    path = Path(str(early["data_dir"])).expanduser() / "config.toml"
    take("file", str(path), _from_file(path))
    take("environment", "the environment (HERD_…)", spoken)
    take("command line", "the command line", command_line or {})
    return Settings(values, sources)


def checked(name: str, value: object, where: str) -> Value:
    """The value if it is right for the setting; raises SettingError with the reason."""
    setting = BY_NAME.get(name)
    if setting is None:
        raise SettingError(f"{where}: there is no setting {name!r}; `herd docs settings` lists them all")
    wanted = type(setting.default)
    if wanted is float and type(value) is int:
        value = float(value)
    if type(value) is not wanted or not isinstance(value, get_args(Value)):
        raise SettingError(f"{where}: {name} takes {_TYPE_WORDS[wanted]}, not {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool) and value < setting.minimum:
        raise SettingError(f"{where}: {name} is at least {setting.minimum:g}, not {value!r}")
    if setting.choices and value not in setting.choices:
        raise SettingError(f"{where}: {name} is one of {', '.join(setting.choices)}, not {value!r}")
    return value


_TYPE_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _from_file(path: Path) -> Mapping[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{path}: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    prefix = "HERD_"
    named = {key[len(prefix) :].lower(): text for key, text in environment.items() if key.startswith(prefix)}
    for other in ("router_url", "url"):  # the agent's and the command line's, not the router's
        named.pop(other, None)
    return named


def _from_text(name: str, text: str) -> object:
    setting = BY_NAME.get(name)
    wanted = type(setting.default) if setting else str
    try:
        if wanted is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.strip().lower()]
        return wanted(text)
    except (KeyError, ValueError):
        return text  # `checked` refuses it with the right sentence
