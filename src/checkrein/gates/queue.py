"""A gate whose questions outlive the process that asks them.

The question is laid on a :class:`checkrein.gates.desk.Desk`, in an SQLite file or in
PostgreSQL; people answer it from another process (``checkrein inbox``, or a program of
yours). Whoever asks can

* wait in place: a tool that is a coroutine waits without holding its event loop up,
  a plain one holds its thread;
* go away: with ``wait=timedelta(0)``, or after the time given, the call raises
  :class:`~checkrein.errors.ConfirmationPending`. The process may end. The same call, made
  again in this run or in the one that resumes it (``run.suspend()``), gets the answer.

One thread per gate watches the desk for all that wait, by notification where the
database has it (PostgreSQL), by looking at the file fifty times a second where not.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, final
from weakref import WeakKeyDictionary

from checkrein.confirmations import Confirmation, Spent, Verdict
from checkrein.errors import ConfigurationError, ConfirmationPending
from checkrein.gates.desk import Desk
from checkrein.lazy import logger
from checkrein.ports import Clock
from checkrein.store import StoreError, open_store
from checkrein.store.tables import TableStore
from checkrein.waiting import off_loop, running_asyncio

_AT_ONCE: Final = 16
_LOOK: Final = 5.0  # seconds after which the desk is looked at, notified or not


@final
class QueueGate:
    """Asks people who are somewhere else, and may answer later.

    Args:
        where: a store, the path of an SQLite file, or a ``postgresql://`` URL.
        wait: for how long a call waits in place before it raises ``ConfirmationPending``;
            until the question lapses if left out.
        clock: tells the time, for tests.

    Example:
        >>> gate = QueueGate("questions.db", wait=timedelta(0))  # doctest: +SKIP
    """

    def __init__(
        self,
        where: TableStore | str,
        *,
        wait: timedelta | None = None,
        clock: Clock = time.time,
    ) -> None:
        if wait is not None and not (isinstance(wait, timedelta) and wait >= timedelta(0)):
            raise ConfigurationError("QueueGate(wait=...) takes a timedelta, or nothing")
        store = open_store(where) if isinstance(where, str) else where
        self.desk = Desk(store, clock=clock)
        self._wait = None if wait is None else wait.total_seconds()
        self._clock = clock
        self.desk.sweep()
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )
        self.watch = Watch(self.desk)
        """Who waits here, and how often the desk was looked at."""

    def ask(self, confirmation: Confirmation) -> Any:
        """Return the verdict, or an awaitable of it where an event loop runs.

        Raises:
            ConfirmationPending: nobody has answered yet.
        """
        if running_asyncio() is not None:
            return self._later(confirmation)
        answered = threading.Event()
        return self._answer(confirmation, answered.set, answered.wait)

    def finish(self, confirmation: Confirmation) -> None:
        """Take in that the call is over: its answer is not in doubt any more."""
        self.desk.finish(confirmation)

    def _answer(
        self,
        question: Confirmation,
        wake: Callable[[], None],
        wait: Callable[[float], Any],
    ) -> Verdict | Spent | None:
        """Ask and wait, in a thread that may."""
        with self.watch.waiting(question.id, wake):  # from before it can be answered
            if self._put(question):
                wait(self._patience(question))
        return self._outcome(question)

    async def _later(self, question: Confirmation) -> Verdict | Spent | None:
        """Ask and wait as :meth:`_answer` does; what may block is done in threads."""
        loop = asyncio.get_running_loop()
        answered = loop.create_future()

        def told() -> None:
            if not answered.done():
                answered.set_result(None)

        def wake() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(told)

        with self.watch.waiting(question.id, wake):
            async with self._turn():
                still_open = await off_loop(lambda: self._put(question))
            if still_open:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._patience(question)):
                        await answered
        async with self._turn():
            return await off_loop(lambda: self._outcome(question))

    def _turn(self) -> asyncio.Semaphore:
        """Return what lets a few tasks at a time use the store: a thousand would wait for it."""
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = asyncio.Semaphore(_AT_ONCE)
        return turn

    def _put(self, question: Confirmation) -> bool:
        """Lay the question on the desk; say whether it is open, and may be waited for."""
        self.desk.put(question)
        return self.desk.state(question.id) == "open" and self._patience(question) > 0

    def _patience(self, question: Confirmation) -> float:
        left = max(0.0, question.expires - self._clock())
        return left if self._wait is None else min(left, self._wait)

    def _outcome(self, question: Confirmation) -> Verdict | Spent | None:
        """Return what has become of the question; take its answer if there is one."""
        state = self.desk.state(question.id)
        if state == "open":
            raise ConfirmationPending(
                f"{question.tool} waits for somebody to confirm it; make the same call later",
                tool=question.tool,
                call=question.call,
                confirmation=question.id,
            )
        if state in {"", "lapsed"}:
            self.desk.finish(question)
            return None
        case = self.desk.take(question.id) if state == "answered" else None
        if case is None or case.state != "answered":  # somebody else has taken it
            return Spent(question.id)
        return case.verdict

    def close(self) -> None:
        """Stop watching, and close the store."""
        self.watch.stop()
        self.desk.store.close()


class Watch:
    """One thread that watches a desk for all who wait, as long as somebody does.

    Args:
        desk: the desk.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Callable[[], None]]] = {}
        self._process = 0  # a child of a fork has no thread
        self._stopped = False
        self.looks = 0
        """How often the desk was looked at."""
        desk.heard = self._wake

    def __len__(self) -> int:
        """Return how many questions are waited for."""
        return len(self._waiting)

    def waiting(self, id: str, wake: Callable[[], None]) -> Waiting:  # noqa: A002
        """Return a context in which *wake* is called once the question is answered."""
        return Waiting(self, id, wake)

    def stop(self) -> None:
        """End the thread, soon."""
        self._stopped = True

    def add(self, id: str, wake: Callable[[], None]) -> None:  # noqa: A002
        """Begin to wait."""
        with self._lock:
            self._waiting.setdefault(id, []).append(wake)
            if self._process != os.getpid():
                self._process = os.getpid()
                threading.Thread(target=self._run, name="checkrein-queue", daemon=True).start()

    def remove(self, id: str, wake: Callable[[], None]) -> None:  # noqa: A002
        """Wait no more."""
        with self._lock:
            waiting = self._waiting.get(id, [])
            if wake in waiting:
                waiting.remove(wake)
            if not waiting:
                self._waiting.pop(id, None)

    def _wake(self, id: str) -> None:  # noqa: A002
        for wake in tuple(self._waiting.get(id, ())):
            wake()

    def _run(self) -> None:
        told = 0
        while True:
            with self._lock:
                if not self._waiting:
                    self._process = 0
                    return
            if self._stopped or self._desk.store.closed:
                self._give_up()
                return
            try:
                if self._desk.store.await_news(_LOOK) or told >= 1:
                    told = 0
                    self._look()
                told += 1
            except StoreError as error:
                if not self._desk.store.closed:
                    logger().error("the questions cannot be looked at (%s)", error)
                    time.sleep(1)

    def _look(self) -> None:
        self.looks += 1
        for id_ in self._desk.answered():
            self._wake(id_)

    def _give_up(self) -> None:
        with self._lock:
            self._process = 0
            everybody = [wake for waiting in self._waiting.values() for wake in waiting]
        for wake in everybody:
            wake()


class Waiting:
    """Somebody who waits for one answer."""

    def __init__(self, watch: Watch, id: str, wake: Callable[[], None]) -> None:  # noqa: A002
        self._watch, self._id, self._wake = watch, id, wake

    def __enter__(self) -> None:
        self._watch.add(self._id, self._wake)

    def __exit__(self, *_: object) -> None:
        self._watch.remove(self._id, self._wake)
