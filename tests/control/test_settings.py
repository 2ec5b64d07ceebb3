"""Settings come from four places, and a wrong one stops the start with a sentence."""

import pytest

from herd.settings.load import SettingError, load
from herd.settings.table import TABLE


def test_every_setting_has_a_default_of_its_own_type_and_a_meaning():
    """The table is the documentation."""
    for setting in TABLE:
        assert setting.help.endswith(".")
    loaded = load({}, {"HERD_DATA_DIR": "/nonexistent"})
    assert set(loaded.sources.values()) == {"default", "environment"}


def test_what_the_environment_says_to_the_agent_does_not_stop_the_router(tmp_path):
    """Both may be started from one shell, or from one file of variables."""
    own = dict.fromkeys(("HERD_ROUTER_URL", "HERD_METRICS_BIND", "HERD_METRICS_TOKEN"), "127.0.0.1:9000")
    assert load({}, {"HERD_DATA_DIR": str(tmp_path), **own}).sources["data_dir"] == "environment"


@pytest.mark.parametrize("service", ["HERD", "HERD_ROUTER"])
def test_what_kubernetes_says_of_a_service_called_herd_does_not_stop_the_router(tmp_path, service):
    """Every container of the namespace is given these, so a service of our own name would keep us from starting."""
    where = f"{service}_PORT_11435_TCP"
    told = {
        f"{service}_SERVICE_HOST": "10.96.12.7", f"{service}_SERVICE_PORT": "11435",
        f"{service}_SERVICE_PORT_HTTP": "11435", f"{service}_PORT": "tcp://10.96.12.7:11435",
        where: "tcp://10.96.12.7:11435", f"{where}_PROTO": "tcp", f"{where}_PORT": "11435",
        f"{where}_ADDR": "10.96.12.7",
    }  # fmt: skip
    settings = load({"data_dir": str(tmp_path)}, told)
    assert (settings.count("port"), settings.sources["port"]) == (11435, "default")
    for mine in ("HERD_PORT", "HERD_ROUTER_PORT"):
        with pytest.raises(SettingError, match=mine):
            load({"data_dir": str(tmp_path)}, {mine: "11435x"})


@pytest.mark.parametrize("setting", [each for each in TABLE if each.is_number], ids=lambda each: each.name)
def test_every_number_has_bounds_and_what_is_beyond_them_is_refused(setting, tmp_path):
    """A thousand retries, or a wait of thirty years, is a slip of the finger and not a wish."""
    assert setting.minimum <= setting.default <= setting.maximum <= 10_000_000
    kind = type(setting.default)
    for beyond in (setting.minimum - 1, setting.maximum + 1, 10**12):
        with pytest.raises(SettingError, match=f"{setting.name} must be .* or (more|less)"):
            load({"data_dir": str(tmp_path), setting.name: kind(beyond)}, {})


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(tmp_path):
    """The nearer, the stronger."""
    (tmp_path / "config.toml").write_text("port = 1000\nretries = 1\nqueue_limit = 7\n")
    settings = load({"port": 3000}, {"HERD_DATA_DIR": str(tmp_path), "HERD_PORT": "2000", "HERD_RETRIES": "5"})
    assert [settings.count(name) for name in ("port", "retries", "queue_limit", "retention_days")] == [3000, 5, 7, 30]
    named = [settings.sources[name] for name in ("port", "retries", "queue_limit", "retention_days")]
    assert named == ["command line", "environment", "file", "default"]


@pytest.mark.parametrize(
    ("file", "environment", "words"),
    [
        ("prot = 1", {}, r"config.toml, line 1: unknown setting \"prot\", did you mean port\?"),
        ('advertise = "false"', {}, 'line 1: advertise must be true or false, not "false"'),
        ("# mine\n\nport = true", {}, "config.toml, line 3: port must be a whole number, not true"),
        ("retries = 2\n  'port' = 0", {}, "config.toml, line 2: port must be 1 or more"),
        ("retries = 1000", {}, "line 1: retries must be 10 or less, not 1000"),
        ("# port = 1\n\n[logs]\nlevel = 'INFO'", {}, 'config.toml, line 3: unknown setting "logs"; `herd docs'),
        ("port = 1\nlog.level = 'INFO'", {}, 'config.toml, line 2: unknown setting "log"'),
        ('"por\\u0074s" = 1', {}, 'config.toml: unknown setting "ports", did you mean port'),
        ('context_protection = "maybe"', {}, "must be one of strip, warn, off"),
        ("retries = 1\nport = \n", {}, r"config.toml: .*line 2, column 8"),
        ("", {"HERD_PORT": "many"}, 'HERD_PORT in the environment: port must be a whole number, not "many"'),
        ("", {"HERD_ADVERTISE": "perhaps"}, "advertise must be true or false"),
        ("", {"HERD_NOPE": "1"}, "the environment: unknown setting HERD_NOPE; `herd docs settings` lists all settings"),
        ("", {"HERD_RETRYS": "1"}, r"the environment: unknown setting HERD_RETRYS, did you mean HERD_RETRIES\?"),
        ("retries = [[1]]", {}, r"retries must be a whole number, not \[…\]"),
        (
            "heartbeat_offline_s = 5",
            {},
            "config.toml, line 1: heartbeat_degraded_s must not exceed heartbeat_offline_s",
        ),
        ("", {"HERD_HEALTH_RETRY_INFO": "2"}, "environment: health_retry_info must not exceed health_retry_warning"),
        ('trace_url = "http://box/"', {}, "config.toml, line 1: trace_url must contain {trace_id}"),
    ],
)
def test_a_wrong_name_or_type_is_refused_saying_which_and_where(tmp_path, file, environment, words):
    """`"false"` once switched a setting on."""
    (tmp_path / "config.toml").write_text(file)
    with pytest.raises(SettingError, match=words):
        load({"data_dir": str(tmp_path)}, environment)


def test_booleans_of_the_environment_are_words_and_whole_numbers_serve_as_numbers(tmp_path):
    """An environment has only texts; TOML has 5 where 5.0 is meant."""
    (tmp_path / "config.toml").write_text("connect_timeout_s = 7")
    settings = load({"data_dir": str(tmp_path)}, {"HERD_ADVERTISE": "false"})
    assert (settings.flag("advertise"), settings.number("connect_timeout_s")) == (False, 7.0)


@pytest.mark.parametrize("setting", [each for each in TABLE if each.pattern], ids=lambda each: each.name)
def test_a_text_of_another_form_is_answered_with_one_that_is_right(setting, tmp_path):
    """A regular expression is an answer for whoever wrote it."""
    place = {"data_dir": str(tmp_path)}
    assert load({**place, setting.name: setting.form}, {}).text(setting.name) == setting.form
    with pytest.raises(SettingError) as caught:
        load({**place, setting.name: "a="}, {})
    assert f'{setting.name} must be empty or of the form `{setting.form}`, not "a="' in str(caught.value)


def test_equivalent_models_of_another_form_are_refused_with_the_rule_that_is_wrong(tmp_path):
    """A rule that is silently ignored is found out when the large model is loaded."""
    good = load({"data_dir": str(tmp_path), "equivalent_models": "a = b, c; d=e"}, {})
    assert good.text("equivalent_models")
    for wrong in ("a", "a = ", "= b", "a = b; d", "a = b c"):
        with pytest.raises(SettingError, match="equivalent_models"):
            load({"data_dir": str(tmp_path), "equivalent_models": wrong}, {})
