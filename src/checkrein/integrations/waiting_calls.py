"""The calls that wait for a person, where a framework has no pause of its own.

What is saved of a call is what makes it once more, and the id of its question. The text of
the question is not: who can write where that is saved could show a person another one. It is
kept in this process, and elsewhere it is what the desk has.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from checkrein.errors import MisuseError, Suspended
from checkrein.integrations import hosts

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from checkrein.runs import Run


class WaitingCalls:
    """Calls in the order in which they were made, as JSON data."""

    def __init__(self) -> None:
        self._calls: list[dict[str, Any]] = []
        self._shown: dict[str, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def put_down(self, run: Run, pending: Suspended, **call: Any) -> None:
        """Keep a call.

        Raises:
            Suspended: *pending* itself, if its question lies on no desk.
        """
        self._shown[pending.confirmation] = hosts.question(run, pending)
        self._calls.append({**call, "confirmation": pending.confirmation})

    def questions(self, run: Run | None) -> list[dict[str, Any]]:
        """Return what is asked, each question once.

        Raises:
            MisuseError: a call was restored, and no run is in force.
        """
        found: dict[str, dict[str, Any]] = {}
        for one in self._calls:
            id_ = one["confirmation"]
            if id_ in self._shown:
                found[id_] = self._shown[id_]
            elif run is None:
                raise MisuseError("questions are shown where the run of the conversation is active")
            else:
                with suppress(Suspended):
                    found[id_] = hosts.question(run, Suspended("", confirmation=id_))
        return list(found.values())

    def keep(self, run: Run) -> None:
        """Forget the calls of other conversations: they were put down here, and not in *run*.

        One that was restored is of this conversation, whether the run knows its question or not.
        """
        gone = {id_ for id_ in self._shown if not run.questions.holds(id_)}
        self._calls = [one for one in self._calls if one["confirmation"] not in gone]
        self._shown = {id_: one for id_, one in self._shown.items() if id_ not in gone}

    @contextmanager
    def taken(self, run: Run) -> Generator[Iterator[dict[str, Any]]]:
        """Give the calls of this conversation, each to be made; those that were not wait on."""
        self.keep(run)
        waiting, self._calls = self._calls, []

        def each() -> Iterator[dict[str, Any]]:
            while waiting:
                yield waiting[0]
                del waiting[0]

        try:
            yield each()
        finally:
            self._calls += waiting

    def saved(self) -> list[dict[str, Any]]:
        """Return them as JSON data."""
        return self._calls

    def restore(self, calls: Iterable[dict[str, Any]]) -> None:
        """Put what was saved in place of what waits here."""
        self._calls = [{**one, "confirmation": str(one["confirmation"])} for one in calls]
        self._shown = {}
