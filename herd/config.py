"""The settings: one table with name, default, meaning, and whether a setting may change while the router runs.

Where a value comes from, later ones winning: default, `config.toml` in the data directory, `HERD_*` in the environment,
the command line, a change at run time. A name or type that is not of the table, or two values that contradict each
other, stop the start, with a sentence that says which and where.
"""

import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final, get_args

Value = bool | int | float | str
NAME: Final = "config.toml"
VARIABLE: Final = "HERD_"
TRACE_ID: Final = "{trace_id}"
LARGE: Final = 10**18  # beyond every setting's bounds
_NAME = r"[^=;,\s]+"
_NETWORK = r"[0-9A-Fa-f]*[.:][0-9A-Fa-f:.]+(/[0-9]{1,3})?"
_ORIGIN = r"(\*|[a-z][a-z0-9+.-]*://[^\s,]*)"
RULES: Final = rf"(\s*{_NAME}\s*=\s*{_NAME}(\s*,\s*{_NAME})*\s*(;|$))*\s*"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table; the type of `default` is the type of the setting.

    `minimum` and `maximum` hold for numbers, `pattern` for texts, whole; `form` is a text that is right. A `secret` is
    shown only in part.
    """

    name: str
    default: Value
    help: str
    runtime: bool = False
    minimum: float = 0
    choices: tuple[str, ...] = ()
    maximum: float = math.inf
    pattern: str = ""
    form: str = ""
    secret: bool = False

    @property
    def is_number(self) -> bool:
        """Whether `minimum` and `maximum` hold."""
        return type(self.default) in {int, float}

    def shown(self, value: Value) -> Value:
        """The value as it may be shown to whoever reads the log or the page."""
        if not self.secret or not value:
            return value
        address = re.match(r"[a-z]+://[^/@\s]+/", str(value))
        return f"{address[0] if address else ''}…"


TABLE: Final = (
    Setting("host", "127.0.0.1", "Address to listen on; one that is not loopback is reachable from outside."),
    Setting("port", 11435, "Port to listen on.", minimum=1, maximum=65_535),
    Setting("data_dir", "~/.fleet-manager", "Where the database and the logs live."),
    Setting("log_level", "INFO", "Least level that is logged.",
            choices=("DEBUG", "INFO", "WARNING", "ERROR"), runtime=True),
    Setting("log_files_kept", 30, "Days of rotated log files that are kept.", minimum=1, maximum=3_650),
    Setting("allowed_hosts", "", "Further Host names to answer to, separated by commas; `*` for any."),
    Setting("allowed_origins", "", "Pages elsewhere that may use the fleet, separated by commas; `*` for any.",
            pattern=rf"{_ORIGIN}(\s*,\s*{_ORIGIN})*", form="https://chat.example.com, https://*.example.org"),
    Setting("trusted_proxies", "", "Addresses and networks of proxies whose X-Forwarded-For and -Proto are believed.",
            pattern=rf"{_NETWORK}(\s*,\s*{_NETWORK})*", form="127.0.0.1, 10.0.0.0/8, fd00::/8"),
    Setting("connections_per_address", 256, "Most connections of one address, which may be a proxy's.",
            minimum=1, maximum=65_536),
    Setting("body_limit_mb", 100, "Largest request body, in MiB.", minimum=1, maximum=10_240, runtime=True),
    Setting("heartbeat_degraded_s", 15.0, "A node without a heartbeat for this long is degraded.",
            minimum=1, maximum=3_600, runtime=True),
    Setting("heartbeat_offline_s", 30.0, "A node without a heartbeat for this long is offline.",
            minimum=1, maximum=86_400, runtime=True),
    Setting("queue_limit", 256, "Requests that may wait for one model; more are answered 429.",
            minimum=1, maximum=100_000, runtime=True),
    Setting("queue_timeout_s", 120.0, "Longest wait for a slot; then 503.", minimum=0.1, maximum=86_400, runtime=True),
    Setting("swap_patience_s", 30.0, "How long requests for a loaded model may overtake one that would unload it.",
            minimum=0, maximum=3_600, runtime=True),
    Setting("connect_timeout_s", 5.0, "Longest wait for a node to take a connection.",
            minimum=0.1, maximum=300, runtime=True),
    Setting("first_byte_timeout_s", 300.0, "Longest wait for the first content from a node.",
            minimum=0.1, maximum=86_400, runtime=True),
    Setting("load_timeout_s", 600.0, "What is added to that where the model has to be loaded first.",
            minimum=0, maximum=86_400, runtime=True),
    Setting("stall_timeout_s", 120.0, "Longest silence within an answer.", minimum=0.1, maximum=86_400, runtime=True),
    Setting("total_timeout_s", 3600.0, "Longest life of one attempt.", minimum=1, maximum=604_800, runtime=True),
    Setting("retries", 2, "Further nodes that a request may be tried on before its first content.",
            minimum=0, maximum=10, runtime=True),
    Setting("retry_budget_pct", 20.0, "Share of the requests in flight that may be on a retry (least: 3).",
            minimum=0, maximum=100, runtime=True),
    Setting("context_protection", "strip", "What to do with num_ctx that would make a node reload a model.",
            choices=("strip", "warn", "off"), runtime=True),
    Setting("loaded_fallback", True, "A loaded fallback that the client named beats a cold load.", runtime=True),
    Setting("equivalent_models", "", "Models as good as another, where only they are loaded: `a = b, c; d = e`.",
            runtime=True, pattern=RULES, form="qwen3:8b = gemma3:12b, mistral:7b; llama3.3:70b = qwen2.5:72b"),
    Setting("usage_in_streams", True, "Ask nodes for token counts in OpenAI streams where the client did not.",
            runtime=True),
    Setting("steady_billing_line", True, "Hold still the values in Claude Code's billing line, which change with every "
            "request and so cost engines the whole prompt's cache.", runtime=True),
    Setting("auto_pull", False, "Pull a model that no node has to the node with the best room when it is asked for.",
            runtime=True),
    Setting("auto_pull_timeout_s", 3600.0, "Longest such pull, and so the longest wait for one.",
            minimum=0.1, maximum=604_800, runtime=True),
    Setting("preload", False, "Keep the models that the last days asked for in memory where they fit.", runtime=True),
    Setting("preload_interval_s", 120.0, "How often to look what to load.", minimum=1, maximum=86_400, runtime=True),
    Setting("retention_days", 30, "Days that rows are kept.", minimum=1, maximum=3_650, runtime=True),
    Setting("store_limit_mb", 10_000, "Size of the database over which the oldest rows go, in MiB.",
            minimum=16, maximum=10_000_000, runtime=True),
    Setting("otlp_endpoint", "", "OTLP/HTTP endpoint for spans; empty: OTEL_EXPORTER_OTLP_ENDPOINT, or none.",
            pattern=r"https?://[!-~]+", form="http://localhost:4318"),
    Setting("trace_url", "", "Where a request's spans are shown; `{trace_id}` in it is replaced. The page links there.",
            runtime=True, pattern=r"https?://[!-~]+", form="http://localhost:16686/trace/{trace_id}"),
    Setting("metric_tags", 0, "How many different tags may be labels of metrics, first come first served; 0: none.",
            maximum=500),
    Setting("advertise", True, "Announce the router by mDNS where it listens on more than loopback."),
    Setting("shutdown_grace_s", 30.0, "How long running requests may take to end at shutdown.",
            minimum=0, maximum=3_600),
    Setting("webhook_url", "", "Where critical health findings and their recoveries are sent as JSON; empty: nowhere.",
            runtime=True, pattern=r"https?://[!-~]+", form="https://example.com/alerts", secret=True),
    Setting("health_min_requests", 20, "Requests that a rate needs before a health check judges it.",
            minimum=1, maximum=1_000_000, runtime=True),
    Setting("health_memory_warning_pct", 85.0, "Memory or VRAM in use from which memory_pressure warns.",
            maximum=100, runtime=True),
    Setting("health_memory_critical_pct", 95.0, "Memory or VRAM in use from which memory_pressure is critical.",
            maximum=100, runtime=True),
    Setting("health_node_errors_pct", 10.0, "Failed attempts of a node's last hour over which node_degraded warns.",
            maximum=100, runtime=True),
    Setting("health_idle_h", 24.0, "How long a node must be known before underutilized_node speaks of it.",
            maximum=8_760, runtime=True),
    Setting("health_fallback_warning_pct", 5.0, "Requests answered by a fallback over which vram_fallback warns.",
            maximum=100, runtime=True),
    Setting("health_zombies_critical", 10, "Requests reaped in a day over which zombie_reaper is critical.",
            maximum=1_000_000, runtime=True),
    Setting("health_thrash_loads", 4, "Loads and unloads of one model on one node in an hour from which it thrashes.",
            minimum=2, maximum=10_000, runtime=True),
    Setting("health_slow_factor", 3.0, "A request is slow at so many times the p95 latency of its model.",
            minimum=1, maximum=1_000, runtime=True),
    Setting("health_slow_floor_s", 30.0, "No request that is faster than this is called slow.",
            maximum=86_400, runtime=True),
    Setting("health_slow_pct", 1.0, "Slow and timed out requests of a model over which request_timeouts warns.",
            maximum=100, runtime=True),
    Setting("health_error_warning_pct", 5.0, "Failed requests of a node or model over which error_rate warns.",
            maximum=100, runtime=True),
    Setting("health_error_critical_pct", 25.0, "Failed requests of a node or model over which error_rate is critical.",
            maximum=100, runtime=True),
    Setting("health_kv_ratio", 1.5, "Loaded size over the weights' size from which kv_cache_bloat looks at a model.",
            minimum=1, maximum=100, runtime=True),
    Setting("health_kv_info_pct", 15.0, "Share of a node's memory beyond the weights over which kv_cache_bloat speaks.",
            maximum=100, runtime=True),
    Setting("health_kv_warning_pct", 30.0, "The same share over which it warns.", maximum=100, runtime=True),
    Setting("health_kv_critical_pct", 50.0, "The same share over which it is critical.", maximum=100, runtime=True),
    Setting("health_retry_info", 0.3, "Retries per request over which retry_rate speaks.", maximum=10, runtime=True),
    Setting("health_retry_warning", 0.5, "Retries per request over which retry_rate warns.", maximum=10, runtime=True),
    Setting("health_disconnects_pct", 1.0, "Requests whose client left over which client_disconnects warns.",
            maximum=100, runtime=True),
    Setting("health_incomplete_pct", 0.5, "Answers without their proper end over which incomplete_streams warns.",
            maximum=100, runtime=True),
    Setting("health_context_factor", 4.0, "Loaded context over the largest request's tokens from which it is wasted.",
            minimum=1, maximum=1_000, runtime=True),
    Setting("health_clock_skew_s", 5.0, "Difference of a node's clock over which clock_skew warns.",
            maximum=86_400, runtime=True),
    Setting("health_slo_pct", 99.0, "Requests that should succeed: the objective that slo_burn watches.",
            maximum=99.99, runtime=True),
    Setting("health_disk_warning_pct", 10.0, "Free share of a disk under which disk_low warns.",
            maximum=100, runtime=True),
    Setting("health_disk_critical_pct", 3.0, "Free share of a disk under which disk_low is critical.",
            maximum=100, runtime=True),
    Setting("health_resolve_after_s", 60.0, "A finding is over once it was not seen for this long.",
            maximum=604_800, runtime=True),
)  # fmt: skip
# The first of each pair is at most the second: what comes later as things get worse cannot come before.
ASCENDING: Final = (
    ("heartbeat_degraded_s", "heartbeat_offline_s"),
    ("health_memory_warning_pct", "health_memory_critical_pct"),
    ("health_error_warning_pct", "health_error_critical_pct"),
    ("health_kv_info_pct", "health_kv_warning_pct"),
    ("health_kv_warning_pct", "health_kv_critical_pct"),
    ("health_retry_info", "health_retry_warning"),
    ("health_disk_critical_pct", "health_disk_warning_pct"),
)
BY_NAME: Final[Mapping[str, Setting]] = {setting.name: setting for setting in TABLE}


class SettingError(ValueError):
    """A setting's name or value is not of the table; the text says which, and where it was read."""


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


def load(command_line: Mapping[str, Value] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """All settings; raises SettingError for a wrong name or value, wherever it stands."""
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
        if sources[name] != "default":  # one of them is not: the defaults agree
            raise SettingError(f"{in_file(name) if sources[name] == 'file' else f'the {sources[name]}'}: {words}")
    return Settings(values, sources, path)


def contradictions(values: Mapping[str, Value]) -> dict[str, str]:
    """What is wrong with values that are right by themselves, in words, by the name of every setting that has part."""
    found: dict[str, str] = {}
    for less, more in ASCENDING:
        if values[less] > values[more]:  # type: ignore[operator]  # both are numbers
            words = f"{less} is at most {more}, not {values[less]:g} beside {values[more]:g}"
            found.update(dict.fromkeys((less, more), words))
    if values["trace_url"] and TRACE_ID not in str(values["trace_url"]):
        found["trace_url"] = f"trace_url has {TRACE_ID} in it, where the id goes, not {_written(values['trace_url'])}"
    return found


def checked(name: str, value: object, where: str) -> Value:
    """The value if it is right for the setting; raises SettingError with the reason."""
    setting = BY_NAME.get(name)
    if setting is None:
        raise SettingError(f"{where}: there is no setting {_written(name)}{_meant(name, str)}")
    wanted = type(setting.default)
    if wanted is float and type(value) is int:
        value = float(max(-LARGE, min(LARGE, value)))  # there are whole numbers that no float can hold
    if type(value) is not wanted or not isinstance(value, get_args(Value)):
        raise SettingError(f"{where}: {name} takes {_TYPE_WORDS[wanted]}, not {_written(value)}")
    if wrong := _out_of_bounds(setting, value):
        raise SettingError(f"{where}: {name} {wrong}, not {_written(value)}")
    return value


def _out_of_bounds(setting: Setting, value: Value) -> str | None:
    """What a value of the right type should be and is not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            return "is a finite number"
        if value < setting.minimum:
            return f"is at least {setting.minimum:g}"
        return f"is at most {setting.maximum:.12g}" if value > setting.maximum else None
    if setting.choices and value not in setting.choices:
        return f"is one of {', '.join(setting.choices)}"
    if setting.pattern and value and not re.fullmatch(setting.pattern, str(value)):
        return f"is empty or like `{setting.form}`"
    return None


def _meant(name: str, spell: Callable[[str], str]) -> str:
    near = get_close_matches(name, BY_NAME, 1)
    return f"{f', did you mean {spell(near[0])}?' if near else ';'} `herd docs settings` lists them all"


def _written(value: object) -> str:
    """A value as JSON has it, from wherever it came; without what is within a list or an object."""
    if isinstance(value, list | dict):
        return "[…]" if isinstance(value, list) else "{…}"
    return json.dumps(value, default=str)


_TYPE_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _from_file(path: Path) -> tuple[str, Mapping[str, object]]:
    """The file's text and what it says; nothing where there is none."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return "", {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{path}: {error}") from error


def _line_of(name: str, text: str) -> int | None:
    """The line on which a TOML file gives a name its value, or begins its table; None where it is written otherwise."""
    given = re.compile(rf"""\s*\[*\s*["']?{re.escape(name)}["']?\s*[=.\]]""")
    return next((number for number, line in enumerate(text.split("\n"), 1) if given.match(line)), None)


def _variable(name: str) -> str:
    return f"{VARIABLE}{name.upper()}"


_OF_OTHERS = {"router_url", "url", "metrics_bind", "metrics_token"}  # the agent's and the command line's
# Kubernetes tells every container of the namespace about a service called herd, or herd-something, in these.
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
            raise SettingError(f"the environment: there is no setting {key}{_meant(name, _variable)}")
        named[name] = text
    return named


def _from_text(name: str, text: str) -> object:
    wanted = type(BY_NAME[name].default)
    try:
        if wanted is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.strip().lower()]
        return wanted(text)
    except (KeyError, ValueError):
        return text  # `checked` refuses it with the right sentence
