"""Grants: permissions with an expiry, and the index that finds those about a tool.

Several permissions of a grant for one resource are alternatives. Several grants
in a chain, that of a run inside a run or of a delegation, must each allow the
call, so a link of a chain can only narrow. Several decorators on one tool are
several claims; each needs a permission.

A grant is indexed by resource: what a call costs does not depend on how many
permissions there are for other resources.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NoReturn
from weakref import WeakSet

from checkrein.admission import Offer, Steps, budget_key, permission_key
from checkrein.errors import ConfigurationError
from checkrein.lazy import sha256
from checkrein.permissions import Permission
from checkrein.ports import Use

if TYPE_CHECKING:
    from checkrein.facts import Claim, ToolFacts
    from checkrein.ports import Clock


_LONGEST_ID: Final = 200  # budgets and notices are named by it, in stores too


class Chain:
    """Several grants that must each allow a call: a delegation, for ``Run(grant=...)``.

    The first link is from somebody who may say where an argument comes from; the
    later ones are from those it was passed on by, who can narrow and no more.

    Args:
        links: the grants, from the root on.
        holders: the public keys, from the root's to the holder's.
    """

    __slots__ = ("holders", "links")

    def __init__(self, links: tuple[Grant, ...], holders: tuple[str, ...]) -> None:
        self.links = links
        self.holders = holders


class Grant:
    """Permissions with an expiry. Immutable.

    Args:
        permissions: made by :func:`checkrein.allow`.
        expires_in: how long the grant is good for, from now.
        expires_at: until when it is good, instead.
        not_before: from when it is good.
        id: its name in the log and for its budgets; random if left out.
        clock: tells the time, for tests.

    Raises:
        ConfigurationError: something that is no permission, or an impossible time.

    Example:
        >>> from checkrein import allow
        >>> grant = Grant(allow("mail.inbox"), expires_in=timedelta(minutes=30))
        >>> [permission.resource for permission in grant.permissions]
        ['mail.inbox']
    """

    __slots__ = (
        "__weakref__",
        "_by_resource",
        "_by_segment",
        "expires",
        "id",
        "not_before",
        "permissions",
        "signed",
    )

    permissions: tuple[Permission, ...]
    expires: float | None
    not_before: float | None
    id: str
    _by_resource: dict[str, list[tuple[int, Permission]]]
    _by_segment: dict[str, list[tuple[int, Permission]]]
    signed: bool
    """Whether it is a link of a signed chain: good as a part of it only, and read from a text."""

    def __init__(
        self,
        *permissions: Permission,
        expires_in: timedelta | None = None,
        expires_at: datetime | None = None,
        not_before: datetime | None = None,
        id: str = "",  # noqa: A002
        clock: Clock = time.time,
    ) -> None:
        for one in permissions:
            if not isinstance(one, Permission):
                raise ConfigurationError(
                    f"a grant is made of permissions, not of {type(one).__name__}: "
                    'Grant(allow("mail.inbox"), ...)'
                )
        if expires_in is not None and expires_at is not None:
            raise ConfigurationError("give expires_in or expires_at, not both")
        if not isinstance(id, str) or len(id) > _LONGEST_ID or not id.isprintable():
            raise ConfigurationError("Grant(id=...) takes a printable text of at most 200 letters")
        expires = _instant(expires_at, "expires_at")
        if expires_in is not None:
            if not isinstance(expires_in, timedelta) or expires_in <= timedelta():
                raise ConfigurationError("expires_in takes a positive timedelta")
            expires = clock() + expires_in.total_seconds()
        begins = _instant(not_before, "not_before")
        put = object.__setattr__
        put(self, "permissions", permissions)
        put(self, "expires", expires)
        put(self, "not_before", begins)
        put(self, "id", id or os.urandom(8).hex())
        put(self, "signed", False)
        self._index()

    def _index(self) -> None:
        # A full name is found by all of it, a pattern by its first segment.
        by_resource: dict[str, list[tuple[int, Permission]]] = {}
        by_segment: dict[str, list[tuple[int, Permission]]] = {}
        for place, one in enumerate(self.permissions):
            if one.wildcard:
                by_segment.setdefault(one.resource.partition(".")[0], []).append((place, one))
            else:
                by_resource.setdefault(one.resource, []).append((place, one))
        object.__setattr__(self, "_by_resource", by_resource)
        object.__setattr__(self, "_by_segment", by_segment)

    @classmethod
    def signed_link(
        cls,
        permissions: tuple[Permission, ...],
        *,
        expires: float | None,
        not_before: float | None,
        id: str,  # noqa: A002
    ) -> Grant:
        """Return the grant that a signed link states; for :mod:`checkrein.delegation`."""
        link = cls(*permissions, id=id)
        object.__setattr__(link, "expires", expires)
        object.__setattr__(link, "not_before", not_before)
        object.__setattr__(link, "signed", True)
        return link

    def about(self, claim: Claim) -> Iterator[tuple[int, Permission]]:
        """Return the permissions that cover *claim*, each with its place in the grant."""
        found = [*self._by_resource.get(claim.resource, ())]
        for segment in (claim.resource.partition(".")[0], "*", "**"):
            found += self._by_segment.get(segment, ())
        return ((place, one) for place, one in found if one.covers(claim))

    def steps(self, facts: ToolFacts) -> Steps:
        """Return, for each claim of a tool, what the permissions that cover it ask."""
        return tuple(
            (
                claim,
                tuple(Offer(self.id, place, claim, one, facts) for place, one in self.about(claim)),
            )
            for claim in facts.claims
        )

    def budgets(self) -> Iterator[Use]:
        """Yield the smallest use of each budget, by its name in the store."""
        for place, permission in enumerate(self.permissions):
            for number, one in enumerate(permission.budgets):
                key = budget_key(permission_key(self.id, place), number)
                yield Use(key, one.limit, 1, one.per)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a grant is not changed; make a new one")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __copy__(self) -> Grant:
        return self

    def __deepcopy__(self, memo: object) -> Grant:
        return self

    def __repr__(self) -> str:
        return f"Grant({', '.join(str(one) for one in self.permissions)}, id={self.id!r})"


def policy_of(grants: Iterable[Grant]) -> str:
    """Return the digest of what grants allow, whoever made them and when; hexadecimal."""
    lines = [text for one in grants for text in (*map(str, one.permissions), "")]
    text = "\n".join(lines).encode("utf-8", "surrogatepass")
    return sha256(b"checkrein/policy/v1\n" + text).hex()


_SEEN_EXPIRED: Final[WeakSet[Grant]] = WeakSet()


def note_expired(grant: Grant) -> None:
    """Keep in mind that *grant* was seen expired."""
    _SEEN_EXPIRED.add(grant)


def was_seen_expired(grant: Grant) -> bool:
    """Say whether some run of this process has seen *grant* expired."""
    return grant in _SEEN_EXPIRED


def _instant(moment: datetime | None, name: str) -> float | None:
    if moment is None:
        return None
    if not isinstance(moment, datetime) or moment.tzinfo is None:
        raise ConfigurationError(f"{name} takes a datetime with a time zone")
    return moment.timestamp()
