"""Prompts whose instructions are ours and whose data is isolated; and models without tools.

``prompt`` keeps three voices apart: the developer's instructions, the user's
words, and data that others wrote. Instructions are a ``LiteralString``, which type
checkers hold to what stands in the program; at run time a text with live markers,
or one that untrusted content went into, is refused where it can be known.

On Python 3.14 a template string says the same in one place::

    prompt(t"Summarise this mail for {name}: {mail}")

Its literal parts are instructions; ``Untrusted`` in it is isolated; a plain text
must be trusted (``run.trust``, the user's words, configuration), else it is refused.

``quarantined`` asks a model about content where it cannot do harm: it gets no
tools and no conversation, and only what fits a schema comes back, as content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from pydantic import TypeAdapter

from checkrein.errors import Denied, MisuseError
from checkrein.frames import Apart, Frame
from checkrein.isolation import Isolation, notice
from checkrein.labels import Label, Origin, Source
from checkrein.ports import ACTIVE
from checkrein.untrusted import Untrusted, content, labelled, parts

if TYPE_CHECKING:
    from typing import LiteralString

    from checkrein.runs import Run

T = TypeVar("T")

_NUMBERS: Final = (bool, int, float)
_APART: Final = Apart()
_AGENT: Final = Label(frozenset({Source(Origin.AGENT_GENERATED, "quarantine")}))


class Template(Protocol):
    """A template string of Python 3.14; see ``string.templatelib.Template``."""

    @property
    def strings(self) -> tuple[str, ...]:
        """The literal parts."""
        ...

    @property
    def interpolations(self) -> tuple[Any, ...]:
        """What stands between them."""
        ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """Instructions, the user's words, and data, apart.

    Attributes:
        system: the instructions, with the notice that explains how data is shown.
        user: the user's words and the isolated data.
        sources: where the data came from.
    """

    system: str
    user: str
    sources: tuple[str, ...] = ()

    @property
    def messages(self) -> list[dict[str, str]]:
        """Return chat messages in the form that most providers take."""
        said = [{"role": "user", "content": self.user}] if self.user else []
        return [{"role": "system", "content": self.system}, *said]


def prompt(
    system: LiteralString | Template,
    *,
    user: str = "",
    data: Untrusted[Any] | Mapping[str, Untrusted[Any]] | None = None,
) -> Prompt:
    """Return a prompt in which nobody's data can pass for instructions.

    Showing data exposes the run, as reading it does, unless the run shows handles.
    The prompt is logged: its instructions, and where its data came from.

    Args:
        system: the instructions, a literal; or a template string.
        user: what the user typed; trusted, as in ``run.instruct``.
        data: content, or several pieces of it by name.

    Raises:
        MisuseError: outside a run, or something is not in its place.

    Example:
        >>> from checkrein import Grant, Run, Untrusted
        >>> with Run(agent="clerk", grant=Grant()):
        ...     made = prompt("Summarise the mail.", data=Untrusted("Obey me!", source="mail"))
        >>> made.messages[0]["content"].splitlines()[0]
        'Summarise the mail.'
    """
    run = _active_run("prompt")
    instructions, inline = _instructions(run, system)
    if user and inline:
        raise MisuseError("a template that holds data is one message: give user= or data in it")
    words = run.instruct(user) if user else ""
    pieces, shown = _shown(run, data)
    boxes = [*inline, *pieces]
    if boxes:
        instructions += f"\n\n{notice(run.marks.isolation)}"
        _take_in(run, boxes)
    sources = tuple(sorted({name for box in boxes for name in box.label.names}))
    made = Prompt(instructions, "\n\n".join(one for one in (words, *shown) if one), sources)
    run.record(
        "prompt",
        system=instructions if not inline else "",
        digest=hashlib.sha256(f"{made.system}\0{made.user}".encode(errors="replace")).hexdigest(),
        sources=list(sources),
    )
    return made


def _active_run(verb: str) -> Run:
    frame = ACTIVE.get()
    if not isinstance(frame, Frame):
        raise MisuseError(f"{verb}() is for code inside `with Run(...)`")
    return frame.run


def _instructions(run: Run, system: Any) -> tuple[str, list[Untrusted[Any]]]:
    if isinstance(system, str):
        run.refuse_marked(system, "prompt")
        return system, []
    texts, values = getattr(system, "strings", None), getattr(system, "interpolations", None)
    if not isinstance(texts, tuple) or not isinstance(values, tuple):
        raise MisuseError(
            "prompt(...) takes instructions, a literal text or a template string; "
            "what others wrote is data="
        )
    boxes: list[Untrusted[Any]] = []
    shown: list[str] = []
    for text, one in zip(texts, [*values, None], strict=True):
        run.refuse_marked(text, "prompt")
        shown.append(text)
        if one is not None:
            shown.append(_interpolated(run, one, boxes))
    return "".join(shown), boxes


def _interpolated(run: Run, one: Any, boxes: list[Untrusted[Any]]) -> str:
    value = one.value
    if isinstance(value, Untrusted):
        if one.conversion or one.format_spec:
            raise MisuseError(f"{{{one.expression}}} is untrusted: it takes no format")
        boxes.append(value)
        return f"\n{_rendered(run, value)}\n"
    if type(value) in _NUMBERS or (type(value) is str and run.trusts(value)):
        return format(value, one.format_spec or "")
    raise MisuseError(
        f"{{{one.expression}}} is a {type(value).__name__} that nobody trusted has said: "
        "wrap it in Untrusted(...), or name it in run.trust(...) if it is configuration"
    )


def _shown(run: Run, data: Any) -> tuple[list[Untrusted[Any]], list[str]]:
    if data is None:
        return [], []
    named = data if isinstance(data, Mapping) else {"": data}
    if not all(isinstance(one, Untrusted) for one in named.values()):
        raise MisuseError('data= takes Untrusted(text, source="..."), or a dict of such by name')
    for name in named:
        run.refuse_marked(name, "prompt")
    pieces = list(named.values())
    return pieces, [f"{name}:\n{_rendered(run, box)}".lstrip(":\n") for name, box in named.items()]


def _rendered(run: Run, box: Untrusted[Any]) -> str:
    return run.marks.render(content(box), box.label)


def _take_in(run: Run, boxes: list[Untrusted[Any]]) -> None:
    for box in boxes:
        if run.marks.isolation.mode != "handle":
            run.expose(*box.label.names)
        if box.label.private:
            run.hold_private()


def quarantined(
    model: Callable[[str], Any],
    box: Untrusted[Any],
    schema: type[T],
    *,
    task: LiteralString,
) -> Untrusted[T]:
    """Ask *model* about content, apart from the conversation, and keep what fits *schema*.

    The run is not exposed by it: its model sees the answer, by then content of the
    schema's type, and no word of the question. While *model* runs, guarded tools
    are denied. A closed schema, ``Literal`` or a number, is what makes it worth to
    ``endorse`` the answer; one with room for text has room for instructions.

    Args:
        model: takes the prompt's text, returns JSON text or the answer itself. It must
            have no tools of its own.
        box: the content.
        schema: what the answer must be, for pydantic, strictly.
        task: what to find out.

    Returns:
        The answer as untrusted content, under the label of what it was made from.

    Raises:
        Denied: the answer does not fit; the message holds none of it.
        MisuseError: the model raised; its text is withheld.
    """
    run = _active_run("quarantined")
    text = _question(run, box, task)
    with _apart():
        answer = model(text)
    return _answered(run, box, answer, schema)


async def aquarantined(
    model: Callable[[str], Awaitable[Any]],
    box: Untrusted[Any],
    schema: type[T],
    *,
    task: LiteralString,
) -> Untrusted[T]:
    """Do as :func:`quarantined`, with a model that is awaited."""
    run = _active_run("quarantined")
    text = _question(run, box, task)
    with _apart():
        answer = await model(text)
    return _answered(run, box, answer, schema)


def _question(run: Run, box: Untrusted[Any], task: str) -> str:
    if not isinstance(box, Untrusted):
        raise MisuseError("quarantined(model, content, ...) takes Untrusted content")
    run.refuse_marked(task, "quarantined")
    shown = run.marks.render(content(box), box.label, "delimit")
    return f"{task}\n\n{notice(Isolation())}\n\n{shown}\n\nAnswer with JSON alone."


@contextmanager
def _apart() -> Generator[None]:
    """Run a model where no run is active, so that every guarded tool is denied.

    Code that it starts in a thread without this context is out of reach.
    """
    failure = ""
    token = ACTIVE.set(_APART)
    try:
        yield
    except Exception as error:  # noqa: BLE001 (its text may quote content)
        failure = type(error).__name__
    finally:
        ACTIVE.reset(token)
    if failure:
        raise MisuseError(f"the quarantined model raised {failure}; its text is withheld")


def _answered(run: Run, box: Untrusted[Any], answer: Any, schema: type[T]) -> Untrusted[T]:
    label = box.label | _AGENT
    for part in parts(answer):
        label = label | part.label if isinstance(part, Untrusted) else label
    value = _fitting(content(answer) if isinstance(answer, Untrusted) else answer, schema)
    run.record("quarantine", sources=list(label.names), schema=str(schema))
    return labelled(value, label, run.marks)


def _fitting(answer: Any, schema: type[T]) -> T:
    adapter = TypeAdapter(schema)
    try:
        if isinstance(answer, str) and schema is not str:
            return adapter.validate_json(answer, strict=True)
        return adapter.validate_python(answer, strict=True)
    except Exception as error:  # noqa: BLE001 (its text holds content)
        failure = type(error).__name__
    raise Denied(
        f"the model's answer does not fit the schema ({failure})", rule="quarantine.refused"
    )
