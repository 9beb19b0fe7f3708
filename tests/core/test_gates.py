"""The gates of the first storey: what is shown, and what counts as yes."""

from __future__ import annotations

import io
import os
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkrein import (
    CallbackGate,
    ConsoleGate,
    Grant,
    Run,
    Untrusted,
    allow,
    irreversible,
    reads,
)
from checkrein.confirmations import Confirmation, Verdict
from checkrein.errors import ConfigurationError, Denied, MisuseError
from checkrein.gates.console import question_text
from checkrein.visible import lookalikes, shown, visible
from support import rule_of

DONE: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@irreversible("gates.send", external=True)
def send(to: str, body: Untrusted[str]) -> None:
    DONE.append((to, body.reveal()))


def ask(typed: str, to: str = "dana@acme.example", body: str = "hi") -> tuple[str, str]:
    """Return what was shown and the outcome, for what a person types."""
    writer = io.StringIO()
    gate = ConsoleGate(by="approver", reader=io.StringIO(typed), writer=writer)
    with Run(agent="bot", grant=Grant(allow("gates.send")), gate=gate):
        try:
            send(to, body)
        except Denied as error:
            return writer.getvalue(), error.rule
    return writer.getvalue(), "ran"


def test_the_console_has_no_default_yes():
    """Only the whole word approves; return, y and anything else deny."""
    assert ask("yes\n")[1] == "ran"
    assert ask(" YES \n")[1] == "ran"
    for typed in ("\n", "y\n", "yess\n", "no\n", "ye s\n", "1\n"):
        assert ask(typed)[1] == "gate.denied"
    assert ask("")[1] == "gate.unavailable"


def test_suspicious_at_the_console_locks_the_run():
    """One word denies and stops what else the agent would try."""
    gate = ConsoleGate(by="t", reader=io.StringIO("suspicious\n"), writer=io.StringIO())
    with Run(agent="bot", grant=Grant(allow("gates.send")), gate=gate) as run:
        with pytest.raises(Denied):
            send("x", "y")
        assert run.locked


def test_without_a_terminal_nobody_is_asked(monkeypatch: pytest.MonkeyPatch):
    """A pipe cannot answer for a person."""
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    with Run(agent="bot", grant=Grant(allow("gates.send")), gate=ConsoleGate()):
        with pytest.raises(Denied) as caught:
            send("x", "y")
    assert caught.value.rule == "gate.unavailable"


def test_the_console_shows_the_whole_call():
    """Every argument in full, however long, and why it is asked."""
    body = "x" * 100_000
    text, _ = ask("no\n", body=body)
    for part in ("bot", "send", "irreversible", '"dana@acme.example"', body, "taken back"):
        assert part in text


HOSTILE = (
    "\x1b[2J\x1b]0;title\x07\u202e\u200b\u2066\ufeff\U000e0041\r\x00\x9b\u115f\ufe0f\u2028\ud800"
)


def test_the_console_shows_what_does_not_show():
    """Escapes, direction marks, invisible and half characters are written out."""
    text, _ = ask("no\n", to=f"dana{HOSTILE}@acme.example")
    for letter in HOSTILE:
        assert letter not in text or letter.isprintable() or letter == "\n"
    assert "\\x1b[2J" in text
    assert "\\u202e" in text
    assert "\\ud800" in text


@given(st.text())
def test_visible_text_is_plain_and_says_everything(text: str):
    """What is shown acts on no terminal, and two different texts never look the same."""
    made = visible(text)
    assert all(letter == " " or unicodedata.category(letter)[0] not in "CZ" for letter in made)
    restored = made.encode("latin-1", "backslashreplace").decode("unicode_escape")
    assert restored == text


@given(st.text(), st.text())
def test_shown_values_cannot_forge_one_another(one: str, other: str):
    """A quote in a value cannot end it early."""
    assert (shown(one) == shown(other)) == (one == other)
    assert shown((one, other)) != shown((one + '", "' + other,))


def test_a_callback_gate_takes_a_function_and_names_the_approver():
    """A gate without a function is a configuration error; a verdict needs a name."""
    with pytest.raises(ConfigurationError):
        CallbackGate("yes")  # type: ignore[arg-type]
    seen: list[Confirmation] = []
    with Run(
        agent="bot", grant=Grant(allow("gates.send")), gate=CallbackGate(lambda c: seen.append(c))
    ):
        with pytest.raises(Denied):
            send("x", "y")
    with pytest.raises(MisuseError):
        seen[0].approve(by=" ")


def test_the_digest_of_a_confirmation_covers_the_call():
    """Another argument, another digest; and never the same nonce twice."""
    seen: list[Confirmation] = []

    def keep(confirmation: Confirmation) -> bool:
        seen.append(confirmation)
        return True

    with Run(agent="bot", grant=Grant(allow("gates.send")), gate=CallbackGate(keep)):
        send("a", "x")
        send("a", "x")
        send("b", "x")
    assert len({one.digest for one in seen}) == len({one.id for one in seen}) == 3


def test_question_text_never_holds_raw_control_characters():
    """Names are shown as carefully as values."""
    one = Confirmation(
        "id",
        "to\x1bol",
        "wri\u202etes",
        "res",
        (),
        ("why\x07",),
        ("rule",),
        "ag\x00ent",
        "r",
        "c",
        0.0,
        "d",
    )
    assert not set("\x1b\u202e\x07\x00") & set(question_text(one))


def test_only_a_verdict_that_says_true_approves():
    """A verdict made by hand with something merely truthy in it is no yes."""

    def forge(confirmation: Confirmation) -> Verdict:
        return confirmation.approve(by="approver")._replace(approved="yes")  # type: ignore[arg-type]

    with Run(agent="bot", grant=Grant(allow("gates.send")), gate=CallbackGate(forge)):
        with pytest.raises(Denied) as caught:
            send("x", "y")
    assert caught.value.rule == "gate.denied"
    assert DONE == []


def test_the_digest_of_a_confirmation_stands_for_the_arguments_themselves():
    """Two questions that agree in every id and time, and differ in what is sent, differ."""
    digests: list[str] = []
    for to in ("a", "b"):

        def keep(confirmation: Confirmation) -> bool:
            digests.append(confirmation.digest)
            return False

        ids = iter("12345")
        with Run(
            agent="bot",
            grant=Grant(allow("gates.send"), id="grant"),
            gate=CallbackGate(keep),
            clock=lambda: 1.0,
            ids=lambda ids=ids: next(ids),
        ) as active:
            active._salt = b"0" * 16
            with pytest.raises(Denied):
                send(to, "x")
    assert len(set(digests)) == 2


def test_a_body_keeps_the_cause_of_what_it_raises():
    """A RuntimeError of the body comes out with its own cause."""

    @reads("gates.cause")
    def broken() -> int:
        raise RuntimeError("outer") from ValueError("inner")

    with Run(agent="bot", grant=Grant(allow("gates.cause"))), pytest.raises(RuntimeError) as caught:
        broken()
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("dana@acme.com", []),
        ("d\u00e4na, \u00c5sa, \u0142", []),
        ("\u043f\u0440\u0438\u0432\u0435\u0442, dana", []),
        ("\u5c71\u7530 a\u3042", []),
        ("d\u0430na@acme.com", ["U+0430 CYRILLIC SMALL LETTER A"]),
        ("p\u03b1ypal", ["U+03B1 GREEK SMALL LETTER ALPHA"]),
        ("\uff41cme", ["U+FF41 FULLWIDTH LATIN SMALL LETTER A"]),
        ("\U0001d41acme", ["U+1D41A MATHEMATICAL BOLD SMALL A"]),
    ],
    ids=["ascii", "accents", "words", "japanese", "cyrillic", "greek", "wide", "bold"],
)
def test_letters_that_look_like_others_are_named(text: str, names: list[str]):
    """A person cannot tell them apart; a word in one's own script is no trick."""
    assert lookalikes(text) == names
    seen: list[Confirmation] = []
    gate = CallbackGate(lambda one: bool(seen.append(one)), by="dana")
    with Run(agent="bot", grant=Grant(allow("gates.send")), gate=gate):
        with pytest.raises(Denied):
            send(text, "x")
    assert ("look like others" in question_text(seen[0])) is bool(names)
    assert all(name in seen[0].arguments[0].concern for name in names)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_what_was_typed_before_the_question_answers_nothing(monkeypatch: pytest.MonkeyPatch):
    """A yes that was pasted into the chat lies in wait for the next question, and is dropped."""
    ours, theirs = os.openpty()
    asked = io.StringIO()

    class Typing(io.StringIO):
        def write(self, text: str) -> int:
            os.write(ours, b"no\n")  # now that the question is there
            return asked.write(text)

    with open(theirs, encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(sys, "stderr", Typing())
        os.write(ours, b"please summarise this:\nyes\n")
        assert terminal.readline() == "please summarise this:\n"
        with Run(agent="t", grant=Grant(allow("gat.send")), gate=ConsoleGate(by="dana")):
            assert rule_of(typed) == "gate.denied"
    os.close(ours)
    assert "gat.send" in asked.getvalue()


@irreversible("gat.send")
def typed() -> None: ...
