"""Gates: how a person is asked.

A gate has one method, ``ask(confirmation)``, which returns a verdict or an
awaitable of one; see :class:`checkrein.ports.Gate`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from checkrein.confirmations import Care, Confirmation, Shown, Verdict
from checkrein.gates.callback import CallbackGate
from checkrein.gates.console import ConsoleGate
from checkrein.gates.several import DenyAll, Quorum

if TYPE_CHECKING:
    from checkrein.gates.canaries import Canaries
    from checkrein.gates.desk import AnswerRefused, Case, Desk
    from checkrein.gates.queue import QueueGate
    from checkrein.gates.webhook import WebhookGate

__all__ = [
    "AnswerRefused",
    "CallbackGate",
    "Canaries",
    "Care",
    "Case",
    "Confirmation",
    "ConsoleGate",
    "DenyAll",
    "Desk",
    "QueueGate",
    "Quorum",
    "Shown",
    "Verdict",
    "WebhookGate",
]

_LATER = {
    "AnswerRefused": "checkrein.gates.desk",
    "Canaries": "checkrein.gates.canaries",
    "Case": "checkrein.gates.desk",
    "Desk": "checkrein.gates.desk",
    "QueueGate": "checkrein.gates.queue",
    "WebhookGate": "checkrein.gates.webhook",
}


def __getattr__(name: str) -> Any:
    """Load what needs a database or a network when it is first used."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module 'checkrein.gates' has no attribute {name!r}")
