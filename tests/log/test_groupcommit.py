"""The queue by itself: who leads, and what happens to those who leave while they wait."""

from __future__ import annotations

import threading

import pytest

from checkrein.errors import LogError
from checkrein.log import groupcommit
from checkrein.log.groupcommit import GroupCommit, Ticket


class Store:
    """Commits to a list."""

    def __init__(self):
        self.entries, self.batches = [], 0

    def __call__(self, entries):
        first = len(self.entries)
        self.entries += entries
        self.batches += 1
        return first, f"head {len(self.entries)}", [b"leaf of " + one for one in entries]


@pytest.mark.parametrize("promoted", [False, True])
def test_an_interrupted_waiter_leaves_no_gap(monkeypatch, promoted):
    """Ctrl-C while waiting, even just after being handed the lead, blocks nobody for good."""
    store = Store()
    group = GroupCommit(store)

    class Impatient(Ticket):
        def __init__(self):
            super().__init__()
            self.gate = self

        def acquire(self):
            if promoted:
                group._hand_over()
            raise KeyboardInterrupt

        def release(self):
            pass

    group._led = True
    with monkeypatch.context() as patch:
        patch.setattr(groupcommit, "Ticket", Impatient)
        with pytest.raises(KeyboardInterrupt):
            group.submit([b"left behind"])
    assert not group._waiting
    group._hand_over()
    assert group.submit([b"next"])[0].first == 1
    assert store.entries == [b"left behind", b"next"]


def test_one_commit_for_all_who_wait():
    """Entries that arrive while a commit is under way share the next one."""
    started, go = threading.Event(), threading.Event()
    store = Store()

    def slow(entries):
        started.set()
        assert go.wait(10)
        return store(entries)

    group = GroupCommit(slow)
    threads = [threading.Thread(target=group.submit, args=([b"x"],)) for _ in range(9)]
    threads[0].start()
    assert started.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(group._waiting) < 9:
        threads[1].join(0.001)
    go.set()
    for thread in threads:
        thread.join(10)
    assert (len(store.entries), store.batches) == (9, 2)


def test_a_failure_reaches_every_waiter():
    """All who wait for a commit that fails get the error."""
    started, go = threading.Event(), threading.Event()
    errors = []

    def failing(entries):
        started.set()
        assert go.wait(10)
        raise OSError("gone")

    group = GroupCommit(failing)

    def waits():
        try:
            group.submit([b"x"])
        except LogError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=waits) for _ in range(9)]
    threads[0].start()
    assert started.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(group._waiting) < 9:
        threads[1].join(0.001)
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 9
    assert all("OSError" in error for error in errors)


def test_each_ticket_gets_the_hashes_of_its_own_entries():
    """What was enqueued before, and what others wait for, is not among them."""
    group = GroupCommit(Store())
    group.queue.append(b"enqueued")
    (ticket,) = group.submit([b"a", b"b"])
    assert (ticket.first, ticket.leaves) == (1, [b"leaf of a", b"leaf of b"])
