"""Attacks on the one frozen call: binding, freezing, encoding, digests, and what the body gets."""

from __future__ import annotations

import contextvars
import dataclasses
import enum
import inspect
import threading
import types
import unicodedata
import uuid
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, PrivateAttr

from checkrein import (
    CallbackGate,
    Grant,
    Run,
    Untrusted,
    allow,
    composed,
    definition_of,
    injected,
    irreversible,
    others,
    reads,
    writes,
)
from checkrein.constraints import anything, one_of, under
from checkrein.errors import Denied, MisuseError
from checkrein.freezing import Unfreezable, encode, freeze, thaw
from checkrein.testing import permit
from support import Asked, MemoryLog
from values.leaks import each, told_by

GOT: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_got() -> None:
    GOT.clear()


@reads("vcall.any")
def look(what: Any) -> int:
    GOT.append(what)
    return len(GOT)


LOOK = Grant(allow("vcall.any"))


# -- binding ---------------------------------------------------------------------------------

KINDS = [
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
]
NAMES = ["a", "b", "c", "d", "e", "f", "run", "self", "name", "kwargs"]


@st.composite
def signatures(draw: Any) -> str:
    """A parameter list in Python's own words, of any shape that Python allows."""
    names = draw(st.permutations(NAMES))
    sizes = [draw(st.integers(0, 2)) for _ in range(3)]
    parts: list[str] = []
    defaults = False

    def one(name: str, *, sticky: bool) -> str:
        nonlocal defaults
        with_default = draw(st.booleans()) or (sticky and defaults)
        if sticky:
            defaults = with_default
        return f"{name}={draw(st.integers(0, 9))}" if with_default else name

    parts += [one(names.pop(), sticky=True) for _ in range(sizes[0])]
    if parts:
        parts.append("/")
    parts += [one(names.pop(), sticky=True) for _ in range(sizes[1])]
    star = draw(st.sampled_from(["", "*", "*rest"]))
    keyword_only = [one(names.pop(), sticky=False) for _ in range(sizes[2])] if star else []
    if star == "*rest" or keyword_only:
        parts.append(star)
    parts += keyword_only
    if draw(st.booleans()):
        parts.append("**more")
    return ", ".join(parts)


def tool_of(parameters: str) -> tuple[Any, Any]:
    """Return a function with *parameters* that returns what it got, and its guarded twin."""
    space: dict[str, Any] = {}
    exec(
        f"def twin({parameters}) -> int:\n    GOT.append(dict(locals()))\n    return 1",
        globals(),
        space,
    )
    return space["twin"], reads("vcall.twin")(space["twin"])


TWIN = Grant(allow("vcall.twin"))


@example(parameters="kwargs=0", args=[], kwargs={"a": 20})
@example(parameters="a, b=0", args=[10], kwargs={"other": 20})
@example(parameters="a, b=0", args=[10], kwargs={"a": 20})
@example(parameters="a, /, **more", args=[10], kwargs={"a": 20})
@example(parameters="*, a, **more", args=[], kwargs={"a": 20, "other": 21})
@given(
    parameters=signatures(),
    args=st.lists(st.integers(10, 19), max_size=5),
    kwargs=st.dictionaries(
        st.sampled_from([*NAMES, "rest", "more", "other"]), st.integers(20, 29), max_size=5
    ),
)
def test_binding_is_what_python_does(parameters: str, args: list[int], kwargs: dict[str, int]):
    """For any signature and any call, the guard binds as inspect does, and refuses what it does."""
    plain, guarded = tool_of(parameters)
    signature = inspect.signature(plain)
    GOT.clear()
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        with Run(agent="tester", grant=TWIN), pytest.raises(MisuseError):
            guarded(*args, **kwargs)
        assert GOT == []
        return
    bound.apply_defaults()
    with Run(agent="tester", grant=TWIN):
        assert guarded(*args, **kwargs) == 1
    assert GOT == [bound.arguments]
    plain(*args, **kwargs)
    assert GOT[0] == GOT[1]


def test_the_missing_marker_is_no_value():
    """inspect's own sign for 'no default', passed as a value, is refused like any object."""
    with Run(agent="tester", grant=LOOK), pytest.raises(Denied):
        look(inspect.Parameter.empty)
    assert GOT == []


def test_a_misbound_call_tells_no_value():
    """Names may be told, values never: not in the message and not in its context."""
    value = "very-" + "secret-name"
    with Run(agent="tester", grant=LOOK):
        for args, kwargs in (((value, value), {}), ((value,), {"what": value}), ((), {"x": value})):
            with pytest.raises(MisuseError) as caught:
                look(*args, **kwargs)
            assert "very-secret" not in told_by(caught.value)


def test_a_keyword_with_a_marker_never_overrides_a_checked_argument():
    """A key of **kwargs that becomes a parameter's name without its marker is no such argument."""

    @reads("vcall.override")
    def fetch(*, path: str, **options: Any) -> int:
        GOT.append((path, options))
        return 1

    grant = Grant(allow("vcall.override", others(anything), path=one_of(["ok.txt"])))
    with Run(agent="tester", grant=grant) as run:
        opening = str(Untrusted("x")).splitlines()[0]
        closing = str(Untrusted("x")).splitlines()[-1]
        for key in (f"{opening}path", f"path{closing}", f"{opening}path{closing}"):
            try:
                fetch(**{"path": "ok.txt", key: "/etc/passwd"})
            except (Denied, MisuseError):
                continue
    assert run.exposed or not GOT
    assert [path for path, _ in GOT if path != "ok.txt"] == []


def test_a_keyword_with_a_marker_never_collides_with_a_positional_parameter():
    """The same for a parameter that can be passed by position: a denial, not a crash."""

    @reads("vcall.collide")
    def fetch(path: str, **options: Any) -> int:
        GOT.append((path, options))
        return 1

    with Run(agent="tester", grant=Grant(allow("vcall.collide"))):
        opening = str(Untrusted("x")).splitlines()[0]
        try:
            fetch("ok.txt", **{f"{opening}path": "/etc/passwd"})
        except (Denied, MisuseError):
            assert GOT == []
        else:
            assert GOT[0][0] == "ok.txt"


# -- freezing and thawing --------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"
    BLUE = ["blue"]


class Bits(enum.Flag):
    ONE = 1
    TWO = 2


@dataclasses.dataclass
class Point:
    x: Any = 0
    y: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    x: Any = 0


class Letter(BaseModel):
    to: Any = None
    parts: Any = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    to: Any = None


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.text(st.characters(categories=["Cs", "Mn", "Lu", "Nd"]), max_size=4)
    | st.binary(max_size=8)
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-1000, max_value=1000)
    | st.uuids()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(ZoneInfo("Europe/Rome")))
    | st.times()
    | st.timedeltas()
    | st.sampled_from([*Colour, Bits.ONE, Bits.ONE | Bits.TWO, PurePosixPath("a/b"), Path("/x")])
)
HASHABLE = SCALARS.filter(lambda one: one is not Colour.BLUE)
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
        | st.builds(Point, inner, inner)
        | st.builds(Fixed, inner)
        | st.builds(Letter, to=inner)
        | st.builds(lambda a, b: Open(to=a, more=b), inner, inner)
    ),
    max_leaves=8,
)


def spelled(value: Any) -> Any:
    """Return a text that tells apart all values and types that an encoding has to tell apart."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, enum.Enum):
        return (name, repr(value))
    if kind in {list, tuple}:
        return (name, tuple(spelled(one) for one in value))
    if kind in {set, frozenset}:
        return (name, tuple(sorted(repr(spelled(one)) for one in value)))
    if kind is dict:
        pairs = ((repr(spelled(key)), spelled(one)) for key, one in value.items())
        return (name, tuple(sorted(pairs, key=lambda pair: pair[0])))
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return (name, tuple((one.name, spelled(getattr(value, one.name))) for one in fields))
    if isinstance(value, BaseModel):
        return (name, spelled(dict(value)))
    return (name, repr(value))


@given(value=NESTED)
def test_thawing_what_was_frozen_gives_an_equal_value(value: Any):
    """Every kind of plain data comes back equal, type for type, all the way down."""
    assert spelled(thaw(freeze(value))) == spelled(value)


def spoil(value: Any) -> None:
    """Change everything in *value* that can be changed."""
    if isinstance(value, list):
        for one in value:
            spoil(one)
        value.append("spoilt")
    elif isinstance(value, dict):
        for one in value.values():
            spoil(one)
        value["spoilt"] = True
    elif isinstance(value, set):
        value.add("spoilt")
    elif isinstance(value, tuple):
        for one in value:
            spoil(one)
    elif isinstance(value, Point | Letter | Open):
        for one in list(vars(value).values()):
            spoil(one)
        name = "x" if isinstance(value, Point) else "to"
        setattr(value, name, "spoilt")
    elif isinstance(value, Fixed):
        spoil(value.x)


@given(value=NESTED)
def test_changing_the_original_or_a_copy_changes_nothing_frozen(value: Any):
    """The frozen form shares nothing that can change with what it was made of, or thaws to."""
    frozen = freeze(value)
    before = encode(frozen)
    expected = spelled(value)
    first = thaw(frozen)
    spoil(value)
    spoil(first)
    assert encode(frozen) == before
    assert spelled(thaw(frozen)) == expected


@given(one=NESTED, other=NESTED)
def test_the_encoding_tells_apart_what_differs(one: Any, other: Any):
    """Two values share an encoding if and only if they are the same value of the same type."""
    same = spelled(one) == spelled(other)
    assert (encode(freeze(one)) == encode(freeze(other))) == same


DISTINCT = [
    None,
    False,
    True,
    0,
    1,
    -1,
    0.0,
    -0.0,
    1.0,
    "",
    "1",
    "0",
    b"",
    b"1",
    "None",
    "True",
    "n",
    "t",
    Decimal(1),
    Decimal("1.0"),
    Decimal("-0"),
    Decimal(0),
    "\u00e9",
    "e\u0301",
    "\ud800",
    "\udc80",
    "\ud800\udc00",
    "\U00010000",
    "\ufffd",
    [],
    (),
    {},
    set(),
    frozenset(),
    [1],
    (1,),
    {1},
    frozenset({1}),
    {1: None},
    {"1": None},
    {True: None},
    {1.0: None},
    {b"1": None},
    [[]],
    [()],
    ([],),
    [[], []],
    [[[]]],
    [None],
    [1, 2],
    [2, 1],
    [12],
    ["1", "2"],
    ["12"],
    ["1", ""],
    ["", "1"],
    {"a": 1, "b": 2},
    {"a": 2, "b": 1},
    {"a": {"b": 1}},
    [("a", 1)],
    {("a", 1): 2},
    "i1;",
    "s1:1",
    "l0:",
    b"i1;",
    date(2026, 6, 13),
    datetime(2026, 6, 13),
    datetime(2026, 6, 13, tzinfo=UTC),
    datetime(2026, 6, 13, fold=1),
    "2026-06-13",
    datetime(2026, 6, 13, tzinfo=timezone(timedelta(hours=1))),
    time(1),
    time(1, tzinfo=UTC),
    time(1, fold=1),
    timedelta(1),
    timedelta(0, 1),
    uuid.UUID(int=1),
    str(uuid.UUID(int=1)),
    Colour.RED,
    Colour.BLUE,
    "red",
    Bits.ONE,
    Bits.TWO,
    Bits.ONE | Bits.TWO,
    Bits(0),
    Path("a"),
    PurePosixPath("a"),
    "a",
    Point(1),
    Point("1"),
    Point(1, 1),
    Fixed(1),
    Letter(to=1),
    Letter(to="1"),
    Open(to=1),
    Open(to=1, more=1),
    Open(to=1, more="1"),
]


def test_no_two_of_many_awkward_values_share_an_encoding():
    """1, 1.0, True, "1", b"1", two spellings of é, surrogates, zeros, containers: all differ."""
    codes: dict[bytes, Any] = {}
    for value in DISTINCT:
        code = encode(freeze(value))
        assert code not in codes, (value, codes.get(code))
        codes[code] = value


def test_the_order_of_a_dict_or_a_set_does_not_matter():
    """What Python holds to be one value has one encoding."""
    assert encode(freeze({"a": 1, "b": [2]})) == encode(freeze({"b": [2], "a": 1}))
    assert encode(freeze({3, 1, 2})) == encode(freeze({2, 3, 1}))
    assert encode(freeze(Open(to=1, a=1, b=2))) == encode(freeze(Open(to=1, b=2, a=1)))


def test_which_fields_of_a_model_were_given_is_part_of_the_call():
    """A patch that sets a field to its default is not the patch that leaves it alone."""
    left_alone, set_to_none = Letter(), Letter(to=None)
    bodies_see = [
        thaw(freeze(one)).model_dump(exclude_unset=True) for one in (left_alone, set_to_none)
    ]
    assert bodies_see == [{}, {"to": None}]
    assert encode(freeze(left_alone)) != encode(freeze(set_to_none))


def test_members_of_enums_that_share_a_name_are_told_apart_by_value():
    """Two classes of one name, made in one function, do not share their members' digests."""

    def make(value: str) -> Any:
        class Mode(enum.Enum):
            ON = value

        return Mode.ON

    assert encode(freeze(make("read"))) != encode(freeze(make("delete")))


@pytest.mark.parametrize(
    "value",
    each(
        [
            (1, [2, {"k": ({3}, b"x")}]),
            [Point([1], {"a": (2,)})],
            {"when": datetime(2026, 6, 13, tzinfo=ZoneInfo("Europe/Rome"))},
            frozenset({(1, "a"), "b"}),
        ]
    ),
)
def test_freezing_what_is_frozen_changes_nothing(value: Any):
    """A constraint may hand back the frozen value it was given, containers included."""
    frozen = freeze(value)
    assert encode(freeze(frozen)) == encode(frozen)


def test_unhashable_frozen_forms_are_refused_in_our_own_words():
    """A set of frozen dataclasses is data; if it is refused, then as Unfreezable."""
    for value in ({Fixed(1)}, frozenset({Fixed(1)}), {Fixed(1): 2}):
        try:
            frozen = freeze(value)
        except Unfreezable:
            continue
        assert spelled(thaw(frozen)) == spelled(value)


# -- what is no plain data -------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Whole(int):
    pass


class Mapping(dict):
    pass


class Private(BaseModel):
    to: str = ""
    _secret: str = PrivateAttr(default="x")


class Holder:
    def __init__(self) -> None:
        self.to = "x"


@dataclasses.dataclass
class TextData(str):  # noqa: SLOT000
    x: int = 1

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return super().__new__(cls, "payload")


@dataclasses.dataclass
class DictData(dict):
    x: int = 1


class Shifty(Point):
    """A dataclass by inheritance whose field is code."""

    def __init__(self) -> None:
        self.asked = 0

    @property
    def x(self) -> int:
        return 3


class Computed(Point):
    """The same without any attribute of its own."""

    x = property(lambda _: 3)  # type: ignore[assignment]

    def __init__(self) -> None:
        object.__setattr__(self, "y", 1)


class Raising(BaseModel):
    to: Any = None

    def __getattribute__(self, name: str) -> Any:
        if name == "__dict__":
            raise RuntimeError("very-secret")
        return super().__getattribute__(name)


class Zone(tzinfo):
    """A time zone that is code: it may answer differently each time, or not at all."""

    def utcoffset(self, _: Any) -> Any:
        raise RuntimeError("very-secret")

    def tzname(self, _: Any) -> str:
        return "very-secret"

    dst = utcoffset


def cyclic_list() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


def cyclic_dict() -> dict[str, Any]:
    one: dict[str, Any] = {}
    one["one"] = {"two": [one]}
    return one


def cyclic_model() -> Letter:
    one = Letter()
    one.to = [one]
    return one


def deep(levels: int) -> Any:
    value: Any = "leaf"
    for _ in range(levels):
        value = [value]
    return value


def extra_attribute() -> Point:
    one = Point(1, 2)
    one.note = "smuggled"  # type: ignore[attr-defined]
    return one


Pair = namedtuple("Pair", "a b")  # noqa: PYI024

NO_DATA = [
    float("nan"),
    float("inf"),
    float("-inf"),
    [float("nan")],
    {"k": float("inf")},
    (1, [float("nan")]),
    Decimal("NaN"),
    Decimal("sNaN"),
    Decimal("Infinity"),
    [Decimal("sNaN")],
    complex(1, 2),
    Fraction(1, 2),
    2**9000,
    [-(2**9000)],
    cyclic_list(),
    cyclic_dict(),
    cyclic_model(),
    deep(40),
    deep(2000),
    deep(100_000),
    iter([1]),
    (one for one in "ab"),
    range(3),
    zip([1], [2]),
    map(str, [1]),
    open,
    print,
    len,
    object(),
    object,
    int,
    type,
    Point,
    Letter,
    lambda: 1,
    threading.Lock(),
    threading,
    NotImplemented,
    ...,
    slice(1),
    bytearray(b"x"),
    memoryview(b"x"),
    deque([1]),
    OrderedDict(a=1),
    defaultdict(list),
    Counter("ab"),
    types.SimpleNamespace(a=1),
    types.MappingProxyType({"a": 1}),
    Pair(1, 2),
    {1: 2}.keys(),
    {1: 2}.items(),
    Text("x"),
    [Text("x")],
    {Text("k"): 1},
    {"k": Text("v")},
    Whole(1),
    [Whole(1)],
    Mapping(a=1),
    type("Floaty", (float,), {})(1.0),
    type("Bytey", (bytes,), {})(b"x"),
    type("L", (list,), {})([1]),
    type("T", (tuple,), {})((1,)),
    type("S", (set,), {})({1}),
    type("D", (date,), {})(2026, 1, 1),
    type("DT", (datetime,), {})(2026, 1, 1),
    type("P", (PurePosixPath,), {})("a"),
    Private(to="x"),
    [Private()],
    Holder(),
    extra_attribute(),
    [extra_attribute()],
    TextData(),
    DictData(),
    Shifty(),
    Computed(),
    Raising(),
    datetime(2026, 1, 1, tzinfo=Zone()),
    ValueError("x"),
    Untrusted("x"),
    [Untrusted("x")],
    {"k": Untrusted("x")},
    (Untrusted("x"),),
    freeze(Point(1)),
]


@pytest.mark.parametrize("value", each(NO_DATA))
def test_what_is_no_plain_data_is_denied_and_logged(value: Any):
    """Objects, subclasses, cycles, depth, lazies, numbers that are none: Denied, and recorded."""
    log = MemoryLog()
    with Run(agent="tester", grant=LOOK, log=log), pytest.raises(Denied) as caught:
        look(value)
    assert caught.value.rule == "call.malformed"
    assert caught.value.arguments == ("what",)
    assert "very-secret" not in told_by(caught.value)
    assert GOT == []
    assert log.of("call.denied")


@pytest.mark.parametrize("value", each(NO_DATA))
def test_freezing_no_data_raises_unfreezable_and_nothing_else(value: Any):
    """The room below keeps its word, too: one exception, or a frozen value that thaws."""
    if type(value) in {Raising, Zone, datetime}:
        with pytest.raises((Unfreezable, RuntimeError)):
            freeze(value)
        return
    with pytest.raises(Unfreezable):
        thaw(freeze(value))


def test_slots_beyond_the_fields_never_reach_the_body():
    """An attribute that is no field is refused or left behind; it is not smuggled along."""

    class Wide(Fixed):
        __slots__ = ("note",)

    one = Wide(1)
    object.__setattr__(one, "note", "smuggled")
    with Run(agent="tester", grant=LOOK):
        try:
            look(one)
        except Denied:
            return
    assert not hasattr(GOT[0], "note")


@pytest.mark.parametrize(
    "value", each([deep(30), 2**8191, {"k": [(1, {2})]}, Point([1]), Open(more=1)])
)
def test_plain_data_passes(value: Any):
    """The control: depth, size and composite data within the limits."""
    with Run(agent="tester", grant=LOOK):
        look(value)
    assert GOT[0] == value


def test_a_custom_zone_is_replaced_by_its_offset():
    """A zone that is code does not travel into the body; what it said at the call does."""

    class Ticking(tzinfo):
        asked = 0

        def utcoffset(self, _: Any) -> timedelta:
            Ticking.asked += 1
            return timedelta(hours=Ticking.asked)

        def tzname(self, _: Any) -> str:
            return "ticking"

        def dst(self, _: Any) -> timedelta:
            return timedelta()

    with Run(agent="tester", grant=LOOK):
        look(datetime(2026, 1, 1, tzinfo=Ticking()))
    assert GOT[0].tzinfo == timezone(timedelta(hours=1))


def test_tiny_decimals_cost_no_memory():
    """A Decimal of a few letters never becomes a text of millions, in the rules or in the log."""
    import tracemalloc

    @irreversible("vcall.decimal", external=True)
    def pay(amount: Decimal) -> None:
        GOT.append(amount)

    asked = Asked(answer=False)
    value = Decimal("1E-5000000")
    tracemalloc.start()
    try:
        with Run(
            agent="t", grant=Grant(allow("vcall.decimal")), gate=asked.gate, exposed=True
        ) as run:
            run.instruct("pay 1")
            with pytest.raises(Denied):
                pay(value)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


# -- digests ---------------------------------------------------------------------------------


def digests(tool: Any, *calls: tuple[Any, ...]) -> list[str]:
    """Return what the log of one run holds as the digests of *calls*, salted alike."""
    log = MemoryLog()
    with permit(log=log):
        for args in calls:
            tool(*args)
    return [event["digest"] for event in log.of("call.allowed")]


@reads("vcall.digest")
def pair(a: Any, b: Any = None) -> int:
    return 1


@given(one=st.tuples(NESTED, NESTED), other=st.tuples(NESTED, NESTED))
def test_the_digest_of_a_call_is_that_of_its_arguments(one: Any, other: Any):
    """Equal arguments, equal digests; any difference in any argument, another digest."""
    first, second, again = digests(pair, one, other, one)
    assert (first == second) == (spelled(one) == spelled(other))
    assert first == again


def test_arguments_do_not_slide_into_one_another():
    """Names and values are framed: what stands at a border belongs to one side."""
    calls = [
        ("", "s1:b"),
        ("s1:b", ""),
        ("a", "b"),
        ("ab", ""),
        ("b", "a"),
        (["a"], "b"),
        (["a", "b"], ""),
    ]
    assert len(set(digests(pair, *calls))) == len(calls)


def test_payload_counts_for_the_digest():
    """The content of an untrusted argument is part of what a person approves."""

    @reads("vcall.payload")
    def take(body: Untrusted[str]) -> int:
        return 1

    one, other, same = digests(take, ("x",), (Untrusted("y"),), (Untrusted("x"),))
    assert one != other
    assert one == same


def plain(to: str) -> int:
    """Act."""
    return 1


def untrusted(to: Untrusted[str]) -> int:
    """Act."""
    return 1


def given_by_host(to: Annotated[str, injected]) -> int:
    """Act."""
    return 1


def worded(to: Annotated[str, composed]) -> int:
    """Act."""
    return 1


def number(to: int) -> int:
    """Act."""
    return 1


def default(to: str = "x") -> int:
    """Act."""
    return 1


def other_name(where: str) -> int:
    """Act."""
    return 1


def keyword(*, to: str) -> int:
    """Act."""
    return 1


def more(to: str, cc: str = "") -> int:
    """Act."""
    return 1


def other_doc(to: str) -> int:
    """Act, and more."""
    return 1


def other_return(to: str) -> bool:
    """Act."""
    return True


for _one in (
    plain,
    untrusted,
    given_by_host,
    worded,
    number,
    default,
    other_name,
    keyword,
    more,
    other_doc,
    other_return,
):
    _one.__qualname__ = "act"

DEFINITIONS = {
    "plain": reads("vcall.def")(plain),
    "untrusted": reads("vcall.def")(untrusted),
    "injected": reads("vcall.def")(given_by_host),
    "composed": reads("vcall.def")(worded),
    "type": reads("vcall.def")(number),
    "default": reads("vcall.def")(default),
    "name": reads("vcall.def")(other_name),
    "kind": reads("vcall.def")(keyword),
    "parameter": reads("vcall.def")(more),
    "doc": reads("vcall.def")(other_doc),
    "return": reads("vcall.def")(other_return),
    "effect": writes("vcall.def")(plain),
    "resource": reads("vcall.def2")(plain),
    "external": reads("vcall.def", external=True)(plain),
    "private": reads("vcall.def", private=True)(plain),
    "evidence": reads("vcall.def", evidence=True)(plain),
    "returns": reads("vcall.def", returns="trusted")(plain),
    "stacked": reads("vcall.def")(reads("vcall.def2")(plain)),
}


@pytest.mark.parametrize("changed", [name for name in DEFINITIONS if name != "plain"])
def test_a_changed_definition_is_another_tool(changed: str):
    """Whatever a tool declares about itself is in its definition, so that a pin notices."""
    pinned = definition_of(DEFINITIONS["plain"])
    assert definition_of(DEFINITIONS[changed]) != pinned
    tool = DEFINITIONS[changed]
    grant = Grant(allow("vcall.def"), allow("vcall.def2"))
    with Run(agent="tester", grant=grant, pins={"act": pinned}) as run:
        name = next(iter(inspect.signature(tool).parameters))
        value = 1 if changed == "type" else "x"
        rules = {one.rule for one in run.explain(tool, **{name: value}).findings}
    assert "tool.changed" in rules


def test_two_decorations_of_one_function_are_one_definition():
    """A pin made in one process holds in the next: nothing random is in a definition."""
    assert definition_of(reads("vcall.def")(plain)) == definition_of(DEFINITIONS["plain"])
    sentinel_one, sentinel_two = object(), object()

    def one(to: Annotated[Any, injected] = sentinel_one) -> int:
        return 1

    def two(to: Annotated[Any, injected] = sentinel_two) -> int:
        return 1

    one.__qualname__ = two.__qualname__ = "act"
    assert definition_of(reads("vcall.def")(one)) == definition_of(reads("vcall.def")(two))


# -- what was shown is what runs -------------------------------------------------------------


@irreversible("vcall.send")
def send(to: list[str], options: dict[str, Any], point: Point | None = None) -> None:
    GOT.append((to, options, point))


SEND = Grant(allow("vcall.send"))


def test_what_a_gate_changes_does_not_reach_the_body():
    """A gate that keeps the caller's objects, and changes them, changes nothing that runs."""
    to, options, point = ["dana"], {"cc": ["bob"]}, Point(["x"])

    def meddle(confirmation: Any) -> bool:
        to.append("eve")
        options["cc"].append("eve")
        options["bcc"] = "eve"
        point.x.append("eve")
        for shown in confirmation.arguments:
            thawed = thaw(shown.value)
            spoil(thawed)
        return True

    with Run(agent="tester", grant=SEND, gate=CallbackGate(meddle)):
        send(to, options, point)
    assert GOT == [(["dana"], {"cc": ["bob"]}, Point(["x"]))]


def test_what_another_thread_changes_during_the_question_does_not_reach_the_body():
    """Between question and body the caller's list belongs to nobody."""
    to: list[str] = ["dana"]
    asked, changed = threading.Event(), threading.Event()

    def elsewhere() -> None:
        asked.wait(5)
        to[:] = ["eve"]
        changed.set()

    def ask(_: Any) -> bool:
        asked.set()
        return changed.wait(5)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    with Run(agent="tester", grant=SEND, gate=CallbackGate(ask)):
        send(to, {})
    thread.join()
    assert GOT == [(["dana"], {}, None)]


def test_a_list_that_changes_while_it_is_read_is_one_list_or_a_denial():
    """A caller that races the freezing gets one consistent call, or Denied, never a crash."""
    shared: dict[str, int] = {str(n): n for n in range(2000)}
    stop = threading.Event()

    def race() -> None:
        n = 0
        while not stop.is_set():
            shared[f"x{n % 50}"] = n
            shared.pop(f"x{(n + 25) % 50}", None)
            n += 1

    thread = threading.Thread(target=race)
    thread.start()
    try:
        with Run(agent="tester", grant=LOOK):
            for _ in range(30):
                try:
                    look(shared)
                except Denied as error:
                    assert error.rule == "call.malformed"  # noqa: PT017
    finally:
        stop.set()
        thread.join()
    assert all(isinstance(one, dict) for one in GOT)


def test_what_a_body_changes_does_not_reach_the_next_call_or_the_default():
    """Each body gets fresh values: a default that is a list stays as the developer wrote it."""

    @writes("vcall.default")
    def add(item: str, to: list[str] = ["first"]) -> list[str]:
        to.append(item)
        return to

    with permit():
        assert add("a") == ["first", "a"]
        assert add("b") == ["first", "b"]
        mine = ["mine"]
        add("c", mine)
        assert mine == ["mine"]


def test_every_reader_of_a_call_sees_the_same_arguments():
    """Gate, log and body agree about what was called, markers taken out, paths made real."""

    @irreversible("vcall.readers")
    def act(path: str, note: str) -> None:
        GOT.append((path, note))

    log, asked = MemoryLog(), Asked()
    grant = Grant(allow("vcall.readers", path=under("/srv/r"), note=anything))
    with Run(agent="tester", grant=grant, gate=asked.gate, log=log):
        act("a/../b", str(Untrusted("hello")))
    shown = {one.name: one.value for one in asked.confirmations[0].arguments}
    assert GOT == [("/srv/r/b", "hello")]
    assert shown == log.of("call.allowed")[0]["arguments"] == {"path": "/srv/r/b", "note": "hello"}


def test_normal_forms_of_text_are_not_folded():
    """The body gets the very letters that were checked."""
    with Run(agent="tester", grant=LOOK):
        for form in ("NFC", "NFD"):
            look(unicodedata.normalize(form, "caf\u00e9"))
    assert GOT[0] != GOT[1]


def test_calls_in_a_copied_context_get_their_own_values():
    """Parallel calls with one shared argument do not see each other's changes."""

    @writes("vcall.parallel")
    def grow(items: list[int]) -> int:
        items += [1] * 100
        return len(items)

    shared = [0]
    results: list[int] = []
    with permit():
        contexts = [contextvars.copy_context() for _ in range(8)]
        threads = [
            threading.Thread(target=lambda c=c: results.append(c.run(grow, shared)))
            for c in contexts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [101] * 8
    assert shared == [0]
