"""Constraints on arguments: each checks a value and returns the one to use.

A constraint is a frozen dataclass with one method, ``normalise(value)``. It
returns the value that the tool's body will receive, so that what was checked
and what is used can never be two readings of one text; or it raises
:class:`Refused`, whose message holds no value. All are idempotent. ``pins``
says that the constraint names the value itself (``one_of``, ``exactly``), and
so authorises it. The text of a constraint is the Python that makes it.

Only ``under`` and ``opened_under`` look at the file system, and say so.

=================  =============================================================
``anything``       every value
``exactly``        one value, type included
``one_of``         one of a few values, type included
``between``        a finite number in a closed interval; never a bool or a text
``at_most``        the same, open below
``at_least``       the same, open above
``matches``        a text that a pattern matches whole, at most 1,024 letters long
``length``         a text, list, set or dict of a bounded length
``under``          a path that lies, links followed, beneath a directory
``opened_under``   the same, handed over as an open file
``host``           an absolute URL to one of a few hosts
``email``          one of a few mail addresses
``email_domain``   a mail address at one of a few domains
``each``           a list, tuple or set whose members meet a constraint
``keys``           a dict, dataclass or model whose keys are known, each constrained
``both``           what meets all of several constraints
``either``         what meets one of several constraints
``where``          what your own code says yes to; it cannot be signed
=================  =============================================================
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from checkrein.conditions import Anything, Constraint, Opener, Refused, anything
from checkrein.constraints.combined import (
    Both,
    Each,
    Either,
    Keys,
    Where,
    both,
    each,
    either,
    keys,
    where,
)
from checkrein.constraints.hosts import Email, EmailDomain, Host, email, email_domain, host
from checkrein.constraints.paths import OpenedUnder, Under, opened_under, under
from checkrein.constraints.texts import Length, Matches, length, matches
from checkrein.constraints.values import (
    Between,
    OneOf,
    at_least,
    at_most,
    between,
    exactly,
    one_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "KINDS",
    "Anything",
    "Between",
    "Both",
    "Constraint",
    "Each",
    "Either",
    "Email",
    "EmailDomain",
    "Host",
    "Keys",
    "Length",
    "Matches",
    "OneOf",
    "OpenedUnder",
    "Opener",
    "Refused",
    "Under",
    "Where",
    "anything",
    "at_least",
    "at_most",
    "between",
    "both",
    "each",
    "either",
    "email",
    "email_domain",
    "exactly",
    "host",
    "keys",
    "length",
    "matches",
    "one_of",
    "opened_under",
    "under",
    "where",
]

KINDS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        "between": Between,
        "both": Both,
        "each": Each,
        "either": Either,
        "email": Email,
        "email_domain": EmailDomain,
        "host": Host,
        "keys": Keys,
        "length": Length,
        "matches": Matches,
        "one_of": OneOf,
        "opened_under": OpenedUnder,
        "under": Under,
    }
)
"""The constraints that a signed grant can hold, by their names there."""
