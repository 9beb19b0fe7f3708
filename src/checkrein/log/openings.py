"""What entries are committed to and do not show: it can be erased, and every proof still holds.

A field of an event that is :class:`checkrein.forgetting.Erasable` stands in the entry as ::

    {"commitment": hex(SHA-256("checkrein/field/v1" LF salt[16] value)), "size": len(value)}

with *value* the field's JSON. The *opening* of the commitment is kept beside the tree, as one
line of JSON::

    {"index": 7, "commitment": "...", "salt": "...", "value": "<the JSON, as a text>"}
    {"index": 7, "commitment": "...", "salt": "...", "key": "...", "sealed": base64(nonce[12] ...)}

The second form is AES-256-GCM under the key of a *subject* (see `checkrein.log.subjects`), with
the commitment as additional data: destroy that key, and all that it sealed is erased, in
every copy. The salt is random, so that nobody can guess a short value from what is left.

Openings of entries that are published lie in ``.state/openings/<N>``, N as of the entry's bundle;
those of others in the journal's frames. They are never part of what is published.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson

from checkrein.errors import LogError, TamperedError
from checkrein.forgetting import Erasable

_PREFIX: Final = b"checkrein/field/v1\n"
_LARGE: Final = 2048
_FIELDS: Final = {"index", "commitment", "salt"}

Seal = Callable[[str, bytes, bytes], tuple[str, bytes]]
"""(subject, value, commitment) to the id of the subject's key and the sealed value."""


class Entry(bytes):
    """An entry that commits to fields; their openings, without an index, travel with it."""

    openings: tuple[Opening, ...]


@dataclass(frozen=True, slots=True)
class Opening:
    """What shows that a field had a value.

    Attributes:
        index: of the entry.
        commitment: what stands in the entry, in hex.
        salt: 16 random bytes.
        value: the field's JSON; or, with *key*, sealed.
        key: the id of the subject's key, ``""`` if it is not sealed.
    """

    index: int
    commitment: str
    salt: bytes
    value: bytes
    key: str = ""

    def check(self) -> None:
        """Check that this is an opening of its commitment; of a sealed one nothing can be said.

        Raises:
            TamperedError: it is none.
        """
        if not self.key and commitment_of(self.value, self.salt) != self.commitment:
            raise TamperedError("an opening does not fit its commitment", where="openings")

    def line(self) -> bytes:
        """Return the opening as a line of JSON."""
        plain: dict[str, Any] = {
            "index": self.index,
            "commitment": self.commitment,
            "salt": self.salt.hex(),
        }
        if self.key:
            plain |= {"key": self.key, "sealed": base64.b64encode(self.value).decode()}
        else:
            plain["value"] = self.value.decode()
        return orjson.dumps(plain) + b"\n"


def commitment_of(value: bytes, salt: bytes) -> str:
    """Return the commitment to a field's JSON, in hex."""
    return sha256(_PREFIX + salt + value).hexdigest()


# -- writing -------------------------------------------------------------------------------


def commit_fields(event: Mapping[str, Any], seal: Seal | None = None) -> Entry:
    """Return the bytes of an event, with commitments in place of its erasable fields.

    Args:
        event: JSON data, in which some values are `Erasable`.
        seal: seals the values that have a subject; without it, none may have one.

    Raises:
        orjson.JSONEncodeError: it holds something else that JSON cannot.
        LogError: a subject's key cannot be used.
    """
    openings: list[Opening] = []

    def stand_in(value: Any) -> Any:
        if type(value) is not Erasable:
            raise TypeError(f"{type(value).__name__} is no JSON")
        inner = orjson.dumps(value.value)
        salt = os.urandom(16)
        commitment = commitment_of(inner, salt)
        key, kept = "", inner
        if value.subject:
            if seal is None:
                raise LogError("this log keeps no keys of subjects; leave subject= out")
            key, kept = seal(value.subject, inner, bytes.fromhex(commitment))
        openings.append(Opening(-1, commitment, salt, kept, key))
        return {"commitment": commitment, "size": len(inner)}

    entry = Entry(orjson.dumps(event, default=stand_in))
    entry.openings = tuple(openings)
    return entry


def lay_aside(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return *event* with its large texts made erasable, for one that is too large for the tree."""
    return {name: _lighter(value) for name, value in event.items()}


def _lighter(value: Any) -> Any:
    if type(value) is str and len(value) > _LARGE:
        return Erasable(value)
    if type(value) is dict:
        return {name: _lighter(one) for name, one in value.items()}
    if type(value) is list:
        return [_lighter(one) for one in value]
    return value


def openings_of(entries: Iterable[bytes], first: int) -> bytes:
    """Return the lines of what *entries* commit to, the first of which has number *first*."""
    return b"".join([
        Opening(index, one.commitment, one.salt, one.value, one.key).line()
        for index, entry in enumerate(entries, first)
        if type(entry) is Entry
        for one in entry.openings
    ])  # fmt: skip


# -- reading -------------------------------------------------------------------------------


def read_openings(data: bytes) -> Iterator[Opening]:
    """Yield the openings in lines of JSON; whether they fit is for `Opening.check` to say.

    Raises:
        TamperedError: a line is none.
    """
    for line in data.splitlines():
        try:
            one = _parse(orjson.loads(line))
        except (ValueError, TypeError, AttributeError, KeyError):
            one = None
        if one is None:
            raise TamperedError("a line of the openings cannot be read", where="openings")
        yield one


def _parse(plain: Any) -> Opening | None:
    rest = plain.keys() - _FIELDS
    index, salt = plain["index"], bytes.fromhex(plain["salt"])
    commitment = bytes.fromhex(plain["commitment"]).hex()
    if type(index) is not int or index < 0:
        return None
    if rest == {"value"}:
        return Opening(index, commitment, salt, plain["value"].encode())
    if rest == {"key", "sealed"} and type(plain["key"]) is str and plain["key"]:
        sealed = base64.b64decode(plain["sealed"], validate=True)
        return Opening(index, commitment, salt, sealed, plain["key"])
    return None


def commitments_in(value: Any) -> Iterator[tuple[str, str]]:
    """Yield (path, commitment) of each field of an event that stands aside: ``arguments.to``."""
    if type(value) is dict:
        if value.keys() == {"commitment", "size"} and type(value["commitment"]) is str:
            yield "", value["commitment"]
            return
        pairs: Iterable[tuple[Any, Any]] = value.items()
    elif type(value) is list:
        pairs = enumerate(value)
    else:
        return
    for name, one in pairs:
        for path, commitment in commitments_in(one):
            yield f"{name}.{path}".rstrip("."), commitment


def disclosed(entry: bytes, lines: bytes) -> dict[str, Any]:
    """Return what openings show of an entry: values by their paths, ``arguments.to``.

    The entry is to be verified by its receipt; this verifies that the values are its own.

    Args:
        entry: its exact bytes.
        lines: openings, not sealed, as `checkrein.log.shelf.disclose` gives them.

    Raises:
        TamperedError: an opening fits no commitment of this entry.
    """
    try:
        paths = {commitment: path for path, commitment in commitments_in(orjson.loads(entry))}
    except orjson.JSONDecodeError:
        paths = {}
    shown: dict[str, Any] = {}
    for one in read_openings(lines):
        one.check()
        if one.key or one.commitment not in paths:
            raise TamperedError("an opening fits no field of this entry", where="openings")
        shown[paths[one.commitment]] = orjson.loads(one.value)
    return shown


def opened(value: Any, known: Mapping[str, Any]) -> Any:
    """Return an event with the values that are known, by their commitments, in their places."""
    if type(value) is dict:
        if value.keys() == {"commitment", "size"} and type(value["commitment"]) is str:
            return known.get(value["commitment"], value)
        return {name: opened(one, known) for name, one in value.items()}
    if type(value) is list:
        return [opened(one, known) for one in value]
    return value
