"""The code that a router leaves for its own user on the same machine."""

from herd.security.local_code import NAME, found, left


def test_the_code_is_there_while_the_router_runs_and_another_one_each_time(tmp_path):
    """A code that was seen once is worth nothing after the next start."""
    with left(tmp_path) as first:
        assert found(tmp_path) == first
        assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert found(tmp_path) is None
    with left(tmp_path) as second:
        assert second != first


def test_a_code_that_others_can_read_or_that_is_a_link_is_none(tmp_path):
    """Whoever would send it might send a secret that somebody else chose."""
    with left(tmp_path):
        (tmp_path / NAME).chmod(0o644)
        assert found(tmp_path) is None
    (tmp_path / "elsewhere").write_text("herd-local-x")
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    assert found(tmp_path) is None
    with left(tmp_path) as code:
        assert found(tmp_path) == code
    assert (tmp_path / "elsewhere").read_text() == "herd-local-x"
