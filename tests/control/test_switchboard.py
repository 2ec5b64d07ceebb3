"""Changing settings while the router runs: all or none, kept in the file, told as events."""

import stat
import tomllib

import pytest

from herd.settings import file
from herd.settings.changes import Refusal, Switchboard
from herd.settings.file import NotKept
from herd.settings.load import load
from herd.settings.table import BY_NAME, TABLE

RUNTIME = [setting for setting in TABLE if setting.runtime]
HOOK = "https://hooks.example.net/services/T0/B0/secret"


class Desk:
    """A switchboard on a data directory, and what it told."""

    def __init__(self, data_dir, **environment):
        self.data_dir, self.environment = data_dir, {"HERD_DATA_DIR": str(data_dir), **environment}
        self.told, self.followed = [], 0
        self.settings = self.restarted()
        self.board = Switchboard(self.settings, self.told.append, self._follow)

    def restarted(self):
        return load({}, self.environment)

    @property
    def file(self):
        return self.data_dir / "config.toml"

    def _follow(self):
        self.followed += 1


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


async def test_a_change_holds_at_once_and_after_a_restart(desk):
    """A setting that forgets itself is worse than none."""
    (change,) = await desk.board.change({"retries": 5})
    assert (change.name, change.before, change.value, change.kept) == ("retries", 2, 5, True)
    assert (desk.settings.count("retries"), desk.settings.sources["retries"]) == (5, "run time")
    assert (desk.restarted().count("retries"), desk.restarted().sources["retries"]) == (5, "file")


async def test_a_change_is_kept_in_the_file_that_the_start_read_wherever_that_sends_the_data(tmp_path, monkeypatch):
    """A file beside the data would be read by no start."""
    monkeypatch.setenv("HOME", str(tmp_path))
    read = tmp_path / ".fleet-manager" / "config.toml"
    read.parent.mkdir()
    read.write_text(f'data_dir = "{tmp_path / "elsewhere"}"\n')
    desk = Desk("~/.fleet-manager")
    del desk.environment["HERD_DATA_DIR"]
    desk.settings = desk.restarted()
    desk.board = Switchboard(desk.settings, desk.told.append, desk._follow)
    assert desk.settings.data_dir == tmp_path / "elsewhere"
    await desk.board.change({"retries": 4})
    assert (desk.board.path, desk.restarted().count("retries")) == (read, 4)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"heartbeat_offline_s": 10}, r"heartbeat_degraded_s must not exceed heartbeat_offline_s \(15 > 10\)"),
        ({"health_disk_critical_pct": 11}, "health_disk_critical_pct must not exceed health_disk_warning_pct"),
        ({"health_memory_warning_pct": 99, "health_memory_critical_pct": 98}, r"\(99 > 98\)"),
        ({"trace_url": "https://box/trace"}, r"trace_url must contain {trace_id}"),
    ],
)
async def test_values_that_contradict_each_other_are_refused_with_words(desk, wanted, words):
    """A node that is offline before it is degraded, a warning that comes after the alarm: nobody means that."""
    with pytest.raises(Refusal, match=words) as caught:
        await desk.board.change({"queue_limit": 7, **wanted})
    assert list(caught.value.problems) == list(wanted)
    assert (desk.settings.count("queue_limit"), desk.file.exists()) == (256, False)


async def test_two_values_that_agree_are_taken_together(desk):
    """One after the other, the first of them would contradict what is there."""
    await desk.board.change({"heartbeat_offline_s": 9, "heartbeat_degraded_s": 9, "trace_url": "http://a/{trace_id}"})
    assert desk.restarted().number("heartbeat_offline_s") == 9


async def test_a_change_that_the_next_start_would_refuse_is_refused_today(tmp_path):
    """The environment wins at that start, beside what the file then says."""
    desk = Desk(tmp_path, HERD_HEARTBEAT_OFFLINE_S="60")
    with pytest.raises(Refusal, match=r"\(100 > 60\)"):
        await desk.board.change({"heartbeat_degraded_s": 100, "heartbeat_offline_s": 200})
    assert desk.restarted().number("heartbeat_degraded_s") == 15


async def test_a_change_is_told_as_an_event_with_both_values(desk):
    """Who looks for the reason of a change in behaviour finds it among the fleet's events."""
    await desk.board.change({"loaded_fallback": False}, by="127.0.0.1")
    (event,) = desk.told
    assert (event.kind, event.node_id) == ("setting_changed", None)
    assert event.data == {"name": "loaded_fallback", "before": True, "value": False, "by": "127.0.0.1"}


async def test_a_value_that_is_there_already_changes_nothing_and_tells_nothing(desk):
    """A page that saves all its fields must not fill the log."""
    assert await desk.board.change({"retries": 2}) == ()
    assert (desk.told, desk.followed, desk.file.exists()) == ([], 0, False)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"retires": 1}, 'unknown setting "retires", did you mean retries?'),
        ({"retries": "3"}, 'retries must be a whole number, not "3"'),
        ({"retries": 2.0}, "retries must be a whole number, not 2.0"),
        ({"retries": True}, "retries must be a whole number, not true"),
        ({"retries": None}, "retries must be a whole number, not null"),
        ({"retries": -1}, "retries must be 0 or more"),
        ({"retries": 10**400}, "retries must be 10 or less,"),
        ({"loaded_fallback": "false"}, 'loaded_fallback must be true or false, not "false"'),
        ({"loaded_fallback": 0}, "loaded_fallback must be true or false, not 0"),
        ({"stall_timeout_s": float("nan")}, "stall_timeout_s must be a finite number"),
        ({"stall_timeout_s": 10**400}, "stall_timeout_s must be 86400 or less,"),
        ({"stall_timeout_s": False}, "stall_timeout_s must be a number, not false"),
        ({"context_protection": "maybe"}, "context_protection must be one of strip, warn, off"),
        (
            {"webhook_url": "ftp://box"},
            'webhook_url must be empty or of the form `https://example.com/alerts`, not "ftp://box"',
        ),
        ({"webhook_url": "http://b\ud800x"}, "webhook_url must be empty or of the form"),
        ({"port": 1234}, "port requires a restart"),
        ({"data_dir": "/elsewhere"}, "data_dir requires a restart"),
    ],
)
async def test_one_wrong_name_type_or_value_changes_nothing_at_all(desk, wanted, words):
    """Half a change is a state that nobody chose."""
    with pytest.raises(Refusal, match=words) as caught:
        await desk.board.change({"queue_limit": 7, **wanted})
    assert list(caught.value.problems) == list(wanted)
    assert (desk.settings.count("queue_limit"), desk.told, desk.file.exists()) == (256, [], False)


async def test_every_wrong_name_is_named(desk):
    """Who made two mistakes should not need three tries."""
    with pytest.raises(Refusal) as caught:
        await desk.board.change({"a": 1, "queue_limit": 3, "b": 2})
    assert list(caught.value.problems) == ["a", "b"]


async def test_a_number_may_be_written_without_a_point(desk):
    """JSON has 30 where 30.0 is meant."""
    await desk.board.change({"stall_timeout_s": 30})
    assert desk.settings.values["stall_timeout_s"] == 30.0
    assert desk.restarted().number("stall_timeout_s") == 30.0


async def test_the_users_own_lines_and_comments_stay(desk):
    """The file is theirs; herd is a guest in it."""
    desk.file.write_text("# mine\r\nqueue_limit = 9 # nine is enough\r\n\r\n# the end")
    await desk.board.change({"retries": 1, "queue_limit": 8})
    text = desk.file.read_bytes().decode()
    assert "# mine\r\n" in text
    assert "queue_limit = 8 # nine is enough" in text
    assert "# the end" in text
    assert tomllib.loads(text) == {"queue_limit": 8, "retries": 1}


async def test_only_the_owner_may_read_the_file(desk):
    """A webhook's address is a credential."""
    desk.file.write_text("")
    desk.file.chmod(0o644)
    await desk.board.change({"webhook_url": HOOK})
    assert stat.S_IMODE(desk.file.stat().st_mode) == 0o600
    assert [path.name for path in desk.data_dir.iterdir()] == ["config.toml"]


async def test_a_secret_is_told_only_in_part(desk):
    """The log is read by more people than the settings."""
    await desk.board.change({"webhook_url": HOOK})
    assert (desk.told[0].data["before"], desk.told[0].data["value"]) == ("", "https://hooks.example.net/…")
    assert BY_NAME["webhook_url"].shown("http://user:word@box/x") == "…"
    assert desk.settings.text("webhook_url") == HOOK


async def test_a_linked_file_stays_a_link(desk, tmp_path_factory):
    """Many keep their settings in a repository and link to them."""
    kept_elsewhere = tmp_path_factory.mktemp("dotfiles") / "herd.toml"
    kept_elsewhere.write_text("retries = 0\n")
    desk.file.symlink_to(kept_elsewhere)
    await desk.board.change({"retries": 4})
    assert desk.file.is_symlink()
    assert kept_elsewhere.read_text() == "retries = 4\n"


@pytest.mark.parametrize("broken", ["retries = ", "retries = 1\nretries = 2", b"\xff\xfe"])
async def test_a_file_that_cannot_be_read_is_left_alone_and_nothing_changes(desk, broken):
    """Someone is perhaps in the middle of editing it."""
    content = broken if isinstance(broken, bytes) else broken.encode()
    desk.file.write_bytes(content)
    with pytest.raises(NotKept, match=r"config\.toml cannot be written"):
        await desk.board.change({"queue_limit": 3})
    assert (desk.file.read_bytes(), desk.settings.count("queue_limit"), desk.told) == (content, 256, [])


async def test_a_folder_that_cannot_be_written_changes_nothing(tmp_path):
    """A change that is lost at the next start was no change."""
    (tmp_path / "file").write_text("")
    desk = Desk(tmp_path / "file" / "below")
    with pytest.raises(NotKept):
        await desk.board.change({"queue_limit": 3})
    assert desk.settings.count("queue_limit") == 256


async def test_what_the_environment_sets_is_changed_but_said_not_to_last(tmp_path):
    """It wins at the next start, and whoever changed it should know today."""
    desk = Desk(tmp_path, HERD_RETRIES="9")
    (change,) = await desk.board.change({"retries": 3})
    assert not change.kept
    assert (desk.settings.count("retries"), desk.restarted().count("retries")) == (3, 9)
    (again,) = await desk.board.change({"retries": 4})
    assert not again.kept


async def test_those_who_hold_copies_are_told_after_the_change(desk):
    """Otherwise they would copy the old value again."""
    await desk.board.change({"queue_limit": 3})
    assert desk.followed == 1


@pytest.mark.parametrize("setting", RUNTIME, ids=lambda setting: setting.name)
def test_every_value_of_a_setting_survives_the_file(setting, tmp_path):
    """What TOML makes of it must be what it was."""
    file.keep(tmp_path / "config.toml", {setting.name: setting.default})
    assert tomllib.loads((tmp_path / "config.toml").read_text()) == {setting.name: setting.default}
