"""Constraints on arguments: each checks a value and returns the one to use.

A constraint is a frozen dataclass with one method, ``normalise(value)``. It
returns the value that the tool's body will receive, so that what was checked
and what is used can never be two readings of one text; or it raises
:class:`Refused`, whose message holds no value. All are idempotent. ``pins``
says that the constraint names the value itself (``one_of``, ``exactly``), and
so authorises it.

Only :class:`Under` looks at the file system, and says so.

=================  =============================================================
``anything``       every value
``exactly``        one value, type included
``one_of``         one of a few values, type included
``between``        a finite number in a closed interval; never a bool or a text
``at_most``        the same, open below
``at_least``       the same, open above
``matches``        a text that a pattern matches whole, at most 1,024 letters long
``under``          a path that lies, links followed, beneath a directory
``host``           an absolute URL to one of a few hosts
``email``          one of a few mail addresses
``email_domain``   a mail address at one of a few domains
=================  =============================================================
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePath, PureWindowsPath
from typing import Any, ClassVar, Final

from checkrein.conditions import Anything, Constraint, Refused, anything
from checkrein.errors import ConfigurationError
from checkrein.freezing import Unfreezable, encode, freeze, is_finite
from checkrein.lazy import pattern

__all__ = [
    "Anything",
    "Between",
    "Constraint",
    "Email",
    "EmailDomain",
    "Host",
    "Matches",
    "OneOf",
    "Refused",
    "Under",
    "anything",
    "at_least",
    "at_most",
    "between",
    "email",
    "email_domain",
    "exactly",
    "host",
    "matches",
    "one_of",
    "under",
]

Number = int | float | Decimal

_MAX_TEXT: Final = 1024
_MAX_URL: Final = 8192
_MAX_PATH: Final = 4096
_MAX_ADDRESS: Final = 254  # RFC 5321 section 4.5.3.1.3, less the brackets


def _text(value: Any, limit: int = _MAX_TEXT) -> str:
    if type(value) is not str:
        raise Refused("must be a text")
    if len(value) > limit:
        raise Refused(f"must have at most {limit} letters")
    return value


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few values; ``1``, ``1.0``, ``True`` and ``"1"`` are four different ones."""

    options: tuple[Any, ...]
    pins: ClassVar[bool] = True

    def normalise(self, value: Any) -> Any:
        """Return *value* if it is one of the options."""
        kind = type(value)
        for option in self.options:
            if type(option) is kind and option == value:
                return option
        raise Refused("must be one of the values that the permission lists")


@dataclass(frozen=True, slots=True)
class Between:
    """A finite number from ``low`` to ``high``, both included; ``None`` leaves a side open."""

    low: Number | None
    high: Number | None
    pins: ClassVar[bool] = False

    def normalise(self, value: Any) -> Any:
        """Return *value* if it is a number in the interval."""
        kind = type(value)
        if kind is not int and (kind not in {float, Decimal} or not is_finite(value)):
            raise Refused("must be a finite number")
        # Asked positively, so that what compares to nothing is outside.
        inside = (self.low is None or self.low <= value) and (
            self.high is None or value <= self.high
        )
        if not inside:
            raise Refused(f"must be a number {self._limits()}")
        return value

    def _limits(self) -> str:
        if self.low is None:
            return f"of at most {self.high}"
        if self.high is None:
            return f"of at least {self.low}"
        return f"from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Matches:
    """A text that a pattern matches from its first to its last letter.

    ``re`` may take exponential time for some patterns; the text is limited to
    1,024 letters, and the pattern comes from you, not from a model: keep nested
    repetition, ``(a+)+`` for example, out of it.
    """

    pattern: str
    pins: ClassVar[bool] = False

    def normalise(self, value: Any) -> str:
        """Return *value* if the pattern matches all of it."""
        text = _text(value)
        if re.fullmatch(self.pattern, text, re.ASCII) is None:
            raise Refused("must match the pattern that the permission states")
        return text


# -- paths ---------------------------------------------------------------------------------

_PERCENT: Final = re.compile(r"%[0-9A-Fa-f]{2}")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_PATH_LETTERS: Final = "/\\.~:%"


@dataclass(frozen=True, slots=True)
class Under:
    """A path beneath ``root`` after every link was followed; handed over absolute.

    Relative paths are taken from ``root``. Spellings that another layer might
    decode once more are refused: percent signs, full-width letters, ``~``,
    URLs, backslashes, control characters.

    This looks at the file system before the tool opens the file. Somebody who
    can create links beneath ``root`` can race the two.
    """

    root: str
    itself: bool = False
    pins: ClassVar[bool] = False

    def normalise(self, value: Any) -> Any:
        """Return the real, absolute path of *value* if it lies beneath the root."""
        path = isinstance(value, PurePath)
        if path and isinstance(value, PureWindowsPath) != (os.name == "nt"):
            raise Refused("must be a path of this system")
        text = _text(str(value) if path else value, _MAX_PATH)
        root = os.path.realpath(self.root)
        beneath = root.rstrip(os.sep) + os.sep
        # What the permission itself spells may be as odd as its author likes.
        _refuse_odd_path(text.removeprefix(beneath) if text != beneath else ".")
        real = os.path.realpath(os.path.join(root, text))
        if not (self.itself if real == root else real.startswith(beneath)):
            raise Refused("must be a path beneath the directory that the permission names")
        return type(value)(real) if path else real


def _refuse_odd_path(text: str) -> None:
    if not text or not text.isprintable():
        raise Refused("must be a path without control or invisible characters")
    if text.startswith("~") or _SCHEME.match(text) or "\\" in text:
        raise Refused("must be a plain path: no ~, no URL, no backslash")
    if _PERCENT.search(text):
        raise Refused("must be a path without percent-encoding")
    plain = unicodedata.normalize("NFKC", text)
    if any(plain.count(letter) != text.count(letter) for letter in _PATH_LETTERS):
        raise Refused("must be a path without look-alikes of / . ~ or :")


# -- URLs ----------------------------------------------------------------------------------

_NAME: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = pattern(rf"{_NAME}(?:\.{_NAME})*", re.IGNORECASE | re.ASCII)
# RFC 3986, for URLs with an authority, without userinfo; the host is checked on its own.
_URL: Final = pattern(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
    r"(?:#[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?)"
)
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Host:
    """An absolute URL to one of ``hosts``; ``*.good.com`` stands for every subdomain.

    One parser reads the URL, and the body gets what it read, host in lower
    case, default port left out. Refused: userinfo, backslashes, spaces,
    control and non-ASCII characters (percent-encode paths, ``xn--`` hosts),
    addresses in numbers unless listed as they are, other ports, other schemes.
    """

    hosts: tuple[str, ...]
    schemes: tuple[str, ...] = ("https",)
    ports: tuple[int, ...] = ()
    pins: ClassVar[bool] = False

    def normalise(self, value: Any) -> str:
        """Return the URL, rebuilt from its parts, if its host is allowed."""
        parts = _URL().fullmatch(_text(value, _MAX_URL))
        if parts is None:
            raise Refused("must be a plain absolute URL: scheme://host/path, in ASCII")
        scheme, host = parts["scheme"].lower(), parts["host"].lower()
        if scheme not in self.schemes:
            raise Refused(f"must be a URL that begins with {' or '.join(self.schemes)}")
        if not _is_one_of(host, self.hosts):
            raise Refused("must be a URL to a host that the permission lists")
        default = _PORTS.get(scheme)
        port = int(parts["port"]) if parts["port"] else default
        if port != default and port not in self.ports:
            raise Refused("must be a URL to the usual port")
        shown = "" if port == default else f":{port}"
        return f"{scheme}://{host}{shown}{parts['rest']}"


def _is_one_of(host: str, allowed: tuple[str, ...]) -> bool:
    """Say whether *host* is a name, and one that *allowed* lists or stands for."""
    return _HOST().fullmatch(host) is not None and (
        host in allowed or any(one.startswith("*.") and host.endswith(one[1:]) for one in allowed)
    )


# -- mail addresses ------------------------------------------------------------------------

# The dot-atom form of RFC 5322, less "%" and "!", with which old mailers route onwards.
_ATOM: Final = r"[A-Za-z0-9#$&'*+/=?^_`{|}~-]+"
_ADDRESS: Final = pattern(
    rf"{_ATOM}(?:\.{_ATOM})*@({_NAME}(?:\.{_NAME})*)", re.IGNORECASE | re.ASCII
)


def _address(value: Any) -> tuple[str, str]:
    parts = _ADDRESS().fullmatch(_text(value, _MAX_ADDRESS))
    if parts is None:
        raise Refused("must be one plain mail address: name@domain")
    text, domain = parts[0], parts[1]
    if not domain.islower():
        domain = domain.lower()
        text = text[: parts.start(1)] + domain
    return text, domain


@dataclass(frozen=True, slots=True)
class EmailDomain:
    """One mail address at one of ``domains``; ``*.acme.com`` stands for every subdomain."""

    domains: tuple[str, ...]
    pins: ClassVar[bool] = False

    def normalise(self, value: Any) -> str:
        """Return the address, domain in lower case, if its domain is allowed."""
        address, domain = _address(value)
        if not _is_one_of(domain, self.domains):
            raise Refused("must be a mail address at a domain that the permission lists")
        return address


@dataclass(frozen=True, slots=True)
class Email:
    """One of a few mail addresses, compared without regard to case."""

    addresses: tuple[str, ...]
    pins: ClassVar[bool] = True

    def normalise(self, value: Any) -> str:
        """Return the listed spelling of the address."""
        address = _address(value)[0].lower()
        for allowed in self.addresses:
            if allowed.lower() == address:
                return allowed
        raise Refused("must be one of the mail addresses that the permission lists")


# -- how one writes them -------------------------------------------------------------------


def one_of(options: Iterable[Any]) -> OneOf:
    """Allow one of *options*, compared with their types.

    Raises:
        ConfigurationError: no options, a bare text, or an option that is not plain data.

    Example:
        >>> one_of(["read", "list"]).normalise("read")
        'read'
    """
    if isinstance(options, str | bytes):
        raise ConfigurationError('one_of() takes a list: one_of(["read", "list"])')
    return OneOf(tuple(_option(option) for option in _several(options, "one_of")))


def exactly(value: Any) -> OneOf:
    """Allow *value* and nothing else."""
    return OneOf((_option(value),))


def between(low: Number, high: Number) -> Between:
    """Allow a number from *low* to *high*, both included.

    Example:
        >>> between(1, 100).normalise(50)
        50
    """
    _limit(low, "low")
    _limit(high, "high")
    if not low <= high:
        raise ConfigurationError("between(low, high) needs low <= high; no number fits these")
    return Between(low, high)


def at_most(high: Number) -> Between:
    """Allow a number of at most *high*; negative ones too, so see :func:`between`."""
    _limit(high, "high")
    return Between(None, high)


def at_least(low: Number) -> Between:
    """Allow a number of at least *low*."""
    _limit(low, "low")
    return Between(low, None)


def matches(pattern: str) -> Matches:
    r"""Allow a text that *pattern* (of :mod:`re`, ASCII classes) matches whole.

    Example:
        >>> matches("[A-Z]{2}-[0-9]{4}").normalise("AB-1234")
        'AB-1234'
    """
    if not isinstance(pattern, str):
        raise ConfigurationError("matches(pattern) takes a text")
    try:
        re.compile(pattern, re.ASCII)
    except (re.error, ValueError, OverflowError, RecursionError) as error:
        raise ConfigurationError(f"matches(pattern) needs a valid pattern: {error}") from None
    return Matches(pattern)


def under(root: str | os.PathLike[str], *, itself: bool = False) -> Under:
    """Allow a path beneath the directory *root*; relative paths are taken from it.

    Args:
        root: the directory, made absolute now. It need not exist yet.
        itself: whether the directory itself is allowed, for tools that list.

    Example:
        >>> under("/srv/reports").normalise("2026/june.txt")
        '/srv/reports/2026/june.txt'
    """
    text = os.fspath(root)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigurationError("under(root) needs a directory, as a text or a path")
    return Under(os.path.abspath(text), itself)


def host(*hosts: str, schemes: Iterable[str] = ("https",), ports: Iterable[int] = ()) -> Host:
    """Allow an absolute URL to one of *hosts*.

    Args:
        hosts: names as they are, or ``*.good.com`` for every subdomain.
        schemes: what the URL may begin with.
        ports: ports other than the scheme's own.

    Example:
        >>> host("good.com").normalise("HTTPS://Good.com/a?b=1")
        'https://good.com/a?b=1'
    """
    named = tuple(_domain(one, "host") for one in _several(hosts, "host"))
    return Host(named, tuple(one.lower() for one in schemes), tuple(ports))


def email_domain(*domains: str) -> EmailDomain:
    """Allow one mail address at one of *domains*.

    Example:
        >>> email_domain("acme.com").normalise("dana@ACME.com")
        'dana@acme.com'
    """
    return EmailDomain(
        tuple(_domain(one, "email_domain") for one in _several(domains, "email_domain"))
    )


def email(*addresses: str) -> Email:
    """Allow one of *addresses*; what the permission lists, it authorises."""
    try:
        return Email(tuple(_address(one)[0] for one in _several(addresses, "email")))
    except Refused:
        raise ConfigurationError("email() takes plain mail addresses: name@domain") from None


def _several(values: Iterable[Any], name: str) -> tuple[Any, ...]:
    several = tuple(values)
    if not several:
        raise ConfigurationError(f"{name}() without values would allow nothing; leave it out")
    return several


def _option(value: Any) -> Any:
    try:
        frozen = freeze(value)
        encode(frozen)
    except Unfreezable as refusal:
        raise ConfigurationError(f"an allowed value {refusal}") from None
    return frozen


def _limit(value: Any, name: str) -> None:
    if type(value) not in {int, float, Decimal} or not is_finite(value):
        raise ConfigurationError(f"{name} must be a finite number, not {type(value).__name__}")


def _domain(value: Any, name: str) -> str:
    text = value.lower() if isinstance(value, str) else ""
    if _HOST().fullmatch(text.removeprefix("*.")) is None:
        raise ConfigurationError(f"{name}() takes host names such as acme.com or *.acme.com")
    return text
