"""Settings come from four places, and a wrong one stops the start with a sentence."""

import pytest

from herd.config import TABLE, SettingError, load


def test_every_setting_has_a_default_of_its_own_type_and_a_meaning():
    """The table is the documentation."""
    for setting in TABLE:
        assert setting.help.endswith(".")
    loaded = load({}, {"HERD_DATA_DIR": "/nonexistent"})
    assert set(loaded.sources.values()) == {"default", "environment"}


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
        ("prot = 1", {}, r"config.toml: there is no setting 'prot'"),
        ('advertise = "false"', {}, "advertise takes true or false, not 'false'"),
        ("port = true", {}, "port takes a whole number, not True"),
        ("port = 0", {}, "port is at least 1"),
        ('context_protection = "maybe"', {}, "is one of strip, warn, off"),
        ("port = ", {}, "config.toml"),
        ("", {"HERD_PORT": "many"}, r"environment.*port takes a whole number, not 'many'"),
        ("", {"HERD_ADVERTISE": "perhaps"}, "advertise takes true or false"),
        ("", {"HERD_NOPE": "1"}, "there is no setting 'nope'"),
        ("heartbeat_offline_s = 5", {}, "config.toml: heartbeat_degraded_s is at most heartbeat_offline_s, not 15"),
        ("", {"HERD_HEALTH_RETRY_INFO": "2"}, "environment: health_retry_info is at most health_retry_warning"),
        ('trace_url = "http://box/"', {}, "config.toml: trace_url has {trace_id} in it"),
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


def test_equivalent_models_of_another_form_are_refused_with_the_rule_that_is_wrong(tmp_path):
    """A rule that is silently ignored is found out when the large model is loaded."""
    good = load({"data_dir": str(tmp_path), "equivalent_models": "a = b, c; d=e"}, {})
    assert good.text("equivalent_models")
    for wrong in ("a", "a = ", "= b", "a = b; d", "a = b c"):
        with pytest.raises(SettingError, match="equivalent_models"):
            load({"data_dir": str(tmp_path), "equivalent_models": wrong}, {})
