"""The log in PostgreSQL: several writers, lost connections, kills, and a hostile administrator."""

from __future__ import annotations

import json
import logging
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from pathlib import Path

import pytest

from checkrein.errors import (
    CheckreinError,
    ConfigurationError,
    LogError,
    MisuseError,
    RollbackError,
    TamperedError,
)
from checkrein.forgetting import Erasable
from checkrein.log import AuditLog, prove, read_entries, verify_log, verify_receipt
from checkrein.log.keys import key_path, new_key
from stores.proxy import Proxy

pytestmark = [pytest.mark.service("postgres"), pytest.mark.usefixtures("cluster")]
ORIGIN = "example.com/shared"
SCHEMA = "checkrein_log"

WRITER = """
import sys
from checkrein.log import AuditLog
url, origin, name, batches, size = sys.argv[1:]
log = AuditLog.open(url, origin=origin)
print("ready", flush=True)
number = 0
while batches == "-" or number < int(batches) * int(size):
    batch = [{"type": "test", "text": f"{name}-{number + i + 1}"} for i in range(int(size))]
    for position, event in zip(log.append_many(batch), batch):
        sys.stdout.write(f"{position.index} {event['text']}\\n")
    sys.stdout.flush()
    number += len(batch)
log.close()
"""


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Keep the user's own keys out of the tests."""
    place = tmp_path / "data"
    monkeypatch.setenv("CHECKREIN_DATA", str(place))
    return place


@pytest.fixture
def url(cluster):
    """A database without a log."""
    cluster.run(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    yield cluster.url
    cluster.run(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")


@pytest.fixture
def opened():
    """Opens logs, and lets go of them at the end."""
    logs = []

    def open_it(where, **options):
        logs.append(AuditLog.open(where, **{"origin": ORIGIN, **options}))
        return logs[-1]

    yield open_it
    for one in logs:
        try:
            one.close()
        except CheckreinError:
            pass


@pytest.fixture
def export(url, tmp_path, data):
    """Exports the log to a new directory, as an auditor with its public key."""
    from checkrein.log.postgres import export_static

    count = iter(range(1000))

    def export(directory=None, origin=ORIGIN, **options):
        place = directory or tmp_path / f"export{next(count)}"
        vkey = key_path(origin).with_suffix(".vkey").read_text().strip()
        export_static(url, place, origin=origin, vkey=vkey, **options)
        return place

    return export


def event(number, **more):
    return {"type": "test", "n": number, **more}


def texts(directory):
    return [entry["text"] for _, entry in read_entries(directory)]


RUNNING = []


@pytest.fixture(autouse=True)
def ended():
    """End the processes that a failed test has left."""
    yield
    for one in RUNNING[:]:
        one.kill()


class Writer:
    """A process that writes, and tells what was acknowledged."""

    def __init__(self, url, name, batches="-", size=1):
        arguments = [sys.executable, "-c", WRITER, url, ORIGIN, name, str(batches), str(size)]
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        self.told = b""
        RUNNING.append(self)

    def wait_for(self, lines):
        while self.told.count(b"\n") < lines:
            assert select.select([self.process.stdout], [], [], 60)[0], "nothing is written"
            part = os.read(self.process.stdout.fileno(), 65_536)
            assert part, self.process.stderr.read().decode()
            self.told += part

    def kill(self):
        os.kill(self.process.pid, signal.SIGKILL)
        return self.end()

    def end(self, code=None):
        """Wait for its end; return (index, text) of each entry that it told of."""
        out, errors = self.process.communicate(timeout=120)
        RUNNING.remove(self)
        assert code in {None, self.process.returncode}, errors.decode()
        self.told += out
        whole = self.told[: self.told.rfind(b"\n") + 1].decode().splitlines()
        return [
            (int(index), text)
            for index, _, text in (line.partition(" ") for line in whole)
            if index != "ready"
        ]


def test_a_log(url, opened, tmp_path):
    """What is appended is there, in order, for all tools; and goes on when opened again."""
    public = tmp_path / "public"
    with opened(url, publish_to=public) as log:
        assert log.checkpoint.startswith(f"{ORIGIN}\n0\n")
        assert log.append(event(0)).index == 0
        positions = log.append_many([event(number) for number in range(1, 700)])
        assert [one.index for one in positions] == [*range(1, 700)]
        log.enqueue(event(700))
        vkey = log.vkey
        assert "postgresql" not in log._ledger.where
        with pytest.raises(ConfigurationError, match="database"):
            AuditLog.open(public)
        assert log.directory == public
    report = verify_log(public, vkey=vkey, pin=positions[-1].checkpoint)
    assert report.good and report.size == 701
    entry = b'{"type":"test","n":5}'
    assert verify_receipt(entry, prove(public, 5), vkey=vkey).index == 5
    with AuditLog.open(url.replace("postgresql", "Postgres"), publish_to=public) as log:
        assert (log.origin, log.size) == (ORIGIN, 701)
        log.append(event(701))
    assert [entry["n"] for _, entry in read_entries(public)] == [*range(702)]
    assert verify_log(public, vkey=vkey).good


def test_four_processes(url, export):
    """Four that start at once, without a log, lose and double nothing, and keep their order."""
    writers = [Writer(url, f"w{number}", 40, number + 1) for number in range(4)]
    told = [one for writer in writers for one in writer.end(0)]
    place = export()
    report = verify_log(place)
    assert report.good and report.size == len(told) == 40 * (1 + 2 + 3 + 4)
    found = texts(place)
    assert dict(told) == dict(enumerate(found))
    for name in range(4):
        mine = [text for text in found if text.startswith(f"w{name}-")]
        assert mine == [f"w{name}-{number + 1}" for number in range(len(mine))]


def test_killed_writers_lose_nothing_acknowledged(url, export, opened):
    """After twenty kills every acknowledged entry is where it was said, and nothing is doubled."""
    chance = random.Random(6)
    names = iter(range(1000))
    opened(url).close()
    writers = [Writer(url, f"w{next(names)}", size=1 + number * 3) for number in range(3)]
    told = []
    for _ in range(20):
        victim = chance.randrange(3)
        writers[victim].wait_for(chance.randint(2, 60))
        told += writers[victim].kill()
        writers[victim] = Writer(url, f"w{next(names)}", size=chance.randint(1, 9))
    for writer in writers:
        writer.wait_for(2)
        told += writer.kill()
    with opened(url) as log:
        log.append({"type": "test", "text": "the last"})
    place = export()
    assert verify_log(place).good
    found = texts(place)
    assert len(told) > 40
    assert [(index, text) for index, text in told if found[index] != text] == []
    assert [text for text, times in Counter(found).items() if times > 1] == []


def test_threads(url, opened, export):
    """Threads share commits, and each gets the positions of its own entries."""
    log = opened(url)
    places = {}

    def work(name):
        for number in range(30):
            places[f"{name}-{number}"] = log.append({"type": "t", "text": f"{name}-{number}"})

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    log.close()
    found = texts(export())
    assert {text: place.index for text, place in places.items()} == {
        text: index for index, text in enumerate(found)
    }


def test_two_logs_in_one_database(url, opened, export):
    """Logs of two names know nothing of each other; without a name there must be one."""
    first, second = opened(url), opened(url, origin="example.com/other")
    with pytest.raises(MisuseError, match="not in a directory"):
        first.directory
    for number in range(3):
        first.append(event(number))
        second.append(event(10 + number))
    first.close()
    second.close()
    assert [entry["n"] for _, entry in read_entries(export())] == [0, 1, 2]
    other = export(origin="example.com/other")
    assert [entry["n"] for _, entry in read_entries(other)] == [10, 11, 12]
    with pytest.raises(ConfigurationError, match="several"):
        AuditLog.open(url)


def test_keys(url, opened, tmp_path, data):
    """Another host needs the key, and must have the right one."""
    signer = new_key(ORIGIN, tmp_path / "log.skey")
    opened(url, signer=signer).append(event(0))
    with pytest.raises(ConfigurationError, match="private key"):
        opened(url)
    shutil.rmtree(data)
    with pytest.raises(TamperedError):
        opened(url, signer=new_key(ORIGIN, tmp_path / "another.skey"))
    with pytest.raises(ConfigurationError, match="signer is"):
        opened(url, signer=new_key("example.com/x", tmp_path / "x.skey"))
    with pytest.raises(ConfigurationError, match="lies in"):
        opened(url, signer=signer, publish_to=tmp_path)
    assert opened(url, signer=signer).size == 1


def test_what_open_refuses(url, opened, tmp_path):
    """Options that are for the other kind of log, and places that are taken."""
    with pytest.raises(ConfigurationError, match="durability"):
        opened(url, durability="os")
    with pytest.raises(ConfigurationError, match="publish_to"):
        opened(tmp_path / "a", publish_to=tmp_path / "b")
    opened(tmp_path / "log", origin="example.com/dir").close()
    with pytest.raises(ConfigurationError, match="a log of its own"):
        opened(url, publish_to=tmp_path / "log")
    with pytest.raises(ConfigurationError, match="a directory, or at"):
        opened(f" {url}")
    with pytest.raises(ConfigurationError, match="cannot be understood"):
        opened("postgresql://[host/x")


def test_servers_that_may_lose_commits(url, opened, cluster, monkeypatch):
    """A server that acknowledges before the disk has it is refused, at the start or later."""
    from checkrein.log import database

    log = opened(url)
    log.append(event(0))
    cluster.run("ALTER ROLE postgres SET synchronous_commit = off")
    try:
        with pytest.raises(ConfigurationError, match="synchronous_commit = off"):
            opened(url)
    finally:
        cluster.run("ALTER ROLE postgres RESET synchronous_commit")
    log._ledger._session.run("SET synchronous_commit = off")
    with pytest.raises(LogError, match="synchronous_commit = off"):
        log.append(event(1))
    assert opened(url).size == 1
    monkeypatch.setattr(database, "LOSSY", "'on', 'off'")  # as a server would say, whom this hurts
    with pytest.raises(ConfigurationError, match="fsync = off"):
        opened(url)


def autocommit(cluster, *statements):
    import psycopg

    with psycopg.connect(cluster.url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def settle(cluster, name, value):
    """Return when new sessions have the setting."""
    import psycopg

    for _ in range(1000):
        with psycopg.connect(cluster.url) as connection:
            if connection.execute(f"SHOW {name}").fetchone() == (value,):
                return
    raise AssertionError(f"{name} does not become {value}")


def test_standby_servers_that_are_away(url, opened, cluster):
    """A commit waits for the standby servers; one that somebody let go without is no commit."""
    import psycopg

    log = opened(url)
    log.append(event(0))
    waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    set_it = "ALTER SYSTEM SET synchronous_standby_names = 'nobody'"
    errors = []

    def work():
        try:
            for number in range(100):  # until the session has heard of it
                log.append(event(number))
        except LogError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    try:
        autocommit(cluster, set_it, "SELECT pg_reload_conf()")
        settle(cluster, "synchronous_standby_names", "nobody")
        thread.start()
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            while not connection.execute(f"SELECT pg_cancel_backend(pid) {waiting}").fetchall():
                assert thread.is_alive()
    finally:
        reset = "ALTER SYSTEM RESET synchronous_standby_names"
        autocommit(cluster, reset, "SELECT pg_reload_conf()")
        settle(cluster, "synchronous_standby_names", "")
    thread.join()
    assert "not on all servers" in errors[0]
    assert opened(url).size >= 2


# -- connections that are lost -----------------------------------------------------------------


def end_sessions(cluster):
    cluster.run(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'checkrein'"
    )


def test_lost_between_commits(url, opened, cluster, export):
    """Sessions that end, and servers that restart, between commits are made up for."""
    log = opened(url)
    for number in range(0, 6, 2):
        log.append(event(number))
        cluster.restart() if number == 2 else end_sessions(cluster)
        log.append(event(number + 1))
    log.close()
    assert [entry["n"] for _, entry in read_entries(export())] == [*range(6)]


@pytest.fixture
def cut(cluster, url, opened, tmp_path_factory):
    """Opens a log behind a proxy that cuts its connection."""
    proxies = []

    def cut(text, *, deliver, times=1, patience=20.0):
        room = tmp_path_factory.mktemp("p")
        proxy = Proxy(str(room), cluster.directory, cut=text, deliver=deliver, times=times)
        proxies.append(proxy)
        log = opened(proxy.url)
        log._ledger._patience = patience
        log.append({"type": "t", "text": "first"})
        proxy.armed = True
        return proxy, log

    yield cut
    for one in proxies:
        one.close()


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("deliver", [False, True])
@pytest.mark.parametrize(
    "text", [b"BEGIN", b"FOR UPDATE", b"PGCOPY", b"UPDATE checkrein_", b"COMMIT"]
)
def test_lost_within_a_commit(url, opened, cut, export, text, deliver, between):
    """A commit that was cut off is there once, though others may write before it is looked for.

    They write the very same entries: what is whose is not to be guessed from that.
    """
    proxy, log = cut(text, deliver=deliver)
    same = [{"type": "t", "text": "same"}] * 3
    others = threading.Thread(target=lambda: opened(url).append_many(same))
    if between:
        proxy.meanwhile = others.start
    positions = log.append_many(same)
    assert proxy.times == 0, "the connection was never cut"
    if between:
        others.join()
    last = log.append({"type": "t", "text": "last"})
    log.close()
    place = export()
    assert verify_log(place).good
    found = texts(place)
    assert found == ["first", *["same"] * (6 if between else 3), "last"]
    assert last.index == len(found) - 1
    assert [one.index for one in positions] in ([1, 2, 3], [4, 5, 6])


def test_lost_again_and_again(cut, opened, url, export):
    """A database that stays away makes the commit fail, and the log takes nothing any more."""
    proxy, log = cut(b"COMMIT", deliver=False, times=10**6, patience=1.0)
    with pytest.raises(LogError, match=r"lost again and again|was lost"):
        log.append({"type": "t", "text": "never"})
    proxy.armed = False
    with pytest.raises(LogError, match="opened anew"):
        log.append({"type": "t", "text": "never"})
    opened(url).append({"type": "t", "text": "second"})
    assert texts(export()) == ["first", "second"]


def test_ended_while_it_waits(url, opened, cluster, export):
    """A session that is ended in the midst of a statement is made up for as well."""
    import psycopg

    log = opened(url)
    log.append(event(0))
    with psycopg.connect(url) as other, psycopg.connect(url, autocommit=True) as admin:
        other.execute(f"SELECT FROM {SCHEMA}.head FOR UPDATE")
        thread = threading.Thread(target=lambda: log.append(event(1)))
        thread.start()
        waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not admin.execute(f"SELECT pg_terminate_backend(pid) {waiting}").fetchall():
            assert thread.is_alive()
    thread.join()
    log.close()
    assert [entry["n"] for _, entry in read_entries(export())] == [0, 1]


def test_in_doubt(cut, opened, url, export):
    """A database that goes away with the answer leaves the commit in doubt, and it says so."""
    proxy, log = cut(b"COMMIT", deliver=True, patience=1.0)
    proxy.meanwhile = proxy.stop
    with pytest.raises(LogError, match="whether the last commit was made is unknown") as caught:
        log.append({"type": "t", "text": "perhaps"})
    assert "host=" not in str(caught.value)
    assert opened(url).size in {1, 2}


def test_a_restart_under_load(url, cluster, opened, export):
    """Three processes go on over two crashes of the server; nothing is lost or doubled."""
    opened(url).close()
    writers = [Writer(url, f"w{number}", 60, 3) for number in range(3)]
    for one in writers:  # who opens a log is not patient
        one.wait_for(1)
    for lines in (30, 90):
        writers[0].wait_for(lines)
        cluster.restart()
    told = [one for writer in writers for one in writer.end(0)]
    place = export()
    assert verify_log(place).good
    assert dict(told) == dict(enumerate(texts(place)))
    assert len(told) == 3 * 180


def test_a_stopped_writer(url, opened, export):
    """One that stands still with the lock is thrown out; it loses its turn and nothing else."""
    writer = Writer(url, "w")
    writer.wait_for(20)
    os.kill(writer.process.pid, signal.SIGSTOP)
    log = opened(url)
    log.append({"type": "t", "text": "other"})
    os.kill(writer.process.pid, signal.SIGCONT)
    writer.wait_for(60)
    told = writer.kill()
    log.close()
    place = export()
    assert verify_log(place).good
    found = texts(place)
    assert found.count("other") == 1
    assert all(found[index] == text for index, text in told)
    assert len(found) == len(set(found))


def test_a_forked_child(url, opened, export):
    """A child leaves the parent's session alone, and opens the log for itself."""
    log = opened(url)
    log.append({"type": "t", "text": "before"})
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                log.append({"type": "t", "text": "stolen"})
            except LogError:
                log.close()
                with AuditLog.open(url, origin=ORIGIN) as mine:
                    mine.append({"type": "t", "text": "child"})
                code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    session = log._ledger._session
    log.append({"type": "t", "text": "after"})
    assert log._ledger._session is session
    log.close()
    assert texts(export()) == ["before", "child", "after"]


def test_an_interrupt(url, opened):
    """Ctrl-C within a commit lets go of the lock; another writer goes on."""
    log = opened(url)
    log.append(event(0))

    class Interrupting:
        name, vkey = log.origin, log.vkey

        def sign(self, text):
            raise KeyboardInterrupt

    log._ledger._signer = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        log.append(event(1))
    assert opened(url).append(event(2)).index == 1
    with pytest.raises(LogError):
        log.append(event(3))


# -- what an administrator of the database may do ------------------------------------------------


@pytest.fixture
def filled(url, opened):
    """A log of 600 entries, in commits of twenty."""
    log = opened(url)
    for start in range(0, 600, 20):
        log.append_many([event(start + number) for number in range(20)])
    return log


ENTRY = f"UPDATE {SCHEMA}.entry SET"
FORGED = f"{ENTRY} entry = '{{}}', hashes = sha256('\\x007b7d') || substring(hashes from 33)"
TAMPERINGS = {
    "edits an entry": [f"{ENTRY} entry = '{{}}' WHERE index = 300"],
    "edits an entry and its hash": [f"{FORGED} WHERE index = 300"],
    "edits the last entry and its hash": [f"{FORGED} WHERE index = 599"],
    "deletes one": [f"DELETE FROM {SCHEMA}.entry WHERE index = 17"],
    "deletes the last": [f"DELETE FROM {SCHEMA}.entry WHERE index = 599"],
    "deletes one and closes the gap": [
        f"DELETE FROM {SCHEMA}.entry WHERE index = 300",
        f"{ENTRY} index = -index WHERE index > 300",
        f"{ENTRY} index = -index - 1 WHERE index < 0",
    ],
    "swaps two": [
        f"{ENTRY} index = -1 WHERE index = 40",
        f"{ENTRY} index = 40 WHERE index = 44",
        f"{ENTRY} index = 44 WHERE index = -1",
    ],
    "moves the head": [f"UPDATE {SCHEMA}.head SET size = 599"],
    "writes a head": [f"UPDATE {SCHEMA}.head SET note = 'example.com/shared'"],
    "makes texts of the bytes": [
        f"ALTER TABLE {SCHEMA}.entry ALTER hashes TYPE text, ALTER entry TYPE text"
    ],
    "allows what is not there": [
        f"ALTER TABLE {SCHEMA}.entry ALTER entry DROP NOT NULL",
        f"{ENTRY} entry = NULL WHERE index = 5",
    ],
    "makes one too large": [f"{ENTRY} entry = repeat('x', 70000)::bytea WHERE index = 5"],
}


@pytest.mark.parametrize("how", TAMPERINGS)
def test_tampering(filled, cluster, export, how):
    """What somebody changed in the tables is in no export."""
    filled.close()
    cluster.run(*TAMPERINGS[how])
    with pytest.raises(TamperedError) as caught:
        export()
    assert not isinstance(caught.value, RollbackError)


@pytest.mark.parametrize("how", TAMPERINGS)
def test_tampering_behind_a_publication(filled, cluster, export, how):
    """What is exported already stays as it was, and no head is written over what is wrong."""
    place = export()
    before = (place / "checkpoint").read_bytes()
    filled.append(event(600))
    cluster.run(*TAMPERINGS[how])
    try:
        export(place)
    except TamperedError:
        assert (place / "checkpoint").read_bytes() == before
    assert verify_log(place).good


@pytest.mark.parametrize(
    "how", ["moves the head", "writes a head", "deletes the last", "makes texts of the bytes"]
)
def test_writers_that_notice(filled, cluster, opened, url, how):
    """A writer that opens the log refuses a head, or its rows, that do not belong together."""
    cluster.run(*TAMPERINGS[how])
    with pytest.raises(TamperedError):
        opened(url)


def copy_of(cluster):
    """Keep what is in the tables; return what puts it back, as from a backup."""
    cluster.run(
        f"CREATE TABLE {SCHEMA}.old_head AS TABLE {SCHEMA}.head",
        f"CREATE TABLE {SCHEMA}.old_entry AS TABLE {SCHEMA}.entry",
    )
    return lambda: cluster.run(
        f"DELETE FROM {SCHEMA}.head",
        f"DELETE FROM {SCHEMA}.entry",
        f"INSERT INTO {SCHEMA}.head SELECT * FROM {SCHEMA}.old_head",
        f"INSERT INTO {SCHEMA}.entry SELECT * FROM {SCHEMA}.old_entry",
    )


def test_a_backup_is_put_back(filled, cluster, export, opened, url):
    """A database with less than it had is refused: at work, when opened, and by a publication."""
    put_back = copy_of(cluster)
    idle = opened(url)
    filled.append_many([event(number) for number in range(10)])
    idle.append(event(11))
    place = export()
    put_back()
    for log in (filled, idle):
        with pytest.raises(LogError, match="had 61"):
            log.append(event(12))
    with pytest.raises(RollbackError, match="signed before"):
        opened(url)
    with pytest.raises(RollbackError):
        export(place)
    assert verify_log(place).good


def test_another_story(filled, cluster, export, opened, url, tmp_path, monkeypatch):
    """A host without a memory goes on from an old copy: the others refuse what it has signed."""
    put_back = copy_of(cluster)
    filled.append_many([event(number) for number in range(4)])
    place = export()
    put_back()
    other = opened(url, pin=tmp_path / "a new host's")
    other.append_many([event(number) for number in range(90, 100)])
    with pytest.raises(LogError, match="not those of a head"):
        filled.append(event(13))
    with pytest.raises(TamperedError, match="not those of a head"):
        opened(url)
    with pytest.raises(TamperedError):
        export(place)
    assert verify_log(place).good


@pytest.mark.parametrize("what", ["the head", "all"])
def test_deletions(filled, cluster, opened, url, what):
    """A log that is gone is not begun anew by who has signed it before."""
    cluster.run(f"DELETE FROM {SCHEMA}.head")
    if what == "all":
        cluster.run(f"DELETE FROM {SCHEMA}.entry")
    with pytest.raises(LogError, match="head of the log is gone"):
        filled.append(event(0))
    signer = filled._ledger.signer
    with pytest.raises(RollbackError):
        opened(url, signer=signer)


def test_rows_that_no_head_covers(filled, cluster, opened, url):
    """An entry that somebody put behind the last is not built upon."""
    cluster.run(
        f"INSERT INTO {SCHEMA}.entry SELECT origin, 600, entry, hashes, NULL"
        f" FROM {SCHEMA}.entry WHERE index = 0"
    )
    with pytest.raises(LogError, match="no head covers"):
        filled.append(event(0))


def test_schemas_of_others(cluster, url, opened):
    """A schema of that name that is not ours is left alone."""
    cluster.run(f"CREATE SCHEMA {SCHEMA}")
    with pytest.raises(ConfigurationError, match="holds no log"):
        opened(url)


# -- rights, secrets, erasing --------------------------------------------------------------------


def test_rights(filled, cluster, export, opened, url, tmp_path):
    """An auditor can export and not write; a writer needs no more than what is documented."""
    from checkrein.log.postgres import export_static

    cluster.run(
        "CREATE ROLE auditor LOGIN",
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO auditor",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {SCHEMA} TO auditor",
        "CREATE ROLE writer LOGIN",
        f"GRANT USAGE ON SCHEMA {SCHEMA} TO writer",
        f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {SCHEMA} TO writer",
    )
    try:
        theirs = url.replace("postgres@", "auditor@")
        export_static(theirs, tmp_path / "audit", origin=ORIGIN, vkey=filled.vkey)
        assert verify_log(tmp_path / "audit", vkey=filled.vkey).size == 600
        with pytest.raises(LogError, match="InsufficientPrivilege"):
            opened(theirs).append(event(0))
        opened(url.replace("postgres@", "writer@")).append(event(0))
    finally:
        cluster.run("DROP OWNED BY auditor, writer", "DROP ROLE auditor, writer")


def test_no_log_to_export(url, opened, tmp_path):
    """An export of what is not there says so."""
    from checkrein.log.postgres import export_static

    log = opened(url)
    with pytest.raises(LogError, match="has no log"):
        other = new_key("example.com/none", tmp_path / "k.skey")
        export_static(url, tmp_path / "x", origin="example.com/none", vkey=other.vkey)
    with pytest.raises(ConfigurationError, match="the key is of"):
        export_static(url, tmp_path / "x", origin="example.com/none", vkey=log.vkey)
    export_static(url, tmp_path / "empty", origin=ORIGIN, vkey=log.vkey)
    assert verify_log(tmp_path / "empty", vkey=log.vkey).good


@pytest.mark.parametrize(
    "where", ["nobody:hunter2@/postgres", "x:hunter2@/", "postgres:hun@ter2@/x"]
)
def test_passwords_are_kept(url, opened, cluster, where, caplog):
    """No error says what the password is, nor what the URL is, however far it is looked into."""
    caplog.set_level(logging.DEBUG)
    with pytest.raises(CheckreinError) as caught:
        opened(f"postgresql://{where}?host={cluster.directory}")
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert "hunter2" not in told.replace("opened(", "")
    assert "ter2" not in str(caught.value)


def test_erasing(url, opened, export, tmp_path):
    """What may be erased is beside the entries; when it is erased, the log still verifies."""
    log = opened(url)
    log.append({"type": "a", "to": Erasable("dana@acme.example")})
    log.append({"type": "b", "body": Erasable("private", subject="dana"), "k": Erasable(1)})
    place = export(openings=True)
    shown = [entry for _, entry in read_entries(place)]
    assert shown[0]["to"] == "dana@acme.example"
    assert (shown[1]["body"], shown[1]["k"]) == ("private", 1)
    assert "dana@acme" not in json.dumps([entry for _, entry in read_entries(export())])
    assert log.erase(index=0, by="dana", reason="asked to") == 1
    assert log.erase(subject="dana", by="dana", reason="asked to") == 1
    with pytest.raises(LogError, match="no entry 99"):
        log.erase(index=99, by="dana", reason="asked to")
    export(place, openings=True)
    shown = [entry for _, entry in read_entries(place)]
    assert "commitment" in shown[0]["to"]
    assert "commitment" in shown[1]["body"]
    assert shown[1]["k"] == 1
    assert [entry["type"] for entry in shown] == ["a", "b", "erasure", "erasure"]
    assert verify_log(place).good


def test_publications_side_by_side(url, opened, tmp_path):
    """Writers that publish into one directory, and into their own, all keep whole logs."""
    one, two = tmp_path / "one", tmp_path / "two"
    logs = [opened(url, publish_to=place) for place in (one, one, two)]
    sizes = iter(range(1, 1000))

    def work(log):
        for _ in range(5):
            log.append_many([event(0)] * (next(sizes) * 37))
            log.publish()

    threads = [threading.Thread(target=work, args=(log,)) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close()
    for place in (one, two):
        logs[-1]
        report = verify_log(place)
        assert report.good, report
    assert verify_log(one).size == sum(range(1, 16)) * 37


def test_it_publishes_when_it_is_time(url, opened, tmp_path, monkeypatch):
    """Without being asked, the directory follows the log."""
    from checkrein.log import postgres

    monkeypatch.setattr(postgres, "_TIMELY", 10)
    public = tmp_path / "public"
    log = opened(url, publish_to=public)
    log.append_many([event(number) for number in range(200)])
    log.append(event(200))  # it is far behind: this one waits for a publication
    assert verify_log(public).size >= 200
    assert Path(public / "checkpoint").exists()
