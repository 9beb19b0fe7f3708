"""Attacks by somebody who can write the log's directory, and knows the format, but has no key."""

from __future__ import annotations

import shutil
import struct
import zlib

import pytest

from checkrein import AuditLog, Grant, Run, allow
from checkrein.errors import ConfigurationError, RollbackError, TamperedError
from checkrein.log import keys, read_entries, verify_log
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.journal import encode_frame, scan
from checkrein.log.merkle import leaf_hashes, root_of
from checkrein.log.note import Ed25519Signer, parse_vkey, sign_note, split_note
from checkrein.log.tiles import ENTRIES, WIDTH, Edge, Tile, decode_bundle, encode_bundle

CHANGES = {
    "delete": lambda e: [*e[:1], *e[2:]],
    "insert": lambda e: [e[0], b'{"type":"test","n":1}', *e[1:]],
    "swap": lambda e: [e[1], e[0], *e[2:]],
    "duplicate": lambda e: [e[0], e[0], *e[1:]],
    "replace": lambda e: [e[0], e[0], *e[2:]],
    "edit": lambda e: [e[0][:-1] + b" }", *e[1:]],
    "cut": lambda e: e[:-1],
    "swap far": lambda e: [e[-1], *e[1:-1], e[0]],
}
changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def written(directory):
    """Return all entries in the bundles of *directory*."""
    size = open_checkpoint((directory / "checkpoint").read_bytes(), None).size
    tiles = [Tile(ENTRIES, i, min(WIDTH, size - i * WIDTH), b"") for i in range(-(-size // WIDTH))]
    return [e for t in tiles for e in decode_bundle((directory / t.path).read_bytes())]


def write(directory, entries):
    """Replace bundles and tiles of all levels by those that *entries* give."""
    shutil.rmtree(directory / "tile")
    edge = Edge()
    tiles = [*edge.add(leaf_hashes(entries)), *edge.partials()]
    for start in range(0, len(entries), WIDTH):
        some = entries[start : start + WIDTH]
        tiles.append(Tile(ENTRIES, start // WIDTH, len(some), encode_bundle(some)))
    for tile in tiles:
        (directory / tile.path).parent.mkdir(parents=True, exist_ok=True)
        (directory / tile.path).write_bytes(tile.data)


def head_of(entries, origin):
    """Return the text of the head that *entries* have."""
    return Checkpoint(origin, len(entries), root_of(leaf_hashes(entries))).text()


@pytest.fixture
def large(make, tools):
    """A closed log of 600 entries, two full bundles and a partial one: (directory, vkey)."""
    event, *_ = tools
    log = make("large")
    log.append_many([event(i) for i in range(600)])
    log.close()
    return log.directory, log.vkey


@changes
def test_changed_entries_with_all_tiles_made_anew(large, make, change):
    """Whatever is done to entries, with all tiles to match: the signed root is not theirs."""
    directory, vkey = large
    write(directory, written(directory))
    assert verify_log(directory, vkey=vkey).good
    write(directory, change(written(directory)))
    report = verify_log(directory, vkey=vkey)
    assert report.tree.startswith("bad")
    assert report.signature == "verified (given key)"
    with pytest.raises(TamperedError):
        make("large")


@pytest.mark.parametrize(
    "kinds", [("entries",), ("0",), ("entries", "0")], ids=["bundle", "tile", "both"]
)
def test_full_files_in_the_place_of_others(large, kinds):
    """A full bundle, a full tile, or both, in the place of their neighbour's are noticed."""
    directory, vkey = large
    for kind in kinds:
        neighbour = directory / f"tile/{kind}/001"
        (directory / f"tile/{kind}/000").write_bytes(neighbour.read_bytes())
    report = verify_log(directory, vkey=vkey)
    assert (report.tree if len(kinds) == 2 else report.content).startswith("bad")


# The journal


def frames(directory):
    data = (directory / ".state" / "journal").read_bytes()
    return data, scan(data, lambda note: open_checkpoint(note, None)).frames


@changes
def test_changed_entries_in_a_frame_with_its_checksum(make, tools, tmp_path, change):
    """The checksum is no secret: entries changed together with it are refused by the head."""
    event, *_ = tools
    log = make()
    log.append_many([event(i) for i in range(4)])
    log.append(event(4))
    crashed = tmp_path / "crashed"
    shutil.copytree(log.directory, crashed)
    log.close()
    data, found = frames(crashed)
    for place, rest in ((found[0], data[found[0].stop :]), (found[0], b"")):
        wrong = encode_frame(place.first, change(place.entries), place.note.decode())
        (crashed / ".state" / "journal").write_bytes(wrong + rest)
        report = verify_log(crashed, vkey=log.vkey)
        assert report.tree.startswith("bad")
        with pytest.raises(TamperedError):
            make("crashed")
    (crashed / ".state" / "journal").write_bytes(data)
    make("crashed").close()


def test_a_frame_with_another_number_of_its_first_entry(small, make):
    """A frame that is moved to another index, its checksum made anew, is refused."""
    _, vkey, crashed = small
    data, found = frames(crashed)
    body = data[12 : found[0].stop]
    for first in (0, 2, 4, 2**63):
        moved = struct.pack(">Q", first) + body[8:]
        frame = struct.pack(">4sII", b"ALJ2", len(moved), zlib.crc32(moved)) + moved
        (crashed / ".state" / "journal").write_bytes(frame + data[found[0].stop :])
        assert "its head has another size" in verify_log(crashed, vkey=vkey).tree
        with pytest.raises(TamperedError, match="its head has another size"):
            make("crashed")


def test_every_bit_of_every_earlier_frame(make, tools, tmp_path):
    """No bit flipped in a frame that others follow makes a journal that could be cut there."""
    event, *_ = tools
    log = make()
    for i in range(4):
        log.append(event(i))
    shutil.copytree(log.directory, tmp_path / "crashed")
    log.close()
    data, found = frames(tmp_path / "crashed")
    verifier = parse_vkey(log.vkey)
    journal = tmp_path / "crashed" / ".state" / "journal"
    for offset in range(found[-2].stop):
        for bit in range(8):
            wrong = data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :]
            judged = scan(wrong, lambda note: open_checkpoint(note, verifier))
            assert judged.broken, (offset, bit)
            assert not judged.torn
        if offset % 29 == 0:
            journal.write_bytes(wrong)
            with pytest.raises(TamperedError):
                make("crashed")
            assert journal.read_bytes() == wrong


def test_a_journal_cut_anywhere_against_a_pin(small):
    """Cut at any byte, also between two commits, a journal is behind the last acknowledged head."""
    closed, vkey, crashed = small
    pin = (closed / "checkpoint").read_text()
    journal = crashed / ".state" / "journal"
    data, found = frames(crashed)
    assert verify_log(crashed, vkey=vkey, pin=pin).good
    for length in range(len(data)):
        journal.write_bytes(data[:length])
        report = verify_log(crashed, vkey=vkey, pin=pin)
        assert report.freshness.startswith("bad: rolled back behind pin, from 6 entries"), length
        assert not report.good
        # Without the pin a cut between commits is what the log was a moment before.
        without = verify_log(crashed, vkey=vkey)
        assert without.good is (length in {0, *(frame.stop for frame in found)})


def test_a_last_frame_that_was_damaged_is_behind_a_pin(small, make, forget):
    """A changed last frame looks like a crash; only a pin, the writer's own too, tells its loss."""
    closed, vkey, crashed = small
    pin = (closed / "checkpoint").read_text()
    journal = crashed / ".state" / "journal"
    data, found = frames(crashed)
    for offset in range(found[-2].stop, len(data), 7):
        journal.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        report = verify_log(crashed, vkey=vkey, pin=pin)
        assert not verify_log(crashed, vkey=vkey).good
        assert report.freshness.startswith("bad: rolled back behind pin")
    before = journal.read_bytes()
    with pytest.raises(RollbackError, match="the log has 4 entries, and a head over 6"):
        make("crashed")
    assert journal.read_bytes() == before
    forget()
    make("crashed").close()
    assert verify_log(crashed, vkey=vkey).good
    assert not verify_log(crashed, vkey=vkey, pin=pin).good


# Other logs


@pytest.fixture
def fork(make, tools, tmp_path, forget):
    """Two logs of one name and key that differ from entry 3 on: (one, other, vkey)."""
    event, *_ = tools
    log = make("one")
    log.append_many([event(i) for i in range(3)])
    log.close()
    shutil.copytree(log.directory, tmp_path / "other")
    crashed = []
    for name, first in (("one", 3), ("other", 30)):
        forget()
        log = make(name)
        log.append(event(first))
        log.append_many([event(first + i) for i in (1, 2)])
        crashed.append(tmp_path / f"{name} crashed")
        shutil.copytree(log.directory, crashed[-1])
        log.close()
    forget()
    return *crashed, log.vkey


def test_splice_of_frames_from_a_fork(fork, make):
    """A commit of another past, signed by the log's own key, does not follow a commit of this."""
    one, other, vkey = fork
    (data, found), (foreign, others) = frames(one), frames(other)
    first, second = data[: found[0].stop], data[found[0].stop :]
    strange, stranger = foreign[: others[0].stop], foreign[others[0].stop :]
    assert [(f.first, f.end) for f in found] == [(f.first, f.end) for f in others]
    for wrong in (first + stranger, strange + second):
        (one / ".state" / "journal").write_bytes(wrong)
        report = verify_log(one, vkey=vkey)
        assert report.signature == "verified (given key)"
        assert report.tree.startswith("bad: journal: the head after entry 5 has another root")
        with pytest.raises(TamperedError):
            make(one.name)


def test_splice_of_a_journal_behind_the_published_head(fork, make):
    """A journal of another past, as a crash in the midst of publication leaves one, is refused."""
    one, other, vkey = fork
    foreign = (other / ".state" / "journal").read_bytes()
    own = (one / ".state" / "journal").read_bytes()
    make(one.name).close()
    for journal, good in ((own, True), (foreign, False)):
        (one / ".state" / "journal").write_bytes(journal)
        assert verify_log(one, vkey=vkey).good is good
        if good:
            make(one.name).close()
        else:
            with pytest.raises(TamperedError, match="does not extend the published head"):
                make(one.name)


def test_splice_of_files_from_a_fork(fork, make, forget):
    """Any file of another past in the place of this one's is noticed, and the head's by a pin."""
    one, other, vkey = fork
    for place in (one, other):
        forget()
        make(place.name).close()
    pin = (one / "checkpoint").read_text()
    spliced = 0
    for path in sorted(other.rglob("*")):
        target = one / path.relative_to(other)
        if path.is_file() and path.read_bytes() != target.read_bytes():
            data = target.read_bytes()
            target.write_bytes(path.read_bytes())
            assert not verify_log(one, vkey=vkey).good
            with pytest.raises(TamperedError):
                make(one.name)
            target.write_bytes(data)
            spliced += 1
    assert spliced == 3
    assert verify_log(one, vkey=vkey, pin=pin).good
    assert verify_log(other, vkey=vkey).good
    assert verify_log(other, vkey=vkey, pin=pin).freshness.startswith("bad: the log is not the one")


# Signatures


def test_signed_again_without_the_key(large, make):
    """A rewritten log with the old signature, none, a stranger's, or a forged one is refused."""
    directory, vkey = large
    text, old = (directory / "checkpoint").read_text().split("\n\n")
    origin = text.split("\n", maxsplit=1)[0]
    entries = CHANGES["edit"](written(directory))
    write(directory, entries)
    changed = head_of(entries, origin)
    forger = Ed25519Signer.generate(origin)
    ours = sign_note(changed, forger)
    key_id = bytes.fromhex(vkey.removeprefix(f"{origin}+")[:8])

    class Forged:
        name = origin
        vkey = large[1]

        def sign(self, message):
            return forger.sign(message)

    forged = sign_note(changed, Forged())
    assert split_note(forged)[1][0].key_id == key_id
    for head in (
        f"{changed}\n{old}",
        f"{changed}\n",
        ours,
        ours + old,
        forged,
        ours + forged.split("\n\n")[1],
    ):
        (directory / "checkpoint").write_text(head)
        report = verify_log(directory, vkey=vkey)
        assert report.signature.startswith("bad")
        assert not report.good
        with pytest.raises(TamperedError):
            make("large")


def test_all_deleted_and_begun_anew(make, tools, tmp_path, forget):
    """A log that is deleted and begun anew is behind a pin, or another one, under any key."""
    event, *_ = tools
    log = make()
    log.append_many([event(i) for i in range(5)])
    pin, vkey, origin = log.checkpoint, log.vkey, log.origin
    log.close()
    signer = keys.load_signer(keys.key_path(origin))
    shutil.rmtree(log.directory)
    with pytest.raises(ConfigurationError, match="already"):
        make(origin=origin)
    with pytest.raises(RollbackError):
        make(signer=signer)
    for key, size, said in [
        (signer, 0, "bad: rolled back behind pin, from 5 entries to 0"),
        (signer, 4, "bad: rolled back behind pin, from 5 entries to 4"),
        (signer, 5, "bad: the log is not the one whose first 5 were pinned"),
        (signer, 300, "bad: the log is not the one whose first 5 were pinned"),
        (Ed25519Signer.generate(origin), 5, "bad: the log is not the one"),
    ]:
        shutil.rmtree(log.directory, ignore_errors=True)
        forget()
        with make(signer=key) as again:
            again.append_many([event(i + 1) for i in range(size)])
        report = verify_log(log.directory, vkey=vkey, pin=pin)
        assert report.freshness.startswith(said)
        assert report.signature.startswith("verified") is (key is signer)
        assert not report.good
    other = make("other", origin="example.com/another")
    other.append_many([event(i) for i in range(5)])
    other.close()
    report = verify_log(other.directory, pin=pin)
    assert report.freshness.startswith(f"bad: the pin is of the log {origin}")


def test_a_forged_pin_is_no_pin(make, tools):
    """Who exchanges the pin as well must sign it: a pin by another key is told."""
    event, *_ = tools
    log = make()
    log.append_many([event(i) for i in range(3)])
    log.close()
    text = split_note((log.directory / "checkpoint").read_text())[0]
    pin = sign_note(text, Ed25519Signer.generate(log.origin))
    report = verify_log(log.directory, vkey=log.vkey, pin=pin)
    assert report.freshness.startswith("bad: the pin is not signed by the log's key")


def test_a_clock_that_is_set_back(tmp_path):
    """The order of entries is the tree's, whatever the clock says; nothing is refused or lost."""
    origin = "example.com/clock"
    positions = []
    for now in (2_000_000_000.0, 1_000_000_000.0, 0.0):
        with AuditLog.open(tmp_path / "log", origin=origin) as log:
            grant = Grant(allow("x"))
            with Run(agent="t", grant=grant, log=log, clock=lambda now=now: now):
                positions.append(log.append({"type": "mark", "now": now}))
    assert [one.index for one in positions] == sorted(one.index for one in positions)
    report = verify_log(tmp_path / "log", pin=positions[-1].checkpoint)
    assert report.good
    assert report.complete
    marks = [event["now"] for _, event in read_entries(tmp_path / "log") if "now" in event]
    assert marks == [2_000_000_000.0, 1_000_000_000.0, 0.0]
