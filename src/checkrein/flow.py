"""What a run has learnt and seen: evidence, content, and where content was written.

Before a body starts, whether what it is given may be an attacker's choice; after
it, what came back: content that exposes the run, private data, evidence for later
arguments, the entries of a directory. What content went into is remembered by
resource, since content that is read back from there is no evidence: in this run and in
every other with the same store, now and later. Who has looked at what lies there, and
found it well, withdraws the notice: ``store.withdraw("tainted:crm.notes")``.

A run inside a run shares what can be shown to people. It starts with no evidence of
its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from checkrein.admission import is_default
from checkrein.directories import entries, fields_of
from checkrein.facts import Returns, ToolFacts
from checkrein.freezing import encode
from checkrein.labels import Label, Origin
from checkrein.origins import Evidence, Piece, Trust, leaves, texts_in, weakest
from checkrein.resources import TAINTED_RESOURCES
from checkrein.results import PLAINLY_CLOSED, look_at
from checkrein.rules import Finding, is_known, unauthorised
from checkrein.untrusted import Untrusted

if TYPE_CHECKING:
    from checkrein.calls import Call
    from checkrein.frames import Frame
    from checkrein.runs import Run

_CONTENTS: Final = 100


class Flow:
    """The information that has flowed through one run.

    Args:
        run: the run.

    Attributes:
        evidence: what trusted sources have said.
        contents: the last pieces of content, to tell people what stands where.
    """

    __slots__ = ("_lock", "_run", "contents", "evidence")

    def __init__(self, run: Run) -> None:
        self._run = run
        self._lock = Lock()
        self.evidence = Evidence()
        self.contents: deque[Untrusted[Any]] = deque(maxlen=_CONTENTS)

    def share(self, parent: Flow) -> None:
        """Take over what a run inside a run must know of the one around it."""
        self.contents = parent.contents

    def learn(self, piece: Piece) -> None:
        """Take in what somebody trusted has said."""
        with self._lock:
            self.evidence.add(piece)

    def is_tainted(self, call: Call, approved: Sequence[Finding], outer: Frame) -> bool:
        """Say whether the body of *call* is given untrusted values.

        A value that a person let pass is let pass here, and endorsed nowhere else. What
        passed because the tool only reads, or confines it, may be the attacker's choice:
        it is not trusted in the calls that the body makes.
        """
        facts = call.facts
        if (facts.confinable or not facts.wary) and facts.plain and self._wary(outer):
            view = self._run.view(outer)
            if not all(is_known(call, view, name) for name in facts.plain):
                return True
        if call.returned or any(one.rule == "flow.origin" for one in approved):
            return True
        for name in facts.payload:
            label = call.arguments[name].label
            if not label.trusted and (self._run.exposed or not _only_agent(label)):
                return True
        return False

    def commit(self, call: Call, raw: Any, inner: Frame, outer: Frame) -> Any:
        """Label what the body returned, and note what the run has now seen."""
        facts = call.facts
        if facts.quiet and type(raw) in PLAINLY_CLOSED:
            return raw  # no room for content, and nobody counts on it
        seen = look_at(call, raw, saw=inner.saw, marks=self._run.readable)
        if seen.private:
            self._run.hold_private(unasked=self._wary(outer) and not self._key_trust(call, outer))
        if facts.directories:
            self._take_references(call, raw, self._key_trust(call, outer), inner)
        impure = raw is not None and self._is_impure(facts)
        boxed = type(seen.result) is Untrusted
        told = not boxed and type(raw) not in PLAINLY_CLOSED and self._echoes(inner)
        if boxed and not seen.result.label.trusted:
            self.contents.append(seen.result)
        if seen.untrusted or told or (impure and facts.reads):
            self._take_in_content(facts, outer, hidden=boxed)
        elif facts.evidence and not (impure or inner.tainted) and self._all_trusted(call, outer):
            names = facts.evidence if isinstance(facts.evidence, tuple) else ()
            self.learn(Piece(fields_of(raw, names) if names else [raw], Trust.TOOL))
        self.taint_written(facts, inner, outer)
        return seen.result

    def note_failure(self, call: Call, inner: Frame, outer: Frame) -> None:
        """Note that a body raised: the text of an exception may quote what the body read."""
        facts = call.facts
        if facts.private:
            self._run.hold_private()
        source = facts.returns is Returns.UNTRUSTED or facts.external
        told = inner.saw or self._echoes(inner)
        if source or told or (facts.reads and self._is_impure(facts)):
            self._take_in_content(facts, outer)
        self.taint_written(facts, inner, outer)

    def _key_trust(self, call: Call, outer: Frame) -> int:
        """Return whose words have asked for what a call reads, ``Trust.NONE`` for nobody's.

        Words, not numbers, and of three letters at least: "a" asks for nothing. Content
        asks for nothing, even where the model has not seen it.
        """
        view = self._run.view(outer)
        facts, together = call.facts, Trust.NONE
        payload = () if facts.changes else facts.payload  # what is put in has selected nothing
        for name in payload:
            label = call.arguments[name].label
            if not label.trusted and (view.wary or not _only_agent(label)):
                return Trust.NONE
        for name in facts.plain:
            value = call.arguments[name]
            if is_default(facts, name, value):
                continue
            if view.wary and not (_is_text(value) and is_known(call, view, name)):
                return Trust.NONE
            if any(len(text.strip()) > 2 for text in texts_in(value)):
                trust = self.evidence.trust(value) or Trust.TOOL
                together = weakest(together, trust) if together else trust
        return together

    def _take_references(self, call: Call, raw: Any, key: int, inner: Frame) -> None:
        """Take in the entries that a directory has found; see :mod:`checkrein.directories`."""
        facts = call.facts
        if inner.saw or (self._run.orders.tainted.meet(facts) and not facts.changes):
            return
        for directory, by in facts.keyed:
            trust = key or (Trust.TOOL if directory.listing else Trust.NONE)
            given = by and not is_default(facts, by, call.arguments[by])
            asked = {one for one in texts_in(call.arguments[by]) if one.strip()} if given else ()
            found = entries(directory, raw, asked) if trust else ()
            with self._lock:
                for one in found:
                    self.evidence.refer(directory.kind, encode(one), trust)

    def taint_written(self, facts: ToolFacts, inner: Frame, outer: Frame) -> None:
        """What the model may have chosen lies, or will lie, there; read back it is no evidence."""
        if facts.changes and (inner.tainted or (self._wary(outer) and facts.confinable)):
            self._run.orders.taint(facts.resources)

    def _echoes(self, inner: Frame) -> bool:
        """Say whether a plain result, or an error, may be the first of its content to be seen."""
        return inner.tainted and self._run.marks.isolation.mode == "handle"

    def _take_in_content(self, facts: ToolFacts, outer: Frame, *, hidden: bool = False) -> None:
        if outer.call is None:
            # A model that is shown a handle has read nothing.
            if not (hidden and self._run.marks.isolation.mode == "handle"):
                self._run.expose(facts.source)
        else:
            outer.tainted = outer.saw = True

    def _is_impure(self, facts: ToolFacts) -> bool:
        """Say whether untrusted content was, or may have been, written to what a tool is about."""
        if facts.returns is Returns.CLOSED:
            return False
        return TAINTED_RESOURCES.meet(facts) or self._run.orders.tainted.meet(facts)

    def _wary(self, outer: Frame) -> bool:
        return self._run.exposed if outer.call is None else outer.tainted

    def _all_trusted(self, call: Call, outer: Frame) -> bool:
        """Say whether nobody untrusted can have chosen what the call was given."""
        if not self._wary(outer):
            return True
        if call.facts.payload or call.facts.confinable:
            return False
        view = self._run.view(outer)
        return not any(unauthorised(call, view, name) for name in call.facts.plain)


def _is_text(value: Any) -> bool:
    return value is None or all(isinstance(leaf, str) for leaf in leaves(value))


def _only_agent(label: Label) -> bool:
    return all(source.origin is Origin.AGENT_GENERATED for source in label.sources)
