"""Crashes, full disks and failing syncs: nothing acknowledged is lost, nothing half is kept."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest

from checkrein.errors import LogError, RollbackError, TamperedError
from checkrein.log import read_entries, verify_log
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.journal import scan
from checkrein.log.note import parse_vkey

CHILD = """
import sys
from checkrein.log import AuditLog
log = AuditLog.open(sys.argv[1])
print("size", log.size, flush=True)
while True:
    print(log.append({"type": "test", "pad": "x" * 300}).index, flush=True)
    log.enqueue({"type": "test"})
    if log.size % 40 == 0:
        log.publish()
"""

EXIT = """
import sys
from checkrein.log import AuditLog
log = AuditLog.open(sys.argv[1])
log.enqueue({"type": "test", "n": 1})
"""


def frames(directory):
    data = (directory / ".state" / "journal").read_bytes()
    return data, scan(data, lambda note: open_checkpoint(note, None)).frames


def test_a_journal_cut_anywhere(small, make, tmp_path, forget):
    """Cut at any byte, the journal gives back every commit that is whole, and goes on.

    But for a writer that remembers a later head: it refuses.
    """
    _, vkey, crashed = small
    data, found = frames(crashed)
    stops = [0, *(frame.stop for frame in found)]
    sizes = [3, *(frame.end for frame in found)]
    place = tmp_path / "cut"
    kept = {path: path.read_bytes() for path in (tmp_path / "data" / "heads").iterdir()}

    def remember():
        for path, head in kept.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(head)

    for length in range(len(data) + 1):
        cut = scan(data[:length], lambda note: open_checkpoint(note, parse_vkey(vkey)))
        assert not cut.broken
        assert cut.stop == max(stop for stop in stops if stop <= length)
        assert cut.torn == length - cut.stop
    for length in sorted({*range(0, len(data), 7), *stops, len(data) - 1}):
        shutil.copytree(crashed, place)
        (place / ".state" / "journal").write_bytes(data[:length])
        expected = sizes[max(i for i, stop in enumerate(stops) if stop <= length)]
        report = verify_log(place, vkey=vkey)
        assert report.size == expected
        assert (report.content, report.tree) == ("ok", "ok")
        assert report.good is (length in stops)
        if length < len(data):
            with pytest.raises(RollbackError):
                make("cut")
            assert len((place / ".state" / "journal").read_bytes()) == length
            forget()
        log = make("cut")
        assert log.size == expected
        assert log.append({"type": "test", "n": expected}).index == expected
        log.close()
        assert verify_log(place, vkey=vkey).good
        assert [e["n"] for _, e in read_entries(place)] == list(range(expected + 1))
        shutil.rmtree(place)
        remember()


def test_bit_flips_in_earlier_frames_are_refused(small, make, tmp_path):
    """A damaged frame with a good one behind it is no crash: neither writer nor verifier cut it."""
    _, vkey, crashed = small
    data, found = frames(crashed)
    journal = crashed / ".state" / "journal"
    for offset in range(found[0].stop):
        journal.write_bytes(data[:offset] + bytes([data[offset] ^ 4]) + data[offset + 1 :])
        assert verify_log(crashed, vkey=vkey).tree.startswith("bad")
        with pytest.raises(TamperedError):
            make("crashed")
        assert len(journal.read_bytes()) == len(data)


def test_a_whole_frame_with_a_wrong_head_is_refused(small, make, tmp_path, tools):
    """A frame that is whole and signed by another key, or of another log, is not 'torn'."""
    event, *_ = tools
    _, vkey, crashed = small
    other = make("other", origin="example.com/other")
    other.append_many([event(0), event(1), event(2)])
    other.publish()
    other.append(event(3))
    foreign = (other.directory / ".state" / "journal").read_bytes()
    other.close()
    (crashed / ".state" / "journal").write_bytes(foreign)
    assert not verify_log(crashed, vkey=vkey).good
    with pytest.raises(TamperedError):
        make("crashed")


def test_frames_out_of_order_or_missing_are_refused(small, make):
    """Signed frames swapped, doubled, or with one left out do not pass."""
    _, vkey, crashed = small
    data, found = frames(crashed)
    first, second = data[: found[0].stop], data[found[0].stop :]
    for wrong in (second, second + first, first + first, first + second + second):
        (crashed / ".state" / "journal").write_bytes(wrong)
        assert not verify_log(crashed, vkey=vkey).good
        with pytest.raises(TamperedError):
            make("crashed")


def test_a_failing_sync_ends_the_log(make, tools):
    """After a failed sync nobody is told that an entry is safe, until the log is opened anew."""
    event, _, broken = tools
    disk = broken()
    log = make(disk=disk)
    log.append(event(0))
    disk.sync_fails = True
    with pytest.raises(LogError, match="Input/output"):
        log.append(event(1))
    disk.sync_fails = False
    calls = (lambda: log.append(event(2)), lambda: log.enqueue(event(2)), log.flush, log.publish)
    for call in (*calls, log.close):
        with pytest.raises(LogError, match="opened anew"):
            call()
    log = make()
    assert log.append(event(2)).index in {1, 2}
    log.close()
    assert verify_log(log.directory).good


def test_a_failing_background_commit_is_noticed(make, tools, caplog):
    """If an enqueued entry is lost, the next call says so."""
    event, _, broken = tools
    disk = broken()
    log = make(disk=disk)
    disk.sync_fails = True
    log.enqueue(event(0))
    log._thread.join(0)
    while not log._line.refusal:
        log._wake.acquire()
        log._wake.wait(0.01)
        log._wake.release()
    with pytest.raises(LogError, match="Input/output"):
        log.enqueue(event(1))
    with pytest.raises(LogError, match="Input/output"):
        log.close()


@pytest.mark.parametrize("room", [0, 1, 20, 100])
def test_a_full_disk_leaves_nothing_half(make, tools, room):
    """A short write is taken back; what was acknowledged before stays and verifies."""
    event, _, broken = tools
    disk = broken()
    log = make(disk=disk)
    log.append(event(0))
    before = (log.directory / ".state" / "journal").read_bytes()
    disk.room = room
    with pytest.raises(LogError, match="No space"):
        log.append(event(1))
    assert (log.directory / ".state" / "journal").read_bytes() == before
    with pytest.raises(LogError):
        log.close()
    assert verify_log(log.directory).good
    log = make()
    assert log.append(event(1)).index == 1
    log.close()


@pytest.mark.parametrize("room", range(0, 400, 20))
def test_a_full_disk_while_publishing(make, tools, room):
    """A publication that fails loses nothing, and can be made later."""
    event, _, broken = tools
    disk = broken()
    log = make(disk=disk)
    log.append_many([event(i) for i in range(5)])
    disk.room = room
    failed = False
    try:
        log.publish()
    except LogError:
        failed = True
    disk.room = None
    assert verify_log(log.directory).good
    assert failed or room >= 100
    assert not failed or room < 300
    log.append(event(5))
    log.close()
    assert verify_log(log.directory).good
    assert [e["n"] for _, e in read_entries(log.directory)] == list(range(6))


def test_a_crash_at_any_step_of_publishing(make, tools, tmp_path, forget):
    """After each file that publication writes, the directory verifies and opens."""
    event, quick, _ = tools
    copies = []

    class Copying(quick):
        def write_files(self, files):
            for path, data in files.items():
                super().write_files({path: data})
                copies.append(tmp_path / f"copy{len(copies)}")
                shutil.copytree(log.directory, copies[-1])

    log = make()
    log.append_many([event(i) for i in range(3)])
    log.publish()
    log._ledger._disk = log._ledger._published._disk = log._ledger._journal._disk = Copying()
    log.append_many([event(i) for i in range(3, 300)])
    log.publish()
    log.close()
    assert len(copies) >= 7
    for copy in copies:
        forget()
        report = verify_log(copy)
        assert report.good, (copy, report)
        assert report.size == 300
        again = make(copy.name)
        again.append(event(300))
        again.close()
        assert verify_log(copy).good
        assert [e["n"] for _, e in read_entries(copy)] == list(range(301))


def test_a_failing_signer_ends_the_log(make, tools):
    """A signer that raises, with whatever, gives LogError to all, and no entry without a head."""
    event, *_ = tools
    log = make()

    class Gone:
        name, vkey = log.origin, log.vkey

        def sign(self, message):
            raise RuntimeError("the key service is gone")

    log._ledger._signer = Gone()
    with pytest.raises(LogError, match="RuntimeError"):
        log.append(event(0))
    with pytest.raises(LogError):
        log.close()
    assert verify_log(log.directory).size == 0


def test_an_interrupt_in_a_commit(make, tools):
    """Ctrl-C in the midst of a commit goes through, and the log is not used on in doubt."""
    event, quick, _ = tools

    class Interrupted(quick):
        armed = False

        def sync(self, fd):
            if self.armed:
                raise KeyboardInterrupt

    disk = Interrupted()
    log = make(disk=disk)
    disk.armed = True
    with pytest.raises(KeyboardInterrupt):
        log.append(event(0))
    with pytest.raises(LogError):
        log.append(event(1))
    with pytest.raises(LogError):
        log.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_killed_processes_lose_nothing_acknowledged(tmp_path):
    """kill -9 at arbitrary points: every index that was printed is in the log, which verifies."""
    place = tmp_path / "log"
    acknowledged = -1
    for after in (1, 30, 55):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(place)], stdout=subprocess.PIPE, text=True
        )
        size = int(child.stdout.readline().split()[1])
        assert size > acknowledged
        for _ in range(after):
            acknowledged = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        rest = child.communicate()[0]
        done = [line for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        if done:
            acknowledged = int(done[-1])
        report = verify_log(place)
        assert (report.content, report.tree) == ("ok", "ok")
        assert report.signature == "verified (known key)"
        assert report.size > acknowledged


def test_normal_exit_keeps_what_was_enqueued(tmp_path):
    """A program that ends without closing its log still has its last entries."""
    subprocess.run([sys.executable, "-c", EXIT, str(tmp_path / "log")], check=True)
    assert [entry["n"] for _, entry in read_entries(tmp_path / "log")] == [1]
    assert verify_log(tmp_path / "log").good
