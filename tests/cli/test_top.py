"""`herd top`: the requests in flight; what its keys do."""

from herd.commands.top import Screen, in_order, pressed

IDS = ["a", "b", "c"]


def row(name, **changes):
    return {"request_id": name, "age_s": 1.0, "completion_tokens": None, "node_id": None, "model": None,
            "phase": "queued", **changes}  # fmt: skip


def test_the_oldest_request_stands_first_and_s_sorts_by_something_else():
    """What has run for an hour is what is looked for."""
    rows = [row("young"), row("old", age_s=9.0, node_id="ada"), row("busy", completion_tokens=50, node_id="bob")]
    order = lambda screen: [each["request_id"] for each in in_order(rows, screen.order)]  # noqa: E731 - one line says it
    assert order(Screen()) == ["old", "young", "busy"]
    by_node = pressed("s", Screen(), IDS)
    assert (by_node.order, order(by_node)) == ("node", ["young", "old", "busy"])
    assert order(Screen(order="tokens"))[0] == "busy"


def test_the_selection_moves_with_the_arrows_and_stops_at_the_ends():
    """It follows the request and not the line, since lines move every second."""
    screen = Screen()
    moves = ("\x1b[B", "a"), ("\x1b[B", "b"), ("j", "c"), ("j", "c"), ("\x1b[A", "b"), ("k", "a"), ("k", "a")
    for key, selected in moves:
        screen = pressed(key, screen, IDS)
        assert screen.selected == selected
    assert pressed("j", Screen(selected="gone"), IDS).selected == "a"


def test_a_cancellation_is_asked_about_and_only_of_what_is_selected():
    """One key must not end somebody's request."""
    assert not pressed("c", Screen(), IDS).asking
    assert not pressed("c", Screen(selected="gone"), IDS).asking
    asking = pressed("c", Screen(selected="b"), IDS)
    assert asking.asking
    assert not pressed("n", asking, IDS).asking
    assert pressed("q", asking, IDS) is not None, "any other key is a no, and no end"
    assert pressed("q", Screen(), IDS) is None
