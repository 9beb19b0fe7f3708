"""The store in PostgreSQL: its schema, lost connections, and what its errors say."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback

import pytest

from checkrein.errors import ConfigurationError
from checkrein.ports import Use
from checkrein.store import PostgresStore, StoreError, open_store

pytestmark = [pytest.mark.service("postgres"), pytest.mark.usefixtures("cluster")]
NOW = 1_800_000_000.0
USE = Use("a", 5)


@pytest.fixture
def schema(cluster):
    """A schema that is not there yet."""
    yield "some_room"
    cluster.run("DROP SCHEMA IF EXISTS some_room CASCADE")


@pytest.fixture
def room(cluster, schema):
    """A store in it."""
    with PostgresStore.open(cluster.url, schema=schema) as store:
        yield store


def end_sessions(cluster):
    """End every session of a store, as a failing network or a restart does."""
    cluster.run(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'checkrein'"
    )


def test_open_store(cluster):
    """A URL of either scheme opens the schema of that name; a second time finds what was there."""
    try:
        with open_store(cluster.url) as store:
            assert store.reserve([USE], NOW)
            store.post("stop:all", reason="why")
        with open_store(cluster.url.replace("postgresql:", "Postgres:")) as store:
            assert store.taken(USE, NOW) == 1
            assert store.postings()[0].reason == "why"
            assert repr(store) == "PostgresStore(schema='checkrein')"
    finally:
        cluster.run("DROP SCHEMA checkrein CASCADE")


def test_bounded_waits(room):
    """No session waits for ever, nor loses commits because the server's default says so."""
    show = lambda name: room._run(room._connection, f"SELECT current_setting('{name}')")[0][0]
    assert show("statement_timeout") == "10s"
    assert show("lock_timeout") == "5s"
    assert show("idle_in_transaction_session_timeout") == "3s"
    assert show("synchronous_commit") == "on"
    assert show("search_path") == "pg_catalog, pg_temp"


@pytest.mark.parametrize(
    "name",
    ["", "Room", 'a"; DROP SCHEMA public; --', "a b", "é", "1a", "pg_a", "a" * 64, None, "a\n"],
)
def test_schemas(name):
    """A schema has a plain name."""
    with pytest.raises(ConfigurationError, match="schema"):
        PostgresStore.open("postgresql:///x", schema=name)


@pytest.mark.parametrize("name", ["public", "select", "_"])
def test_names_that_are_words(cluster, name):
    """A name that means something in SQL is a name all the same."""
    try:
        with PostgresStore.open(cluster.url, schema=name) as store:
            assert store.reserve([USE], NOW)
    finally:
        cluster.run(f'DROP SCHEMA "{name}" CASCADE', "CREATE SCHEMA IF NOT EXISTS public")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("UPDATE some_room.about SET version = 3", "later version"),
        ("DELETE FROM some_room.about", "no store"),
        ("INSERT INTO some_room.about VALUES (1)", "no store"),
        ("ALTER TABLE some_room.about RENAME version TO v", "no store"),
        ("DROP TABLE some_room.about", "not of this library"),
    ],
)
def test_schemas_that_are_no_stores(cluster, schema, change, message):
    """What is something else, or later, is refused."""
    PostgresStore.open(cluster.url, schema=schema).close()
    cluster.run(change)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=message):
            PostgresStore.open(cluster.url, schema=schema)


def test_not_created(cluster, schema):
    """Who looks for a store does not make one."""
    with pytest.raises(ConfigurationError, match="no store"):
        PostgresStore.open(cluster.url, schema=schema, create=False)
    cluster.run(f"CREATE SCHEMA {schema}")
    with pytest.raises(ConfigurationError, match="no store"):
        PostgresStore.open(cluster.url, schema=schema, create=False)
    PostgresStore.open(cluster.url, schema=schema).close()
    PostgresStore.open(cluster.url, schema=schema, create=False).close()


def test_rights(cluster, schema):
    """A user who may use the tables needs no right to make them; one who may not is told so."""
    url = cluster.url.replace("postgres@", "worker@")
    try:
        cluster.run("CREATE ROLE worker LOGIN")
        with pytest.raises(StoreError, match="InsufficientPrivilege"):
            PostgresStore.open(url, schema=schema)
        PostgresStore.open(cluster.url, schema=schema).close()
        with pytest.raises(StoreError, match="InsufficientPrivilege"):
            PostgresStore.open(url, schema=schema)
        rights = "SELECT, INSERT, UPDATE, DELETE"
        cluster.run(
            f"GRANT USAGE ON SCHEMA {schema} TO worker",
            f"GRANT {rights} ON ALL TABLES IN SCHEMA {schema} TO worker",
        )
        with PostgresStore.open(url, schema=schema) as store:
            assert store.reserve([USE], NOW)
    finally:
        cluster.run("DROP OWNED BY worker", "DROP ROLE worker")


SECRET = "Geheim7"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://careful:{SECRET}@/postgres?host=SOCKET",
        f"postgresql://careful:{SECRET}x@/nowhere?host=SOCKET",
        f"postgresql://nobody:{SECRET}@/postgres?host=SOCKET",
        f"postgresql://u:{SECRET}@127.0.0.1:1/d",
        f"postgresql://u:{SECRET}@%2Fnowhere/d",
        f"postgresql://u:p@{SECRET}@localhost:1/d",
        f"postgresql://u:{SECRET}/@localhost:1/d",
        f"postgresql://u:{SECRET}",
        f"postgresql://u:%zz{SECRET}@h/d",
        f"postgresql://h:{SECRET}x/d",
        f"postgresql://[{SECRET}/d",
        f"postgresql://u@127.0.0.1:1/d?password={SECRET}",
        f"postgresql://u@h/d?pass={SECRET}",
        f"postgresql://u:{SECRET}\ud800@127.0.0.1:1/d",
        f"postgresql://u:{SECRET}\0@127.0.0.1:1/d",
        f"host=127.0.0.1 port=1 password={SECRET}",
    ],
)
def test_urls_that_lead_nowhere(cluster, url, caplog):
    """The error says what is wrong, without the password, in whatever way it is printed."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises((StoreError, ConfigurationError)) as caught:
        PostgresStore.open(url.replace("SOCKET", cluster.directory), connect_timeout=2)
    said = "".join(traceback.format_exception(caught.value, chain=True)) + repr(caught.value)
    context = caught.value
    while context := context.__context__:
        said += repr(context)
    lines = [line for line in said.splitlines() if line.strip()]
    assert not any(SECRET in line for line in lines)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (
            "postgresql://careful:wrong-one@/postgres?host=SOCKET",
            "SOCKET.*the user or the password",
        ),
        ("postgresql://postgres@/nowhere?host=SOCKET", "the database or the user does not exist"),
        ("postgresql://u@127.0.0.1:1/d", "on 127.0.0.1 .*: nothing listens there"),
        ("postgresql://u@/d?host=/nowhere", "on /nowhere .*: nothing listens there"),
        ("postgresql://u@host.invalid/d", "on host.invalid .*: there is no host"),
    ],
)
def test_why_it_cannot_be_reached(cluster, url, why):
    """The error names the server and the cause."""
    with pytest.raises(StoreError, match=why.replace("SOCKET", cluster.directory)):
        PostgresStore.open(url.replace("SOCKET", cluster.directory))


@pytest.mark.parametrize("seconds", [0, 61, 2.5, True, "5"])
def test_times_to_connect(seconds):
    """A wait has an end."""
    with pytest.raises(ConfigurationError):
        PostgresStore.open("postgresql:///x", connect_timeout=seconds)


def test_lost_between_calls(cluster, room):
    """A connection that was lost while nothing was done is opened again, once for each call."""
    token = room.reserve([USE], NOW)
    for call in (
        lambda: room.reserve([USE], NOW),
        lambda: room.taken(USE, NOW),
        lambda: room.notices(),
        lambda: room.post("stop:all"),
        lambda: room.withdraw("stop:all"),
        lambda: room.release(token, [USE]),
    ):
        end_sessions(cluster)
        call()
    assert room.taken(USE, NOW) == 1
    assert room.notices() == frozenset()


class Breaking:
    """Ends the sessions before or after the statements that begin with a text."""

    def __init__(self, store, cluster, text, *, after, times=1):
        self.ours, self.seen = store._run, 0

        def run(connection, statement, *values):
            if not statement.strip().startswith(text) or self.seen >= times:
                return self.ours(connection, statement, *values)
            self.seen += 1
            if after:
                self.ours(connection, statement, *values)
            end_sessions(cluster)
            return self.ours(connection, "SELECT 1")

        store._run = run


@pytest.mark.parametrize("text", ["BEGIN", "SELECT total", "INSERT INTO {res", "UPDATE"])
def test_lost_before_the_commit(cluster, room, text):
    """Nothing was committed, so the reservation is made anew: once, and it counts once."""
    broken = Breaking(room, cluster, text, after=True)
    assert room.reserve([USE], NOW)
    assert broken.seen == 1
    assert room.taken(USE, NOW) == 1


@pytest.mark.parametrize("after", [False, True])
def test_lost_at_the_commit(cluster, room, after):
    """Whether it was committed is unknown: the call fails; if it was, the use counts as taken."""
    broken = Breaking(room, cluster, "COMMIT", after=after)
    with pytest.raises(StoreError, match="unknown"):
        room.reserve([USE], NOW)
    assert broken.seen == 1
    assert room.taken(USE, NOW) == after


@pytest.mark.parametrize("after", [False, True])
def test_lost_where_it_may_be_repeated(cluster, room, after):
    """Giving back, posting and withdrawing are done again: twice is as good as once."""
    tokens = [room.reserve([USE], NOW) for _ in range(3)]
    Breaking(room, cluster, "COMMIT", after=after)
    room.release(tokens[0], [USE])
    assert room.taken(USE, NOW) == 2
    Breaking(room, cluster, "COMMIT", after=after)
    room.post("stop:all")
    Breaking(room, cluster, "COMMIT", after=after)
    room.withdraw("stop:all")
    assert room.notices() == frozenset()


def test_lost_again_and_again(cluster, room):
    """There is one more try, not many."""
    broken = Breaking(room, cluster, "SELECT total", after=True, times=9)
    with pytest.raises(StoreError, match="twice"):
        room.reserve([USE], NOW)
    assert broken.seen == 2
    broken.seen = 9
    assert room.taken(USE, NOW) == 0


def test_an_interrupt(room):
    """Ctrl-C goes through, and the connection that was in the midst of something is not used on."""
    ours = room._run

    def run(connection, statement, *values):
        if statement.startswith("UPDATE"):
            raise KeyboardInterrupt
        return ours(connection, statement, *values)

    room._run = run
    with pytest.raises(KeyboardInterrupt):
        room.reserve([USE], NOW)
    room._run = ours
    assert room.taken(USE, NOW) == 0
    assert room.reserve([USE], NOW)


def test_the_server_restarts(cluster, room):
    """A crash of the server loses nothing that was acknowledged."""
    for _ in range(3):
        assert room.reserve([USE], NOW)
    cluster.restart()
    assert room.taken(USE, NOW) == 3
    assert room.reserve([USE], NOW)


def test_orders_of_keys(cluster, schema):
    """Sessions that take the same budgets in other orders never wait for each other in a circle."""
    stores = [PostgresStore.open(cluster.url, schema=schema) for _ in range(6)]
    problems = []

    def work(store, number):
        keys = [f"k{(number * 7 + step) % 5}" for step in range(5)]
        uses = [Use(key, 10**6, 1, 60.0 * (key < "k2")) for key in keys]
        try:
            for turn in range(12):
                token = store.reserve(uses if turn % 2 else uses[::-1], NOW + turn * 100)
                if turn % 3:
                    store.release(token, uses[::-1])
        except BaseException as error:
            problems.append(error)

    threads = [
        threading.Thread(target=work, args=(store, number)) for number, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    assert stores[0].taken(Use("k4", 1), NOW) == 6 * 4
    for store in stores:
        store.close()


def test_a_lock_that_stays(cluster, room):
    """Waiting for a lock ends with an error; when it is free, the store goes on."""
    import psycopg

    room.reserve([USE], NOW)
    room._run(room._connection, "SET lock_timeout = '50ms'")
    with psycopg.connect(cluster.url) as other:
        other.execute("SELECT FROM some_room.budgets FOR UPDATE")
        with pytest.raises(StoreError, match="LockNotAvailable"):
            room.reserve([USE], NOW)
        assert room.taken(USE, NOW) == 1
        assert room.reserve([Use("b", 1)], NOW)
    assert room.reserve([USE], NOW)


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE some_room.reservations",
        "ALTER TABLE some_room.budgets DROP total, ADD total text DEFAULT '0'",
        "UPDATE some_room.budgets SET latest = 'NaN'",
        "UPDATE some_room.budgets SET span = 'Infinity'",
    ],
)
def test_contents_that_somebody_changed(cluster, room, change):
    """What no store has written is an error of ours."""
    uses = [USE, Use("w", 5, 1, 60.0)]
    assert room.reserve(uses, NOW)
    cluster.run(change)
    for _ in range(2):
        with pytest.raises(StoreError):
            room.reserve(uses, NOW)
    assert room.notices() == frozenset()


def test_closed(cluster, room):
    """A closed store says so; closing twice is nothing, and no session is left."""
    room.close()
    room.close()
    with pytest.raises(StoreError, match="closed"):
        room.reserve([USE], NOW)
    import psycopg

    deadline = time.monotonic() + 10
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'checkrein'"
    with psycopg.connect(cluster.url, autocommit=True) as other:
        while other.execute(count).fetchone() != (0,):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_encodings(cluster, schema, monkeypatch):
    """What the environment says about encodings changes no key."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with PostgresStore.open(cluster.url, schema=schema) as store:
        assert store.reserve([Use("€😀", 1)], NOW)
        assert store.reserve([Use("€😀", 1)], NOW) is None
    assert os.environ["PGCLIENTENCODING"] == "LATIN1"
