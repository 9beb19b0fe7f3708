"""Cosignatures, against what Go's standard library makes of the same keys, and under attack."""

from __future__ import annotations

import sys
from hashlib import sha256

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from hypothesis import example, given
from hypothesis import strategies as st

from checkrein.errors import (
    CheckreinError,
    ConfigurationError,
    LogError,
    MisuseError,
    TamperedError,
)
from checkrein.log import cosignature, keys, note
from checkrein.log.cosignature import ED25519, ML_DSA_44, CosigningKey

ORIGIN = "example.com/behind-the-sofa"
NAME = "witness.example/one"
TEXT = f"{ORIGIN}\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
TIME = 1_679_315_147
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
VKEY = "witness.example/one+56dd39ef+BNdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"
LINE = (
    "— witness.example/one Vt057wAAAABkGFDL+TPmh4BYuAjsYRoqMJCWb/gWJaeRF/kmm5tlCr9sJ57DLErur7K0yDXc"
    "2ArN+TIuotuB/HbuL3AJsp3bv/aNCQ==\n"
)
ML_DSA_VKEY = "539e0de90b79035815f61e8fcace62e9ad81729a982afec26cd0fd5342e138fc"
BOTH = pytest.mark.parametrize("kind", [ED25519, ML_DSA_44], ids=["ed25519", "ml-dsa-44"])


@pytest.fixture(autouse=True)
def _newer(request):
    """Skip what needs ML-DSA-44 where the installed cryptography has none."""
    callspec = getattr(request.node, "callspec", None)
    if callspec is not None and callspec.params.get("kind") == ML_DSA_44:
        pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")


def key_of(kind=ED25519, name=NAME):
    return CosigningKey(name, SEED, kind)


def cosigned(key, stamp=TIME, text=TEXT):
    return key.sign_at(text.encode(), stamp)


def test_the_known_answer_of_go():
    """Seed, name and time give Go's verifier key and Go's line, byte for byte."""
    key = key_of()
    signature = note.Signature(NAME, key.cosigner.key_id, cosigned(key))
    assert (key.vkey, note.signature_line(signature)) == (VKEY, LINE)
    (line,) = note.split_lines(LINE)
    assert cosignature.parse_cosigner(VKEY).time_of(TEXT.encode(), line.signature) == TIME


def test_the_known_key_of_go():
    """The same seed gives Go's ML-DSA-44 key, which is 1,312 bytes long."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    vkey = key_of(ML_DSA_44).vkey
    assert sha256(vkey.encode()).hexdigest() == ML_DSA_VKEY
    assert len(cosignature.parse_cosigner(vkey).public) == 1312


def test_what_is_signed_is_what_the_specification_says():
    """Both messages, written out by hand."""
    root = note.decode_base64("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    text = TEXT.encode()
    assert cosignature._statement(ED25519, NAME, TIME, text) == (
        b"cosignature/v1\ntime 1679315147\n" + text
    )
    assert cosignature._statement(ML_DSA_44, NAME, TIME, text) == (
        b"subtree/v1\n\0\x13witness.example/one\0\0\0\0\x64\x18\x50\xcb"
        b"\x1bexample.com/behind-the-sofa" + bytes(8) + (20852163).to_bytes(8, "big") + root
    )


@BOTH
def test_a_cosignature_is_of_one_key_one_head_and_one_time(kind):
    """Replayed on another head, by another name or key, or with another time it is none."""
    key = key_of(kind)
    good = cosigned(key)
    assert key.cosigner.time_of(TEXT.encode(), good) == TIME
    other = CosigningKey.generate(NAME, kind).cosigner
    assert other.time_of(TEXT.encode(), good) is None
    for text in (
        TEXT.replace("163", "164"),
        TEXT.replace("sofa", "sofb"),
        TEXT.replace("Cs", "Ds"),
    ):
        assert key.cosigner.time_of(text.encode(), good) is None
    later = (TIME + 1).to_bytes(8, "big") + good[8:]
    assert not key.cosigner.verifies(TEXT.encode(), later)


def test_only_ml_dsa_signs_the_name():
    """Why an Ed25519 key serves one role only: the signature holds under another name, too."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    assert key_of(ED25519, "other").cosigner.verifies(TEXT.encode(), cosigned(key_of()))
    good = cosigned(key_of(ML_DSA_44))
    assert not key_of(ML_DSA_44, "other").cosigner.verifies(TEXT.encode(), good)


@BOTH
def test_every_changed_byte_is_refused(kind):
    """No byte of time or signature can be changed, cut off or added."""
    cosigner, good = key_of(kind).cosigner, cosigned(key_of(kind))
    message = TEXT.encode()
    step = 1 if kind == ED25519 else 97
    wrong = [good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :] for i in range(0, len(good), step)]
    wrong += [good[:i] for i in range(0, len(good), step)] + [good + b"\0", b"\0" + good]
    assert not any(cosigner.verifies(message, one) for one in wrong)


@BOTH
@pytest.mark.parametrize(
    "text",
    ["", "no checkpoint\n", TEXT[:-1], TEXT + "more\n"],
    ids=["empty", "line", "cut", "longer"],
)
def test_nothing_but_a_checkpoint_is_cosigned(kind, text):
    """The key signs no other text, so that nothing else can be passed off as a head."""
    with pytest.raises(TamperedError):
        key_of(kind).sign_at(text.encode(), TIME)
    with pytest.raises(TamperedError):
        key_of(kind).sign_at(b"\xff", TIME)


@BOTH
def test_times_have_a_range(kind):
    """A time is from 0 to 2**63 - 1; beyond that nothing is signed, and nothing believed."""
    key = key_of(kind)
    for stamp in (0, 1, cosignature.MAX_TIME):
        assert key.cosigner.time_of(TEXT.encode(), cosigned(key, stamp)) == stamp
    for stamp in (-1, cosignature.MAX_TIME + 1):
        with pytest.raises(MisuseError):
            cosigned(key, stamp)
    signed = key._key.sign(cosignature._statement(kind, NAME, 1 << 63, TEXT.encode()))
    assert key.cosigner.time_of(TEXT.encode(), (1 << 63).to_bytes(8, "big") + signed) is None


@BOTH
def test_keys_are_read_back(kind):
    """Private and public text give the same key; printing it gives no secret away."""
    key = CosigningKey.generate(NAME, kind)
    assert CosigningKey.from_text(key.private_text()).vkey == key.vkey
    assert cosignature.parse_cosigner(key.vkey) == key.cosigner
    assert key.private_text().split("+", 4)[4] not in repr(key) + str(key) + repr(key.cosigner)


@BOTH
def test_every_mangled_key_is_refused(kind):
    """No proper part of a key text, and none with a letter changed, is a key."""
    key = key_of(kind)
    for text, read in [
        (key.vkey, cosignature.parse_cosigner),
        (key.private_text(), CosigningKey.from_text),
    ]:
        step = max(1, len(text) // 150)
        wrong = [text[:i] for i in range(0, len(text), step)]
        wrong += [text[i:] for i in range(1, len(text), step)]
        wrong += [
            text[:i] + chr(ord(text[i]) + 1) + text[i + 1 :] for i in range(0, len(text), step)
        ]
        wrong += [text + "=", text + "\n", text.rstrip("=")[:-1] + "/" + "="]
        for mangled in wrong:
            if mangled != text:
                with pytest.raises(ConfigurationError):
                    read(mangled)


def vkey_of(kind, size, name="a"):
    return note.key_text(name, kind, bytes(size))


@pytest.mark.parametrize(
    ("read", "kind", "size", "says"),
    [
        (cosignature.parse_cosigner, 0x01, 32, "not 0x01 .Ed25519 signatures of notes"),
        (cosignature.parse_log_key, 0x04, 32, "not 0x04 .Ed25519 cosignatures"),
        (cosignature.parse_cosigner, 0x02, 91, "not 0x02 .ECDSA"),
        (cosignature.parse_log_key, 0x05, 91, "not 0x05 .RFC 6962"),
        (cosignature.parse_cosigner, 0xFF, 40, "not 0xff .a type without a number"),
        (cosignature.parse_cosigner, 0x07, 40, "not 0x07 .unknown"),
        (cosignature.parse_cosigner, 0x04, 31, "has 32 bytes"),
        (cosignature.parse_cosigner, 0x06, 32, "has 1312 bytes"),
    ],
    ids=["log", "witness", "ecdsa", "ct", "private", "unknown", "short", "small"],
)
def test_other_types_are_refused_by_name(read, kind, size, says):
    """A key of another type is not taken for one of ours, and the error says what it is."""
    with pytest.raises(ConfigurationError, match=says):
        read(vkey_of(kind, size))


def test_a_log_signs_with_both():
    """A head with the log's two signatures holds for either key, and a wrong one refuses it."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    log = note.Ed25519Signer.generate(ORIGIN)
    second = CosigningKey.generate(ORIGIN, ML_DSA_44)
    both = note.add_signatures(note.sign_note(TEXT, log), second)
    known = [cosignature.parse_log_key(log.vkey), cosignature.parse_log_key(second.vkey)]
    for verifiers in (known, known[:1], known[1:]):
        assert note.open_note(both, verifiers) == TEXT
    assert both == note.sign_note(TEXT, log) + both.split("\n\n")[1].split("\n")[1] + "\n"
    broken = both[:-4] + ("A" if both[-4] != "A" else "B") + both[-3:]
    assert note.open_note(broken, known[:1]) == TEXT
    with pytest.raises(TamperedError):
        note.open_note(broken, known)
    assert note.sign_note(TEXT, log, second).startswith(note.sign_note(TEXT, log))


def test_a_second_signature_needs_a_note():
    """What is no note, or gets too long, is not signed further."""
    with pytest.raises(TamperedError):
        note.add_signatures(TEXT, key_of())
    long = note.sign_note("x" * (note.MAX_NOTE - 200) + "\n", note.Ed25519Signer.generate("a"))
    with pytest.raises(TamperedError):
        note.add_signatures(long, *[note.Ed25519Signer.generate("a")] * 3)


def test_a_signature_has_the_size_of_its_type():
    """A signer that gives a plain signature where a cosignature belongs is refused."""

    class Wrong:
        name, vkey = NAME, key_of().vkey

        def sign(self, message):
            return bytes(64)

    with pytest.raises(LogError, match="64 bytes instead of 72"):
        note.sign_note(TEXT, Wrong())


def test_long_names():
    """ML-DSA-44 signs names of 255 bytes, and no longer ones: of cosigners and of logs."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    key = key_of(ML_DSA_44, "é" * 127)
    good = TEXT.replace(ORIGIN, "o" * 255)
    assert key.cosigner.verifies(good.encode(), cosigned(key, text=good))
    with pytest.raises(ConfigurationError):
        key_of(ML_DSA_44, "é" * 128)
    with pytest.raises(TamperedError):
        cosigned(key, text=TEXT.replace(ORIGIN, "o" * 256))
    assert key.cosigner.time_of(TEXT.replace(ORIGIN, "o" * 256).encode(), bytes(2428)) is None


def test_without_ml_dsa(monkeypatch):
    """An older cryptography is told about in one line, for either half of the key."""
    pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    key = key_of(ML_DSA_44)
    secret = key.private_text()
    name = "cryptography.hazmat.primitives.asymmetric"
    monkeypatch.setitem(sys.modules, f"{name}.mldsa", None)
    monkeypatch.delattr(sys.modules[name], "mldsa", raising=False)
    for read, text in [
        (cosignature.parse_cosigner, key.vkey),
        (cosignature.parse_log_key, key.vkey),
        (CosigningKey.from_text, secret),
    ]:
        with pytest.raises(ConfigurationError, match="cryptography>=50"):
            read(text)
    assert key_of().cosigner.verifies(TEXT.encode(), cosigned(key_of()))


def test_a_backend_without_ml_dsa(monkeypatch):
    """So is one that has the names and not the algorithm."""
    mldsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    key = key_of(ML_DSA_44)

    def unsupported(data):
        raise UnsupportedAlgorithm("no")

    monkeypatch.setattr(mldsa.MLDSA44PublicKey, "from_public_bytes", unsupported)
    monkeypatch.setattr(mldsa.MLDSA44PrivateKey, "from_seed_bytes", unsupported)
    with pytest.raises(ConfigurationError, match="cryptography>=50"):
        cosignature.parse_cosigner(key.vkey)
    with pytest.raises(ConfigurationError, match="cryptography>=50"):
        CosigningKey.from_text(key.private_text())


@pytest.mark.parametrize(
    ("name", "seed", "kind"),
    [("a b", SEED, ED25519), (NAME, SEED[1:], ED25519), (NAME, SEED, note.ED25519)],
    ids=["name", "seed", "kind"],
)
def test_a_key_is_made_of_what_it_is_made_of(name, seed, kind):
    """A wrong name, seed or type is refused when the key is made."""
    with pytest.raises(ConfigurationError):
        CosigningKey(name, seed, kind)


def test_key_files(tmp_path):
    """A witness's key is kept like a log's; one is not taken for the other."""
    key = keys.new_cosigning_key(NAME, tmp_path / "w.skey")
    assert keys.load_cosigning_key(tmp_path / "w.skey").vkey == key.vkey
    assert (tmp_path / "w.vkey").read_text() == key.vkey + "\n"
    assert (tmp_path / "w.skey").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigurationError):
        keys.new_cosigning_key(NAME, tmp_path / "w.skey")
    with pytest.raises(ConfigurationError):
        keys.load_signer(tmp_path / "w.skey")
    keys.new_key(ORIGIN, tmp_path / "log.skey")
    with pytest.raises(ConfigurationError, match="not 0x01"):
        keys.load_cosigning_key(tmp_path / "log.skey")
    (tmp_path / "w.skey").chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        keys.load_cosigning_key(tmp_path / "w.skey")


@given(st.one_of(st.text(), st.from_regex(r"[a-z]{0,3}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{0,50}=*")))
@example("a+00000000+BA==")
@example("\ud800+00000000+BA==")
def test_no_foreign_exception_from_keys(text):
    """Whatever stands where a key should is refused by this library's own error."""
    for read in (cosignature.parse_cosigner, cosignature.parse_log_key, CosigningKey.from_text):
        with pytest.raises(ConfigurationError):
            read(text)


@given(st.binary(max_size=200), st.binary(max_size=200), st.sampled_from([ED25519, ML_DSA_44]))
def test_no_foreign_exception_from_signatures(message, signature, kind):
    """Whatever stands where a cosignature or a head should is no cosignature."""
    if kind == ML_DSA_44:
        pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    assert key_of(kind).cosigner.time_of(message, signature) is None


@given(st.text(), st.text())
def test_no_foreign_exception_from_lines(before, after):
    """Signature lines are read, or refused by this library's own error."""
    for text in (before, f"{before}\n", f"— {before} {after}\n", LINE + before):
        try:
            assert "".join(map(note.signature_line, note.split_lines(text))) == text
        except CheckreinError:
            assert text != LINE
