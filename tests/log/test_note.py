"""Signed notes, keys and checkpoints, against the examples that others published."""

from __future__ import annotations

import base64

import pytest

from checkrein.errors import ConfigurationError, LogError, TamperedError
from checkrein.log import checkpoint, note, tiles

SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ON"
    "ncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
GO_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb"
    "6KE6RyyBwJnAM=\n"
)


def test_the_example_of_the_specification():
    """The note and key of C2SP signed-note are accepted."""
    text = note.open_note(SPEC_NOTE, [note.parse_vkey(SPEC_KEY)])
    assert text == "This is an example message.\n"


def test_the_example_of_go():
    """Go's private key gives Go's public key and Go's signature, byte for byte."""
    signer = note.Ed25519Signer.from_text(GO_SECRET)
    assert (signer.vkey, signer.private_text()) == (GO_KEY, GO_SECRET)
    assert note.sign_note(GO_TEXT, signer) == GO_TEXT + "\n" + GO_LINE


def test_every_changed_byte_of_a_note_is_refused():
    """No byte of a note can be changed, cut or doubled; base64 has one spelling."""
    verifier = note.parse_vkey(SPEC_KEY)
    whole = SPEC_NOTE.encode()
    changed = [whole[:i] + bytes([b ^ 1]) + whole[i + 1 :] for i, b in enumerate(whole)]
    cut = [whole[:i] for i in range(len(whole))] + [whole[i:] for i in range(1, len(whole))]
    for wrong in [*changed, *cut, whole + whole, b"", b"\xff"]:
        with pytest.raises(TamperedError):
            note.open_note(wrong, [verifier])


@pytest.mark.parametrize("text", [SPEC_KEY, GO_SECRET])
def test_every_mangled_key_is_refused(text):
    """No proper substring of a key, and no key with a byte changed, is a key."""
    read = note.Ed25519Signer.from_text if "PRIVATE" in text else note.parse_vkey
    wrong = [text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1)]
    wrong += [text[:i] + chr(ord(c) + 1) + text[i + 1 :] for i, c in enumerate(text)]
    for mangled in wrong:
        if mangled != text:
            with pytest.raises(ConfigurationError):
                read(mangled)


def test_unknown_signatures_are_ignored_and_known_ones_count():
    """A stranger's signature neither helps nor harms; a known key's wrong one refuses all."""
    verifier = note.parse_vkey(GO_KEY)
    stranger = note.Ed25519Signer.generate("stranger")
    assert note.open_note(note.sign_note(GO_TEXT, stranger) + GO_LINE, [verifier]) == GO_TEXT
    with pytest.raises(TamperedError):
        note.open_note(note.sign_note(GO_TEXT, stranger), [verifier])
    broken = note.sign_note("other\n", note.Ed25519Signer.from_text(GO_SECRET)).split("\n\n")[1]
    with pytest.raises(TamperedError):
        note.open_note(GO_TEXT + "\n" + GO_LINE + broken, [verifier])


def test_notes_have_a_limit():
    """A note over 64 KiB, or with control characters, is refused before anything else."""
    signer = note.Ed25519Signer.generate("a")
    for text in ("x" * note.MAX_NOTE + "\n", "a\rb\n", "a\0\n"):
        with pytest.raises(TamperedError):
            note.open_note(note.sign_note(text, signer), [note.parse_vkey(signer.vkey)])


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b", "\ud800"])
def test_names_are_plain(name):
    """A key name that would break the format is refused when the key is made."""
    with pytest.raises(ConfigurationError):
        note.Ed25519Signer.generate(name)


def test_a_signer_that_gives_nonsense():
    """What is not an Ed25519 signature never gets into a note."""

    class Wrong:
        name, vkey = "a", note.Ed25519Signer.generate("a").vkey

        def sign(self, message):
            return b"short"

    with pytest.raises(LogError):
        note.sign_note("text\n", Wrong())


def test_no_secret_in_repr():
    """Printing a signer does not print its key."""
    signer = note.Ed25519Signer.from_text(GO_SECRET)
    assert "AYEKFALV" not in repr(signer) + str(signer)


def test_a_checkpoint_has_one_spelling():
    """Leading zeros, other digits, extension lines and loose base64 are refused."""
    good = "example.com/log\n12\n" + "A" * 43 + "=\n"
    assert checkpoint.parse_checkpoint(good).size == 12
    for wrong in (
        good.replace("12", "012"),
        good.replace("12", "+12"),
        good.replace("12", "1٢"),
        good.replace("12", "9" * 5000),
        good.replace("A=", "B="),
        good + "extension\n",
        good[:-1],
        "\n" + good,
        "",
    ):
        with pytest.raises(TamperedError):
            checkpoint.parse_checkpoint(wrong)


DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def respelled(good):
    """Return what a lenient decoder takes for the same bytes as *good*."""
    plain = good.rstrip("=")
    spaces = [" ", "\n", "\r\n", "\t", "\v", "\u00a0", "\u2028"]
    others = [good + "=", good + "====", "=" + good, plain + "\0" + good[len(plain) :]]
    for space in spaces:
        others += [space + good, good + space, good[:8] + space + good[8:], plain + space + "="]
    if plain != good:
        last, unused = DIGITS.index(plain[-1]), 4 ** (len(good) - len(plain))
        assert last % unused == 0
        others += [
            plain[:-1] + DIGITS[last + bits] + good[len(plain) :] for bits in range(1, unused)
        ]
        others += [plain, plain[:-1] + DIGITS[last + 1]]
    if set(good) & set("+/"):
        others.append(good.replace("+", "-").replace("/", "_"))
    return others


def lenient(text):
    """Decode as many decoders do: what is no digit is skipped, padding is added."""
    digits = [c for c in text.replace("-", "+").replace("_", "/") if c in DIGITS]
    return base64.b64decode("".join(digits) + "=" * (-len(digits) % 4))


@pytest.mark.parametrize("length", [5, 32, 33, 68, 72])
def test_base64_has_one_spelling(length):
    """Padding, spaces, unused bits, and the other alphabet give no second spelling of any bytes."""
    for data in (bytes(length), b"\xff" * length, bytes(range(3, 3 + length))):
        good = base64.b64encode(data).decode()
        assert note.decode_base64(good) == data
        for other in respelled(good):
            assert lenient(other) == data
            assert note.decode_base64(other) is None, other


def test_a_signature_has_one_spelling():
    """No second spelling of a signature is read, of the log's nor of a stranger's beside it."""
    signer, stranger = note.Ed25519Signer.generate("a"), note.Ed25519Signer.generate("b")
    verifier = note.parse_vkey(signer.vkey)
    whole = note.sign_note("text\n", signer, stranger)
    for line in whole.split("\n")[2:4]:
        good = line.split(" ")[2]
        for other in respelled(good):
            with pytest.raises(TamperedError):
                note.open_note(whole.replace(good, other), [verifier])
    assert note.open_note(whole, [verifier]) == "text\n"


def test_a_key_has_one_spelling():
    """No second spelling of a public or a private key is read."""
    signer = note.Ed25519Signer.generate("example.com/log")
    texts = [(signer.vkey, note.parse_vkey), (signer.private_text(), signer.from_text)]
    for text, read in texts:
        start = len(text) - 44  # 33 bytes: the kind of the key, and the key
        for other in respelled(text[start:]):
            with pytest.raises(ConfigurationError):
                read(text[:start] + other)
        assert read(text).vkey == signer.vkey


def test_a_root_has_one_spelling():
    """A head whose root is spelled in a second way is no head, though its signature holds."""
    signer = note.Ed25519Signer.generate("example.com/log")
    verifier = note.parse_vkey(signer.vkey)
    good = base64.b64encode(bytes(range(32))).decode()
    for root in [good, *respelled(good)]:
        signed = note.sign_note(f"example.com/log\n12\n{root}\n", signer)
        if root == good:
            assert checkpoint.open_checkpoint(signed, verifier).size == 12
        else:
            with pytest.raises(TamperedError):
                checkpoint.open_checkpoint(signed, verifier)


def test_a_checkpoint_of_another_log_is_refused():
    """A known key cannot sign under another log's name."""
    signer = note.Ed25519Signer.generate("one")
    signed = note.sign_note(checkpoint.Checkpoint("two", 0, bytes(32)).text(), signer)
    with pytest.raises(TamperedError):
        checkpoint.open_checkpoint(signed, note.parse_vkey(signer.vkey))


def test_tile_paths():
    """Paths are those of the specification, and only those are read."""
    assert tiles.tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tiles.tile_path(tiles.ENTRIES, 273, 112) == "tile/entries/273.p/112"
    for level, number, width in [(0, 0, 256), (63, 999, 1), (tiles.ENTRIES, 1000, 255)]:
        path = tiles.tile_path(level, number, width)
        assert tiles.parse_path(path) == (level, number, width)
    for wrong in (
        "tile/0/1",
        "tile/00/001",
        "tile/0/x000/001",
        "tile/0/001.p/256",
        "tile/0/001.p/0",
    ):
        assert tiles.parse_path(wrong) is None


def test_the_widths_of_a_tree_of_70000():
    """The levels, and full and partial tiles, are those of the specification's example."""
    edge = tiles.Edge()
    full = [(t.level, t.number) for t in edge.add([bytes(32)] * 70_000)]
    assert sum(level == 0 for level, _ in full) == 273
    assert [(1, 0)] == [t for t in full if t[0]]
    assert [(t.level, t.number, t.width) for t in edge.partials()] == [
        (0, 273, 112),
        (1, 1, 17),
        (2, 0, 1),
    ]
    assert len(edge.frontier().root()) == 32
    assert tiles.Edge.load(70_000, lambda level, n, w: edge.rows[level]).frontier().size == 70_000


def test_bundles_are_strict():
    """A bundle whose lengths do not add up is refused, and any other comes back as it was."""
    entries = [b"", b"a", b"b" * 65_535]
    data = tiles.encode_bundle(entries)
    assert tiles.decode_bundle(data) == entries
    for wrong in (data[:-1], data + b"\0", b"\0"):
        with pytest.raises(TamperedError):
            tiles.decode_bundle(wrong)
