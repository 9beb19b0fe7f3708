"""Standard input, read so that the gateway can end while its client says nothing.

The SDK reads it in a thread, which nothing wakes: a gateway that is told to end would wait
for its client's next line, and its runs and its log would stay open.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Final

import anyio

_AT_ONCE: Final = 1 << 16


def lines_of_stdin() -> Any:
    """Return the lines of standard input, or ``None`` where the SDK has to read them."""
    return None if sys.platform == "win32" else Lines(sys.stdin.fileno())


class Lines:
    """The lines that come in at a file descriptor, of which a wait can be cancelled.

    Args:
        fd: a pipe, a terminal, or a file.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest: list[bytes] = []
        self._ready: list[bytes] = []

    def __aiter__(self) -> Lines:
        """Return the lines."""
        return self

    async def __anext__(self) -> str:
        """Return the next line."""
        while not self._ready:
            try:
                await anyio.wait_readable(self._fd)
            except PermissionError:  # a file: it never has to be waited for
                await anyio.lowlevel.checkpoint()
            found = os.read(self._fd, _AT_ONCE)
            if not found:
                if not any(self._rest):
                    raise StopAsyncIteration
                found = b"\n"
            *whole, rest = found.split(b"\n")
            if whole:
                whole[0] = b"".join([*self._rest, whole[0]])
                self._rest, self._ready = [rest], whole[::-1]
            else:
                self._rest.append(rest)
        return self._ready.pop().decode("utf-8", "replace")
