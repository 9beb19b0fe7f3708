"""A gate that asks a web service: a signed request out, a signed verdict in.

The question is sent to an endpoint of yours with POST. Whoever answers at once sends the
verdict back in the response. Whoever needs a person first says 202 and is asked again,
with GET, until there is a verdict or the question lapses. What is said, and how it is
signed, is specified in :mod:`checkrein.gates.webhook_messages`, which has the two
functions for the endpoint as well.

A call is allowed by one thing only: status 200, ``application/json`` of at most a
megabyte, signed with the key for this very request, a verdict about this very question.
Anything else is an exception, that is, no:

* a connection that fails, a time-out, 429 and 5xx: after as many attempts in a row as
  were given, further and further apart (:class:`~checkrein.gates.webhook_messages.NoAnswer`);
* no answer before the question lapses (``NoAnswer``);
* any other status, redirects among them, any other content (``BadAnswer``), any other
  signature (``ForgedAnswer``): at once.

The endpoint's certificate is always checked. Proxies, ``.netrc`` and certificates that the
environment names are not used.

Needs httpx: ``pip install 'checkrein[webhook]'``.
"""

from __future__ import annotations

import asyncio
import contextvars
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, final

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    wait_exponential,
    wait_random,
)

from checkrein.confirmations import Confirmation, Verdict, to_text
from checkrein.errors import ConfigurationError
from checkrein.gates.webhook_messages import (
    LONGEST_ANSWER,
    BadAnswer,
    NoAnswer,
    Request,
    WebhookError,
    check_answer_headers,
    check_key,
    is_sendable,
    read_answer,
    request_headers,
    too_long,
)
from checkrein.lazy import logger
from checkrein.ports import Clock, entropy
from checkrein.waiting import running_asyncio

_missing: ImportError | None = None
if TYPE_CHECKING:
    import httpx
else:
    try:
        import httpx
    except ImportError as error:
        _missing = error

T = TypeVar("T")

_MOST_ATTEMPTS: Final = 100
_OK: Final = 200
_ACCEPTED: Final = 202
_TOO_MANY: Final = 429
_LAPSED: Final = "nobody answered before the question lapsed"


# With a random part, so that those who failed together do not come back together.
_BACK_OFF: Final = wait_exponential(multiplier=0.5, max=10) + wait_random(0, 1)
_POLL: Final = wait_exponential(max=10) + wait_random(0, 1)


class Pace(NamedTuple):
    """How long to wait; each is a wait of tenacity.

    Attributes:
        retry: after an attempt that failed.
        poll: after the endpoint has said that there is no answer yet.
    """

    retry: Callable[[RetryCallState], float] = _BACK_OFF
    poll: Callable[[RetryCallState], float] = _POLL


@final
class WebhookGate:
    """Asks a web service, which asks a person or decides by itself.

    ``ask`` returns the verdict, or an awaitable of it where an asyncio loop runs, and then
    it does not hold the loop up. It returns or raises before the question lapses, whatever
    the endpoint does.

    Args:
        url: where questions are sent: ``https://...``; ``http://`` for this machine only.
        key: at least 32 random bytes that the endpoint has, too. One for each endpoint.
        timeout: for how long one step of a request may take: to connect, to send, to wait for
            the next bytes.
        attempts: how often in a row a request may fail before there is no answer; 1 to 100.
        tls: which certificates are good, for an endpoint with one of your own making:
            ``ssl.create_default_context(cafile=...)``. Those of certifi if left out.
        pace: how long to wait between requests.
        clock: tells the time, for tests.

    Raises:
        ConfigurationError: httpx is not installed, or an argument is not what it should be.

    Example:
        >>> gate = WebhookGate("https://approvals.example/ask", key=key)  # doctest: +SKIP
        >>> run = Run(agent="clerk", grant=grant, gate=gate)  # doctest: +SKIP
    """

    def __init__(
        self,
        url: str,
        *,
        key: bytes,
        timeout: timedelta = timedelta(seconds=10),
        attempts: int = 4,
        tls: ssl.SSLContext | None = None,
        pace: Pace | None = None,
        clock: Clock = time.time,
    ) -> None:
        if _missing is not None:
            raise ConfigurationError(
                "WebhookGate needs httpx: pip install 'checkrein[webhook]'"
            ) from _missing
        check_key(key)
        if not isinstance(timeout, timedelta) or timeout <= timedelta(0):
            raise ConfigurationError("WebhookGate(timeout=...) takes a timedelta of more than 0")
        if type(attempts) is not int or not 1 <= attempts <= _MOST_ATTEMPTS:
            raise ConfigurationError(f"attempts= takes a number from 1 to {_MOST_ATTEMPTS}")
        self._url = _checked_url(url)
        self._key = key
        self._timeout = timeout.total_seconds()
        self._attempts = attempts
        self._pace = pace or Pace()
        self._clock = clock
        # Made once: reading all certificates would hold an event loop up at each question.
        self._options: dict[str, Any] = {
            "verify": _checked_tls(tls),
            "trust_env": False,
            "follow_redirects": False,
        }

    def ask(self, confirmation: Confirmation) -> Any:
        """Return the verdict, or an awaitable of it where an event loop runs.

        Raises:
            NoAnswer: there is none, and will be none.
            BadAnswer: what the endpoint has said is no answer.
            ConfigurationError: the id of the question cannot be part of a URL.
        """
        if running_asyncio() is not None:
            return self._later(confirmation)
        try:
            talk = self._talk(confirmation)
            return _in_time(lambda: self._converse(talk), talk.left())
        except WebhookError as problem:
            raise _told(confirmation, problem) from problem.__cause__

    async def _later(self, confirmation: Confirmation) -> Verdict:
        try:
            talk = self._talk(confirmation)
            async with asyncio.timeout(talk.left()):
                return await self._aconverse(talk)
        except TimeoutError:
            raise _told(confirmation, NoAnswer(_LAPSED)) from None
        except WebhookError as problem:
            raise _told(confirmation, problem) from problem.__cause__

    def _talk(self, question: Confirmation) -> _Talk:
        if not is_sendable(question.id):
            raise ConfigurationError(
                "a question that is sent has an id of letters, digits, - and _ (Run(ids=...))"
            )
        left = question.expires - self._clock()
        if left <= 0:
            raise NoAnswer(_LAPSED)
        return _Talk(self._url, self._key, question, left, self._timeout, self._clock)

    # -- the two drivers -------------------------------------------------------------------

    def _converse(self, talk: _Talk) -> Verdict:
        with httpx.Client(**self._options) as client:
            retrying = Retrying(**self._pacing(talk))
            answer: Verdict | None = retrying(_exchange, client, talk)
        assert answer is not None  # it goes on until there is one
        return answer

    async def _aconverse(self, talk: _Talk) -> Verdict:
        async with httpx.AsyncClient(**self._options) as client:
            retrying = AsyncRetrying(**self._pacing(talk))
            answer: Verdict | None = await retrying(_aexchange, client, talk)
        assert answer is not None
        return answer

    def _pacing(self, talk: _Talk) -> dict[str, Any]:
        """Return what tenacity is told: ask on until there is a verdict, or no hope of one."""
        attempts, pace = self._attempts, self._pace

        def wait(state: RetryCallState) -> float:
            return pace.retry(state) if talk.failures else pace.poll(state)

        def stop(state: RetryCallState) -> bool:
            return talk.failures >= attempts or state.upcoming_sleep >= talk.left()

        def give_up(state: RetryCallState) -> None:
            raise talk.no_answer(attempts)

        return {
            "retry": retry_if_exception_type(_Failed) | retry_if_result(_is_none),
            "wait": wait,
            "stop": stop,
            "retry_error_callback": give_up,
        }

    def __repr__(self) -> str:
        return f"<WebhookGate {self._url.host}>"  # paths and queries may hold what is secret


def _exchange(client: httpx.Client, talk: _Talk) -> Verdict | None:
    """Send one request; return the verdict, ``None`` for "not yet"."""
    try:
        with client.stream(**talk.say()) as response:
            if not talk.begins(response.status_code, response.headers):
                return None
            for chunk in response.iter_raw():
                talk.hears(chunk)
    except _retried() as problem:
        raise talk.failed(type(problem).__name__) from problem
    return talk.verdict(response.headers)


async def _aexchange(client: httpx.AsyncClient, talk: _Talk) -> Verdict | None:
    """Do as :func:`_exchange` does, awaiting the network."""
    try:
        async with client.stream(**talk.say()) as response:
            if not talk.begins(response.status_code, response.headers):
                return None
            async for chunk in response.aiter_raw():
                talk.hears(chunk)
    except _retried() as problem:
        raise talk.failed(type(problem).__name__) from problem
    return talk.verdict(response.headers)


def _retried() -> tuple[type[Exception], ...]:
    return (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)


# -- what is said --------------------------------------------------------------------------


class _Failed(Exception):
    """An attempt failed in a way that may not last."""


class _Talk:
    """One question on its way to its answer: what to say next, and what to make of it.

    It does no I/O; the drivers do. An answer is taken in with :meth:`begins`, then
    :meth:`hears` for each part of its body, then :meth:`verdict`.

    Args:
        url: where questions are sent.
        key: what is shared with the endpoint.
        question: what is asked.
        left: for how many seconds it stays open.
        timeout: seconds for one step of a request.
        clock: tells the time.

    Attributes:
        failures: how many attempts in a row have failed.
    """

    def __init__(
        self,
        url: httpx.URL,
        key: bytes,
        question: Confirmation,
        left: float,
        timeout: float,
        clock: Clock,
    ) -> None:
        self._url, self._key, self._clock = url, key, clock
        self._question = question
        self._text = to_text(question).encode()
        self._end = time.monotonic() + left
        self._timeout = timeout
        self._accepted = False
        self._request = Request(question.id, "", question)
        self._body = bytearray()
        self._last = ""
        self.failures = 0

    def left(self) -> float:
        """Return for how many seconds the question stays open."""
        return max(0.0, self._end - time.monotonic())

    def say(self) -> dict[str, Any]:
        """Return the next request, as httpx takes it: signed anew, with a nonce of its own."""
        self._body.clear()
        self._request = self._request._replace(nonce=entropy(16).hex())
        body = b"" if self._accepted else self._text
        return {
            "method": "GET" if self._accepted else "POST",
            "url": self._below() if self._accepted else self._url,
            "content": body or None,
            "headers": request_headers(self._request, body, self._key, clock=self._clock),
            "timeout": max(0.001, min(self._timeout, self.left())),
        }

    def _below(self) -> httpx.URL:
        path, mark, query = self._url.raw_path.partition(b"?")
        path = path.rstrip(b"/") + b"/" + self._question.id.encode()
        return self._url.copy_with(raw_path=path + mark + query)

    def begins(self, status: int, headers: httpx.Headers) -> bool:
        """Say whether an answer follows: not if there is none yet.

        Raises:
            BadAnswer: this is none.
        """
        if status == _TOO_MANY or status // 100 == 5:
            raise self.failed(f"status {status}")
        if status == _ACCEPTED:
            self._accepted = True
            self.failures = 0  # not at the first bytes of an answer, which may break off
            return False
        if status // 100 == 3:
            raise BadAnswer(f"the endpoint redirects (status {status}), which is not followed")
        if status != _OK:
            raise BadAnswer(f"the endpoint has said neither 200 nor 202, but {status}")
        check_answer_headers(headers)
        return True

    def hears(self, chunk: bytes) -> None:
        """Take in a part of the answer.

        Raises:
            BadAnswer: it is too much.
        """
        self._body += chunk
        if len(self._body) > LONGEST_ANSWER:
            raise too_long()

    def verdict(self, headers: httpx.Headers) -> Verdict:
        """Return what was answered.

        Raises:
            BadAnswer: it is no answer to this request.
        """
        return read_answer(self._request, headers, bytes(self._body), self._key, clock=self._clock)

    def failed(self, why: str) -> _Failed:
        """Return the error for an attempt that failed."""
        self.failures += 1
        self._last = why
        return _Failed(why)

    def no_answer(self, attempts: int) -> NoAnswer:
        """Return the error for when no further attempt is made."""
        if not self.failures:
            return NoAnswer(_LAPSED)
        why = f"the endpoint failed {self.failures} times in a row, at last with {self._last}"
        return NoAnswer(why if self.failures >= attempts else f"{why}; {_LAPSED}")


def _is_none(answer: object) -> bool:
    return answer is None


def _told(question: Confirmation, problem: WebhookError) -> WebhookError:
    # The audit log keeps the name of the error only.
    logger().warning("run %s: no answer from the webhook: %s", question.run, problem)
    return problem


def _in_time(work: Callable[[], T], seconds: float) -> T:
    """Do *work* in a thread of its own; raise :class:`NoAnswer` if it takes too long.

    httpx bounds each step of a request, not the whole: looking up a name, or an endpoint
    that sends its headers letter by letter, would hold a plain tool up for hours. What is
    left behind is a daemon thread that nobody hears.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as problem:  # noqa: BLE001 (raised again by who waits)
            done.set_exception(problem)

    run_here = contextvars.copy_context().run
    threading.Thread(target=run_here, args=(run,), name="checkrein-webhook", daemon=True).start()
    try:
        return done.result(seconds)
    except TimeoutError:
        raise NoAnswer(_LAPSED) from None


# -- what it is given ----------------------------------------------------------------------


def _checked_url(url: object) -> httpx.URL:
    try:
        found = httpx.URL(url if isinstance(url, str) else "")
    except (httpx.InvalidURL, ValueError):
        raise ConfigurationError("WebhookGate(url) takes a URL: https://...") from None
    if found.scheme not in {"https", "http"} or not found.host:
        raise ConfigurationError("WebhookGate(url) takes a URL: https://...")
    if found.userinfo or found.fragment:
        raise ConfigurationError("the URL of a webhook has no user, password or fragment")
    if found.scheme == "http" and not _is_loopback(found.host):
        raise ConfigurationError("http:// is for this machine only; everywhere else, https://")
    return found


def _is_loopback(host: str) -> bool:
    """Say whether *host* is this machine: ``localhost`` (RFC 6761 6.3) or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _checked_tls(tls: object) -> ssl.SSLContext:
    if tls is None:
        return httpx.create_ssl_context(trust_env=False)
    if not isinstance(tls, ssl.SSLContext):
        raise ConfigurationError("tls= takes ssl.create_default_context(cafile=...)")
    if tls.verify_mode is not ssl.CERT_REQUIRED or not tls.check_hostname:
        raise ConfigurationError("tls= takes a context that checks certificates and host names")
    return tls
