"""Group commit: many threads, one queue, one commit at a time.

The queue holds entries (bytes), put there by who does not wait, and tickets,
put there by who does. A thread with a ticket that finds nobody at work becomes
the *leader*: it takes the queue as it is, commits it as one batch, wakes the
holders of the tickets in it, and hands the lead to the next who waits. Batches
get larger as commits get slower, without a timer and without another thread.

If a commit raises, nobody can tell what reached the disk: the queue is
*failed* for good, and every waiter and every later caller gets a `LogError`.

`queue.append` is the whole cost of not waiting: it needs no lock, provided that
`refusal` is looked at *after* it. `refusal` is set before the queue is drained for
the last time; so an entry that came too late for that is always noticed.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

from checkrein.errors import CheckreinError, LogError

if TYPE_CHECKING:
    from collections.abc import Callable

    from checkrein.log.ledgers import Committed

MAX_BATCH: Final = 8 << 20
"""Bytes of entries in one commit, but for the last ticket in it."""
_MAX_TICKET: Final = 4 << 20


class Ticket:
    """Entries whose owner waits.

    Attributes:
        first: the index of the first entry, once committed.
        leaves: their hashes in the tree, once committed.
        note: a signed head that covers them, "" until they are committed.
    """

    __slots__ = ("entries", "first", "gate", "leads", "leaves", "note", "size")

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.leaves: list[bytes] = []
        self.size = self.first = 0
        self.note = ""
        self.leads = False
        self.gate = threading.Lock()
        self.gate.acquire()


class GroupCommit:
    """The queue and its leader.

    Args:
        commit: makes a batch of entries durable and returns the index of the first,
            the signed head after the last, and their leaf hashes. Never called twice at a time.
    """

    def __init__(self, commit: Callable[[list[bytes]], Committed]) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: deque[Ticket] = deque()
        self._led = False
        self.queue: deque[bytes | Ticket] = deque()
        self.refusal = self.failure = ""

    def check(self) -> None:
        """Raise what the next caller must know.

        Raises:
            LogError: the queue failed, or takes nothing any more.
        """
        if self.refusal:
            raise LogError(self.refusal)

    def submit(self, entries: list[bytes], *, last: bool = False) -> list[Ticket]:
        """Commit *entries* and all that was queued before, and return their tickets in order.

        Args:
            entries: may be empty, to wait for what was queued before.
            last: take these though the queue refuses entries.

        Raises:
            LogError: they are not committed, or not surely.
        """
        tickets = _split(entries)
        with self._lock:
            if self.failure or not last:
                self.check()
            self.queue.extend(tickets)
            leads = self._line_up(tickets[-1])
        self._wait(tickets[-1], leads=leads)
        return tickets

    def _line_up(self, ticket: Ticket) -> bool:
        """Add *ticket* to the waiting; tell whether it leads at once. The caller has the lock."""
        self._waiting.append(ticket)
        leads, self._led = not self._led, True
        return leads

    def _wait(self, ticket: Ticket, *, leads: bool) -> None:
        while not ticket.note:
            if not leads:
                self._await_gate(ticket)
            leads = False
            if not ticket.note:
                if self.failure:
                    raise LogError(self.failure)
                self._lead()

    def _await_gate(self, ticket: Ticket) -> None:
        try:
            ticket.gate.acquire()
        except BaseException:
            # An interrupted waiter may have been handed the lead; somebody must take it.
            with self._lock:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                if ticket.leads:
                    self._hand_over()
            raise

    def _lead(self) -> None:
        """Commit one batch, wake its waiters, and hand over the lead."""
        try:
            entries, tickets = self._take()
            first, note, leaves = self._commit(entries)
        except BaseException as error:
            self._fail(error)
            if isinstance(error, Exception):
                raise LogError(self.failure) from error
            raise
        with self._lock:
            for ticket in tickets:
                ticket.leaves = leaves[ticket.first : ticket.first + len(ticket.entries)]
                ticket.first += first
                ticket.note = note
                ticket.gate.release()
            self._hand_over()

    def _hand_over(self) -> None:
        while self._waiting and self._waiting[0].note:
            self._waiting.popleft()
        self._led = bool(self._waiting)
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].gate.release()

    def _take(self) -> tuple[list[bytes], list[Ticket]]:
        entries: list[bytes] = []
        tickets: list[Ticket] = []
        room = MAX_BATCH
        while room > 0 and self.queue:
            item = self.queue.popleft()
            if isinstance(item, bytes):
                entries.append(item)
                room -= len(item)
            else:
                item.first = len(entries)
                entries += item.entries
                tickets.append(item)
                room -= item.size
        return entries, tickets

    def _fail(self, error: BaseException) -> None:
        reason = str(error) if isinstance(error, CheckreinError) else type(error).__name__
        with self._lock:
            self.failure = f"the log failed and takes nothing until it is opened anew: {reason}"
            self.refusal = self.failure
            self.queue.clear()
            for ticket in self._waiting:
                if ticket.gate.locked():
                    ticket.gate.release()
            self._waiting.clear()


def _split(entries: list[bytes]) -> list[Ticket]:
    tickets = [Ticket()]
    size = sum(map(len, entries))
    if size <= _MAX_TICKET:  # nearly always
        tickets[0].entries, tickets[0].size = entries, size
        return tickets
    for entry in entries:
        if tickets[-1].size > _MAX_TICKET:
            tickets.append(Ticket())
        tickets[-1].entries.append(entry)
        tickets[-1].size += len(entry)
    return tickets
