r"""Whom to believe about a log: a trust policy in the text form of C2SP tlog-policy.

::

    # comment
    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> all|any|<k> <name>...
    quorum <name>|none

Every line ends with "\n"; its items stand apart by spaces and tabs. Control characters
are refused, "\r" too. What is not ASCII is opaque: a name is the name of the same bytes
only. The rules, each of which is an error with the number of its line:

* A ``log`` has a key of type 0x01 or 0x06, whose name is the log's origin; a ``witness``
  one of type 0x04 or 0x06. No public key stands in two lines, under whatever names: who
  signs as two, or as log and as witness, would be counted twice.
* Witnesses and groups share their names; each is given once, and not ``none``.
* A line names only what was defined above it. A name is a member of one group at most.
  ``k`` is a plain decimal from 1 to the number of members.
* There is exactly one ``quorum``.

Stricter than tlog-policy: witnesses with one **key name** are one witness that has two
keys. They may be members of one ``any`` group together, and of nothing else, so that
they count once.

A policy is used when a log is verified. `Policy.check` tells of a signed head which
witnesses have cosigned it, when, and whether that is a quorum; ``checkpoint`` in the
answer is what a verifier of the whole log then holds the tree against. A verifier that
takes a policy would do so::

    found = policy.check(note, now=int(time.time()))       # instead of open_checkpoint
    if not found.holds: problem("freshness", found.shortfall)
    freshness = f"witnessed at {found.as_of}"              # not before: a quorum saw it last

What a policy cannot tell: whether the witnesses would collude, and whether there is a
larger head than this one. ``as_of`` bounds the second: a quorum saw none larger then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeVar

from checkrein.errors import ConfigurationError, TamperedError
from checkrein.log.checkpoint import Checkpoint, parse_checkpoint
from checkrein.log.cosignature import Cosigner, parse_cosigner, parse_log_key, public_bytes
from checkrein.log.note import Verifier, open_note, split_note

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

MAX_POLICY: Final = 1 << 20
AHEAD: Final = 300
"""How many seconds the clock of a witness may be ahead of ours."""
_NONE: Final = "none"
_Key = TypeVar("_Key", bound=Verifier | Cosigner)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True)
class KnownLog:
    """A log: its key, whose name is the origin, and perhaps where it is."""

    key: Verifier | Cosigner
    url: str = ""


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness: its name in this policy, its key, and perhaps where it is asked."""

    name: str
    key: Cosigner
    url: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Of *members*, witnesses or groups, *needed* must have witnessed a head."""

    name: str
    needed: int
    members: tuple[str, ...]


class Seen(NamedTuple):
    """A witness, by its name in the policy, and when it cosigned last."""

    witness: str
    time: int


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What a policy says of a signed head.

    Attributes:
        checkpoint: the head; a log of the policy has signed it.
        seen: which witnesses have cosigned it, and when: POSIX seconds.
        holds: whether that is a quorum.
        as_of: the latest time at which a quorum had cosigned at or after it; None if none
            has, or if none is asked for.
        shortfall: ``""`` if it holds, else what is missing, in a sentence.
    """

    checkpoint: Checkpoint
    seen: tuple[Seen, ...]
    holds: bool
    as_of: int | None
    shortfall: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A trust policy, as `parse_policy` has read it.

    Attributes:
        logs: the known logs.
        witnesses: the known witnesses.
        groups: the groups, each after its members.
        quorum: the name of a witness or group, or ``none``.
    """

    logs: tuple[KnownLog, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    def keys_of(self, origin: str) -> tuple[Verifier | Cosigner, ...]:
        """Return the keys that the log *origin* may sign with; none if it is not known."""
        return tuple(log.key for log in self.logs if log.key.name == origin)

    def holds(self, witnesses: Collection[str]) -> bool:
        """Tell whether these witnesses, by their names here, are a quorum."""
        done = {one.name for one in self.witnesses if one.name in witnesses}
        for group in self.groups:  # its members stand before it
            if sum(member in done for member in group.members) >= group.needed:
                done.add(group.name)
        return self.quorum == _NONE or self.quorum in done

    def check(self, note: bytes | str, *, now: int | None = None) -> Witnessed:
        r"""Return what the signed head in *note* is worth.

        Args:
            note: a checkpoint, with the signatures of its log and of witnesses.
            now: POSIX seconds; a cosignature more than `AHEAD` seconds later is not counted.

        Raises:
            TamperedError: malformed, not signed by a log of this policy, or a signature
                of one of its logs or witnesses is wrong.

        Example:
            >>> parse_policy("quorum none\n").check("no note")
            Traceback (most recent call last):
            checkrein.errors.TamperedError: the signed note has no signature lines
        """
        text, _ = split_note(note)
        checkpoint = parse_checkpoint(text)
        keys = self.keys_of(checkpoint.origin)
        if not keys:
            raise TamperedError("the checkpoint is of a log that is not in the policy", where="log")
        open_note(note, keys)
        seen = self._seen(note, None if now is None else now + AHEAD)
        names = {one.witness for one in seen}
        holds = self.holds(names)
        return Witnessed(
            checkpoint, seen, holds, self._as_of(seen), "" if holds else self._shortfall(names)
        )

    def _seen(self, note: bytes | str, latest: int | None) -> tuple[Seen, ...]:
        text, signatures = split_note(note)
        known = {(one.key.name, one.key.key_id): one for one in self.witnesses}
        times: dict[str, int] = {}
        for name, key_id, signature in signatures:
            witness = known.get((name, key_id))
            if witness is None:
                continue
            time = witness.key.time_of(text.encode(), signature)
            if time is None:
                raise TamperedError(f"the cosignature by {name} is wrong", where="signed note")
            if time and (latest is None or time <= latest):
                times[witness.name] = max(time, times.get(witness.name, 0))
        return tuple(Seen(one.name, times[one.name]) for one in self.witnesses if one.name in times)

    def _as_of(self, seen: tuple[Seen, ...]) -> int | None:
        if self.quorum == _NONE:
            return None
        for time in sorted({one.time for one in seen}, reverse=True):
            if self.holds({one.witness for one in seen if one.time >= time}):
                return time
        return None

    def _shortfall(self, names: Collection[str]) -> str:
        known = len(self.witnesses)
        return f"{len(names)} of {known} witnesses have cosigned, which is no quorum of this policy"


def parse_policy(text: bytes | str) -> Policy:
    r"""Read a policy.

    Args:
        text: the whole file.

    Raises:
        ConfigurationError: a line breaks a rule; the message has the line's number.

    Example:
        >>> parse_policy("# trust the log alone\nquorum none\n").quorum
        'none'
    """
    whole = text.decode(errors="surrogateescape") if isinstance(text, bytes) else text
    if len(whole) > MAX_POLICY:
        raise ConfigurationError(f"a policy has at most {MAX_POLICY} letters")
    if whole and not whole.endswith("\n"):
        number = whole.count("\n") + 1
        raise ConfigurationError(
            f"policy, line {number}: it does not end with a newline; was the file cut off?"
        )
    reader = _Reader()
    for number, line in enumerate(whole.split("\n")[:-1], 1):
        reader.take(number, line)
    return reader.policy()


class _Reader:
    """Reads a policy line by line."""

    def __init__(self) -> None:
        self._line = 0
        self._logs: list[KnownLog] = []
        self._witnesses: dict[str, Witness] = {}
        self._groups: dict[str, Group] = {}
        self._quorum = ""
        self._keys: dict[bytes, int] = {}
        self._ids: set[tuple[str, bytes]] = set()
        self._member_of: dict[str, str] = {}
        self._key_names: dict[str, str] = {}

    def take(self, number: int, line: str) -> None:
        """Read one line."""
        self._line = number
        if _CONTROL.search(line):
            self._refuse("it has control characters; only tabs and newlines are allowed")
        words = re.split(r"[ \t]+", line.strip(" \t"))
        if not words[0] or words[0].startswith("#"):
            return
        forms: dict[str, tuple[Callable[[list[str]], None], str, int, int]] = {
            "log": (self._log, "log <vkey> [<url>]", 1, 2),
            "witness": (self._witness, "witness <name> <vkey> [<url>]", 2, 3),
            "group": (self._group, "group <name> all|any|<k> <name>...", 3, len(words)),
            "quorum": (self._take_quorum, "quorum <name>|none", 1, 1),
        }
        if words[0] not in forms:
            self._refuse("it begins with none of log, witness, group, quorum, #")
        read, form, least, most = forms[words[0]]
        if not least <= len(words) - 1 <= most:
            self._refuse(f"it has not the form: {form}")
        read(words[1:])

    def policy(self) -> Policy:
        """Return what was read."""
        if not self._quorum:
            raise ConfigurationError(
                "the policy has no quorum line; without witnesses: quorum none"
            )
        groups, witnesses = tuple(self._groups.values()), tuple(self._witnesses.values())
        return Policy(tuple(self._logs), witnesses, groups, self._quorum)

    def _log(self, words: list[str]) -> None:
        key = self._key(parse_log_key, words[0])
        self._logs.append(KnownLog(key, *words[1:]))

    def _witness(self, words: list[str]) -> None:
        name = self._new_name(words[0])
        self._witnesses[name] = Witness(name, self._key(parse_cosigner, words[1]), *words[2:])

    def _group(self, words: list[str]) -> None:
        name, members = self._new_name(words[0]), words[2:]
        needed = {"any": 1, "all": len(members)}.get(words[1], 0)
        if not needed and _NUMBER.fullmatch(words[1]):
            needed = int(words[1])
        if not 1 <= needed <= len(members):
            self._refuse(f"a group needs all, any, or a number from 1 to {len(members)}")
        for member in members:
            self._join(member, name, needed)
        self._groups[name] = Group(name, needed, tuple(members))

    def _take_quorum(self, words: list[str]) -> None:
        if self._quorum:
            self._refuse("there is a quorum line already")
        if words[0] != _NONE:
            self._require_defined(words[0])
        self._quorum = words[0]

    def _key(self, read: Callable[[str], _Key], text: str) -> _Key:
        try:
            key = read(text)
        except ConfigurationError as error:
            self._refuse(str(error))
        first = self._keys.setdefault(public_bytes(key), self._line)
        if first != self._line:
            self._refuse(f"its public key is the one of line {first}, and would count twice")
        if (key.name, key.key_id) in self._ids:
            self._refuse("its key has the name and the id of another one; make a new key")
        self._ids.add((key.name, key.key_id))
        return key

    def _join(self, member: str, group: str, needed: int) -> None:
        """Put *member* in *group*, unless it would count twice."""
        self._require_defined(member)
        if member in self._member_of:
            self._refuse("a name in it is a member of a group already, and would count twice")
        self._member_of[member] = group
        witness = self._witnesses.get(member)
        if witness is not None:
            sibling = self._key_names.setdefault(witness.key.name, member)
            if sibling != member and (self._member_of[sibling] != group or needed != 1):
                self._refuse(
                    "two keys in it have one name: that is one witness, which would count twice; "
                    "put both in one group of the form: group <name> any <name> <name>"
                )

    def _new_name(self, name: str) -> str:
        if name == _NONE or name in self._witnesses or name in self._groups:
            self._refuse("its name is taken already")
        return name

    def _require_defined(self, name: str) -> None:
        if name not in self._witnesses and name not in self._groups:
            self._refuse("a name in it is not defined above it")

    def _refuse(self, why: str) -> NoReturn:
        raise ConfigurationError(f"policy, line {self._line}: {why}")
