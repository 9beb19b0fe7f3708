"""Signed grants: who may do what, on whose behalf, checked by anybody, offline.

A signed grant is a chain of links. The first is signed by a root that the
verifier trusts, each later one by the holder of the link before it. A call must
be allowed by *every* link, so a link can only narrow, whatever it says, and
nobody ever has to prove that one permission is a part of another. Wider rights
come from a fresh grant of the root, which is another id in the log.

A grant is bound to its holder: the text alone is worth nothing to a thief. Who
uses it proves to have the holder's private key, in the same process
(:meth:`SignedGrant.held_by`) or by answering a challenge
(:meth:`SignedGrant.prove`, :meth:`SignedGrant.proven`).

Format
------

The text is ``cg1``, then for each link its bytes and its signature, all joined
by dots; both in base64url without padding (RFC 4648 section 5). The bytes of a
link are canonical JSON (:mod:`checkrein.wire`) with just these members:

* ``v``: 1;
* ``issuer``, ``holder``: public keys, ``ed25519:`` and base64url of 32 bytes;
* ``parent``: SHA-256 of the bytes of the link before it, in hex; ``""`` in the first;
* ``depth``: how many further links may follow; less than in the link before;
* ``nonce``: 16 random bytes in hex;
* ``expires``, ``not_before``: whole microseconds since the epoch, or ``null``;
* ``permissions``: an array.

The signature is Ed25519 (RFC 8032) over ``checkrein/grant/v1``, LF, and the
bytes. The id of a link, in the log, for its budgets and for revocation, is the
first 32 hex digits of the SHA-256 of ``checkrein/grant-id/v1``, LF, and the
bytes, so no issuer can choose it.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NoReturn, Self, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from checkrein.encodings import from_text, to_text
from checkrein.errors import ConfigurationError, GrantError
from checkrein.grants import Chain, Grant
from checkrein.orders import revoked
from checkrein.wire import from_bytes, permission_of, permission_tree, to_bytes

if TYPE_CHECKING:
    from checkrein.ports import Store

__all__ = ["HeldGrant", "Principal", "SignedGrant", "issue", "new_challenge", "revoke"]

_VERSION: Final = "cg1"
_SIGNED: Final = b"checkrein/grant/v1\n"
_NAMED: Final = b"checkrein/grant-id/v1\n"
_PROVEN: Final = b"checkrein/holder/v1\n"
_MEMBERS: Final = frozenset(
    {"v", "issuer", "holder", "parent", "depth", "nonce", "expires", "not_before", "permissions"}
)
_MOST_LINKS: Final = 16
_LONGEST: Final = 1 << 18
_LATEST: Final = 1 << 53
_CHALLENGE: Final = 32


# -- principals ----------------------------------------------------------------------------


@final
class Principal:
    """Somebody who can sign: a root, an agent, a delegate.

    Args:
        key: the private key. Keep it where only this principal can read it.

    Example:
        >>> Principal.new().id[:8]
        'ed25519:'
    """

    __slots__ = ("_key", "id")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigurationError("Principal(key) takes an Ed25519PrivateKey of cryptography")
        self._key = key
        self.id = _KEY + to_text(key.public_key().public_bytes_raw())

    @classmethod
    def new(cls) -> Self:
        """Return a principal with a new key."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, message: bytes) -> bytes:
        """Return the signature of *message*."""
        return self._key.sign(message)

    def __reduce__(self) -> NoReturn:
        raise ConfigurationError("a private key is not copied or pickled with its principal")

    def __repr__(self) -> str:
        return f"<Principal {self.id}>"


_KEY: Final = "ed25519:"


def public_key(name: object) -> Ed25519PublicKey:
    """Return the key that names a principal.

    Raises:
        GrantError: it names none.
    """
    if not isinstance(name, str) or not name.startswith(_KEY):
        raise GrantError("a principal is named by its public key: ed25519:...")
    data = _from_text(name.removeprefix(_KEY))
    if len(data) != 32:
        raise GrantError("a public key has 32 bytes")
    try:
        return Ed25519PublicKey.from_public_bytes(data)
    except ValueError:
        raise GrantError("the public key is none") from None


def _check(issuer: object, signature: bytes, message: bytes) -> None:
    try:
        public_key(issuer).verify(signature, message)
    except InvalidSignature:
        raise GrantError("a signature of the grant is not good") from None


# -- links ---------------------------------------------------------------------------------


class _Link:
    """One signed link, as bytes and as what they say."""

    __slots__ = ("data", "depth", "digest", "grant", "holder", "issuer", "parent", "signature")

    def __init__(self, data: bytes, signature: bytes) -> None:
        tree = from_bytes(data)
        if type(tree) is not dict or tree.keys() != _MEMBERS:
            raise GrantError("a link lacks a member, or has one that is not known here")
        if tree["v"] != 1 or type(tree["v"]) is not int:
            raise GrantError("the grant is of a version that is not known here")
        _check_nonce(tree["nonce"])
        if not isinstance(tree["parent"], str):
            raise GrantError("a link does not say what it follows")
        if type(tree["depth"]) is not int or not 0 <= tree["depth"] < _MOST_LINKS:
            raise GrantError(f"the depth of a link is a number from 0 to {_MOST_LINKS - 1}")
        if type(tree["permissions"]) is not list:
            raise GrantError("the permissions of a link are an array")
        public_key(tree["holder"])
        _check(tree["issuer"], signature, _SIGNED + data)  # before anything in it is made
        self.data = data
        self.signature = signature
        self.issuer: str = tree["issuer"]
        self.holder: str = tree["holder"]
        self.parent: str = tree["parent"]
        self.depth: int = tree["depth"]
        self.digest = hashlib.sha256(data).hexdigest()
        self.grant = Grant.signed_link(
            tuple(permission_of(one) for one in tree["permissions"]),
            expires=_instant(tree["expires"]),
            not_before=_instant(tree["not_before"]),
            id=hashlib.sha256(_NAMED + data).hexdigest()[:32],
        )


def _check_nonce(nonce: object) -> None:
    if not isinstance(nonce, str) or len(nonce) != 32 or not set(nonce) <= set("0123456789abcdef"):
        raise GrantError("the nonce of a link is 16 bytes in hex")


def _instant(microseconds: object) -> float | None:
    if microseconds is None:
        return None
    if type(microseconds) is not int or not 0 <= microseconds < _LATEST:
        raise GrantError("a time in a grant is whole microseconds since the epoch, or null")
    return microseconds / 1e6


def _signed(grant: Grant, by: Principal, to: str, depth: int, parent: str) -> _Link:
    if not isinstance(grant, Grant):
        raise ConfigurationError('a grant is signed: Grant(allow("mail.inbox"), ...)')
    if not isinstance(by, Principal):
        raise ConfigurationError("by= takes the Principal who signs")
    if type(depth) is not int or not 0 <= depth < _MOST_LINKS:
        raise ConfigurationError(f"depth= takes a number from 0 to {_MOST_LINKS - 1}")
    public_key(to)
    # Rounded inwards, so that the text never says more than the grant did.
    expires = None if grant.expires is None else math.floor(grant.expires * 1e6)
    begins = None if grant.not_before is None else math.ceil(grant.not_before * 1e6)
    tree = {
        "v": 1,
        "issuer": by.id,
        "holder": to,
        "parent": parent,
        "depth": depth,
        "nonce": os.urandom(16).hex(),
        "expires": expires,
        "not_before": begins,
        "permissions": [permission_tree(one) for one in grant.permissions],
    }
    data = to_bytes(tree)
    return _Link(data, by.sign(_SIGNED + data))


# -- signed grants -------------------------------------------------------------------------


def issue(grant: Grant, *, by: Principal, to: str, depth: int = 0) -> SignedGrant:
    """Sign *grant* as a root.

    Args:
        grant: what is allowed, and until when. It gets a new id.
        by: the root, whom verifiers trust by its public key.
        to: the public key of the holder, ``principal.id``.
        depth: how many times it may be delegated further, one after the other.

    Raises:
        GrantError: *to* is no public key, or a permission cannot be put into text.
        ConfigurationError: another argument is not what it should be.

    Example:
        >>> from checkrein import Grant, allow
        >>> root, agent = Principal.new(), Principal.new()
        >>> signed = issue(Grant(allow("mail.inbox")), by=root, to=agent.id)
        >>> SignedGrant.read(str(signed), roots=[root.id]).holder == agent.id
        True
    """
    return SignedGrant((_signed(grant, by, to, depth, ""),))


@final
class SignedGrant:
    """A verified chain of links. Made by :func:`issue`, :meth:`delegate` or :meth:`read`."""

    __slots__ = ("_links",)

    HINT: Final = "prove that you hold the signed grant: signed.held_by(principal)"

    def __init__(self, links: tuple[_Link, ...]) -> None:
        self._links = links

    @classmethod
    def read(cls, text: str, *, roots: Iterable[str]) -> Self:
        """Read and verify the text of a signed grant, offline.

        Args:
            text: as ``str(signed)`` returned it, letter for letter.
            roots: the public keys whose grants are honoured here.

        Raises:
            GrantError: the text is not a chain of good links from one of the roots.
        """
        if isinstance(roots, str):
            raise ConfigurationError("roots= takes a list of public keys: roots=[root.id]")
        links = tuple(_links_of(text))
        if links[0].issuer not in set(roots):
            raise GrantError("the grant is not from a root that is trusted here")
        if links[0].parent:
            raise GrantError("the grant lacks the link that its first one follows")
        for before, link in pairwise(links):
            _check_follows(before, link)
        return cls(links)

    def delegate(self, grant: Grant, *, by: Principal, to: str, depth: int = 0) -> SignedGrant:
        """Pass on a part of the grant. What *grant* allows beyond it, it does not allow.

        Args:
            grant: what the delegate may do at most.
            by: the holder, who signs.
            to: the public key of the delegate.
            depth: how many times the delegate may pass it on.

        Raises:
            GrantError: *by* is not the holder, or the grant may not be passed on.
        """
        last = self._links[-1]
        if not isinstance(by, Principal) or by.id != last.holder:
            raise GrantError("only the holder of a grant can delegate it")
        if type(depth) is int and depth >= last.depth:
            raise GrantError(
                f"the grant may be passed on {last.depth} more times: depth= must be less"
            )
        link = _signed(grant, by, to, depth, last.digest)
        return SignedGrant((*self._links, link))

    # -- what it says ----------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The id of the last link."""
        return self._links[-1].grant.id

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all links, from the root on; revoking one ends all that follow."""
        return tuple(one.grant.id for one in self._links)

    @property
    def holder(self) -> str:
        """The public key of who may use it."""
        return self._links[-1].holder

    @property
    def holders(self) -> tuple[str, ...]:
        """The public keys, from the root's to the holder's."""
        return (self._links[0].issuer, *(one.holder for one in self._links))

    @property
    def chain(self) -> tuple[Grant, ...]:
        """What each link allows, from the root on. To use it, prove that you hold it."""
        return tuple(one.grant for one in self._links)

    # -- who holds it ----------------------------------------------------------------------

    def held_by(self, principal: Principal) -> HeldGrant:
        """Prove possession in this process, and return what ``Run(grant=...)`` takes.

        Raises:
            GrantError: *principal* is not the holder.
        """
        challenge = new_challenge()
        return self.proven(self.prove(principal, challenge), challenge)

    def prove(self, principal: Principal, challenge: bytes) -> bytes:
        """Answer the challenge of somebody who will act on the grant: for the holder.

        Args:
            principal: the holder.
            challenge: what :func:`new_challenge` returned there.
        """
        if not isinstance(principal, Principal):
            raise ConfigurationError("a Principal proves that it holds the grant")
        return principal.sign(self.to_prove(challenge))

    def proven(self, proof: bytes, challenge: bytes) -> HeldGrant:
        """Check the answer to a challenge: for who acts on the grant.

        Args:
            proof: what the holder's :meth:`prove` returned.
            challenge: what was asked. Never accept one twice.

        Raises:
            GrantError: the proof is not the holder's, or is for another challenge.
        """
        return HeldGrant(self, proof, challenge)

    def to_prove(self, challenge: bytes) -> bytes:
        """Return the bytes that the holder signs to answer *challenge*."""
        if not isinstance(challenge, bytes) or len(challenge) != _CHALLENGE:
            raise GrantError("a challenge is what new_challenge() returned: 32 bytes")
        return _PROVEN + bytes.fromhex(self._links[-1].digest) + challenge

    def __str__(self) -> str:
        parts = (part for one in self._links for part in (one.data, one.signature))
        return ".".join([_VERSION, *map(to_text, parts)])

    def __repr__(self) -> str:
        return f"<SignedGrant {self.id}, {len(self._links)} links>"


@final
class HeldGrant(Chain):
    """A signed grant whose holder has proven to be there; goes into ``Run(grant=...)``.

    Args:
        signed: the signed grant.
        proof: what the holder's :meth:`SignedGrant.prove` returned.
        challenge: what was asked.

    Raises:
        GrantError: the proof is not the holder's, or is for another challenge.

    Attributes:
        signed: the signed grant.
        links: what each link allows, from the root on.
        holders: the public keys from the root's to the holder's.
    """

    __slots__ = ("signed",)

    def __init__(self, signed: SignedGrant, proof: bytes, challenge: bytes) -> None:
        if not isinstance(proof, bytes):
            raise GrantError("a proof is bytes")
        _check(signed.holder, proof, signed.to_prove(challenge))
        super().__init__(signed.chain, signed.holders)
        self.signed = signed

    def __repr__(self) -> str:
        return f"<HeldGrant {self.signed.id}>"


def new_challenge() -> bytes:
    """Return a challenge for one proof: 32 random bytes."""
    return os.urandom(_CHALLENGE)


def revoke(store: Store, grant: str, *, reason: str = "") -> None:
    """End a grant, and all that was delegated from it, wherever *store* is used.

    Args:
        store: the store that the runs use.
        grant: the id of any link.
        reason: for those who read the store later.
    """
    store.post(revoked(grant), reason=reason)


# -- text ----------------------------------------------------------------------------------


def _links_of(text: object) -> Iterable[_Link]:
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise GrantError("a signed grant is a text of at most 256 kB")
    version, *parts = text.split(".")
    if version != _VERSION:
        raise GrantError(f"a signed grant begins with {_VERSION}.")
    if not parts or len(parts) % 2 or len(parts) > 2 * _MOST_LINKS:
        raise GrantError(f"a signed grant has from 1 to {_MOST_LINKS} links, each with a signature")
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [_Link(_from_text(data), _from_text(signature)) for data, signature in pairs]


def _check_follows(before: _Link, link: _Link) -> None:
    if link.issuer != before.holder or link.parent != before.digest:
        raise GrantError("a link of the grant does not follow from the one before it")
    if link.depth >= before.depth:
        raise GrantError("the grant was passed on more often than it may be")


def _from_text(text: str) -> bytes:
    try:
        return from_text(text)
    except ValueError:
        raise GrantError("a signed grant is base64url between its dots, in one spelling") from None
