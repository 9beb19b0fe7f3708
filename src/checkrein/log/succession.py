r"""The keys that a log has had, one after the other: entries that a verifier follows.

::

    log.key           old, new: verifier keys of one name; size: how many entries come before;
                      by_old, by_new: base64 of a signature by each over
                          "checkrein/log.key/v1\n" origin "\n" size "\n" old "\n" new "\n"
    log.key.revoked   key: a former key; reason; by: base64 of a signature by the key now in
                      force over "checkrein/log.key.revoked/v1\n" origin "\n" size "\n" key "\n"

The rules:

1. Whoever trusts a key trusts the one that it has handed over to: ``by_old`` is its word,
   ``by_new`` shows that somebody has the new key. The texts hold the log's name and the
   place, so an entry of another log, or from another place, is none.
2. A key hands over once. After that it signs no head by itself: one that covers more than
   the entry, and that its successor has not signed, is refused.
3. A revoked key vouches for nothing any more, not even for its successor: who has only that
   key is told to get the new one from its owner.

Who stole a key can hand it over to another one, and tell a rival story: from the key alone nobody
can tell which is true. So a revocation helps those who have the new key, and those who see,
by a pin or by witnesses, which story came first.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from checkrein.errors import ConfigurationError, TamperedError
from checkrein.log.note import Verifier, decode_base64, parse_vkey, split_note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from checkrein.log.note import Signer

HANDED_OVER: Final = "log.key"
REVOKED: Final = "log.key.revoked"


def handed_over(origin: str, size: int, old: Signer, new: Signer) -> dict[str, Any]:
    """Return the fields of the entry by which *old* hands over to *new*.

    Raises:
        ConfigurationError: they are not two keys of this log.
    """
    if not old.name == new.name == origin or old.vkey == new.vkey:
        raise ConfigurationError(f"a log changes from one key of {origin} to another one of it")
    message = _handing_over(origin, size, old.vkey, new.vkey)
    return {
        "old": old.vkey,
        "new": new.vkey,
        "size": size,
        "by_old": base64.b64encode(old.sign(message)).decode(),
        "by_new": base64.b64encode(new.sign(message)).decode(),
    }


def revoked(origin: str, size: int, key: str, reason: str, by: Signer) -> dict[str, Any]:
    """Return the fields of the entry by which the key in force revokes a former one.

    Raises:
        ConfigurationError: *key* is no key of this log, or is the one in force.
    """
    if parse_vkey(key).name != origin or key == by.vkey:
        raise ConfigurationError("a log revokes a former key of its own, not the one in force")
    signature = by.sign(_revoking(origin, size, key))
    return {
        "key": key,
        "size": size,
        "reason": reason,
        "by": base64.b64encode(signature).decode(),
    }


@dataclass(slots=True)
class Succession:
    """What a verifier knows of a log's keys.

    Attributes:
        origin: the log's name.
        trusted: the key that the verifier has.
        line: the keys from that one on, and at which size each was handed over to the next.
        problem: why they cannot be trusted, "" if they can.
    """

    origin: str
    trusted: Verifier
    line: list[tuple[Verifier, int]] = field(default_factory=list[tuple[Verifier, int]])
    problem: str = ""

    @property
    def current(self) -> Verifier:
        """The key in force."""
        return self.line[-1][0] if self.line else self.trusted

    @property
    def keys(self) -> list[Verifier]:
        """All keys from the trusted one on."""
        return [self.trusted, *(key for key, _ in self.line)]

    def follow(self, events: Iterable[tuple[int, dict[str, Any]]]) -> None:
        """Take in the entries about keys, each with its index, in order."""
        for index, event in events:
            if event.get("type") == HANDED_OVER:
                self._hand_over(index, event)
            elif event.get("type") == REVOKED:
                self._revoke(index, event)

    def may_sign(self, signers: Iterable[Verifier], size: int) -> str:
        """Return why a head over *size* entries that *signers* have signed does not count."""
        if self.problem:
            return self.problem
        signed = {one.vkey for one in signers}
        owed = self.trusted
        for key, handed in self.line:
            if size > handed:
                owed = key
        if owed.vkey in signed:
            return ""
        return f"a head over {size} entries is not signed by the key that was in force"

    def _hand_over(self, index: int, event: dict[str, Any]) -> None:
        old, new = event.get("old"), event.get("new")
        if old != self.current.vkey:  # of a key before ours, or of nobody's
            return
        try:
            heir = parse_vkey(new) if type(new) is str else None
        except ConfigurationError:
            heir = None
        if heir is None or heir.name != self.origin or event.get("size") != index:
            self.problem = f"entry {index} hands the log over to no key of it"
            return
        message = _handing_over(self.origin, index, str(old), heir.vkey)
        if not _is_by(self.current, message, event.get("by_old")):
            return  # anybody can write that
        if not _is_by(heir, message, event.get("by_new")):
            self.problem = f"entry {index} hands the log over to a key that nobody shows to have"
            return
        self.line.append((heir, index))

    def _revoke(self, index: int, event: dict[str, Any]) -> None:
        key = event.get("key")
        if type(key) is not str or event.get("size") != index:
            return
        if _is_by(self.current, _revoking(self.origin, index, key), event.get("by")):
            if key == self.trusted.vkey:
                self.problem = (
                    "the given key was revoked; get the one that is in force from the log's owner"
                )
            elif any(key == one.vkey for one, _ in self.line):
                self.problem = "a key on the way from the given one was revoked"


def key_ids(note: bytes | str, origin: str) -> list[bytes]:
    """Return the ids of the keys of a log that have signed *note*, **unverified**, in order.

    A head that two of them have signed is the one at which the first hands over to the second.

    Raises:
        TamperedError: malformed.
    """
    lines = split_note(note)[1]
    return [one.key_id for one in lines if one.name == origin and len(one.signature) == 64]


def opened_by(note: bytes | str, keys: Iterable[Verifier]) -> list[Verifier]:
    """Return which of *keys* have signed *note*.

    Raises:
        TamperedError: malformed, or a signature by one of them is wrong.
    """
    text, signatures = split_note(note)
    named = {(one.name, one.key_id): one.signature for one in signatures}
    found: list[Verifier] = []
    for key in keys:
        signature = named.get((key.name, key.key_id))
        if signature is None:
            continue
        if not key.verifies(text.encode(), signature):
            raise TamperedError(f"the signature by {key.name} is wrong", where="signed note")
        found.append(key)
    return found


def _handing_over(origin: str, size: int, old: str, new: str) -> bytes:
    return f"checkrein/log.key/v1\n{origin}\n{size}\n{old}\n{new}\n".encode()


def _revoking(origin: str, size: int, key: str) -> bytes:
    return f"checkrein/log.key.revoked/v1\n{origin}\n{size}\n{key}\n".encode()


def _is_by(key: Verifier, message: bytes, signature: object) -> bool:
    raw = decode_base64(signature) if type(signature) is str else None
    return raw is not None and key.verifies(message, raw)
