"""Go's `sumdb/tlog` takes our receipts and consistency proofs, and refuses what we refuse."""

from __future__ import annotations

import pytest

from checkrein.errors import TamperedError
from checkrein.log.note import Ed25519Signer
from checkrein.log.receipt import (
    Receipt,
    prove,
    prove_consistency_between,
    read_consistency,
    read_receipt,
    verify_consistency,
    verify_receipt,
)
from oracles.logs import SIZES, entry, event, open_log

pytestmark = pytest.mark.service("go")


@pytest.fixture
def put(tmp_path):
    """Return a function that writes a file and returns its path."""

    def put(name, data):
        path = tmp_path / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    return put


@pytest.mark.parametrize("size", SIZES)
def test_our_receipts(go, grown, put, size):
    """Of logs of any size, at the ends and around the edges of tiles of three levels."""
    directory = grown.published[size]
    indexes = {0, 1, 2, 255, 256, 299, 511, 512, 65_535, 65_536, size // 2, size - 1}
    for index in sorted(indexes & set(range(size))):
        receipt = put("receipt", prove(directory, index).to_text())
        record = put("record", entry(directory, index, size))
        assert go.accepts("receipt", grown.vkey, receipt, record) == f"record {index} of {size}\n"


@pytest.mark.parametrize("size", SIZES)
def test_our_consistency_proofs(go, grown, put, size):
    """From every older head of the log to this one."""
    for older in grown.older(size):
        text = prove_consistency_between(grown.published[size], older.read_text()).to_text()
        said = go.accepts("consistency", grown.vkey, put("proof", text), older)
        assert said == f"from {older.parent.name} to {size}\n"


def test_a_receipt_with_extra_data_and_one_of_the_journal(go, put, grown, tmp_path):
    """Both are the same receipts to others."""
    with open_log(tmp_path / "log", grown.signer) as log:
        log.append(event(0))
        log.publish()
        position = log.append_many([event(i) for i in range(1, 300)])[-1]
        one = prove(log.directory, 298, head=position.checkpoint)
    more = Receipt(one.index, one.proof, one.note, b"more \xff")
    record = put("record", b'{"type":"test","n":298}')
    for text in (one.to_text(), more.to_text()):
        assert go.accepts("receipt", grown.vkey, put("receipt", text), record)


def test_every_changed_byte_is_refused_by_both(go, put, grown):
    """Of a receipt, of its record, and of a consistency proof.

    Spellings that Go's decoder of base64 lets pass in a signature are ours to refuse.
    """
    directory = grown.published[3]
    text, data = prove(directory, 1).to_text().encode(), entry(directory, 1, 3)
    record, older = put("record", data), grown.published[2] / "checkpoint"
    proof = prove_consistency_between(directory, older.read_text()).to_text().encode()
    passed = []
    for at in range(len(text)):
        wrong = text[:at] + bytes([text[at] ^ 1 << at % 8]) + text[at + 1 :]
        with pytest.raises(TamperedError):
            verify_receipt(data, wrong, vkey=grown.vkey)
        good, _ = go.run("receipt", grown.vkey, put("receipt", wrong), record)
        passed += [at] if good else []
    assert all(at > text.rindex(b" ") for at in passed)
    for at in range(len(data)):
        wrong = put("wrong", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        go.refuses("receipt", grown.vkey, put("receipt", text), wrong)
    for at in range(proof.index(b"\n\n")):
        wrong = proof[:at] + bytes([proof[at] ^ 1 << at % 8]) + proof[at + 1 :]
        go.refuses("consistency", grown.vkey, put("proof", wrong), older)
        with pytest.raises(TamperedError):
            found = read_consistency(wrong)
            verify_consistency(older.read_bytes(), found.note, found.proof, grown.vkey)


def test_receipts_of_others_are_refused_by_both(go, put, grown, tmp_path):
    """Of another entry, of another log, by another key."""
    directory = grown.published[600]
    receipt = put("receipt", prove(directory, 4).to_text())
    other = put("other", entry(directory, 5, 600))
    assert go.refuses("receipt", grown.vkey, receipt, other)
    stranger = Ed25519Signer.generate(grown.signer.name)
    mine = put("mine", entry(directory, 4, 600))
    assert "no verifiable signatures" in go.refuses("receipt", stranger.vkey, receipt, mine)
    one = read_receipt(receipt.read_bytes())
    moved = put("moved", Receipt(5, one.proof, one.note).to_text())
    assert go.refuses("receipt", grown.vkey, moved, mine)
