"""Waiting that does not block an event loop, and does not last for ever."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType

T = TypeVar("T")


def running_asyncio() -> ModuleType | None:
    """Return asyncio if one of its loops runs here; other event loops are left alone."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return None
    return asyncio


async def off_loop(work: Callable[[], T]) -> T:
    """Run *work* in a thread of the running asyncio loop; under other loops, right here."""
    asyncio = running_asyncio()
    if asyncio is None:
        return work()
    result: T = await asyncio.to_thread(work)
    return result


async def within(answer: Awaitable[T], seconds: float) -> T:
    """Await *answer*; under asyncio raise ``TimeoutError`` after *seconds*."""
    asyncio = running_asyncio()
    if asyncio is None:
        return await answer
    async with asyncio.timeout(seconds):  # in this task: wait_for() may make another for it
        return await answer
