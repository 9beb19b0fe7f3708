"""Constraints made of constraints, lengths, openers, and what generated spellings get past none."""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from checkrein import constraints as c
from checkrein.conditions import Opener, Refused
from checkrein.errors import ConfigurationError
from checkrein.freezing import encode, freeze, thaw


def passes(constraint: Any, value: Any) -> bool:
    try:
        constraint.normalise(freeze(value))
    except Refused:
        return False
    return True


# -- generated spellings ---------------------------------------------------------------------


def spellings(address: str) -> set[str]:
    """Return the ways in which resolvers read an IPv4 address, other than the usual one."""
    parts = [int(one) for one in address.split(".")]
    number = int(ipaddress.ip_address(address))
    written: set[str] = set()
    for forms in itertools.product((str, hex, lambda n: f"0{n:o}", lambda n: f"{n:03}"), repeat=2):
        first, rest = forms
        written.add(".".join([first(parts[0]), *map(rest, parts[1:])]))
        written.add(f"{first(parts[0])}.{rest(number & 0xFFFFFF)}")
        written.add(f"{first(parts[0])}.{rest(parts[1])}.{rest(number & 0xFFFF)}")
        written.add(first(number))
    written |= {f"{one}." for one in [address, *written]}
    written |= {f"[::ffff:{address}]", f"[::{address}]", f"[64:ff9b::{address}]", f"{address}%25lo"}
    written |= {address.replace(".", "\u3002"), address.replace(".", "%2e"), f"0{address}"}
    return written - {address}


PRIVATE = ["127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.0.1", "0.0.0.0"]


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("allowed", ["good.com", "*", "*.good.com"])
def test_no_spelling_of_a_private_address_is_a_host(address: str, allowed: str):
    """Decimal, octal, hex, short, mapped, dotted at the end: none of them is a name."""
    tried = {*spellings(address), address}
    assert len(tried) > 30
    for one in tried:
        for url in (f"https://{one}/", f"https://{one}:443/x", f"https://good.com@{one}/"):
            assert not passes(c.host(allowed), url), url


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1"])
def test_a_listed_address_is_allowed_in_its_usual_spelling_only(address: str):
    """Who lists an address has asked for it, and for no other way to write it."""
    listed = c.host(address)
    assert listed.normalise(f"https://{address}/x") == f"https://{address}/x"
    for one in spellings(address):
        assert not passes(listed, f"https://{one}/x"), one
        if one.isascii():
            with pytest.raises(ConfigurationError):
                c.host(one.replace("%25lo", "%lo"))


@pytest.mark.parametrize(
    "name",
    ["localhost", "a.localhost", "printer.local", "db.internal", "router.home.arpa", "x.test"]
    + ["a.invalid", "metadata", "x.lan", "a.corp", "1.168.192.in-addr.arpa", "www.example"],
)
def test_every_public_host_is_no_private_name(name: str):
    """* stands for names that look public, unless private=True."""
    assert not passes(c.host("*"), f"https://{name}/")
    assert passes(c.host("*", private=True), f"https://{name}/")
    assert passes(c.host(name), f"https://{name}/")


LOOKALIKES = [
    chr(point)
    for point in range(0x80, 0x11000)
    if set(unicodedata.normalize("NFKC", chr(point))) & set("/.\\:@?#")
]


def test_look_alikes_of_separators_are_refused_everywhere(tmp_path: Path):
    """Every letter that some layer may normalise to a separator."""
    assert len(LOOKALIKES) > 20
    for letter in LOOKALIKES:
        for text in (f"{letter}{letter}/secret", f"a{letter}b", f"..{letter}secret"):
            odd = set(unicodedata.normalize("NFKC", letter)) & set("/.\\:")
            assert not (odd and passes(c.under(tmp_path), text)), ascii(letter)
        for url in (f"https://good.com{letter}evil.com/", f"https://evil.com{letter}good.com/"):
            assert not passes(c.host("good.com"), url), ascii(letter)
        assert not passes(c.email_domain("good.com"), f"a{letter}evil.com@good.com"), ascii(letter)


CONTROLS = [chr(n) for n in (*range(0x21), 0x7F, 0x85, 0xA0, 0xAD, 0x200B, 0x200E, 0x2028, 0x202E)]


@pytest.mark.parametrize("place", range(4))
def test_control_and_invisible_letters_are_refused_anywhere(place: int, tmp_path: Path):
    """In hosts, paths, addresses and patterns, at the start, inside, and at the end."""
    for letter in CONTROLS:
        url = "https://good.com/x"
        at = (0, 8, 12, 16)[place]
        assert not passes(c.host("good.com"), url[:at] + letter + url[at:]), ascii(letter)
        address = "dana@good.com"
        at = (0, 4, 5, 13)[place]
        assert not passes(c.email_domain("good.com"), address[:at] + letter + address[at:])
        if letter != " ":  # a blank is a letter of many file names
            at = (0, 1, 3, 5)[place]
            assert not passes(c.under(tmp_path), "a/b.c"[:at] + letter + "a/b.c"[at:])
        assert not passes(c.matches("[a-z]{3}"), "abc"[:place] + letter + "abc"[place:])
        assert not passes(c.one_of(["abc"]), "abc"[:place] + letter + "abc"[place:])


USERINFO = ["good.com", "a:b", "good.com:443", "%40", "good.com%2f", "a%3ab", "", ":"]


@pytest.mark.parametrize("user", USERINFO)
@pytest.mark.parametrize(
    "scheme", ["https://", "https:/", "https:", "//", "HTTPS://", "https:\\\\"]
)
def test_nothing_before_an_at_sign_names_the_host(user: str, scheme: str):
    """Userinfo in any form, and schemes with slashes missing or turned."""
    assert not passes(c.host("good.com"), f"{scheme}{user}@evil.com/")
    assert not passes(c.host("good.com"), f"{scheme}evil.com/@good.com")


@pytest.mark.parametrize(
    "port", ["", "0", "80", "8443", "65536", "99999", "443a", "-1", " 443", "٤"]
)
def test_only_the_usual_port_is_usual(port: str):
    """And a listed one; 0443 is 443 for some and not for others."""
    assert not passes(c.host("good.com"), f"https://good.com:{port}/")
    assert passes(c.host("good.com", ports=(8443,)), "https://good.com:8443/")


@pytest.mark.parametrize(
    "rest", ["/%zz", "/%", "/%4", "?a=%g1", "#%", "/a b", "/é", "/<x>", "/^", "/`"]
)
def test_what_is_no_url_path_is_refused(rest: str):
    """Percent signs that encode nothing are read differently by different clients."""
    assert not passes(c.host("good.com"), f"https://good.com{rest}")


NUMBERS: list[Any] = [
    *(True, False, None, "50", " 50", "5e1", b"50", [50], (50,), {"a": 50}, 50 + 0j),
    *(float("nan"), -float("nan"), float("inf"), -float("inf"), Decimal("NaN"), Decimal("sNaN")),
    *(Decimal("Infinity"), 10**400, -(10**400), 100.00000000001, 0.99999999999, Decimal("100.1")),
    *("٥٠", "½", "0x32", "1_0", "", "None", "nan", 0, -0.0, 101, -50, 1e308, -1e308, 2**63, 2**64),
]


def test_what_is_no_number_in_the_interval_is_refused():
    """Not a number, no number at all, and numbers just outside."""
    for value in NUMBERS:
        try:
            frozen = freeze(value)
        except Exception:
            frozen = value
        with pytest.raises(Refused):
            c.between(1, 100).normalise(frozen)
    for value in (1, 100, 50.5, Decimal("99.9"), 1.0):
        assert c.between(1, 100).normalise(value) is value


# -- patterns --------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["a", "b", "1", ".", "_", "-", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r"\.", "[ab]", "[^a]"]
    + [
        r"[\d_]",
        r"[^\w]",
        r"[\s-]",
        "(?:ab)",
        "(?:a|b)",
        "a*",
        "b+",
        "[a-c]?",
        r"\w{2,3}",
        "é",
        "^",
    ]
    + [
        r"\b",
        r"\B",
        "$",
        r"\A",
        r"\Z",
        r"\n",
        r"\t",
        "(a)",
        "a{2}",
        "b*?",
        r"[\]\\]",
        "[.]",
        "(?:)",
    ]
)
TEXTS = st.text("ab1._- \n\té٣\u2028K", max_size=6)


@given(pieces=st.lists(PIECES, max_size=5), text=TEXTS)
def test_patterns_mean_what_they_mean_to_python(pieces: list[str], text: str):
    """What is taken is read as re.fullmatch reads it with ASCII classes, or more strictly."""
    pattern = "".join(pieces)
    try:
        constraint = c.matches(pattern)
    except ConfigurationError:
        return
    assume(text or r"\B" not in pattern)  # on an empty text the two, and versions of one, differ
    ours = passes(constraint, text)
    theirs = re.fullmatch(pattern, text, re.ASCII) is not None
    if "$" in pattern or r"\Z" in pattern:
        assert theirs or not ours  # "$" before a last line break is theirs alone
    else:
        assert ours == theirs


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)*b", "(a*)*b", "(.*)*x", r"(\w+\s?)*!", "a*a*a*b"]
)
def test_catastrophic_patterns_take_no_time(pattern: str):
    """A thousand letters against nested repetition: this test would not end otherwise."""
    assert not passes(c.matches(pattern), "a" * 1024)


def test_lone_surrogates_match_nothing():
    """A text that no encoding holds is no match."""
    assert not passes(c.matches(".*"), "\ud800")
    assert not passes(c.matches(r"[\s\S]*".replace(r"\S", "a")), "\udfff")


# -- combinations ----------------------------------------------------------------------------


@dataclass
class Order:
    path: str
    count: int = 1


def test_keys_is_a_closed_world():
    """Unknown keys, missing keys, keys that are no texts, and values that do not fit."""
    known = c.keys({"a": c.between(1, 5), "b": c.exactly("x")}, optional=["b"])
    assert thaw(known.normalise(freeze({"a": 3}))) == {"a": 3}
    assert thaw(known.normalise(freeze({"a": 3, "b": "x"}))) == {"a": 3, "b": "x"}
    for value in (
        {},
        {"b": "x"},
        {"a": 6},
        {"a": 3, "b": "y"},
        {"a": 3, "c": 1},
        {"a": 3, 1: 1},
        {"a": 3, None: 1},
        {"A": 3},
        {"a ": 3},
        {"a": True},
        [("a", 3)],
        "a",
        None,
        Order("a"),
    ):
        assert not passes(known, value), value
    opened = c.keys({"a": c.between(1, 5)}, others=c.length(2))
    assert passes(opened, {"a": 1, "z": "ab"})
    assert not passes(opened, {"a": 1, "z": "abc"})
    assert not passes(opened, {"a": 1, 5: "ab"})


def test_keys_rebuilds_objects(tmp_path: Path):
    """A dataclass comes back as one, with the values that were judged."""
    made = thaw(
        c.keys({"path": c.under(tmp_path), "count": c.anything}).normalise(freeze(Order("x")))
    )
    assert made == Order(os.path.join(os.path.realpath(tmp_path), "x"))


def test_each_judges_every_member():
    """One bad member is enough; a text is no list of letters; two must not become one."""
    small = c.each(c.between(1, 5))
    assert thaw(small.normalise(freeze([1, 5]))) == [1, 5]
    for value in ([1, 6], [[1]], {"a": 1}, "123", 1, None, [True], [1, "2"], {1, 9}):
        assert not passes(small, value), value
    lower = c.each(c.email("dana@acme.com"))
    assert passes(lower, {"dana@acme.com"})
    assert not passes(lower, {"dana@acme.com", "DANA@acme.com"})


def test_length_counts_letters_and_members():
    """And nothing that has no length of its own."""
    for value in ("abc", b"abc", [1, 2, 3], (1,), {1, 2}, {"a": 1}):
        assert passes(c.length(3, at_least=1), value), value
    for value in ("", "abcd", [], [1, 2, 3, 4], 3, None, True, 1.5, Order("x")):
        assert not passes(c.length(3, at_least=1), value), value


def test_both_and_either_settle_on_one_form(tmp_path: Path):
    """What one makes of a value, the others must leave alone."""
    (tmp_path / "a").mkdir()
    both = c.both(c.under(tmp_path), c.under(tmp_path / "a"))
    assert both.normalise("a/x") == os.path.join(os.path.realpath(tmp_path), "a", "x")
    assert not passes(both, "x")
    either = c.either(c.exactly("x"), c.under(tmp_path))
    assert either.normalise("x") == "x"
    assert either.normalise("y").endswith("/y")
    assert not passes(either, "../y")
    shifting = c.either(
        c.exactly("b"), c.both(c.one_of(["a", "b"]), c.where(lambda v: True, name="any"))
    )
    assert shifting.normalise("a") == "a"


def test_what_never_settles_is_refused():
    """A constraint of one's own that gives another value each time is no constraint."""

    class Growing:
        pins = False

        def normalise(self, value: Any) -> Any:
            return value + "x"

    assert not passes(c.both(Growing(), c.length(50)), "a")
    assert not passes(c.either(Growing(), c.exactly("q")), "a")


def test_pins_is_never_claimed_too_much():
    """Naming the value itself: by all alternatives, by one of several demands, by every key."""
    pin, free = c.exactly("a"), c.length(5)
    assert c.both(pin, free).pins and c.either(pin, pin).pins and c.each(pin).pins
    assert c.keys({"a": pin}).pins
    assert not any(
        one.pins
        for one in (
            c.either(pin, free),
            c.each(free),
            c.keys({"a": pin, "b": free}),
            c.keys({"a": pin}, others=c.anything),
            c.where(lambda v: True, name="x"),
            c.matches("a"),
            c.both(free, free),
        )
    )


def test_where_says_yes_by_true_alone():
    """Truthy is not true, and code that fails or has to be awaited has not said yes."""

    async def later(_: Any) -> bool:
        return True

    for answer in (1, "yes", [1], None, False, 0):
        assert not passes(c.where(lambda _, answer=answer: answer, name="odd"), 1)
    assert not passes(c.where(lambda v: v.nothing, name="odd"), 1)
    assert not passes(c.where(later, name="later"), 1)
    seen: list[Any] = []
    assert passes(c.where(lambda v: seen.append(v) is None, name="seen"), [1])
    seen[0].append(2)  # a copy: what it does to it reaches nobody


MISTAKES: dict[str, Any] = {
    "each text": lambda: c.each("a"),
    "each class": lambda: c.each(c.OneOf),
    "keys list": lambda: c.keys([("a", c.anything)]),
    "keys empty": lambda: c.keys({}),
    "keys value": lambda: c.keys({"a": 5}),
    "keys key": lambda: c.keys({5: c.anything}),
    "keys optional": lambda: c.keys({"a": c.anything}, optional=["b"]),
    "keys optional text": lambda: c.keys({"a": c.anything}, optional="a"),
    "keys others": lambda: c.keys({"a": c.anything}, others=5),
    "both one": lambda: c.both(c.anything),
    "either none": lambda: c.either(),
    "either value": lambda: c.either(c.anything, "x"),
    "length negative": lambda: c.length(-1),
    "length turned": lambda: c.length(1, at_least=2),
    "length float": lambda: c.length(1.5),
    "length bool": lambda: c.length(True),
    "where text": lambda: c.where("x", name="x"),
    "where nameless": lambda: c.where(lambda v: True, name=""),
    "where odd name": lambda: c.where(lambda v: True, name="a\nb"),
    "opened mode": lambda: c.opened_under("/srv", "rw"),
    "opened plus": lambda: c.opened_under("/srv", "r+"),
    "opened root": lambda: c.opened_under(""),
    "under bytes": lambda: c.under(b"/srv"),
    "under none": lambda: c.under(None),
    "under relative": lambda: c.Under("srv"),
    "host url": lambda: c.host("https://good.com"),
    "host port": lambda: c.host("good.com:443"),
    "host homoglyph": lambda: c.host("g\u043eod.com"),
    "host star inside": lambda: c.host("a.*.com"),
    "host two stars": lambda: c.host("*.*.com"),
    "host number": lambda: c.host("2130706433"),
    "host hex": lambda: c.host("0x7f.1"),
    "host short": lambda: c.host("127.1"),
    "host v6 bare": lambda: c.host("::1"),
    "host v6 long": lambda: c.host("[0:0:0:0:0:0:0:1]"),
    "host scheme": lambda: c.host("good.com", schemes="https"),
    "host scheme odd": lambda: c.host("good.com", schemes=["https://"]),
    "host ports": lambda: c.host("good.com", ports=(0,)),
    "host ports text": lambda: c.host("good.com", ports=("443",)),
    "host private": lambda: c.host("good.com", private=1),
    "one_of text": lambda: c.one_of("ab"),
    "one_of none": lambda: c.one_of([]),
    "one_of nan": lambda: c.one_of([float("nan")]),
    "one_of object": lambda: c.one_of([object()]),
    "between turned": lambda: c.between(5, 1),
    "between nan": lambda: c.between(float("nan"), 1),
    "between bool": lambda: c.between(False, True),
    "between text": lambda: c.between("1", "5"),
    "between none": lambda: c.between(None, 5),
    "email domain": lambda: c.email("acme.com"),
    "email two": lambda: c.email("a@b.com,c@d.com"),
    "email_domain at": lambda: c.email_domain("@acme.com"),
    "raw one_of": lambda: c.OneOf(["a"]),
    "raw between": lambda: c.Between(5, 1),
    "raw empty between": lambda: c.Between(None, None),
    "raw host": lambda: c.Host("good.com"),
    "raw keys": lambda: c.Keys({"a": c.anything}),
    "raw twice": lambda: c.Keys((("a", c.anything), ("a", c.anything))),
    "raw both": lambda: c.Both([c.anything, c.anything]),
    "raw matches": lambda: c.Matches("("),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_constraint_that_cannot_be_meant_is_an_error_where_it_is_written(name: str):
    """By the function and by the class alike, so that a signed grant cannot hold it either."""
    with pytest.raises(ConfigurationError):
        MISTAKES[name]()


ALL = [
    c.exactly("a"),
    c.one_of(["a", 1, None, 2.5, b"x"]),
    c.between(1, 100),
    c.at_most(5),
    c.at_least(Decimal("0.5")),
    c.matches("[a-z]{3}"),
    c.length(4, at_least=1),
    c.under("/srv/data"),
    c.under("/srv/data", itself=True),
    c.host("good.com", "*.good.org", schemes=["https", "http"], ports=[8443]),
    c.host("*", private=True),
    c.email("dana@acme.com"),
    c.email_domain("acme.com", "*.acme.com"),
    c.each(c.between(1, 3)),
    c.keys({"a": c.anything}, others=c.length(2), optional=["a"]),
    c.both(c.length(3), c.matches("[a-z]*")),
    c.either(c.exactly("x"), c.between(1, 2)),
    c.anything,
]
FROZEN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-200, 200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=3)
    | st.text("abcx/.@:~%good.com", max_size=12)
    | st.sampled_from(
        ["a", "https://good.com/x", "dana@acme.com", "/srv/data/x", "x/../y", "/etc"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abz"), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.mark.parametrize("constraint", ALL, ids=repr)
@given(value=FROZEN)
def test_every_constraint_refuses_or_settles(constraint: Any, value: Any):
    """Only Refused is raised, and a value that was handed over is handed over again unchanged."""
    try:
        once = constraint.normalise(freeze(value))
    except Refused:
        return
    again = constraint.normalise(once)
    assert type(again) is type(once)
    assert encode(freeze(thaw(again))) == encode(freeze(thaw(once)))


@pytest.mark.parametrize("constraint", ALL, ids=repr)
def test_the_text_of_a_constraint_makes_it_again(constraint: Any):
    """What the log and explanations show is the Python that was meant."""
    names = {name: getattr(c, name) for name in c.__all__} | {"Decimal": Decimal}
    if constraint is c.anything:
        return
    assert eval(repr(constraint), names) == constraint
    assert hash(constraint) == hash(eval(repr(constraint), names))


def test_an_opener_is_one(tmp_path: Path):
    """The protocol by which the core knows that a body gets a file."""
    assert isinstance(c.opened_under(tmp_path), Opener)
    assert not isinstance(c.under(tmp_path), Opener)
