"""A witness that is asked: forks, rollbacks, kills, broken memories and hostile clients."""

from __future__ import annotations

import errno
import http.client
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkrein.errors import ConfigurationError, LogError
from checkrein.log import note
from checkrein.log.checkpoint import Checkpoint
from checkrein.log.cosignature import ML_DSA_44, CosigningKey
from checkrein.log.disk import Disk
from checkrein.log.policy import AHEAD, parse_policy
from checkrein.log.witness import request_of
from checkrein.log.witnessing import MAX_REQUEST, WitnessServer
from log.heads import (
    FORK,
    KEY,
    LEAVES,
    LOG,
    LOGS,
    NOW,
    ORIGIN,
    ask,
    head,
    place_of,
    proof,
    served,
    witness_at,
)


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def server(state):
    """Return a witness that remembers nothing yet."""
    return witness_at(state)


# -- the server: the rules of the specification --------------------------------------------


def test_a_growing_log(server):
    """Each head that extends the last one is cosigned, and GET gives the newest."""
    seen = 0
    for size in (0, 1, 2, 3, 256, 257, 257, 600):
        answer = server.add_checkpoint(ask(seen, size))
        assert answer.status == 200
        (line,) = note.split_lines(answer.body.decode())
        text = note.split_note(head(size))[0]
        assert KEY.cosigner.time_of(text.encode(), line.signature) == NOW
        kept = server.checkpoint(sha256(ORIGIN.encode()).hexdigest())
        assert (kept.status, kept.body.decode()) == (200, head(size) + answer.body.decode())
        seen = size


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (ask(2, 1 + 2), 200),
        (ask(0, 3), 409),
        (ask(1, 3), 409),
        (ask(3, 5), 409),
        (request_of(3, [], head(2)), 400),
        (request_of(2, [], head(3)), 422),
        (request_of(2, proof(2, 3)[:-1] + [bytes(32)], head(3)), 422),
        (request_of(2, [*proof(2, 3), bytes(32)], head(3)), 422),
        (request_of(2, [bytes(32)] * 63, head(3)), 422),
        (request_of(2, [bytes(32)] * 64, head(3)), 400),
        (request_of(2, [], head(2)), 200),
        (request_of(2, [bytes(32)], head(2)), 422),
        (request_of(2, [], head(2, FORK[1:])), 422),
        (request_of(2, proof(2, 3), head(3, signer=note.Ed25519Signer.generate(ORIGIN))), 403),
        (request_of(2, proof(2, 3), head(3, signer=note.Ed25519Signer.generate("other"))), 403),
        (request_of(2, proof(2, 3), head(3)[:-8] + "AAAAAA=\n"), 403),
        (request_of(2, proof(2, 3), head(3)[:-5] + "AA=\n"), 400),
        (request_of(0, [], head(2, signer=LOG, origin="example.com/unknown")), 404),
        (ask(2, 3).replace(b"old 2", b"old 02"), 400),
        (ask(2, 3).replace(b"old 2", b"old +2"), 400),
        (ask(2, 3).replace(b"old 2", b"old  2"), 400),
        (ask(2, 3).replace(b"old 2", "old ٢".encode()), 400),
        (ask(2, 3).replace(b"old 2\n", b""), 400),
        (ask(2, 3).replace(b"=\n\n", b"\n\n", 1), 400),
        (ask(2, 3).replace(b"\n\n", b"\n", 1), 400),
        (ask(2, 3).replace(b"\n", b"\r\n"), 400),
        (ask(2, 3).replace(b"\n3\n", b"\n03\n"), 400),
        (request_of(2, [b"short"], head(3)), 400),
        (b"", 400),
        (b"\xff\n\n" + head(3).encode(), 400),
        (b"old 2\n\n" + b"\xff", 400),
        (ask(2, 3) + b"\n", 400),
    ],
    ids=(
        "grows old-0 old-1 old-3 old-larger no-proof wrong-hash long-proof 63-lines "
        "64-lines same same-with-proof same-other-root other-key other-name "
        "wrong-signature loose-signature unknown zero plus spaces digits no-old "
        "loose-proof no-gap carriage size short empty not-utf-8 not-utf-8-note gap"
    ).split(),
)
def test_answers(server, body, status):
    """After a head of two entries, every other request has its own answer, and changes nothing."""
    server.add_checkpoint(ask(0, 2))
    before = server.checkpoint(sha256(ORIGIN.encode()).hexdigest()).body
    answer = server.add_checkpoint(body)
    assert answer.status == status, answer
    if status != 200:
        assert server.checkpoint(sha256(ORIGIN.encode()).hexdigest()).body == before
    if status == 409:
        assert answer.kind == "text/x.tlog.size"
        assert answer.body == b"2\n"


def test_flipped_bytes_are_never_cosigned(server):
    """No byte of a request can be changed and still be cosigned."""
    server.add_checkpoint(ask(0, 2))
    good = ask(2, 5)
    for i, byte in enumerate(good):
        assert server.add_checkpoint(good[:i] + bytes([byte ^ 1]) + good[i + 1 :]).status != 200
    assert server.add_checkpoint(good).status == 200


def test_an_empty_tree_has_one_root(server):
    """A head of size 0 is cosigned with the root of nothing, and with no other."""
    assert server.add_checkpoint(ask(0, 0)).status == 200
    text = Checkpoint(ORIGIN, 0, bytes(32)).text()
    assert server.add_checkpoint(request_of(0, [], note.sign_note(text, LOG))).status == 422
    assert server.add_checkpoint(request_of(0, proof(1, 2), head(2))).status == 422
    assert server.add_checkpoint(ask(0, 2)).status == 200


def test_a_fork_is_refused_for_ever(server, state):
    """Heads of another past, signed by the log's real key, are refused, over restarts, too."""
    server.add_checkpoint(ask(0, 3))
    for again in (server, witness_at(state)):
        for size in (3, 4, 600):
            body = request_of(3, proof(3, size, FORK), head(size, FORK))
            assert again.add_checkpoint(body).status == 422
    assert server.add_checkpoint(ask(3, 600)).status == 200


def test_a_proven_fork_is_kept(server, state):
    """Two heads of one size that the log has signed are kept side by side, once."""
    server.add_checkpoint(ask(0, 3))
    place = place_of(state).with_suffix(".fork")
    server.add_checkpoint(request_of(3, [bytes(32)], head(4)))
    server.add_checkpoint(request_of(3, [bytes(32)], head(3)))
    assert not place.exists()
    server.add_checkpoint(request_of(3, [], head(3, FORK)))
    kept = place.read_text()
    assert head(3).split("\n\n")[0] in kept
    assert head(3, FORK) in kept
    server.add_checkpoint(request_of(3, [], head(3, LEAVES[1:])))
    assert place.read_text() == kept


def test_a_rollback_is_409(server):
    """A log that was cut back is told what the witness has seen."""
    server.add_checkpoint(ask(0, 600))
    for old, new in [(0, 3), (2, 3), (0, 0), (3, 600)]:
        answer = server.add_checkpoint(ask(old, new))
        assert (answer.status, answer.body) == (409, b"600\n")


def test_signatures_of_others_are_not_kept(server):
    """Only what this witness has verified, and its own line, is given to monitors; once."""
    stranger = note.Ed25519Signer.generate("stranger.example")
    twice = note.sign_note(note.split_note(head(2))[0], LOG, stranger, LOG)
    assert server.add_checkpoint(request_of(0, [], twice)).status == 200
    kept = server.checkpoint(sha256(ORIGIN.encode()).hexdigest()).body
    assert [one.name for one in note.split_note(kept)[1]] == [ORIGIN, KEY.name]


def test_a_log_cannot_fill_the_memory(state):
    """However many lines of one key a head has, one is kept."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    log = CosigningKey(ORIGIN, bytes([7] * 32), ML_DSA_44)
    witness = witness_at(state, logs=parse_policy(f"log {log.vkey}\nquorum none\n"))
    full = head(2, signer=log)
    while len(full.encode()) + 3500 < note.MAX_NOTE:
        full = note.add_signatures(full, log)
    assert witness.add_checkpoint(request_of(0, [], full)).status == 200
    kept = witness.checkpoint(sha256(ORIGIN.encode()).hexdigest()).body
    assert [one.name for one in note.split_note(kept)[1]] == [ORIGIN, KEY.name]
    body = request_of(2, proof(2, 3), head(3, signer=log))
    assert witness.add_checkpoint(body).status == 200


def test_what_could_not_be_read_again_is_not_cosigned(state):
    """A head that leaves no room for the cosignature is refused, and changes nothing."""
    log = note.Ed25519Signer.generate("x" * 32_650)
    logs = parse_policy(f"log {log.vkey}\nquorum none\n")
    witness = witness_at(state, logs=logs)
    answer = witness.add_checkpoint(request_of(0, [], head(1, signer=log, origin=log.name)))
    assert (answer.status, list(state.glob("*[0-9a-f]"))) == (400, [])


def test_monitors(server):
    """What was never cosigned, and what is no such path, is 404."""
    digest = sha256(ORIGIN.encode()).hexdigest()
    server.add_checkpoint(request_of(0, [], "nonsense"))
    for name in (digest, digest.upper(), "0" * 64, "", "..", f"{digest}.lock"):
        assert server.checkpoint(name).status == 404


def test_two_keys_and_two_logs(state):
    """Both keys of a witness sign each head, and logs do not mix."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    second = CosigningKey(KEY.name, bytes([2] * 32), ML_DSA_44)
    other = note.Ed25519Signer.generate("example.com/other")
    logs = parse_policy(f"log {LOG.vkey}\nlog {other.vkey}\nquorum none\n")
    witness = witness_at(state, keys=[KEY, second], logs=logs)
    answer = witness.add_checkpoint(ask(0, 3))
    assert len(note.split_lines(answer.body.decode())) == 2
    known = [KEY.cosigner, second.cosigner]
    for cosigner in known:
        assert note.open_note(head(3) + answer.body.decode(), [cosigner])
    assert witness.vkeys == (KEY.vkey, second.vkey)
    theirs = head(2, FORK, other, other.name)
    assert witness.add_checkpoint(request_of(0, [], theirs)).status == 200
    again = witness_at(state, keys=[second], logs=logs)
    assert again.add_checkpoint(ask(3, 4)).status == 200


@pytest.mark.parametrize(
    ("keys", "logs"),
    [
        ([], LOGS),
        ([KEY], parse_policy("quorum none\n")),
        ([CosigningKey("witness.example/log", bytes(32))], LOGS),
        ([KEY, CosigningKey("another.example", bytes([1] * 32))], LOGS),
    ],
    ids=["no-key", "no-log", "log's-key", "twice"],
)
def test_keys_of_a_witness(state, keys, logs):
    """A witness without key or log, with a log's own key, or with one key twice, does not start."""
    with pytest.raises(ConfigurationError):
        witness_at(state, keys=keys, logs=logs)


# -- the server: its memory ----------------------------------------------------------------


def test_a_memory_that_was_changed_stops_the_witness(server, state):
    """A state that was changed, or is of another witness or log, is not believed."""
    server.add_checkpoint(ask(0, 3))
    place = place_of(state)
    good = place.read_bytes()
    other = CosigningKey.generate("witness.example/two")
    elsewhere = head(3, origin="example.com/elsewhere")
    wrong = [
        b"",
        b"nonsense",
        good.replace(b"\n3\n", b"\n2\n"),
        good[: good.rindex("—".encode())],
        note.add_signatures(head(1), other).encode(),
        note.add_signatures(elsewhere, KEY).encode(),
    ]
    for data in wrong:
        place.write_bytes(data)
        with pytest.raises(LogError):
            server.add_checkpoint(ask(3, 4))
        with pytest.raises(LogError):
            witness_at(state)
        assert place.read_bytes() == data
    place.write_bytes(good)
    assert witness_at(state).add_checkpoint(ask(3, 4)).status == 200


class Broken(Disk):
    """Fails at a step of writing."""

    def __init__(self, step):
        self._step = step

    def _fail(self, step):
        if step == self._step:
            raise OSError(errno.EIO, "Input/output error")

    def sync(self, fd):
        self._fail("sync")

    def write_at(self, fd, data, offset):
        self._fail("write")
        super().write_at(fd, data, offset)

    def sync_directory(self, path):
        self._fail("directory")


@pytest.mark.parametrize("step", ["write", "sync", "directory"])
def test_no_cosignature_before_it_is_on_the_disk(server, state, step):
    """When the state cannot be made durable, there is no answer, and the past still binds."""
    server.add_checkpoint(ask(0, 2))
    witness = witness_at(state)
    witness._disk = Broken(step)
    with pytest.raises(LogError):
        witness.add_checkpoint(ask(2, 4))
    again = witness_at(state)
    told = again.add_checkpoint(ask(0, 4)).body
    assert told == (b"4\n" if step == "directory" else b"2\n")
    assert again.add_checkpoint(request_of(int(told), [], head(int(told), FORK[1:]))).status == 422


KILLED = """
import os, signal, sys
from pathlib import Path
from checkrein.log.cosignature import CosigningKey
from checkrein.log.disk import Disk
from checkrein.log.policy import parse_policy
from checkrein.log.witnessing import CosigningWitness

class Killed(Disk):
    def write_files(self, files):
        when = sys.argv[4]
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().write_files(files)
        os.kill(os.getpid(), signal.SIGKILL)

key = CosigningKey.from_text(sys.argv[2])
witness = CosigningWitness([key], parse_policy(sys.argv[3]), Path(sys.argv[1]), disk=Killed())
witness.add_checkpoint(sys.stdin.buffer.read())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(("when", "size"), [("before", 2), ("after", 4)], ids=["before", "after"])
def test_a_kill_between_state_and_answer(server, state, when, size):
    """Killed around the write, the witness goes on from what is on the disk, and never forks."""
    server.add_checkpoint(ask(0, 2))
    policy = f"log {LOG.vkey}\nquorum none\n"
    command = [sys.executable, "-c", KILLED, str(state), KEY.private_text(), policy, when]
    done = subprocess.run(command, input=ask(2, 4), capture_output=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
    again = witness_at(state, clock=time.time)
    assert again.add_checkpoint(ask(0, 4)).body == b"%d\n" % size
    assert again.add_checkpoint(request_of(size, [], head(size, FORK[1:]))).status == 422
    assert again.add_checkpoint(ask(size, 4)).status == 200


def test_threads_cannot_make_it_fork(server):
    """Of many heads of two pasts at once, those that are cosigned have one past."""
    server.add_checkpoint(ask(0, 2))
    bodies = [
        request_of(2, proof(2, n, of), head(n, of)) for n in range(3, 9) for of in (LEAVES, FORK)
    ]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(server.add_checkpoint, bodies))
    assert sorted(one.status for one in answers) == [200] + [409] * 11


PROCESS = """
import sys
from pathlib import Path
from checkrein.log.cosignature import CosigningKey
from checkrein.log.policy import parse_policy
from checkrein.log.witnessing import CosigningWitness

key = CosigningKey.from_text(sys.argv[2])
witness = CosigningWitness([key], parse_policy(sys.argv[3]), Path(sys.argv[1]))
bodies = [bytes.fromhex(one) for one in sys.stdin.read().split()]
print("ready", flush=True)
print(*(witness.add_checkpoint(body).status for body in bodies))
"""


def test_processes_cannot_make_it_fork(server, state):
    """Two processes with one directory, one for each past: only one past is ever cosigned."""
    server.add_checkpoint(ask(0, 2))
    policy = f"log {LOG.vkey}\nquorum none\n"
    command = [sys.executable, "-c", PROCESS, str(state), KEY.private_text(), policy]
    running = []
    for leaves in (LEAVES, FORK):
        bodies = [request_of(n, proof(n, n + 1, leaves), head(n + 1, leaves)) for n in range(2, 40)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, **pipes)
        running.append((process, " ".join(body.hex() for body in bodies)))
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda one: one[0].communicate(one[1])[0].split(), running))
    first, second = (words[1:] for words in said)
    assert len(first) == len(second) == 38
    assert ("200" in first) != ("200" in second)


def test_times_never_run_backwards(state):
    """A clock set back a little is waited for by standing still; by more, nothing is signed."""
    now = [NOW]
    witness = witness_at(state, clock=lambda: now[0])
    text = note.split_note(head(3))[0].encode()

    def stamp(old):
        answer = witness.add_checkpoint(ask(old, 3))
        (line,) = note.split_lines(answer.body.decode())
        return KEY.cosigner.time_of(text, line.signature)

    assert stamp(0) == NOW
    now[0] -= AHEAD
    assert stamp(3) == NOW
    now[0] -= 1
    with pytest.raises(LogError, match="clock"):
        stamp(3)
    now[0] = NOW + 5
    assert stamp(3) == NOW + 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.tuples(st.integers(), st.lists(st.binary(max_size=33), max_size=3), st.text()).map(
            lambda parts: request_of(*parts[:2], head(3)) + parts[2].encode("utf-8", "replace")
        ),
    )
)
def test_no_foreign_exception_from_requests(server, body):
    """Whatever is sent gets an answer, and no cosignature unless it is a head."""
    answer = server.add_checkpoint(body)
    assert answer.status in {200, 400, 404, 409, 422}
    assert answer.status != 200 or head(3).encode() in body


# -- the server: HTTP ----------------------------------------------------------------------


def connect(server):
    return http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)


def raw(server, data):
    """Send bytes, and return all that comes back until the end."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(data)
        found = b""
        while more := connection.recv(65536):
            found += more
        return found


def test_over_http(server):
    """Requests and answers as the specification has them, several over one connection."""
    digest = sha256(ORIGIN.encode()).hexdigest()
    with served(server) as running:
        connection = connect(running)
        for method, path, body, status, kind in [
            ("GET", f"/{digest}/checkpoint", None, 404, "text/plain; charset=utf-8"),
            ("POST", "/add-checkpoint", ask(0, 2), 200, "text/plain; charset=utf-8"),
            ("POST", "/add-checkpoint", ask(0, 2), 409, "text/x.tlog.size"),
            ("POST", "/add-checkpoint", b"", 400, "text/plain; charset=utf-8"),
            ("GET", f"/{digest}/checkpoint", None, 200, "text/plain; charset=utf-8"),
            ("GET", "/", None, 404, "text/plain; charset=utf-8"),
            ("GET", f"/../{digest}/checkpoint", None, 404, "text/plain; charset=utf-8"),
            ("POST", "/other", b"", 404, "text/plain; charset=utf-8"),
            ("PUT", "/add-checkpoint", b"", 501, "text/plain; charset=utf-8"),
        ]:
            connection.request(method, path, body)
            answer = connection.getresponse()
            answer.read()
            assert (answer.status, answer.getheader("Content-Type")) == (status, kind)
        connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (f"Content-Length: {MAX_REQUEST + 1}", 413),
        ("Content-Length: 99999999999999999999", 413),
        ("Content-Length: -1", 413),
        ("Content-Length: ٣", 413),
        ("Content-Length: 3\r\nContent-Length: 3", 411),
        ("Transfer-Encoding: chunked", 411),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", 411),
        ("X: y", 411),
    ],
    ids=["huge", "long", "negative", "digits", "two", "chunked", "both", "none"],
)
def test_lengths(server, headers, status):
    """A body without one plain length, or with too large a one, is refused unread."""
    with served(server) as running:
        request = f"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n"
        said = raw(running, request.encode())
    assert said.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"Connection: close" in said


def test_a_body_is_not_the_next_request(server):
    """What stands behind a GET, or behind a refused POST, is never taken for a request."""
    smuggled = b"GET / HTTP/1.1\r\n\r\n"
    with served(server) as running:
        for line in (b"GET /", b"POST /other"):
            head_ = line + b" HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
            assert raw(running, head_ + smuggled).count(b"HTTP/1.1 ") == 1


def test_slow_clients_are_cut_off(server):
    """Drops that come in time one by one do not hold a connection for ever; others are served."""
    with served(server, seconds=0.3) as running:
        address = ("127.0.0.1", running.server_port)
        with socket.create_connection(address, timeout=30) as slow:
            slow.sendall(b"POST /add-checkpoint HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
            began, closed = time.monotonic(), False
            stop = threading.Event()
            while not closed and time.monotonic() - began < 20:
                try:
                    slow.sendall(b"x")
                    slow.settimeout(0.05)
                    closed = slow.recv(1) == b""
                except TimeoutError:
                    stop.wait(0.01)
                except OSError:
                    closed = True
        assert closed
        assert raw(running, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 404 ")


def test_one_connection_too_many_is_closed(server):
    """The server does not start a thread for everybody who comes; a place that is free is used."""
    with served(server, connections=1, seconds=30) as running:
        address = ("127.0.0.1", running.server_port)
        with socket.create_connection(address, timeout=30) as first:
            first.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert first.recv(10)
            with socket.create_connection(address, timeout=30) as second:
                assert second.recv(10) == b""
        while not (said := raw_or_nothing(running)):
            pass
        assert said.startswith(b"HTTP/1.1 404 ")


def raw_or_nothing(server):
    try:
        return raw(server, b"GET / HTTP/1.0\r\n\r\n")
    except OSError:
        return b""


def test_a_broken_memory_is_500(server, state):
    """A witness that cannot trust its memory says so, without saying more."""
    with served(server) as running:
        server.add_checkpoint(ask(0, 2))
        place_of(state).write_bytes(b"nonsense")
        connection = connect(running)
        connection.request("POST", "/add-checkpoint", ask(2, 3))
        answer = connection.getresponse()
        assert (answer.status, b"nonsense" in answer.read()) == (500, False)
        connection.close()


@pytest.mark.parametrize("port", [-1, 1 << 16], ids=["below", "above"])
def test_it_cannot_listen(server, port):
    """An address that is none is a configuration error."""
    with pytest.raises(ConfigurationError):
        WitnessServer(server, port=port)
