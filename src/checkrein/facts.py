"""What a tool is: the facts that its decorators and its signature state.

Policy says what is allowed now; facts say what a call would be. They are read
once, at decoration, where a mistake costs least:

* a *claim* per decorator: effect, resource, external, private;
* a :class:`Parameter` per parameter: plain (needs a trusted origin when the
  tool changes state or reaches outside), ``Untrusted[...]`` (tolerates
  anything), injected (given by the framework, passed on by identity), a file
  (``BinaryIO``: a caller gives a path, the body gets it opened by the grant);
* what comes back: ``Untrusted[...]``, a closed type, or plain data.

The host framework is shown a resolved signature with plain parameter types
(``body: str`` for ``body: Untrusted[str]``), since wrapper classes in
annotations survive few frameworks.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import TypeAdapter

from checkrein import orders
from checkrein.confirmations import NO_CARE, Care, joined_care
from checkrein.directories import Directory, Refers
from checkrein.errors import MisuseError
from checkrein.freezing import Unfreezable, encode, freeze
from checkrein.lazy import sha256
from checkrein.resources import TAINTED_RESOURCES, prefixes_of
from checkrein.untrusted import Untrusted, content

MISSING: Final = inspect.Parameter.empty
NAMED: Final = frozenset({inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY})


class Effect(StrEnum):
    """What a tool does to the world, weakest first."""

    READS = "reads"
    WRITES = "writes"
    IRREVERSIBLE = "irreversible"

    @property
    def rank(self) -> int:
        """Where the effect stands among the others; higher is stronger."""
        return list(Effect).index(self)


class Mark(Enum):
    """A word for ``Annotated[...]`` about one parameter."""

    INJECTED = "injected"
    COMPOSED = "composed"
    SENSITIVE = "sensitive"
    SECRET = "secret"  # noqa: S105 (the word for one)
    ERASABLE = "erasable"

    def __repr__(self) -> str:
        return f"checkrein.{self.value}"


injected: Final = Mark.INJECTED
"""``Annotated[Context, injected]``: the framework gives it; outside digest and log."""

composed: Final = Mark.COMPOSED
"""``Annotated[str, composed]``: the model may word it, within a constraint of the grant."""

sensitive: Final = Mark.SENSITIVE
"""``Annotated[str, sensitive]``: needs a trusted origin, whatever the tool does with it.

Also of a tool that only reads inside, and where a constraint or a closed type
would do otherwise. A permission that pins the value is enough.
"""

secret: Final = Mark.SECRET
"""``Annotated[str, secret]``: a password or a token, which no log and no approver is shown."""

erasable: Final = Mark.ERASABLE
"""``Annotated[str, erasable]``: the log commits to it, and can forget it; `AuditLog.erase`."""

_INJECTED_TYPES: set[type[Any]] = set()

_STREAMS: Final = frozenset(
    {Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator}
)


def register_injected(kind: type[Any]) -> None:
    """Treat every parameter annotated with *kind* as injected, for integrations.

    Call it before the tools are decorated.
    """
    _INJECTED_TYPES.add(kind)


class Claim(NamedTuple):
    """What one decorator states.

    Args:
        effect: what the tool does.
        resource: what it does it to, in dotted form, ``mail.send`` for example.
        external: whether it reaches outside the trust boundary.
        private: whether what it reads is for some people only.
    """

    effect: Effect
    resource: str
    external: bool = False
    private: bool = False


class Stated(NamedTuple):
    """What a decorator states about the result.

    Attributes:
        evidence: it may be trusted as a source of arguments; or only these fields may.
        trusted: content from outside is to be taken as plain data.
        directories: whose names or ids may be relied on.
        preview: says what a call would do, for whoever confirms it.
        care: how much care a confirmation takes.
    """

    evidence: bool | tuple[str, ...] = False
    trusted: bool = False
    directories: tuple[Directory, ...] = ()
    preview: Callable[..., Any] | None = None
    care: Care = NO_CARE


@dataclass(frozen=True, slots=True, eq=False)
class Parameter:
    """One parameter of a tool.

    Attributes:
        name: its name.
        default: the developer's constant, ``MISSING`` if it must be given.
        shown: the annotation that a framework sees, plain and resolved.
        untrusted: declared ``Untrusted[...]``.
        injected: passed by identity, outside policy, digest and log.
        composed: declared ``Annotated[..., composed]``.
        sensitive: declared ``Annotated[..., sensitive]``.
        secret: declared ``Annotated[..., secret]``.
        erasable: declared ``Annotated[..., erasable]``.
        refers: the kind of directory that it names an entry of, ``""`` for none.
        closed: of a type with no room for text: bool, number, ``Literal``, enum, None.
        exact: the types that the annotation accepts as they are, if that is all there is to check.
        adapter: checks values strictly where ``exact`` is not enough.
        opens: ``"binary"`` or ``"text"`` if the body takes an open file where a
            caller gives a path; ``""`` if not.
    """

    name: str
    kind: inspect._ParameterKind
    default: Any
    shown: Any
    untrusted: bool
    injected: bool
    composed: bool
    closed: bool
    exact: frozenset[type[Any]] | None
    adapter: TypeAdapter[Any] | None
    opens: str = ""
    sensitive: bool = False
    secret: bool = False
    erasable: bool = False
    refers: str = ""

    def accepts(self, value: Any) -> bool:
        """Say whether *value* is of the annotated type, without coercing it."""
        if self.exact is not None:
            return type(value) in self.exact
        if self.adapter is None:
            return True
        try:
            self.adapter.validate_python(value, strict=True)
        except Exception:  # noqa: BLE001 (a validator may raise anything; no is the safe answer)
            return False
        return True


class Returns(StrEnum):
    """What kind of value comes back."""

    UNTRUSTED = "untrusted"
    CLOSED = "closed"
    PLAIN = "plain"
    TRUSTED = "trusted"


@dataclass(frozen=True, slots=True, eq=False)
class ToolFacts:
    """All that is known about a tool before it is called. Compared by identity."""

    name: str
    claims: tuple[Claim, ...]
    parameters: tuple[Parameter, ...]
    returns: Returns
    evidence: bool | tuple[str, ...]
    streams: bool
    signature: inspect.Signature
    doc: str
    directories: tuple[Directory, ...] = ()
    preview: Callable[..., Any] | None = None
    care: Care = NO_CARE
    definition: bytes = field(init=False)
    definition_text: str = field(init=False)
    # Derived once, for the rules and for the hot path.
    effect: Effect = field(init=False)
    effect_name: str = field(init=False)
    encoded_names: tuple[tuple[str, bytes], ...] = field(init=False)
    external: bool = field(init=False)
    private: bool = field(init=False)
    changes: bool = field(init=False)
    reads: bool = field(init=False)  # one of the claims is about reading
    wary: bool = field(init=False)  # changes state or reaches outside
    sensitive: tuple[str, ...] = field(init=False)
    secrets: tuple[str, ...] = field(init=False)
    erasable: tuple[str, ...] = field(init=False)
    by_name: dict[str, Parameter] = field(init=False)
    plain: tuple[str, ...] = field(init=False)
    payload: tuple[str, ...] = field(init=False)
    files: tuple[str, ...] = field(init=False)
    quick: tuple[tuple[str, frozenset[type[Any]] | None, Parameter], ...] = field(init=False)
    named: bool = field(init=False)  # every parameter can be passed by name, none is injected
    confinable: bool = field(init=False)  # a constraint may stand in for a trusted origin
    quiet: bool = field(init=False)  # a number that comes back leaves no trace in the run
    source: str = field(init=False)
    resources: frozenset[str] = field(init=False)
    keyed: tuple[tuple[Directory, str], ...] = field(init=False)  # with the parameters of keys
    stops: frozenset[str] = field(init=False)  # the notices that would stop it
    prefixes: frozenset[str] = field(init=False)  # the resources, and all they lie in

    def __post_init__(self) -> None:
        put = object.__setattr__
        effect = max((claim.effect for claim in self.claims), key=lambda one: one.rank)
        put(self, "effect", effect)
        put(self, "effect_name", effect.value)
        names = [one.name for one in self.parameters if not one.injected]
        put(self, "encoded_names", tuple((name, encode(name)) for name in names))
        put(self, "external", any(claim.external for claim in self.claims))
        put(self, "private", any(claim.private for claim in self.claims))
        put(self, "changes", effect is not Effect.READS)
        put(self, "reads", any(claim.effect is Effect.READS for claim in self.claims))
        put(self, "wary", self.changes or self.external)
        put(self, "sensitive", tuple(one.name for one in self.parameters if one.sensitive))
        put(self, "secrets", tuple(one.name for one in self.parameters if one.secret))
        put(self, "erasable", tuple(one.name for one in self.parameters if one.erasable))
        put(self, "by_name", {one.name: one for one in self.parameters})
        plain = (one.name for one in self.parameters if not one.injected and not one.untrusted)
        put(self, "plain", tuple(plain))
        put(self, "payload", tuple(one.name for one in self.parameters if one.untrusted))
        put(self, "files", tuple(one.name for one in self.parameters if one.opens))
        quick = ((one.name, None if one.untrusted else one.exact, one) for one in self.parameters)
        put(self, "quick", tuple(quick))
        put(self, "named", all(one.kind in NAMED and not one.injected for one in self.parameters))
        inside = effect is Effect.WRITES and not self.external
        put(self, "confinable", inside or any(one.composed for one in self.parameters))
        quiet = self.returns in {Returns.CLOSED, Returns.PLAIN, Returns.TRUSTED}
        loud = self.private or self.evidence or self.changes or self.directories
        put(self, "quiet", quiet and not loud)
        resources = [claim.resource for claim in self.claims]
        put(self, "source", "+".join(resources))
        put(self, "resources", frozenset(resources))
        named = {orders.stop_tool(self.name), *map(orders.stop_resource, resources)}
        put(self, "stops", frozenset(named))
        put(self, "definition", _definition(self))
        put(self, "definition_text", self.definition.hex())
        put(self, "prefixes", frozenset().union(*map(prefixes_of, resources)))

    def with_claim(self, claim: Claim, stated: Stated) -> ToolFacts:
        """Return the facts joined with those of one more decorator."""
        returns = Returns.TRUSTED if stated.trusted else self.returns
        return _checked(
            ToolFacts(
                self.name,
                (*self.claims, claim),
                self.parameters,
                returns,
                self.evidence or stated.evidence,
                self.streams,
                self.signature,
                self.doc,
                (*self.directories, *stated.directories),
                self.preview or stated.preview,
                joined_care((self.care, stated.care)),
            )
        )


def read_facts(function: Callable[..., Any], claim: Claim, stated: Stated) -> ToolFacts:
    """Return the facts of *function* under its first decorator.

    Raises:
        MisuseError: an annotation cannot be resolved or checked, or the
            function returns plain data from outside.
    """
    name = getattr(function, "__qualname__", "tool").rpartition("<locals>.")[2]
    original = inspect.unwrap(function)
    hints = _hints(original, name)
    signature = inspect.signature(function)
    parameters = tuple(
        _parameter(one, hints.get(one.name, MISSING), function, position)
        for position, one in enumerate(signature.parameters.values())
    )
    shown = signature.replace(
        parameters=[
            one.replace(annotation=ours.shown)
            for one, ours in zip(signature.parameters.values(), parameters, strict=True)
        ],
        return_annotation=hints.get("return", MISSING),
    )
    returns = Returns.TRUSTED if stated.trusted else _returns(hints.get("return", MISSING))
    streams = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    doc = inspect.getdoc(function) or ""
    return _checked(
        ToolFacts(
            name,
            (claim,),
            parameters,
            returns,
            stated.evidence,
            streams,
            shown,
            doc,
            stated.directories,
            stated.preview,
            stated.care,
        )
    )


def _key_parameter(facts: ToolFacts, directory: Directory) -> str:
    """Return the parameter that takes the key of a directory, ``""`` for none.

    Raises:
        MisuseError: there is more than one that could, or not the one that is named.
    """
    takes = [facts.by_name[name] for name in facts.plain if not facts.by_name[name].closed]
    if directory.by:
        if directory.by not in {one.name for one in takes}:
            raise MisuseError(
                f"{facts.name}: Directory(by={directory.by!r}) names no plain text parameter"
            )
        return directory.by
    needed = [one.name for one in takes if one.default is MISSING]
    if directory.key and len(needed) > 1:
        raise MisuseError(
            f"{facts.name}: say which parameter takes the key: Directory(..., by={needed[0]!r})"
        )
    return needed[0] if needed else ""


def _checked(facts: ToolFacts) -> ToolFacts:
    retyped = facts.care.retype
    if retyped and retyped not in facts.plain:
        raise MisuseError(f"{facts.name}: Care(retype={retyped!r}) names no plain argument")
    if facts.external and facts.returns is Returns.PLAIN:
        raise MisuseError(
            f"{facts.name} reaches outside, so what it returns was written outside: annotate "
            "the return as Untrusted[...], as a closed type (None, bool, a number, Literal, an "
            'enum), or say returns="trusted"'
        )
    if facts.directories and facts.streams:
        raise MisuseError(f"{facts.name}: a stream is no directory; return a list")
    keyed = tuple((one, _key_parameter(facts, one)) for one in facts.directories)
    object.__setattr__(facts, "keyed", keyed)
    if facts.evidence and facts.returns is Returns.UNTRUSTED:
        raise MisuseError(f"{facts.name}: untrusted content is no evidence; drop evidence=True")
    if facts.changes and any(one.untrusted for one in facts.parameters):
        TAINTED_RESOURCES.add(facts.resources)
    return facts


def _definition(facts: ToolFacts) -> bytes:
    """Return the digest of all that a tool states about itself; the same in every process."""
    texts = [facts.name, facts.doc, facts.returns.value, str(facts.evidence), str(facts.streams)]
    texts.append(inspect.formatannotation(facts.signature.return_annotation))
    texts += (repr(claim) for claim in facts.claims)
    texts += (repr(one) for one in facts.directories)
    texts += (repr(facts.care),) if facts.care != NO_CARE else ()
    parts = [text.encode("utf-8", "surrogatepass") for text in texts]
    for one in facts.parameters:
        kind = (
            *(one.name, one.kind.name, one.untrusted, one.injected, one.composed, one.opens),
            *(word for word in _declared(one) if word),
        )
        parts += (repr(kind).encode(), inspect.formatannotation(one.shown).encode())
        parts.append(_default_bytes(one.default))
    framed = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return sha256(b"checkrein/tool/v1\n" + framed)


def _declared(one: Parameter) -> tuple[object, ...]:
    words = (one.sensitive and "sensitive", one.secret and "secret", one.erasable and "erasable")
    return (*words, one.refers)


def _default_bytes(default: Any) -> bytes:
    if default is MISSING:
        return b""
    try:
        return encode(freeze(content(default) if isinstance(default, Untrusted) else default))
    except Unfreezable:
        return type(default).__qualname__.encode()  # an object's address is not part of it


# -- annotations ---------------------------------------------------------------------------


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise MisuseError(
            f"{name}: the annotation {error.name!r} is not known where the function is decorated; "
            "define or import it at module level, above the function"
        ) from None
    except TypeError as error:
        raise MisuseError(f"{name}: its annotations cannot be resolved ({error})") from None


def _parameter(
    one: inspect.Parameter, hint: Any, function: Callable[..., Any], position: int
) -> Parameter:
    marks, hint = _split_marks(hint)
    receiver = position == 0 and hint is MISSING and _is_receiver(one.name, function)
    inside = receiver or Mark.INJECTED in marks or _is_injected_type(hint)
    opens = "" if inside or not _hashable(hint) else _FILES.get(hint, "")
    if opens:
        hint = str  # a caller gives the path; what the body gets is the grant's to open
    shown, untrusted = (hint, False) if inside else _plain(hint, one.name)
    exact, adapter = (None, None) if inside else _checker(shown, one)
    return Parameter(
        name=one.name,
        kind=one.kind,
        default=one.default,
        shown=shown,
        untrusted=untrusted,
        injected=inside,
        composed=Mark.COMPOSED in marks,
        sensitive=Mark.SENSITIVE in marks,
        secret=Mark.SECRET in marks,
        erasable=Mark.ERASABLE in marks,
        refers=next((word.kind for word in marks if isinstance(word, Refers)), ""),
        closed=not inside and is_closed(shown),
        exact=exact,
        adapter=adapter,
        opens=opens,
    )


def _is_receiver(name: str, function: Callable[..., Any]) -> bool:
    if name not in {"self", "cls"} or inspect.ismethod(function):
        return False
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    return bool(owner) and not owner.endswith("<locals>")


def _is_injected_type(hint: Any) -> bool:
    base = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    return (get_origin(base) or base) in _INJECTED_TYPES if _hashable(base) else False


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _split_marks(hint: Any) -> tuple[set[Mark | Refers], Any]:
    """Take our own words out of ``Annotated[...]``, so that no framework meets them."""
    if get_origin(hint) is not Annotated:
        return set(), hint
    inner, *words = get_args(hint)
    marks = {word for word in words if isinstance(word, Mark | Refers)}
    others = [word for word in words if not isinstance(word, Mark | Refers)]
    return marks, Annotated[(inner, *others)] if others else inner


def _plain(hint: Any, name: str) -> tuple[Any, bool]:
    """Return the annotation without ``Untrusted``, and whether it was there."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Untrusted:
        return Any, True
    if origin is Untrusted:
        return arguments[0], True
    if origin is Annotated:
        inner, untrusted = _plain(arguments[0], name)
        return Annotated[(inner, *arguments[1:])], untrusted
    if origin in {Union, types.UnionType}:
        parts = [_plain(one, name) for one in arguments]
        if any(untrusted for _, untrusted in parts):
            return Union[tuple(part for part, _ in parts)], True  # noqa: UP007 (built at run time)
        return hint, False
    if any(_mentions_untrusted(one) for one in arguments):
        raise MisuseError(
            f"parameter {name!r}: put Untrusted outside, Untrusted[list[str]] for example; "
            "inside a container the guard cannot label it"
        )
    return hint, False


def _mentions_untrusted(hint: Any) -> bool:
    return (
        hint is Untrusted
        or get_origin(hint) is Untrusted
        or any(_mentions_untrusted(one) for one in get_args(hint))
    )


_EXACT: Final[dict[Any, frozenset[type[Any]]]] = {
    str: frozenset({str}),
    int: frozenset({int}),
    float: frozenset({float, int}),  # as PEP 484 has it; bool is neither
    bool: frozenset({bool}),
    bytes: frozenset({bytes}),
    None: frozenset({type(None)}),
    type(None): frozenset({type(None)}),
}


_FILES: Final[dict[Any, str]] = {
    typing.BinaryIO: "binary",
    typing.IO[bytes]: "binary",
    typing.TextIO: "text",
    typing.IO[str]: "text",
}


def _checker(
    hint: Any, one: inspect.Parameter
) -> tuple[frozenset[type[Any]] | None, TypeAdapter[Any] | None]:
    if hint is MISSING or hint is Any or hint is object:
        return None, None
    if one.kind is inspect.Parameter.VAR_POSITIONAL:
        hint = tuple[hint, ...]
    elif one.kind is inspect.Parameter.VAR_KEYWORD:
        hint = dict[str, hint]
    elif _hashable(hint) and hint in _EXACT:
        return _EXACT[hint], None
    try:
        return None, TypeAdapter(hint)
    except Exception:  # noqa: BLE001 (pydantic has many ways to say no)
        reason = f"parameter {one.name!r}: {hint!r} is not plain data"
    raise MisuseError(
        f"{reason}; annotate it Annotated[..., injected] if the framework gives it, "
        "else use str, numbers, dates, lists, dicts, dataclasses or pydantic models"
    )


def is_closed(hint: Any) -> bool:
    """Say whether a type leaves no room for text: None, bool, a number, ``Literal``, an enum."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return is_closed(arguments[0])
    if origin in {Union, types.UnionType}:
        return all(is_closed(one) for one in arguments)
    if origin is Literal:
        return True
    if _hashable(hint) and hint in {None, type(None), bool, int, float}:
        return True
    return isinstance(hint, type) and issubclass(hint, Enum)


def _returns(hint: Any) -> Returns:
    while get_origin(hint) in _STREAMS:
        hint = get_args(hint)[0]
    if hint is MISSING:
        return Returns.PLAIN
    if _mentions_untrusted(hint):
        return Returns.UNTRUSTED
    return Returns.CLOSED if is_closed(hint) else Returns.PLAIN
