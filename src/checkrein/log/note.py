r"""Signed notes (C2SP signed-note v1), and their Ed25519 signatures.

::

    note       text "\n" line+          text ends with "\n"; split at the last empty line
    line       "— " name " " base64(id[4] || signature) "\n"     the dash is U+2014
    id         SHA-256(name || 0x0A || type || public key)[0:4]
    vkey       name "+" hex(id) "+" base64(type || public key)
    skey       "PRIVATE+KEY+" name "+" hex(id) "+" base64(type || seed[32])
    type       0x01, Ed25519 over the text: public key[32], signature[64]

A note is UTF-8, at most 64 KiB, without control characters but "\n". A name is
not empty and has neither a space nor a "+". Base64 is padded, and only its one
canonical spelling is read: decoded text is encoded again and compared.

A signature by a name and id that nobody asked for is ignored; one by a known
key that does not verify refuses the whole note; so does the lack of any by a
known key. The signature covers the text with its last "\n". The other types that
are known, 0x04 and 0x06, are in `checkrein.log.cosignature`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from checkrein.errors import ConfigurationError, LogError, TamperedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MAX_NOTE: Final = 64 * 1024
ED25519: Final = 0x01
PRIVATE: Final = "PRIVATE+KEY+"
_SIGNATURE_SIZES: Final = {ED25519: 64, 0x04: 72, 0x06: 2428}
_DASH: Final = "— "


class Signer(Protocol):
    """Who signs the heads of a log: a key in this process, a socket, a service."""

    @property
    def name(self) -> str:
        """The key's name; for a log it is the log's origin."""
        ...

    @property
    def vkey(self) -> str:
        """The public half, as verifier key text."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*; Ed25519's has 64 bytes."""
        ...


class NoteVerifier(Protocol):
    """Who tells whether a signature line is good: a `Verifier`, a ``Cosigner``."""

    @property
    def name(self) -> str:
        """The key's name."""
        ...

    @property
    def key_id(self) -> bytes:
        """The key's id."""
        ...

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Tell whether *signature* is this key's signature over the text *message*."""
        ...


class KeyText(NamedTuple):
    """The parts of a key text; what the id is worth has yet to be checked."""

    name: str
    key_id: bytes
    kind: int
    material: bytes


class Signature(NamedTuple):
    """One signature line."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name.

    Example:
        >>> parse_vkey("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k").name
        'example.com/foo'
    """

    name: str
    key_id: bytes
    vkey: str
    key: Ed25519PublicKey = field(repr=False)

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Tell whether *signature* is this key's signature over *message*."""
        try:
            self.key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Ed25519Signer:
    """A private key held in this process.

    Args:
        name: the key's name, the log's origin.
        seed: the 32 secret bytes.
        path: the file it was read from, if any.

    Example:
        >>> signer = Ed25519Signer.generate("example.com/log")
        >>> Ed25519Signer.from_text(signer.private_text()).vkey == signer.vkey
        True
    """

    __slots__ = ("_key", "name", "passing", "path", "vkey")

    def __init__(self, name: str, seed: bytes, path: Path | None = None) -> None:
        if not is_name(name):
            raise ConfigurationError("a key name is not empty and has neither spaces nor '+'")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.name, self.path, self.passing = name, path, False
        self.vkey = key_text(name, ED25519, self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> Ed25519Signer:
        """Return a signer with a new random key, which ends with the process unless it is kept.

        A log that is written with this very object has no memory of its own head outside of
        its directory; one that is written with the key from a file or a text has.
        """
        signer = cls(name, Ed25519PrivateKey.generate().private_bytes_raw())
        signer.passing = True
        return signer

    @classmethod
    def from_text(cls, text: str, path: Path | None = None) -> Ed25519Signer:
        """Read a private key text.

        Raises:
            ConfigurationError: the text is not a private key of this form.
        """
        if text.startswith(PRIVATE):
            name, key_id, seed = _parse_key(text.removeprefix(PRIVATE), "private")
            signer = cls(name, seed, path)
            if key_id == _id_of_vkey(signer):
                return signer
        raise ConfigurationError("this is not a private key text (PRIVATE+KEY+name+id+key)")

    def sign(self, message: bytes) -> bytes:
        """Return the signature over *message*."""
        return self._key.sign(message)

    def private_text(self) -> str:
        """Return the secret key as text; whoever has it can sign as this log."""
        public = self._key.public_key().public_bytes_raw()
        return PRIVATE + key_text(self.name, ED25519, public, self._key.private_bytes_raw())

    def __repr__(self) -> str:
        return f"Ed25519Signer({self.vkey!r})"


def parse_vkey(text: str) -> Verifier:
    """Read a verifier key text.

    Raises:
        ConfigurationError: the text is not an Ed25519 verifier key in its one spelling.
    """
    name, key_id, raw = _parse_key(text, "verifier")
    if text != key_text(name, ED25519, raw):
        raise ConfigurationError("the id in the verifier key is not the one of its key")
    return Verifier(name, key_id, text, Ed25519PublicKey.from_public_bytes(raw))


def sign_note(text: str, *signers: Signer) -> str:
    """Return the note of *text* signed by each of *signers*.

    Args:
        text: ends with a newline.
        signers: at least one.

    Raises:
        LogError: a signer gave something that is no signature of its key's type.
    """
    message = text.encode()
    return "".join([text, "\n", *(_sign_line(message, signer) for signer in signers)])


def add_signatures(note: str, *signers: Signer) -> str:
    """Return *note* with further signatures; those that it has are kept, **unverified**.

    Args:
        note: a signed note.
        signers: who signs its text as well.

    Raises:
        TamperedError: malformed, or too long with the signatures added.
        LogError: a signer gave something that is no signature of its key's type.
    """
    message = split_note(note)[0].encode()
    more = "".join([note, *(_sign_line(message, signer) for signer in signers)])
    split_note(more)
    return more


def open_note(note: bytes | str, verifiers: Iterable[NoteVerifier]) -> str:
    """Return the text of *note* if a known key signed it.

    Args:
        note: the signed note.
        verifiers: the known keys.

    Raises:
        TamperedError: malformed, signed by no known key, or a known key's signature is wrong.
    """
    text, signatures = split_note(note)
    known = {(verifier.name, verifier.key_id): verifier for verifier in verifiers}
    verified = False
    for name, key_id, signature in signatures:
        verifier = known.get((name, key_id))
        if verifier is None:
            continue
        if not verifier.verifies(text.encode(), signature):
            raise TamperedError(f"the signature by {name} is wrong", where="signed note")
        verified = True
    if not verified:
        raise TamperedError("the note is not signed by a known key", where="signed note")
    return text


def split_note(note: bytes | str) -> tuple[str, list[Signature]]:
    """Return the **unverified** text of *note* and its signature lines.

    Raises:
        TamperedError: malformed.
    """
    try:
        whole = note if isinstance(note, str) else note.decode()
        size = len(whole.encode())
    except UnicodeError:
        raise _malformed("is not UTF-8") from None
    if size > MAX_NOTE:
        raise _malformed(f"is longer than {MAX_NOTE} bytes")
    if any(letter < " " and letter != "\n" for letter in whole):
        raise _malformed("has control characters")
    text, gap, tail = whole.rpartition("\n\n")
    if not gap:
        raise _malformed("has no signature lines")
    return text + "\n", split_lines(tail)


def split_lines(lines: str) -> list[Signature]:
    """Return the signatures in one or more signature lines, **unverified**.

    Raises:
        TamperedError: malformed.
    """
    if not lines.endswith("\n"):
        raise _malformed("has no signature lines")
    return [_parse_line(line) for line in lines[:-1].split("\n")]


def signature_line(signature: Signature) -> str:
    """Return the line of *signature*, as it stands in a note."""
    return f"{_DASH}{signature.name} {_encode(signature.key_id + signature.signature)}\n"


def is_name(name: str) -> bool:
    """Tell whether *name* can be the name of a key."""
    return (
        bool(name)
        and "+" not in name
        and not any(c.isspace() or c < " " for c in name)
        and (name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name))
    )


def decode_base64(text: str) -> bytes | None:
    """Return what *text* encodes, or None if it is not the one canonical spelling."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _encode(data) == text else None


def _parse_line(line: str) -> Signature:
    name, space, rest = line.removeprefix(_DASH).partition(" ")
    data = decode_base64(rest)
    if not line.startswith(_DASH) or not space or not is_name(name) or not data or len(data) < 5:
        raise _malformed("has a signature line that cannot be read")
    return Signature(name, data[:4], data[4:])


def split_key(text: str) -> KeyText | None:
    """Return the parts of a key text of any type, or None if it is not in its one spelling.

    A private key text comes here without its first words.
    """
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    data = decode_base64(encoded)
    plain_id = len(key_id) == 8 and set(key_id) <= set("0123456789abcdef")
    if not is_name(name) or not plain_id or not data:
        return None
    return KeyText(name, bytes.fromhex(key_id), data[0], data[1:])


def key_text(name: str, kind: int, public: bytes, secret: bytes | None = None) -> str:
    """Return the text of a key.

    Args:
        name: the key's name.
        kind: the signature type.
        public: the public key, from which the id is made.
        secret: what the text holds instead of it, behind the same id.
    """
    key_id = sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]
    return f"{name}+{key_id.hex()}+{_encode(bytes([kind]) + (secret or public))}"


def _parse_key(text: str, kind: str) -> tuple[str, bytes, bytes]:
    key = split_key(text)
    if key is None or key.kind != ED25519 or len(key.material) != 32:
        raise ConfigurationError(f"this is not an Ed25519 {kind} key text (name+id+key)")
    return key.name, key.key_id, key.material


def _sign_line(message: bytes, signer: Signer) -> str:
    signature, size = signer.sign(message), _signature_size(signer.vkey)
    if len(signature) != size:
        raise LogError(f"the signer {signer.name} gave {len(signature)} bytes instead of {size}")
    return signature_line(Signature(signer.name, _id_of_vkey(signer), signature))


@lru_cache(64)  # of public keys alone: a cache is no place for a private one
def _signature_size(vkey: str) -> int:
    key = split_key(vkey)
    return 0 if key is None else _SIGNATURE_SIZES.get(key.kind, 0)


def _id_of_vkey(signer: Signer) -> bytes:
    start = len(signer.name) + 1
    return bytes.fromhex(signer.vkey[start : start + 8])


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _malformed(how: str) -> TamperedError:
    return TamperedError(f"the signed note {how}", where="signed note")
