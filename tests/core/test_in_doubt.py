"""A body that does not know whether it has acted says so, and is not taken for undone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from checkrein import Grant, Run, allow, irreversible
from checkrein.errors import ConfirmationPending, InDoubt
from checkrein.gates.desk import Desk
from checkrein.gates.queue import QueueGate
from checkrein.integrations.hosts import question, take
from support import MemoryLog


@irreversible("doubt.pay")
def pay(to: str) -> None:
    """Pay."""
    raise InDoubt("the bank did not answer")


def test_a_call_that_may_have_happened_stays_in_doubt(tmp_path: Path) -> None:
    """In the log, and at the desk: whoever looks there knows that somebody has to find out."""
    log = MemoryLog()
    gate = QueueGate(str(tmp_path / "questions.db"), wait=timedelta(0))
    with Run(agent="bot", grant=Grant(allow("doubt.pay")), gate=gate, log=log) as run:
        with pytest.raises(ConfirmationPending) as asked:
            pay("dana")
        shown = question(run, asked.value)
        yes = {"confirmation": shown["confirmation"], "digest": shown["digest"]}
        assert take(run, asked.value.confirmation, {**yes, "approved": True, "by": "dana"}) == ""
        with pytest.raises(InDoubt):
            pay("dana")
    desk = Desk(gate.desk.store)
    assert [one.id for one in desk.in_doubt()] == [shown["confirmation"]]
    assert [one["status"] for one in log.of("call.outcome")] == ["suspended", "in doubt"]
    gate.close()
