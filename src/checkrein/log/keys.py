r"""Where the private keys of logs live: with the user, never with the log.

::

    <data>/keys/<id>.skey     the private key text, mode 0600
    <data>/keys/<id>.vkey     the public key text
    <data>/keys/<id>-next.*   the key that the log is about to change to
    <data>/keys/<id>.*.skey   a former key
    <data>/heads/<id>         the last head that was signed, see `checkrein.log.pins`
    <data>/subjects/<id>/     keys of subjects, see `checkrein.log.subjects`
    <id>                      the first 32 hex digits of SHA-256(origin)

``<data>`` is ``$CHECKREIN_DATA``, else ``~/Library/Application Support/checkrein``
on macOS, ``%LOCALAPPDATA%\checkrein`` on Windows, and elsewhere
``$XDG_DATA_HOME/checkrein`` or ``~/.local/share/checkrein``. Directories that are
created have mode 0700. A key is created once and never overwritten: a second
key, or a second log under one key, could tell two stories under one name.

A private key text may be encrypted with a passphrase (Scrypt, RFC 7914, with n 2**17, r 8,
p 1; AES-256-GCM, the name as additional data)::

    ENCRYPTED+KEY+<name>+<base64 of  salt[16]  nonce[12]  sealed private key text>

Whoever can write a log and read its key can write another past; so the key
never lies in the log's directory, and better on another account or machine.
"""

from __future__ import annotations

import base64
import os
import stat
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from checkrein.errors import ConfigurationError, TamperedError
from checkrein.log.cosignature import ED25519, CosigningKey
from checkrein.log.disk import Disk, as_log_error
from checkrein.log.note import Ed25519Signer, decode_base64, open_note, parse_vkey

ENCRYPTED: Final = "ENCRYPTED+KEY+"


def key_path(origin: str) -> Path:
    """Return the place of the private key for the log *origin*."""
    return _data_directory() / "keys" / f"{_id(origin)}.skey"


def head_path(origin: str) -> Path:
    """Return the place of the last head that this user's writers of *origin* signed."""
    return _data_directory() / "heads" / _id(origin)


def subjects_directory(origin: str) -> Path:
    """Return the place of the keys of the log's subjects; see `checkrein.log.subjects`."""
    return _data_directory() / "subjects" / _id(origin)


def subject_path(origin: str, subject: str) -> Path:
    """Return the place of the key of one subject of a log."""
    return subjects_directory(origin) / _id(subject)


def new_key(origin: str, path: Path | None = None, passphrase: str | None = None) -> Ed25519Signer:
    """Create the key of a new log.

    Args:
        origin: the log's name.
        path: where to put it, if not in the user's data directory.
        passphrase: encrypts the private key; it is never on the disk without.

    Raises:
        ConfigurationError: *origin* is no name, or there is a key already.
        LogError: the file cannot be written.
    """
    signer = Ed25519Signer.generate(origin)
    path = path or key_path(origin)
    text = signer.private_text()
    _create_pair(path, text if passphrase is None else encrypted(text, passphrase), signer.vkey)
    return Ed25519Signer.from_text(signer.private_text(), path)


def new_cosigning_key(name: str, path: Path, kind: int = ED25519) -> CosigningKey:
    """Create the key of a witness, or the second key of a log.

    Args:
        name: the witness's name; for a log's second key, of kind ML-DSA-44, its origin.
        path: where to put it; ends in ``.skey``. The public key is put beside it.
        kind: a type of `checkrein.log.cosignature`.

    Raises:
        ConfigurationError: *name* is no name, or there is a key already.
        LogError: the file cannot be written.
    """
    key = CosigningKey.generate(name, kind)
    _create_pair(path, key.private_text(), key.vkey)
    return CosigningKey.from_text(key.private_text(), path)


def load_signer(path: str | os.PathLike[str], *, passphrase: str | None = None) -> Ed25519Signer:
    """Read a private key file.

    Args:
        path: the file.
        passphrase: of an encrypted key; without it, what is in the file that the environment
            variable ``CHECKREIN_PASSPHRASE_FILE`` names.

    Raises:
        ConfigurationError: it is missing, no key, others may read it, or the passphrase is wrong.
    """
    path = Path(path)
    text = _read_secret(path)
    if text.startswith(ENCRYPTED):
        if passphrase is None:
            passphrase = passphrase_given()
        if passphrase is None:
            raise ConfigurationError(
                f"the private key {path} is encrypted: pass passphrase=, or name a file that "
                "holds the passphrase in CHECKREIN_PASSPHRASE_FILE"
            )
        text = decrypted(text, passphrase)
    return Ed25519Signer.from_text(text, path)


def passphrase_given() -> str | None:
    """Return the passphrase in the file that ``CHECKREIN_PASSPHRASE_FILE`` names, if it does.

    Raises:
        ConfigurationError: it cannot be read, is empty, or others may read it.
    """
    name = os.environ.get("CHECKREIN_PASSPHRASE_FILE")
    if not name:
        return None
    found = _read_secret(Path(name))
    if not found:
        raise ConfigurationError(f"the passphrase file {name} is empty")
    return found


def encrypted(text: str, passphrase: str) -> str:
    """Return a private key text, encrypted.

    Raises:
        ConfigurationError: it is no private key text, or the passphrase is empty.
    """
    if not passphrase:
        raise ConfigurationError("a passphrase is not empty")
    name = Ed25519Signer.from_text(text).name
    salt, nonce = os.urandom(16), os.urandom(12)
    sealed = _passphrase_cipher(passphrase, salt).encrypt(nonce, text.encode(), name.encode())
    return f"{ENCRYPTED}{name}+{base64.b64encode(salt + nonce + sealed).decode()}"


def decrypted(text: str, passphrase: str) -> str:
    """Return the private key text in an encrypted one.

    Raises:
        ConfigurationError: the passphrase is wrong, or the text was changed; nobody can tell which.
    """
    from cryptography.exceptions import InvalidTag  # noqa: PLC0415 (the cipher loads it)

    name, gap, rest = text.removeprefix(ENCRYPTED).partition("+")
    data = decode_base64(rest) or b""
    if not text.startswith(ENCRYPTED) or not gap or len(data) < 44:
        raise ConfigurationError("this is no encrypted private key")
    cipher = _passphrase_cipher(passphrase, data[:16])
    try:
        return bytes(cipher.decrypt(data[16:28], data[28:], name.encode())).decode()
    except InvalidTag:
        raise ConfigurationError(
            "the passphrase is wrong, or the encrypted key was changed"
        ) from None


def encrypt_file(path: Path, passphrase: str) -> None:
    """Encrypt a private key file in its place.

    Raises:
        ConfigurationError: it is no key, or is encrypted already.
        LogError: it cannot be written.
    """
    text = _read_secret(path)
    if text.startswith(ENCRYPTED):
        raise ConfigurationError(f"the private key {path} is encrypted already")
    sealed = encrypted(text, passphrase)
    with as_log_error(f"encrypting {path}"):
        Disk().write_files({path: f"{sealed}\n".encode()})


def _passphrase_cipher(passphrase: str, salt: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 (heavy)
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt  # noqa: PLC0415

    raw = passphrase.encode("utf-8", "surrogatepass")
    return AESGCM(Scrypt(salt, length=32, n=1 << 17, r=8, p=1).derive(raw))


def load_cosigning_key(path: str | os.PathLike[str]) -> CosigningKey:
    """Read the private key file of a witness, or of a log's second key.

    Raises:
        ConfigurationError: it is missing, no such key, or others may read it.
    """
    path = Path(path)
    return CosigningKey.from_text(_read_secret(path), path)


def default_signer_for(origin: str, *, create: bool) -> Ed25519Signer:
    """Return the signer whose key is in the user's data directory.

    Args:
        origin: the log's name.
        create: make the key; otherwise it must be there.

    Raises:
        ConfigurationError: the key is missing, or with *create* there already.
    """
    if create:
        return new_key(origin)
    path = key_path(origin)
    if not path.exists():
        raise ConfigurationError(
            f"the private key of the log {origin} is not at {path}; "
            "pass signer=load_signer(<its key file>), or start a new log elsewhere"
        )
    signer = load_signer(path)
    if signer.name != origin:
        raise ConfigurationError(f"{path} is the key of {signer.name}, not of {origin}")
    return signer


def next_key(origin: str) -> Ed25519Signer:
    """Return the key that the log *origin* is to change to: made now, or before a crash.

    Raises:
        ConfigurationError: it is there and cannot be used.
        LogError: it cannot be written.
    """
    path = _next_path(origin)
    return load_signer(path) if path.exists() else new_key(origin, path)


def finish_change(origin: str, note: str | bytes) -> None:
    """Put the next key in the place of the one before, if it is the one in force now.

    Args:
        origin: the log's name.
        note: the latest head of the log.

    Raises:
        ConfigurationError: a key is there and cannot be used.
        LogError: the files cannot be moved; the same call may be made again.
    """
    new, current = _next_path(origin), key_path(origin)
    if not new.exists():
        return
    vkey = load_signer(new).vkey
    try:
        open_note(note, [parse_vkey(vkey)])
    except TamperedError:
        return  # it has signed nothing yet
    with as_log_error(f"putting the new key of {origin} in its place"):
        if current.exists() and (before := load_signer(current)).vkey != vkey:
            number = parse_vkey(before.vkey).key_id.hex()
            current.rename(current.with_suffix(f".{number}.skey"))
        for ending in (".vkey", ".skey"):
            if new.with_suffix(ending).exists():
                new.with_suffix(ending).rename(current.with_suffix(ending))
        Disk().sync_directory(current.parent)


def _next_path(origin: str) -> Path:
    path = key_path(origin)
    return path.with_name(f"{path.stem}-next.skey")


def known_verifier(origin: str) -> str | None:
    """Return the public key text that the user's data directory has for *origin*.

    Raises:
        ConfigurationError: the file is there and holds no key for *origin*.
    """
    path = key_path(origin).with_suffix(".vkey")
    try:
        text = path.read_text(encoding="utf-8").removesuffix("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"the public key {path} cannot be read") from error
    if parse_vkey(text).name != origin:
        raise ConfigurationError(f"{path} is not the key of {origin}")
    return text


def refuse_inside(path: Path, directory: Path, what: str = "the private key") -> None:
    """Refuse a key, or whatever *what* is, that lies in the log's own directory.

    Raises:
        ConfigurationError: it does.
    """
    if path.resolve().is_relative_to(directory.resolve()):
        raise ConfigurationError(
            f"{what} {path} lies in the log's directory {directory}: whoever changes "
            "the log could sign the change. Keep it elsewhere (CHECKREIN_DATA, or signer=)"
        )


def _id(origin: str) -> str:
    return sha256(origin.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _create_pair(path: Path, private: str, public: str) -> None:
    """Write both halves of a new key, the private one at *path*, and overwrite nothing."""
    beside = path.with_suffix(".vkey")
    if beside == path:
        raise ConfigurationError(
            f"{path} is the name of a public key; give the private one another, "
            f"{path.with_suffix('.skey').name} for example"
        )
    with as_log_error(f"creating the key {path}"):
        Disk().make_directory(path.parent)
        try:
            # The private key first: a public one alone would stand for nobody.
            _create(path, private)
            _create(beside, public)
        except FileExistsError as error:
            if error.filename == str(beside):
                path.unlink()
            name = public.partition("+")[0]
            raise ConfigurationError(
                f"there is a key for {name} already: a log of that name exists, or existed. Choose "
                f"another origin; if nothing was ever signed with it, remove {error.filename}"
            ) from None


def _read_secret(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"the private key {path} cannot be read") from error
    if sys.platform != "win32" and stat.S_IMODE(mode) & 0o077:
        raise ConfigurationError(
            f"others than its owner may use the private key {path}; mend it with: chmod 600 {path}"
        )
    return text.removesuffix("\n")


def _create(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(fd)


def _data_directory() -> Path:
    chosen = os.environ.get("CHECKREIN_DATA")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "checkrein"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/checkrein"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "checkrein"
