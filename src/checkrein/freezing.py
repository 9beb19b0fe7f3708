"""Deep-freezing of arguments: one immutable copy for policy, gate, log and body.

A closed list of data types is accepted: ``None``, ``bool``, ``int``, finite
``float``, ``str``, ``bytes``, finite ``Decimal``, ``UUID``, dates and times,
``Enum`` members, paths; ``list``, ``tuple``, ``dict``, ``set``, ``frozenset``
of these; pydantic models and dataclasses made of these. The *exact* type
counts: a subclass of ``str`` may carry methods that lie about its content.

* :func:`freeze` copies a value into an immutable form,
* :func:`thaw` makes a fresh ordinary value of it for the tool's body,
* :func:`encode` writes it as bytes, for digests.

The encoding is canonical and tagged by type, so that ``1``, ``1.0``, ``True``
and ``"1"`` differ and no two values share a spelling::

    n  t  f                    None, True, False
    i<digits>;                 int
    r<float.hex()>;            float
    s<length>:<utf-8>          str (lone surrogates pass), length in bytes
    b<length>:<bytes>          bytes
    x<length>:<type>=<text>    Decimal, UUID, dates, times, paths, enum members
    l<n>:... u<n>:...          list, tuple of n encoded items
    z<n>:... Z<n>:...          set, frozenset: encoded items in byte order
    d<n>:...                   dict: key, value, ..., in byte order of the keys
    o<n>:<type><given>...      model or dataclass: type, the set of fields that were given
                               (empty for a dataclass), then name, value, ... by name
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from math import isfinite
from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel

ATOMS: Final = frozenset({str, int, bool, type(None), bytes})
"""Immutable as they are, with nothing left to check."""

_SCALARS: Final = frozenset({UUID, date, timedelta})
_PATHS: Final = frozenset({PosixPath, PurePosixPath, WindowsPath, PureWindowsPath})
_TIMES: Final = frozenset({datetime, time})
_MAX_DEPTH: Final = 32
MAX_BITS: Final = 8192  # beyond some 14,000 Python refuses to write a number in digits

ReadText = Callable[[str], Any]


class Unfreezable(Exception):
    """A value is not in the closed list; the message says why, without the value."""


class FrozenList(tuple[Any, ...]):
    """A list that can no longer change."""

    __slots__ = ()


class FrozenSet(frozenset[Any]):
    """A set that can no longer change; tells ``set`` from ``frozenset``."""

    __slots__ = ()


class FrozenDict(Mapping[Any, Any]):
    """A dict that can no longer change."""

    __slots__ = ("_items",)

    def __init__(self, items: dict[Any, Any]) -> None:
        self._items = items

    def __getitem__(self, key: Any) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return repr(self._items)


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenObject:
    """A pydantic model or a dataclass that can no longer change."""

    kind: type[Any]
    fields: Mapping[str, Any]
    given: frozenset[str] = frozenset()  # pydantic: which fields were set
    extra: Mapping[str, Any] | None = None  # pydantic: fields that the model does not declare


def _same(text: str) -> str:
    return text


def freeze(value: Any, read_text: ReadText = _same, depth: int = 0) -> Any:
    """Return an immutable deep copy of *value*.

    Args:
        value: the value.
        read_text: applied to every text inside; the guard reads markers back here.
        depth: how deep we are; leave it out.

    Raises:
        Unfreezable: *value* holds something outside the closed list.
    """
    kind = type(value)
    if kind is str:
        return read_text(value)
    if kind is bytes and read_text is not _same:
        read = read_text(value.decode("utf-8", "surrogateescape"))
        return read.encode("utf-8", "surrogateescape") if type(read) is str else read
    if kind is int and value.bit_length() > MAX_BITS:
        raise Unfreezable(f"is or holds a whole number of more than {MAX_BITS:,} bits")
    if kind in ATOMS:
        return value
    if kind is float or kind is Decimal:
        if not is_finite(value):
            raise Unfreezable("is or holds a number that is not finite")
        return value
    if depth >= _MAX_DEPTH:
        raise Unfreezable(f"is nested deeper than {_MAX_DEPTH} levels, or in itself")
    return _freeze_compound(value, kind, read_text, depth + 1)


def is_finite(number: Any) -> bool:
    """Say whether an int, a float or a Decimal is finite."""
    if isinstance(number, Decimal):
        return number.is_finite()  # math.isfinite raises for a signalling NaN
    return isinstance(number, int) or isfinite(number)


def _freeze_compound(value: Any, kind: type[Any], read_text: ReadText, depth: int) -> Any:
    if kind is list:
        return FrozenList(freeze(item, read_text, depth) for item in value)
    if kind is FrozenList:  # what a constraint hands over may have been frozen before
        return FrozenList(
            item if type(item) is FrozenObject else freeze(item, read_text, depth) for item in value
        )
    if kind is tuple:
        return tuple(freeze(item, read_text, depth) for item in value)
    if kind is dict or kind is FrozenDict:
        return _freeze_fields(value, read_text, depth)
    if kind is set or kind is frozenset or kind is FrozenSet:
        items = [freeze(item, read_text, depth) for item in value]
        return _hashed(frozenset if kind is frozenset else FrozenSet, items)
    if kind in _PATHS:
        text = read_text(str(value))
        return value if text == str(value) else kind(text)
    if kind in _SCALARS or isinstance(value, Enum):
        return value
    if kind in _TIMES:
        # A zone is code: only those of the standard library are known to be values.
        if value.tzinfo is not None and type(value.tzinfo) not in {timezone, ZoneInfo}:
            return _with_fixed_zone(value)
        return value
    if isinstance(value, BaseModel):
        return _freeze_model(value, read_text, depth)
    if dataclasses.is_dataclass(value):
        return _freeze_dataclass(value, read_text, depth)
    raise Unfreezable(_why_not(kind))


_CONTAINERS: Final = frozenset({FrozenList, FrozenDict, FrozenSet, FrozenObject})


def refreeze(value: Any) -> Any:
    """Freeze what a constraint hands over, which may be, or be made of, frozen values."""
    kind = type(value)
    if kind in ATOMS or kind in _CONTAINERS:
        return value
    if kind is tuple or kind is frozenset:
        return kind(refreeze(item) for item in value)
    return freeze(value)


def _hashed(kind: Callable[[Any], Any], items: Any) -> Any:
    try:
        return kind(items)
    except TypeError:
        raise Unfreezable("has a key or a member that cannot be frozen") from None


def _freeze_fields(fields: Mapping[Any, Any], read_text: ReadText, depth: int) -> FrozenDict:
    pairs = [(freeze(k, read_text, depth), freeze(v, read_text, depth)) for k, v in fields.items()]
    frozen = _hashed(dict, pairs)
    if len(frozen) != len(pairs):
        raise Unfreezable("has two keys that are the same without their markers")
    return FrozenDict(frozen)


def _freeze_model(model: BaseModel, read_text: ReadText, depth: int) -> FrozenObject:
    if getattr(model, "__pydantic_private__", None):
        raise Unfreezable(f"is a {type(model).__name__} with private attributes")
    kind = type(model)
    fields = {name: model.__dict__[name] for name in kind.model_fields if name in model.__dict__}
    extra = model.__pydantic_extra__
    return _rebuildable(
        FrozenObject(
            kind,
            _freeze_fields(fields, read_text, depth),
            frozenset(model.__pydantic_fields_set__),
            None if extra is None else _freeze_fields(extra, read_text, depth),
        )
    )


def _freeze_dataclass(value: Any, read_text: ReadText, depth: int) -> FrozenObject:
    names = [field.name for field in dataclasses.fields(value)]
    if set(getattr(value, "__dict__", ())) - set(names):
        raise Unfreezable(f"is a {type(value).__name__} with attributes that are no fields")
    fields = {name: getattr(value, name) for name in names}
    return _rebuildable(FrozenObject(type(value), _freeze_fields(fields, read_text, depth)))


def _rebuildable(frozen: FrozenObject) -> FrozenObject:
    """Refuse now what could not be handed to a body later."""
    try:
        _thaw_object(frozen)
    except Exception:  # noqa: BLE001 (a class may refuse in any way)
        name = frozen.kind.__name__
    else:
        return frozen
    raise Unfreezable(f"is a {name}, which cannot be rebuilt from its fields")


def _with_fixed_zone(value: datetime | time) -> datetime | time:
    offset = value.utcoffset()
    if offset is None:
        raise Unfreezable("has a time zone without a fixed offset")
    return value.replace(tzinfo=timezone(offset))


def _why_not(kind: type[Any]) -> str:
    if kind.__name__ == "Untrusted":
        return (
            "is untrusted content where the tool takes a plain value: endorse it first, "
            "or declare the parameter Untrusted[...]"
        )
    return (
        f"is or holds a {kind.__name__}, which is not plain data: pass str, int, float, bool, "
        "None, bytes, dates, lists, dicts, dataclasses or pydantic models, "
        "or declare the parameter Annotated[..., injected]"
    )


def is_frozen(value: Any) -> bool:
    """Say whether :func:`thaw` would return *value* itself."""
    kind = type(value)
    return kind in ATOMS or kind is float


def thaw(value: Any) -> Any:
    """Return a fresh ordinary value for a frozen one."""
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind is FrozenList:
        return [thaw(item) for item in value]
    if kind is tuple:
        return tuple(thaw(item) for item in value)
    if kind is FrozenDict:
        return {thaw(key): thaw(item) for key, item in value.items()}
    if kind is FrozenSet or kind is frozenset:
        return {thaw(item) for item in value} if kind is FrozenSet else value
    if kind is FrozenObject:
        return _thaw_object(value)
    return value


def _thaw_object(frozen: FrozenObject) -> Any:
    fields = {name: thaw(item) for name, item in frozen.fields.items()}
    fresh = object.__new__(frozen.kind)
    if issubclass(frozen.kind, BaseModel):
        # As unpickling does it: the values were valid, and a validator is code that could act.
        fresh.__setstate__(
            {
                "__dict__": fields,
                "__pydantic_fields_set__": set(frozen.given),
                "__pydantic_extra__": None if frozen.extra is None else thaw(frozen.extra),
                "__pydantic_private__": None,
            }
        )
        return fresh
    for name, item in fields.items():
        object.__setattr__(fresh, name, item)
    return fresh


def encode(value: Any) -> bytes:
    """Return the canonical bytes of a frozen value, as the module's docstring defines them."""
    kind = type(value)
    if kind is str:
        text = value.encode() if value.isascii() else value.encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(text), text)
    if kind is int:
        return b"i%d;" % value
    if value is None:
        return b"n"
    if kind is bool:
        return b"t" if value else b"f"
    if kind is float:
        return b"r%b;" % value.hex().encode()
    if kind is bytes:
        return b"b%d:%b" % (len(value), value)
    return _encode_compound(value, kind)


def _encode_compound(value: Any, kind: type[Any]) -> bytes:
    if kind is FrozenList or kind is tuple:
        items = [encode(item) for item in value]
        return b"%b%d:%b" % (b"l" if kind is FrozenList else b"u", len(items), b"".join(items))
    if kind is FrozenSet or kind is frozenset:
        items = sorted(encode(item) for item in value)
        return b"%b%d:%b" % (b"z" if kind is FrozenSet else b"Z", len(items), b"".join(items))
    if kind is FrozenDict:
        return b"d%d:%b" % (len(value), _encode_fields(value))
    if kind is FrozenObject:
        name = f"{value.kind.__module__}.{value.kind.__qualname__}"
        fields = {**value.fields, **(value.extra or {})}
        head = encode(name) + encode(frozenset(value.given))
        return b"o%d:%b%b" % (len(fields), head, _encode_fields(fields))
    text = f"{kind.__module__}.{kind.__qualname__}={_scalar_text(value)}".encode(
        "utf-8", "surrogatepass"
    )
    return b"x%d:%b" % (len(text), text)


def _encode_fields(fields: Mapping[Any, Any]) -> bytes:
    pairs = sorted((encode(key), encode(item)) for key, item in fields.items())
    return b"".join(key + item for key, item in pairs)


def _scalar_text(value: Any) -> str:
    if isinstance(value, Enum):
        # Two classes of one name may differ in values; a combination of flags has no name.
        return f"{value.name}={value.value!r}"
    if isinstance(value, datetime | time):
        return f"{value.isoformat()}|{value.fold}|{value.tzinfo!s}"
    if isinstance(value, timedelta):
        return f"{value.days},{value.seconds},{value.microseconds}"
    return str(value)
