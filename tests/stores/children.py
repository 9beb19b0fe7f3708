"""What child processes of the tests do.

A child says ``ready``, waits for an answer, and does its task. `forking` is a
program of its own: ``python children.py KIND WHERE SCHEMA LIMIT``.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from checkrein.ports import Use
from checkrein.store import MemoryStore, PostgresStore, SqliteStore

NOW = 1_800_000_000.0


def open_it(kind, where, schema):
    if kind == "memory":
        return MemoryStore()
    return (
        SqliteStore.open(where, timeout=30)
        if kind == "sqlite"
        else PostgresStore.open(where, schema=schema)
    )


def wait_for_start(link):
    link.send("ready")
    link.recv()


def creating(link, kind, where, schema, limit):
    """Open a store that is perhaps not there, at the same time as others."""
    wait_for_start(link)
    with open_it(kind, where, schema) as store:
        link.send(store.reserve([Use("a", limit)], NOW) is not None)


def counting(link, kind, where, schema, limit):
    """Take what there is, in four threads; say how much it was."""
    with open_it(kind, where, schema) as store:
        wait_for_start(link)
        taken = []

        def take(number):
            uses = [Use("a", limit), Use("b", limit, 1, 3600.0)]
            while token := store.reserve(uses[:: 1 if number % 2 else -1], NOW):
                taken.append(token)

        threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        link.send(len(set(taken)))


def hammering(link, kind, where, schema, limit):
    """Take two budgets together, and say so each time, until killed."""
    store = open_it(kind, where, schema)
    wait_for_start(link)
    uses = [Use("a", limit), Use("b", limit, 2, 3600.0)]
    while store.reserve(uses[:1] + [uses[1]._replace(limit=2 * limit)], NOW):
        link.send("took")


def watching(link, kind, where, schema, limit):
    """Say what is posted, and answer it."""
    with open_it(kind, where, schema) as store:
        wait_for_start(link)
        deadline = time.monotonic() + 20
        while "stop:all" not in store.notices() and time.monotonic() < deadline:
            time.sleep(0.005)
        link.send(sorted(store.notices()))
        store.post("stop:run:child", reason="seen")


def forking(kind, where, schema, limit):
    """Fork while open and at work: parent and children count together."""
    store = open_it(kind, where, schema)
    uses, over = [Use("a", limit)], threading.Event()
    assert store.reserve(uses, NOW)
    busy = [Use("busy", 10**9)]

    def work():
        while not over.is_set():
            store.reserve(busy, NOW)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(20)
                assert store.reserve(uses, NOW)
                store.post(f"stop:run:{os.getpid()}")
                inner = os.fork()
                if inner == 0:
                    store.notices()
                    os._exit(0 if store.reserve(uses, NOW) else 1)
                assert os.waitpid(inner, 0)[1] == 0
                assert store.taken(uses[0], NOW) >= 2
                if hasattr(store, "close"):
                    store.close()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert store.reserve(uses, NOW)
    over.set()
    for thread in threads:
        thread.join()
    print(store.taken(uses[0], NOW), len(store.notices()))
    if kind != "memory":
        sys.exit(0)  # with the store open: nothing is said at exit


if __name__ == "__main__":
    forking(*sys.argv[1:4], int(sys.argv[4]))
