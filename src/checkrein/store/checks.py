"""What goes into a store is checked here, before anything is done.

* A key or notice is text of 1 to 512 characters that UTF-8 can encode, without NUL.
* A reason is such text of 0 to 4096 characters.
* A limit or an amount is an ``int`` from 0 to 2**63 - 1. An amount of 0 takes nothing.
* A window is a finite number of seconds, at least 0; ``now`` is a finite number.
* The uses of one call are at least one, and of different keys.

What is wrong is a `ConfigurationError`, which is a ``ValueError``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from checkrein.errors import ConfigurationError
from checkrein.ports import MOST, Use

KEY_LENGTH: Final = 512
REASON_LENGTH: Final = 4096


class Posting(NamedTuple):
    """A notice that stands.

    Attributes:
        notice: what it says, ``stop:all`` for example.
        reason: why it was posted, for people to read.
        at: when, in seconds since the epoch.
    """

    notice: str
    reason: str
    at: float


def check_uses(uses: Sequence[Use], now: float) -> None:
    """Refuse what no store can count."""
    if now.__class__ is not float or now - now != 0.0:  # quicker than a call; not so if not finite
        check_number(now, "the time")
    if not uses:
        raise ConfigurationError("a reservation takes at least one use")
    for use in uses:
        check_use(use)
    if len(uses) > 1 and len({use.key for use in uses}) < len(uses):
        raise ConfigurationError("the uses of one reservation are of different keys")


def check_use(use: Use) -> None:
    """Refuse a use that no store can count."""
    key, limit, amount, window = use
    if key.__class__ is not str or not (
        key.isascii() and 0 < len(key) <= KEY_LENGTH and "\0" not in key
    ):
        check_text(key, "a key")
    if (
        amount.__class__ is not int
        or limit.__class__ is not int
        or not 0 <= amount <= MOST >= limit >= 0
    ):
        raise ConfigurationError("limits and amounts are whole numbers from 0 to 2**63 - 1")
    if window != 0.0:
        check_number(window, "a window")
        if window < 0:
            raise ConfigurationError("a window is not negative")


def check_number(number: float, what: str) -> None:
    """Refuse what is no finite number."""
    try:
        finite = type(number) in {float, int} and math.isfinite(number)
    except OverflowError:
        finite = False
    if not finite:
        raise ConfigurationError(f"{what} is a finite number of seconds")


def check_text(text: str, what: str, shortest: int = 1, longest: int = KEY_LENGTH) -> None:
    """Refuse what cannot be stored as a text, everywhere and unchanged."""
    if type(text) is not str:
        raise ConfigurationError(f"{what} is a text")
    if not shortest <= len(text) <= longest:
        raise ConfigurationError(f"{what} has {shortest} to {longest} characters")
    if "\0" in text or not _is_encodable(text):
        raise ConfigurationError(f"{what} has no NUL and no lone surrogate")


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def moment(now: float, latest: float | None) -> float:
    """Return *now*, or the *latest* time that a key has seen if that is later."""
    return float(now) if latest is None or latest < now else latest


def horizon(now: float, window: float) -> float:
    """Return the time such that uses made after it count; one made *now* always does."""
    return min(now - window, math.nextafter(now, -math.inf))
