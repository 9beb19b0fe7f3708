r"""Where the private keys of logs live: with the user, never with the log.

::

    <data>/keys/<id>.skey     the private key text, mode 0600
    <data>/keys/<id>.vkey     the public key text
    <data>/heads/<id>         the last head that was signed, see `checkrein.log.pins`
    <data>/subjects/<id>/     keys of subjects, see `checkrein.log.subjects`
    <id>                      the first 32 hex digits of SHA-256(origin)

``<data>`` is ``$CHECKREIN_DATA``, else ``~/Library/Application Support/checkrein``
on macOS, ``%LOCALAPPDATA%\checkrein`` on Windows, and elsewhere
``$XDG_DATA_HOME/checkrein`` or ``~/.local/share/checkrein``. Directories that are
created have mode 0700. A key is created once and never overwritten: a second
key, or a second log under one key, could tell two stories under one name.

Whoever can write a log and read its key can write another past; so the key
never lies in the log's directory, and better on another account or machine.
"""

from __future__ import annotations

import os
import stat
import sys
from hashlib import sha256
from pathlib import Path

from checkrein.errors import ConfigurationError
from checkrein.log.cosignature import ED25519, CosigningKey
from checkrein.log.disk import Disk, as_log_error
from checkrein.log.note import Ed25519Signer, parse_vkey


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


def new_key(origin: str, path: Path | None = None) -> Ed25519Signer:
    """Create the key of a new log.

    Args:
        origin: the log's name.
        path: where to put it, if not in the user's data directory.

    Raises:
        ConfigurationError: *origin* is no name, or there is a key already.
        LogError: the file cannot be written.
    """
    signer = Ed25519Signer.generate(origin)
    path = path or key_path(origin)
    _create_pair(path, signer.private_text(), signer.vkey)
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


def load_signer(path: str | os.PathLike[str]) -> Ed25519Signer:
    """Read a private key file.

    Raises:
        ConfigurationError: it is missing, no key, or others may read it.
    """
    path = Path(path)
    return Ed25519Signer.from_text(_read_secret(path), path)


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
