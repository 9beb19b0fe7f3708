"""What the core needs from outside, as protocols of one or two methods.

Time, randomness, people and disks come through here, so that the rules stay
pure and a test can pass its own. The one context variable lives here too: it
holds the *frame* in which code runs, that is, the active run and, inside the
body of a guarded tool, the call that the body serves.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from checkrein.isolation import Isolation, Mode
    from checkrein.labels import Label

Event = dict[str, Any]
"""One log entry: JSON data with at least ``type``, ``run`` and ``seq``."""

entropy = os.urandom
"""Random bytes that nobody can guess."""


class Clock(Protocol):
    """Returns the time in seconds since the epoch, as ``time.time`` does."""

    def __call__(self) -> float:
        """Return the time."""
        ...


class Ids(Protocol):
    """Returns a new unguessable id: text of lower-case letters and digits."""

    def __call__(self) -> str:
        """Return an id."""
        ...


class Marks(Protocol):
    """The markers of one run: what fences untrusted text, and which label a fence stands for."""

    @property
    def nonce(self) -> str:
        """The random part that content cannot know."""
        ...

    def token(self, label: Label) -> str:
        """Return the marker token for *label*; the same label gets the same token."""
        ...

    def label(self, token: str) -> Label | None:
        """Return the label that *token* stands for, ``None`` if this run never issued it."""
        ...

    @property
    def isolation(self) -> Isolation:
        """How content is shown."""
        ...

    def render(self, value: object, label: Label, mode: Mode | None = None) -> str:
        """Return *value* as text that is safe to show a model."""
        ...


class Gate(Protocol):
    """Asks somebody who may say yes.

    ``ask`` gets a ``Confirmation`` and returns a ``Verdict``, or an awaitable
    of one. Whatever it raises means no. A gate whose every answer is awaited
    may say so with an attribute ``asynchronous = True``; tools that cannot wait
    for it are then reported by ``run.tools()``.
    """

    def ask(self, confirmation: Any, /) -> Any:
        """Return the answer to *confirmation*, or an awaitable of it."""
        ...


class Approvers(Protocol):
    """Says whose answers count."""

    def problem(self, question: Any, verdict: Any, requesters: Sequence[str], /) -> str:
        """Return why an answer does not count, ``""`` if it does."""
        ...


class Log(Protocol):
    """Keeps events. Both methods raise if the entry cannot be kept."""

    def append(self, event: Mapping[str, Any], /) -> object:
        """Return when *event* is durable."""
        ...

    def enqueue(self, event: Mapping[str, Any], /) -> object:
        """Take *event* now, make it durable soon, in the order of the calls."""
        ...


MOST: Final = (1 << 63) - 1
"""The largest limit or amount that a store counts."""


class Use(NamedTuple):
    """What one call takes of one budget.

    Attributes:
        key: the name of the budget.
        limit: how many units there are, in all or within any *window*.
        amount: how many of them the call takes; at least 1.
        window: for how many seconds a use counts; 0.0 for ever.
    """

    key: str
    limit: int
    amount: int = 1
    window: float = 0.0


class Store(Protocol):
    """Small shared state: the uses of budgets, and notices such as "stop" or "revoked".

    Threads share a store, and so do processes and hosts in those stores that
    are made for it. Whatever it raises means that nothing could be established.
    """

    waits: bool
    """Whether a call may wait for a disk or a network, and belongs off an event loop."""

    def reserve(self, uses: Sequence[Use], now: float, /) -> str | None:
        """Take all of *uses*, or none; return a token for them, ``None`` if one does not fit.

        Args:
            uses: at least one, of different keys.
            now: seconds since the epoch. Time never runs backwards for a key: a use
                counts as made at the latest time that the key has seen.
        """
        ...

    def release(self, token: str, uses: Sequence[Use], /) -> None:
        """Give back what :meth:`reserve` has taken under *token*; a second time changes nothing."""
        ...

    def taken(self, use: Use, now: float, /) -> int:
        """Return how many units of the budget of *use* are reserved or spent, as of *now*."""
        ...

    def notices(self) -> frozenset[str]:
        """Return all notices that stand."""
        ...

    def post(self, notice: str, /, *, reason: str = "") -> None:
        """Put up *notice*; it stands until it is withdrawn. Posting it again changes nothing."""
        ...

    def withdraw(self, notice: str, /) -> None:
        """Take *notice* down, if it stands."""
        ...


class Frame(Protocol):
    """Where code runs: the active run and, in a guarded body, the call it serves."""

    @property
    def call_id(self) -> str:
        """The id of the call whose body is running, ``""`` outside a guarded body."""
        ...

    @property
    def marks(self) -> Marks:
        """The markers of the active run."""
        ...

    def revealed(self, label: Label, reason: str) -> None:
        """Record that a value left its wrapper."""
        ...

    def shown(self, label: Label) -> None:
        """Take in that content is shown where the run shows handles."""
        ...

    def endorsed(
        self, label: Label, value: object, *, reason: str, tool: object, parameter: str
    ) -> None:
        """Record that a value was checked and is trusted from here on."""
        ...


ACTIVE: ContextVar[Frame | None] = ContextVar("checkrein_active_frame", default=None)
