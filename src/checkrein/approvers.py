"""Who may approve: verdicts signed by keys that the agent's process does not hold.

Without it a run believes its gate, whatever name the verdict carries. With
``Run(approvers=Approvers({"dana": key}))`` a yes, a no and an edit count only if one
of the named people has signed them, and with ``needed=2`` only if two different keys
have signed the same answer. Who asks never approves: neither under the agent's own
name nor with a key that holds the run's grant.

The signature of a verdict is Ed25519 (RFC 8032) over::

    "checkrein/verdict/v1" LF  field ...

over the confirmation's id and digest, ``approved`` and ``suspicious`` as ``1`` or
``0``, who answers, the reason, the encoded edits (:mod:`checkrein.freezing`) and, of a
standing approval, its three fields as Python writes them, each
as its length in decimal, ``:``, and its bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, final

from checkrein.confirmations import Confirmation, Verdict
from checkrein.delegation import Principal, public_key
from checkrein.errors import ConfigurationError, GrantError, MisuseError
from checkrein.freezing import Unfreezable, encode, freeze

if TYPE_CHECKING:
    from checkrein.log.note import Ed25519Signer

_PREFIX: Final = b"checkrein/verdict/v1\n"


def signed(verdict: Verdict, principal: Principal) -> Verdict:
    """Return *verdict* with the signature of who gives it: for the approver's process.

    Args:
        verdict: made by ``confirmation.approve``, ``deny`` or ``edit``.
        principal: the approver.

    Example:
        >>> from checkrein.confirmations import Verdict
        >>> dana = Principal.new()
        >>> len(signed(Verdict("id", "digest", approved=True, by="dana"), dana).signature)
        64
    """
    if not isinstance(principal, Principal):
        raise MisuseError("signed(verdict, principal) takes the Principal who answers")
    return verdict._replace(signature=principal.sign(_message(verdict)))


def principal_from(path: str | os.PathLike[str]) -> Principal:
    """Return the principal whose private key ``checkrein keys new`` has put into a file.

    Args:
        path: of the file; nobody but its owner may read it.

    Raises:
        ConfigurationError: it is missing, holds no key, or others may read it.

    Example:
        >>> dana = principal_from("dana.skey")  # doctest: +SKIP
    """
    from checkrein.log.keys import load_signer  # noqa: PLC0415 (few who check answers read keys)

    return principal_of(load_signer(path))


def principal_of(signer: Ed25519Signer) -> Principal:
    """Return the principal that signs with the key of *signer*."""
    return Principal(signer._key)  # noqa: SLF001 (one key, under two kinds of names)


@final
class Approvers:
    """The people whose signed answers count.

    Args:
        keys: public keys, ``principal.id``, by the names that verdicts carry.
        needed: how many different keys must have signed a yes or an edit.

    Raises:
        ConfigurationError: no key, one key under two names, or too few for *needed*.
    """

    __slots__ = ("_keys", "needed")

    def __init__(self, keys: Mapping[str, str], *, needed: int = 1) -> None:
        if not isinstance(keys, Mapping) or not keys:
            raise ConfigurationError('Approvers({"dana": principal.id}) takes keys by name')
        try:
            for key in keys.values():
                public_key(key)
        except GrantError as error:
            raise ConfigurationError(f"Approvers(...): {error}") from None
        if len(set(keys.values())) < len(keys):
            raise ConfigurationError("one key under two names would be two people")
        if type(needed) is not int or not 1 <= needed <= len(keys):
            raise ConfigurationError("needed= takes a number from 1 to that of the approvers")
        self._keys = dict(keys)
        self.needed = needed

    def alone(self) -> Approvers:
        """Return the same people, of whom one is enough: to check one answer of several."""
        return Approvers(self._keys)

    def problem(self, question: Confirmation, verdict: Verdict, requesters: Sequence[str]) -> str:
        """Return why an answer does not count, ``""`` if it does.

        Args:
            question: what was asked.
            verdict: the answer; its parts, if several people gave it together.
            requesters: names and keys of who asks.
        """
        try:
            return self._problem(question, verdict, requesters)
        except MisuseError as problem:
            return str(problem)

    def _problem(self, question: Confirmation, verdict: Verdict, requesters: Sequence[str]) -> str:
        seen: set[str] = set()
        for one in verdict.parts or (verdict,):
            key = self._keys.get(one.by)
            if key is None:
                return "the answer is from nobody who may approve"
            if key in requesters or one.by in requesters:
                return "who asks cannot approve"
            same = (one.confirmation, one.digest) == (question.id, question.digest)
            # All of it: what is around the parts is signed by nobody.
            if not same or _said(one) != _said(verdict):
                return "the answers of several people are not the same"
            if not _is_signed(one, key):
                return "the answer is not signed by who it says"
            seen.add(key)
        if verdict.parts and verdict.by != ", ".join(sorted(one.by for one in verdict.parts)):
            return "the answer names others than those who gave it"
        if (verdict.approved or verdict.edits) and len(seen) < self.needed:
            return f"it takes the answers of {self.needed} people"
        return ""


def _is_signed(verdict: Verdict, key: str) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 (delegation has loaded it)

    try:
        public_key(key).verify(verdict.signature, _message(verdict))
    except (InvalidSignature, TypeError, MisuseError):
        return False
    return True


def _said(verdict: Verdict) -> tuple[object, ...]:
    return verdict.approved, verdict.suspicious, _edits(verdict), verdict.standing


def _edits(verdict: Verdict) -> bytes:
    try:
        return encode(freeze(dict(verdict.edits)))
    except Unfreezable as problem:
        raise MisuseError(f"an edit {problem}") from None


def _message(verdict: Verdict) -> bytes:
    fields: tuple[Any, ...] = (
        verdict.confirmation,
        verdict.digest,
        "1" if verdict.approved is True else "0",
        "1" if verdict.suspicious else "0",
        verdict.by,
        verdict.reason,
        _edits(verdict),
        *(() if verdict.standing is None else map(repr, verdict.standing)),
    )
    parts = [
        one if isinstance(one, bytes) else one.encode("utf-8", "surrogatepass") for one in fields
    ]
    return _PREFIX + b"".join(b"%d:%b" % (len(one), one) for one in parts)
