"""What is heavy to load and may not be needed: loaded when it is first used.

Importing the library costs every program that mentions it; these three would
make up a third of that.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable


@functools.cache
def logger() -> logging.Logger:
    """Return the standard logger ``checkrein``: calls without a run and all denials go there."""
    import logging  # noqa: PLC0415

    return logging.getLogger("checkrein")


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 of *data*."""
    import hashlib  # noqa: PLC0415

    return hashlib.sha256(data).digest()


def pattern(text: str, flags: int = 0) -> Callable[[], re.Pattern[str]]:
    """Return a function that compiles *text* at its first call."""
    return functools.cache(functools.partial(re.compile, text, flags))
