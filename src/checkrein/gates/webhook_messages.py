"""What a webhook gate and its endpoint say to each other, byte by byte; for both of them.

There are three messages, and each is signed with a key that the two share:

=======  ===================  =====================================================
ask      ``POST url``         the question as JSON (:func:`checkrein.confirmations.to_text`)
poll     ``GET url/ID``       no body: is there an answer by now?
answer   status 200           the verdict as JSON (:func:`checkrein.confirmations.verdict_tree`)
=======  ===================  =====================================================

An endpoint that has no answer yet says 202, unsigned, to either request. A body is
``application/json`` in UTF-8.

Signature
---------

HMAC (RFC 2104) with SHA-256 and a key of at least 32 bytes, over::

    "checkrein/webhook-" kind "/v1" LF  timestamp  id  nonce  body

where ``kind`` is ``ask``, ``poll`` or ``answer``, so that no message passes for one of
another kind, and each of the four fields is its length in decimal, ``:``, and its
bytes. It travels in these headers, all of them in a request, those with a star in an
answer:

* ``Checkrein-Timestamp`` (*): whole seconds since the epoch, in decimal; at most
  300 away from the clock of who reads it;
* ``Checkrein-Confirmation``: the id of the question;
* ``Checkrein-Nonce``: 16 random bytes in hex, new for each request;
* ``Checkrein-Signature`` (*): ``v1=`` and 64 hex digits.

An answer is signed with the id and the nonce of its request, which are not sent back: it
is the answer to that request and to no other, so an old one, kept by somebody, is good
for nothing. A request that is repeated by somebody within the 300 seconds is a question
that the endpoint has seen already, by its id; its answer is good for nothing, either.

The key says which *machine* speaks. Which *person* has answered is proven by the
signature within the verdict (:mod:`checkrein.approvers`), which the run checks.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple, Protocol

from checkrein.confirmations import (
    Confirmation,
    Verdict,
    read_question,
    read_verdict,
    verdict_tree,
)
from checkrein.errors import CheckreinError, ConfigurationError, MisuseError, TamperedError
from checkrein.ports import Clock

__all__ = [
    "LONGEST_ANSWER",
    "WINDOW",
    "BadAnswer",
    "ForgedAnswer",
    "NoAnswer",
    "Request",
    "RequestRefused",
    "WebhookError",
    "answer_to",
    "read_request",
]

WINDOW: Final = 300
"""Seconds by which a message may be older or newer than the reader's clock says."""

LONGEST_ANSWER: Final = 1 << 20
"""Bytes of an answer, at most."""

Kind = Literal["ask", "poll", "answer"]

_SHORTEST_KEY: Final = 32
_JSON: Final = "application/json"
_TIMESTAMP: Final = "checkrein-timestamp"
_CONFIRMATION: Final = "checkrein-confirmation"
_NONCE: Final = "checkrein-nonce"
_SIGNATURE: Final = "checkrein-signature"
_FORMS: Final = {
    _TIMESTAMP: re.compile(r"0|[1-9][0-9]{0,14}"),
    _CONFIRMATION: re.compile(r"[A-Za-z0-9_-]{1,200}"),  # part of a path: no dots, no slashes
    _NONCE: re.compile(r"[0-9a-f]{32}"),
    _SIGNATURE: re.compile(r"v1=[0-9a-f]{64}"),
}


class WebhookError(CheckreinError):
    """A question or an answer did not get through; the message says why.

    ::

        WebhookError
        ├── RequestRefused     the endpoint: this is no request of the gate
        ├── NoAnswer           the gate: there is no answer, and will be none
        └── BadAnswer          the gate: what came is no answer to this question
            └── ForgedAnswer   it is not signed as it should be, or too old
    """


class RequestRefused(WebhookError):
    """What came in is no request of a gate with this key. Answer it with 400 or 401."""


class NoAnswer(WebhookError):
    """The endpoint could not be reached, or had no answer in time."""


class BadAnswer(WebhookError):
    """What the endpoint has said is no answer to this question."""


class ForgedAnswer(BadAnswer):
    """The answer is not signed with the key, not for this request, or too old."""


class Headers(Protocol):
    """The headers of a message, as every framework has them: names and values, in any case."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return the names with their values."""
        ...


class Request(NamedTuple):
    """A request whose signature is good.

    Attributes:
        id: the id of the question. The same one may come again: it is the same question.
        nonce: what ties an answer to this request.
        question: what is asked; ``None`` if the gate only asks whether there is an answer.
    """

    id: str
    nonce: str
    question: Confirmation | None = None


# -- for the endpoint ----------------------------------------------------------------------


def read_request(headers: Headers, body: bytes, key: bytes, *, clock: Clock = time.time) -> Request:
    """Read and check a request of a :class:`~checkrein.gates.webhook.WebhookGate`.

    Args:
        headers: of the request; ``request.headers`` in most frameworks.
        body: of the request, as it came; ``b""`` for a GET.
        key: what the gate and the endpoint share.
        clock: tells the time, for tests.

    Raises:
        RequestRefused: it is not signed with the key, not of now, or asks nothing.
        ConfigurationError: the key is none.

    Example:
        >>> read_request({}, b"", bytes(32))
        Traceback (most recent call last):
        checkrein.gates.webhook_messages.RequestRefused: the request has no checkrein-timestamp
    """
    check_key(key)
    try:
        names = (_TIMESTAMP, _CONFIRMATION, _NONCE, _SIGNATURE)
        stamp, id_, nonce, signature = _fields(headers, names)
        _check("ask" if body else "poll", (stamp, id_, nonce, body), signature, key, clock())
    except ValueError as problem:
        raise RequestRefused(f"the request {problem}") from None
    if not body:
        return Request(id_, nonce)
    try:
        question = read_question(body.decode())
    except (TamperedError, UnicodeDecodeError):
        raise RequestRefused("the request asks no question") from None
    if question.id != id_:
        raise RequestRefused("the request asks another question than it says")
    return Request(id_, nonce, question)


def answer_to(
    request: Request, verdict: Verdict, key: bytes, *, clock: Clock = time.time
) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of an answer; its status is 200.

    Args:
        request: what :func:`read_request` returned: the answer is good for it only.
        verdict: made by ``question.approve``, ``deny`` or ``edit``, and signed by the
            person if the run has approvers.
        key: what the gate and the endpoint share.
        clock: tells the time, for tests.

    Raises:
        MisuseError: the verdict is for another question, no JSON, or of more than a megabyte.
        ConfigurationError: the key is none.
    """
    check_key(key)
    asked = request.question
    if verdict.confirmation != request.id or (asked and asked.digest != verdict.digest):
        raise MisuseError("the verdict is for another question than the request")
    body = json.dumps(verdict_tree(verdict), separators=(",", ":")).encode()
    if len(body) > LONGEST_ANSWER:
        raise MisuseError("an answer has at most a megabyte")
    stamp = str(int(clock()))
    signature = _signature("answer", (stamp, request.id, request.nonce, body), key)
    headers = {
        "Content-Type": _JSON,
        "Checkrein-Timestamp": stamp,
        "Checkrein-Signature": signature,
    }
    return headers, body


# -- for the gate --------------------------------------------------------------------------


def request_headers(request: Request, body: bytes, key: bytes, *, clock: Clock) -> dict[str, str]:
    """Return the headers of a request: to ask if it has a body, to poll if not.

    Args:
        request: the id of the question, and a nonce.
        body: the question as JSON, or ``b""``.
        key: what the gate and the endpoint share.
        clock: tells the time.
    """
    stamp = str(int(clock()))
    kind: Kind = "ask" if body else "poll"
    headers = {
        "Accept": _JSON,
        "Accept-Encoding": "identity",  # what unpacks to more than it is cannot be bounded
        "Checkrein-Timestamp": stamp,
        "Checkrein-Confirmation": request.id,
        "Checkrein-Nonce": request.nonce,
        "Checkrein-Signature": _signature(kind, (stamp, request.id, request.nonce, body), key),
    }
    if body:
        # A text in quotes, as in draft-ietf-httpapi-idempotency-key-header; for what stands
        # between. It is not signed, and read_request() does not look at it.
        headers |= {"Content-Type": _JSON, "Idempotency-Key": f'"{request.id}"'}
    return headers


def check_answer_headers(headers: Headers) -> None:
    """Refuse an answer by its headers, before its body is read.

    Raises:
        BadAnswer: it is no JSON, compressed, or too long.
    """
    named = {name.lower(): value.strip().lower() for name, value in headers.items()}
    if named.get("content-type", "").partition(";")[0].rstrip() != _JSON:
        raise BadAnswer("the answer is not application/json")
    if named.get("content-encoding", "identity") != "identity":
        raise BadAnswer("the answer is compressed")
    length = named.get("content-length", "0")
    if length.isdecimal() and (len(length) > 9 or int(length) > LONGEST_ANSWER):
        raise too_long()


def too_long() -> BadAnswer:
    """Return the error for an answer that is longer than :data:`LONGEST_ANSWER`."""
    return BadAnswer("the answer has more than a megabyte")


def read_answer(
    request: Request, headers: Headers, body: bytes, key: bytes, *, clock: Clock
) -> Verdict:
    """Read and check the answer to a request.

    Args:
        request: what was sent, with the question, whether it was to ask or to poll.
        headers: of the answer.
        body: of the answer.
        key: what the gate and the endpoint share.
        clock: tells the time.

    Raises:
        ForgedAnswer: it is not signed with the key for this request, or too old.
        BadAnswer: it is no verdict, or one about something else.
    """
    try:
        stamp, signature = _fields(headers, (_TIMESTAMP, _SIGNATURE))
        fields = (stamp, request.id, request.nonce, body)
        _check("answer", fields, signature, key, clock())
    except ValueError as problem:
        raise ForgedAnswer(f"the answer {problem}") from None
    try:
        verdict = read_verdict(json.loads(body.decode()))
    except (TamperedError, ValueError, RecursionError):
        raise BadAnswer("the answer is no verdict") from None
    question = request.question
    assert question is not None
    if (verdict.confirmation, verdict.digest) != (question.id, question.digest):
        raise BadAnswer("the answer is for another question")
    if not verdict.by.strip():
        raise BadAnswer("the answer does not say who gives it")
    return verdict


# -- the signature -------------------------------------------------------------------------


def check_key(key: object) -> None:
    """Refuse what is no key.

    Raises:
        ConfigurationError: it is no bytes, or fewer than 32.
    """
    if type(key) is not bytes or len(key) < _SHORTEST_KEY:
        raise ConfigurationError("the key of a webhook is at least 32 random bytes: os.urandom(32)")


def is_sendable(id_: str) -> bool:
    """Say whether *id_* can stand in a header and at the end of a path as it is."""
    return _FORMS[_CONFIRMATION].fullmatch(id_) is not None


Fields = tuple[str, str, str, bytes]
"""What is signed: timestamp, id, nonce and body."""


def message(kind: Kind, fields: Fields) -> bytes:
    r"""Return the bytes that are signed. No two messages have the same.

    Args:
        kind: which of the three messages it is.
        fields: timestamp, id, nonce and body.

    Example:
        >>> message("poll", ("7", "q1", "00", b""))
        b'checkrein/webhook-poll/v1\n1:72:q12:000:'
    """
    *texts, body = fields
    raws = [*(one.encode("utf-8", "surrogatepass") for one in texts), body]
    prefix = f"checkrein/webhook-{kind}/v1\n".encode()
    return prefix + b"".join(b"%d:%b" % (len(one), one) for one in raws)


def _signature(kind: Kind, fields: Fields, key: bytes) -> str:
    return "v1=" + hmac.new(key, message(kind, fields), hashlib.sha256).hexdigest()


def _check(kind: Kind, fields: Fields, signature: str, key: bytes, now: float) -> None:
    """Raise a ``ValueError`` with the end of a sentence, unless all is well."""
    if not hmac.compare_digest(_signature(kind, fields, key), signature):
        raise ValueError("is not signed with the key that is known here")
    if abs(int(fields[0]) - now) > WINDOW:
        raise ValueError(f"is more than {WINDOW} seconds away from the time here")


def _fields(headers: Headers, names: tuple[str, ...]) -> list[str]:
    """Return the values of our headers, each there once and in its only spelling."""
    found: dict[str, list[Any]] = {}
    for name, value in headers.items():
        found.setdefault(name.lower(), []).append(value)
    values: list[str] = []
    for name in names:
        match found.get(name, []):
            case [str(value)] if _FORMS[name].fullmatch(value):
                values.append(value)
            case []:
                raise ValueError(f"has no {name}")
            case _:
                raise ValueError(f"has a {name} that is none")
    return values
