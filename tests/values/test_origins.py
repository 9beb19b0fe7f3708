"""Attacks on evidence: values that look like what somebody trusted has said, and are not."""

from __future__ import annotations

import base64
import dataclasses
import re
import string
import tracemalloc
import unicodedata
import urllib.parse
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from typing import Annotated, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from checkrein import Grant, Run, Untrusted, allow, composed, irreversible, reads, writes
from checkrein.constraints import anything, one_of
from checkrein.freezing import freeze
from checkrein.origins import Evidence, Piece, Trust
from values.leaks import each, each_pair


def evidence(*trusted: Any, trust: int = Trust.USER) -> Evidence:
    found = Evidence()
    found.add(Piece(trusted, trust))
    return found


def trusts(text: Any, value: Any) -> bool:
    """Say whether *value*, as an argument, is evidenced by *text*."""
    return bool(evidence(text).trust(freeze(value)))


# -- kinds: what counts by value -------------------------------------------------------------


SAID_SO = [
    ("Send it to dana@acme.com, please.", "dana@acme.com"),
    ("Send it to Dana@Acme.com.", "dana@acme.com"),
    ("Dana <dana@acme.com>", "dana@acme.com"),
    ("(dana@acme.com)", "dana@acme.com"),
    ("See https://Acme.com/a?b=1.", "https://acme.com/a?b=1"),
    ("Pay 1,200.50 euros", "1200.5"),
    ("Pay 1,200.50 euros", 1200.5),
    ("Pay 1,200.50 euros", Decimal("1200.50")),
    ("Pay 13 euros", 13),
    ("Pay -13 euros", -13),
    ("on June 13, 2026", date(2026, 6, 13)),
    ("on 13 June 2026", "2026-06-13"),
    ("on 13th of June 2026", "June 13, 2026"),
    ("on 2026-06-13", "13 June 2026"),
    ("at 2026-06-13 10:30", datetime(2026, 6, 13, 10, 30).isoformat(timespec="minutes")),
    ("ticket ABC-123, urgent", "ABC-123"),
    ("delete /srv/data/x.txt now", "/srv/data/x.txt"),
    ("delete /srv/data/x.txt now", PurePosixPath("/srv/data/x.txt")),
    ("account DE89370400440532013000", "DE89370400440532013000"),
    ("pay DE89 3704 0044 0532 0130 00 today", "DE89370400440532013000"),
    ("pay GB29NWBK60161331926819.", "GB29 NWBK 6016 1331 9268 19"),
    ("call +41 (44) 123-45-67", "+41 44 123 45 67"),
    ("see www.Acme.com, or not", "www.acme.com"),
    ("on May 19th at 12:00, in 2024", "2024-05-19 12:00"),
    ("on May 19th at 12:00, in 2024", datetime(2024, 5, 19, 12)),
    ("on 2024-05-19 at 12 pm", "2024-05-19T12:00:00"),
    ("from January 11th to January 15th 2025", "2025-01-11"),
    ("on May 19th 2024", "2024-05-19 00:00"),
    ("at 2024-05-19 10:30", "2024-05-19"),
    ("at 1:30 p.m.", "13:30"),
    ("at 9:05", time(9, 5)),
    ("call it Quarterly Report", "Quarterly Report"),
    ("call it Quarterly\n  Report", "Quarterly Report"),
    ("red and blue", ["red", "blue"]),
    ("red and blue", {"red": "blue"}),
    ("red and blue", ("red", {"blue"}, None, "", [])),
    ("anything", ""),
    ("anything", None),
]


@pytest.mark.parametrize(("text", "value"), each_pair(SAID_SO))
def test_what_was_said_is_evidenced(text: str, value: Any):
    """The control: a value that stands in trusted text, by its kind or literally, is trusted."""
    assert trusts(text, value)


@pytest.mark.parametrize(
    "text",
    each(
        [
            "Send it to 'dana@acme.com'",
            "Send it to `dana@acme.com`",
            "Send it to *dana@acme.com*",
            "to=dana@acme.com",
            "| dana@acme.com |",
            "{dana@acme.com}",
            '"dana@acme.com"',
            "dana@acme.com/bob@acme.com",
            "To dana@acme.com!",
            "dana@acme.com;bob@acme.com",
        ]
    ),
)
def test_an_address_in_quotes_or_markup_was_said_too(text: str):
    """People write addresses in quotes, back-ticks and lists; asking about them again tires."""
    assert trusts(text, "dana@acme.com")


# -- what was not said -----------------------------------------------------------------------

NOT_SAID = [
    # Numbers and dates.
    ("on June 13", "13"),
    ("on June 13", 13),
    ("on June 13", "June 1"),
    ("on June 13", "June 3"),
    ("on June 13", "June"),
    ("on June 13", "June 13, 2026"),
    ("on June 13, 2026", 2026),
    ("on 2026-06-13", 2026),
    ("on 2026-06-13", "06"),
    ("on 2026-06-13", 13),
    ("at 10:30", 10),
    ("version 1.2.3", "1.2"),
    ("version 1.2.3", 1),
    ("pay 1,200", 200),
    ("pay 1,200", 1),
    ("pay 1200", 120),
    ("pay 1200", 12000),
    ("pay 13.50", 13),
    ("pay 13.50", 50),
    ("pay -13", 13),
    ("pay 13", -13),
    ("10.0.0.1", 10),
    ("0x13", 13),
    ("13th", 13),
    ("13%x", "13%"),
    ("page 3/4", 3),
    ("range 3-5", 5),
    ("range 3-5", -5),
    ("A13", 13),
    ("13A", 13),
    ("user_13", 13),
    ("13_000", 13),
    ("1e5", 1),
    ("1e5", 100000),
    ("one", 1),
    ("13", True),
    ("1", True),
    ("True", True),
    ("0", False),
    ("pay 13", [13, 14]),
    ("+49 30 1234567", "301234567"),
    # Addresses and hosts.
    ("dana@acme.com.evil.net", "dana@acme.com"),
    ("acme.com.evil.net", "acme.com"),
    ("acme.com", "acme.com.evil.net"),
    ("dana@acme.com", "acme.com"),
    ("dana@acme.com", "dana"),
    ("dana@acme.com", "ana@acme.com"),
    ("dana@acme.com", "dana@acme.co"),
    ("dana@acme.com", "dana@acme.com.evil.net"),
    ("dana@acme.com", "dana@acme.com@evil.net"),
    ("dana@acme.com", "dana@acme.com,eve@evil.net"),
    ("dana@acme.com", "dana@acme.com, eve@evil.net"),
    ("dana@acme.com", "eve@evil.net dana@acme.com"),
    ("dana@acme.com", "dana@acme.com\nBcc: eve@evil.net"),
    ("dana@acme.com", "Dana <dana@acme.com>"),
    ("dana@acme.com", '"x" <dana@acme.com>'),
    ("dana@acme.com", "dana+x@acme.com"),
    ("dana@acme.com", "d.ana@acme.com"),
    ("dana@acme.com", "dana@sub.acme.com"),
    ("dana@acme.com", "dana@acme-com"),
    ("bob.dana@acme.com", "dana@acme.com"),
    ("x-dana@acme.com", "dana@acme.com"),
    ("user:dana@acme.com@evil.net", "dana@acme.com"),
    ("dana@acme.com@evil.net", "dana@acme.com"),
    ("dana@acme.com_x.evil.net", "dana@acme.com"),
    ("dana@acme.com\u00e9.evil.net", "dana@acme.com"),
    ("\u00e9dana@acme.com", "dana@acme.com"),
    # URLs.
    ("https://acme.com/a/b", "https://acme.com/a"),
    ("https://acme.com/a", "https://acme.com/a/b"),
    ("https://acme.com/a", "https://acme.com/"),
    ("https://acme.com/a", "http://acme.com/a"),
    ("https://acme.com/a", "https://acme.com/A"),
    ("https://acme.com/a", "https://acme.com:8443/a"),
    ("https://acme.com/a", "https://acme.com@evil.net/a"),
    ("https://acme.com/a", "https://acme.com.evil.net/a"),
    ("https://acme.com/a", "acme.com"),
    ("https://acme.com/a", "/a"),
    ("https://acme.com/a", "//acme.com/a"),
    ("https://acme.com/a", "https://acme.com/a?x=1"),
    ("https://acme.com/a", "https://acme.com/a#x"),
    ("https://acme.com/a?x=1", "https://acme.com/a"),
    ("https://acme.com/a", "https://acme.com/%61"),
    ("https://acme.com/a", "https://acme.com/a https://evil.net"),
    ("https://user:Pass@acme.com/", "https://user:pass@acme.com/"),
    ("https://evil.net/?u=https://acme.com/a", "https://acme.com/a"),
    ("xhttps://acme.com/a", "https://acme.com/a"),
    ("https://acme.com/a/", "https://acme.com/a/.."),
    ("https://acme.com/a/", "https://acme.com/a/."),
    ("https://acme.com/a", "https://acme.com/a..."),
    ("https://acme.com/a", "https://acme.com/a!!!"),
    ("https://acme.com/a", "https://acme.com/a)"),
    ("https://acme.com/a", "https://acme.com/a?"),
    ("https://acme.com/{id}/x", "https://acme.com/"),
    ("https://acme.com/a|b", "https://acme.com/a"),
    # Paths and words.
    ("delete /srv/data/x.txt", "/srv/data"),
    ("delete /srv/data/x.txt", "x.txt"),
    ("delete /srv/data/x.txt", "/srv"),
    ("delete /srv/data", "/srv/data/"),
    ("delete /srv/data", "/srv/data/../.."),
    ("delete ./tmp/build", "/tmp/build"),
    ("delete ../secret", "/secret"),
    ("delete ./tmp", "/tmp"),
    ("delete .../x", "/x"),
    ("./x", "/x"),
    ("see ../../etc/passwd", "/etc/passwd"),
    ("delete build/*.tmp", "build/"),
    ("delete build/*.tmp", "build"),
    ("delete /srv/$USER/tmp", "/srv/"),
    ("delete /data/{a,b}", "/data/"),
    ("run rm -rf ./build", "rm -rf ."),
    ("run rm -rf ~/build", "rm -rf ~"),
    ("run rm -rf ./build", "rm -rf ./"),
    ("run rm -rf ./build", "rm -rf ./b"),
    ("copy a/b.txt", "a/b"),
    ("$HOME/x", "/x"),
    ("C:\\tmp\\x", "tmp"),
    ("~dana/x", "/x"),
    ("my-file.txt", "file.txt"),
    ("my-file.txt", "my"),
    ("DE89370400440532013000", "DE8937040044053201300"),
    ("DE89 3704 0044 0532 0130 00", "DE89"),
    ("DE89 3704 0044 0532 0130 00", "DE89370400440532013001"),
    ("pay GB29NWBK60161331926819", "gb29nwbk60161331926819"),
    ("call +41 44 123 45 67", "41441234567"),
    ("call +41 44 123 45 67", "+4144123456"),
    ("call +41 44 123 45 67", "44"),
    ("at 10 am", "10"),
    ("at 10 am", "22:00"),
    ("at 10:30", "30"),
    ("on May 19th at 12:00", "2024-05-19 12:00"),
    ("on May 19th 2024 at 12:00", "2024-05-19 13:00"),
    ("on May 19th 2024 at 12:00", "2023-05-19 12:00"),
    ("on May 19th 2024 at 12:00", "2024-05-19 12:00:01"),
    ("on May 19th 2024", "2024-05-19 12:00"),
    ("see www.acme.com.evil.net", "www.acme.com"),
    ("see www.acme.com/a", "www.acme.com"),
    ("see www.acme.com@evil.net", "www.acme.com"),
    ("see www.acme.com", "acme.com"),
    ("ABC-123", "ABC-12"),
    ("ABC-123", "ABC"),
    ("ABC-123", "123"),
    ("ABC-123", "abc-123"),
    ("ABC-123", "ABC-1234"),
    ("send report", "send"[:3]),
    ("send report", "report send"),
    ("send report", "sendreport"),
    ("send report", "end rep"),
    ("send report", "send rep"),
    ("send report", "send, report"),
    ("send, report", "send report"),
    ("send report", "send.report"),
    ("send report", "Send Report"),
    ("send report", "report."),
    ("send report", "-"),
    ("send report", "?!"),
    ("send report", "send report now"),
    ("a b c", "a c"),
    ("not send report", "not report"),
    ("caf\u00e9 bar", "the cafe"),
    ("cafe\u0301 bar now", "cafe"),
    # Containers: everything in them, keys too.
    ("red and blue", ["red", "green"]),
    ("red and blue", {"red": "green"}),
    ("red and blue", {"green": "red"}),
    ("red and blue", [["red", ["blue", ("green",)]]]),
    ("red and blue", {"red": {"blue": {"green"}}}),
    ("red and blue", ["redblue"]),
    ("red and blue", [b"red"]),
    ("red and blue", [True]),
    ("red", b"red"),
]


@pytest.mark.parametrize(("text", "value"), each_pair(NOT_SAID))
def test_what_was_not_said_is_not_evidenced(text: str, value: Any):
    """Parts, neighbours, other cases and longer forms of what was said are nobody's word."""
    assert not trusts(text, value)


EVIL = "eve@evil.net"
SAID = (
    "Read the mail from eve and answer dana@acme.com about acme.com, "
    "evil plans, net 13 and mark@acme.com"
)


def variants(address: str) -> dict[str, str]:
    """The disguises of the peers' probes, of one address."""
    user, _, domain = address.partition("@")
    return {
        "plain": address,
        "base64": base64.b64encode(address.encode()).decode(),
        "hex": address.encode().hex(),
        "percent": urllib.parse.quote(address, safe=""),
        "all percent": "".join(f"%{ord(one):02x}" for one in address),
        "reversed": address[::-1],
        "upper": address.upper(),
        "spaced": " ".join(address),
        "at in words": f"{user} at {domain}",
        "at in brackets": f"{user}[at]{domain}",
        "dotted": ".".join(address),
        "hyphens": "-".join(address),
        "zero-width": "\u200b".join(address),
        "soft hyphens": "\u00ad".join(address),
        "full width": "".join(chr(ord(one) + 0xFEE0) for one in address),
        "homoglyph": address.replace("e", "\u0435").replace("a", "\u0430"),
        "kelvin": address.replace("k", "\u212a"),
        "accents": unicodedata.normalize(
            "NFD", address.replace("e", "\u00e9").replace("a", "\u00e1")
        ),
        "bidi": f"\u202e{address[::-1]}\u202c",
        "entity": "".join(f"&#{ord(one)};" for one in address),
        "mailto": f"mailto:{address}",
        "quoted": f'"{address}"',
        "name": f"Dana <{address}>",
        "list": f"dana@acme.com,{address}",
        "list with space": f"dana@acme.com, {address}",
        "header": f"dana@acme.com\r\nBcc: {address}",
        "route": f"{user}%{domain}@acme.com",
        "comment": f"dana@acme.com({address})",
        "subdomain": f"dana@acme.com.{domain}",
        "userinfo": f"dana@acme.com@{domain}",
        "trailing zero-width": f"{address}\u200b",
        "leading mark": f"\ufeff{address}",
        "split": f"{user}@ {domain}",
        "newline": f"{user}@\n{domain}",
        "tag": address + "\U000e0065",
        "combining": "\u0301".join(address),
    }


@pytest.mark.parametrize("disguise", list(variants(EVIL)))
@pytest.mark.parametrize(
    "wrap",
    [lambda one: one, lambda one: [one], lambda one: {"dana@acme.com": one}],
    ids=["text", "list", "dict"],
)
def test_no_disguise_of_an_unsaid_address_is_evidenced(disguise: str, wrap: Any):
    """The reverse question is not evaded by encoding: the unknown is unknown in any spelling."""
    assert not trusts(SAID, wrap(variants(EVIL)[disguise]))


@pytest.mark.parametrize(
    "disguise", [one for one in variants(EVIL) if one not in {"plain", "upper"}]
)
@pytest.mark.parametrize("said", ["dana@acme.com", "mark@acme.com"])
def test_no_disguise_of_a_said_address_is_taken_for_it(said: str, disguise: str):
    """What only looks like the trusted address is another one."""
    value = variants(said)[disguise]
    same = value.isascii() and value.lower() == said  # without a k there is nothing to disguise
    assert same or not trusts(SAID, value)


def test_invisible_and_foreign_letters_beside_a_said_address_count():
    """The value is what the tool gets: with a control in it, it is not what was said."""
    for one in range(0x20):
        if chr(one) not in "\t\n\r\x0b\x0c":
            assert not trusts(SAID, f"dana@acme.com{chr(one)}"), hex(one)
    for one in (
        "\u200b",
        "\u200d",
        "\u2060",
        "\ufeff",
        "\u00ad",
        "\u202e",
        "\U000e0041",
        "\u0301",
        "\x7f",
    ):
        for value in (f"dana@acme.com{one}", f"{one}dana@acme.com", f"dana{one}@acme.com"):
            assert not trusts(SAID, value)


# -- properties ------------------------------------------------------------------------------

WORDS = st.text(string.ascii_letters + string.digits + "._-/@:+~%#", min_size=1, max_size=12)
SEPARATORS = st.sampled_from([" ", "\n", ", ", ". ", "; ", " (", ") ", ' "', '" ', "! ", "\t"])
MONTHS = {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}
TEXTS = st.lists(st.tuples(WORDS, SEPARATORS), max_size=8).map(
    lambda pairs: "".join(word + sep for word, sep in pairs)
)


def spaced(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


@given(text=TEXTS, token=st.text(string.ascii_lowercase + string.digits, min_size=8, max_size=16))
def test_a_random_token_that_is_not_in_the_text_is_never_trusted(text: str, token: str):
    """Fuzzing with ids: an id that the text does not hold has no origin."""
    assume(token not in text.lower())
    assume(not token.isdecimal())
    for value in (token, f"{token}@acme.com", f"https://{token}.com/", f"/{token}/x", [token]):
        assert not trusts(text, value)


def in_value(text: str, value: str) -> bool:
    """Say whether *value* stands in *text*, letter by letter or as an equal number."""
    if spaced(value).lower() in spaced(text).lower():
        return True
    try:
        number = Decimal(value.replace(",", ""))
    except ArithmeticError:
        return False
    found = re.findall(r"[-+]?[0-9][0-9,]*(?:\.[0-9]+)?", text)
    return any(Decimal(one.replace(",", "")) == number for one in found)


@given(text=TEXTS, other=TEXTS, data=st.data())
def test_what_is_evidenced_stands_in_the_text(text: str, other: str, data: Any):
    """Whatever is trusted stands in the text, literally or by value; cuts and mixes included."""
    pool = text + other
    start = data.draw(st.integers(0, len(pool)))
    end = data.draw(st.integers(start, len(pool)))
    for value in (
        pool[start:end],
        spaced(pool[start:end]),
        pool[start:end] + "x",
        pool[start:end][::-1],
    ):
        if spaced(value) and trusts(text, value):
            assert in_value(text, value)


@given(word=st.text(string.ascii_lowercase, min_size=4, max_size=9), text=TEXTS, data=st.data())
def test_a_piece_cut_out_of_a_word_is_not_evidenced(word: str, text: str, data: Any):
    """A cut that begins or ends between two letters of one word is no word of anybody."""
    start = data.draw(st.integers(0, len(word) - 2))
    end = data.draw(st.integers(start + 1, len(word) - (start == 0)))
    assume(word[start:end] not in text)
    assert not trusts(f"{text} {word} {text}", word[start:end])


@given(text=TEXTS)
def test_every_word_of_the_text_is_evidenced_whole(text: str):
    """No false questions: what stands between spaces, without punctuation, is trusted."""
    for word in re.findall(r"(?<!\S)[A-Za-z][a-z0-9]*(?!\S)", text):
        assert trusts(text, word) or word[:3].lower() in MONTHS  # the word of a date, perhaps


@given(
    parts=st.lists(WORDS, max_size=4), trust=st.sampled_from([Trust.USER, Trust.SYSTEM, Trust.TOOL])
)
def test_a_container_is_trusted_by_those_who_trust_all_of_it(parts: list[str], trust: int):
    """The trust of a list is what its parts have in common, else a tool's, unless one has none."""
    known = evidence("alpha beta", trust=trust)
    known.add(Piece(["gamma"], Trust.ALL & ~trust))
    value = freeze(["alpha", "gamma", *parts])
    expected = Trust.TOOL if all(map(known.trust, parts)) else Trust.NONE
    assert known.trust(value) & ~trust == expected & ~trust
    assert bool(known.trust(value)) == bool(expected)
    assert known.trust(freeze(["alpha", "beta"])) == trust


# -- models, enums, odd leaves ---------------------------------------------------------------


class Closed(BaseModel):
    to: str = ""


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    to: str = ""


@dataclasses.dataclass
class Parcel:
    to: str = ""


class Mode(Enum):
    EVIL = "eve@evil.net"


@pytest.mark.parametrize(
    "make",
    [
        lambda text: Closed(to=text),
        lambda text: Parcel(to=text),
        lambda text: [Closed(to=text)],
        lambda text: Open(to="dana@acme.com", bcc=text),
        lambda text: Open(bcc=text),
        lambda text: [{"to": Open(to="", deep=[text])}],
        lambda text: {text: Parcel()},
    ],
    ids=["model", "dataclass", "list of models", "extra", "only extra", "deep extra", "key"],
)
def test_everything_in_a_model_needs_an_origin(make: Any):
    """Fields, extras, nested parts: an unsaid value in any of them makes the whole unsaid."""
    said = evidence("to bcc deep, dana@acme.com")
    assert not said.trust(freeze(make(EVIL)))


@pytest.mark.parametrize(
    "make", [lambda text: Closed(to=text), lambda text: Parcel(to=text)], ids=["model", "dataclass"]
)
def test_names_of_fields_are_the_developers_and_need_no_origin(make: Any):
    """A model whose values were all said is trusted: the model did not choose its field names."""
    assert evidence("mail dana@acme.com").trust(freeze(make("dana@acme.com")))


def test_a_member_of_an_enum_is_not_its_text():
    """Evidence for a text is none for a member, nor the other way round."""
    assert not trusts("eve@evil.net", Mode.EVIL)
    assert not evidence(Mode.EVIL).trust("eve@evil.net")


@pytest.mark.parametrize(
    "value", each([10**5000, -(10**5000), float("inf"), float("nan"), Decimal("sNaN")])
)
def test_odd_numbers_as_evidence_break_nothing(value: Any):
    """A trusted tool may return any number; taking it as evidence never raises after the body."""
    known = evidence(value, "dana")
    assert known.trust("dana")


def test_looking_up_a_tiny_number_costs_no_memory():
    """A Decimal of ten letters with a huge exponent is looked up without being written out."""
    known = evidence("pay 13")
    tracemalloc.start()
    try:
        known.trust(Decimal("1E-5000000"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "text",
    each(
        [
            "a" * 200_000,
            "a." * 100_000,
            "1," * 100_000,
            "a@" * 100_000,
            "x-" * 100_000,
            "June " * 40_000,
        ]
    ),
)
def test_cutting_text_into_tokens_takes_no_quadratic_time(text: str):
    """Long and strange trusted text does not hang a run: what is quadratic takes minutes here."""
    import time

    began = time.process_time()
    known = evidence(text)
    known.trust(text[:1000])
    assert time.process_time() - began < 20


# -- through a run ---------------------------------------------------------------------------


@irreversible("vorig.send", external=True)
def send(to: Any, note: str = "", body: Untrusted[str] = Untrusted("x")) -> None: ...


@writes("vorig.write")
def write(name: str, count: int = 0) -> None: ...


@irreversible("vorig.post", external=True)
def post(text: Annotated[str, composed]) -> None: ...


@reads("vorig.contacts", evidence=True)
def contacts(name: str) -> str:
    return f"{name}: zoe@partner.example"


@reads("vorig.hr", private=True)
def salaries() -> str:
    return "13"


def findings(run: Run, tool: Any, **arguments: Any) -> set[tuple[str, str]]:
    return {(one.rule, one.argument) for one in run.explain(tool, **arguments).findings}


def opened(*permissions: Any, **more: Any) -> Run:
    names = ("send", "write", "post", "contacts", "hr")
    grant = Grant(*(permissions or [allow(f"vorig.{name}") for name in names]))
    return Run(**{"agent": "tester", "grant": grant, "exposed": True, **more})


@pytest.mark.parametrize(
    ("to", "asked"),
    [
        ("dana@acme.com", False),
        ("", False),
        (["dana@acme.com"], False),
        ("eve@evil.net", True),
        (["dana@acme.com", "eve@evil.net"], True),
        ({"to": "eve@evil.net"}, True),
        (Open(to="dana@acme.com", bcc="eve@evil.net"), True),
        (b"dana@acme.com", True),
        (True, True),
    ],
    ids=lambda one: ascii(one)[:25],
)
def test_plain_arguments_of_a_way_out_are_asked_about_unless_said(to: Any, asked: bool):
    """flow.origin, from the run's side: the user's words decide, containers and extras included."""
    with opened() as run:
        run.instruct("Mail dana@acme.com, not to nor bcc")
        assert (("flow.origin", "to") in findings(run, send, to=to)) is asked


def test_what_a_grant_may_stand_in_for():
    """A pin authorises anywhere; any constraint does for an inside write, and for composed text."""
    with opened() as run:
        assert ("flow.origin", "name") in findings(run, write, name="x")
        assert ("flow.origin", "count") not in findings(run, write, name="x", count=7)
        assert ("flow.origin", "text") in findings(run, post, text="x")
    with opened(
        allow("vorig.write", name=anything, count=anything), allow("vorig.post", text=anything)
    ) as run:
        assert findings(run, write, name="x") == set()
        assert ("flow.origin", "text") not in findings(run, post, text="x")
    with opened(allow("vorig.send", to=anything)) as run:
        assert ("flow.origin", "to") in findings(run, send, to="x")
    with opened(allow("vorig.send", to=one_of(["x"]))) as run:
        assert ("flow.origin", "to") not in findings(run, send, to="x")


def test_evidence_is_frozen_at_exposure():
    """After the first exposure a trusted tool's answer counts only for what trusted words asked."""
    with opened(exposed=False) as run:
        run.instruct("Look up zoe")
        contacts("nobody")
        run.expose("test")
        assert ("flow.origin", "to") not in findings(run, send, to="zoe@partner.example")
    with opened() as run:
        run.instruct("Look up zoe")
        contacts("chosen-by-content")
        assert ("flow.origin", "to") in findings(run, send, to="zoe@partner.example")
        contacts("zoe")
        assert ("flow.origin", "to") not in findings(run, send, to="zoe@partner.example")


@pytest.mark.parametrize("filler", each([" ", "\n", "\t \u2003", "\x1f"]))
def test_white_space_is_nobodys_aim(filler: str):
    """An argument of nothing but white space does not switch the rule of two off."""
    with opened() as run:
        salaries()
        run.trust("partner@example.org")
        assert run.private
        without = findings(run, send, to="partner@example.org")
        assert ("flow.rule-of-two", "") in without
        assert ("flow.rule-of-two", "") in findings(
            run, send, to="partner@example.org", note=filler
        )


@pytest.mark.parametrize("empty", each([[""], [None], [[]], {"": ""}, ["", " "]]))
def test_a_container_of_nothing_is_nobodys_aim(empty: Any):
    """A list of empty texts names no destination."""
    with opened() as run:
        salaries()
        assert ("flow.rule-of-two", "") in findings(run, send, to=empty)
