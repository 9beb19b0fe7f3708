r"""Cosignatures (C2SP tlog-cosignature v1): who else has seen a head of a log, and when.

A cosignature is a signature line of a checkpoint's note. In it stands::

    u64be time || signature      time: POSIX seconds, at most 2**63 - 1

    type   algorithm     public key   signature   message
    0x04   Ed25519       32           64          "cosignature/v1\ntime " decimal "\n" text
    0x06   ML-DSA-44     1312         2420        "subtree/v1\n\0"
                                                  || u8 length || cosigner's name || u64be time
                                                  || u8 length || origin || u64be 0 || u64be size
                                                  || root[32]

``text`` is the checkpoint with its last "\n". The context of ML-DSA is empty, and names
and origins have at most 255 bytes. Keys are written as in `checkrein.log.note`; the
material of either private key is its seed of 32 bytes.

A cosigner states that, as of that time, this is the largest tree of the log that it
has seen, and that it extends all that it cosigned before. Time 0 states no time; as a
witness's cosignature that counts for nothing.

The Ed25519 message holds no name: whoever cosigns in two roles needs two such keys,
and none of them may sign as a log (type 0x01). A log may sign its heads with ML-DSA-44
under its own name as well, beside its Ed25519 key::

    add_signatures(note, Ed25519-signed before, CosigningKey.generate(origin, ML_DSA_44))

ML-DSA-44 needs a `cryptography` that has it, 50 or later; the rest does not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from checkrein.errors import ConfigurationError, MisuseError, TamperedError
from checkrein.log import note
from checkrein.log.checkpoint import Checkpoint, parse_checkpoint
from checkrein.log.note import PRIVATE, key_text, split_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

ED25519: Final = 0x04
ML_DSA_44: Final = 0x06
MAX_TIME: Final = (1 << 63) - 1
_PUBLIC_SIZES: Final = {note.ED25519: 32, ED25519: 32, ML_DSA_44: 1312}
_LONGEST_NAME: Final = 255
_TYPES: Final = {
    note.ED25519: "Ed25519 signatures of notes",
    0x02: "ECDSA signatures",
    ED25519: "Ed25519 cosignatures",
    0x05: "RFC 6962 tree heads",
    ML_DSA_44: "ML-DSA-44 cosignatures",
    0xFF: "a type without a number",
}


class _PublicKey(Protocol):
    def verify(self, signature: bytes, data: bytes, /) -> None: ...


class _PrivateKey(Protocol):
    def sign(self, data: bytes, /) -> bytes: ...

    def public_key(self) -> Ed25519PublicKey | MLDSA44PublicKey: ...


@dataclass(frozen=True, slots=True)
class Cosigner:
    """The public key of a cosigner, with its name.

    Attributes:
        name: the key's name, which stands in its signature lines.
        key_id: the key's id, which stands there too.
        vkey: the verifier key text.
        kind: `ED25519` or `ML_DSA_44`.
        public: the bytes of the public key.
    """

    name: str
    key_id: bytes
    vkey: str
    kind: int
    public: bytes = field(repr=False)
    _key: _PublicKey = field(repr=False, compare=False)

    def time_of(self, message: bytes, signature: bytes) -> int | None:
        """Return the time at which this key cosigned, or None if it did not.

        Args:
            message: the text of a checkpoint.
            signature: what a signature line holds behind the key's id.
        """
        stamp = int.from_bytes(signature[:8], "big")
        if len(signature) < 8 or stamp > MAX_TIME:
            return None
        try:
            self._key.verify(signature[8:], _statement(self.kind, self.name, stamp, message))
        except (InvalidSignature, TamperedError):
            return None
        return stamp

    def verifies(self, message: bytes, signature: bytes) -> bool:
        """Tell whether *signature* is this key's cosignature of the checkpoint *message*."""
        return self.time_of(message, signature) is not None


class CosigningKey:
    """A cosigner's private key, held in this process; a `Signer` of checkpoints.

    Args:
        name: the key's name, a URL without scheme.
        seed: the 32 secret bytes.
        kind: `ED25519` or `ML_DSA_44`.
        path: the file it was read from, if any.
        clock: gives POSIX seconds.

    Raises:
        ConfigurationError: *name* is no name, or the installed cryptography lacks ML-DSA-44.

    Example:
        >>> key = CosigningKey.generate("witness.example/one")
        >>> CosigningKey.from_text(key.private_text()).vkey == key.vkey
        True
    """

    __slots__ = ("_clock", "_key", "_seed", "cosigner", "name", "path", "vkey")

    def __init__(
        self,
        name: str,
        seed: bytes,
        kind: int = ED25519,
        *,
        path: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not note.is_name(name):
            raise ConfigurationError("a key name is not empty and has neither spaces nor '+'")
        self._key: _PrivateKey = _private_key(kind, seed)
        self._seed, self._clock = seed, clock
        self.name, self.path = name, path
        self.vkey = key_text(name, kind, self._key.public_key().public_bytes_raw())
        self.cosigner = parse_cosigner(self.vkey)

    @classmethod
    def generate(cls, name: str, kind: int = ED25519) -> CosigningKey:
        """Return a new random key."""
        seed = Ed25519PrivateKey.generate().private_bytes_raw()  # 32 random bytes are either's seed
        return cls(name, seed, kind)

    @classmethod
    def from_text(cls, text: str, path: Path | None = None) -> CosigningKey:
        """Read a private key text.

        Raises:
            ConfigurationError: the text is not the private key of a cosigner.
        """
        found = split_key(text.removeprefix(PRIVATE))
        if not text.startswith(PRIVATE) or found is None or len(found.material) != 32:
            raise ConfigurationError("this is not a private key text (PRIVATE+KEY+name+id+key)")
        _require(found.kind, (ED25519, ML_DSA_44), "a cosigner")
        key = cls(found.name, found.material, found.kind, path=path)
        if key.cosigner.key_id != found.key_id:
            raise ConfigurationError("the id in the private key is not the one of its key")
        return key

    def sign(self, message: bytes) -> bytes:
        """Cosign the checkpoint *message* as of now; see `sign_at`."""
        return self.sign_at(message, int(self._clock()))

    def sign_at(self, message: bytes, stamp: int) -> bytes:
        """Return time and signature, as they stand behind the key's id.

        Args:
            message: the text of a checkpoint. That it extends all that this key has cosigned
                before is for the caller to know.
            stamp: POSIX seconds.

        Raises:
            TamperedError: *message* is no checkpoint, or its origin is too long for ML-DSA-44.
            MisuseError: *stamp* is no such time.
        """
        if not 0 <= stamp <= MAX_TIME:
            raise MisuseError("the time of a cosignature is from 0 to 2**63 - 1, in seconds")
        _head(message)  # no other text is ever signed with this key
        kind = self.cosigner.kind
        return stamp.to_bytes(8, "big") + self._key.sign(
            _statement(kind, self.name, stamp, message)
        )

    def private_text(self) -> str:
        """Return the secret key as text; whoever has it can cosign as this cosigner."""
        cosigner = self.cosigner
        return PRIVATE + key_text(self.name, cosigner.kind, cosigner.public, self._seed)

    def __repr__(self) -> str:
        return f"CosigningKey({self.vkey!r})"


def parse_cosigner(text: str) -> Cosigner:
    """Read the verifier key text of a cosigner, a witness for example.

    Raises:
        ConfigurationError: not a verifier key in its one spelling, or of another type.
    """
    name, kind, public, key_id = _parse_public(text, (ED25519, ML_DSA_44), "a cosigner")
    key = _public_key(kind, public)
    if kind == ML_DSA_44 and len(name.encode()) > _LONGEST_NAME:
        raise ConfigurationError("the name of an ML-DSA-44 key has at most 255 bytes")
    return Cosigner(name, key_id, text, kind, public, key)


def parse_log_key(text: str) -> note.Verifier | Cosigner:
    """Read the verifier key text of a log: type 0x01, or 0x06 under the log's own name.

    Raises:
        ConfigurationError: not a verifier key in its one spelling, or of another type.
    """
    kind = _parse_public(text, (note.ED25519, ML_DSA_44), "a log")[1]
    return note.parse_vkey(text) if kind == note.ED25519 else parse_cosigner(text)


def public_bytes(key: note.Verifier | Cosigner) -> bytes:
    """Return the public key without its name: what tells whether two keys are the same."""
    return key.public if isinstance(key, Cosigner) else key.key.public_bytes_raw()


def _statement(kind: int, name: str, stamp: int, message: bytes) -> bytes:
    """Return the bytes that are signed."""
    if kind == ED25519:
        return b"cosignature/v1\ntime %d\n" % stamp + message
    head = _head(message)
    if len(head.origin.encode()) > _LONGEST_NAME:
        raise TamperedError("the origin has more than 255 bytes", where="checkpoint")
    return b"".join(
        [
            b"subtree/v1\n\0",
            _short(name),
            stamp.to_bytes(8, "big"),
            _short(head.origin),
            bytes(8),
            head.size.to_bytes(8, "big"),
            head.root,
        ]
    )


def _head(message: bytes) -> Checkpoint:
    try:
        return parse_checkpoint(message.decode())
    except UnicodeError:
        raise TamperedError("the checkpoint is not UTF-8", where="checkpoint") from None


def _short(text: str) -> bytes:
    data = text.encode()
    return bytes([len(data)]) + data


def _parse_public(text: str, allowed: tuple[int, ...], whose: str) -> tuple[str, int, bytes, bytes]:
    found = split_key(text)
    if found is None:
        raise ConfigurationError("this is not a verifier key text (name+id+key)")
    name, key_id, kind, public = found
    _require(kind, allowed, whose)
    if len(public) != _PUBLIC_SIZES[kind]:
        size = _PUBLIC_SIZES[kind]
        raise ConfigurationError(f"a public key of type 0x{kind:02x} has {size} bytes")
    if text != key_text(name, kind, public):
        raise ConfigurationError("the id in the verifier key is not the one of its key")
    return name, kind, public, key_id


def _require(kind: int, allowed: tuple[int, ...], whose: str) -> None:
    if kind not in allowed:
        wanted = " or ".join(f"0x{one:02x} ({_TYPES[one]})" for one in allowed)
        got = f"0x{kind:02x} ({_TYPES.get(kind, 'unknown')})"
        raise ConfigurationError(f"the key of {whose} is of type {wanted}, not {got}")


def _public_key(kind: int, public: bytes) -> _PublicKey:
    if kind == ED25519:
        return Ed25519PublicKey.from_public_bytes(public)
    try:
        return _ml_dsa()[0].from_public_bytes(public)
    except (UnsupportedAlgorithm, ValueError) as error:
        raise _no_ml_dsa() from error


def _private_key(kind: int, seed: bytes) -> _PrivateKey:
    if len(seed) != 32:
        raise ConfigurationError("the seed of a private key has 32 bytes")
    if kind == ED25519:
        return Ed25519PrivateKey.from_private_bytes(seed)
    _require(kind, (ED25519, ML_DSA_44), "a cosigner")
    try:
        return _ml_dsa()[1].from_seed_bytes(seed)
    except UnsupportedAlgorithm as error:
        raise _no_ml_dsa() from error


def _ml_dsa() -> tuple[type[MLDSA44PublicKey], type[MLDSA44PrivateKey]]:
    try:
        from cryptography.hazmat.primitives.asymmetric import mldsa  # noqa: PLC0415 (may be missing)
    except ImportError as error:
        raise _no_ml_dsa() from error
    return mldsa.MLDSA44PublicKey, mldsa.MLDSA44PrivateKey


def _no_ml_dsa() -> ConfigurationError:
    return ConfigurationError(
        "this key is an ML-DSA-44 key (type 0x06), which the installed cryptography does not "
        "have; install cryptography>=50"
    )
