"""What a store raises when it cannot do what it is asked."""

from __future__ import annotations

from typing import Final

from checkrein.errors import CheckreinError

WITHIN: Final = "a store was used from within itself, by a finalizer or a signal handler"
"""Why a call is refused that interrupts another one of the same thread."""


class StoreError(CheckreinError):
    """The store could not establish or record something: treat it as a no.

    A ``reserve`` that raises this may have taken its uses all the same, when
    the answer to the commit was lost; it has never allowed anything. The
    message holds no password and no content of the store.
    """
