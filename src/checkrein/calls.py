"""One call, bound once and frozen: the object that everybody looks at.

``Call.bind`` takes what a caller or a framework passed (positional, keyword,
omitted), binds it to the tool's parameters, reads markers back, checks types
strictly, and freezes the rest. Policy, gate, log and the tool's body all use
the result. What was shown is what was checked is what runs.

The digest of a call is::

    SHA-256( "checkrein/call/v1" LF  salt[16]  definition[32]  name value ... )

where ``salt`` is a secret of the run, ``definition`` the digest of the tool's
own definition, and names and values follow in the order of the signature, each
encoded (see :mod:`checkrein.freezing`); injected parameters are left out,
untrusted ones enter by content.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, Final

from checkrein.conditions import Refused
from checkrein.errors import MisuseError
from checkrein.facts import MISSING, NAMED, Parameter, ToolFacts
from checkrein.freezing import Unfreezable, encode, freeze, is_frozen, thaw
from checkrein.isolation import Forged, RunMarks, any_mark_in, held, read_back
from checkrein.labels import Label, Origin, Source
from checkrein.lazy import sha256
from checkrein.untrusted import Untrusted, content, labelled

if TYPE_CHECKING:
    from checkrein.conditions import Opener
    from checkrein.ports import Use

_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
_SMALL: Final = 1 << 63
_SILENT: Final = frozenset({bool, type(None)})
_CONSTANT: Final = Label(frozenset({Source(Origin.SYSTEM, "default")}))
_AGENT: Final = Label(frozenset({Source(Origin.AGENT_GENERATED)}))


class Malformed(Exception):
    """An argument is not what its parameter takes; the message holds no value."""

    def __init__(self, message: str, argument: str) -> None:
        super().__init__(message)
        self.argument = argument


class Unopened(Exception):
    """A file may not be opened; the message holds no value."""

    def __init__(self, message: str, argument: str) -> None:
        super().__init__(message)
        self.argument = argument


class Binder:
    """Binds arguments to the parameters of one tool, as Python would.

    Args:
        facts: the tool's facts.
    """

    __slots__ = ("_names", "_optional", "_required", "_signature", "_simple", "_size")

    def __init__(self, facts: ToolFacts) -> None:
        parameters = facts.parameters
        self._signature = facts.signature
        self._simple = all(one.kind in NAMED for one in parameters)
        self._names = tuple(
            one.name for one in parameters if one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        )
        self._required = tuple(one.name for one in parameters if one.default is MISSING)
        self._optional = tuple(
            (one.name, one.default) for one in parameters if one.default is not MISSING
        )
        self._size = len(parameters)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return a value for every parameter, by name.

        Args:
            args: positional arguments, as given.
            kwargs: keyword arguments, as given.

        Raises:
            MisuseError: an argument is missing, unknown, or given twice.
        """
        if self._simple and len(args) <= len(self._names):
            bound = kwargs.copy()  # the way back is on what was given
            for name, value in zip(self._names, args, strict=False):
                if name in bound:  # given twice
                    break
                bound[name] = value
            else:
                for name, default in self._optional:
                    bound.setdefault(name, default)
                # As many as there are, and none missing: so none is unknown.
                if len(bound) == self._size:
                    for name in self._required:
                        if name not in bound:
                            break
                    else:
                        return bound
        return self._bind_slowly(args, kwargs)

    def _bind_slowly(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            problem = str(error)  # names parameters, never values
        else:
            bound.apply_defaults()
            return bound.arguments
        raise MisuseError(f"the call does not fit the tool: {problem}")


class Call:
    """A bound, frozen call of a tool.

    Attributes:
        id: unique and stable; a body may use it as an idempotency key.
        facts: what the tool is.
        arguments: frozen plain values and ``Untrusted`` payloads, by name.
        injected: what the framework gave, by identity.
        returned: labels of the markers that came back in plain arguments, by name.
        parent: the id of the enclosing guarded call, ``""`` if none.
        salt: a secret of the run, for the digest.
        offers: what admits the call: the offers of grants, one for each claim.
        uses: what it takes of their budgets.
        openers: what opens the files among its arguments, by name.
        files: the files that were opened for the body, by name.
        refusal: why no grant admits it, ``None`` if one does.
        answered: the questions about it that somebody has answered.
        standing: the id of the question whose standing answer covers it, ``""`` for none.
    """

    injected: Mapping[str, Any] = _EMPTY
    returned: Mapping[str, Label] = _EMPTY
    offers: Sequence[Any] = ()
    uses: tuple[Use, ...] = ()
    openers: Mapping[str, Opener] = _EMPTY
    files: Mapping[str, IO[Any]] = _EMPTY
    refusal: Exception | None = None
    answered: tuple[Any, ...] = ()
    standing = ""
    _digest = b""

    def __init__(
        self,
        id: str,  # noqa: A002 (by its natural name)
        facts: ToolFacts,
        arguments: dict[str, Any],
        parent: str,
        salt: bytes,
    ) -> None:
        self.id = id
        self.facts = facts
        self.arguments = arguments
        self.parent = parent
        self.salt = salt
        self.atomic = False  # whether nothing has to be thawed

    def normalise(self, arguments: dict[str, Any]) -> None:
        """Take the values that the constraints of the grants hand over, before anything else."""
        self.arguments = arguments
        self.atomic = False

    def go_on_as(self, id: str) -> None:  # noqa: A002 (as above)
        """Take over the id of a call that was put off: this one is the same, made again."""
        self.id = id
        for name, value in self.arguments.items():
            if type(value) is Untrusted:  # the body with this id may reveal it
                self.arguments[name] = labelled(content(value), value.label, value._marks, id)

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for the tool's definition and every argument."""
        if not self._digest:
            arguments = self.arguments
            parts = [b"checkrein/call/v1\n", self.salt, self.facts.definition]
            for name, encoded in self.facts.encoded_names:
                value = arguments.get(name)  # a call that could not be bound has none
                parts.append(encoded)
                parts.append(encode(content(value) if type(value) is Untrusted else value))
            self._digest = sha256(b"".join(parts))
        return self._digest

    def for_body(self) -> tuple[list[Any], dict[str, Any]]:
        """Return fresh positional and keyword arguments for the tool's body."""
        if self.atomic and self.facts.named and not self.openers:
            return [], self.arguments
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for one in self.facts.parameters:
            name = one.name
            value = self._for_parameter(one)
            if one.kind is inspect.Parameter.VAR_POSITIONAL:
                positional += value
            elif one.kind is inspect.Parameter.VAR_KEYWORD:
                if any(self._is_named(key) for key in value):
                    raise MisuseError(f"a name in {name!r} is that of a parameter")
                named |= value
            elif one.kind is inspect.Parameter.KEYWORD_ONLY:
                named[name] = value
            else:
                positional.append(value)
        return positional, named

    def _for_parameter(self, one: Parameter) -> Any:
        if one.injected:
            return self.injected[one.name]
        if one.name in self.openers:
            return self.files[one.name]
        return self._thawed(self.arguments[one.name])

    def open(self) -> None:
        """Open the files that the body gets; all of them, or none.

        Raises:
            Unopened: a constraint refuses what a path has come to name.
            OSError: as :func:`open` would.
        """
        with ExitStack() as stack:
            for name, opener in self.openers.items():
                try:
                    file = opener.open(self.arguments[name])
                except Refused as refused:
                    raise Unopened(f"argument {name!r} {refused}", name) from None
                stack.callback(file.close)
                self.files = {**self.files, name: file}
            stack.pop_all()

    def close(self) -> None:
        """Close the files that were opened for the body."""
        with ExitStack() as stack:  # closes each, whatever another one raises
            for file in self.files.values():
                stack.callback(file.close)
            self.files = _EMPTY

    def _is_named(self, key: str) -> bool:
        one = self.facts.by_name.get(key)
        return one is not None and one.kind in NAMED

    def _thawed(self, value: Any) -> Any:
        if type(value) is Untrusted:
            inner = content(value)
            return value if is_frozen(inner) else labelled(
                thaw(inner), value.label, value._marks, self.id
            )  # fmt: skip
        return value if is_frozen(value) else thaw(value)


def open_call(call: Call, bound: dict[str, Any], marks: tuple[RunMarks, ...]) -> None:
    """Freeze *bound* arguments into *call*.

    Args:
        call: a new call, without arguments.
        bound: a value for every parameter, from :meth:`Binder.bind`; taken over.
        marks: the markers that may come back in an argument.

    Raises:
        Malformed: a value is not plain data, not of the annotated type, or
            holds a forged marker.
    """
    facts = call.facts
    injected: dict[str, Any] | None = None
    atomic = True
    shortest = marks[0].shortest
    for name, exact, one in facts.quick:
        value = bound[name]
        kind = type(value)
        # The usual case first: a text without markers, a number, of just the right type.
        if exact is not None and kind in exact:
            if kind is str:
                if len(value) < shortest or not any_mark_in(value, marks):
                    continue
            elif (kind is int and -_SMALL < value < _SMALL) or kind in _SILENT:
                continue
        if one.injected:
            injected = {**(injected or {}), name: value}
            continue
        if one.untrusted:
            bound[name] = _untrusted(call.id, one, value, marks)
            atomic = False
            continue
        frozen, label = _frozen(one, value, marks)
        if one.kind is inspect.Parameter.VAR_KEYWORD and list(frozen) != list(value):
            raise Malformed(f"a name in {name!r} holds a marker of untrusted content", name)
        if not one.accepts(frozen if is_frozen(frozen) else thaw(frozen)):
            raise Malformed(_mismatch(one), name)
        bound[name] = frozen
        atomic = atomic and is_frozen(frozen)
        if label is not None:
            call.returned = {**call.returned, name: label}
    if injected is not None:
        call.injected = injected
        bound = {name: value for name, value in bound.items() if name not in injected}
    call.arguments = bound
    call.atomic = atomic


def _frozen(one: Parameter, value: Any, marks: tuple[RunMarks, ...]) -> tuple[Any, Label | None]:
    found: list[Label] = []

    def read(text: str) -> Any:
        whole = held(text, marks)
        if whole is not None:
            found.append(whole[1])
            return freeze(whole[0])
        text, label = read_back(text, *marks)
        if label is not None:
            found.append(label)
        return text

    try:
        frozen = freeze(value, read)
    except Forged:
        problem = "holds part of a marker of untrusted content; pass the content without markers"
    except Unfreezable as refusal:
        problem = str(refusal)
    except Exception as error:  # noqa: BLE001 (a model's own code may raise anything)
        problem = f"cannot be read ({type(error).__name__})"
    else:
        label = None
        for each in found:
            label = each if label is None else label | each
        return frozen, label
    raise Malformed(f"argument {one.name!r} {problem}", one.name)


def _untrusted(
    call: str, one: Parameter, value: Any, marks: tuple[RunMarks, ...]
) -> Untrusted[Any]:
    label = _CONSTANT if value is one.default else _AGENT
    if type(value) is Untrusted:
        label = label if label is _CONSTANT else value.label
        value = content(value)
    frozen, found = _frozen(one, value, marks)
    if not one.accepts(thaw(frozen)):
        raise Malformed(_mismatch(one), one.name)
    if found is not None:
        label |= found
    return labelled(frozen, label, marks[0], call)


def _mismatch(one: Parameter) -> str:
    shown = one.shown.__name__ if isinstance(one.shown, type) else str(one.shown)
    return f"argument {one.name!r} is not of the declared type {shown}; values are never converted"
