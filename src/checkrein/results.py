"""What a tool's body returned: labelled, and looked through for what it brings.

Content is found by type, ``Untrusted`` anywhere inside, and by marker, a live
nonce in any text. A body that saw content it was not given and returns text may
have put the one into the other, so that counts as content, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import TypeAdapter

from checkrein.facts import Returns, ToolFacts
from checkrein.isolation import RunMarks, any_mark_in
from checkrein.labels import Label, Origin, Source
from checkrein.untrusted import Untrusted, content, labelled, parts

if TYPE_CHECKING:
    from checkrein.calls import Call

PLAINLY_CLOSED: Final = frozenset({type(None), bool, int, float})
"""Types with no room for content."""


class Seen(NamedTuple):
    """What a result brings into a run.

    Attributes:
        result: what the caller gets.
        untrusted: whether it is or holds untrusted content.
        private: whether it holds private data.
    """

    result: Any
    untrusted: bool
    private: bool


def look_at(call: Call, raw: Any, *, saw: bool, marks: tuple[RunMarks, ...]) -> Seen:
    """Label a result.

    Args:
        call: the call whose body returned it.
        raw: what it returned.
        saw: whether the body saw untrusted content that it was not given.
        marks: the markers to look for; those of the run come first.
    """
    facts, kind = call.facts, type(raw)
    if kind in PLAINLY_CLOSED and (raw is None or facts.returns is not Returns.UNTRUSTED):
        return Seen(raw, untrusted=False, private=facts.private)
    holds, private = _look_inside(raw, marks)
    private = private or facts.private
    if kind is not Untrusted:
        if facts.returns is Returns.UNTRUSTED:
            if holds:  # a container that declares untrusted parts keeps its shape
                return Seen(raw, untrusted=True, private=private)
        elif facts.returns is not Returns.CLOSED:
            told = saw and facts.returns is not Returns.TRUSTED
            return Seen(raw, untrusted=holds or told, private=private)
        elif not holds and _is_as_declared(facts, raw):
            return Seen(raw, untrusted=False, private=private)
    label = Label(frozenset({Source(Origin.TOOL_OUTPUT, facts.source, call.id)}), private)
    box: Untrusted[Any] = labelled(raw, label, marks[0])
    if marks[0].isolation.ingest:
        box = labelled(marks[0].ingested(content(box)), box.label, marks[0])
    return Seen(box, untrusted=True, private=private)


def _look_inside(raw: Any, marks: tuple[RunMarks, ...]) -> tuple[bool, bool]:
    holds = private = False
    for part in parts(raw):
        if isinstance(part, Untrusted):
            holds, private = True, private or part.label.private
        elif isinstance(part, str) and any_mark_in(part, marks):
            holds = True
    return holds, private


def _is_as_declared(facts: ToolFacts, raw: Any) -> bool:
    hint = facts.signature.return_annotation
    try:
        TypeAdapter(hint).validate_python(raw, strict=True)
    except Exception:  # noqa: BLE001 (whatever it is, it is not what was declared)
        return False
    return True
