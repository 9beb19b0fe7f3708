"""The webhook gate, against a real server: only a signed answer to this very request counts."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import json
import os
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import wait_none

from checkrein import Grant, Run, allow, irreversible
from checkrein.approvers import Approvers, signed
from checkrein.confirmations import (
    Confirmation,
    Verdict,
    to_text,
    verdict_tree,
)
from checkrein.delegation import Principal
from checkrein.errors import ConfigurationError, Denied, MisuseError
from checkrein.gates import Quorum, WebhookGate
from checkrein.gates import webhook_messages as messages
from checkrein.gates.webhook import Pace
from checkrein.gates.webhook_messages import (
    LONGEST_ANSWER,
    WINDOW,
    BadAnswer,
    ForgedAnswer,
    NoAnswer,
    Request,
    RequestRefused,
    WebhookError,
    answer_to,
    read_request,
    request_headers,
)
from support import Clock, MemoryLog, asked_question

try:
    import httpx  # noqa: F401
except ImportError:
    if os.environ.get("CHECKREIN_REQUIRE_WEBHOOK"):
        raise
    pytest.skip("needs httpx: checkrein[webhook]", allow_module_level=True)

KEY = bytes(range(32))
OTHER_KEY = bytes(32)
NOW = 1_800_000_000.0
AT_ONCE = Pace(retry=wait_none(), poll=wait_none())
LONG = dt.timedelta(seconds=30)  # nothing here takes so long: what waits is let go


# -- the server ----------------------------------------------------------------------------


class Heard(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    headers: Any
    body: bytes


class Reply(NamedTuple):
    """What the endpoint says."""

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""


class Endpoint:
    """An HTTP server on a free port of this machine; *script* says what it replies.

    Attributes:
        script: takes what was heard; returns a reply, ``None`` to hang up.
        heard: every request.
        gone: set when the test is over: whoever holds a request up waits for it.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.script: Callable[[Heard], Reply | None] = approve
        self.heard: list[Heard] = []
        self.gone = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False  # so that closing it waits for them
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/ask"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                heard = Heard(self.command, self.path, self.headers, self.rfile.read(length))
                endpoint.heard.append(heard)
                reply = endpoint.script(heard)
                if reply is None:
                    return
                self.send_response(reply.status)
                length_there = any(name.lower() == "content-length" for name in reply.headers)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if not length_there:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                with contextlib.suppress(OSError):  # who has heard enough hangs up
                    self.wfile.write(reply.body)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None: ...

        return Handler

    def close(self) -> None:
        self.gone.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.close()


def received(heard: Heard, key: bytes = KEY) -> Request:
    return read_request(heard.headers, heard.body, key, clock=lambda: NOW)


def answer(heard: Heard, say: Callable[[Confirmation], Verdict], key: bytes = KEY) -> Reply:
    request = received(heard)
    assert request.question is not None
    headers, body = answer_to(request, say(request.question), key, clock=lambda: NOW)
    return Reply(200, headers, body)


def approve(heard: Heard) -> Reply:
    return answer(heard, lambda one: one.approve(by="dana"))


def question(id: str = "q1", **changes: Any) -> Confirmation:
    fresh = {"asked": NOW, "expires": NOW + 60, "grants": ()}
    return asked_question(id, **(fresh | changes))


def gate_to(endpoint: Endpoint, **options: Any) -> WebhookGate:
    options = {"key": KEY, "timeout": LONG, "pace": AT_ONCE, "clock": lambda: NOW, **options}
    return WebhookGate(endpoint.url, **options)


Asking = Callable[[WebhookGate, Confirmation], Any]


def in_thread(gate: WebhookGate, asked: Confirmation) -> Any:
    return gate.ask(asked)


def in_loop(gate: WebhookGate, asked: Confirmation) -> Any:
    async def main() -> Any:
        return await gate.ask(asked)

    return asyncio.run(main())


@pytest.fixture(params=[in_thread, in_loop], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Asking:
    return request.param


# -- answers -------------------------------------------------------------------------------

SAYINGS: list[Callable[[Confirmation], Verdict]] = [
    lambda one: one.approve(by="dana"),
    lambda one: one.deny(by="dana", reason="not today"),
    lambda one: one.deny(by="dana", suspicious=True),
    lambda one: one.edit({"to": "lee", "copies": [1, {"a": None}]}, by="dana"),
]


@pytest.mark.parametrize("say", SAYINGS, ids=["yes", "no", "suspicious", "edit"])
def test_what_was_answered_arrives(endpoint: Endpoint, ask: Asking, say: Any):
    """And the endpoint was shown the whole question, as it was asked."""
    endpoint.script = lambda heard: answer(heard, say)
    asked = question()
    assert ask(gate_to(endpoint), asked) == say(asked)
    (heard,) = endpoint.heard
    assert (heard.method, heard.path) == ("POST", "/ask")
    assert heard.body.decode() == to_text(asked)
    assert heard.headers["Idempotency-Key"] == '"q1"'


def test_a_persons_signature_arrives_as_it_was_made(endpoint: Endpoint, ask: Asking):
    """The gate authenticates a machine; people are checked by the run."""
    dana = Principal.new()
    endpoint.script = lambda heard: answer(heard, lambda one: signed(one.approve(by="dana"), dana))
    asked = question()
    verdict = ask(gate_to(endpoint), asked)
    assert Approvers({"dana": dana.id}).problem(asked, verdict, ()) == ""


def test_who_needs_time_says_so_and_is_asked_again(endpoint: Endpoint, ask: Asking):
    """202 until there is an answer; each poll is signed, has a new nonce and no body."""

    def script(heard: Heard) -> Reply:
        if len(endpoint.heard) < 4:
            return Reply(202)
        request = received(heard)
        assert request.question is None
        verdict = question().approve(by="dana")
        return Reply(200, *answer_to(request, verdict, KEY, clock=lambda: NOW))

    endpoint.script = script
    assert ask(gate_to(endpoint), question()).approved is True
    assert [(one.method, one.path) for one in endpoint.heard] == [
        ("POST", "/ask"),
        *[("GET", "/ask/q1")] * 3,
    ]
    assert len({received(one).nonce for one in endpoint.heard}) == 4


def test_the_id_goes_before_the_query(endpoint: Endpoint, ask: Asking):
    endpoint.script = lambda heard: Reply(202) if heard.method == "POST" else Reply(404)
    endpoint.url += "/?tenant=a%2Fb"
    with pytest.raises(BadAnswer, match="404"):
        ask(gate_to(endpoint), question())
    paths = [one.path for one in endpoint.heard]
    assert paths == ["/ask/?tenant=a%2Fb", "/ask/q1?tenant=a%2Fb"]


# -- attempts ------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [500, 503, 429, None], ids=["500", "503", "429", "hang-up"])
def test_what_may_not_last_is_tried_again(endpoint: Endpoint, ask: Asking, trouble: Any):
    """The same question under the same id, signed anew."""
    failure = None if trouble is None else Reply(trouble)
    endpoint.script = lambda heard: failure if len(endpoint.heard) < 3 else approve(heard)
    assert ask(gate_to(endpoint), question()).approved is True
    assert len({one.body for one in endpoint.heard}) == 1
    assert len({received(one).nonce for one in endpoint.heard}) == 3


@pytest.mark.parametrize("trouble", [500, 429, None], ids=["500", "429", "hang-up"])
def test_attempts_are_counted(endpoint: Endpoint, ask: Asking, trouble: Any):
    endpoint.script = lambda heard: None if trouble is None else Reply(trouble)
    with pytest.raises(NoAnswer, match="failed 3 times in a row"):
        ask(gate_to(endpoint, attempts=3), question())
    assert len(endpoint.heard) == 3


def test_failures_are_counted_in_a_row(endpoint: Endpoint, ask: Asking):
    """An endpoint that answers polls and fails now and then is asked on."""
    replies = [Reply(500), Reply(202), Reply(500), Reply(202), Reply(500), Reply(404)]
    endpoint.script = lambda heard: replies[len(endpoint.heard) - 1]
    with pytest.raises(BadAnswer, match="404"):
        ask(gate_to(endpoint, attempts=2), question())
    assert len(endpoint.heard) == 6


def test_an_answer_that_breaks_off_is_an_attempt(endpoint: Endpoint, ask: Asking):
    """However often it has begun well."""

    def script(heard: Heard) -> Reply:
        whole = approve(heard)
        length = {"Content-Length": str(len(whole.body) + 1)}
        return whole._replace(headers=whole.headers | length)

    endpoint.script = script
    with pytest.raises(NoAnswer, match="RemoteProtocolError"):
        ask(gate_to(endpoint, attempts=3), question())
    assert len(endpoint.heard) == 3


def test_what_has_broken_off_is_forgotten(endpoint: Endpoint, ask: Asking):
    """The next answer does not begin with it."""

    def script(heard: Heard) -> Reply:
        whole = approve(heard)
        length = {"Content-Length": str(len(whole.body))}
        half = whole._replace(headers=whole.headers | length, body=whole.body[:9])
        return half if len(endpoint.heard) == 1 else whole

    endpoint.script = script
    assert ask(gate_to(endpoint), question()).approved is True
    assert len(endpoint.heard) == 2


def test_nobody_there(endpoint: Endpoint, ask: Asking):
    gate = gate_to(endpoint, attempts=2)
    endpoint.close()
    with pytest.raises(NoAnswer, match="ConnectError"):
        ask(gate, question())


def test_a_step_that_takes_too_long_is_an_attempt(endpoint: Endpoint, ask: Asking):
    """The time-out is for each request; the question is still open."""

    def script(heard: Heard) -> Reply | None:
        if len(endpoint.heard) == 1:
            endpoint.gone.wait(30)
            return None
        return approve(heard)

    endpoint.script = script
    short = dt.timedelta(seconds=0.2)
    assert ask(gate_to(endpoint, timeout=short), question()).approved is True
    assert len(endpoint.heard) >= 2


# -- deadlines -----------------------------------------------------------------------------


def test_a_question_that_has_lapsed_is_not_sent(endpoint: Endpoint, ask: Asking):
    with pytest.raises(NoAnswer, match="lapsed"):
        ask(gate_to(endpoint), question(expires=NOW))
    assert endpoint.heard == []


def test_an_answer_that_never_ends_is_not_waited_for(endpoint: Endpoint, ask: Asking):
    """One letter after the other, none of them late: the question lapses all the same."""

    class Drip(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                while not endpoint.gone.wait(0.01):
                    self.wfile.write(b"x")

        def log_message(self, *_: Any) -> None: ...

    endpoint._server.RequestHandlerClass = Drip
    with pytest.raises(NoAnswer):
        ask(gate_to(endpoint), question(expires=NOW + 0.2))


def test_polls_end_when_the_question_lapses(endpoint: Endpoint, ask: Asking):
    """No wait is begun that would end too late."""
    endpoint.script = lambda heard: Reply(202)
    pace = AT_ONCE._replace(poll=lambda _: 61.0)
    with pytest.raises(NoAnswer, match="nobody answered before the question lapsed"):
        ask(gate_to(endpoint, pace=pace), question())
    assert len(endpoint.heard) == 1


def test_retries_end_when_the_question_lapses(endpoint: Endpoint, ask: Asking):
    endpoint.script = lambda heard: Reply(500)
    pace = AT_ONCE._replace(retry=lambda _: 61.0)
    with pytest.raises(NoAnswer, match=r"status 500; nobody answered"):
        ask(gate_to(endpoint, pace=pace), question())
    assert len(endpoint.heard) == 1


# -- what is no answer ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308], ids=str)
def test_redirects_are_not_followed(endpoint: Endpoint, ask: Asking, status: int):
    """Wherever they lead: here, to where a yes would be."""

    def script(heard: Heard) -> Reply:
        if heard.path == "/ask":
            return Reply(status, {"Location": "/elsewhere"})
        return approve(heard)

    endpoint.script = script
    with pytest.raises(BadAnswer, match="redirects"):
        ask(gate_to(endpoint), question())
    assert len(endpoint.heard) == 1


@pytest.mark.parametrize("status", [201, 204, 400, 401, 403, 404, 410], ids=str)
def test_other_statuses_are_no_answer(endpoint: Endpoint, ask: Asking, status: int):
    """Not even with a good yes, and not a second time."""
    endpoint.script = lambda heard: approve(heard)._replace(
        status=status, body=b"" if status == 204 else approve(heard).body
    )
    with pytest.raises(BadAnswer, match=str(status)):
        ask(gate_to(endpoint), question())
    assert len(endpoint.heard) == 1


def changed(**headers: str | None) -> Callable[[Heard], Reply]:
    """Return a script: a good answer with other headers, ``None`` for without it."""

    def script(heard: Heard) -> Reply:
        good = approve(heard)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        together = good.headers | named
        kept = {name: value for name, value in together.items() if value is not None}
        return good._replace(headers=kept)

    return script


def resigned(
    heard: Heard,
    body: bytes | None = None,
    *,
    kind: Any = "answer",
    id: str = "q1",
    nonce: str = "",
    when: float = NOW,
) -> Reply:
    """Return an answer signed with the key, whatever it says."""
    if body is None:
        body = approve(heard).body
    fields = (str(int(when)), id, nonce or heard.headers["Checkrein-Nonce"], body)
    headers = {
        "Content-Type": "application/json",
        "Checkrein-Timestamp": fields[0],
        "Checkrein-Signature": messages._signature(kind, fields, KEY),
    }
    return Reply(200, headers, body)


def with_changed_body(heard: Heard) -> Reply:
    no = answer(heard, lambda one: one.deny(by="dana"))
    return no._replace(body=no.body.replace(b'"approved":false', b'"approved":true'))


def reflected(heard: Heard) -> Reply:
    """Send the request back, with its own headers."""
    names = ("Checkrein-Timestamp", "Checkrein-Signature", "Checkrein-Nonce", "Content-Type")
    return Reply(200, {name: heard.headers[name] for name in names}, heard.body)


def repeated_header(heard: Heard) -> Reply:
    good = approve(heard)
    return good._replace(
        headers=good.headers | {"checkrein-signature": good.headers["Checkrein-Signature"]}
    )


FORGERIES: dict[str, Callable[[Heard], Reply]] = {
    "another key": lambda heard: answer(heard, lambda one: one.approve(by="dana"), OTHER_KEY),
    "no signature": changed(Checkrein_Signature=None),
    "no timestamp": changed(Checkrein_Timestamp=None),
    "another timestamp": changed(Checkrein_Timestamp=str(int(NOW) + 1)),
    "a second spelling": changed(Checkrein_Timestamp=f"0{int(NOW)}"),
    "another version": changed(Checkrein_Signature=f"v2={'0' * 64}"),
    "a short signature": changed(Checkrein_Signature="v1="),
    "two signatures": repeated_header,
    "a changed body": with_changed_body,
    "a reflected request": reflected,
    "signed as a request": lambda heard: resigned(heard, kind="ask"),
    "signed as a poll": lambda heard: resigned(heard, kind="poll"),
    "for another id": lambda heard: resigned(heard, id="q2"),
    "for another nonce": lambda heard: resigned(heard, nonce="0" * 32),
    "too old": lambda heard: resigned(heard, when=NOW - WINDOW - 1),
    "too new": lambda heard: resigned(heard, when=NOW + WINDOW + 1),
}


@pytest.mark.parametrize("script", FORGERIES.values(), ids=list(FORGERIES))
def test_what_is_not_signed_for_this_request_is_forged(
    endpoint: Endpoint, ask: Asking, script: Callable[[Heard], Reply]
):
    """The same yes would count if it were; it is not asked for a second time."""
    endpoint.script = script
    with pytest.raises(ForgedAnswer):
        ask(gate_to(endpoint), question())
    assert len(endpoint.heard) == 1


@pytest.mark.parametrize("away", [-WINDOW, WINDOW], ids=["old", "new"])
def test_the_window_is_as_wide_as_documented(endpoint: Endpoint, ask: Asking, away: int):
    endpoint.script = lambda heard: resigned(heard, when=NOW + away)
    assert ask(gate_to(endpoint), question()).approved is True


def test_an_old_answer_to_the_same_question_is_good_for_nothing(endpoint: Endpoint, ask: Asking):
    """A yes that was kept on the way, and sent in place of what came after it."""
    kept: list[Reply] = []

    def script(heard: Heard) -> Reply:
        kept.append(approve(heard))
        return Reply(500) if len(kept) == 1 else kept[0]

    endpoint.script = script
    with pytest.raises(ForgedAnswer):
        ask(gate_to(endpoint), question())
    assert len(endpoint.heard) == 2


def tree(**changes: Any) -> bytes:
    return json.dumps(verdict_tree(question().approve(by="dana")) | changes).encode()


NO_VERDICTS: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"yes",
    "true": b"true",
    "half": tree()[:-1],
    "another encoding": tree().decode().encode("utf-16"),
    "no UTF-8": b'"\xff"',
    "deep": b"[" * 500_000,
    "approved: 1": tree(approved=1),
    "approved: text": tree(approved="true"),
    "too much": tree(more=1),
    "edits: list": tree(edits=[]),
    "signature: no base64": tree(signature="!"),
    "another id": tree(confirmation="q2"),
    "another digest": tree(digest="0" * 64),
    "nobody": tree(by=" "),
}


@pytest.mark.parametrize("body", NO_VERDICTS.values(), ids=list(NO_VERDICTS))
def test_what_is_no_verdict_about_this_question_is_none(
    endpoint: Endpoint, ask: Asking, body: bytes
):
    """Though it is signed with the key."""
    endpoint.script = lambda heard: resigned(heard, body)
    with pytest.raises(BadAnswer) as caught:
        ask(gate_to(endpoint), question())
    assert type(caught.value) is BadAnswer


def test_an_answer_to_another_question(endpoint: Endpoint, ask: Asking):
    """Good for that one, and signed: a yes about something else."""
    other = question("q2")
    endpoint.script = lambda heard: resigned(
        heard, json.dumps(verdict_tree(other.approve(by="dana"))).encode()
    )
    with pytest.raises(BadAnswer, match="another question"):
        ask(gate_to(endpoint), question())


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"Content_Type": "text/html"}, "not application/json"),
        ({"Content_Type": "application/json5"}, "not application/json"),
        ({"Content_Type": None}, "not application/json"),
        ({"Content_Encoding": "gzip"}, "compressed"),
    ],
    ids=["html", "json5", "none", "gzip"],
)
def test_other_content_is_no_answer(endpoint: Endpoint, ask: Asking, headers: Any, why: str):
    endpoint.script = changed(**headers)
    with pytest.raises(BadAnswer, match=why):
        ask(gate_to(endpoint), question())


def test_a_content_type_may_name_its_encoding(endpoint: Endpoint, ask: Asking):
    endpoint.script = changed(Content_Type="Application/JSON; charset=utf-8")
    assert ask(gate_to(endpoint), question()).approved is True


def test_ten_megabytes_that_are_announced_are_not_read(endpoint: Endpoint, ask: Asking):
    """Not a byte of them has to come for that."""
    endpoint.script = changed(Content_Length="10000000")
    with pytest.raises(BadAnswer, match="more than a megabyte"):
        ask(gate_to(endpoint), question())
    assert len(endpoint.heard) == 1


def test_ten_megabytes_in_parts_are_not_read(endpoint: Endpoint, ask: Asking):
    """Nobody knows how many there will be: the gate hangs up."""
    sent = _send_in_chunks(endpoint)
    with pytest.raises(BadAnswer, match="more than a megabyte"):
        ask(gate_to(endpoint), question())
    endpoint.close()
    assert sum(sent) < 10_000_000


def _send_in_chunks(endpoint: Endpoint) -> list[int]:
    """Let the endpoint answer with chunks, ten megabytes at most; return their lengths."""
    sent: list[int] = []

    class Chunks(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    self.wfile.write(b"2710\r\n" + b" " * 10_000 + b"\r\n")
                    sent.append(10_000)
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: Any) -> None: ...

    endpoint._server.RequestHandlerClass = Chunks
    return sent


def test_a_megabyte_is_read(endpoint: Endpoint, ask: Asking):
    """The bound itself: one letter more is too much, and the endpoint is told so."""

    def edit(missing: int) -> Callable[[Confirmation], Verdict]:
        return lambda one: one.edit({"to": "x" * (LONGEST_ANSWER - missing)}, by="dana")

    rest = len(json.dumps(verdict_tree(edit(LONGEST_ANSWER)(question())), separators=(",", ":")))
    endpoint.script = lambda heard: answer(heard, edit(rest))
    assert len(ask(gate_to(endpoint), question()).edits["to"]) == LONGEST_ANSWER - rest
    with pytest.raises(MisuseError, match="megabyte"):
        answer(endpoint.heard[0], edit(rest - 1))


# -- the loop ------------------------------------------------------------------------------


def test_the_loop_goes_on_while_somebody_thinks(endpoint: Endpoint):
    """What lets the endpoint answer is a task of the same loop."""
    thought = threading.Event()

    def script(heard: Heard) -> Reply:
        assert thought.wait(30)
        return approve(heard)

    async def main() -> Any:
        answer = asyncio.ensure_future(gate_to(endpoint).ask(question()))
        while not endpoint.heard:
            await asyncio.sleep(0)
        thought.set()
        return await answer

    endpoint.script = script
    assert asyncio.run(main()).approved is True


def test_a_wait_that_is_cancelled_ends(endpoint: Endpoint):
    """At once, and the connection is closed: the endpoint is still thinking."""
    endpoint.script = lambda heard: None if endpoint.gone.wait(30) else approve(heard)

    async def main() -> None:
        answer = asyncio.ensure_future(gate_to(endpoint).ask(question()))
        while not endpoint.heard:
            await asyncio.sleep(0)
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_wait_that_is_cancelled_between_polls_ends(endpoint: Endpoint):
    polled = threading.Event()
    endpoint.script = lambda heard: Reply(202)

    def wait(_: Any) -> float:
        polled.set()
        return 30.0

    async def main() -> None:
        gate = gate_to(endpoint, pace=AT_ONCE._replace(poll=wait))
        answer = asyncio.ensure_future(gate.ask(question()))
        while not polled.is_set():
            await asyncio.sleep(0)
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer

    asyncio.run(main())


# -- whole runs ----------------------------------------------------------------------------

GRANT = Grant(allow("shop.refunds"))


class Shop:
    """A tool that cannot be taken back, plain and async, and what it has done."""

    def __init__(self) -> None:
        self.done: list[int] = []

        @irreversible("shop.refunds")
        def refund(amount: int) -> None:
            self.done.append(amount)

        @irreversible("shop.refunds")
        async def arefund(amount: int) -> None:
            self.done.append(amount)

        self.plain, self.coroutine = refund, arefund

    def refund(self, ask: Asking, amount: int, **terms: Any) -> MemoryLog:
        """Refund in a run, by the tool of the right colour; return what was logged."""
        log = MemoryLog()
        terms = {"agent": "clerk", "grant": GRANT, "log": log, "clock": Clock(NOW), **terms}
        with Run(**terms), contextlib.suppress(Denied):
            if ask is in_loop:
                asyncio.run(self.coroutine(amount))
            else:
                self.plain(amount)
        return log


def test_a_yes_lets_the_body_run_once(endpoint: Endpoint, ask: Asking):
    """With a failed attempt and a wait on the way."""

    def script(heard: Heard) -> Reply:
        if len(endpoint.heard) == 1:
            return Reply(500)
        if len(endpoint.heard) == 2:
            return Reply(202)
        asked = received(endpoint.heard[0]).question
        assert asked is not None and asked.arguments[0].text == "40"
        verdict = asked.approve(by="dana")
        return Reply(200, *answer_to(received(heard), verdict, KEY, clock=lambda: NOW))

    endpoint.script = script
    shop = Shop()
    log = shop.refund(ask, 40, gate=gate_to(endpoint))
    assert shop.done == [40]
    (answered,) = log.of("confirmation.answered")
    assert (answered["answer"], answered["by"]) == ("approved", "dana")


@pytest.mark.parametrize(
    ("script", "name"),
    [
        (lambda heard: answer(heard, lambda one: one.deny(by="dana")), ""),
        (lambda heard: Reply(500), "NoAnswer"),
        (lambda heard: Reply(404), "BadAnswer"),
        (FORGERIES["another key"], "ForgedAnswer"),
    ],
    ids=["no", "none", "bad", "forged"],
)
def test_anything_but_a_yes_is_no(
    endpoint: Endpoint,
    ask: Asking,
    script: Any,
    name: str,
    caplog: pytest.LogCaptureFixture,
):
    """And the log says which; why exactly is told to the standard logger, without values."""
    endpoint.script = script
    shop = Shop()
    log = shop.refund(ask, 43_214_321_432, gate=gate_to(endpoint))
    assert shop.done == []
    assert log.of("confirmation.answered")[0]["reason"] == name
    told = [one.getMessage() for one in caplog.records if "webhook" in one.getMessage()]
    assert len(told) == bool(name)
    assert "4321432" not in "".join(told)


@pytest.mark.parametrize("theirs", [True, False], ids=["dana's", "the-endpoint's"])
def test_the_key_of_the_webhook_is_nobodys_signature(endpoint: Endpoint, ask: Asking, theirs: bool):
    """Where a run has approvers, the endpoint cannot answer for them."""
    dana, own = Principal.new(), Principal.new()
    by = dana if theirs else own
    endpoint.script = lambda heard: answer(heard, lambda one: signed(one.approve(by="dana"), by))
    shop = Shop()
    shop.refund(ask, 40, gate=gate_to(endpoint), approvers=Approvers({"dana": dana.id}))
    assert shop.done == ([40] if theirs else [])


def test_an_edited_call_is_asked_about_again(endpoint: Endpoint, ask: Asking):
    def say(one: Confirmation) -> Verdict:
        if one.arguments[0].text == "400":
            return one.edit({"amount": 10}, by="dana")
        return one.approve(by="dana")

    endpoint.script = lambda heard: answer(heard, say)
    shop = Shop()
    shop.refund(ask, 400, gate=gate_to(endpoint))
    assert shop.done == [10]
    assert len(endpoint.heard) == 2


def test_suspicion_locks_the_run(endpoint: Endpoint, ask: Asking):
    endpoint.script = lambda heard: answer(heard, lambda one: one.deny(by="dana", suspicious=True))
    log = Shop().refund(ask, 40, gate=gate_to(endpoint))
    assert log.of("confirmation.answered")[0]["suspicious"] is True


def test_a_plain_tool_in_a_loop_cannot_wait(endpoint: Endpoint):
    """It is denied, and the endpoint is not asked for nothing."""
    shop = Shop()

    async def main() -> None:
        with Run(agent="clerk", grant=GRANT, gate=gate_to(endpoint)):
            shop.plain(40)

    with pytest.raises(Denied):
        asyncio.run(main())
    assert (shop.done, endpoint.heard) == ([], [])


def test_two_endpoints_are_two_people(endpoint: Endpoint, ask: Asking):
    second = Endpoint()
    try:
        second.script = lambda heard: answer(heard, lambda one: one.approve(by="lee"))
        shop = Shop()
        shop.refund(ask, 40, gate=Quorum([gate_to(endpoint), gate_to(second)]))
        assert shop.done == [40]
    finally:
        second.close()


# -- the network ---------------------------------------------------------------------------


def certificate(directory: Any) -> str:
    """Write a certificate for this machine, with its key, signed by itself; return its path."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = dt.datetime.now(dt.UTC)
    here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - dt.timedelta(days=1))
        .not_valid_after(today + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([here]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "certificate.pem"
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(encoding) + secret)
    return str(path)


def test_a_certificate_that_nobody_vouches_for_is_refused(ask: Asking, tmp_path: Any, monkeypatch):
    """Even if the environment does; one that the gate is given is taken."""
    path = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", path)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(path)
    endpoint = Endpoint(server)
    try:
        with pytest.raises(NoAnswer, match="ConnectError"):
            ask(gate_to(endpoint, attempts=1), question())
        assert endpoint.heard == []
        theirs = ssl.create_default_context(cafile=path)
        assert ask(gate_to(endpoint, tls=theirs), question()).approved is True
    finally:
        endpoint.close()


def test_proxies_of_the_environment_are_not_used(endpoint: Endpoint, ask: Asking, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert ask(gate_to(endpoint), question()).approved is True


def test_ids_that_lead_elsewhere_are_not_sent(endpoint: Endpoint):
    """They would be part of a path."""
    for id_ in ("..", "a/b", "a?b", "ä", "", "a\r\nb"):
        with pytest.raises(ConfigurationError, match="id"):
            gate_to(endpoint).ask(question(id_))
    assert endpoint.heard == []


# -- what the gate is given ----------------------------------------------------------------

UNCHECKED = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
UNCHECKED.check_hostname = False
UNNAMED = ssl.create_default_context()
UNNAMED.check_hostname = False

WRONG: dict[str, dict[str, Any]] = {
    "http elsewhere": {"url": "http://approvals.example/ask"},
    "http, by its name": {"url": "http://localhost.example/ask"},
    "http, as a user": {"url": "http://127.0.0.1@approvals.example/ask"},
    "http, any address": {"url": "http://0.0.0.0/ask"},
    "a password": {"url": "https://dana:secret@approvals.example/ask"},
    "a fragment": {"url": "https://approvals.example/ask#here"},
    "a file": {"url": "file:///ask"},
    "no host": {"url": "https:///ask"},
    "no URL": {"url": "approvals"},
    "no port": {"url": "https://approvals.example:x/"},
    "no text": {"url": None},
    "a short key": {"key": bytes(31)},
    "a key of letters": {"key": "k" * 32},
    "no time": {"timeout": dt.timedelta(0)},
    "a number": {"timeout": 10},
    "no attempts": {"attempts": 0},
    "many attempts": {"attempts": 101},
    "half an attempt": {"attempts": 1.5},
    "unchecked": {"tls": UNCHECKED},
    "unnamed": {"tls": UNNAMED},
    "no context": {"tls": False},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_what_it_cannot_be_given(wrong: dict[str, Any]):
    """It is found out when the gate is made, not when it is asked."""
    given_ = {"url": "https://approvals.example/ask", "key": KEY, **wrong}
    with pytest.raises(ConfigurationError):
        WebhookGate(given_.pop("url"), **given_)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "[::1]"], ids=str)
def test_this_machine_may_do_without_tls(host: str):
    gate = WebhookGate(f"http://{host}:8000/ask?secret=1", key=KEY)
    assert "secret" not in repr(gate)
    assert KEY.hex() not in repr(gate)


# -- the endpoint's side -------------------------------------------------------------------


def sent(body: bytes | None = None, **changes: Any) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of a good request."""
    asked = question(**changes)
    body = to_text(asked).encode() if body is None else body
    request = Request(asked.id, "ab" * 16)
    return request_headers(request, body, KEY, clock=lambda: NOW), body


def test_a_request_is_read():
    headers, body = sent()
    request = read_request(headers, body, KEY, clock=lambda: NOW)
    read = request.question
    assert read is not None and read == question()._replace(arguments=read.arguments)
    assert (request.id, request.nonce) == ("q1", "ab" * 16)


def test_the_name_of_a_header_has_no_case():
    headers, body = sent()
    for change in (str.lower, str.upper):
        other = {change(name): value for name, value in headers.items()}
        assert read_request(other, body, KEY, clock=lambda: NOW).id == "q1"


@pytest.mark.parametrize(
    "name",
    ["Timestamp", "Confirmation", "Nonce", "Signature"],
)
@pytest.mark.parametrize("value", [None, "", "0", "x", "ä", "1, 1"], ids=repr)
def test_a_request_with_another_header_is_refused(name: str, value: str | None):
    headers, body = sent()
    headers.pop(f"Checkrein-{name}")
    if value is not None:
        headers[f"checkrein-{name}"] = value
    with pytest.raises(RequestRefused):
        read_request(headers, body, KEY, clock=lambda: NOW)


def test_every_changed_byte_of_a_request_is_found():
    """Of its body, and of what its headers say."""
    headers, body = sent()
    for at in range(0, len(body), 7):
        other = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        with pytest.raises(RequestRefused):
            read_request(headers, other, KEY, clock=lambda: NOW)
    for name in [one for one in headers if one.startswith("Checkrein-")]:
        for at, letter in enumerate(headers[name]):
            other_value = headers[name][:at] + chr(ord(letter) ^ 1) + headers[name][at + 1 :]
            with pytest.raises(RequestRefused):
                read_request(headers | {name: other_value}, body, KEY, clock=lambda: NOW)


def test_every_part_of_a_request_is_refused():
    headers, body = sent()
    for end in (0, 1, len(body) // 2, len(body) - 1):
        with pytest.raises(RequestRefused):
            read_request(headers, body[:end], KEY, clock=lambda: NOW)
    with pytest.raises(RequestRefused):
        read_request(headers, body + b" ", KEY, clock=lambda: NOW)


@pytest.mark.parametrize("away", [-1, 1], ids=["old", "new"])
def test_a_request_has_its_time(away: int):
    headers, body = sent()
    assert read_request(headers, body, KEY, clock=lambda: NOW + away * WINDOW).id == "q1"
    with pytest.raises(RequestRefused, match="300 seconds"):
        read_request(headers, body, KEY, clock=lambda: NOW + away * (WINDOW + 1))


def test_a_request_of_another_key_is_refused():
    headers, body = sent()
    with pytest.raises(RequestRefused, match="not signed with the key"):
        read_request(headers, body, OTHER_KEY, clock=lambda: NOW)


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[" * 100_000, b"\xff", b"null", to_text(question("q2")).encode()],
    ids=["empty", "deep", "bytes", "null", "another"],
)
def test_a_signed_request_that_asks_nothing_is_refused(body: bytes):
    headers, body = sent(body)
    with pytest.raises(RequestRefused):
        read_request(headers, body, KEY, clock=lambda: NOW)


def test_a_question_that_was_changed_before_it_was_signed_is_refused():
    """Its digest is that of something else."""
    body = to_text(question()._replace(tool="delete")).encode()
    headers, body = sent(body)
    with pytest.raises(RequestRefused):
        read_request(headers, body, KEY, clock=lambda: NOW)


def test_a_verdict_about_something_else_is_not_sent():
    request = Request("q1", "ab" * 16, question())
    for other in (question("q2"), question(tool="delete")):
        with pytest.raises(MisuseError, match="another question"):
            answer_to(request, other.approve(by="dana"), KEY)
    with pytest.raises(ConfigurationError):
        answer_to(request, question().approve(by="dana"), b"short")


def test_errors_are_one_tree():
    for kind in (RequestRefused, NoAnswer, BadAnswer, ForgedAnswer):
        assert issubclass(kind, WebhookError)


# -- the signature -------------------------------------------------------------------------

TEXTS = st.text(alphabet="0123456789:,ab\n\ud800ä", max_size=6)
BODIES = st.binary(max_size=6) | st.sampled_from([b"1:a", b"0:", b"1:a0:", b"2:q1"])
MESSAGES = st.tuples(
    st.sampled_from(["ask", "poll", "answer"]), st.tuples(TEXTS, TEXTS, TEXTS, BODIES)
)


@given(MESSAGES, MESSAGES)
def test_two_messages_are_two_texts(one: Any, other: Any):
    """No kind, timestamp, id, nonce and body give the bytes of others."""
    assert (messages.message(*one) == messages.message(*other)) == (one == other)


@given(MESSAGES)
def test_a_message_can_be_read_back(one: Any):
    """So that no two can be the same: the bytes say where each field ends."""
    kind, fields = one
    match = re.fullmatch(rb"checkrein/webhook-(\w+)/v1\n(.*)", messages.message(*one), re.DOTALL)
    assert match is not None and match[1].decode() == kind
    rest, read = match[2], []
    while rest:
        length, _, rest = rest.partition(b":")
        read.append(rest[: int(length)])
        rest = rest[int(length) :]
    *texts, body = read
    assert (*(one.decode("utf-8", "surrogatepass") for one in texts), body) == fields


def test_the_signature_is_the_one_that_is_documented():
    """Worked out by hand from the specification, with nothing of the library."""
    import hashlib
    import hmac

    headers, _body = sent(b"")
    text = b"checkrein/webhook-poll/v1\n10:18000000002:q132:" + b"ab" * 16 + b"0:"
    expected = hmac.new(KEY, text, hashlib.sha256).hexdigest()
    assert headers["Checkrein-Signature"] == f"v1={expected}"
