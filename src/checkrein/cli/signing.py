"""``log signer``, and passphrases: typed twice at a terminal, or in a file, never an argument."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING

from checkrein.cli.logs import require_log
from checkrein.cli.screen import Screen
from checkrein.errors import ConfigurationError
from checkrein.log import AuditLog
from checkrein.log.keys import ENCRYPTED, load_signer, passphrase_given
from checkrein.log.signing import Memory, SignerServer
from checkrein.visible import visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def serve(key: Path, socket: Path, state: Path, allowed: Sequence[int]) -> int:
    """Serve a signer until interrupted.

    Args:
        key: the private key file.
        socket: where to listen.
        state: where it remembers.
        allowed: the users who may ask; none for its own.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: key, state or socket cannot be used.
    """
    signer = load_signer(key, passphrase=ask_for(key))
    server = SignerServer(Memory(signer, state), socket, allowed=set(allowed) or None)
    screen = Screen()
    screen.say(f"signing for {visible(signer.name)} on {visible(str(socket))}")
    screen.file.flush()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
    return 0


def ask_for(path: Path) -> str | None:
    """Return the passphrase of an encrypted key file, typed at the terminal if there is one."""
    given = passphrase_given()
    if given is not None or not sys.stdin.isatty():
        return given
    try:
        locked = path.read_text(encoding="utf-8").startswith(ENCRYPTED)
    except (OSError, UnicodeError):
        return None
    return getpass.getpass("passphrase: ") if locked else None


def new_passphrase() -> str:
    """Return a new passphrase, typed twice, or the one in the file of the environment.

    Raises:
        ConfigurationError: there is no terminal and no file; or the two are not the same.
    """
    given = passphrase_given()
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "nobody can type a passphrase here; put it into a file that only you can read, and "
            "name that in CHECKREIN_PASSPHRASE_FILE"
        )
    first = getpass.getpass("new passphrase: ")
    if not first or getpass.getpass("again: ") != first:
        raise ConfigurationError("the passphrases are empty, or not the same")
    return first


def rotate(directory: Path) -> None:
    """Hand a log over to a new key, and print that.

    Raises:
        ConfigurationError: there is no log, or its key is not in the user's data directory.
        LogError: that failed.
    """
    require_log(directory)
    with AuditLog.open(directory) as log:
        before, after = log.vkey, log.rotate()
    Screen().table(
        [
            ("old key", visible(before)),
            ("new key", visible(after)),
            ("", "make it known; whoever has the old one gets to it by the log"),
            ("", "give it to the witnesses of the log, too"),
        ]
    )


def revoke(directory: Path, key: str, reason: str) -> None:
    """Write into a log that a former key vouches for nothing.

    Raises:
        ConfigurationError: there is no log, no such key, or no reason.
        LogError: the entry is not in the log.
    """
    if not key or not reason:
        raise ConfigurationError("say which key and why: --key VKEY --reason TEXT")
    require_log(directory)
    with AuditLog.open(directory) as log:
        position = log.revoke(key, reason)
    Screen().say(f"written as entry {position.index}")
