"""Asking witnesses: forks, rollbacks, no quorum, and servers that lie, dawdle or break."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from checkrein.errors import ConfigurationError, LogError, TamperedError
from checkrein.log import merkle, note, stored, verify_log
from checkrein.log import witness as client
from checkrein.log.checkpoint import open_checkpoint
from checkrein.log.cosignature import ML_DSA_44, CosigningKey
from checkrein.log.locking import locked
from checkrein.log.policy import AHEAD, parse_policy
from checkrein.log.witness import cosign
from log.heads import (
    KEY,
    LOG,
    NOW,
    ORIGIN,
    head,
    reader,
    served,
    witness_at,
)


@pytest.fixture
def state(tmp_path):
    return tmp_path / "state"


# -- the client, against our server --------------------------------------------------------


@pytest.fixture
def grown(make, tools, forget):
    """Return a function that gives a published log of so many entries."""
    event, *_ = tools
    logs = {}

    def grow(name, size, first=0, signer=LOG):
        forget()  # each name is another past of one log
        log = logs[name] = logs.get(name) or make(name, signer=signer)
        log.append_many([event(first + i) for i in range(log.size, size)])
        log.publish()
        return log.directory

    yield grow
    for log in logs.values():
        log.close()


def policy_for(*running, quorum="any", more=""):
    """Return a policy with these (key, URL) as witnesses."""
    lines = [f"log {LOG.vkey}\n", more]
    lines += [f"witness w{i} {key.vkey} {url}\n" for i, (key, url) in enumerate(running)]
    names = " ".join(f"w{i}" for i in range(len(running)))
    return parse_policy("".join([*lines, f"group g {quorum} {names}\n", "quorum g\n"]))


def url_of(server, path=""):
    return f"http://127.0.0.1:{server.server_port}{path}"


quick = {"pause": 0.0, "attempts": 2, "timeout": 5.0}


def test_a_log_is_cosigned_as_it_grows(grown, state):
    """Two witnesses follow a log; the note has both, is stored, and is good as a pin."""
    keys = [KEY, CosigningKey.generate("witness.example/two")]
    first, second = (
        witness_at(state / str(i), keys=[key], clock=time.time) for i, key in enumerate(keys)
    )
    with served(first) as one, served(second) as two:
        policy = policy_for((keys[0], url_of(one)), (keys[1], url_of(two)), quorum="all")
        for size in (0, 1, 255, 256, 300, 300, 700):
            directory = grown("log", size)
            found = cosign(directory, policy, **quick)
            checked = policy.check(found, now=int(time.time()))
            assert (checked.checkpoint.size, len(checked.seen)) == (size, 2)
            assert checked.holds
            assert (directory / ".state" / "witnessed").read_text() == found
            assert verify_log(directory, vkey=LOG.vkey, pin=found).good
    assert len(note.split_note(found)[1]) == 3


def test_a_witness_that_is_elsewhere(grown, state):
    """A witness that has seen more, or less, than we think tells so, and is then asked right."""
    with served(witness_at(state, clock=time.time)) as one:
        policy = policy_for((KEY, url_of(one)))
        directory = grown("log", 5)
        cosign(directory, policy, **quick)
        (directory / ".state" / "witnessed").unlink()
        directory = grown("log", 300)
        assert policy.check(cosign(directory, policy, **quick)).holds
        shutil.rmtree(state)
        state.mkdir()
        assert policy.check(cosign(directory, policy, **quick)).holds


def test_a_fork_is_told_as_such(grown, state):
    """Another past under the same key: a 422 is a TamperedError, and nothing is kept."""
    with served(witness_at(state, clock=time.time)) as one:
        policy = policy_for((KEY, url_of(one)))
        cosign(grown("log", 5), policy, **quick)
        for size in (5, 9):
            fork = grown("fork", size, first=100)
            with pytest.raises(TamperedError, match="a fork"):
                cosign(fork, policy, **quick)
            assert not (fork / ".state" / "witnessed").exists()


def test_a_rollback_is_told_as_such(grown, state):
    """A log that lost its end, by its witness's memory, or by its own."""
    with served(witness_at(state, clock=time.time)) as one:
        policy = policy_for((KEY, url_of(one)))
        cosign(grown("log", 9), policy, **quick)
        short = grown("short", 5)
        with pytest.raises(TamperedError, match="rolled back"):
            cosign(short, policy, **quick)
        shutil.copy(grown("log", 9) / ".state" / "witnessed", short / ".state" / "witnessed")
    with pytest.raises(TamperedError, match="rolled back or forked"):
        cosign(short, policy, **quick)
    fork = grown("fork", 20, first=100)
    shutil.copy(short / ".state" / "witnessed", fork / ".state" / "witnessed")
    with pytest.raises(TamperedError, match="rolled back or forked"):
        cosign(fork, policy, **quick)


def test_one_liar_is_an_alarm_and_no_obstacle(grown, state):
    """If one witness cries fork and the others are a quorum, both come through."""
    liar = CosigningKey.generate("witness.example/liar")
    with pretending((422, b"")) as (url, _), served(witness_at(state, clock=time.time)) as one:
        policy = policy_for((liar, url), (KEY, url_of(one)))
        directory = grown("log", 5)
        with pytest.raises(TamperedError, match=r"w0 has seen .* a fork"):
            cosign(directory, policy, **quick)
        kept = (directory / ".state" / "witnessed").read_bytes()
        assert [one.witness for one in policy.check(kept).seen] == ["w1"]


def test_tls(grown, state, tmp_path):
    """A witness is asked by TLS, and not if nobody vouches for its certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    with served(witness_at(state, clock=time.time)) as one:
        one.socket = context.wrap_socket(one.socket, server_side=True)
        policy = policy_for((KEY, f"https://127.0.0.1:{one.server_port}"))
        directory = grown("log", 5)
        with pytest.raises(LogError, match=r"cannot be asked .SSLCertVerificationError"):
            cosign(directory, policy, **quick)
        trusting = ssl.create_default_context(cafile=str(tmp_path / "witness.pem"))
        assert policy.check(cosign(directory, policy, tls=trusting, **quick)).holds


def certificate(directory):
    """Make a certificate for the loopback address; return the file of it and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "witness")])
    today = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = directory / "witness.pem"
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(built.public_bytes(Encoding.PEM) + secret)
    return path


def test_a_broken_tile_is_no_fork(grown, state):
    """Hashes that do not lead to the head are found here, before a witness could call it a fork."""
    with served(witness_at(state, clock=time.time)) as one:
        policy = policy_for((KEY, url_of(one)))
        directory = grown("log", 300)
        cosign(directory, policy, **quick)
        grown("log", 600)
        path = directory / "tile/0/001"
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(TamperedError, match="do not add up"):
            cosign(directory, policy, **quick)
        path.unlink()
        with pytest.raises(TamperedError, match="missing"):
            cosign(directory, policy, **quick)
        path.write_bytes(data)
        assert policy.check(cosign(directory, policy, **quick)).holds


def test_no_quorum_changes_nothing(grown, state):
    """If one of two is down and both are needed, the error says who, and the old head stays."""
    down = CosigningKey.generate("witness.example/down")
    with served(witness_at(state, clock=time.time)) as one:
        directory = grown("log", 5)
        one_of = (KEY, url_of(one)), (down, f"http://127.0.0.1:{free_port()}")
        kept = cosign(directory, policy_for(*one_of), **quick)
        grown("log", 9)
        with pytest.raises(LogError, match=r"1 of 2 witnesses .* w1: it cannot be asked"):
            cosign(directory, policy_for(*one_of, quorum="all"), **quick)
        assert (directory / ".state" / "witnessed").read_text() == kept


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_what_was_gathered_before_counts(grown, state):
    """A witness that is down now, and has cosigned this very head before, still counts."""
    second = CosigningKey.generate("witness.example/two")
    with served(witness_at(state / "1", clock=time.time)) as one:
        directory = grown("log", 5)
        with served(witness_at(state / "2", keys=[second], clock=time.time)) as two:
            policy = policy_for((KEY, url_of(one)), (second, url_of(two)), quorum="all")
            cosign(directory, policy, **quick)
        assert len(policy.check(cosign(directory, policy, **quick)).seen) == 2
        grown("log", 6)
        with pytest.raises(LogError):
            cosign(directory, policy, **quick)


def test_a_log_with_two_keys(grown, state, make, tools):
    """A head that the log has signed with ML-DSA-44, too, is cosigned with both signatures."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    second = CosigningKey.generate(ORIGIN, ML_DSA_44)
    directory = grown("log", 5)
    path = directory / "checkpoint"
    path.write_text(note.add_signatures(path.read_text(), second))
    mine = CosigningKey.generate("witness.example/pq", ML_DSA_44)
    logs = parse_policy(f"log {LOG.vkey}\nlog {second.vkey}\nquorum none\n")
    with served(witness_at(state, keys=[mine], logs=logs, clock=time.time)) as one:
        policy = policy_for((mine, url_of(one)), more=f"log {second.vkey}\n")
        found = cosign(directory, policy, **quick)
    assert [one.name for one in note.split_note(found)[1]] == [ORIGIN, ORIGIN, mine.name]
    assert verify_log(directory, vkey=LOG.vkey, pin=found).good


def test_the_newest_time_counts(grown, state):
    """The same head, cosigned again, has the new time, and what it had before is not kept."""
    now = [NOW]
    with served(witness_at(state, clock=lambda: now[0])) as one:
        policy = policy_for((KEY, url_of(one)))
        directory = grown("log", 5)
        for now[0] in (NOW, NOW + 60):
            found = cosign(directory, policy, clock=lambda: now[0], **quick)
            assert policy.check(found).as_of == now[0]
            assert len(note.split_note(found)[1]) == 2


def test_it_knows_where_a_witness_is(grown):
    """A witness whose cosignature was kept is asked from there, without another way round."""
    with pretending(lambda body: (200, lines_by(KEY, text_in(body)))) as (url, asked):
        policy = policy_for((KEY, url))
        for size in (5, 300):
            cosign(grown("log", size), policy, clock=lambda: NOW, **quick)
    assert [body.split(b"\n")[0] for body in asked] == [b"old 0", b"old 5"]


def test_one_asks_at_a_time(grown):
    """Whoever waits for another process to end its round takes the head that is published then."""
    with pretending(lambda body: (200, lines_by(KEY, text_in(body)))) as (url, asked):
        policy = policy_for((KEY, url))
        directory = grown("log", 5)
        with ThreadPoolExecutor(1) as pool:
            with locked(directory / ".state" / "witnessed.lock"):
                waiting = pool.submit(cosign, directory, policy, clock=lambda: NOW, **quick)
                with pytest.raises(TimeoutError):
                    waiting.result(0.2)
                grown("log", 9)
            assert policy.check(waiting.result()).checkpoint.size == 9
    assert len(asked) == 1


def test_two_processes_ask_one_after_the_other(grown, state):
    """Asked at once from several threads, no stored note is torn, and none is older than before."""
    with served(witness_at(state, clock=time.time)) as one:
        policy = policy_for((KEY, url_of(one)))
        directory = grown("log", 5)
        with ThreadPoolExecutor(4) as pool:
            notes = list(pool.map(lambda _: cosign(directory, policy, **quick), range(8)))
        assert (directory / ".state" / "witnessed").read_text() in notes


# -- the client, against hostile servers ---------------------------------------------------


@contextmanager
def pretending(*answers):
    """Serve these (status, body) one after the other, the last one for ever; yield (URL, asked)."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            answer = answers[min(len(asked), len(answers)) - 1]
            status, body = answer(asked[-1]) if callable(answer) else answer
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def lines_by(key, text, stamp=NOW):
    signature = key.sign_at(text.encode(), stamp)
    return note.signature_line(note.Signature(key.name, key.cosigner.key_id, signature)).encode()


def text_in(body):
    return note.split_note(body.partition(b"\n\n")[2])[0]


OTHER = CosigningKey.generate("witness.example/other")
ANSWERS = {
    "nothing": (lambda text: b"", "cannot be read"),
    "no-newline": (lambda text: lines_by(KEY, text)[:-1], "cannot be read"),
    "not-utf-8": (lambda text: b"\xff\n", "cannot be read"),
    "a-note": (lambda text: text.encode() + b"\n" + lines_by(KEY, text), "cannot be read"),
    "stranger": (lambda text: lines_by(OTHER, text), "no cosignature by its key"),
    "no-time": (lambda text: lines_by(KEY, text, 0), "not one of this head"),
    "future": (lambda text: lines_by(KEY, text, NOW + AHEAD + 1), "not one of this head"),
    "replayed": (
        lambda text: lines_by(KEY, text.replace("\n5\n", "\n4\n")),
        "not one of this head",
    ),
    "wrong-origin": (
        lambda text: lines_by(KEY, text.replace("log", "lag")),
        "not one of this head",
    ),
    "one-wrong": (
        lambda text: lines_by(KEY, text) + lines_by(KEY, text.replace("log", "lag")),
        "not one of this head",
    ),
    "loose": (lambda text: lines_by(KEY, text)[:-4] + b"B==\n", "cannot be read"),
    "huge": (lambda text: lines_by(KEY, text) * 1000, "longer than"),
}


@pytest.mark.parametrize(("answer", "says"), ANSWERS.values(), ids=ANSWERS)
def test_lying_answers(grown, answer, says):
    """What is no fresh cosignature of this very head by that very key is not believed."""
    directory = grown("log", 5)
    with pretending(lambda body: (200, answer(text_in(body)))) as (url, _):
        with pytest.raises(LogError, match=says):
            cosign(directory, policy_for((KEY, url)), clock=lambda: NOW, **quick)
    assert not (directory / ".state" / "witnessed").exists()


def test_lines_by_others_are_ignored(grown):
    """A witness that sends more than its line does not get strangers into the note."""
    with pretending(
        lambda body: (
            200,
            lines_by(OTHER, "a\n1\n" + "A" * 43 + "=\n") + lines_by(KEY, text_in(body)),
        )
    ) as (url, _):
        found = cosign(grown("log", 5), policy_for((KEY, url)), clock=lambda: NOW, **quick)
    assert [one.name for one in note.split_note(found)[1]] == [ORIGIN, KEY.name]


@pytest.mark.parametrize(
    ("answers", "error", "says", "times"),
    [
        ([(409, b"2\n"), (409, b"3\n")], LogError, "answered 409", 2),
        ([(409, b"6\n")], TamperedError, "rolled back", 1),
        ([(409, b"9" * 19 + b"\n")], TamperedError, "rolled back", 1),
        ([(409, b"9" * 30 + b"\n")], LogError, "without a size", 1),
        ([(409, b"-1\n")], LogError, "without a size", 1),
        ([(409, b"02\n")], LogError, "without a size", 1),
        ([(409, b"2")], LogError, "without a size", 1),
        ([(409, b"")], LogError, "without a size", 1),
        ([(409, b"2\n"), (422, b"")], TamperedError, "a fork", 2),
        ([(404, b"")], LogError, "answered 404", 1),
        ([(403, b"")], LogError, "answered 403", 1),
        ([(500, b"")], LogError, "answered 500", 1),
        ([(302, b"")], LogError, "answered 302", 1),
        ([(204, b"")], LogError, "answered 204", 1),
    ],
    ids=(
        "again ahead far longer minus zero cut empty fork unknown forbidden broken moved none"
    ).split(),
)
def test_other_answers(grown, answers, error, says, times):
    """A 409 is followed once, to a size that we have; no redirect is; the rest is an error."""
    with pretending(*answers) as (url, asked), pytest.raises(error, match=says):
        cosign(grown("log", 5), policy_for((KEY, url)), clock=lambda: NOW, **quick)
    assert len(asked) == times


def test_a_connection_is_tried_again(grown):
    """A connection that breaks is tried again, and so often as was said."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drop():
            for _ in range(3):
                connection, _ = listener.accept()
                asked.append(connection)
                connection.close()

        thread = threading.Thread(target=drop)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(LogError, match="cannot be asked"):
            cosign(grown("log", 5), policy_for((KEY, url)), pause=0.0, attempts=3, timeout=5.0)
        thread.join()
    assert len(asked) == 3


def test_a_slow_witness_is_cut_off(grown):
    """An answer in drops does not hold the log up for longer than the timeout."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not done.wait(0.02):
                        connection.sendall(b"X-A: b\r\n")
                except OSError:
                    pass

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(LogError, match="cannot be asked"):
            cosign(grown("log", 5), policy_for((KEY, url)), pause=0.0, attempts=1, timeout=0.3)
        assert time.monotonic() - began < 10
        done.set()
        thread.join()


@pytest.mark.parametrize(
    "url",
    [
        "http://witness.example/",
        "http://127.0.0.1.example/",
        "http://192.168.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "//127.0.0.1/",
        "https://",
        "https://user@witness.example/",
        "https://witness.example/?a",
        "https://witness.example/#a",
        "https://witness.example:99999/",
        "https://[::1/",
        "https://wïtness.example/",
        "witness.example",
    ],
    ids=(
        "plain looks-local private ftp file none empty user query fragment port brackets "
        "letters bare"
    ).split(),
)
def test_urls(grown, url):
    """Nothing is sent in the clear, but to this machine, nor to what is no such URL."""
    with pytest.raises(ConfigurationError, match="the URL of the witness w0"):
        cosign(grown("log", 5), policy_for((KEY, url)), **quick)


@pytest.mark.parametrize(
    ("url", "secure", "host", "port", "path"),
    [
        ("https://w.example", True, "w.example", None, "/add-checkpoint"),
        ("https://w.example:8/a/b/", True, "w.example", 8, "/a/b/add-checkpoint"),
        ("http://localhost:8/", False, "localhost", 8, "/add-checkpoint"),
        ("http://[::1]:8", False, "::1", 8, "/add-checkpoint"),
        ("http://127.9.9.9", False, "127.9.9.9", None, "/add-checkpoint"),
    ],
    ids=["https", "prefix", "localhost", "ipv6", "loopback"],
)
def test_good_urls(url, secure, host, port, path):
    """Where a URL leads."""
    (one,) = policy_for((KEY, url)).witnesses
    assert client._address(one) == (secure, host, port, path)


def test_what_cannot_be_cosigned(grown, tmp_path):
    """No log, a log that the policy does not know, nobody to ask, a head that is not signed."""
    url = "https://witness.example"
    with pytest.raises(LogError, match="no published log"):
        cosign(tmp_path / "nowhere", policy_for((KEY, url)), **quick)
    assert not (tmp_path / "nowhere").exists()
    directory = grown("log", 5)
    unknown = parse_policy(f"witness w {KEY.vkey} {url}\nquorum w\n")
    with pytest.raises(ConfigurationError, match="does not name the log"):
        cosign(directory, unknown, **quick)
    with pytest.raises(ConfigurationError, match="has a URL"):
        cosign(directory, policy_for((KEY, "")), **quick)
    path = directory / "checkpoint"
    path.write_text(head(5, signer=note.Ed25519Signer.generate(ORIGIN)))
    with pytest.raises(TamperedError):
        cosign(directory, policy_for((KEY, url)), **quick)
    path.write_text("nonsense")
    with pytest.raises(TamperedError):
        cosign(directory, policy_for((KEY, url)), **quick)


def test_a_note_under_another_policy(grown, state):
    """What was witnessed under keys that are not believed any more is an alarm, with a way out."""
    with served(witness_at(state, clock=time.time)) as one:
        directory = grown("log", 5)
        policy = policy_for((KEY, url_of(one)))
        (directory / ".state" / "witnessed").write_text("nonsense")
        with pytest.raises(TamperedError, match="move that file away"):
            cosign(directory, policy, **quick)
        (directory / ".state" / "witnessed").unlink()
        assert cosign(directory, policy, **quick)


# -- hashes from tiles ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 513, 700])
def test_stored_hashes(grown, size):
    """Every subtree that a proof may need, of any earlier size, is read from the tiles right."""
    directory = grown("log", size)
    known = open_checkpoint((directory / "checkpoint").read_bytes(), note.parse_vkey(LOG.vkey))
    read = stored.stored_hashes(directory, size)
    assert merkle.subtree_hash(0, size, read) == known.root
    leaves = [read(0, i) for i in range(size)]
    for old in {0, 1, size // 2, size - 1, size, min(size, 256), min(size, 257)}:
        root, found = stored.consistency_to(directory, old, known)
        assert root == merkle.root_of(leaves[:old])
        assert found == merkle.prove_consistency(old, size, reader(leaves))


# -- waiting for witnesses -----------------------------------------------------------------


def test_a_position_waits_until_it_is_witnessed(make, tools, state):
    """The head that comes back covers the entry; a second time nobody is asked."""
    event, *_ = tools
    log = make(signer=LOG)
    with served(witness_at(state)) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        policy = parse_policy(f"log {LOG.vkey}\nwitness one {KEY.vkey} {url}\nquorum one\n")
        first, second = log.append_many([event(0), event(1)])
        found = second.witnessed(policy, within=30)
        assert policy.check(found).holds
        assert open_checkpoint(found, None).size == 2
        late = asyncio.run(log.aappend(event(2)))
        assert open_checkpoint(asyncio.run(late.awitnessed(policy, within=30)), None).size == 3
    assert open_checkpoint(first.witnessed(policy, within=0.1), None).size == 3  # it is kept
    with pytest.raises(LogError, match="quorum"):
        log.append(event(3)).witnessed(policy, within=0.1)
    log.close()
