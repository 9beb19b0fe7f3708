"""For the tests of those who guard their tools.

``permit()`` opens a run in which every guarded tool may be called and every
question is answered with yes, so that a unit test of a tool's body is one line::

    with permit():
        send_email("dana@acme.com", Untrusted("hello"))
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from checkrein.gates import CallbackGate
from checkrein.grants import Grant
from checkrein.permissions import everything
from checkrein.runs import Run

if TYPE_CHECKING:
    from checkrein.ports import Log


@contextmanager
def permit(*, log: Log | None = None, exposed: bool = False) -> Generator[Run]:
    """Open a run that allows everything and says yes to every question. For tests only.

    Args:
        log: where the entries go, if the test wants to read them.
        exposed: whether the run starts as one that has seen untrusted content.

    Example:
        >>> from checkrein import writes
        >>> @writes("shop.stock")
        ... def restock(item: str, count: int) -> int:
        ...     return count
        >>> with permit():
        ...     restock("nails", 100)
        100
    """
    gate = CallbackGate(lambda _: True, by="checkrein.testing.permit")
    with Run(agent="test", grant=Grant(everything()), gate=gate, log=log, exposed=exposed) as run:
        yield run
