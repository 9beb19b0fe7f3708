"""What is written down: the entries of the audit log, as plain JSON data.

Every entry has ``v`` (1), ``type``, ``time`` (nanoseconds since the epoch),
``run`` and ``seq`` (from 0, without gaps, per run).

======================  ======================================================
type                    further fields
======================  ======================================================
``run.opened``          agent, grants, holders (public keys, of a delegation),
                        permissions, policy (the digest of what the grants
                        allow), version (of this library), parent, call, exposed;
                        resumes (the id of the run that it goes on with), in a
                        resumed run alone
``run.suspended``       calls, confirmations (ids of the open questions)
``run.closed``          calls, exposed, private, invisible (characters that were
                        taken out of what a model was shown)
``run.exposed``         sources
``run.locked``          reason
``run.stopped``         reason
``run.plan``            steps, plan (its name among the grants, with its digest)
``instruction``         text
``prompt``              system, digest (of all of it), sources
``host``                framework, version, ids (pairs of name and value: what a
                        framework calls the conversation; nothing rests on it)
``tool.unknown``        tool: a model asked for one that it is not offered
``model.prompt``        digest, letters, of all that a model was given; text, where
                        the application wants it kept
``model.output``        digest, letters, of what it said; text, as above
``quarantine``          sources, schema
``trusted``             values (how many)
``call.allowed``        call, agent, tool, effect, resource, arguments, digest,
                        definition (the digest of the tool's), grants, findings
                        (those a person approved), parent, exposed; shadow,
                        true, in a shadow run alone; standing, the id of the
                        confirmation whose standing answer covers it
``call.denied``         as call.allowed, with the findings that decided
``call.outcome``        call, status, error (a type's name), result, ms; sources,
                        of content that came back; digest, of a text that did
``call.edited``         call, became (the id of the call in its place), arguments
                        (the names of those that were changed)
``confirmation.asked``  as call.denied, and confirmation, bound_to (its digest),
                        letters (how much an approver is shown)
``confirmation.answered``  call, confirmation, answer, by, reason; standing (uses,
                        seconds, arguments), where more calls were allowed with it
``canary.answered``     confirmation, by, caught, asked (when), letters; of a call
                        that there is not, in no run's sequence
``answer.refused``      confirmation, by, reason; of a desk, in no run's sequence
``erasure``             by, reason; index, field, commitments, or key: of the log
``export``              by, entries (how many), chosen, disclosed, manifest (its
                        SHA-256): of the log, as the one before and the next
``log.key``             old, new, size, by_old, by_new: the log has another key
``log.key.revoked``     key, size, reason, by: see `checkrein.log.succession`
``incident``            about (a run, a call, or words), by, reason
``endorsement``         sources, reason, tool, parameter
``reveal``              sources, reason, call
======================  ======================================================

``call.allowed`` is the intent: of a tool that changes state or reaches outside
it is durable before the body runs. ``status`` is ``done``, ``raised``,
``closed`` (a stream that its consumer left), ``suspended``, ``cancelled``
(before the body) or ``in doubt`` (cancelled in the body, or the body says so).

Plain arguments are written as they are, cut at 1,000 letters with their length
beside; what is declared ``secret`` is not written, what is declared ``erasable``
as a commitment (`checkrein.log.openings`), and so is the text of an ``instruction``
in a run that has a ``subject``. Untrusted payload is written as its sources and
length. The digest of a call is salted with a secret of the run, since a bare
digest of a short text can be guessed. That of a prompt or an output is SHA-256 of
``checkrein/said/v1``, LF, the same secret and the text; that of a result begins with
``checkrein/result/v1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from checkrein.forgetting import Erasable
from checkrein.labels import Label
from checkrein.untrusted import Untrusted, content

if TYPE_CHECKING:
    from checkrein.calls import Call

_MAX_TEXT: Final = 1000
_INT64: Final = 1 << 63


def loggable(value: Any) -> Any:
    """Return JSON data for *value*: itself where that is possible, else a description."""
    kind = type(value)
    if kind is str:
        if len(value) > _MAX_TEXT:
            return {"start": _utf8(value[:_MAX_TEXT]), "letters": len(value)}
        return value if value.isascii() else _utf8(value)
    if kind is bool or value is None:
        return value
    if kind is float:
        return value if isfinite(value) else {"number": repr(value)}  # JSON has no such number
    if kind is int:
        return value if -_INT64 <= value < _INT64 else {"number": hex(value)[:_MAX_TEXT]}
    if kind is Untrusted:
        inner = content(value)
        size = len(inner) if isinstance(inner, str | bytes | tuple) else 1
        return {"untrusted": loggable_sources(value.label), "size": size}
    text = repr(value)
    return {"type": kind.__name__, "start": _utf8(text[:_MAX_TEXT]), "letters": len(text)}


def loggable_field(value: Any) -> Any:
    """Return a field of an entry with every text in it as UTF-8 can hold it."""
    if isinstance(value, str):
        return value if value.isascii() else _utf8(value)
    if isinstance(value, list):
        return [loggable_field(one) for one in value]
    return value


def loggable_sources(label: Label) -> Any:
    """Return the names of the sources of content."""
    return loggable_field(list(label.names))


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def discreet(arguments: dict[str, Any], call: Call, subject: str) -> dict[str, Any]:
    """Return the JSON data of arguments without secrets, and with what can be forgotten."""
    for name in call.facts.erasable:
        value = call.arguments[name]
        whole = loggable_field(value) if type(value) is str else arguments[name]
        arguments[name] = Erasable(whole, subject=subject)
    return arguments | {name: {"secret": True} for name in call.facts.secrets}


def loggable_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON data for every argument of a call."""
    entry: dict[str, Any] = {}
    for name, value in arguments.items():
        if type(value) is str and len(value) <= _MAX_TEXT and value.isascii():
            entry[name] = value  # the usual case
        else:
            entry[name] = loggable(value)
    return entry
