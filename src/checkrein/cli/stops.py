"""``checkrein stop``: the switch that ends calls in other processes, and lifts again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from checkrein.cli.screen import Screen
from checkrein.errors import ConfigurationError
from checkrein.orders import (
    STOP_ALL,
    expired,
    revoked,
    stop_agent,
    stop_resource,
    stop_run,
    stop_tool,
    tainted,
)
from checkrein.permissions import check_resource
from checkrein.store import open_store
from checkrein.visible import visible

if TYPE_CHECKING:
    from collections.abc import Sequence


def notices_for(
    *,
    everything: bool,
    tools: Sequence[str],
    resources: Sequence[str],
    agents: Sequence[str],
    runs: Sequence[str],
    grants: Sequence[str],
    taints: Sequence[str] = (),
    lift: bool = False,
) -> list[str]:
    """Return the notices that the options of the command name.

    Raises:
        ConfigurationError: a resource is a pattern, which would stop nothing.
    """
    for resource in (*resources, *taints):
        check_resource(resource)
    seen = map(expired, grants) if lift else ()  # what was seen expired is lifted with the rest
    return [
        *seen,
        *([STOP_ALL] if everything else []),
        *map(stop_tool, tools),
        *map(stop_resource, resources),
        *map(stop_agent, agents),
        *map(stop_run, runs),
        *map(revoked, grants),
        *map(tainted, taints),
    ]


def stop(where: str, notices: Sequence[str], *, lift: bool, reason: str) -> int:
    """Post or withdraw *notices* in the store at *where*, or list what stands there."""
    if not where:
        raise ConfigurationError(
            "which store? --store FILE or URL, the one that the runs use, or CHECKREIN_STORE"
        )
    if lift and not notices:
        raise ConfigurationError("--lift what? name it as it was stopped: --all, --tool NAME, ...")
    store = open_store(where, create=False)  # what is posted to a new one would reach no run
    try:
        for notice in notices:
            if lift:
                store.withdraw(notice)
            else:
                store.post(notice, reason=reason)
        rows = [
            (visible(one.notice), f"{_moment(one.at)}  {visible(one.reason)}".rstrip())
            for one in store.postings()
        ]
    finally:
        store.close()
    screen = Screen()
    if rows:
        screen.table(rows, max(len(name) for name, _ in rows))
    else:
        screen.say("nothing is stopped, revoked or tainted")
    return 0


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
