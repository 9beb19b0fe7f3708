"""The store in a file: which files it takes, and what becomes of it when one goes wrong."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest

from checkrein.errors import ConfigurationError
from checkrein.ports import Use
from checkrein.store import SqliteStore, StoreError, open_store
from checkrein.store.sqlite import APPLICATION

NOW = 1_800_000_000.0
USE = Use("a", 5)


@pytest.fixture
def path(tmp_path):
    """Where there is no file yet."""
    return str(tmp_path / "store.db")


def test_it_lasts(path):
    """What was counted and posted is there when the file is opened again."""
    with SqliteStore.open(path) as store:
        token = store.reserve([USE], NOW)
        store.reserve([USE, Use("w", 5, 2, 60.0)], NOW)
        store.post("stop:all", reason="why")
    with open_store(path) as store:
        assert store.taken(USE, NOW) == 2
        assert store.taken(Use("w", 5, 1, 60.0), NOW - 99) == 2
        assert store.postings()[0].reason == "why"
        store.release(token, [USE])
        assert store.taken(USE, NOW) == 1


def test_the_owner_only(path):
    """The file and those beside it are for their owner, whatever the umask."""
    before = os.umask(0)
    try:
        with SqliteStore.open(path) as store:
            store.reserve([USE], NOW)
            for end in ("", "-wal", "-shm"):
                assert stat.S_IMODE(os.stat(path + end).st_mode) == 0o600
    finally:
        os.umask(before)


def test_every_commit_is_synced(path):
    """The settings that durability rests on."""
    with SqliteStore.open(path) as store:
        ask = store._connection.execute
        assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
        assert ask("PRAGMA synchronous").fetchone() == (2,)


def test_closed(path):
    """A closed store says so; closing twice is nothing."""
    store = SqliteStore.open(path)
    store.close()
    store.close()
    for call in (lambda: store.reserve([USE], NOW), store.notices, lambda: store.taken(USE, NOW)):
        with pytest.raises(StoreError, match="closed"):
            call()


def test_odd_names(tmp_path):
    """A path is a path, whatever its characters mean in a URI."""
    for name in ("a b?mode=memory", "a%20b#c", "file:x", "é.db", "-", "a'b", 'a"b'):
        with SqliteStore.open(str(tmp_path / name)) as store:
            assert store.reserve([USE], NOW)
        assert os.path.getsize(tmp_path / name)
        with SqliteStore.open(tmp_path / name) as store:
            assert store.taken(USE, NOW) == 1
    os.symlink(tmp_path / "target", tmp_path / "link")
    with SqliteStore.open(tmp_path / "link") as store:
        assert store.reserve([USE], NOW)
    assert stat.S_IMODE(os.stat(tmp_path / "target").st_mode) == 0o600


@pytest.mark.parametrize("where", ["", "a\0b", ":memory:", b"x", "redis://host/1", "sqlite://x"])
def test_no_path(where):
    """What is no path of a file is refused."""
    with pytest.raises((ConfigurationError, TypeError)):
        open_store(where)
    assert not os.path.exists(":memory:")


def test_files_that_are_no_stores(tmp_path):
    """Something else is refused, and left as it was."""
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    text = tmp_path / "text"
    text.write_text("something else entirely\n" * 500)
    short = tmp_path / "short"
    short.write_text("x")
    marked = tmp_path / "marked.db"
    with sqlite3.connect(marked) as connection:
        connection.execute("PRAGMA application_id = 77")
    connection.close()
    for file in (foreign, text, short, marked):
        before = file.read_bytes()
        with pytest.raises(ConfigurationError, match="no store"):
            SqliteStore.open(file)
        assert file.read_bytes() == before
    with pytest.raises(ConfigurationError, match="no file"):
        SqliteStore.open(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="no file"):
        SqliteStore.open(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        SqliteStore.open(tmp_path / "nowhere" / "store.db")
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        SqliteStore.open(tmp_path / "missing.db", create=False)
    assert not (tmp_path / "missing.db").exists()


def test_a_later_version(path):
    """A file whose layout this version does not know is refused."""
    SqliteStore.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(ConfigurationError, match="later version"):
        SqliteStore.open(path)


def test_an_empty_file_is_a_new_store(path):
    """An empty file belongs to nobody yet."""
    open(path, "w").close()
    with SqliteStore.open(path) as store:
        assert store.reserve([USE], NOW)
        assert store._connection.execute("PRAGMA application_id").fetchone() == (APPLICATION,)


READONLY = """
import os, sys
import urllib.parse  # now: an account that may write nothing may not read Python's files either
import checkrein.store.sqlite
from checkrein.store import SqliteStore
if os.geteuid() == 0:
    os.setegid(65534); os.seteuid(65534)
try:
    SqliteStore.open(sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("readable", [True, False])
def test_a_file_that_cannot_be_written(tmp_path, readable):
    """It is refused when it is opened, not at the first reservation."""
    place = tmp_path / "locked"
    place.mkdir()
    SqliteStore.open(place / "store.db").close()
    os.chmod(place / "store.db", 0o444 if readable else 0o000)
    os.chmod(place, 0o555)
    for above in place.parents:
        if above.stat().st_uid == os.geteuid() and not above.stat().st_mode & 1:
            os.chmod(above, above.stat().st_mode | 0o111)
    try:
        said = subprocess.run(
            [sys.executable, "-c", READONLY, str(place / "store.db")],
            capture_output=True, text=True, timeout=60,
        ).stdout  # fmt: skip
    finally:
        os.chmod(place, 0o755)
    assert said.startswith("ConfigurationError")
    assert "cannot be" in said


def test_a_damaged_file(path):
    """Damage anywhere is an error of ours, or does no harm: never anything foreign."""
    with SqliteStore.open(path) as store:
        for number in range(60):
            store.reserve([Use(f"{number:0300}", 5), Use("w", 99, 1, 60.0)], NOW)
    with open(path, "rb") as file:
        whole = file.read()
    said = set()
    for offset in [*range(16, 100, 4), *range(100, len(whole), 701)]:
        with open(path, "wb") as file:
            file.write(whole[:offset] + bytes(8 * [0xA5]) + whole[offset + 8 :])
        try:
            with SqliteStore.open(path) as store:
                store.notices()
                store.taken(Use("w", 99, 1, 60.0), NOW)
                store.reserve([Use("new", 99), Use("w", 99, 1, 60.0)], NOW)
        except (StoreError, ConfigurationError) as error:
            said.add(str(error).removeprefix(f"{path}: "))
        for end in ("-wal", "-shm", "-journal"):
            if os.path.exists(path + end):
                os.remove(path + end)
    assert {"the store is damaged", "the file is no store of this library"} <= said
    with open(path, "wb") as file:
        file.write(whole[: len(whole) // 2])
    with pytest.raises(StoreError), SqliteStore.open(path) as store:
        for number in range(60):
            store.taken(Use(f"{number:0300}", 5), NOW)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE budgets SET total = 'many'",
        "UPDATE budgets SET total = -7",
        "UPDATE budgets SET total = 0.5",
        "UPDATE budgets SET total = x'00'",
        "UPDATE budgets SET latest = 'late'",
        "UPDATE budgets SET latest = 9e999",
        "UPDATE budgets SET span = x'ff'",
        "UPDATE reservations SET amount = -10 WHERE at IS NOT NULL",
        "DROP TABLE budgets",
        "DROP TABLE reservations",
    ],
)
def test_contents_that_somebody_changed(path, change):
    """What no store has written is no number to count with."""
    uses = [USE, Use("w", 5, 1, 60.0)]
    with SqliteStore.open(path) as store:
        assert store.reserve(uses, NOW)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    connection.execute(change)
    connection.close()
    with SqliteStore.open(path) as store:
        with pytest.raises(StoreError):
            store.reserve(uses, NOW)
        with pytest.raises(StoreError):
            store.reserve(uses, NOW)
        assert store.notices() == frozenset()


def test_a_file_that_is_moved_or_replaced(path, tmp_path):
    """A store does not go on with a file that others do not see, nor with one of no counts."""
    store = SqliteStore.open(path)
    store.reserve([USE], NOW)
    os.rename(path, tmp_path / "moved")
    for _ in range(2):
        with pytest.raises(StoreError, match="moved or replaced"):
            store.reserve([USE], NOW)
    SqliteStore.open(path).close()
    with pytest.raises(StoreError, match="moved or replaced"):
        store.reserve([USE], NOW)
    os.replace(tmp_path / "moved", path)
    assert store.reserve([USE], NOW)
    store.close()


def test_another_process_holds_the_lock(path):
    """Waiting for a lock ends, and the store goes on when it is free."""
    with SqliteStore.open(path, timeout=0.05) as store:
        assert store.reserve([USE], NOW)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked"):
            store.reserve([USE], NOW)
        with pytest.raises(StoreError, match="locked"):
            store.post("stop:all")
        assert store.taken(USE, NOW) == 1
        assert store.notices() == frozenset()
        with pytest.raises(StoreError, match="locked"):
            SqliteStore.open(path, timeout=0.05)
        other.execute("ROLLBACK")
        other.close()
        assert store.reserve([USE], NOW)


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), 1e9, "5", True])
def test_timeouts(path, timeout):
    """A wait has an end."""
    with pytest.raises(ConfigurationError):
        SqliteStore.open(path, timeout=timeout)
    assert not os.path.exists(path)


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO res", "UPDATE budgets", "COMMIT"])
def test_an_interrupt(path, statement):
    """Ctrl-C at any statement goes through, takes nothing, and leaves the store usable."""
    with SqliteStore.open(path) as store:
        assert store.reserve([USE], NOW)
        ours = store._connection

        class Interrupting:
            def __getattr__(self, name):
                return getattr(ours, name)

            def execute(self, text, *values):
                if text.startswith(statement):
                    raise KeyboardInterrupt
                return ours.execute(text, *values)

        store._connection = Interrupting()
        with pytest.raises(KeyboardInterrupt):
            store.reserve([USE], NOW)
        store._connection = ours
        assert not ours.in_transaction
        assert store.taken(USE, NOW) == 1
        assert store.reserve([USE], NOW)


def test_two_stores_on_one_file_in_one_process(path):
    """A second store in the process, opened and closed, takes no lock from the first."""
    with SqliteStore.open(path, timeout=30) as first:
        problems = []

        def come_and_go():
            try:
                for _ in range(10):
                    with SqliteStore.open(path, timeout=30) as other:
                        other.reserve([Use("b", 1000)], NOW)
            except BaseException as error:
                problems.append(error)

        threads = [threading.Thread(target=come_and_go) for _ in range(4)]
        for thread in threads:
            thread.start()
        taken = sum(first.reserve([Use("b", 1000)], NOW) is not None for _ in range(40))
        for thread in threads:
            thread.join(60)
        assert problems == []
        assert (taken, first.taken(Use("b", 1), NOW)) == (40, 80)


LIGHT = """
import sys
from checkrein.store import *
import checkrein.store
assert not {"sqlite3", "psycopg"} & set(sys.modules), "loaded"
"""


def test_what_is_imported():
    """Importing the room loads no database; nor does its module with psycopg missing fail."""
    light = LIGHT.replace("from checkrein.store import *", "from checkrein.store import open_store")
    subprocess.run([sys.executable, "-c", light], check=True)
    blocked = "import sys; sys.modules['psycopg'] = None\n" + LIGHT.split("assert", maxsplit=1)[0]
    missing = (
        blocked
        + "\ntry: open_store('postgres://u:geheim@h/d')\n"
        + "except checkrein.store.StoreError: raise\nexcept ValueError as e: print(e)"
    )
    said = subprocess.run([sys.executable, "-c", missing], check=True, capture_output=True)
    assert b"pip install 'checkrein[postgres]'" in said.stdout
    assert b"geheim" not in said.stdout
