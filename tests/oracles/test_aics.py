"""`aics-tlog` audits what the log publishes, and `aics-witness` cosigns it, and no other log."""

from __future__ import annotations

import shutil

import pytest

from checkrein.errors import TamperedError
from checkrein.log import merkle, verify_log
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.note import Ed25519Signer, parse_vkey, sign_note
from oracles.logs import SIZES, entry, event, files, open_log, tile_reader
from oracles.witness import NAME

pytestmark = [pytest.mark.service("aics"), pytest.mark.usefixtures("aics")]


def head(grown, size):
    """Return the published note of that size."""
    return (grown.published[size] / "checkpoint").read_text()


def consistency(grown, old, new):
    """Return this library's proof, from the tiles."""
    return merkle.prove_consistency(old, new, tile_reader(grown.published[new], new))


def verified(note, vkey, witness=None):
    """Return what aics-tlog finds in a note: the log's signature, and a fresh one of a witness."""
    import aics_tlog

    return aics_tlog.verify_checkpoint(
        aics_tlog.parse_note(note),
        aics_tlog.parse_vkey(vkey),
        [aics_tlog.parse_vkey(witness)] if witness else None,
        1 if witness else 0,
        expected_origin=vkey.split("+")[0],
        max_age_seconds=3600 if witness else None,
    )


@pytest.mark.parametrize("size", SIZES)
def test_an_audit(grown, size):
    """Every tile and bundle is audited against the signed head, and every proof agrees."""
    import aics_tlog

    directory = grown.published[size]
    found = verified(head(grown, size), grown.vkey)
    assert (found.ok, found.size) == (True, size)
    reader = aics_tlog.FileSystemTileReader(directory)
    report = aics_tlog.audit_tiles(reader, size, found.root)
    assert (report.size, report.bundles) == (size, -(-size // 256))
    read = tile_reader(directory, size)
    for index in {0, size // 3, size - 1}:
        proof = aics_tlog.inclusion_proof_from_tiles(reader, index, size)
        assert proof == merkle.prove_inclusion(index, size, read)
        leaf = merkle.leaf_hash(entry(directory, index, size))
        assert aics_tlog.verify_inclusion(leaf, index, size, proof, found.root)
    for old in [other for other in SIZES if other < size]:
        proof = aics_tlog.consistency_proof_from_tiles(reader, old, size)
        assert proof == consistency(grown, old, size)


def test_an_audit_refuses_a_changed_bit(grown, tmp_path):
    """A bit changed in any tile or bundle that the head needs fails the audit."""
    import aics_tlog

    shutil.copytree(grown.published[257], tmp_path / "log")
    root = verified(head(grown, 257), grown.vkey).root
    reader = aics_tlog.FileSystemTileReader(tmp_path / "log")
    for path in files(tmp_path / "log"):
        if path.name != "checkpoint":
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            with pytest.raises(aics_tlog.TileVerificationError):
                aics_tlog.audit_tiles(reader, 257, root)
            path.write_bytes(data)
    aics_tlog.audit_tiles(reader, 257, root)


def test_a_witness_cosigns_a_growing_log(witness, grown, tmp_path):
    """The witness follows from head to head, over its restart; what it signs holds for all."""
    seen = 0
    for size in SIZES:
        note = head(grown, size)
        answer = witness.add(seen, consistency(grown, seen, size), note)
        assert answer.status == 200, answer
        assert answer.text.startswith(f"— {NAME} ")
        found = verified(note + answer.text, grown.vkey, witness.vkey)
        assert (found.ok, found.size) == (True, size)
        assert open_checkpoint(note + answer.text, parse_vkey(grown.vkey)).size == size
        seen = size
        if size == 256:
            witness.restart()
    line = answer.text
    wrong = note + line[:-20] + ("B" if line[-20] == "A" else "A") + line[-19:]
    assert not verified(wrong, grown.vkey, witness.vkey).ok


def test_a_cosigned_log_goes_on(witness, grown, tmp_path):
    """With a cosigned head published, the log still verifies, opens, and grows."""
    place = tmp_path / "log"
    shutil.copytree(grown.published[257], place)
    note = head(grown, 257)
    cosigned = note + witness.add(0, [], note).text
    (place / "checkpoint").write_text(cosigned)
    assert verify_log(place, vkey=grown.vkey, pin=cosigned).good
    with open_log(place, grown.signer) as log:
        assert log.append(event(257)).index == 257
    assert verify_log(place, vkey=grown.vkey, pin=cosigned).good
    later = (place / "checkpoint").read_text()
    proof = merkle.prove_consistency(257, 258, tile_reader(place, 258))
    assert witness.add(257, proof, later).status == 200


def test_go_reads_the_cosignature(go, witness, grown, tmp_path):
    """Go finds both signatures on the head, and neither on another one."""
    place = tmp_path / "log"
    shutil.copytree(grown.published[2], place)
    line = witness.add(0, [], head(grown, 2)).text
    (place / "checkpoint").write_text(head(grown, 2) + line)
    assert go.accepts("cosigned", grown.vkey, witness.vkey, place) == "cosigned\n"
    assert go.accepts("log", grown.vkey, place) == "2 records, 0 older heads\n"
    (place / "checkpoint").write_text(head(grown, 3) + line)
    said = go.refuses("cosigned", grown.vkey, witness.vkey, place)
    assert f"invalid signature for key {NAME}" in said


def test_a_rollback_is_answered_409(witness, grown):
    """A log that was cut back, or begins anew, is told which size the witness has seen."""
    witness.add(0, [], head(grown, 600))
    for old, size in [(0, 257), (256, 257), (0, 1), (257, 600)]:
        answer = witness.add(old, consistency(grown, old, size), head(grown, size))
        assert (answer.status, answer.text) == (409, "600\n")
        assert answer.kind == "text/x.tlog.size"


def test_a_fork_is_answered_422(witness, grown, tmp_path):
    """Another past under the log's own key is not cosigned, and is kept as evidence."""
    witness.add(0, [], head(grown, 256))
    with open_log(tmp_path / "fork", grown.signer) as log:
        log.append_many([event(number + 1) for number in range(600)])
    note = (tmp_path / "fork" / "checkpoint").read_text()
    proof = merkle.prove_consistency(256, 600, tile_reader(tmp_path / "fork", 600))
    assert witness.add(256, proof, note).status == 422
    assert grown.signer.name in witness.evidence()
    good = consistency(grown, 256, 600)
    assert witness.add(256, good[:-1], head(grown, 600)).status == 422
    assert witness.add(256, good, head(grown, 600)).status == 200


def test_strangers_are_refused(witness, grown):
    """A head by another key is answered 403, an unknown log 404, and no head at all 400."""
    text = Checkpoint(grown.signer.name, 1, bytes(32)).text()
    stranger = Ed25519Signer.generate(grown.signer.name)
    assert witness.add(0, [], sign_note(text, stranger)).status == 403
    unknown = Ed25519Signer.generate("example.com/unknown")
    text = Checkpoint(unknown.name, 1, bytes(32)).text()
    assert witness.add(0, [], sign_note(text, unknown)).status == 404
    assert witness.add(0, [], "nonsense\n").status == 400


def test_both_refuse_loose_base64(grown):
    """A second spelling of a signature is no signature, for them as for this library."""
    import aics_tlog

    note = head(grown, 3)
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = note[-3]
    loose = note[:-3] + digits[digits.index(last) ^ 1] + note[-2:]
    for wrong in (loose, note[:-2] + "\n", note[:-1] + "=\n", note[:-2] + " =\n"):
        with pytest.raises(TamperedError):
            open_checkpoint(wrong, parse_vkey(grown.vkey))
        with pytest.raises(ValueError):
            aics_tlog.parse_note(wrong)
