"""A signer in another process, against writers who took over the log, and against garbage."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.errors import ConfigurationError, LogError, TamperedError
from checkrein.log import AuditLog, read_entries, verify_log
from checkrein.log.checkpoint import Checkpoint
from checkrein.log.merkle import Frontier, leaf_hashes, prove_consistency, root_of
from checkrein.log.note import Ed25519Signer, parse_vkey
from checkrein.log.signing import Memory, SignerServer, SocketSigner, read_request

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets")
ORIGIN = "example.com/signed"
KEY = Ed25519Signer(ORIGIN, bytes(32))
LEAVES = [bytes([i % 256]) * 32 for i in range(300)]


def head(size, leaves=LEAVES, origin=ORIGIN):
    return Checkpoint(origin, size, root_of(leaves[:size])).text()


def proof(old, new, leaves=LEAVES):
    return prove_consistency(old, new, lambda h, i: root_of(leaves[i << h : (i + 1) << h]))


@contextmanager
def serving(place, state="state", **more):
    """Serve the key on a socket in *place*."""
    server = SignerServer(Memory(KEY, place / state), place / "run" / "s", **more)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield place / "run" / "s"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def short(tmp_path_factory):
    """Return a directory whose name is short enough for a socket."""
    place = tmp_path_factory.mktemp("s")
    return place


# -- the promise ---------------------------------------------------------------------------


@given(st.lists(st.integers(0, 300), min_size=1, max_size=6))
def test_only_what_extends_is_signed(tmp_path_factory, sizes):
    """In any order of sizes, what is signed grows; the rest is told where the signer is."""
    memory = Memory(KEY, tmp_path_factory.mktemp("m"))
    at = 0
    for size in sizes:
        if size >= at:
            signature = memory.sign(at, proof(at, size), head(size)).removeprefix(b"ok\n")
            assert parse_vkey(KEY.vkey).verifies(head(size).encode(), signature)
            at = size
        else:
            assert memory.sign(size, [], head(size)) == b"at %d\n" % at
            with pytest.raises(TamperedError):
                memory.sign(at, [], head(size))


def test_a_fork_is_not_signed(tmp_path):
    """Neither another head of the same size, nor one on another past, with any proof."""
    memory = Memory(KEY, tmp_path / "state")
    memory.sign(0, [], head(5))
    fork = [*LEAVES[:4], bytes(32), *LEAVES[5:]]
    for old, more, text in (
        (5, [], head(5, fork)),
        (5, proof(5, 9, fork), head(9, fork)),
        (5, proof(5, 9), head(9, fork)),
        (5, [], head(4)),
        (5, proof(5, 9)[:-1], head(9)),
        (5, [*proof(5, 9), bytes(32)], head(9)),
        (5, [], head(5, origin="example.com/other")),
        (5, [], "garbage"),
    ):
        with pytest.raises(TamperedError):
            memory.sign(old, more, text)
    again = Memory(KEY, tmp_path / "state")  # and it remembers after a restart
    with pytest.raises(TamperedError):
        again.sign(5, [], head(5, fork))
    assert again.sign(5, [], head(5)).startswith(b"ok\n")
    assert again.sign(5, proof(5, 9), head(9)).startswith(b"ok\n")


def test_a_state_of_somebody_else(tmp_path):
    """What another key has signed, and garbage, is no memory."""
    Memory(KEY, tmp_path).sign(0, [], head(3))
    with pytest.raises(ConfigurationError, match="memory"):
        Memory(Ed25519Signer(ORIGIN, bytes([1] * 32)), tmp_path)
    (path,) = (one for one in tmp_path.iterdir() if one.suffix != ".lock")
    path.write_bytes(b"garbage")
    with pytest.raises(ConfigurationError, match="memory"):
        Memory(KEY, tmp_path)


# -- a log with such a signer --------------------------------------------------------------


def test_a_log_is_written_without_its_key(short, data):
    """Appends, publications and a reopening; what a stranger verifies is as ever."""
    with serving(short) as path:
        for _ in range(2):
            with AuditLog.open(short / "log", signer=SocketSigner(path)) as log:
                for n in range(5):
                    log.append({"type": "t", "n": n})
                log.append_many([{"type": "t", "n": n} for n in range(300)])
                log.publish()
                log.append({"type": "t"})
        assert not (data / "keys").exists()
    report = verify_log(short / "log", vkey=KEY.vkey)
    assert report.good, report
    assert report.size == 612


def test_two_writers_share_a_signer(short):
    """They take turns, each with what the other has appended."""
    with serving(short) as path:
        logs = [AuditLog.open(short / "log", signer=SocketSigner(path)) for _ in range(2)]
        for n in range(20):
            logs[n % 2].append({"type": "t", "n": n})
        for log in logs:
            log.close()
    assert verify_log(short / "log", vkey=KEY.vkey).size == 20


def test_a_log_that_is_cut_back_gets_no_signature(short, data):
    """Whoever writes the log, and forgets its pin, cannot make the signer forget."""
    with serving(short) as path:
        with AuditLog.open(short / "log", signer=SocketSigner(path)) as log:
            log.append({"type": "t", "n": 0})
        shutil.copytree(short / "log", short / "old")
        with AuditLog.open(short / "log", signer=SocketSigner(path)) as log:
            log.append({"type": "t", "n": 1})
        shutil.rmtree(data / "heads")
        with AuditLog.open(short / "old", signer=SocketSigner(path)) as log:
            with pytest.raises(LogError, match=r"cut back|does not hold"):
                log.append({"type": "t", "n": 2})
            with pytest.raises(LogError):
                log.append({"type": "t", "n": 3})
            with pytest.raises(LogError):
                log.close()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_writer_that_dies_between_signature_and_journal(make, short, when, monkeypatch):
    """The next one asks for the same head again, and goes on; nothing is signed twice over."""
    with serving(short) as path:
        log = make("log", signer=SocketSigner(path))
        log.append({"type": "t", "n": 0})
        ledger = log._ledger
        if when == "before":
            monkeypatch.setattr(ledger._signer, "sign_extending", lambda *_: 1 / 0)
        else:
            monkeypatch.setattr(ledger._journal, "append", lambda *_, **__: 1 / 0)
        with pytest.raises(LogError):
            log.append({"type": "t", "n": 1})
        log.disown()
        log = make("log", signer=SocketSigner(path))
        assert [event["n"] for _, event in read_entries(log.directory)] == [0, 1]
        log.append({"type": "t", "n": 2})
        log.close()
    assert verify_log(log.directory, vkey=KEY.vkey).size == 3
    assert not (log.directory / ".state" / "pending").exists()


def test_a_log_moves_to_a_signer_and_back(short, monkeypatch, tmp_path):
    """A signer that has seen nothing yet takes the log as it is; then it holds to that."""
    monkeypatch.setattr(Ed25519Signer, "path", None, raising=False)
    with AuditLog.open(short / "log", signer=KEY) as log:
        log.append_many([{"type": "t", "n": n} for n in range(700)])
        log.publish()
        log.append({"type": "t"})
    with (
        serving(short) as path,
        AuditLog.open(short / "log", signer=SocketSigner(path)) as log,
    ):
        log.append({"type": "t"})
    assert verify_log(short / "log", vkey=KEY.vkey).size == 702


def test_the_signer_starts_anew_under_an_open_log(short):
    """A connection that broke is made again, and the signer remembers."""
    with serving(short) as path:
        log = AuditLog.open(short / "log", signer=SocketSigner(path, timeout=5))
        log.append({"type": "t"})
    with pytest.raises(LogError, match="cannot be reached"):
        log.append({"type": "t"})
    log.disown()
    with serving(short) as path, AuditLog.open(short / "log", signer=SocketSigner(path)) as log:
        log.append({"type": "t"})
    assert verify_log(short / "log", vkey=KEY.vkey).size == 3


SERVER = """
import sys
from pathlib import Path
from checkrein.log.note import Ed25519Signer
from checkrein.log.signing import Memory, SignerServer
place = Path(sys.argv[1])
memory = Memory(Ed25519Signer("example.com/signed", bytes(32)), place / "state")
server = SignerServer(memory, place / "run" / "s")
print("ready", flush=True)
server.serve_forever()
"""


def test_a_signer_that_is_killed_again_and_again(short):
    """Whenever it dies, the log goes on with the next one, and no head contradicts another."""
    count = 0
    for round_ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(short)], stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"ready\n"
        timer = threading.Timer(0.02 * round_, lambda p=process: os.kill(p.pid, signal.SIGKILL))
        try:
            log = AuditLog.open(short / "log", signer=SocketSigner(short / "run" / "s"))
            timer.start()
            while True:
                log.append({"type": "t", "n": count})
                count += 1
        except LogError:
            pass
        finally:
            timer.join()
            process.kill()
            process.communicate()
            log.disown()
    assert count
    with serving(short) as path, AuditLog.open(short / "log", signer=SocketSigner(path)) as log:
        log.append({"type": "the last"})
    report = verify_log(short / "log", vkey=KEY.vkey)
    assert report.good, report
    assert report.size >= count + 1


# -- the socket ----------------------------------------------------------------------------


def test_who_may_ask(short):
    """The socket is its owner's; another user is refused, whatever the mode of the socket."""
    with serving(short) as path:
        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0
    if hasattr(socket, "SO_PEERCRED"):
        with serving(short, allowed={os.getuid() + 1}) as path, pytest.raises(LogError):
            SocketSigner(path)


def test_what_is_at_the_socket(short):
    """A second server, or something that is no socket, is not replaced; a dead one's socket is."""
    with serving(short) as path, pytest.raises(ConfigurationError, match="already"):
        SignerServer(Memory(KEY, short / "state"), path)
    path.write_text("a file")
    with pytest.raises(ConfigurationError, match="no socket"):
        SignerServer(Memory(KEY, short / "state"), path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with serving(short):
        assert SocketSigner(path).vkey == KEY.vkey
    with pytest.raises(LogError, match="cannot be reached"):
        SocketSigner(short / "nobody")


def test_garbage_ends_a_connection_and_no_other(short):
    """Too long, cut off, unreadable, silent: others are served meanwhile."""
    with serving(short, patience=0.2) as path:
        good = SocketSigner(path)
        for wrong in (
            b"\xff" * 100,
            struct.pack(">I", 1 << 20),
            struct.pack(">I", 10) + b"short",
            struct.pack(">I", 0),
            struct.pack(">I", 7) + b"garbage",
            b"",
        ):
            with socket.socket(socket.AF_UNIX) as rude:
                rude.settimeout(10)
                rude.connect(str(path))
                answer = b""
                with suppress(ConnectionError):  # hung up with our bytes unread
                    rude.sendall(wrong)
                    answer = rude.recv(100)
                assert not answer or b"no this is no request\n" in answer
            assert SocketSigner(path).vkey == good.vkey
        assert good.sign(head(0).encode())


@given(st.binary(max_size=300))
def test_no_foreign_exception_escapes_a_request(data):
    """Whatever bytes come, they are a request or a TamperedError."""
    for message in (data, b"old 5\n" + data, b"old 5\n\n" + data):
        try:
            read_request(message)
        except TamperedError:
            pass


def test_peaks_are_the_complete_subtrees_at_the_edge():
    """For every size and bit of it, the peak is the root of its leaves; other bits have none."""
    tree = Frontier()
    for size, leaf in enumerate(LEAVES[:70]):
        start = 0
        for height in range(7, -1, -1):
            if size >> height & 1:
                stop = start + (1 << height)
                assert tree.peak(height) == root_of(LEAVES[start:stop])
                start = stop
        tree.push(leaf)
    assert leaf_hashes([b""]) != LEAVES[:1]
