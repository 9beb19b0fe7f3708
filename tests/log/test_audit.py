"""`AuditLog` as its users see it."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkrein.errors import ConfigurationError, LogError, RollbackError, TamperedError
from checkrein.log import AuditLog, keys, locks, read_entries, verify_log
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.locks import FileLock
from checkrein.log.merkle import leaf_hash
from checkrein.log.note import Ed25519Signer, parse_vkey, sign_note


def numbers(directory):
    return [entry["n"] for _, entry in read_entries(directory)]


def test_append_returns_a_signed_position(tmp_path, tools):
    """On return the entry has an index, a hash and a head signed by the log's key."""
    event, *_ = tools
    with AuditLog.open(tmp_path / "log") as log:
        positions = [log.append(event(i)) for i in range(3)]
        assert [p.index for p in positions] == [0, 1, 2]
        assert positions[0].leaf_hash == leaf_hash(b'{"type":"test","n":0}')
        head = open_checkpoint(positions[2].checkpoint, parse_vkey(log.vkey))
        assert (head.origin, head.size) == (log.origin, 3) == (log.origin, log.size)
        assert log.checkpoint == positions[2].checkpoint
        assert log.directory == tmp_path / "log"
    assert verify_log(tmp_path / "log", pin=positions[1].checkpoint).good


def test_order_of_append_and_enqueue(make, tools):
    """What was enqueued first is in the log first, and an append waits for all before it."""
    event, *_ = tools
    log = make()
    for i in range(10):
        log.enqueue(event(2 * i))
        assert log.append(event(2 * i + 1)).index == 2 * i + 1
    log.enqueue(event(20))
    log.flush()
    assert log.size == 21
    log.close()
    assert numbers(log.directory) == list(range(21))


def test_the_background_thread_commits(make, tools):
    """An enqueued entry becomes durable without any further call."""
    event, quick, _ = tools
    synced = threading.Event()

    class Telling(quick):
        def sync(self, fd):
            synced.set()

    log = make(disk=Telling())
    synced.clear()
    log.enqueue(event(0))
    assert synced.wait(10)
    log.close()
    assert numbers(log.directory) == [0]


def test_backpressure(make, tools):
    """Whoever enqueues the 4,096th entry commits; the queue never grows beyond."""
    event, *_ = tools
    log = make()
    for i in range(5000):
        log.enqueue(event(i))
        assert len(log._queue) < 4097
    log.flush()
    assert log.size == 5000
    log.close()
    assert verify_log(log.directory).good
    assert numbers(log.directory) == list(range(5000))


def test_many_threads(make, tools):
    """Thirty-two threads get distinct positions, each with a head that covers it."""
    event, *_ = tools
    log = make()
    positions = []

    def work(thread):
        for i in range(20):
            position = log.append(event(i, thread=thread))
            positions.append((position.index, thread, i, position.checkpoint))
            log.enqueue(event(i, thread=-thread))

    threads = [threading.Thread(target=work, args=(t,)) for t in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    entries = dict(read_entries(log.directory))
    assert len(entries) == 1280
    assert len({index for index, *_ in positions}) == 640
    for index, thread, i, checkpoint in positions:
        assert (entries[index]["thread"], entries[index]["n"]) == (thread, i)
        assert open_checkpoint(checkpoint, parse_vkey(log.vkey)).size > index
    assert verify_log(log.directory).good


def test_threads_while_publishing(make, tools):
    """Publishing again and again in the midst of appends loses nothing and blocks nobody."""
    event, *_ = tools
    log = make()
    threads = [
        threading.Thread(target=lambda: [log.append(event(i)) for i in range(100)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        log.publish()
    log.close()
    assert len(numbers(log.directory)) == 800
    assert verify_log(log.directory).good


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "x", "value": object()},
        {"type": "x", "value": 2**64},
        {"type": "x", "value": "\ud800"},
        {"type": "x", 1: "key"},
        {"type": "x", "value": ["v" * 1000] * 66},
        {"type": 7},
        {},
        "type",
        None,
        [("type",)],
    ],
)
def test_events_that_cannot_be_entries(make, tools, wrong):
    """Each is refused with a LogError, and nothing of it, or of its neighbours, is written."""
    event, *_ = tools
    log = make()
    for call in (log.append, log.enqueue, lambda e: log.append_many([event(0), e])):
        with pytest.raises(LogError) as caught:
            call(wrong)
        assert "vvv" not in str(caught.value)
    assert log.size == 0
    log.close()


def test_the_largest_entry(make):
    """65,535 bytes fit; of one more the text is laid aside, and without a text it is an error."""
    log = make()
    empty = len(b'{"type":"big","text":""}')
    assert log.append({"type": "big", "text": "x" * (65_535 - empty)}).index == 0
    log.append({"type": "big", "text": "x" * (65_536 - empty)})
    texts = [entry["text"] for _, entry in read_entries(log.directory, values=False)]
    assert (len(texts[0]), set(texts[1])) == (65_535 - empty, {"commitment", "size"})
    assert [*read_entries(log.directory)][1][1]["text"] == "x" * (65_536 - empty)
    with pytest.raises(LogError, match=r"'big' has 7\d{4} bytes.*digest"):
        log.append({"type": "big", "list": ["x" * 1000] * 70})
    log.close()
    assert verify_log(log.directory).good


def test_big_batches_are_split(make, tools):
    """Entries of twenty megabytes in one call become several frames and stay in order."""
    event, *_ = tools
    log = make()
    positions = log.append_many([event(i, text="x" * 60_000) for i in range(350)])
    assert [p.index for p in positions] == list(range(350))
    assert log.append_many([]) == []
    log.close()
    assert verify_log(log.directory).good


def test_any_mapping_and_what_json_has(make):
    """A mapping that is no dict, and dates, which JSON text can hold, are taken."""
    import types

    log = make()
    log.append(types.MappingProxyType({"type": "a", "at": dt.date(2026, 1, 1)}))
    log.close()
    assert list(read_entries(log.directory)) == [(0, {"type": "a", "at": "2026-01-01"})]


def test_closed(make, tools):
    """A closed log refuses everything but a second close."""
    event, *_ = tools
    log = make()
    log.close()
    log.close()
    for call in (
        lambda: log.append(event(0)),
        lambda: log.enqueue(event(0)),
        log.flush,
        log.publish,
    ):
        with pytest.raises(LogError, match="closed"):
            call()


def test_an_existing_log_goes_on(make, tools):
    """Opened again, a log keeps origin, key and numbers, whatever its size."""
    event, *_ = tools
    total, origin = 0, None
    for count in (0, 1, 254, 1, 1, 300, 0):
        log = make(origin=origin)
        assert log.size == total
        positions = log.append_many([event(total + i) for i in range(count)])
        total += count
        assert [p.index for p in positions] == list(range(total - count, total))
        log.close()
        assert verify_log(log.directory).good
        origin = log.origin
    assert numbers(log.directory) == list(range(total))


def test_published_files_are_the_specified_ones(make, tools):
    """After 257 entries there are exactly the tiles that the specification names."""
    event, *_ = tools
    log = make()
    log.append_many([event(i) for i in range(5)])
    log.publish()
    log.append_many([event(i) for i in range(252)])
    log.close()
    files = {str(p.relative_to(log.directory)) for p in log.directory.rglob("*") if p.is_file()}
    assert files == {
        ".state/lock",
        ".state/publishing",
        ".state/journal",
        "checkpoint",
        "tile/0/000",
        "tile/0/001.p/1",
        "tile/1/000.p/1",
        "tile/entries/000",
        "tile/entries/001.p/1",
    }


def test_the_background_thread_publishes(make, tools):
    """A journal of 4,096 entries is published without anybody asking for it."""
    event, quick, _ = tools
    published = threading.Event()

    class Telling(quick):
        def write_files(self, files):
            super().write_files(files)
            if any(path.name == "checkpoint" for path in files):
                published.set()

    log = make(disk=Telling())
    published.clear()
    log.append_many([event(i) for i in range(4096)])
    assert published.wait(10)
    log.close()
    assert verify_log(log.directory).good


def test_far_behind_publishes_first(make, tools, monkeypatch):
    """If nobody else publishes, the one who appends does, so that the journal stays bounded."""
    from checkrein.log import audit

    event, *_ = tools
    monkeypatch.setattr(audit, "_BEHIND", 0)
    log = make()
    log.append(event(0))
    log.append(event(1))
    assert log._ledger._published.size == 1
    log.close()
    assert verify_log(log.directory).good


# Keys


def test_keys_are_private(make, data):
    """The default key is in the user's data directory, for the owner only."""
    log = make()
    log.close()
    path = keys.key_path(log.origin)
    assert path.is_relative_to(data)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert keys.known_verifier(log.origin) == log.vkey
    assert keys.known_verifier("example.com/unknown") is None


def test_a_key_that_others_can_read_is_refused(make):
    """Such a key is no secret; the message says how to mend it."""
    log = make()
    log.close()
    keys.key_path(log.origin).chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        make()


def test_a_missing_key(make):
    """Without its key a log cannot go on, and the message says what to pass."""
    log = make()
    log.close()
    keys.key_path(log.origin).unlink()
    with pytest.raises(ConfigurationError, match="signer="):
        make()
    for wrong in (b"nonsense", b"\xff"):
        keys.key_path(log.origin).write_bytes(wrong)
        keys.key_path(log.origin).chmod(0o600)
        with pytest.raises(ConfigurationError):
            make()


def test_no_second_key_for_a_name(make, tmp_path):
    """One name has one key: a second log under a known name could tell another story."""
    make("one", origin="example.com/log").close()
    with pytest.raises(ConfigurationError, match="another origin"):
        make("two", origin="example.com/log")


def test_a_key_inside_the_log_is_refused(tmp_path, monkeypatch, make):
    """Neither the default key nor a given one may lie beside what it signs."""
    monkeypatch.setenv("CHECKREIN_DATA", str(tmp_path / "log" / "secrets"))
    with pytest.raises(ConfigurationError, match="lies in the log's directory"):
        make()
    assert not (tmp_path / "log" / "secrets").exists()
    signer = keys.new_key("example.com/log", tmp_path / "log" / "key")
    with pytest.raises(ConfigurationError, match="lies in the log's directory"):
        make(signer=signer)


def test_an_own_signer(make, tmp_path, tools):
    """With signer= the log has its name, and no key is written anywhere."""
    event, *_ = tools
    signer = Ed25519Signer.generate("example.com/own")
    log = make(signer=signer)
    log.append(event(0))
    log.close()
    assert (log.origin, log.vkey) == (signer.name, signer.vkey)
    assert not keys.key_path(log.origin).exists()
    assert verify_log(log.directory, vkey=log.vkey).signature == "verified (given key)"
    make(signer=signer).close()


def test_names_must_agree(make):
    """Another origin, another signer's name, and another key under the name are refused."""
    signer = Ed25519Signer.generate("example.com/own")
    make(signer=signer).close()
    with pytest.raises(ConfigurationError):
        make(signer=signer, origin="example.com/other")
    with pytest.raises(ConfigurationError):
        make(signer=Ed25519Signer.generate("example.com/other"))
    with pytest.raises(TamperedError):
        make(signer=Ed25519Signer.generate("example.com/own"))
    with pytest.raises(ConfigurationError):
        make("new", signer=signer, origin="example.com/other")
    with pytest.raises(ConfigurationError):
        make("newer", origin="not a name")


def test_where_keys_are_by_default(monkeypatch, tmp_path):
    """Without CHECKREIN_DATA the user's own directories count."""
    monkeypatch.delenv("CHECKREIN_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    if sys.platform == "linux":
        assert keys.key_path("a").parent == tmp_path / "xdg" / "checkrein" / "keys"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert keys.key_path("a").is_relative_to(tmp_path)


def test_a_public_key_of_somebody_else_is_noticed(make):
    """A damaged or exchanged .vkey file is no silent 'unknown'."""
    log = make()
    log.close()
    public = keys.key_path(log.origin).with_suffix(".vkey")
    for wrong in ("nonsense", Ed25519Signer.generate("other").vkey):
        public.write_text(wrong)
        with pytest.raises(ConfigurationError):
            keys.known_verifier(log.origin)


# Any sequence of calls


class Model:
    """What a log must hold after a sequence of steps."""

    def __init__(self, open_log, event):
        self.open_log, self.event = open_log, event
        self.log, self.count = open_log(), 0

    def append(self):
        assert self.log.append(self.event(self.count)).index == self.count
        self.count += 1

    def append_many(self):
        self.log.append_many([self.event(self.count + i) for i in range(100)])
        self.count += 100

    def enqueue(self):
        self.log.enqueue(self.event(self.count))
        self.count += 1

    def flush(self):
        self.log.flush()
        assert self.log.size == self.count

    def publish(self):
        self.log.publish()

    def reopen(self):
        self.log.close()
        self.log = self.open_log()
        assert self.log.size == self.count


STEPS = ["append", "append_many", "enqueue", "flush", "publish", "reopen"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.sampled_from(STEPS), max_size=25))
def test_any_sequence_keeps_the_entries(steps, make, tools, tmp_path):
    """After any steps all entries are there in order, and the log verifies, open and closed."""
    import tempfile

    event, *_ = tools
    place = Path(tempfile.mkdtemp(dir=tmp_path))
    model = Model(lambda: make(place.name), event)
    for step in steps:
        getattr(model, step)()
    model.log.flush()
    assert verify_log(place).good
    model.log.close()
    report = verify_log(place)
    assert report.good, report
    assert report.size == model.count
    assert numbers(place) == list(range(model.count))


# Processes


def test_two_writers_of_one_log(make, tools):
    """Opened twice, a log takes entries from both in turn, and publications by either."""
    event, *_ = tools
    one, other = make(), make()
    for i in range(0, 40, 4):
        assert one.append(event(i)).index == i
        assert other.append(event(i + 1)).index == i + 1
        one.append_many([event(i + 2), event(i + 3)])
        if i % 3 == 0:
            (one, other)[i % 2].publish()
        assert verify_log(one.directory).good
    assert one.size == 40
    other.flush()
    assert (other.size, other.checkpoint) == (40, one.checkpoint)
    one.close()
    assert other.append(event(40)).index == 40
    other.close()
    assert verify_log(one.directory).good
    assert numbers(one.directory) == list(range(41))


def test_who_fell_behind_several_publications_goes_on(make, tools):
    """A writer that did nothing while another published thousands of entries finds its place."""
    event, *_ = tools
    idle, busy = make(), make()
    assert idle.append(event(0)).index == 0
    for i in range(1, 1000, 333):
        busy.append_many([event(n) for n in range(i, i + 333)])
        busy.publish()
    busy.append(event(1000))
    assert idle.append(event(1001)).index == 1001
    busy.close()
    idle.close()
    assert verify_log(idle.directory).good
    assert numbers(idle.directory) == list(range(1002))


def test_a_torn_commit_of_another_process_is_cut_off(make, tools, caplog):
    """What a process that died in the midst of a commit left behind harms nobody."""
    event, *_ = tools
    log, other = make(), make()
    log.append(event(0))
    journal = log.directory / ".state" / "journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[: len(whole) // 2])
    assert other.append(event(1)).index == 1
    assert "never acknowledged" in caplog.text
    assert log.append(event(2)).index == 2
    log.close()
    other.close()
    assert verify_log(log.directory).good


@pytest.mark.parametrize("attack", ["cut", "gone", "old journal", "old copy", "foreign head"])
def test_a_log_changed_beneath_its_writer(make, tools, attack, tmp_path):
    """Whatever is cut, removed or put back while a log is open: its next commit says so."""
    event, *_ = tools
    log = make()
    log.append(event(0))
    journal = log.directory / ".state" / "journal"
    old = journal.read_bytes()
    shutil.copytree(log.directory, tmp_path / "old")
    log.append(event(1))
    log.publish()
    log.append(event(2))
    if attack == "cut":
        os.truncate(journal, journal.stat().st_size - 1)
    elif attack == "gone":
        journal.unlink()
    elif attack == "old journal":
        journal.unlink()
        journal.write_bytes(old)
    elif attack == "old copy":
        shutil.rmtree(log.directory)
        shutil.copytree(tmp_path / "old", log.directory)
    else:
        head = (log.directory / "checkpoint").read_text()
        forged = sign_note(head.split("\n\n")[0] + "\n", Ed25519Signer.generate(log.origin))
        (log.directory / "checkpoint").write_text(forged)
        journal.rename(journal.with_name("same"))
        journal.write_bytes(journal.with_name("same").read_bytes())
    with pytest.raises(LogError, match="takes nothing until it is opened anew"):
        log.append(event(3))
    with pytest.raises((LogError, TamperedError)):
        log.close()


def test_a_held_lock_ends_the_wait(make, tools, monkeypatch):
    """A process that was stopped with the lock makes others fail in the end, not hang."""
    event, *_ = tools
    log = make()
    with FileLock(log.directory / ".state" / "lock"):
        log._ledger._lock._patience = 0.05
        with pytest.raises(LogError, match=r"has held the lock .* for 0\.05 seconds"):
            log.append(event(0))
    with pytest.raises(LogError):
        log.close()


def test_network_file_systems_are_refused(make, monkeypatch, tmp_path):
    """Where the system says that a directory is on a network, no log begins; elsewhere it does."""
    device = os.stat(tmp_path).st_dev
    mounts = tmp_path / "mounts"
    monkeypatch.setattr(locks, "_MOUNTS", str(mounts))
    for kind, refused in (("nfs4", True), ("fuse.sshfs", True), ("ext4", False)):
        mounts.write_text(
            "1 0 0:1 / /proc rw - proc proc rw\n"
            f"2 1 {os.major(device)}:{os.minor(device)} / / rw shared:1 - {kind} server:/x rw\n"
        )
        if refused:
            with pytest.raises(ConfigurationError, match=f"network file system .{kind}."):
                make(kind)
        else:
            make(kind).close()
    mounts.unlink()
    assert locks.file_system(tmp_path) == ""
    make("unknown").close()


def test_durability_of_the_system_alone(tmp_path, tools, forget):
    """With durability="os" a commit does not sync; a publication does, and renews the pin."""
    event, *_ = tools
    with AuditLog.open(tmp_path / "log", durability="os") as log:
        assert log.append(event(0)).index == 0
        log.publish()
        log.append(event(1))
        early = tmp_path / "early"
        shutil.copytree(log.directory, early)
        (early / ".state" / "journal").write_bytes(b"")
    with pytest.raises(RollbackError):
        AuditLog.open(early)
    assert verify_log(tmp_path / "log").good
    with pytest.raises(ConfigurationError, match="durability"):
        AuditLog.open(tmp_path / "log", durability="none")


def test_a_forgotten_log_is_released(make):
    """A log that nobody holds any more does not keep its directory locked."""
    import gc

    log = make()
    del log
    gc.collect()
    make().close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_cannot_write(make, tools):
    """The child gets LogError from everything, and its end changes nothing for the parent."""
    event, *_ = tools
    log = make()
    log.append(event(0))
    pid = os.fork()
    if pid == 0:
        refused = 0
        calls = (
            lambda: log.append(event(9)),
            lambda: log.enqueue(event(9)),
            log.flush,
            log.publish,
        )
        for call in calls:
            try:
                call()
            except LogError as error:
                refused += "fork" in str(error)
        log.close()
        os._exit(0 if refused == len(calls) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    log.append(event(1))
    log.close()
    assert numbers(log.directory) == [0, 1]


def test_a_new_key_never_replaces_another_ones_file(tmp_path):
    """Neither the private nor the public file of a key is overwritten, nor one by the other."""
    with pytest.raises(ConfigurationError, match="public"):
        keys.new_key("example.com/x", tmp_path / "mine.vkey")
    (tmp_path / "b.vkey").write_text("somebody else's\n")
    with pytest.raises(ConfigurationError, match="already"):
        keys.new_key("example.com/b", tmp_path / "b.skey")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.vkey"]
    assert (tmp_path / "b.vkey").read_text() == "somebody else's\n"


def test_a_program_that_ends_without_closing_publishes_all_the_same(tmp_path):
    """At exit no thread can be started any more; many tiles are written even so."""
    code = (
        "import sys; from checkrein.log import AuditLog\n"
        "log = AuditLog.open(sys.argv[1], origin='example.com/exit')\n"
        "real = log._ledger.publish\n"
        "log._ledger.publish = lambda wait: real(wait=True) if wait else None\n"
        "log.append_many([{'type': 't', 'n': n} for n in range(9000)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "log" / "checkpoint").read_text().splitlines()[1] == "9000"
    assert verify_log(tmp_path / "log").good
