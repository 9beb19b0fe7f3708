"""`verify_log` against somebody who can write the directory."""

from __future__ import annotations

import shutil

import pytest

from checkrein.errors import ConfigurationError, LogError, MisuseError, TamperedError
from checkrein.log import keys, read_entries, verify_log
from checkrein.log.checkpoint import Checkpoint
from checkrein.log.merkle import leaf_hashes, root_of
from checkrein.log.note import Ed25519Signer, sign_note
from checkrein.log.tiles import decode_bundle, encode_bundle

LOCKS = {"lock", "publishing"}


def files(directory):
    return [p for p in sorted(directory.rglob("*")) if p.is_file() and p.name not in LOCKS]


@pytest.mark.parametrize("which", ["closed", "crashed"])
def test_every_changed_byte_is_detected(small, which):
    """No byte of any file can change unnoticed; only the lock file says nothing."""
    closed, vkey, crashed = small
    directory = closed if which == "closed" else crashed
    assert verify_log(directory, vkey=vkey).good
    for path in files(directory):
        data = path.read_bytes()
        for offset, byte in enumerate(data):
            mask = 1 << offset % 8
            path.write_bytes(data[:offset] + bytes([byte ^ mask]) + data[offset + 1 :])
            report = verify_log(directory, vkey=vkey)
            assert not report.good, (path, offset, mask)
            assert report.problems
        path.write_bytes(data)
    assert verify_log(directory, vkey=vkey).good


@pytest.mark.parametrize("which", ["closed", "crashed"])
def test_every_missing_cut_or_longer_file_is_detected(small, which):
    """Files removed, emptied, cut or made longer are noticed, but for a cut tail without a pin."""
    closed, vkey, crashed = small
    directory = closed if which == "closed" else crashed
    pin = (closed / "checkpoint").read_text()
    for path in files(directory):
        data = path.read_bytes()
        for wrong in (None, b"", data[:-1], data + b"\0", data * 2, b"garbage\n\xff"):
            # An absent journal is an empty one; no head that is left needs the first partials.
            needless = not data or (path.name == "3" and which == "closed")
            if wrong == data or (needless and wrong is None):
                continue
            path.unlink()
            if wrong is not None:
                path.write_bytes(wrong)
            assert not verify_log(directory, vkey=vkey, pin=pin).good, (path, wrong)
            path.write_bytes(data)


def test_full_tiles_of_every_level_are_checked(make, tools):
    """In a log of 600 entries, a byte changed in any tile, also of level 1, is named."""
    event, *_ = tools
    log = make()
    log.append_many([event(i) for i in range(600)])
    log.close()
    checked = set()
    for path in files(log.directory):
        data = path.read_bytes()
        for offset in {0, len(data) // 2, len(data) - 1} if data else ():
            path.write_bytes(data[:offset] + bytes([data[offset] ^ 8]) + data[offset + 1 :])
            report = verify_log(log.directory, vkey=log.vkey)
            assert not report.good
            assert any(path.relative_to(log.directory).as_posix() in p for p in report.problems)
            checked.add(path)
        path.write_bytes(data)
    assert len(checked) == 8
    (log.directory / "tile/1/000.p/2").unlink()
    assert "tile/1/000.p/2" in verify_log(log.directory).tree


def rewrite(directory, entries, signer):
    """Write a consistent log of three entries, as somebody would who has *signer*."""
    leaves = leaf_hashes(entries)
    (directory / "tile/0/000.p/3").write_bytes(b"".join(leaves))
    (directory / "tile/entries/000.p/3").write_bytes(encode_bundle(entries))
    head = Checkpoint(signer.name, len(entries), root_of(leaves))
    (directory / "checkpoint").write_text(sign_note(head.text(), signer))


@pytest.mark.parametrize(
    "change",
    [lambda a, b, c: [a, b], lambda a, b, c: [b, a, c], lambda a, b, c: [a, b, b, c],
     lambda a, b, c: [a, b[:-1] + b" ", c]],
    ids=["delete", "swap", "insert", "edit"],
)  # fmt: skip
def test_changed_entries(small, make, tools, change):
    """Entries deleted, swapped, inserted or edited are noticed, with matching tiles as well."""
    event, *_ = tools
    log = make()
    log.append_many([event(i) for i in range(3)])
    log.close()
    bundle = log.directory / "tile/entries/000.p/3"
    changed = change(*decode_bundle(bundle.read_bytes()))
    bundle.write_bytes(encode_bundle(changed))
    report = verify_log(log.directory)
    assert report.content.startswith("bad: tile/entries/000.p/3")
    (log.directory / "tile/0/000.p/3").write_bytes(b"".join(leaf_hashes(changed)))
    assert not verify_log(log.directory).good


def test_signed_again_with_another_key(make, tools):
    """Whoever rewrites all with a key of his own does not get past a known or given key."""
    event, *_ = tools
    log = make()
    log.append_many([event(i) for i in range(3)])
    log.close()
    forger = Ed25519Signer.generate(log.origin)
    rewrite(log.directory, [b'{"type":"forged"}'] * 3, forger)
    known = verify_log(log.directory)
    given = verify_log(log.directory, vkey=log.vkey)
    assert known.signature.startswith("bad")
    assert given.signature.startswith("bad")
    assert not known.good
    assert not given.good
    with pytest.raises(TamperedError):
        make()


def test_the_real_key_and_a_pin(make, tools):
    """Rewritten with the real key a log is good, unless somebody kept a head."""
    event, *_ = tools
    log = make()
    pin = log.append_many([event(i) for i in range(3)])[2].checkpoint
    log.close()
    rewrite(log.directory, [b'{"type":"forged"}'] * 3, keys.load_signer(keys.key_path(log.origin)))
    assert verify_log(log.directory).freshness == "unknown"
    assert verify_log(log.directory).good
    assert verify_log(log.directory, pin=pin).freshness.startswith("bad: the log is not the one")
    assert not verify_log(log.directory, pin=pin).good


def test_a_cut_tail(make, tools, tmp_path):
    """An older copy put back looks good and 'unknown'; with a pin it is rolled back."""
    event, *_ = tools
    log = make()
    early = log.append(event(0)).checkpoint
    log.publish()
    shutil.copytree(log.directory, tmp_path / "old")
    late = log.append(event(1)).checkpoint
    log.close()
    old = verify_log(tmp_path / "old")
    assert (old.good, old.freshness) == (True, "unknown")
    rolled = verify_log(tmp_path / "old", pin=late)
    assert rolled.freshness.startswith("bad: rolled back behind pin")
    assert not rolled.good
    assert verify_log(tmp_path / "old", pin=early).freshness == "at least size 1 (pin)"
    assert verify_log(log.directory, pin=late).freshness == "at least size 2 (pin)"


def test_splice_from_another_log(make, tools):
    """Files of another log, whole or one by one, are not those of this one."""
    event, *_ = tools
    one, two = make("one"), make("two")
    for log, first in ((one, 0), (two, 7)):
        pin = log.append_many([event(first + i) for i in range(3)])[0].checkpoint
        log.close()
    for path in files(two.directory):
        target = one.directory / path.relative_to(two.directory)
        data = target.read_bytes()
        if data != path.read_bytes():
            target.write_bytes(path.read_bytes())
            assert not verify_log(one.directory, vkey=one.vkey).good
            target.write_bytes(data)
    assert not verify_log(two.directory, vkey=one.vkey).good
    assert "the log" in verify_log(one.directory, pin=pin).freshness
    assert not verify_log(one.directory, pin=pin).good


def test_without_a_key_a_log_asserts_itself(small):
    """Where no key is known, nothing is called verified, and the report is not good."""
    closed, _, crashed = small
    for directory in (closed, crashed):
        origin = (directory / "checkpoint").read_text().split("\n")[0]
        keys.key_path(origin).with_suffix(".vkey").unlink(missing_ok=True)
        report = verify_log(directory)
        assert (report.content, report.tree, report.signature) == ("ok", "ok", "self-asserted")
        assert not report.good


def test_no_log_here(tmp_path):
    """A missing, an empty and a foreign place have no log; a file is no directory."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    for name in ("missing", "empty", "file"):
        with pytest.raises(LogError, match="no log"):
            verify_log(tmp_path / name)
        with pytest.raises(LogError, match="no log"):
            list(read_entries(tmp_path / name))


def test_garbage(tmp_path, make):
    """Garbage gives a report or an error of this library, never a foreign one."""
    place = tmp_path / "log"
    for path in ("checkpoint", "tile/0/000", "tile/entries/000", ".state/journal"):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(b"ALJ2\xff\0garbage\n\n\x80")
        assert not verify_log(place).good
        with pytest.raises(TamperedError):
            make()
        with pytest.raises(TamperedError):
            list(read_entries(place))
    for path in ("checkpoint", "tile/0/000"):
        (place / path).unlink()
        (place / path).mkdir()
        assert not verify_log(place).good
    (place / ".state" / "journal").unlink()
    with pytest.raises(TamperedError, match="no checkpoint"):
        make()


def test_tiles_that_are_directories(small):
    """A directory where a file should be is a missing file."""
    closed, vkey, _ = small
    for name in ("tile/0/000.p/6", "tile/entries/000.p/6"):
        (closed / name).unlink()
        (closed / name).mkdir()
        assert any(name in problem for problem in verify_log(closed, vkey=vkey).problems)


def test_a_tile_behind_the_end(small):
    """A tile that no entry of the log can have given is reported."""
    closed, vkey, _ = small
    (closed / "tile/0/000.p/7").write_bytes(bytes(224))
    assert "behind the end" in verify_log(closed, vkey=vkey).tree
    (closed / "tile/0/000.p/7").unlink()
    (closed / "tile/5").mkdir()
    (closed / "tile/5/000.p").mkdir()
    (closed / "tile/5/000.p/1").write_bytes(bytes(32))
    assert "behind the end" in verify_log(closed, vkey=vkey).tree


def test_entries_that_are_no_events(make, tools):
    """Bytes that the log's key signed and that are no event are a problem of that entry."""
    event, *_ = tools
    log = make()
    log.append_many([event(i) for i in range(3)])
    log.close()
    signer = keys.load_signer(keys.key_path(log.origin))
    for wrong in (b"\xff", b"[]", b"{}", b'{"type":1}', b""):
        rewrite(log.directory, [b'{"type":"a"}', wrong, b'{"type":"a"}'], signer)
        assert verify_log(log.directory).content == "bad: entry 1 is not an event"
        with pytest.raises(TamperedError, match="entry 1"):
            list(read_entries(log.directory))


def test_a_report_is_not_a_bool(small):
    """`if verify_log(...)` raises instead of meaning something else than the reader thinks."""
    with pytest.raises(MisuseError, match="read its fields"):
        assert verify_log(small[0])


@pytest.mark.parametrize("wrong", ["", "nonsense", "a\n\n", "a+b+c"])
def test_wrong_arguments(small, wrong):
    """A key or a pin that cannot be read is the caller's mistake, not the log's."""
    with pytest.raises(ConfigurationError):
        verify_log(small[0], vkey=wrong)
    with pytest.raises(ConfigurationError):
        verify_log(small[0], pin=wrong)


def test_calls_in_doubt_and_runs(make):
    """Intents without outcome, open runs, missing and repeated numbers are listed."""

    def entry(kind, run, seq, **more):
        return {"type": kind, "run": run, "seq": seq, **more}

    log = make()
    log.append_many([
        entry("run.opened", "a", 0),
        entry("call.allowed", "a", 1, call="c1"),
        entry("call.allowed", "a", 3, call="c2"),
        entry("call.outcome", "a", 2, call="c1"),
        entry("run.closed", "a", 4),
        entry("run.opened", "b", 0),
        entry("call.allowed", "b", 1, call="c3"),
        entry("call.denied", "b", 5, call="c4"),
        entry("call.denied", "b", 7, call="c5"),
        entry("run.opened", "c", 0),
        entry("x", "c", 0),
        entry("run.closed", "c", 1),
        entry("x", "d", "not a number"),
        entry("x", ["not a name"], 0),
        {"type": "call.allowed", "call": 5},
    ])  # fmt: skip
    log.close()
    report = verify_log(log.directory)
    assert report.good
    assert report.in_doubt == ("c2", "c3")
    assert (report.runs.opened, report.runs.closed, report.runs.open) == (3, 2, ("b",))
    assert report.runs.gaps == ("b: 2 to 4, 6 missing", "c: 0 repeated")


def test_verifying_a_log_in_use(make, tools):
    """While a writer appends and publishes, every verification is good."""
    import threading

    event, *_ = tools
    log = make()
    stop = threading.Event()

    def write():
        while not stop.is_set():
            log.append_many([event(0)] * 30)
            log.publish()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(20):
            report = verify_log(log.directory, pin=log.checkpoint)
            assert report.good, report
    finally:
        stop.set()
        thread.join()
        log.close()


@pytest.mark.parametrize("name", ["tile/0/000.p/6", "tile/entries/000.p/6", "checkpoint"])
def test_a_writer_does_not_sign_on_top_of_a_change(small, make, name):
    """A log whose tiles, entries or head were changed or removed is not opened to write."""
    closed, _, _ = small
    path = closed / name
    data = path.read_bytes()
    path.write_bytes(data[:20] + bytes([data[20] ^ 1]) + data[21:])
    with pytest.raises((TamperedError, ConfigurationError)):
        make("small")
    path.unlink()
    with pytest.raises(TamperedError):
        make("small")
    path.write_bytes(data)
    make("small").close()
