"""Agent-safety primitives: scoped permissions, untrusted content, confirmation, a signed log.

Facts on tools (:func:`reads`, :func:`writes`, :func:`irreversible`), policy on
runs (:class:`Run`, :class:`Grant`). Constraints are in
:mod:`checkrein.constraints`, errors in :mod:`checkrein.errors`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from checkrein.confirmations import Care, Confirmation, Verdict
from checkrein.directories import Directory, refers
from checkrein.facts import composed, erasable, injected, secret, sensitive
from checkrein.frames import call_id
from checkrein.grants import Grant
from checkrein.guards import definition_of, irreversible, reads, writes
from checkrein.inventories import inventory
from checkrein.labels import Label, Origin, Source
from checkrein.permissions import allow, budget, effects, others, preapproved
from checkrein.plans import planned
from checkrein.runs import Run
from checkrein.untrusted import Untrusted, combine

if TYPE_CHECKING:
    from checkrein.gates import CallbackGate, ConsoleGate
    from checkrein.log import AuditLog
    from checkrein.prompts import aquarantined, prompt, quarantined

__all__ = [
    "AuditLog",
    "CallbackGate",
    "Care",
    "Confirmation",
    "ConsoleGate",
    "Directory",
    "Grant",
    "Label",
    "Origin",
    "Run",
    "Source",
    "Untrusted",
    "Verdict",
    "allow",
    "aquarantined",
    "budget",
    "call_id",
    "combine",
    "composed",
    "definition_of",
    "effects",
    "erasable",
    "injected",
    "inventory",
    "irreversible",
    "others",
    "planned",
    "preapproved",
    "prompt",
    "quarantined",
    "reads",
    "refers",
    "secret",
    "sensitive",
    "writes",
]

_LATER = {
    "AuditLog": "checkrein.log",
    "CallbackGate": "checkrein.gates",
    "ConsoleGate": "checkrein.gates",
    "aquarantined": "checkrein.prompts",
    "prompt": "checkrein.prompts",
    "quarantined": "checkrein.prompts",
}


def __getattr__(name: str) -> Any:
    """Load what is heavy when it is first used."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("checkrein")
    raise AttributeError(f"module 'checkrein' has no attribute {name!r}")
