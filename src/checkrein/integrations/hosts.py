"""What every integration does, without any framework.

A framework's hook gets a tool call and what makes it. An integration

1. puts the run in force around the call: :func:`active`;
2. makes the call: the guard below decides, the hook decides nothing;
3. turns :class:`~checkrein.errors.Denied` into the framework's own way to say no, with the
   text of :func:`tell`. It raises nothing to mean no: two frameworks run the tool then;
4. turns :class:`~checkrein.errors.Suspended` into the framework's own pause, whose payload is
   the :func:`question`. When the framework is resumed with an :func:`answer`, :func:`take`
   lays that on the desk, and the same call is made again. :func:`settle` is these steps
   for frameworks that can be asked in the middle of a call.

So what a framework saves while it waits counts for nothing. It holds the id and the
digest of a question; the question itself, and which answer it got, are on the desk
(:mod:`checkrein.gates.desk`), and the run finds it by the digest of the call. Arguments that
were changed in the saved state make another call, which is decided, and asked about, anew.

An answer is a dict of JSON data: ``confirmation``, ``digest``, ``approved``, ``by``, and if
need be ``reason``, ``suspicious``, ``edits``, ``typed``, or all that a signed
:class:`~checkrein.confirmations.Verdict` holds. One that is for another question, comes a second
time, is late or is not an answer changes nothing and is written down. ``shown`` is the digest of
the question as the person has read it: an application may have taken that from the saved state.

Nor may an answer come from there. Where a framework carries answers through what it saves, it
gets a ticket: :func:`hand_in`, and :func:`claim` where it is to be laid on the desk.

Around a model call an integration says what the run cannot know: :func:`begin`,
:func:`expose_unguarded`, ``run.heard`` and ``run.hosted``.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import inspect
import json
import secrets
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from threading import Lock
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import orjson

from checkrein.confirmations import Confirmation, Verdict, read_verdict
from checkrein.errors import ConfigurationError, Denied, MisuseError, Suspended, TamperedError
from checkrein.frames import Frame, spec_of, why_unguarded
from checkrein.gates.desk import AnswerRefused, Desk
from checkrein.guards import frame_for
from checkrein.ports import ACTIVE
from checkrein.runs import Run
from checkrein.untrusted import Untrusted
from checkrein.visible import visible
from checkrein.waiting import off_loop

_UNSAID: Final[dict[str, Any]] = {
    "reason": "",
    "suspicious": False,
    "edits": {},
    "signature": "",
    "parts": [],
    "standing": None,
}
_SEEN: Final[WeakKeyDictionary[Run, set[str]]] = WeakKeyDictionary()
_READ: Final = (
    "confirmation", "tool", "effect", "resource", "arguments", "reasons", "preview", "agent",
)  # fmt: skip
_ELSEWHERE: Final = "the question is none of this run"
_OTHER_TEXT: Final = "what was shown is not what is asked"
_HANDED_IN: Final[dict[str, dict[str, Any]]] = {}
_MOST_HANDED_IN: Final = 10_000
_LOCK: Final = Lock()
_REFUSED: Final[WeakKeyDictionary[Run, dict[str, str]]] = WeakKeyDictionary()
"""Why the last answer to a question did not count."""


# -- a call --------------------------------------------------------------------------------


def tell(error: Denied | Suspended) -> str:
    """Return what a model is told about a call that did not run: no argument value is in it."""
    return str(error)


@contextmanager
def active(run: Run | None) -> Generator[Run | None]:
    """Put *run* in force here, and give the run that is in force.

    A run that is active already serves if it is *run* or one inside it; with ``None``
    whichever is active serves.

    Raises:
        Denied: a run is active that is no part of *run*.
    """
    if run is None:
        yield current()
        return
    frame = frame_for(run)
    token = ACTIVE.set(frame)
    try:
        yield frame.run
    finally:
        ACTIVE.reset(token)


def current(run: Run | None = None) -> Run | None:
    """Return the run that is in force here, *run* if none is."""
    frame = ACTIVE.get()
    return frame.run if isinstance(frame, Frame) and not frame.run.closed else run


# -- confirmation --------------------------------------------------------------------------


def desk_of(run: Run | None) -> Desk | None:
    """Return the desk on which the questions of *run* lie, ``None`` if its gate has none."""
    desk = getattr(None if run is None else run.gate, "desk", None)
    if run is None or not isinstance(desk, Desk):
        return None
    return Desk(desk.store, approvers=run.approvers, log=run.log, clock=run.clock)


def hand_in(given: Mapping[str, Any]) -> str:
    """Return a ticket for an answer, which stays in this process."""
    ticket = secrets.token_hex(16)
    with _LOCK:
        _HANDED_IN[ticket] = dict(given)
        if len(_HANDED_IN) > _MOST_HANDED_IN:
            del _HANDED_IN[next(iter(_HANDED_IN))]
    return ticket


def claim(ticket: object) -> dict[str, Any] | None:
    """Return the answer for a ticket, once; ``None`` if nobody has handed one in here."""
    with _LOCK:
        return _HANDED_IN.pop(ticket, None) if isinstance(ticket, str) else None


def question(run: Run, pending: Suspended) -> dict[str, Any]:
    """Return the question that a call waits for, as JSON data to show to a person.

    Arguments are there as text, every character visible, with where each came from. If an
    answer was given that did not count, ``refused`` says why.

    Args:
        run: the run that is in force.
        pending: what the call has raised.

    Raises:
        Suspended: *pending* itself, if its question is none of the run, or lies on no desk.
    """
    desk, id_ = desk_of(run), pending.confirmation
    case = desk.find(id_) if desk is not None and run.questions.holds(id_) else None
    if case is None:
        raise pending
    shown = _shown(case.question)
    refused = _REFUSED.get(run, {}).get(id_)
    return {**shown, "refused": refused} if refused else shown


def _shown(asked: Confirmation) -> dict[str, Any]:
    return {
        "confirmation": asked.id,
        "digest": asked.digest,
        "tool": asked.tool,
        "effect": asked.effect,
        "resource": asked.resource,
        "arguments": [
            {
                "name": one.name,
                "text": one.text,
                "origin": visible(one.origin),
                "untrusted": one.untrusted,
                "concern": one.concern,
            }
            for one in asked.arguments
        ],
        "reasons": list(asked.reasons),
        "preview": asked.preview,
        "agent": asked.agent,
        "expires": asked.expires,
    }


def answer(question: Mapping[str, Any], approved: bool, *, by: str, **more: Any) -> dict[str, Any]:
    """Return the answer to a :func:`question`, to resume a framework with.

    Args:
        question: what was shown.
        approved: whether the call may run.
        by: who says so.
        more: ``reason``, ``suspicious``, ``edits``, ``typed``.
    """
    found = {name: question[name] for name in ("confirmation", "digest")}
    return {**found, "shown": _read(question), "approved": approved, "by": by, **more}


def _read(question: Mapping[str, Any]) -> str:
    """Return the digest of what a person has read of a question."""
    text = json.dumps({name: question.get(name) for name in _READ}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def take(run: Run, asked: str | None, given: Any) -> str:
    """Lay an answer on the desk; return why it does not count, ``""`` if it does.

    The same answer given again counts as the first time: frameworks replay them.

    Args:
        run: the run that is in force.
        asked: the id of the question that was put; ``None`` where any of the run's may be answered.
        given: the answer, or whatever came in its place.
    """
    asked = meant(given) if asked is None else asked
    problem = _laid(run, asked, given)
    _REFUSED.setdefault(run, {})[asked] = problem
    return problem


def _laid(run: Run, asked: str, given: Any) -> str:
    desk = desk_of(run)
    if desk is None:
        return "the run has no desk"
    typed = read = None
    try:
        if isinstance(given, Mapping):
            tree = {**_UNSAID, **given}
            typed, read = tree.pop("typed", None), tree.pop("shown", None)
            given = read_verdict(tree)
    except TamperedError:
        given = None
    if not isinstance(given, Verdict) or not (typed is None or isinstance(typed, str)):
        nobody = Verdict(asked, "", approved=False, by="")
        desk.note_refused(nobody, "this is no answer")
        return "this is no answer"
    if given.confirmation != asked:
        desk.note_refused(given, "the answer is for another question")
        return "the answer is for another question"
    case = desk.find(given.confirmation)
    if case is not None and given in case.verdicts:
        return ""
    if case is not None and not run.questions.holds(asked):
        desk.note_refused(given, _ELSEWHERE)
        return _ELSEWHERE
    if case is not None and read is not None and read != _read(_shown(case.question)):
        desk.note_refused(given, _OTHER_TEXT)
        return _OTHER_TEXT
    try:
        desk.answer(given, typed=typed)
    except (AnswerRefused, MisuseError) as refused:
        return str(refused)
    return ""


def meant(given: Any) -> str:
    """Return the id of the question that an answer says it is for, ``""`` if it is none."""
    named = given.get("confirmation") if isinstance(given, Mapping) else None
    named = given.confirmation if isinstance(given, Verdict) else named
    return named if isinstance(named, str) else ""


def settle(run: Run | None, pending: Suspended, ask: Callable[[dict[str, Any]], Any]) -> None:
    """Ask until there is an answer to *pending* that counts. Then the call is made again.

    Args:
        run: the run that is in force.
        pending: what the call has raised.
        ask: takes the question and returns an answer; or raises what pauses the framework.

    Raises:
        Suspended: *pending* itself, if its question lies on no desk.
    """
    if run is None:
        raise pending
    while take(run, pending.confirmation, ask(question(run, pending))):
        pass  # the next question says why


async def asettle(
    run: Run | None, pending: Suspended, ask: Callable[[dict[str, Any]], Any]
) -> None:
    """Do as :func:`settle` does, with the store off the event loop; *ask* may be awaited."""
    if run is None:
        raise pending
    problem = "it was not asked yet"
    while problem:
        given = ask(await off_loop(partial(question, run, pending)))
        if inspect.isawaitable(given):
            given = await given
        problem = await off_loop(partial(take, run, pending.confirmation, given))


# -- a model call --------------------------------------------------------------------------


def begin(run: Run, conversation: object, *, history: bool) -> None:
    """Take in that a model is called; a history that the run has not seen exposes the run.

    Call it before each model call. The first one of a conversation counts; a run that
    goes on with a suspended one knows its history.

    Args:
        run: the run.
        conversation: its id, or ``None``.
        history: whether the conversation holds anything that a model or a tool has said.
    """
    seen = _SEEN.setdefault(run, set())
    if str(conversation) in seen:
        return
    seen.add(str(conversation))
    if history and not run.resumes:
        run.expose("a history from before the run")


def text_of(said: Any, *, without: Collection[str] = ()) -> str:
    """Return messages as JSON, for ``run.heard``: of objects, the fields.

    It is made at each call of a model, of all that was said so far, so it has to be cheap: a
    framework's own way to write messages down takes ten times as long.

    Args:
        said: messages, of whatever types a framework has.
        without: fields of objects that are no part of what is said.
    """
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS
    plain = partial(_fields, frozenset(without))
    with suppress(TypeError, ValueError, RecursionError):
        return orjson.dumps(said, plain, options).decode()
    with suppress(TypeError, ValueError, RecursionError):  # half a character, or a huge number
        return json.dumps(said, default=plain, skipkeys=True)
    return repr(said)  # it holds itself


def _fields(without: frozenset[str], one: Any) -> Any:
    """Return what JSON has room for."""
    if isinstance(one, Untrusted) or not hasattr(one, "__dict__"):
        return base64.b64encode(one).decode() if isinstance(one, bytes) else str(one)
    fields = {**vars(one), **(getattr(one, "__pydantic_extra__", None) or {})}
    told = {
        name: value
        for name, value in fields.items()
        if value is not None and name not in without and not name.startswith("_")
    }
    return {"type": type(one).__name__, **told}


@functools.cache
def installed(distribution: str) -> str:
    """Return the version of an installed distribution, ``""`` if that cannot be known."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


# -- at start-up ---------------------------------------------------------------------------


_ASKED_FOR: Final = (
    "{!r} is marked injected, and the model is asked for it: nobody decides about what it gives; "
    "use the type that the framework injects, or take the mark off"
)


class Problem(NamedTuple):
    """A tool of a framework whose calls nobody decides.

    Attributes:
        tool: the name under which a model calls it.
        problem: what is wrong, and the way out.
    """

    tool: str
    problem: str


def name_of(tool: Any) -> str:
    """Return the name under which a model calls a tool or a function; of others, of their kind."""
    named = getattr(tool, "name", None) or getattr(tool, "__name__", None)
    return str(named or type(tool).__name__)


def judge(registered: Iterable[tuple[Any, ...]]) -> list[Problem]:
    """Return what is not guarded among names and callables that a framework has registered.

    It finds the guard on the wrong side of the framework's decorator, too: what is
    registered then is the bare function.

    Args:
        registered: names and callables, and what returns the arguments that a model is shown,
            where that can be known: none of them may be one that the guard leaves to the framework.
    """
    found: list[Problem] = []
    for name, one, *shown in registered:
        spec = spec_of(one)
        if spec is None:
            found.append(Problem(visible(str(name)), visible(why_unguarded(one))))
            continue
        injected = {each.name for each in spec.facts.parameters if each.injected}
        asked = injected.intersection(*(each() for each in shown)) if injected and shown else ()
        found += (Problem(visible(str(name)), _ASKED_FOR.format(each)) for each in sorted(asked))
    return found


def refuse(problems: Iterable[Problem]) -> None:
    """Refuse to start with tools that are not guarded.

    Raises:
        ConfigurationError: there are problems; it lists them all.
    """
    found = [f"{one.tool}: {one.problem}" for one in problems]
    if found:
        raise ConfigurationError("; ".join(found))


def expose_unguarded(run: Run, problems: Iterable[Problem]) -> None:
    """Expose *run* if a model is offered tools whose results nobody labels."""
    if not run.exposed:
        names = [f"unguarded tool {one.tool}" for one in problems]
        if names:
            run.expose(*names)
