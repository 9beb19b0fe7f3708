"""A question to a person, and the answer: bound to one exact call, and to what was shown of it.

The digest of a confirmation is::

    SHA-256( "checkrein/confirmation/v2" LF  field ... )

over everything that the approver is shown and everything that the answer is good
for: :func:`digest_of` lists it. Each field is its length in decimal, ``:``, and its
bytes; a list is the number of its items, as a field, and the items. The id is the
nonce. A verdict carries id and digest back; a verdict for anything else is
``gate.mismatch``. So whoever keeps a question on its way to the approver and shows
them something else gets an answer that is good for nothing.

:func:`to_text` and :func:`read_question` write a question down for another process, as
JSON; what is read again shows every argument as text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from checkrein.errors import MisuseError, TamperedError
from checkrein.lazy import sha256

_PREFIX: Final = b"checkrein/confirmation/v2\n"
_LONGEST_CARE: Final = 3600


class Care(NamedTuple):
    """How much care an answer takes, beyond reading. Use it sparingly: people get used to it.

    A gate that can enforce it does: the queue and its inbox.

    Args:
        seconds: for how long at least the question has been open before a yes counts,
            by the clock of the process that takes the answer.
        retype: the name of an argument whose value the approver types in, from their
            own knowledge: it is not filled in for them.
    """

    seconds: float = 0.0
    retype: str = ""


NO_CARE: Final = Care()
"""An answer that is read and given."""


def check_care(care: object) -> Care:
    """Return *care* if it can be taken.

    Raises:
        MisuseError: it is none, or takes too long.
    """
    if not isinstance(care, Care):
        raise MisuseError('care= takes Care(seconds=5), or Care(retype="amount")')
    if not (type(care.seconds) in {int, float} and 0 <= care.seconds <= _LONGEST_CARE):
        raise MisuseError("Care(seconds=...) takes 0 to 3600 seconds")
    if not isinstance(care.retype, str):
        raise MisuseError("Care(retype=...) takes the name of an argument")
    return Care(float(care.seconds), care.retype)


def joined_care(cares: Iterable[Care]) -> Care:
    """Return the care that meets all of *cares*; the first name that is to be typed in."""
    cares = tuple(cares)
    seconds = max((one.seconds for one in cares), default=0.0)
    return Care(seconds, next((one.retype for one in cares if one.retype), ""))


class Shown(NamedTuple):
    """One argument, as an approver must see it.

    Attributes:
        name: the parameter.
        value: the value that will run, frozen; ``None`` in another process.
        untrusted: whether the parameter takes untrusted content.
        origin: in words, where the value came from.
        concern: what the rules say about it, ``""`` for nothing.
        text: the value in Python's spelling; nothing is cut off, every character shows.
        plain: the value as JSON, ``""`` if it is not plain data; for editing.
    """

    name: str
    value: Any
    untrusted: bool
    origin: str
    concern: str = ""
    text: str = ""
    plain: str = ""


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
        bound_to: the digest of the call, over the tool's definition and its arguments.
        grants: the ids of the grants in force.
        chain: on whose behalf: the agents around this one, and the keys that hold the grant.
        asked: when, in seconds since the epoch.
        preview: what the tool says that the call would do, every character visible.
        needed: how many different people must say yes.
        care: how much care an answer takes.
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
    bound_to: str = ""
    grants: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    asked: float = 0.0
    preview: str = ""
    needed: int = 1
    care: Care = NO_CARE

    @property
    def letters(self) -> int:
        """How much there is to read: the letters of arguments, reasons and preview."""
        shown = sum(len(one.name) + len(one.text) + len(one.origin) for one in self.arguments)
        return shown + sum(map(len, self.reasons)) + len(self.preview)

    def approve(self, *, by: str, standing: Standing | None = None) -> Verdict:
        """Return a yes to exactly this call.

        Args:
            by: who says so.
            standing: a yes to a few more just like it; see :mod:`checkrein.standing`.
        """
        if standing is not None and not isinstance(standing, Standing):
            raise MisuseError("standing= takes standing(uses=5, within=timedelta(hours=1))")
        return Verdict(self.id, self.digest, approved=True, by=_name(by), standing=standing)

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
        standing: a yes to more calls like this one, ``None`` for none.
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
    standing: Standing | None = None


class Standing(NamedTuple):
    """A yes to more calls like the one that was shown; made by :func:`checkrein.standing.standing`.

    Attributes:
        uses: how many more.
        seconds: for how long.
        arguments: constraints on the arguments that may differ, as :mod:`checkrein.wire` has it.
    """

    uses: int
    seconds: float
    arguments: str = "{}"


class Spent(NamedTuple):
    """In place of an answer: there was one, and it was used. The call may have run.

    Attributes:
        confirmation: the id of the question.
    """

    confirmation: str


def _name(by: str) -> str:
    if not isinstance(by, str) or not by.strip():
        raise MisuseError("a verdict needs by='...': who gives it; it will be in the audit log")
    return by


def names_in(*by: str) -> set[str]:
    """Return every name in *by*, each of which may hold several, in one spelling."""
    return {name.strip().casefold() for one in by for name in one.split(",")}


# -- the digest ----------------------------------------------------------------------------


def digest_of(question: Confirmation) -> str:
    """Return the digest that *question* ought to have."""
    parts = [_PREFIX]
    for value in _bound(question):
        raw = value.encode("utf-8", "surrogatepass")
        parts.append(b"%d:%b" % (len(raw), raw))
    return sha256(b"".join(parts)).hex()


def _bound(one: Confirmation) -> Iterator[str]:
    yield from (one.id, one.agent, one.run, one.call, one.bound_to)
    yield from (one.tool, one.effect, one.resource)
    for texts in (one.chain, one.grants, one.rules, one.reasons):
        yield from _listed(texts)
    yield str(len(one.arguments))
    for shown in one.arguments:
        yield from (shown.name, shown.text, shown.plain, repr(shown.untrusted))
        yield from (shown.origin, shown.concern)
    yield from (one.preview, repr(one.needed), repr(one.care.seconds), one.care.retype)
    yield from (repr(one.asked), repr(one.expires))


def _listed(texts: Iterable[str]) -> Iterator[str]:
    listed = tuple(texts)
    yield str(len(listed))
    yield from listed


# -- written down --------------------------------------------------------------------------


def to_text(question: Confirmation) -> str:
    """Return *question* as JSON, for another process."""
    tree = question._asdict()
    tree["arguments"] = [{**one._asdict(), "value": None} for one in question.arguments]
    tree["care"] = question.care._asdict()
    return _json(tree)


def read_question(text: str) -> Confirmation:
    """Return the question that was written down as *text*.

    Raises:
        TamperedError: it is no question, or not the one that was asked.
    """
    try:
        tree = json.loads(text)
        tree["arguments"] = tuple(Shown(**one) for one in tree["arguments"])
        tree["care"] = Care(**tree["care"])
        for name in ("reasons", "rules", "grants", "chain"):
            tree[name] = tuple(tree[name])
        question = Confirmation(**tree)
        whole = digest_of(question) == question.digest
    except Exception as error:  # noqa: BLE001 (whatever is wrong with it, it is no question)
        raise TamperedError(f"this is no question ({type(error).__name__})") from None
    if not whole:
        raise TamperedError("the question is not the one that was asked", where=question.id)
    return question


def verdict_tree(verdict: Verdict) -> dict[str, Any]:
    """Return *verdict* as plain data.

    Raises:
        MisuseError: its edits are no JSON.
    """
    edits = dict(verdict.edits)
    try:
        same = json.loads(_json(edits)) == edits
    except (TypeError, ValueError, RecursionError):
        same = False
    if not same:
        raise MisuseError("edits that travel are JSON: texts, numbers, lists, dicts, true and null")
    return {
        **verdict._asdict(),
        "edits": edits,
        "signature": base64.b64encode(verdict.signature).decode(),
        "parts": [verdict_tree(one) for one in verdict.parts],
        "standing": None if verdict.standing is None else list(verdict.standing),
    }


def read_verdict(tree: Any) -> Verdict:
    """Return the verdict that :func:`verdict_tree` has made plain.

    Raises:
        TamperedError: it is none.
    """
    try:
        given: dict[str, Any] = dict(tree)
        given["signature"] = base64.b64decode(given["signature"], validate=True)
        given["parts"] = tuple(read_verdict(one) for one in given["parts"])
        given["standing"] = given["standing"] and Standing(*given["standing"])
        found = Verdict(**given)
        texts = (found.confirmation, found.digest, found.by, found.reason)
        flags = (found.approved, found.suspicious)
        well = all(type(one) is str for one in texts) and all(type(one) is bool for one in flags)
    except Exception:  # noqa: BLE001 (whatever is wrong with it, it is no verdict)
        raise TamperedError("this is no verdict") from None
    if not well or type(found.edits) is not dict:
        raise TamperedError("this is no verdict")
    return found


def _json(tree: Any) -> str:
    return json.dumps(tree, separators=(",", ":"), allow_nan=False)
