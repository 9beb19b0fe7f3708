"""Runs that go on from turn to turn, and from process to process, beside a framework's own state.

A framework keeps the messages of a conversation under an id: a thread, a session. This
keeps the run of the same conversation under the same id, sealed
(:mod:`checkrein.suspension`), in files of one directory::

    <SHA-256 of the id, 32 letters>.run    the sealed state, of the last turn that has ended
    <the same>.turn                        locked while a turn is under way; then holds "1"
    store.db                               questions and budgets, unless another store is given

One turn of a conversation runs at a time, on one machine. When a turn ends, whether by an
exception or not, the run is suspended and its state is written. A process that dies in
a turn leaves the "1" behind: the framework may have saved what the run saw, and the state does
not know it. So the next turn is exposed, and holds private data.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from checkrein.errors import ConfigurationError
from checkrein.gates.queue import QueueGate
from checkrein.runs import Run
from checkrein.sealing import check_key
from checkrein.store import open_store

if TYPE_CHECKING:
    from checkrein.grants import Chain, Grant
    from checkrein.store.tables import TableStore

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_UNDER_WAY: Final = b"1"


@final
class Conversations:
    """Keeps the runs of conversations.

    Args:
        directory: where they are kept; created if missing.
        key: at least 32 random bytes, which neither the model nor its tools can read.
        store: holds questions and budgets; an SQLite file in *directory* if left out.

    Attributes:
        gate: asks by putting the call off; a framework's own pause takes it from there.
        store: the store.

    Example:
        >>> talks = Conversations("talks/", key)  # doctest: +SKIP
        >>> with talks.run("thread-7", agent="clerk", grant=grant) as run:  # doctest: +SKIP
        ...     agent.invoke(...)
    """

    def __init__(
        self, directory: str | os.PathLike[str], key: bytes, *, store: TableStore | None = None
    ) -> None:
        check_key(key)
        self._directory = Path(directory)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._key = key
        self.store = open_store(str(self._directory / "store.db")) if store is None else store
        self.gate = QueueGate(self.store, wait=timedelta(0))

    @contextmanager
    def run(self, id: str, *, agent: str, grant: Grant | Chain, **more: Any) -> Generator[Run]:  # noqa: A002
        """Activate the run of a conversation for one turn: a new one, or where it was left.

        Args:
            id: the conversation, as the framework calls it.
            agent: the name of the agent, of a new run.
            grant: what is allowed; the same in each turn.
            more: the other arguments of :class:`~checkrein.runs.Run`; ``exposed`` and
                ``isolation`` count for a new run.

        Raises:
            ConfigurationError: a turn of it is under way, or the grant is another one.
            TamperedError: its state was changed, or is of another key or conversation.
        """
        with self._turn(id) as turn:
            broken = _peek(turn)
            run = self._take_up(id, agent, grant, {"gate": self.gate, "store": self.store} | more)
            _mark(turn, _UNDER_WAY)
            with run:
                if broken:
                    run.expose("a turn that did not end")
                    run.hold_private(unasked=True)
                try:
                    yield run
                finally:
                    if not run.closed:
                        self._write(id, run.suspend(self._key, context=id))
                        _mark(turn, b"")

    def forget(self, id: str) -> None:  # noqa: A002 (by its natural name)
        """Forget the run of a conversation. What comes later under its id is a new run."""
        with self._turn(id) as turn:
            self._path(id, ".run").unlink(missing_ok=True)
            _mark(turn, b"")

    def close(self) -> None:
        """Close the store."""
        self.gate.close()

    def _take_up(self, id: str, agent: str, grant: Grant | Chain, more: dict[str, Any]) -> Run:  # noqa: A002
        try:
            state = self._path(id, ".run").read_text(encoding="ascii")
        except FileNotFoundError:
            return Run(agent=agent, grant=grant, **more)
        except UnicodeDecodeError:
            state = ""  # refused below
        kept = {name: one for name, one in more.items() if name not in {"exposed", "isolation"}}
        return Run.resume(state, self._key, grant=grant, context=id, **kept)

    def _write(self, id: str, state: str) -> None:  # noqa: A002
        """Replace the state, or leave it as it was."""
        path = self._path(id, ".run")
        new = path.with_suffix(".new")  # the turn is locked: nobody else writes it
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(state)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        with suppress(OSError):  # not every system can
            directory = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)

    def _path(self, id: str, ending: str) -> Path:  # noqa: A002
        if not isinstance(id, str) or not id:
            raise ConfigurationError("a conversation has an id: a text that is not empty")
        name = hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._directory / f"{name}{ending}"

    @contextmanager
    def _turn(self, id: str) -> Generator[int]:  # noqa: A002
        fd = os.open(self._path(id, ".turn"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                _lock(fd)
            except OSError:
                raise ConfigurationError(
                    "a turn of this conversation is under way: one runs at a time"
                ) from None
            try:
                yield fd
            finally:
                _unlock(fd)
        finally:
            os.close(fd)


def _peek(fd: int) -> bool:
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, 1) == _UNDER_WAY


def _mark(fd: int, what: bytes) -> None:
    os.lseek(fd, 0, os.SEEK_SET)
    os.truncate(fd, 0)
    os.write(fd, what)
    os.fsync(fd)


def _lock(fd: int) -> None:
    if sys.platform == "win32":
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(fd: int) -> None:
    if sys.platform == "win32":
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    else:
        fcntl.flock(fd, fcntl.LOCK_UN)
