"""Go's `sumdb/note` and `sumdb/tlog` accept what the log writes, and refuse what was changed."""

from __future__ import annotations

import base64
import json
import shutil

import pytest

from checkrein.errors import TamperedError
from checkrein.log import merkle, verify_log
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.note import Ed25519Signer, open_note, parse_vkey, sign_note
from oracles.logs import SIZES, entry, event, files, grow, open_log, tile_reader

pytestmark = pytest.mark.service("go")


def flip(path, offset, mask=1):
    """Change one bit of a file, and return what the file was."""
    data = path.read_bytes()
    offset %= len(data)
    path.write_bytes(data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :])
    return data


@pytest.mark.parametrize("size", SIZES)
def test_a_log_of_any_size(go, grown, size):
    """Head, all tiles, all entries, and every older head of the same log are accepted."""
    older = list(grown.older(size))
    said = go.accepts("log", grown.vkey, grown.published[size], *older)
    assert said == f"{size} records, {len(older)} older heads\n"


def test_an_empty_log(go, tmp_path):
    """The head of a log without entries is a head, and is extended by the first entry."""
    signer = Ed25519Signer.generate("example.com/empty")
    with open_log(tmp_path / "log", signer) as log:
        assert go.accepts("log", log.vkey, log.directory) == "0 records, 0 older heads\n"
        empty = tmp_path / "empty"
        empty.write_bytes((log.directory / "checkpoint").read_bytes())
        log.append(event(0))
        log.publish()
        assert go.accepts("log", log.vkey, log.directory, empty) == "1 records, 1 older heads\n"


def test_every_acknowledged_head_is_kept_through_a_crash(go, tmp_path):
    """After a crash and another start, the log extends each head that an append returned."""
    signer = Ed25519Signer.generate("example.com/crash")
    log = open_log(tmp_path / "log", signer)
    heads = []
    for number in range(30):
        heads.append(tmp_path / f"head{number}")
        heads[-1].write_text(log.append(event(number)).checkpoint)
        if number == 9:
            log.publish()
    shutil.copytree(log.directory, tmp_path / "crashed")
    log.close()
    with open_log(tmp_path / "crashed", signer) as again:
        again.append_many([event(number) for number in range(30, 300)])
    said = go.accepts("log", signer.vkey, tmp_path / "crashed", *heads)
    assert said == "300 records, 30 older heads\n"


def test_every_changed_bit_of_a_small_log(go, tmp_path):
    """Go refuses a bit changed in any byte, unless base64 ignores it; this library then does."""
    one = grow(tmp_path, (2,))
    directory = one.published[2]
    passed = []
    for path in files(directory):
        for offset in range(path.stat().st_size):
            mask = 1 << offset % 8
            data = flip(path, offset, mask)
            assert not verify_log(directory, vkey=one.vkey).good, (path, offset)
            if go.run("log", one.vkey, directory)[0]:
                passed.append((path.name, data[offset : offset + 3]))
            path.write_bytes(data)
    # The digit before "=" and the line's end has two bits that encode nothing.
    assert all(name == "checkpoint" and rest[1:] == b"=\n" for name, rest in passed)
    assert len(passed) <= 1


@pytest.mark.parametrize("where", [0, -1], ids=["first", "last"])
def test_a_changed_bit_in_any_file(go, grown, tmp_path, where):
    """A bit changed in any tile or bundle of a log of 600 entries, of any level, is refused."""
    shutil.copytree(grown.published[600], tmp_path / "log")
    for path in files(tmp_path / "log"):
        if path.name != "checkpoint" and "/000.p" not in str(path.parent):
            data = flip(path, where)
            go.refuses("log", grown.vkey, tmp_path / "log")
            path.write_bytes(data)
    go.accepts("log", grown.vkey, tmp_path / "log")


def test_a_changed_or_missing_file_of_a_large_log(go, grown, tmp_path):
    """Of 70,000 entries none can be changed or taken away, nor a hash of any of three levels."""
    place = tmp_path / "log"
    shutil.copytree(grown.published[70_000], place)
    tiles = ["tile/0/100", "tile/0/273.p/112", "tile/1/000", "tile/1/001.p/17", "tile/2/000.p/1"]
    for name in [*tiles, "tile/entries/050"]:
        data = flip(place / name, 20, 4)
        go.refuses("log", grown.vkey, place)
        (place / name).unlink()
        assert "no such file" in go.refuses("log", grown.vkey, place)
        (place / name).write_bytes(data)
    go.accepts("log", grown.vkey, place)


def test_another_key_another_name_and_a_fork(go, grown, tmp_path):
    """Heads by another key, under another name, of a fork, and of a longer log are refused."""
    directory = grown.published[257]
    go.accepts("log", grown.vkey, directory, grown.published[256] / "checkpoint")
    stranger = Ed25519Signer.generate(grown.signer.name)
    assert "no verifiable signatures" in go.refuses("log", stranger.vkey, directory)
    with open_log(tmp_path / "fork", grown.signer) as fork:
        fork.append_many([event(number + 1) for number in range(200)])
    said = go.refuses("log", grown.vkey, directory, tmp_path / "fork" / "checkpoint")
    assert "the head of 200 records is not extended" in said
    longer = grown.published[600] / "checkpoint"
    assert "invalid inputs" in go.refuses("log", grown.vkey, directory, longer)
    foreign = Checkpoint("example.com/foreign", 1, bytes(32)).text()
    (tmp_path / "foreign").write_text(sign_note(foreign, grown.signer))
    said = go.refuses("log", grown.vkey, directory, tmp_path / "foreign")
    assert "the head is of" in said


def claims(grown, size):
    """Return proofs by this library: of some entries, and of all older heads."""
    directory = grown.published[size]
    read = tile_reader(directory, size)
    indexes = {i for i in (0, 1, 2, 254, 255, 256, 511, 512, 65_535, 65_536, 69_999) if i < size}
    for index in sorted({*indexes, size // 2, size - 1}):
        proof = merkle.prove_inclusion(index, size, read)
        yield {"Index": index, "Record": entry(directory, index, size), "Proof": proof}
    for path in grown.older(size):
        old = open_checkpoint(path.read_bytes(), parse_vkey(grown.vkey))
        proof = merkle.prove_consistency(old.size, size, read)
        yield {"Old": old.size, "Root": old.root, "Proof": proof}


def to_json(found):
    return json.dumps(found, default=lambda data: base64.b64encode(data).decode())


@pytest.mark.parametrize("size", SIZES)
def test_our_proofs(go, grown, size):
    """Proofs of inclusion and of consistency that this library makes from tiles hold for Go."""
    found = list(claims(grown, size))
    said = go.accepts("proofs", grown.vkey, grown.published[size], text=to_json(found))
    assert said == f"{len(found)} proofs\n"


@pytest.mark.parametrize("kind", ["Record", "Old"])
def test_our_proofs_prove_nothing_else(go, grown, kind):
    """A proof that is shorter, longer, changed, or about something else is refused by both."""
    directory = grown.published[600]
    head = open_checkpoint((directory / "checkpoint").read_bytes(), parse_vkey(grown.vkey))
    one = [claim for claim in claims(grown, 600) if kind in claim][3]
    proof = one["Proof"]
    changed = [
        {"Proof": proof[:-1]},
        {"Proof": proof[1:]},
        {"Proof": [*proof, proof[0]]},
        {"Proof": [proof[0][:-1] + bytes([proof[0][-1] ^ 1]), *proof[1:]]},
        {"Index": one["Index"] + 1} if kind == "Record" else {"Old": one["Old"] + 1},
        {"Record": b"another"} if kind == "Record" else {"Root": bytes(32)},
    ]
    for change in changed:
        wrong = one | change
        assert go.refuses("proofs", grown.vkey, directory, text=to_json([wrong]))
        with pytest.raises(TamperedError):
            if kind == "Record":
                leaf = merkle.leaf_hash(wrong["Record"])
                merkle.check_inclusion(wrong["Index"], 600, leaf, wrong["Proof"], head.root)
            else:
                roots = wrong["Root"], head.root
                merkle.check_consistency(wrong["Old"], 600, *roots, wrong["Proof"])


@pytest.mark.parametrize(
    "text",
    ["one\n", "one\n\ntwo\n", "\n", "\n\n", "— one two\n", "grüße 你好\n"],
    ids=["line", "lines", "empty", "empties", "dash", "letters"],
)
def test_both_sign_alike(go, text):
    """Go reads our private key, and signs as we do, byte for byte; we read its note."""
    signer = Ed25519Signer.generate("example.com/notes/ünïcode")
    signed = go.accepts("sign", signer.private_text(), text=text)
    assert signed == sign_note(text, signer)
    assert open_note(signed, [parse_vkey(signer.vkey)]) == text
