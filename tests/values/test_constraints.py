"""Attacks on constraints: each through a grant, on a guarded tool, down to what the body gets."""

from __future__ import annotations

import os
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein import Grant, Run, Untrusted, allow, reads
from checkrein.constraints import (
    anything,
    at_least,
    at_most,
    between,
    email,
    email_domain,
    exactly,
    host,
    matches,
    one_of,
    under,
)
from checkrein.errors import ConfigurationError, Denied
from values.leaks import each, told_by

GOT: list[Any] = []


@reads("vcons.take")
def take(value: Any) -> int:
    GOT.append(value)
    return len(GOT)


def body_gets(constraint: Any, value: Any) -> Any:
    """Return what the body of a guarded tool gets for *value*; raise what the guard raises."""
    GOT.clear()
    with Run(agent="tester", grant=Grant(allow("vcons.take", value=constraint))):
        take(value)
    return GOT[0]


def refusal(constraint: Any, value: Any) -> Denied:
    """Return the denial of *value*; fail if it is let through."""
    with pytest.raises(Denied) as caught:
        body_gets(constraint, value)
    assert GOT == []
    return caught.value


def held_back(error: Denied, value: Any) -> None:
    """Fail if *error* tells *value*, or any longer part of it."""
    told = told_by(error)
    for one in value if isinstance(value, list | tuple) else [value]:
        for text in {str(one), repr(one)[1:-1]} if isinstance(one, str) else {str(one)}:
            if len(text) > 9 and text.isascii():
                assert text not in told


class Text(str):
    """A text that claims to be whatever it is compared with."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return hash("read")

    def startswith(self, *_: Any) -> bool:
        return True

    def lower(self) -> str:
        return "dana@acme.com"

    def __fspath__(self) -> str:
        return "ok.txt"


class AnyPath:
    """An object that shows one path when asked, another when asked again."""

    def __init__(self) -> None:
        self.asked = 0

    def __fspath__(self) -> str:
        self.asked += 1
        return "a.txt" if self.asked == 1 else "/etc/passwd"


class Number:
    """What numpy's scalars look like from outside: a number by protocol, not by type."""

    def __float__(self) -> float:
        return 50.0

    def __int__(self) -> int:
        return 50

    __index__ = __int__

    def __le__(self, other: object) -> bool:
        return True

    __ge__ = __lt__ = __gt__ = __le__


class Whole(int):
    """An int that is in every interval."""

    def __le__(self, other: object) -> bool:
        return True

    __ge__ = __lt__ = __gt__ = __le__


# -- paths -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("tree").resolve()
    root = base / "data"
    (root / "sub" / "deep").mkdir(parents=True)
    (base / "data-evil").mkdir()
    (base / "dat").mkdir()
    (base / "outside").mkdir()
    (base / "secret.txt").write_text("secret")
    (root / "a.txt").write_text("a")
    (root / ".hidden").write_text("h")
    (root / "uplink").symlink_to(base)
    (root / "sub" / "up").symlink_to("../..")
    (root / "secret-link").symlink_to(base / "secret.txt")
    (root / "dangling").symlink_to(base / "not-there")
    (root / "dangling-in").symlink_to("not-there-yet")
    (root / "chain1").symlink_to("chain2")
    (root / "chain2").symlink_to("uplink")
    (root / "self").symlink_to(".")
    (root / "loop").symlink_to("loop")
    (root / "etc").symlink_to("/etc")
    (root / "inward").symlink_to("sub/deep")
    (base / "rootlink").symlink_to(root)
    (root / "sub" / "sibling").symlink_to(base / "data-evil")
    return root


BAD_PATHS = [
    # P rows and G rows of the peers' probes; ROOT is the directory.
    "ROOT/../secret.txt",
    "ROOT/sub/../../secret.txt",
    "ROOT-evil/x",
    "ROOT/uplink/secret.txt",
    "ROOT/../data-evil/x",
    "ROOT/./../data-evil/x",
    "ROOT//../secret.txt",
    "ROOT/a.txt\x00.png",
    "ROOT\x00/../secret.txt",
    "ROOT/..%2fsecret.txt",
    "ROOT/%2e%2e/secret.txt",
    "ROOT/%252e%252e/secret.txt",
    "~/../etc/passwd",
    "~root/.ssh/id_rsa",
    "/ROOT-UPPER/a.txt",
    "/etc/passwd",
    "file://ROOT/../secret.txt",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    ["ROOT/a.txt", "/etc/passwd"],
    {"path": "ROOT/a.txt"},
    None,
    "",
    # Out of the directory, with and without links.
    "..",
    "../",
    "./..",
    "sub/../..",
    "../data-evil",
    "../data-evil/x",
    "../dat",
    "../dat/a",
    "a.txt/../../secret.txt",
    "missing/../../secret.txt",
    "uplink",
    "uplink/",
    "uplink/secret.txt",
    "uplink/outside/x",
    "uplink/data/../secret.txt",
    "sub/up/secret.txt",
    "sub/up",
    "sub/sibling/x",
    "secret-link",
    "dangling",
    "dangling/x",
    "chain1/secret.txt",
    "chain2",
    "self/uplink/secret.txt",
    "self/self/sub/up/outside",
    "etc/passwd",
    "etc",
    "inward/../../../secret.txt",
    "/proc/self/root/etc/passwd",
    "/proc/self/cwd",
    "/dev/stdin",
    "/dev/fd/0",
    "//etc/passwd",
    "///etc/passwd",
    "/",
    "//",
    "/..",
    "../../../../../../../../../../../../etc/passwd",
    # The directory itself.
    ".",
    "./",
    "./.",
    "self",
    "sub/..",
    "ROOT",
    "ROOT/",
    "ROOT/.",
    "uplink/data",
    "sub/up/data/",
    # Letters that mean something to another layer.
    "~",
    "~/x",
    "~dana/x",
    "..\\secret.txt",
    "sub\\..\\..\\secret.txt",
    "\\\\server\\share",
    "C:\\x",
    "a\nb",
    "a\rb",
    "a\tb",
    "\x1b[2Ja",
    "a\x7f",
    "a\x85b",
    "a.txt\n",
    "\na.txt",
    "a\u200b.txt",
    "a\u202etxt.exe",
    "a\u00adb",
    "\ufeffa.txt",
    "a\u2028b",
    "a\ud800b",
    "\udce9.txt",
    "a\u00a0b",
    "\U000e0041",
    # Look-alikes that a later layer folds.
    "\uff0e\uff0e/secret.txt",
    "\uff0e\uff0e\uff0fsecret.txt",
    "\u2025/secret.txt",
    "\u2024\u2024/secret.txt",
    "\u2026/x",
    "sub\uff0f..\uff0f..\uff0fsecret.txt",
    "\uff5e/x",
    "\uff3csecret",
    "\ufe68x",
    "c\uff1ax",
    "a\uff052e",
    "%2e%2e/secret.txt",
    "%2E%2E%2Fsecret.txt",
    "a%00.txt",
    "%c0%ae%c0%ae/x",
    "http://evil.example/x",
    "javascript:alert(1)",
    "smb://server/share",
    "data:text/plain,x",
    "x" * 5000,
    "a/" * 2100,
    # Not texts.
    b"a.txt",
    b"/etc/passwd",
    bytearray(b"a.txt"),
    Text("ROOT/a.txt"),
    Text("/etc/passwd"),
    AnyPath(),
    7,
    True,
    3.5,
    ("a.txt",),
    {"a.txt"},
    PurePosixPath("/etc/passwd"),
    PurePosixPath("../secret.txt"),
    Path("uplink/secret.txt"),
    Path("."),
    PureWindowsPath("..\\secret.txt"),
    PureWindowsPath("C:/Windows"),
]


def in_place(value: Any, root: Path) -> Any:
    if isinstance(value, list):
        return [in_place(one, root) for one in value]
    if type(value) is Text:
        return Text(value.replace("ROOT", str(root)))
    if type(value) is not str:
        return value
    return value.replace("/ROOT-UPPER", str(root).upper()).replace("ROOT", str(root))


@pytest.mark.parametrize("value", each(BAD_PATHS))
def test_no_path_leaves_its_directory(value: Any, tree: Path):
    """Dots, links, look-alikes, encodings and odd types: none leads out, and none is told."""
    value = in_place(value, tree)
    held_back(refusal(under(tree), value), value)


GOOD_PATHS = {
    "ROOT/a.txt": "a.txt",
    "a.txt": "a.txt",
    "./a.txt": "a.txt",
    "ROOT/.hidden": ".hidden",
    ".hidden": ".hidden",
    "sub/../a.txt": "a.txt",
    "ROOT/../data/a.txt": "a.txt",
    "sub//deep///x": "sub/deep/x",
    "sub/": "sub",
    "new/dir/x.txt": "new/dir/x.txt",
    "inward/x": "sub/deep/x",
    "self/a.txt": "a.txt",
    "dangling-in": "not-there-yet",
    "uplink/data/a.txt": "a.txt",
    "caf\u00e9/\u65e5\u672c.txt": "caf\u00e9/\u65e5\u672c.txt",
    "...": "...",
    "..a": "..a",
    "a b.txt": "a b.txt",
    "100%": "100%",
    "a~b": "a~b",
    "10:30.txt": "10:30.txt",
    "-rf": "-rf",
    "$HOME": "$HOME",
    "a;b|c": "a;b|c",
}


@pytest.mark.parametrize("value", GOOD_PATHS)
def test_a_path_inside_reaches_the_body_real_and_absolute(value: str, tree: Path):
    """Names that merely look odd are allowed, and the body gets where they really lead."""
    assert body_gets(under(tree), in_place(value, tree)) == f"{tree}/{GOOD_PATHS[value]}"


def test_a_path_object_is_read_like_its_text_and_stays_a_path(tree: Path):
    """A Path argument is confined, and the body gets a Path."""
    assert body_gets(under(tree), Path("sub/../a.txt")) == tree / "a.txt"


def test_a_directory_that_is_a_link_confines_to_where_it_leads(tree: Path):
    """Through a linked root the body gets the real path; the link's own parent stays outside."""
    root = tree.parent / "rootlink"
    assert body_gets(under(root), "a.txt") == str(tree / "a.txt")
    assert body_gets(under(root), str(tree / "a.txt")) == str(tree / "a.txt")
    refusal(under(root), "../secret.txt")


def test_itself_lets_the_directory_through_and_nothing_around_it(tree: Path):
    """under(root, itself=True) adds one path, not its siblings."""
    wide = under(tree, itself=True)
    for spelled in (".", str(tree), "sub/..", "self"):
        assert body_gets(wide, spelled) == str(tree)
    for spelled in ("..", f"{tree}-evil", "uplink", "/"):
        refusal(wide, spelled)


def test_under_the_root_of_the_file_system_everything_but_it_is_inside():
    """'/' as a root is no special case."""
    assert body_gets(under("/"), "usr/../usr") == os.path.realpath("/usr")
    refusal(under("/"), "/")


def test_a_link_made_after_the_grant_is_followed_at_the_call(tree: Path):
    """The file system is looked at per call, not when the grant was written."""
    constraint = under(tree)
    assert body_gets(constraint, "later/x") == str(tree / "later" / "x")
    (tree / "later").symlink_to(tree.parent)
    refusal(constraint, "later/x")
    (tree / "later").unlink()


# -- URLs ------------------------------------------------------------------------------------

CYRILLIC = "https://g\u043e\u043ed.com/"

BAD_URLS = [
    # U rows of the peers' probes.
    "https://good.com@evil.com/",
    "https://good.com:pw@evil.com/",
    "https://evil.com/?u=https://good.com/",
    "https://good.com.evil.com/",
    "https://evilgood.com/",
    "https://good.com\\@evil.com/",
    "https://evil.com\\.good.com/",
    "https://evil.com#https://good.com/",
    "https://evil.com#@good.com/",
    "https://good.com./x",
    "http://good.com/x",
    CYRILLIC,
    "https://xn--gd-ojaa.com/",
    "https://good.com\t.evil.com/",
    "https://good.com\n.evil.com/",
    "https://good.com/x\n",
    " https://good.com/x",
    "https://good.com/x ",
    "https://evil.com/https://good.com/",
    "https://[::1]/",
    "https://[::ffff:169.254.169.254]/",
    "https://169.254.169.254/",
    "not a url at all",
    ["https://good.com/x"],
    None,
    # Numbers that are addresses.
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://0/",
    "https://[::]/",
    "https://[fe80::1%25eth0]/",
    "https://[::ffff:7f00:1]/",
    "https://[good.com]/",
    # Userinfo, delimiters, encodings.
    "https://user@good.com/",
    "https://good.com@good.com/",
    "https://@good.com/",
    "https://good.com%40evil.com/",
    "https://good.com%2eevil.com/",
    "https://good%2ecom/",
    "https://%67ood.com/",
    "https://good.com%00.evil.com/",
    "https://good.com\x00.evil.com/",
    "https://good.com;evil.com/",
    "https://good.com,evil.com/",
    "https://good.com evil.com/",
    "https://good.com|evil.com/",
    "https:\\\\good.com/",
    "https:/\\good.com/",
    "https:/good.com/",
    "https:good.com/",
    "https:///good.com/",
    "https:////good.com/",
    "//good.com/",
    "/good.com/",
    "good.com",
    "good.com/x",
    "://good.com/",
    "https://",
    "https:///",
    "",
    "https",
    "https://good.com/\\..\\x",
    "https://good.com/x y",
    "https://good.com/<script>",
    "https://good.com/\u00e9",
    "https://good.com/\u202e",
    "https://good.com/\r\nHost: evil.com",
    "https://good.com?\u2028",
    "https://good.com/#\x00",
    # Hosts that read alike.
    "https://good.com.",
    "https://.good.com/",
    "https://good..com/",
    "https://good.co",
    "https://good.comm/",
    "https://good-com/",
    "https://g00d.com/",
    "https://good\u3002com/",
    "https://good\uff0ecom/",
    "https://\uff47\uff4f\uff4f\uff44.com/",
    "https://go\u200bod.com/",
    "https://go\u00adod.com/",
    "https://\u0261ood.com/",
    "https://sub.good.com/",
    "https://localhost/",
    # Ports and schemes.
    "https://good.com:8080/",
    "https://good.com:80/",
    "https://good.com:0/",
    "https://good.com:/",
    "https://good.com:443:443/",
    "https://good.com:-443/",
    "https://good.com:+443/",
    "https://good.com:4 43/",
    "https://good.com:\u0664\u0664\u0663/",
    "https://good.com:100443/",
    "https://good.com:443evil.com/",
    "https://good.com:443@evil.com/",
    "javascript:alert(1)",
    "javascript://good.com/%0aalert(1)",
    "data:text/html,x",
    "data://good.com/x",
    "file://good.com/etc/passwd",
    "ftp://good.com/",
    "gopher://good.com/",
    "httpss://good.com/",
    "http s://good.com/",
    "ht\ntps://good.com/",
    "view-source:https://good.com/",
    "blob:https://good.com/",
    "\x01https://good.com/",
    "\ufeffhttps://good.com/",
    "url:https://good.com/",
    "https://good.com/" + "a" * 9000,
    b"https://good.com/",
    Text("https://good.com/"),
    {"url": "https://good.com/"},
    ("https://good.com/",),
    7,
    True,
]


@pytest.mark.parametrize("value", each(BAD_URLS))
def test_no_url_to_elsewhere_passes(value: Any):
    """No spelling of another host, port or scheme is taken for the host that is allowed."""
    held_back(refusal(host("good.com"), value), value)


GOOD_URLS = {
    "https://good.com": "https://good.com",
    "https://good.com/x": "https://good.com/x",
    "HTTPS://GOOD.COM/X?a=B": "https://good.com/X?a=B",
    "https://good.com:443/x": "https://good.com/x",
    "https://good.com:0443/x": "https://good.com/x",
    "https://good.com/../../x": "https://good.com/../../x",
    "https://good.com?next=https://evil.com/": "https://good.com?next=https://evil.com/",
    "https://good.com/@evil.com": "https://good.com/@evil.com",
    "https://good.com//evil.com/": "https://good.com//evil.com/",
    "https://good.com/#@evil.com": "https://good.com/#@evil.com",
    "https://good.com/caf%C3%A9": "https://good.com/caf%C3%A9",
}


@pytest.mark.parametrize("value", GOOD_URLS)
def test_a_url_to_the_host_reaches_the_body_rebuilt(value: str):
    """What is allowed is handed over as the one parser read it."""
    assert body_gets(host("good.com"), value) == GOOD_URLS[value]


@pytest.mark.parametrize(
    "value",
    each(
        [
            "https://good.com/",
            "https://evilgood.com/",
            "https://.good.com/",
            "https://a..good.com/",
            "https://-.good.com/",
            "https://a.good.com.evil.com/",
            "https://evil.com\\.good.com/",
            "https://evil.com%2f.good.com/",
            "https://evil.com;.good.com/",
            "https://evil.com\u2044.good.com/",
            "https://*.good.com/",
            "https://_a.good.com/",
            "https://a.good.com./",
            "https://\u017fub.good.com/",
            "https://\u0131.good.com/",
            "https://\u0130.good.com/",
            "https://\u212aay.good.com/",
            "https://\u00df.good.com/",
            "https://\u2460.good.com/",
        ]
    ),
)
def test_a_subdomain_pattern_covers_ascii_names_beneath_the_domain_only(value: str):
    """*.good.com is neither good.com, nor a look-alike, nor a name with letters beyond ASCII."""
    refusal(host("*.good.com"), value)


def test_a_letter_that_folds_to_ascii_is_no_ascii_letter():
    """The Kelvin sign becomes k in lower case; the docs promise that non-ASCII is refused."""
    refusal(host("kayak.com"), "https://\u212aayak.com/")


def test_other_schemes_and_ports_are_allowed_by_name_only():
    """A listed port or scheme adds just that."""
    wide = host("good.com", schemes=("https", "http"), ports=(8443,))
    assert body_gets(wide, "http://good.com:80/") == "http://good.com/"
    assert body_gets(wide, "https://good.com:8443/") == "https://good.com:8443/"
    assert body_gets(wide, "http://good.com:8443/") == "http://good.com:8443/"
    for value in ("http://good.com:443/", "https://good.com:80/", "ftp://good.com/"):
        refusal(wide, value)


# -- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    each(
        [
            # N rows of the peers' probes.
            101,
            float("nan"),
            float("inf"),
            True,
            False,
            "50",
            "1e9",
            -1,
            float("-inf"),
            None,
            [50],
            10**400,
            -(10**400),
            100.0000001,
            # More.
            0,
            0.0,
            -0.0,
            0.9999999999999999,
            Decimal("NaN"),
            Decimal("sNaN"),
            Decimal("Infinity"),
            Decimal("-Infinity"),
            Decimal("100.00000000000000000000000000001"),
            Decimal("1E+1000000"),
            Decimal("1E-1000000"),
            Fraction(50, 1),
            complex(50, 0),
            Number(),
            Whole(500),
            Whole(50),
            b"50",
            bytearray(b"5"),
            (50,),
            {50},
            {"n": 50},
            "nan",
            "",
            "\u0665\u0660",
            "0x32",
            range(50, 51),
            1e308,
            2**8192,
            5e-324,
        ]
    ),
)
def test_only_a_finite_number_in_the_interval_passes(value: Any):
    """NaN, infinities, booleans, texts and what acts like a number are outside every interval."""
    refusal(between(1, 100), value)


@pytest.mark.parametrize(
    "value", each([float("nan"), Decimal("NaN"), Decimal("sNaN"), True, "5", None])
)
@pytest.mark.parametrize("constraint", [at_most(100), at_least(-100)], ids=["at_most", "at_least"])
def test_an_open_side_admits_no_more_kinds(constraint: Any, value: Any):
    """What compares to nothing is outside half-open intervals, too."""
    refusal(constraint, value)


@pytest.mark.parametrize("value", each([50, 1, 100, 1.0, 99.9, Decimal(1), Decimal("99.99")]))
def test_numbers_in_the_interval_pass_unchanged(value: Any):
    """Both ends are included, and the type stays."""
    got = body_gets(between(1, 100), value)
    assert (got, type(got)) == (value, type(value))


def test_huge_but_finite_limits_are_a_configuration_not_a_crash():
    """A limit beyond what a float holds is refused in our words, or works."""
    try:
        constraint = between(0, 10**400)
    except ConfigurationError:
        return
    assert body_gets(constraint, 10**399) == 10**399


@pytest.mark.parametrize(
    "limits", [(1, float("nan")), (True, 5), ("1", 5), (None, 5), (2, 1), (0, Decimal("sNaN"))]
)
def test_impossible_limits_are_a_configuration_error(limits: Any):
    """A mistake in a grant shows when the grant is written."""
    with pytest.raises(ConfigurationError):
        between(*limits)


@pytest.mark.parametrize("value", each([Decimal("NaN"), Decimal("sNaN")]))
def test_a_signalling_nan_is_refused_in_our_own_words(value: Any):
    """normalise() raises Refused, not what the decimal module happens to raise."""
    from checkrein.constraints import Refused

    with pytest.raises(Refused):
        between(0, 1).normalise(value)


# -- mail addresses --------------------------------------------------------------------------

BAD_ADDRESSES = [
    "",
    "dana",
    "acme.com",
    "@acme.com",
    "dana@",
    "dana@evil.example",
    "dana@acme.com.evil.example",
    "dana@evilacme.com",
    "dana@sub.acme.com",
    "dana@acme.com.",
    "dana@.acme.com",
    "dana@acme..com",
    "dana@acme.co",
    "dana@acme",
    "dana@-acme.com",
    "eve@evil.example@acme.com",
    "eve@evil.example,dana@acme.com",
    "dana@acme.com,eve@evil.example",
    "dana@acme.com, eve@evil.example",
    "dana@acme.com;eve@evil.example",
    "dana@acme.com eve@evil.example",
    "Dana <dana@acme.com>",
    "<dana@acme.com>",
    "dana@acme.com <eve@evil.example>",
    '"dana@acme.com" <eve@evil.example>',
    '"dana"@acme.com',
    '"eve@evil.example "@acme.com',
    "dana(comment)@acme.com",
    "dana@acme.com(comment)",
    "(eve@evil.example)dana@acme.com",
    "dana@[127.0.0.1]",
    "dana@[IPv6:::1]",
    "dana@127.0.0.1",
    "eve%evil.example@acme.com",
    "evil.example!eve@acme.com",
    "@evil.example:dana@acme.com",
    "dana@acme.com%evil.example",
    "dana@acme.com\n",
    "dana@acme.com\r\nBcc: eve@evil.example",
    "dana\nBcc: eve@evil.example\n@acme.com",
    "dana@acme.com\x00eve@evil.example",
    "dana@acme.com\t",
    " dana@acme.com",
    "dana@acme.com ",
    "mailto:dana@acme.com",
    "dana@acme.com?bcc=eve@evil.example",
    "dana@acme.com#eve",
    ".dana@acme.com",
    "dana.@acme.com",
    "da..na@acme.com",
    "d\u0430na@acme.com",
    "dana@\u0430cme.com",
    "dana@acm\u0435.com",
    "dana@acme\u3002com",
    "dana@acme\uff0ecom",
    "dana\uff20acme.com",
    "dana@\uff41cme.com",
    "dana@ac\u00adme.com",
    "dana@acme.com\u200b",
    "\u202edana@acme.com",
    "mar\u212a@acme.com",
    "dana@acm\u00e9.com",
    "group:dana@acme.com;",
    "dana@acme.com:25",
    "a" * 300 + "@acme.com",
    "undisclosed-recipients:;",
    b"dana@acme.com",
    ["dana@acme.com"],
    ["dana@acme.com", "eve@evil.example"],
    ("dana@acme.com",),
    {"to": "dana@acme.com"},
    Text("eve@evil.example"),
    Text("dana@acme.com"),
    None,
    7,
    True,
]


@pytest.mark.parametrize("value", each(BAD_ADDRESSES))
def test_only_one_plain_address_at_the_domain_passes(value: Any):
    """Lists, display names, routes, comments, headers and look-alikes: none is one address."""
    held_back(refusal(email_domain("acme.com"), value), value)
    refusal(email("dana@acme.com", "mark@acme.com"), value)


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("dana@acme.com", "dana@acme.com"),
        ("Dana.Lee@ACME.com", "Dana.Lee@acme.com"),
        ("dana+news@acme.com", "dana+news@acme.com"),
        ("o'neil@acme.com", "o'neil@acme.com"),
    ],
)
def test_an_address_at_the_domain_reaches_the_body(value: str, got: str):
    """The local part stays, the domain comes in lower case."""
    assert body_gets(email_domain("acme.com"), value) == got


def test_a_subdomain_pattern_for_addresses_is_no_more_than_that():
    """*.acme.com is neither acme.com nor notacme.com."""
    wide = email_domain("*.acme.com")
    assert body_gets(wide, "dana@MAIL.acme.com") == "dana@mail.acme.com"
    assert body_gets(wide, "dana@a.b.acme.com") == "dana@a.b.acme.com"
    for value in ("dana@acme.com", "dana@notacme.com", "dana@mail.acme.com.evil.example"):
        refusal(wide, value)


def test_email_hands_over_the_listed_spelling():
    """The body gets the address as the permission spells it."""
    assert body_gets(email("Dana@acme.com"), "DANA@ACME.COM") == "Dana@acme.com"
    refusal(email("dana@acme.com"), "eve@acme.com")


# -- one_of, exactly, matches ----------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    each(
        [
            # E rows of the peers' probes.
            "write",
            "read ",
            " read",
            "READ",
            ["read"],
            None,
            True,
            # More.
            "",
            "read\n",
            "read\x00",
            "re\u0430d",
            "\uff52ead",
            "read\u200b",
            b"read",
            Text("write"),
            Text("read"),
            1.0,
            False,
            "1",
            b"1",
            Decimal(1),
            Number(),
            Whole(1),
            2,
            ("read",),
            {"read"},
            {"read": 1},
        ]
    ),
)
def test_one_of_compares_values_with_their_types(value: Any):
    """1, 1.0, True and "1" are four values, and a hostile == persuades nobody."""
    held_back(refusal(one_of(["read", "list", 1]), value), value)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        (["read", "list"], "read"),
        ([1], 1),
        ([True], True),
        ([1.0], 1.0),
        ([None, "x"], None),
        ([["a", 1], {"k": [2]}], ["a", 1]),
        ([["a", 1], {"k": [2]}], {"k": [2]}),
        ([b"x"], b"x"),
        ([Decimal("1.0")], Decimal("1.0")),
    ],
)
def test_one_of_hands_over_the_option(options: list[Any], value: Any):
    """What is listed passes, nested data included."""
    got = body_gets(one_of(options), value)
    assert (got, type(got)) == (value, type(value))
    assert body_gets(exactly(value), value) == value


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ([1], [True]),
        ([1], [1.0]),
        ({"n": 1}, {"n": True}),
        ([[1]], [(1,)]),
        ((1, 2), [1, 2]),
        ({1}, frozenset({1})),
        ([0.0], [-0.0]),
        ([Decimal("1.0")], [Decimal("1.00")]),
    ],
)
def test_nested_values_of_another_type_never_reach_the_body(option: Any, value: Any):
    """Inside a container, too, the body gets what is listed, type for type, or nothing."""
    try:
        got = body_gets(one_of([option]), value)
    except Denied:
        return
    assert repr(got) == repr(option)


@pytest.mark.parametrize("options", each(["read", b"read", [], [object()], [float("nan")]]))
def test_options_that_are_no_options_are_a_configuration_error(options: Any):
    """A bare text is not a list of letters, and an empty list allows nothing."""
    with pytest.raises(ConfigurationError):
        one_of(options)


@pytest.mark.parametrize(
    "value",
    each(
        [
            # R rows of the peers' probes.
            "abc\n",
            "abc\nDROP",
            "abcx",
            "\u0430bc",
            "",
            ["abc"],
            None,
            # More.
            "\nabc",
            "abc\r",
            "abc\x00",
            "abc\u2028",
            " abc",
            "ABC",
            "xabc",
            "abc\nabc",
            "ab\u200bc",
            "\uff41bc",
            b"abc",
            Text("abc"),
            ("abc",),
            {"abc": 1},
            7,
            True,
        ]
    ),
)
@pytest.mark.parametrize("pattern", each(["abc", "^abc$", "(?:abc)", "abc|abd", r"\Aabc\Z"]))
def test_matches_takes_the_whole_text_or_none_of_it(pattern: str, value: Any):
    """No anchor, flag or second line lets a longer text through."""
    refusal(matches(pattern), value)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"\d+", "\u0661\u0662"),
        (r"\d+", "\u00b2"),
        (r"\w+", "\u00e9"),
        (r"\s", "\u00a0"),
        ("[\\d]+", "\u0661"),
        ("[^\\w]", "\u00e9x"),
        ("a+", "a" * 1025),
        (".*", "a\nb"),
    ],
)
def test_classes_of_a_pattern_are_ascii(pattern: str, value: str):
    """Digits are 0 to 9, letters are a to z, and no letter folds into another script."""
    refusal(matches(pattern), value)


@pytest.mark.parametrize(("pattern", "value"), [("abc", "abc"), ("[a-z]{2,5}", "abc"), ("", "")])
def test_matching_texts_pass(pattern: str, value: str):
    """The control."""
    assert body_gets(matches(pattern), value) == value


@pytest.mark.parametrize(
    "pattern",
    each(
        ["(", "(?u)a", "(?i)mark", "(?i)sub", "(?m)^abc$", "*", b"abc", None, 7, "(?=a)", "(?<=a)b"]
        + [r"(a)\1", "(?P<x>a)", r"\p{L}", "[a&&b]", "[a--b]", "[a~~b]", "[[a]", "a++", "a{2}+"]
        + ["[]a]", "[^]a]", r"[\W]", r"\q", "a" * 1001, "(?#x)", "(?>a)", "[b-a]", r"[a-\d]"]
    ),
)
def test_a_pattern_that_cannot_work_is_a_configuration_error(pattern: Any):
    """A pattern that is refused, or that could never match a text, shows at once."""
    with pytest.raises(ConfigurationError):
        matches(pattern)


@pytest.mark.parametrize(
    "make",
    each(
        [
            lambda: host(),
            lambda: host("*."),
            lambda: host("a.*.com"),
            lambda: host("good.com/"),
            lambda: host("https://good.com"),
            lambda: host("good.com:443"),
            lambda: host(""),
            lambda: host(b"good.com"),
            lambda: email_domain("@acme.com"),
            lambda: email_domain("dana@acme.com"),
            lambda: email_domain(),
            lambda: email("Dana <dana@acme.com>"),
            lambda: email(),
            lambda: under(""),
            lambda: under("a\0b"),
            lambda: under(b"/tmp"),
            lambda: allow("vcons.take", value="read"),
            lambda: allow("vcons.take", value=str),
            lambda: allow("vcons.take", value=type(anything)),
        ]
    ),
)
def test_a_constraint_set_up_wrongly_says_so(make: Any):
    """Mistakes of the grant's author surface when the grant is made."""
    with pytest.raises(ConfigurationError):
        make()


# -- all constraints -------------------------------------------------------------------------

TEXTS = st.text(max_size=30) | st.text(
    "abcdk./@:%~\\ -_*KSDanaACMEgo\u212a\u017f\n\x00", max_size=25
)
PATHS = st.lists(st.sampled_from(["a", "..", ".", "sub", "self", "inward", ""]), max_size=6).map(
    "/".join
)
URLS = st.builds(
    "{}://{}{}/{}".format,
    st.sampled_from(["https", "HTTPS", "http"]),
    st.sampled_from(["good.com", "GOOD.com", "a.sub.net", "B.sub.net", "\u017f.sub.net"]),
    st.sampled_from(["", ":443", ":0443", ":8443", ":80"]),
    st.text("abcXYZ01?#&=%./@:", max_size=12),
)
ADDRESSES = st.builds(
    "{}@{}".format,
    st.text("abcXYZ.+'", min_size=1, max_size=8),
    st.sampled_from(["acme.com", "ACME.com", "A.sub.net", "evil.example"]),
)
NUMBERS = (
    st.integers() | st.floats() | st.decimals(allow_nan=True, allow_infinity=True) | st.booleans()
)
VALUES = TEXTS | PATHS | URLS | ADDRESSES | NUMBERS | st.binary(max_size=5) | st.none()


def constraints(root: Path) -> list[Any]:
    return [
        anything,
        one_of(["a", 1, True, 2.5, None, "dana@acme.com"]),
        exactly("a"),
        between(-5, 100),
        at_most(10),
        at_least(0),
        matches("[a-z./]*"),
        under(root),
        under(root, itself=True),
        host("good.com", "*.sub.net", schemes=("https", "http"), ports=(8443,)),
        email("Dana@acme.com", "a@acme.com"),
        email_domain("acme.com", "*.sub.net"),
    ]


@given(value=VALUES, index=st.integers(0, 11))
def test_what_a_constraint_hands_over_it_accepts_unchanged(value: Any, index: int, tree: Path):
    """Normalising twice is normalising once, for every constraint and every value it takes."""
    from checkrein.constraints import Refused

    constraint = constraints(tree)[index]
    try:
        once = constraint.normalise(value)
    except (Refused, ValueError):
        return
    twice = constraint.normalise(once)
    assert (twice, type(twice)) == (once, type(once)) or once != once


@given(value=URLS | ADDRESSES | PATHS | TEXTS)
def test_the_body_gets_just_what_the_constraint_returns(value: str, tree: Path):
    """Through the whole guard, too, the body gets the normalised value, or nothing happens."""
    from checkrein.constraints import Refused

    for constraint in constraints(tree)[-5:]:
        try:
            expected = constraint.normalise(value)
        except Refused:
            refusal(constraint, value)
        else:
            assert body_gets(constraint, value) == expected


@pytest.mark.parametrize("name", each(["100%25", "a\\b", "odd\uff0ename", "tab\there"]))
def test_a_root_with_an_odd_name_stays_idempotent(name: str, tmp_path: Path):
    """The root is the developer's: its own letters do not make its files unreachable."""
    root = tmp_path.resolve() / name
    root.mkdir()
    constraint = under(root)
    assert constraint.normalise(constraint.normalise("x")) == str(root / "x")


def test_a_windows_path_is_no_path_here(tree: Path):
    """A path of another system is refused, or handed over so that it is accepted again."""
    from checkrein.constraints import Refused

    constraint = under(tree)
    try:
        once = constraint.normalise(PureWindowsPath("a.txt"))
    except Refused:
        return
    assert constraint.normalise(once) == once


@pytest.mark.parametrize(
    ("constraint", "value"),
    [
        (under("/srv/reports"), "/etc/very-secret-name"),
        (host("good.com"), "https://very-secret-name.example/"),
        (email_domain("acme.com"), "very-secret-name@evil.example"),
        (email("dana@acme.com"), "very-secret-name@evil.example"),
        (one_of(["read"]), "very-secret-name"),
        (exactly("read"), "very-secret-name"),
        (between(1, 5), 7_340_551_234),
        (matches("[a-z]"), "very-secret-name"),
        (one_of(["read"]), Untrusted("very-secret-name")),
        (under("/srv"), ["very-secret-name"]),
        (under("/srv"), {"very-secret-name": 1}),
    ],
)
def test_no_denial_tells_the_value(constraint: Any, value: Any):
    """Message, cause, context, attributes and traceback of a denial hold none of the value."""
    told = told_by(refusal(constraint, value))
    assert "very-secret" not in told
    assert "7340551234" not in told
    with Run(agent="tester", grant=Grant(allow("vcons.take", value=constraint))) as run:
        assert "very-secret" not in str(run.explain(take, value=value))


def test_a_constraint_that_quotes_the_value_tells_nothing():
    """What a constraint of somebody else raises stays out of the denial and its context."""

    class Quoting:
        pins = False

        def normalise(self, value: Any) -> Any:
            try:
                raise LookupError(f"first {value}")
            except LookupError:
                raise RuntimeError(f"then {value}")

    value = "very-" + "secret-name"
    assert "very-secret" not in told_by(refusal(Quoting(), value))


def test_a_constraint_on_untrusted_content_normalises_the_content(tree: Path):
    """Payload may be constrained; the body gets the normalised content, still labelled."""

    @reads("vcons.payload")
    def keep(path: Untrusted[str]) -> int:
        GOT.append((path.reveal(), path.label.names))
        return 1

    GOT.clear()
    with Run(agent="tester", grant=Grant(allow("vcons.payload", path=under(tree)))):
        keep(Untrusted("sub/../a.txt", source="web"))
        for bad in ("../x", "uplink/y", "%2e%2e/z"):
            with pytest.raises(Denied):
                keep(Untrusted(bad, source="web"))
    assert GOT == [(str(tree / "a.txt"), ("external:web",))]
