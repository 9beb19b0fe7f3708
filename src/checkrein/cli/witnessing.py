"""``log witness``, ``log cosign`` and ``keys witness``: being a witness, and asking them."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from checkrein.cli.screen import Screen
from checkrein.errors import ConfigurationError
from checkrein.log.cosignature import ED25519, ML_DSA_44
from checkrein.log.keys import load_cosigning_key, new_cosigning_key
from checkrein.log.policy import Policy, parse_policy
from checkrein.visible import visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_LISTEN: Final = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]{1,5})", re.ASCII)


def serve(keys: Sequence[Path], logs: Path, state: Path, listen: str) -> int:
    """Be a witness until interrupted.

    Args:
        keys: the files of its private keys.
        logs: a policy, whose ``log`` lines say which logs it knows.
        state: the directory of what it has cosigned.
        listen: host and port.

    Returns:
        The exit code.

    Raises:
        ConfigurationError: a key or the policy cannot be used, or it cannot listen there.
        LogError: the directory cannot be used.
    """
    from checkrein.log.witnessing import CosigningWitness, WitnessServer  # noqa: PLC0415 (a server)

    host, port = _host_and_port(listen)
    witness = CosigningWitness([load_cosigning_key(one) for one in keys], read_policy(logs), state)
    server = WitnessServer(witness, host, port)
    screen = Screen()
    for key in witness.vkeys:
        screen.say(f"witness {visible(key)}")
    bracketed = f"[{host}]" if ":" in host else host
    screen.say(f"listening on http://{visible(bracketed)}:{server.server_port}")
    screen.file.flush()
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


def ask(directory: Path, policy: Path) -> int:
    """Have the published head of a log cosigned, and print by whom.

    Args:
        directory: the log's directory.
        policy: the log's key, its witnesses with their URLs, and what is a quorum.

    Returns:
        The exit code.

    Raises:
        CheckreinError: there is no quorum, or something is wrong; see `checkrein.log.witness`.
    """
    from checkrein.log.witness import cosign  # noqa: PLC0415 (needs the network)

    trusted = read_policy(policy)
    found = trusted.check(cosign(directory, trusted))
    head = found.checkpoint
    rows = [("log", f"{visible(head.origin)}, {head.size} entries")]
    rows += [("cosigned", f"{_moment(one.time)}  {visible(one.witness)}") for one in found.seen]
    Screen().table([*rows, ("kept", visible(str(directory / ".state" / "witnessed")))])
    return 0


def new_key(name: str, out: Path, *, ml_dsa: bool) -> None:
    """Make the key pair of a witness, and print the public half.

    Raises:
        ConfigurationError: there is one already, or *name* is no name.
    """
    key = new_cosigning_key(name, out, ML_DSA_44 if ml_dsa else ED25519)
    Screen().table(
        [
            ("public key", key.vkey),
            ("", f"also in {visible(str(out.with_suffix('.vkey')))}"),
            ("private key", f"in {visible(str(out))}, which only you can read"),
            ("", "for this witness alone: no log, and no other witness, may sign with it"),
        ]
    )


def read_policy(path: Path) -> Policy:
    """Read the policy in the file *path*.

    Raises:
        ConfigurationError: it cannot be read, or breaks a rule.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read") from error
    return parse_policy(data)


def _host_and_port(listen: str) -> tuple[str, int]:
    found = _LISTEN.fullmatch(listen)
    if found is None:
        raise ConfigurationError("--listen takes HOST:PORT, 127.0.0.1:8474 for example")
    return found[1] or found[2], int(found[3])


def _moment(stamp: int) -> str:
    try:
        return datetime.fromtimestamp(stamp, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(stamp)
