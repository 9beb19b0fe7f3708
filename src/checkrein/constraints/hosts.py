"""URLs and mail addresses: judged by one parser, and rebuilt from what it read.

``host`` judges a URL by the name of its host. What it cannot know: where the
name points when the tool connects (a name may resolve to a private address), and
where a redirect leads. Judge redirects by calling the guarded tool again.

Sources: RFC 3986 for URLs with an authority, RFC 1123 for host names, RFC 6761
and RFC 8375 for names that are not public, RFC 5321 and RFC 5322 for addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from checkrein.conditions import Refused
from checkrein.constraints.words import check, check_texts, several, text_of
from checkrein.errors import ConfigurationError
from checkrein.lazy import pattern

_MAX_URL: Final = 8192
_MAX_ADDRESS: Final = 254  # RFC 5321 section 4.5.3.1.3, less the brackets
_MAX_NAME: Final = 253

_NAME: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = pattern(rf"{_NAME}(?:\.{_NAME})*", re.IGNORECASE | re.ASCII)
_PART: Final = r"[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2}"
# Without userinfo; the host is checked on its own.
_URL: Final = pattern(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    rf"(?P<rest>(?:/(?:{_PART})*)?(?:\?(?:{_PART}|\?)*)?(?:#(?:{_PART}|\?)*)?)"
)
_PORTS: Final = {"https": 443, "http": 80, "wss": 443, "ws": 80}
_NOT_PUBLIC: Final = (
    *("localhost", "local", "internal", "intranet", "lan", "home", "corp", "private"),
    *("home.arpa", "test", "invalid", "example", "onion", "arpa", "alt"),
    # What resolvers of hosts, clusters and offices are known to answer for.
    *("localdomain", "svc", "consul", "intra", "domain", "workgroup", "priv"),
)


# -- URLs ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class Host:
    """An absolute URL to one of ``hosts``; see :func:`host`."""

    hosts: tuple[str, ...]
    schemes: tuple[str, ...] = ("https",)
    ports: tuple[int, ...] = ()
    private: bool = False
    pins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_texts(self.hosts, "host")
        check_texts(self.schemes, "host(schemes=...)")
        check(all(map(_is_host_pattern, self.hosts)), _HOST_HINT)
        usual = all(re.fullmatch(r"[a-z][a-z0-9+.-]*", one) for one in self.schemes)
        check(usual, "host(schemes=...) takes schemes in lower case, without ://")
        ports = type(self.ports) is tuple and all(
            type(one) is int and 0 < one < 65536 for one in self.ports
        )
        check(ports, "host(ports=...) takes numbers from 1 to 65535")
        check(type(self.private) is bool, "host(private=...) takes True or False")

    def normalise(self, value: Any) -> str:
        """Return the URL, rebuilt from its parts, if its host is allowed."""
        parts = _URL().fullmatch(text_of(value, _MAX_URL))
        if parts is None:
            raise Refused("must be a plain absolute URL: scheme://host/path, in ASCII")
        scheme, host = parts["scheme"].lower(), parts["host"].lower()
        if scheme not in self.schemes:
            raise Refused(f"must be a URL that begins with {' or '.join(self.schemes)}")
        if not (host in self.hosts or self._stands_for(host)):
            raise Refused("must be a URL to a host that the permission lists")
        default = _PORTS.get(scheme)
        port = int(parts["port"]) if parts["port"] else default
        if port != default and port not in self.ports:
            raise Refused("must be a URL to the usual port")
        shown = "" if port == default else f":{port}"
        return f"{scheme}://{host}{shown}{parts['rest']}"

    def _stands_for(self, host: str) -> bool:
        """Say whether a wildcard stands for *host*, which is not listed as it is."""
        if not _is_name(host) or "xn--" in host:
            return False  # addresses and names that can look like others are listed in full
        if _is_beneath(host, self.hosts):
            return True
        return "*" in self.hosts and (self.private or _is_public(host))

    def __repr__(self) -> str:
        parts = [repr(one) for one in self.hosts]
        if self.schemes != ("https",):
            parts.append(f"schemes={self.schemes!r}")
        if self.ports:
            parts.append(f"ports={self.ports!r}")
        if self.private:
            parts.append("private=True")
        return f"host({', '.join(parts)})"


_HOST_HINT: Final = (
    "host() takes host names such as acme.com or *.acme.com, * for every public one, "
    "or addresses in their usual spelling, 10.0.0.5 or [::1]"
)


def _is_host_pattern(text: str) -> bool:
    return text == "*" or _is_name(text.removeprefix("*.")) or _is_usual_address(text)


def _is_name(host: str) -> bool:
    """Say whether *host* is a DNS name in lower case, and not a number in some spelling."""
    if len(host) > _MAX_NAME or not _HOST().fullmatch(host) or host != host.lower():
        return False
    last = host.rpartition(".")[2]
    return not (last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last))


def _is_beneath(name: str, patterns: tuple[str, ...]) -> bool:
    return any(one.startswith("*.") and name.endswith(one[1:]) for one in patterns)


def _is_usual_address(text: str) -> bool:
    import ipaddress  # noqa: PLC0415 (only permissions that list addresses need it)

    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return False
    if address.version == 6 and address.ipv4_mapped is not None:
        return False  # a second way to write an IPv4 address, and Pythons differ in the spelling
    usual = str(address)
    return text == (f"[{usual}]" if address.version == 6 else usual)


def _is_public(host: str) -> bool:
    return "." in host and not any(host == one or host.endswith(f".{one}") for one in _NOT_PUBLIC)


def host(
    *hosts: str,
    schemes: Iterable[str] = ("https",),
    ports: Iterable[int] = (),
    private: bool = False,
) -> Host:
    """Allow an absolute URL to one of *hosts*.

    The body gets the URL as it was read, host in lower case, default port left
    out. Refused: userinfo, backslashes, spaces, control and non-ASCII characters
    (percent-encode paths, write ``xn--`` names in full), percent signs that encode
    nothing, addresses in numbers unless listed as they are, other ports and schemes.

    Args:
        hosts: names as they are, ``*.good.com`` for every subdomain, ``*`` for every
            name that looks public, addresses in their usual spelling.
        schemes: what the URL may begin with.
        ports: ports other than the scheme's own.
        private: whether ``*`` stands for names such as ``localhost``, too.

    Raises:
        ConfigurationError: no hosts, or something that is no host, scheme or port.

    Example:
        >>> host("good.com").normalise("HTTPS://Good.com/a?b=1")
        'https://good.com/a?b=1'
    """
    named = tuple(_lower(one) for one in several(hosts, "host"))
    check(not isinstance(schemes, str), 'host(schemes=...) takes a list: schemes=["https"]')
    return Host(named, tuple(_lower(one) for one in schemes), tuple(ports), private)


def _lower(text: Any) -> Any:
    return text.lower() if isinstance(text, str) else text


# -- mail addresses ------------------------------------------------------------------------

# The dot-atom form of RFC 5322, less "%" and "!", with which old mailers route onwards.
_ATOM: Final = r"[A-Za-z0-9#$&'*+/=?^_`{|}~-]+"
_ADDRESS: Final = pattern(
    rf"{_ATOM}(?:\.{_ATOM})*@({_NAME}(?:\.{_NAME})*)", re.IGNORECASE | re.ASCII
)


def _address(value: Any) -> tuple[str, str]:
    parts = _ADDRESS().fullmatch(text_of(value, _MAX_ADDRESS))
    if parts is None:
        raise Refused("must be one plain mail address: name@domain")
    text, domain = parts[0], parts[1]
    if not domain.islower():
        domain = domain.lower()
        text = text[: parts.start(1)] + domain
    return text, domain


@dataclass(frozen=True, slots=True, repr=False)
class EmailDomain:
    """One mail address at one of ``domains``; ``*.acme.com`` stands for every subdomain."""

    domains: tuple[str, ...]
    pins: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_texts(self.domains, "email_domain")
        fit = all(_is_name(one.removeprefix("*.")) for one in self.domains)
        check(fit, "email_domain() takes host names such as acme.com or *.acme.com")

    def normalise(self, value: Any) -> str:
        """Return the address, domain in lower case, if its domain is allowed."""
        address, domain = _address(value)
        if not (domain in self.domains or (_is_beneath(domain, self.domains) and _is_name(domain))):
            raise Refused("must be a mail address at a domain that the permission lists")
        return address

    def __repr__(self) -> str:
        return f"email_domain({', '.join(map(repr, self.domains))})"


@dataclass(frozen=True, slots=True, repr=False)
class Email:
    """One of a few mail addresses, compared without regard to case."""

    addresses: tuple[str, ...]
    pins: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_texts(self.addresses, "email")
        try:
            usual = all(_address(one)[0] == one for one in self.addresses)
        except Refused:
            usual = False
        check(usual, "email() takes plain mail addresses: name@domain")

    def normalise(self, value: Any) -> str:
        """Return the listed spelling of the address."""
        address = _address(value)[0].lower()
        for allowed in self.addresses:
            if allowed.lower() == address:
                return allowed
        raise Refused("must be one of the mail addresses that the permission lists")

    def __repr__(self) -> str:
        return f"email({', '.join(map(repr, self.addresses))})"


def email_domain(*domains: str) -> EmailDomain:
    """Allow one mail address at one of *domains*.

    Example:
        >>> email_domain("acme.com").normalise("dana@ACME.com")
        'dana@acme.com'
    """
    return EmailDomain(tuple(_lower(one) for one in several(domains, "email_domain")))


def email(*addresses: str) -> Email:
    """Allow one of *addresses*; what the permission lists, it authorises."""
    try:
        return Email(tuple(_address(one)[0] for one in several(addresses, "email")))
    except Refused:
        raise ConfigurationError("email() takes plain mail addresses: name@domain") from None
