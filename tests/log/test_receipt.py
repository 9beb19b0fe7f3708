"""Receipts and consistency proofs: what they show, and everything else, which they do not."""

from __future__ import annotations

import base64
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein.errors import (
    CheckreinError,
    ConfigurationError,
    LogError,
    MisuseError,
    TamperedError,
)
from checkrein.log import merkle
from checkrein.log.checkpoint import Checkpoint, open_checkpoint
from checkrein.log.note import Ed25519Signer, sign_note
from checkrein.log.receipt import (
    Consistency,
    Receipt,
    prove,
    prove_consistency_between,
    read_consistency,
    read_receipt,
    verify_consistency,
    verify_receipt,
)
from checkrein.log.tilereader import TileReader
from checkrein.log.tiles import WIDTH


def entry_of(number):
    """Return the bytes that `event` becomes in the log."""
    return b'{"type":"test","n":%d}' % number


@pytest.fixture
def large(make, tools):
    """A closed log of 600 entries: (directory, vkey, heads at some sizes)."""
    event, *_ = tools
    log, heads = make("large"), {}
    heads[0] = log.checkpoint
    for size in (1, 2, 3, 255, 256, 257, 600):
        log.append_many([event(i) for i in range(log.size, size)])
        heads[size] = log.checkpoint
        log.publish()
    log.close()
    return log.directory, log.vkey, heads


# -- receipts ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 600])
def test_every_entry_of_a_head_has_a_receipt(large, size):
    """For the published head and for older ones, at the ends and around the tiles' edges."""
    directory, vkey, heads = large
    for index in {0, 1, 2, 254, 255, 256, 511, 512, size // 2, size - 1} & set(range(size)):
        receipt = prove(directory, index, head=heads[size])
        found = verify_receipt(entry_of(index), receipt.to_text(), vkey=vkey)
        assert (found.index, found.size, found.freshness) == (index, size, "unknown")
        assert found.origin == heads[size].partition("\n")[0]
        assert read_receipt(receipt.to_text()) == receipt
        assert read_receipt(receipt.to_text().encode()) == receipt
    assert prove(directory, 0).note == heads[600]


def test_the_format_is_that_of_c2sp(small):
    """Letter for letter, with and without extra data."""
    directory, _, _ = small
    receipt = prove(directory, 5)
    hashes = "".join(f"{base64.b64encode(one).decode()}\n" for one in receipt.proof)
    note = (directory / "checkpoint").read_text()
    assert receipt.to_text() == f"c2sp.org/tlog-proof@v1\nindex 5\n{hashes}\n{note}"
    more = Receipt(5, receipt.proof, note, b"who\0cares\xff")
    start = "c2sp.org/tlog-proof@v1\nextra d2hvAGNhcmVz/w==\nindex 5\n"
    assert more.to_text() == f"{start}{hashes}\n{note}"
    assert read_receipt(more.to_text()) == more


def test_an_entry_that_is_not_published_has_a_receipt_by_the_head_that_was_returned(make, tools):
    """The published head does not cover it, and says what to do; the returned one reaches it."""
    event, *_ = tools
    log = make()
    log.append_many([event(i) for i in range(300)])
    log.publish()
    position = log.append_many([event(i) for i in range(300, 520)])[-1]
    later = log.append(event(520))
    with pytest.raises(LogError, match=r"covers 300 entries.*publish the log first"):
        prove(log.directory, 400)
    for index in (0, 299, 300, 400, 511, 512, 519):
        receipt = prove(log.directory, index, head=position.checkpoint)
        assert verify_receipt(entry_of(index), receipt, vkey=log.vkey).size == 520
    with pytest.raises(LogError, match="none with the number 520"):
        prove(log.directory, 520, head=position.checkpoint)
    log.close()
    assert prove(log.directory, 400).note == later.checkpoint


def test_a_copy_without_the_journal_says_so(make, tools, tmp_path):
    """A head that covers more than there is gets no receipt, but the reason."""
    event, *_ = tools
    log = make()
    log.publish()
    head = log.append(event(0)).checkpoint
    ignored = shutil.ignore_patterns(".state")
    shutil.copytree(log.directory, tmp_path / "copy", ignore=ignored)
    log.close()
    with pytest.raises(LogError, match="does not have all of them"):
        prove(tmp_path / "copy", 0, head=head)


def test_the_journal_of_a_crashed_log(small):
    """A crashed log gives receipts for its published part, and by a head that was returned."""
    closed, vkey, crashed = small
    head = (closed / "checkpoint").read_text()
    assert verify_receipt(entry_of(2), prove(crashed, 2), vkey=vkey).size == 3
    receipt = prove(crashed, 5, head=head)
    assert receipt == prove(closed, 5)
    assert verify_receipt(entry_of(5), receipt, vkey=vkey).size == 6
    journal = crashed / ".state" / "journal"
    data = journal.read_bytes()
    for offset in range(len(data)):
        journal.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
        try:
            assert verify_receipt(entry_of(5), prove(crashed, 5, head=head), vkey=vkey)
        except (LogError, TamperedError):
            continue


@pytest.mark.parametrize("wrong", [-1, True, 1.0, "1", None], ids=repr)
def test_an_index_is_a_number(small, wrong):
    """An index that is none is the caller's mistake."""
    with pytest.raises(MisuseError, match="'index'"):
        prove(small[0], wrong)


def test_there_is_no_receipt_behind_the_end(small, tmp_path):
    """Nor where there is no log, nor by the head of another one."""
    for index in (6, 7, 1 << 70):
        with pytest.raises(LogError, match="covers 6 entries"):
            prove(small[0], index)
    with pytest.raises(LogError, match="no log"):
        prove(tmp_path / "nothing", 0)
    foreign = sign_note(
        Checkpoint("example.com/x", 1, bytes(32)).text(), Ed25519Signer.generate("example.com/x")
    )
    with pytest.raises(TamperedError, match="another log"):
        prove(small[0], 0, head=foreign)
    with pytest.raises(TamperedError):
        prove(small[0], 0, head="nonsense")


def test_no_receipt_is_made_of_what_was_changed(small):
    """Of any byte in tile or bundle: a receipt does not need it, or there is none."""
    directory, vkey, _ = small
    good = {i: prove(directory, i) for i in range(6)}
    for path in (directory / "tile/0/000.p/6", directory / "tile/entries/000.p/6"):
        data = path.read_bytes()
        for offset in range(len(data)):
            path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
            refused = 0
            for index, receipt in good.items():
                try:
                    assert prove(directory, index) == receipt
                except TamperedError:
                    refused += 1
            assert refused
        path.write_bytes(data)
        path.unlink()
        with pytest.raises(TamperedError, match="is missing"):
            prove(directory, 0)
        path.write_bytes(data)
    assert verify_receipt(entry_of(0), prove(directory, 0), vkey=vkey)


def test_a_head_that_claims_more_than_there_is(small):
    """A huge size in an unsigned checkpoint ends in an error at once."""
    directory, _, _ = small
    for size in (7, 10**9, 10**18, 10**19 - 1):
        head = Checkpoint("x", size, bytes(32)).text()
        (directory / "checkpoint").write_text(sign_note(head, Ed25519Signer.generate("x")))
        with pytest.raises(TamperedError):
            prove(directory, 0)
        with pytest.raises(TamperedError):
            prove(directory, size - 1)


# -- what a receipt does not show ------------------------------------------------------------


@pytest.fixture
def receipt(small):
    """(text, entry, vkey) of the fifth entry of six."""
    directory, vkey, _ = small
    return prove(directory, 4).to_text(), entry_of(4), vkey


def test_every_changed_byte_of_a_receipt_is_refused(receipt):
    """Every byte, every bit; each byte left out, each byte doubled, every shorter text."""
    text, entry, vkey = receipt
    data = text.encode()
    wrongs = [
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        for at in range(len(data))
        for bit in range(8)
    ]
    wrongs += [data[:at] + data[at + 1 :] for at in range(len(data))]
    wrongs += [data[: at + 1] + data[at:] for at in range(len(data))]
    wrongs += [data[:at] for at in range(len(data))]
    wrongs += [data + more for more in (b"\n", b" ", b"\0", data)]
    for wrong in wrongs:
        if wrong != data:
            with pytest.raises(TamperedError):
                verify_receipt(entry, wrong, vkey=vkey)
    assert verify_receipt(entry, data, vkey=vkey)


def test_every_changed_byte_of_an_entry_is_refused(receipt):
    """Also the same JSON in another spelling."""
    text, entry, vkey = receipt
    wrongs = [entry[:at] + bytes([entry[at] ^ 1]) + entry[at + 1 :] for at in range(len(entry))]
    for wrong in [*wrongs, b"", entry + b"\n", entry.replace(b":", b": "), merkle.leaf_hash(entry)]:
        with pytest.raises(TamperedError, match="does not hold"):
            verify_receipt(wrong, text, vkey=vkey)


def test_an_inner_node_is_no_entry(small):
    """The two hashes below an inner node do not pass as an entry one level up."""
    directory, vkey, _ = small
    one = prove(directory, 0)
    inner = merkle.leaf_hash(entry_of(0)) + one.proof[0]
    with pytest.raises(TamperedError):
        verify_receipt(inner, Receipt(0, one.proof[1:], one.note), vkey=vkey)


def test_swapped_receipts(small):
    """The receipt of one entry is none for another, nor with the index of another."""
    directory, vkey, _ = small
    receipts = [prove(directory, i) for i in range(6)]
    for i, one in enumerate(receipts):
        for j in range(6):
            if i != j:
                with pytest.raises(TamperedError):
                    verify_receipt(entry_of(j), one, vkey=vkey)
                with pytest.raises(TamperedError):
                    verify_receipt(entry_of(i), Receipt(j, one.proof, one.note), vkey=vkey)
                with pytest.raises(TamperedError):
                    verify_receipt(entry_of(i), Receipt(i, receipts[j].proof, one.note), vkey=vkey)


def test_a_receipt_of_another_log(make, tools):
    """Neither its head nor its key does for this one, whatever its entries are."""
    event, *_ = tools
    one, two = make("one"), make("two")
    for log in (one, two):
        log.append_many([event(i) for i in range(3)])
        log.close()
    foreign = prove(two.directory, 1)
    with pytest.raises(TamperedError, match="not signed by a known key"):
        verify_receipt(entry_of(1), foreign, vkey=one.vkey)
    assert verify_receipt(entry_of(1), foreign, vkey=two.vkey).origin == two.origin


def test_a_head_of_another_key(make, tools):
    """A key of the same name, and the right key under another origin, sign nothing here."""
    event, *_ = tools
    signer = Ed25519Signer.generate("example.com/log")
    log = make(signer=signer)
    log.append(event(0))
    log.close()
    good = prove(log.directory, 0)
    head = open_checkpoint(good.note, None)
    other = Ed25519Signer.generate("example.com/log")
    forged = Receipt(0, good.proof, sign_note(head.text(), other))
    with pytest.raises(TamperedError, match="not signed by a known key"):
        verify_receipt(entry_of(0), forged, vkey=signer.vkey)
    renamed = Checkpoint("example.com/other", head.size, head.root).text()
    with pytest.raises(TamperedError, match="another log"):
        verify_receipt(entry_of(0), Receipt(0, (), sign_note(renamed, signer)), vkey=signer.vkey)


@pytest.mark.parametrize("index", [-1, 6, 7, 1 << 62, 1 << 80])
def test_an_index_out_of_range(small, index):
    """A receipt in code may hold any index; none but the entry's own is shown."""
    one = prove(small[0], 0)
    with pytest.raises(TamperedError):
        verify_receipt(entry_of(0), Receipt(index, one.proof, one.note), vkey=small[1])


def test_extra_is_nobodys_word(receipt):
    """Extra data may be put in and changed, and what the receipt shows stays the same."""
    text, entry, vkey = receipt
    one = read_receipt(text)
    for extra in (b"a", b"b", b"x" * 65_536):
        more = Receipt(one.index, one.proof, one.note, extra)
        assert verify_receipt(entry, more.to_text(), vkey=vkey).index == 4
    too_much = Receipt(one.index, one.proof, one.note, b"x" * 65_537)
    with pytest.raises(TamperedError):
        read_receipt(too_much.to_text())


def test_second_spellings_are_refused(receipt):
    """Numbers, base64, lines and letters have one form."""
    text, _, _ = receipt
    _, index, *hashes = text.partition("\n\n")[0].split("\n")
    note = text.partition("\n\n")[2]
    start, rest = "c2sp.org/tlog-proof@v1\n", "\n".join(hashes) + "\n\n" + note
    assert read_receipt(f"{start}{index}\n{rest}")
    wrongs = [
        *(f"{start}{number}\n{rest}" for number in (
            "index 04", "index +4", "index  4", "index 4 ", "index ٤", "index", "index ", "Index 4",
            "index 4.0", "index -4", "index " + "9" * 20, "index ④",
        )),
        *(f"{start}extra {extra}\n{index}\n{rest}" for extra in (
            "", "YQ", "YQ=", "YR==", "YQ== ", " YQ==", "Y Q==", "é",
        )),
        f"{start}extra YQ==\nextra YQ==\n{index}\n{rest}",
        f"{start}{index}\nextra YQ==\n{rest}",
        f"{start}{index}\n{index}\n{rest}",
        f"{start}\n{index}\n{rest}",
        f"{start}{index}\n\n{rest}",
        f"{start}{index}\r\n{rest}",
        f"{start}{index}\n{rest}".replace("\n", "\r\n"),
        f"{start}{index}\n{hashes[0]}\n" * 64 + rest,
        f"\ufeff{start}{index}\n{rest}",
        f"{start.replace('@v1', '@v2')}{index}\n{rest}",
        f"{start}{index}\n{rest.replace('=', '', 1)}",
        f"{start}{index}\n{rest}".replace("\u2014", "-"),
        "", "\n", "\n\n", start, f"{start}\n\n", f"{start}{index}\n\n", "\ud800", "x" * 300_000,
    ]  # fmt: skip
    for wrong in wrongs:
        with pytest.raises(TamperedError):
            read_receipt(wrong)
    with pytest.raises(TamperedError, match="UTF-8"):
        read_receipt(b"\xff\xfe")


def test_wrong_arguments(receipt):
    """A key that cannot be read, and an entry that is no bytes, are the caller's mistakes."""
    text, entry, vkey = receipt
    with pytest.raises(ConfigurationError):
        verify_receipt(entry, text, vkey="nonsense")
    for wrong in (entry.decode(), {"type": "test"}, None, bytearray(entry)):
        with pytest.raises(MisuseError, match="exact bytes"):
            verify_receipt(wrong, text, vkey=vkey)


# -- consistency -----------------------------------------------------------------------------


def test_every_head_is_extended_by_every_later_one(large):
    """Between any two of them, also from the empty log, and from one to itself."""
    directory, vkey, heads = large
    for old, kept in heads.items():
        for new, head in heads.items():
            if old > new:
                with pytest.raises(LogError, match=f"covers {old} entries, the later one {new}"):
                    prove_consistency_between(directory, kept, head=head)
                continue
            proof = prove_consistency_between(directory, kept, head=head)
            assert (proof.old, proof.note) == (old, head)
            assert read_consistency(proof.to_text()) == proof
            found = verify_consistency(kept, proof.note, proof.proof, vkey)
            assert (found.old, found.new) == (old, new)
    assert prove_consistency_between(directory, heads[3]).note == heads[600]


def test_consistency_with_what_is_not_published(make, tools):
    """The head that an append returned extends the published one; without it, ask to publish."""
    event, *_ = tools
    log = make()
    old = log.append(event(0)).checkpoint
    log.publish()
    late = log.append_many([event(i) for i in range(1, 9)])[-1].checkpoint
    proof = prove_consistency_between(log.directory, old, head=late)
    assert verify_consistency(old, late, proof.proof, log.vkey).new == 9
    with pytest.raises(LogError, match="publish the log first"):
        prove_consistency_between(log.directory, late)
    log.close()


def test_every_changed_byte_of_a_consistency_proof_is_refused(large):
    """Of its text and of the head that was kept."""
    directory, vkey, heads = large
    kept = heads[257]
    text = prove_consistency_between(directory, kept).to_text().encode()

    def check(old, data):
        proof = read_consistency(data)
        if proof.old != open_checkpoint(old, None).size:
            raise TamperedError("of another size")
        verify_consistency(old, proof.note, proof.proof, vkey)

    check(kept, text)
    for at in range(len(text)):
        for wrong in (text[:at] + bytes([text[at] ^ 1 << at % 8]) + text[at + 1 :], text[:at]):
            with pytest.raises(TamperedError):
                check(kept, wrong)
    old = kept.encode()
    for at in range(len(old)):
        with pytest.raises(TamperedError):
            check(old[:at] + bytes([old[at] ^ 1 << at % 8]) + old[at + 1 :], text)


def test_second_spellings_of_a_consistency_proof_are_refused(large):
    """Numbers and lines have one form there, too."""
    directory, _, heads = large
    text = prove_consistency_between(directory, heads[257]).to_text()
    for number in ("old 0257", "old +257", "old  257", "old 257 ", "old ٢٥٧", "old 257\r", "257"):
        with pytest.raises(TamperedError):
            read_consistency(text.replace("old 257", number))


def test_a_fork_has_no_proof(make, tools):
    """A log that was written anew with the same key does not extend the head of the first."""
    event, *_ = tools
    signer = Ed25519Signer.generate("example.com/log")
    heads = []
    for name, first in (("one", 0), ("two", 1)):
        log = make(name, signer=signer)
        heads.append(log.append_many([event(first + i) for i in range(3)])[-1].checkpoint)
        log.append(event(9))
        log.close()
    with pytest.raises(TamperedError, match="does not extend the older head"):
        prove_consistency_between(log.directory, heads[0])
    assert prove_consistency_between(log.directory, heads[1]).old == 3
    other = sign_note(Checkpoint("example.com/x", 0, merkle.EMPTY_ROOT).text(), signer)
    with pytest.raises(TamperedError, match="another log"):
        prove_consistency_between(log.directory, other)
    with pytest.raises(TamperedError):
        prove_consistency_between(log.directory, "nonsense")


def test_heads_of_another_key_are_not_consistent(large):
    """Both heads are signed by the key that was asked for."""
    directory, vkey, heads = large
    origin = heads[0].partition("\n")[0]
    stranger = Ed25519Signer.generate(origin)
    proof = prove_consistency_between(directory, heads[3])
    forged = sign_note(open_checkpoint(heads[3], None).text(), stranger)
    for old, new in ((forged, proof.note), (proof.note, forged)):
        with pytest.raises(TamperedError, match="not signed by a known key"):
            verify_consistency(old, new, proof.proof, vkey)


# -- parsers -----------------------------------------------------------------------------------

LINES = st.lists(
    st.sampled_from(
        ["c2sp.org/tlog-proof@v1", "index 0", "index 1", "old 1", "extra YQ==", "", "A" * 43 + "="]
        + ["example.com/x", "1", "— example.com/x " + "A" * 91 + "=", "\ud800", "\x00", "é"]
    )
).map("\n".join)


@given(st.one_of(st.text(), st.binary(), LINES))
def test_no_foreign_exception_escapes(text):
    """Whatever is read, it is a proof in its one spelling or an error of this library."""
    for read in (read_receipt, read_consistency):
        try:
            found = read(text)
        except CheckreinError:
            continue
        assert found.to_text() == (text if isinstance(text, str) else text.decode())


@given(
    st.integers(0, 2**63 - 1),
    st.lists(st.binary(min_size=32, max_size=32), max_size=63),
    st.binary(max_size=100),
)
def test_what_is_written_is_read(index, proof, extra):
    """Any receipt and any proof comes back as it was, whether or not it shows something."""
    note = sign_note(Checkpoint("a", 1, bytes(32)).text(), SIGNER)
    receipt = Receipt(index, tuple(proof), note, extra)
    assert read_receipt(receipt.to_text()) == receipt
    between = Consistency(index, tuple(proof), note)
    assert read_consistency(between.to_text()) == between


SIGNER = Ed25519Signer("a", bytes(32))


@given(st.integers(1, 3 * WIDTH), st.data())
def test_the_tail_behind_the_tiles_gives_the_same_hashes(size, data):
    """A tree that is all tail has the proofs of the tree itself."""
    entries = [entry_of(i) for i in range(size)]
    tree = TileReader(None, 0, entries)
    root = merkle.root_of(merkle.leaf_hashes(entries))
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.prove_inclusion(index, size, tree)
    assert tree.size == size
    merkle.check_inclusion(index, size, merkle.leaf_hash(entries[index]), proof, root)
