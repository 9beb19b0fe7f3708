"""Publishing to a web root and to a real S3 server: what arrives, and what is refused."""

from __future__ import annotations

import functools
import http.client
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler

import pytest

from checkrein.errors import (
    CheckreinError,
    ConfigurationError,
    LogError,
    RollbackError,
    TamperedError,
)
from checkrein.log import verify_log
from checkrein.log.checkpoint import Checkpoint
from checkrein.log.cosignature import CosigningKey
from checkrein.log.destinations import WebRoot, open_destination
from checkrein.log.merkle import leaf_hashes
from checkrein.log.note import Ed25519Signer, add_signatures, sign_note
from checkrein.log.publishing import publish
from checkrein.log.tiles import WIDTH, decode_bundle, encode_bundle, parse_path, tile_path
from oracles.logs import event, files, grow, open_log
from publishing.proxy import served
from publishing.reader import mirror, needed, read


def send(grown, size, place, **options):
    return publish(grown.published[size], place.open(), vkey=grown.vkey, **options)


# -- what arrives --------------------------------------------------------------------------


def test_a_log_grows_where_it_is_published(place, grown):
    """At each size a reader finds all that the head needs, and every older partial tile."""
    for size in (3, 5, 256, 300, 600, 1000):
        done = send(grown, size, place)
        assert (done.size, done.changed, done.removed) == (size, True, 0)
        assert read(place.get, grown.vkey) == size
    assert {"tile/0/000.p/3", "tile/0/000.p/5", "tile/entries/001.p/44"} <= {*place.names()}


def test_the_same_bytes_arrive(place, grown):
    """What was published is, byte for byte, what lies in the log's directory, and no more."""
    send(grown, 600, place)
    source = grown.published[600]
    wanted = {tile_path(*one) for one in needed(600)} | {"checkpoint"}
    assert {*place.names()} == wanted
    for name in wanted:
        assert place.get(name) == (source / name).read_bytes()


def test_three_levels_of_tiles(place, grown, tmp_path, go):
    """A log of 66,000 entries arrives whole: our verifier and Go's both say so."""
    send(grown, 1000, place)
    done = send(grown, 66_000, place, prune=True, workers=16)
    assert done.removed
    mirror(place.get, tmp_path / "mirror", grown.vkey)
    assert verify_log(tmp_path / "mirror", vkey=grown.vkey).good
    older = grown.published[600] / "checkpoint"
    said = go.accepts("log", grown.vkey, tmp_path / "mirror", older)
    assert said == "66000 records, 1 older heads\n"


def test_a_web_root_is_a_log_itself(grown, tmp_path, go):
    """`verify_log` and Go's verifier read the web root as it is, also after pruning."""
    for size in (5, 600):
        send(grown, size, web := _web(tmp_path), prune=True)
    assert verify_log(web.root, vkey=grown.vkey).good
    go.accepts("log", grown.vkey, web.root)


def _web(tmp_path):
    from publishing.conftest import Web

    return Web(tmp_path / "web")


def test_only_what_is_new_is_sent(place, grown):
    """What the checkpoint there covers is not sent again; a second time nothing is."""
    first = send(grown, 600, place)
    assert (first.files, first.found) == (7, 0)
    again = send(grown, 600, place)
    assert (again.files, again.found, again.changed) == (0, 0, False)
    more = send(grown, 1000, place)
    # Bundles and tiles 2, the incomplete ones 3, and that of level 1.
    assert (more.files, more.found) == (5, 0)


def test_what_is_missing_is_sent_again_if_all_is_looked_at(place, grown):
    """Somebody removed a covered tile: an ordinary publication does not look, one of all mends."""
    send(grown, 600, place)
    place.remove("tile/0/000")
    assert send(grown, 600, place).files == 0
    done = send(grown, 600, place, everything=True)
    assert (done.files, done.found, done.changed) == (1, 6, False)
    assert read(place.get, grown.vkey) == 600


def test_an_empty_log(place, tmp_path):
    """A log without entries has a head; the first entry extends it."""
    with open_log(tmp_path / "log", Ed25519Signer.generate("example.com/empty")) as log:
        assert publish(log.directory, place.open(), vkey=log.vkey).size == 0
        log.append(event(0))
        log.publish()
        assert publish(log.directory, place.open(), vkey=log.vkey).size == 1
    assert read(place.get, log.vkey) == 1


def test_pruning(place, grown):
    """Partial tiles of full ones go, those of the head and its predecessors in that tile stay."""
    for size in (3, 5, 300):
        send(grown, size, place)
    done = send(grown, 600, place, prune=True)
    partial = {name for name in place.names() if ".p/" in name}
    assert done.removed == 6
    assert partial == {
        "tile/0/002.p/88",
        "tile/entries/002.p/88",
        "tile/1/000.p/1",
        "tile/1/000.p/2",
    }
    assert read(place.get, grown.vkey) == 600


def test_a_reader_with_an_older_head_after_pruning(place, grown):
    """Who fetched the head before the partial tile was removed takes the full one."""
    send(grown, 300, place)
    head = place.get("checkpoint")
    send(grown, 600, place, prune=True)
    assert read(lambda name: head if name == "checkpoint" else place.get(name), grown.vkey) == 300


def test_pruning_does_not_take_the_last_copy(place, grown):
    """If the full tile is missing, the partial one is not removed, and somebody is told."""
    send(grown, 5, place)
    send(grown, 600, place)
    place.remove("tile/0/000")
    with pytest.raises(TamperedError, match="tile/0/000 is missing"):
        send(grown, 600, place, prune=True)
    assert place.get("tile/0/000.p/5")


def test_names_that_are_no_tiles_are_left_alone(place, grown):
    """Pruning removes partial tiles, and nothing that only looks like one."""
    send(grown, 5, place)
    others = ["tile/0/000.p/05", "tile/0/x000.p/5", "tile/64/note", "tile/0/000.p/5.bak", "readme"]
    for name in others:
        place.put(name, b"mine")
    send(grown, 600, place, prune=True)
    assert {*others} <= {*place.names()}


# -- cosigned heads ------------------------------------------------------------------------


def cosigned(directory, *names):
    """Write .state/witnessed for the published head, by these witnesses."""
    note = (directory / "checkpoint").read_text()
    keys = [CosigningKey(name, bytes([len(name)] * 32)) for name in names]
    note = add_signatures(note, *keys)
    (directory / ".state").mkdir(exist_ok=True)
    (directory / ".state" / "witnessed").write_text(note)
    return note.encode()


def test_cosignatures_go_along(place, grown, copy):
    """The cosigned note for the same head takes the place of the bare one, and not back."""
    directory = copy(300)
    publish(directory, place.open(), vkey=grown.vkey)
    note = cosigned(directory, "witness.example/a")
    done = publish(directory, place.open(), vkey=grown.vkey)
    assert (done.files, done.changed) == (0, True)
    assert place.get("checkpoint") == note
    shutil.rmtree(directory / ".state")
    assert not publish(directory, place.open(), vkey=grown.vkey).changed
    assert place.get("checkpoint") == note
    assert read(place.get, grown.vkey) == 300


def test_an_older_cosigned_head(place, grown, copy):
    """The log has grown since: its own head is published, or the cosigned one if that is wanted."""
    directory = copy(300)
    note = cosigned(directory, "witness.example/a")
    shutil.copytree(grown.published[600], directory, dirs_exist_ok=True)
    done = publish(directory, place.open(), vkey=grown.vkey, cosigned=True)
    assert (done.size, place.get("checkpoint")) == (300, note)
    assert read(place.get, grown.vkey) == 300
    assert publish(directory, place.open(), vkey=grown.vkey).size == 600
    done = publish(directory, place.open(), vkey=grown.vkey, cosigned=True)
    assert (done.size, done.changed) == (600, False)
    assert read(place.get, grown.vkey) == 600


def test_no_cosigned_head(place, grown):
    """If only a cosigned head may be published and there is none, nothing is."""
    with pytest.raises(LogError, match="no witness has cosigned"):
        send(grown, 300, place, cosigned=True)
    assert place.names() == []


def test_witnesses_have_seen_more(place, grown, copy):
    """A log that ends before the head that was cosigned was rolled back, and is not published."""
    directory = copy(600)
    cosigned(directory, "witness.example/a")
    shutil.copy(grown.published[300] / "checkpoint", directory / "checkpoint")
    with pytest.raises(RollbackError, match="witnesses cosigned 600"):
        publish(directory, place.open(), vkey=grown.vkey)
    assert place.names() == []


def test_witnesses_have_seen_another_past(place, grown, copy, tmp_path):
    """A cosigned head of a fork, signed by the real key, is not what this log extends."""
    directory = copy(600)
    fork = _fork(grown, tmp_path, 300)
    cosigned(fork, "witness.example/a")
    shutil.copytree(fork / ".state", directory / ".state")
    with pytest.raises(TamperedError, match="does not extend the head in"):
        publish(directory, place.open(), vkey=grown.vkey)
    assert place.names() == []


# -- attacks on the destination ------------------------------------------------------------


def _fork(grown, tmp_path, size):
    """Return another past of the grown log, signed by the real key."""
    with open_log(tmp_path / "fork", grown.signer) as fork:
        fork.append_many([event(number + 1) for number in range(size)])
    shutil.copytree(tmp_path / "fork", tmp_path / "forked", ignore=shutil.ignore_patterns(".state"))
    return tmp_path / "forked"


@pytest.mark.parametrize(
    "change",
    [
        lambda data: bytes([data[0] ^ 1]) + data[1:],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[:-32],
        lambda data: data + b"\0",
        lambda data: b"",
    ],
    ids=["first", "last", "truncated", "longer", "empty"],
)
@pytest.mark.parametrize("name", ["tile/0/001", "tile/entries/001", "tile/1/000.p/2"])
def test_other_bytes_in_a_tiles_place(place, grown, name, change):
    """What lies where a tile belongs has other bytes: the checkpoint is not touched."""
    send(grown, 300, place)
    before = place.get("checkpoint")
    wrong = change((grown.published[600] / name).read_bytes())
    place.put(name, wrong)
    with pytest.raises(TamperedError, match="has other bytes") as raised:
        send(grown, 600, place)
    assert raised.value.where == name
    assert place.get("checkpoint") == before
    assert place.get(name) == wrong


def test_the_checkpoint_of_another_log(place, grown, tmp_path):
    """A place where another log is published is refused, and nothing is left there."""
    other = grow(tmp_path / "other", (5,), Ed25519Signer.generate("example.com/other"))
    send(other, 5, place)
    before = {name: place.get(name) for name in place.names()}
    with pytest.raises(TamperedError, match="is not of this log"):
        send(grown, 600, place)
    assert {name: place.get(name) for name in place.names()} == before


@pytest.mark.parametrize("what", [b"", b"\xff", b"hello\n", b"x" * 100_000], ids=len)
def test_a_checkpoint_that_is_none(place, grown, what):
    """Anything else in the checkpoint's place is refused, and left as it is."""
    place.put("checkpoint", what)
    with pytest.raises(TamperedError, match="is not of this log"):
        send(grown, 600, place)
    assert place.names() == ["checkpoint"]


@pytest.mark.parametrize("size", [300, 600, 601])
def test_the_checkpoint_of_a_fork(place, grown, tmp_path, size):
    """A head of another past, signed by the real key, is an alarm, whatever its size."""
    fork = _fork(grown, tmp_path, size)
    head = (fork / "checkpoint").read_bytes()
    place.put("checkpoint", head)
    with pytest.raises(TamperedError, match="two pasts" if size <= 600 else "older copy"):
        send(grown, 600, place)
    assert place.names() == ["checkpoint"]
    assert place.get("checkpoint") == head


def test_a_larger_checkpoint(place, grown):
    """An old copy of the log does not replace a newer one."""
    send(grown, 600, place)
    before = {name: place.get(name) for name in place.names()}
    with pytest.raises(RollbackError, match="covers 600 entries"):
        send(grown, 300, place)
    assert {name: place.get(name) for name in place.names()} == before


def test_the_checkpoint_was_removed(place, grown):
    """Somebody removed the checkpoint: what lies there is compared, and it is written again."""
    send(grown, 600, place)
    place.remove("checkpoint")
    done = send(grown, 600, place)
    assert (done.files, done.found, done.changed) == (0, 7, True)


# -- attacks on the log's directory --------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"]
    + ["tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"],
)
@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
def test_a_changed_log_does_not_leave(place, grown, copy, name, how):
    """A changed or missing file is noticed; no wrong byte and no checkpoint arrives."""
    directory = copy(600)
    data = (directory / name).read_bytes()
    if how == "remove":
        (directory / name).unlink()
    else:
        new = data[:-32] if how == "truncate" else data[:40] + bytes([data[40] ^ 1]) + data[41:]
        (directory / name).write_bytes(new)
    with pytest.raises(TamperedError):
        publish(directory, place.open(), vkey=grown.vkey)
    assert "checkpoint" not in place.names()
    for arrived in place.names():
        assert place.get(arrived) == (grown.published[600] / arrived).read_bytes()


@pytest.mark.parametrize(
    ("name", "said"), [("000", "not what the head vouches for"), ("002.p/88", "do not add up")]
)
def test_an_entry_and_its_hash_changed_alike(place, grown, copy, name, said):
    """An entry is forged and its tile made to agree: the tile above, or the head, does not."""
    directory = copy(600)
    bundle, tile = directory / "tile/entries" / name, directory / "tile/0" / name
    entries = decode_bundle(bundle.read_bytes())
    entries[7] = entries[7].replace(b"test", b"evil")
    bundle.write_bytes(encode_bundle(entries))
    tile.write_bytes(b"".join(leaf_hashes(entries)))
    with pytest.raises(TamperedError, match=said):
        publish(directory, place.open(), vkey=grown.vkey)
    assert place.names() == []


def test_a_head_by_another_key(place, grown):
    """A log that the given key did not sign is not published."""
    stranger = Ed25519Signer.generate(grown.signer.name)
    with pytest.raises(TamperedError, match="not signed by a known key"):
        publish(grown.published[600], place.open(), vkey=stranger.vkey)
    assert place.names() == []


def test_a_head_over_more_than_there_is(place, grown, copy):
    """A head that the key signed over entries that are not here is not published."""
    directory = copy(600)
    text = Checkpoint(grown.signer.name, 700, bytes(32)).text()
    (directory / "checkpoint").write_text(sign_note(text, grown.signer))
    with pytest.raises(TamperedError):
        publish(directory, place.open(), vkey=grown.vkey)
    assert place.names() == []


def test_no_log(place, tmp_path, grown):
    """A directory without a checkpoint is no log."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(LogError, match="no published log"):
        publish(tmp_path / "empty", place.open(), vkey=grown.vkey)


# -- at the same time ----------------------------------------------------------------------


def test_publishers_and_a_reader_while_the_log_grows(place, tmp_path):
    """Two publishers, one of which prunes, and readers: nobody fails, and no head goes back."""
    signer = Ed25519Signer.generate("example.com/busy")
    with open_log(tmp_path / "log", signer) as log, ThreadPoolExecutor(4) as pool:
        log.append(event(0))
        log.publish()
        publish(log.directory, place.open(), vkey=log.vkey)
        done = threading.Event()

        def publishing(prune):
            rounds = 0
            while not done.is_set():
                publish(log.directory, place.open(), vkey=log.vkey, prune=prune)
                rounds += 1
            return rounds

        def reading():
            sizes = []
            while not done.is_set():
                sizes.append(read(place.get, log.vkey))
            return sizes

        work = [pool.submit(publishing, True), pool.submit(publishing, False)]
        readers = [pool.submit(reading)]
        try:
            for number in range(25):
                log.append_many([event(log.size + i) for i in range(37 + number)])
                log.publish()
        finally:
            done.set()
        assert all(one.result() for one in work)
        sizes = readers[0].result()
        assert sizes
        assert sizes == sorted(sizes)
        publish(log.directory, place.open(), vkey=log.vkey, prune=True)
        assert read(place.get, log.vkey) == log.size


def test_many_publishers_at_once(place, grown):
    """Of eight that start at once all succeed, and the place is as if there had been one."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: send(grown, 600, place), range(8)))
    assert {one.size for one in found} == {600}
    assert sum(one.changed for one in found) == 1
    assert sum(one.files for one in found) == 7
    assert read(place.get, grown.vkey) == 600


def test_old_and_new_copies_at_once(place, grown):
    """Copies of several sizes race: each succeeds or is told that it is old; the largest wins."""
    sizes = [3, 5, 256, 300, 600, 1000] * 2

    def one(size):
        try:
            return send(grown, size, place).size
        except RollbackError:
            return 0

    with ThreadPoolExecutor(len(sizes)) as pool:
        found = list(pool.map(one, sizes))
    assert all(got in {0, size} for got, size in zip(found, sizes, strict=True))
    assert read(place.get, grown.vkey) == 1000


def test_processes_at_once(place, grown):
    """Three processes publish the same log from the command line, and all succeed."""
    pytest.importorskip("typer")
    command = [sys.executable, "-m", "checkrein", "log", "publish", grown.published[1000]]
    more = ["--endpoint", place.url] if place.text.startswith("s3") else []
    running = [
        subprocess.Popen(
            [*command, place.text, "--key", grown.vkey, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        for _ in range(3)
    ]
    said = [one.communicate()[0] for one in running]
    assert [one.returncode for one in running] == [0, 0, 0], said
    assert sum("checkpoint  replaced" in one for one in said) == 1, said
    assert read(place.get, grown.vkey) == 1000


def test_a_reader_over_http(grown, tmp_path):
    """Over Python's own web server a reader always finds what the head vouches for."""
    web, signer = _web(tmp_path), Ed25519Signer.generate("example.com/http")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    def fetch(name):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        try:
            connection.request("GET", f"/{name}")
            with connection.getresponse() as answer:
                data = answer.read()
                return data if answer.status == 200 else None
        finally:
            connection.close()

    with (
        served(functools.partial(Quiet, directory=web.root)) as server,
        open_log(tmp_path / "log", signer) as log,
        ThreadPoolExecutor(1) as pool,
    ):
        done = threading.Event()

        def reading():
            sizes = []
            while not done.is_set() or not sizes:
                sizes.append(read(fetch, log.vkey))
            return sizes

        reader = None
        for number in range(40):
            log.append_many([event(log.size + i) for i in range(1 + number)])
            log.publish()
            publish(log.directory, web.open(), vkey=log.vkey, prune=True)
            reader = reader or pool.submit(reading)
        done.set()
        sizes = reader.result()
        assert sizes == sorted(sizes)
        assert read(fetch, log.vkey) == log.size == 820
    assert verify_log(web.root, vkey=log.vkey).good


# -- web roots -----------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_web_server_can_read_what_arrives(grown, tmp_path):
    """Files and directories have the modes that the umask gives, not those of a log."""
    old = os.umask(0o022)
    try:
        send(grown, 300, web := _web(tmp_path))
    finally:
        os.umask(old)
    for path in [path for path in web.root.rglob("*") if path.name != ".publishing"]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links")
def test_a_link_in_the_way_is_not_written_through(grown, tmp_path):
    """Somebody who can write in the web root lays links where files are prepared."""
    web, victim = _web(tmp_path), tmp_path / "victim"
    victim.write_bytes(b"precious")
    for name in ("checkpoint.tmp", "tile/0/000.tmp", "tile/entries/000.tmp"):
        (web.root / name).parent.mkdir(parents=True, exist_ok=True)
        (web.root / name).symlink_to(victim)
    send(grown, 300, web)
    assert victim.read_bytes() == b"precious"
    assert verify_log(web.root, vkey=grown.vkey).good


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes")
def test_a_pipe_in_a_files_place(grown, tmp_path):
    """What is no file is not read, so nobody waits for ever."""
    web = _web(tmp_path)
    (web.root / "tile/0").mkdir(parents=True)
    os.mkfifo(web.root / "tile/0/000")
    with pytest.raises(TamperedError, match="is no file"):
        send(grown, 300, web)
    os.mkfifo(web.root / "checkpoint")
    with pytest.raises(TamperedError, match="is no file"):
        send(grown, 300, web)


def test_places_that_are_no_web_roots(grown, copy, tmp_path):
    """The log's own directory, one around or in it, and another log's are refused."""
    directory = copy(300)
    for wrong in (directory, directory / "web", tmp_path):
        with pytest.raises(ConfigurationError, match="in one another"):
            publish(directory, WebRoot(wrong), vkey=grown.vkey)
    assert not (directory / "web").exists()
    with open_log(tmp_path / "other", Ed25519Signer.generate("example.com/other")) as other:
        with pytest.raises(ConfigurationError, match="directory of a log"):
            publish(directory, WebRoot(other.directory), vkey=grown.vkey)
    (tmp_path / "file").write_text("")
    with pytest.raises(LogError):
        publish(directory, WebRoot(tmp_path / "file"), vkey=grown.vkey)


def test_another_publisher_does_not_come_to_an_end(grown, tmp_path):
    """A web root that is locked for too long is an error, not a wait for ever."""
    web = _web(tmp_path)
    with web.open().held(grown.published[300]):
        with pytest.raises(LogError, match="another process has held the lock"):
            publish(grown.published[300], WebRoot(web.root, patience=0.01), vkey=grown.vkey)
    assert send(grown, 300, web).changed


@pytest.mark.parametrize("failing", [1, 3, 7, 8])
def test_the_disk_of_the_web_root_gets_full(grown, tmp_path, monkeypatch, failing):
    """Wherever it fails, the old head and all that it needs are there, and it can go on."""
    web, count = _web(tmp_path), iter(range(1, 100))
    send(grown, 300, web)
    destination = web.open()
    write = type(destination._disk).write_at

    def full(fd, data, offset):
        if next(count) == failing:
            write(destination._disk, fd, data[:5], offset)
            raise OSError(28, "No space left on device")
        write(destination._disk, fd, data, offset)

    monkeypatch.setattr(destination._disk, "write_at", full)
    if failing <= 6:  # five files and the checkpoint
        with pytest.raises(LogError, match="No space left"):
            publish(grown.published[600], destination, vkey=grown.vkey)
        assert read(web.get, grown.vkey) == 300
    assert send(grown, 600, web).size == 600
    assert verify_log(web.root, vkey=grown.vkey).good


# -- arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, -1, 65])
def test_workers(grown, tmp_path, workers):
    """A number of workers that is not sensible is refused before anything is done."""
    with pytest.raises(ConfigurationError, match="1 to 64"):
        send(grown, 300, web := _web(tmp_path), workers=workers)
    assert not web.root.exists()


@pytest.mark.parametrize("text", ["", "gs://bucket/x", "https://example.com/", "S3://b/c"])
def test_destinations_that_are_none(text):
    """Other kinds of places are not taken for the path of a web root."""
    with pytest.raises(ConfigurationError, match="s3://bucket/prefix"):
        open_destination(text)


def test_an_endpoint_is_not_for_a_web_root(tmp_path):
    """An option that would have no effect is refused."""
    with pytest.raises(ConfigurationError, match="not for a web root"):
        open_destination(str(tmp_path), endpoint="https://s3.example.com")


def test_every_error_is_ours(place, grown, copy):
    """A vkey that is none is a configuration error, and nothing arrives."""
    with pytest.raises(CheckreinError):
        publish(copy(300), place.open(), vkey="nonsense")
    assert place.names() == []


def test_what_is_needed_is_what_the_writer_wrote(grown):
    """The list of files that the readers here fetch is the list of the files of the log."""
    for size in (3, 256, 600, 66_000):
        directory = grown.published[size]
        there = {path.relative_to(directory).as_posix() for path in files(directory)}
        wanted = {tile_path(*one) for one in needed(size)} | {"checkpoint"}
        assert wanted <= there
        # What else is there are partial tiles of older heads, in tiles that are not full yet.
        assert all((parse_path(name) or (0, 0, 0))[2] < WIDTH for name in there - wanted)
