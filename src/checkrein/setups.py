"""What a run is opened with, checked: its agent, grant, gate, log, store and pins."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from checkrein.errors import ConfigurationError
from checkrein.grants import Chain, Grant
from checkrein.store import PROCESS_STORE, open_store

if TYPE_CHECKING:
    from checkrein.ports import Store


@functools.cache
def installed_version() -> str:
    """Return the version of this library, ``""`` where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 (takes a while)

    try:
        return version("checkrein")
    except PackageNotFoundError:
        return ""


def checked_links(
    agent: object, grant: object, gate: object, log: object, confirm_within: timedelta
) -> tuple[Grant, ...]:
    """Return the links of the grant.

    Raises:
        ConfigurationError: an argument of the run is not what it should be.
    """
    if not isinstance(agent, str) or not agent.strip():
        raise ConfigurationError("Run(agent=...) takes the agent's name: it is in every entry")
    if isinstance(grant, Grant) and grant.signed:
        raise ConfigurationError(
            "Run(grant=...) takes the whole of a signed grant, not one of its links: "
            "signed.held_by(principal)"
        )
    if not isinstance(grant, Grant | Chain):
        hint = getattr(grant, "HINT", 'Grant(allow("..."))')
        raise ConfigurationError(
            f"Run(grant=...) takes a Grant, not {type(grant).__name__}: {hint}"
        )
    if gate is not None and not callable(getattr(gate, "ask", None)):
        raise ConfigurationError(
            "Run(gate=...) takes a gate, an object with ask(confirmation): "
            "CallbackGate(function) makes one of a function"
        )
    if log is not None and not callable(getattr(log, "append", None)):
        raise ConfigurationError("Run(log=...) takes a log: AuditLog.open('audit/')")
    if confirm_within <= timedelta():
        raise ConfigurationError("Run(confirm_within=...) takes a positive timedelta")
    return (grant,) if isinstance(grant, Grant) else grant.links


@functools.cache
def _opened_store(where: str) -> Store:
    store: Store = open_store(where)
    return store


def default_store() -> Store:
    """Return the store that the environment names, or else that of this process."""
    where = os.environ.get("CHECKREIN_STORE", "")
    return _opened_store(where) if where else PROCESS_STORE


def refuse_namesakes(ours: Sequence[Grant], theirs: Sequence[Grant]) -> None:
    """Budgets, revocation and the log know a grant by its id: in a chain it means one thing."""
    for one in ours:
        for its in theirs:
            if one.id == its.id and one.permissions != its.permissions:
                raise ConfigurationError(
                    f"two grants of one chain are called {one.id!r} and allow different things: "
                    "give one of them another id"
                )


def both_pins(ours: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return pins that a tool meets only if it meets both; no definition is empty."""
    both = {**ours, **theirs}
    return {name: pin if ours.get(name, pin) == pin else b"" for name, pin in both.items()}


def check_approvers(approvers: object) -> None:
    """Refuse what cannot tell whose answers count.

    Raises:
        ConfigurationError: it cannot.
    """
    if approvers is not None and not callable(getattr(approvers, "problem", None)):
        raise ConfigurationError("Run(approvers=...) takes Approvers({name: key, ...})")
