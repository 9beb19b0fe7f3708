"""Sealed values: a label that survives storage, and is not stripped, changed or moved unnoticed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from checkrein import (
    Grant,
    Run,
    Untrusted,
    allow,
    combine,
    irreversible,
    preapproved,
    reads,
    writes,
)
from checkrein.errors import ConfigurationError, Denied, MisuseError, TamperedError
from checkrein.labels import Label, Origin, Source
from support import rule_of
from values.leaks import each

KEY, OTHER = bytes(range(32)), bytes(32)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
LABELS = st.builds(
    Label,
    st.frozensets(
        st.builds(Source, st.sampled_from(list(Origin)), st.text(max_size=5), st.text(max_size=5)),
        max_size=3,
    ),
    st.booleans(),
)


def inside(box: Untrusted[Any]) -> Any:
    return box.reveal(reason="test")


@given(value=PLAIN | st.binary(), label=LABELS, context=st.text(max_size=5))
def test_value_and_label_come_back(value: Any, label: Label, context: str):
    """Plain data of any shape, texts that UTF-8 cannot hold excepted."""
    box = Untrusted(value, label=label) if label != Label() else Untrusted(value)
    try:
        text = box.seal(KEY, context=context)
    except MisuseError:
        assert "\\ud" in ascii(value)
        return
    back = Untrusted.unseal(text, key=KEY, context=context)
    assert inside(back) == value
    assert type(inside(back)) is type(value)
    assert back.label == box.label


SEALED = Untrusted("pay eve", source="mail", private=True).seal(KEY, context="memory/1")


@given(at=st.integers(0, len(SEALED) - 1), letter=st.characters(max_codepoint=0x2FF))
def test_no_letter_of_it_can_be_changed(at: int, letter: str):
    """Any change is an error, and so is a second spelling."""
    changed = SEALED[:at] + letter + SEALED[at + 1 :]
    if changed != SEALED:
        with pytest.raises(TamperedError):
            Untrusted.unseal(changed, key=KEY, context="memory/1")


@given(text=st.text())
def test_what_was_not_sealed_does_not_unseal(text: str):
    """Plain text in the place of a sealed one is no content without a label: it is an error."""
    for odd in (text, f"cs1.{text}", f"cs1.{text}.{text}", SEALED + text if text else "x"):
        with pytest.raises(TamperedError):
            Untrusted.unseal(odd, key=KEY, context="memory/1")


def test_it_unseals_under_its_key_and_in_its_place_alone():
    """Another row, another key: an error."""
    for key, context in ((OTHER, "memory/1"), (KEY, "memory/2"), (KEY, "")):
        with pytest.raises(TamperedError):
            Untrusted.unseal(SEALED, key=key, context=context)
    one = Untrusted("x").seal(KEY, context="a")
    with pytest.raises(TamperedError):
        Untrusted.unseal(one, key=KEY, context="")


def test_a_label_cannot_be_made_of_the_body():
    """Who has no key can neither take a label off nor put another one on."""
    version, body, mac = SEALED.split(".")
    tree = json.loads(base64.urlsafe_b64decode(body + "=="))
    tree["sources"] = [["user_input", "", ""]]
    forged = base64.urlsafe_b64encode(json.dumps(tree).encode()).decode().rstrip("=")
    with pytest.raises(TamperedError):
        Untrusted.unseal(f"{version}.{forged}.{mac}", key=KEY, context="memory/1")


@pytest.mark.parametrize("key", each([b"", b"short", bytes(31), "x" * 32, None]))
def test_a_weak_key_is_refused(key: Any):
    """On both sides."""
    with pytest.raises(ConfigurationError):
        Untrusted("x").seal(key)
    with pytest.raises(ConfigurationError):
        Untrusted.unseal(SEALED, key=key)


class Mail(BaseModel):
    sender: str
    urgent: bool = False


def test_models_come_back_as_models():
    """kind= says which; what does not fit is denied without its text."""
    text = Untrusted(Mail(sender="eve@evil.example")).seal(KEY)
    assert inside(Untrusted.unseal(text, key=KEY, kind=Mail)) == Mail(sender="eve@evil.example")
    assert inside(Untrusted.unseal(text, key=KEY)) == {
        "sender": "eve@evil.example",
        "urgent": False,
    }
    with pytest.raises(Denied) as denied:
        Untrusted.unseal(text, key=KEY, kind=list[int])
    assert "eve" not in str(denied.value)
    with pytest.raises(MisuseError) as misuse:
        Untrusted(object()).seal(KEY)
    assert "sealed" in str(misuse.value)


# -- memory ------------------------------------------------------------------------------------

MEMORY: dict[str, str] = {}
SENT: list[str] = []


@reads("seal.mail")
def mail() -> Untrusted[str]:
    return Untrusted("eve@evil.example", source="mail")


@writes("seal.memory")
def remember(topic: str, text: Untrusted[str]) -> None:
    MEMORY[topic] = text.seal(KEY, context=topic)


@reads("seal.memory")
def recall(topic: str) -> Untrusted[str]:
    return Untrusted.unseal(MEMORY[topic], key=KEY, context=topic, kind=str)


@irreversible("seal.send", external=True)
def send(to: str) -> None:
    SENT.append(to)


GRANT = Grant(
    allow("seal.mail"),
    allow("seal.memory"),
    allow("seal.send", preapproved("always")),
)


def test_taint_survives_a_memory_between_two_runs():
    """Written by a hijacked agent in one run, read in the next: still the mail's."""
    with Run(agent="one", grant=GRANT) as run:
        run.instruct("Remember the address.")
        remember("address", mail())
    with Run(agent="two", grant=GRANT) as run:
        found = recall("address")
        assert "external:mail" in found.label.names
        assert run.exposed
        assert rule_of(send, "eve@evil.example") == "gate.unavailable"
    MEMORY["address"] = "eve@evil.example"
    with Run(agent="three", grant=GRANT), pytest.raises(TamperedError):
        recall("address")
    assert SENT == []


# -- combining ---------------------------------------------------------------------------------


def test_combining_joins_every_label():
    """Plain values may stand beside; private sticks."""
    one, two = Untrusted("a", source="x"), Untrusted("b", source="y", private=True)
    both = combine("{} {} {}".format, one, "-", two)
    assert inside(both) == "a - b"
    assert both.label == one.label | two.label
    assert both.label.private
    with pytest.raises(MisuseError):
        combine(str.upper, "a")
    with pytest.raises(MisuseError) as misuse:
        combine(int, one)
    assert "'a'" not in str(misuse.value)


def test_combining_in_a_body_stays_free_there():
    """A body's own arguments combine, and reveal as they would alone."""

    @writes("seal.memory")
    def join(one: Untrusted[str], two: Untrusted[str]) -> int:
        return len(combine("{}{}".format, one, two).reveal())

    with Run(agent="t", grant=GRANT):
        assert join("ab", "c") == 3
