"""Gates: how a person is asked.

A gate has one method, ``ask(confirmation)``, which returns a verdict or an
awaitable of one; see :class:`checkrein.ports.Gate`.
"""

from checkrein.confirmations import Confirmation, Shown, Verdict
from checkrein.gates.callback import CallbackGate
from checkrein.gates.console import ConsoleGate
from checkrein.gates.several import DenyAll, Quorum

__all__ = [
    "CallbackGate",
    "Confirmation",
    "ConsoleGate",
    "DenyAll",
    "Quorum",
    "Shown",
    "Verdict",
]
