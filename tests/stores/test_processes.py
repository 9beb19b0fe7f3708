"""Several processes on one store: races, kills and forks."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys

import pytest

from checkrein.ports import Use
from stores import children

NOW = children.NOW
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes as POSIX has them")


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["stores.children", "checkrein.store.sqlite", "pytest"])


class Child:
    """A process that does one of the tasks of `children`, with no part in what we have open."""

    def __init__(self, place, task, limit=0):
        self.link, its = CONTEXT.Pipe()
        target = getattr(children, task)
        self.process = CONTEXT.Process(target=target, args=(its, *place, limit), daemon=True)
        self.process.start()
        its.close()

    def hear(self):
        assert self.link.poll(60), "the child says nothing"
        return self.link.recv()

    def end(self):
        said = self.hear()
        self.process.join(60)
        assert self.process.exitcode == 0
        return said

    def kill(self):
        """End it as ``kill -9`` does; return what it said and nobody has heard."""
        self.process.kill()
        self.process.join(60)
        said = []
        while True:
            try:
                said.append(self.link.recv())
            except (EOFError, OSError):
                return said


@pytest.fixture
def start(monkeypatch):
    """Starts children that wait for each other; ends them, whatever happens."""
    # The server that forks them loads once what each would load: it has to find it.
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(os.path.dirname(children.__file__)))
    started = []

    def them(place, task, limit=0, count=4):
        ours = [Child(place, task, limit) for _ in range(count)]
        started.extend(ours)
        for child in ours:
            assert child.hear() == "ready"
        for child in ours:
            child.link.send("go")
        return ours

    yield them
    for child in started:
        child.process.kill()
        child.process.join(60)
        child.process.close()
        child.link.close()


@pytest.fixture
def fresh(shared, request):
    """A place where there is nothing yet, not even tables."""
    if shared.kind == "sqlite":
        yield shared
        return
    place = shared._replace(schema="fresh_room")
    yield place
    request.getfixturevalue("cluster").run(f"DROP SCHEMA IF EXISTS {place.schema} CASCADE")


def test_processes_share_a_budget(shared, start, opened):
    """Four processes of four threads each take exactly what there is."""
    limit = 100
    taken = [child.end() for child in start(shared, "counting", limit)]
    assert sum(taken) == limit
    store = opened(shared)
    assert store.taken(Use("a", limit), NOW) == limit
    assert store.taken(Use("b", limit, 1, 3600.0), NOW) == limit


def test_processes_create_the_store_at_once(fresh, start, opened):
    """Whoever is first, all find the same tables, and nobody's count is lost."""
    assert [child.end() for child in start(fresh, "creating", 5, count=6)].count(True) == 5
    assert opened(fresh).taken(Use("a", 5), NOW) == 5


def test_killed_processes(shared, start, opened):
    """kill -9 amid reservations: what was acknowledged counts, nothing is half taken."""
    many, acknowledged, rounds = 10**6, 0, 3
    store = opened(shared)
    for number in range(1, rounds + 1):
        pair = start(shared, "hammering", many, count=2)
        for child in pair:
            for _ in range(random.randrange(1, 12)):
                assert child.hear() == "took"
                acknowledged += 1
        for child in pair:
            acknowledged += child.kill().count("took")
        token = store.reserve([Use("a", many)], NOW)  # waits for what the killed left locked
        store.release(token, [Use("a", many)])
        taken = store.taken(Use("a", many), NOW)
        assert acknowledged <= taken <= acknowledged + 2 * number
        assert store.taken(Use("b", many, 1, 3600.0), NOW) == 2 * taken
    limit = taken + 3
    assert [store.reserve([Use("a", limit)], NOW) is None for _ in range(4)] == [0, 0, 0, 1]


def test_notices_reach_other_processes(shared, start, opened):
    """What one process posts, another sees, and the reverse."""
    store = opened(shared)
    (child,) = start(shared, "watching", count=1)
    store.post("stop:all", reason="it sends too much")
    assert child.end() == ["stop:all"]
    assert store.notices() == {"stop:all", "stop:run:child"}
    assert [one.reason for one in store.postings()] == ["it sends too much", "seen"]


def test_forks(place):
    """A fork while threads are at work: no child hangs, and no connection is used by two."""
    quiet = ["-W", "error", "-W", "ignore::DeprecationWarning"]  # of forks with threads
    done = subprocess.run(
        [sys.executable, *quiet, children.__file__, *place, "100"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    # One before, two in the parent; two in each of two children, which memory does not share.
    assert done.stdout.split() == (["3", "0"] if place.kind == "memory" else ["7", "2"])
