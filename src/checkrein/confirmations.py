"""A question to a person, and the answer: bound to one exact call.

The digest of a confirmation is::

    SHA-256( "checkrein/confirmation/v1" LF  field ... )

over id, agent, run, call, the call's digest (tool definition and arguments),
the grants in force, the rules that asked and the time of expiry, each field as
its length in decimal, ``:``, and its bytes. The id is the nonce. A verdict
carries id and digest back; a verdict for anything else is ``gate.mismatch``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from checkrein.errors import MisuseError
from checkrein.lazy import sha256


class Shown(NamedTuple):
    """One argument, as an approver must see it.

    Attributes:
        name: the parameter.
        value: the value that will run, frozen; nothing is cut off.
        untrusted: whether the parameter takes untrusted content.
        origin: in words, where the value came from.
        concern: what the rules say about it, ``""`` for nothing.
    """

    name: str
    value: Any
    untrusted: bool
    origin: str
    concern: str = ""


class Confirmation(NamedTuple):
    """What a gate asks: may this call run?

    Attributes:
        id: unique and unguessable; serves once.
        tool: the tool's name.
        effect: ``reads``, ``writes`` or ``irreversible``.
        resource: what the tool acts on.
        arguments: every argument.
        reasons: why it is asked, one sentence per finding; written by code, never by a model.
        rules: the ids of the findings.
        agent: who wants to call.
        run: the id of the run.
        call: the id of the call.
        expires: when the question lapses, in seconds since the epoch.
        digest: 32 bytes, hexadecimal, that stand for all of this.
    """

    id: str
    tool: str
    effect: str
    resource: str
    arguments: tuple[Shown, ...]
    reasons: tuple[str, ...]
    rules: tuple[str, ...]
    agent: str
    run: str
    call: str
    expires: float
    digest: str

    def approve(self, *, by: str) -> Verdict:
        """Return a yes to exactly this call.

        Args:
            by: who says so.
        """
        return Verdict(self.id, self.digest, approved=True, by=_name(by))

    def edit(self, changes: Mapping[str, Any], *, by: str, reason: str = "") -> Verdict:
        """Return a no to this call, and another one that may be made in its place.

        The edited call is a new one: bound, decided by all rules and, if need be, asked
        about again. It is a call of the same tool.

        Args:
            changes: new values by the names of arguments.
            by: who says so.
            reason: why, for the audit log.
        """
        if not isinstance(changes, Mapping) or not changes:
            raise MisuseError("edit(...) takes what to change: edit({'to': 'bo'}, by='dana')")
        return Verdict(
            self.id, self.digest, approved=False, by=_name(by), reason=reason, edits=changes
        )

    def deny(self, *, by: str, reason: str = "", suspicious: bool = False) -> Verdict:
        """Return a no.

        Args:
            by: who says so.
            reason: why, for the audit log.
            suspicious: the call should never have been attempted; locks the run.
        """
        return Verdict(
            self.id, self.digest, approved=False, by=_name(by), reason=reason, suspicious=suspicious
        )


class Verdict(NamedTuple):
    """A person's answer; made by :meth:`Confirmation.approve`, ``deny`` or ``edit``.

    Attributes:
        confirmation, digest: what it answers.
        approved: ``True``, and nothing else, is a yes.
        by: who gives it.
        reason: why, for the audit log.
        suspicious: the call should never have been attempted.
        edits: arguments of the call to make instead.
        signature: by whoever gives it; see :mod:`checkrein.approvers`.
        parts: the answers of several people, of which this one is made.
    """

    confirmation: str
    digest: str
    approved: bool
    by: str
    reason: str = ""
    suspicious: bool = False
    edits: Mapping[str, Any] = MappingProxyType({})
    signature: bytes = b""
    parts: tuple[Verdict, ...] = ()


def _name(by: str) -> str:
    if not isinstance(by, str) or not by.strip():
        raise MisuseError("a verdict needs by='...': who gives it; it will be in the audit log")
    return by


def confirmation_digest(fields: Mapping[str, str | bytes]) -> str:
    """Return the digest of a confirmation's binding *fields*, in their order."""
    parts = [b"checkrein/confirmation/v1\n"]
    for value in fields.values():
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        parts.append(b"%d:%b" % (len(raw), raw))
    return sha256(b"".join(parts)).hex()
