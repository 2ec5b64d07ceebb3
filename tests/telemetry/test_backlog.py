"""The bounded queue under every sink that has a thread."""

import threading

from herd.telemetry.backlog import Backlog


class Held:
    """Work that waits at a gate, so that a test can fill the queue behind it."""

    def __init__(self):
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.done: list[int] = []

    def __call__(self, item: int) -> None:
        self.entered.set()
        assert self.gate.wait(10)
        self.done.append(item)


def test_everything_put_is_worked_off_in_order():
    """Log lines and spans keep the order of what happened."""
    done: list[int] = []
    backlog = Backlog("test", done.append)
    for item in range(1000):
        assert backlog.put(item)
    assert backlog.close(10)
    assert done == list(range(1000))
    assert backlog.dropped == 0


def test_a_full_queue_drops_and_counts_and_does_not_wait():
    """A disk that stands still must cost lines, not requests."""
    work = Held()
    backlog = Backlog("test", work, capacity=3)
    backlog.put(0)
    assert work.entered.wait(10)
    assert [backlog.put(item) for item in range(1, 6)] == [True, True, True, False, False]
    assert backlog.dropped == 2
    work.gate.set()
    assert backlog.close(10)
    assert work.done == [0, 1, 2, 3]


def test_closing_gives_up_after_its_timeout():
    """A worker that hangs must not hang the shutdown."""
    work = Held()
    backlog = Backlog("test", work)
    backlog.put(0)
    assert work.entered.wait(10)
    assert backlog.close(0.05) is False
    assert backlog.flush(0.05) is False
    work.gate.set()
    assert backlog.close(10)


def test_after_closing_nothing_is_taken_but_everything_is_counted():
    """A sink that is told of an event at shutdown must not lie about it."""
    backlog = Backlog("test", lambda _: None)
    assert backlog.close(10)
    assert backlog.put(1) is False
    assert backlog.dropped == 1
    assert backlog.flush(0.05) is True


def test_a_defect_in_one_item_loses_that_item_only():
    """A dead thread would lose every later record without a word."""
    done: list[float] = []
    backlog = Backlog("test", lambda item: done.append(1 / item), weight=lambda _: 5)
    for item in (1, 0, 2):
        backlog.put(item)
    assert backlog.close(10)
    assert done == [1.0, 0.5]
    assert backlog.dropped == 5


def test_a_flush_waits_for_what_was_put_before_it():
    """Tests and shutdown read the file after it."""
    done: list[int] = []
    ends: list[int] = []
    backlog = Backlog("test", done.append, after=lambda: ends.append(len(done)))
    for item in range(50):
        backlog.put(item)
    assert backlog.flush(10)
    assert len(done) == 50
    assert ends[-1] == 50
    backlog.close(10)


def test_many_threads_may_put_at_once():
    """Any thread may log."""
    done: list[int] = []
    backlog = Backlog("test", done.append)
    threads = [threading.Thread(target=lambda: [backlog.put(item) for item in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert backlog.close(10)
    assert sorted(done) == sorted(list(range(500)) * 4)
