"""A question that the client of an MCP server puts to its user.

The server's side of MCP's two ways to ask in the middle of a ``tools/call``:

* 2025-11-25 and before: ``elicitation/create``, a request to the client while the call waits;
* 2026-07-28: an ``input_required`` result. The client asks, and makes the call again with what
  was answered and with the state that it was given. In between the process may end.

Either way the question is the one on the desk (:mod:`checkrein.integrations.hosts`), and the
answer is laid there, bound to it by id and digest. That a person has answered is the
client's word: an agent that is its own client answers itself. Where that must not
be, leave the questions to the desk, or give the run ``approvers=``: an answer
without a signature counts for nothing then.
"""

# pyright: reportMissingImports=false
# (the SDK is not installed where types are checked)
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from checkrein.errors import Suspended
from checkrein.integrations import hosts
from checkrein.waiting import off_loop

try:
    from mcp.shared.exceptions import MCPError
    from mcp.types import (
        ClientCapabilities,
        ElicitationCapability,
        ElicitRequest,
        ElicitRequestFormParams,
        ElicitResult,
        InputRequiredResult,
    )
    from mcp_types.version import MODERN_PROTOCOL_VERSIONS
except ImportError as missing:
    raise ImportError(
        "checkrein.integrations.elicitation needs the MCP SDK: pip install 'checkrein[mcp]'"
    ) from missing

if TYPE_CHECKING:
    from checkrein.runs import Run

__all__ = ["QUESTION", "Client", "form", "settled"]

QUESTION: Final = "checkrein/question"
"""Where the question is, as data, in the ``_meta`` of a result that asks for input."""

_ASKED: Final = "confirmation"
_MOST: Final = 3  # times that one call asks, where the answer does not count


def form(question: Mapping[str, Any]) -> ElicitRequestFormParams:
    """Return the form that shows a :func:`~checkrein.integrations.hosts.question`."""
    properties: dict[str, Any] = {
        "approved": {"type": "boolean", "title": "Let this call run"},
        "by": {"type": "string", "title": "Your name, for the log"},
        "reason": {"type": "string", "title": "Why, for the log"},
        "suspicious": {"type": "boolean", "title": "Somebody is up to something: stop the agent"},
        "typed": {"type": "string", "title": "The value to type, if the question names one"},
    }
    schema = {"type": "object", "properties": properties, "required": ["approved"]}
    return ElicitRequestFormParams(message=_words(question), requested_schema=schema)


def _words(question: Mapping[str, Any]) -> str:
    """Return the question as text. All of its parts are visible text already."""
    arguments = [
        f"  {one['name']} = {one['text']}  (from {one['origin']})"
        + (f"  ! {one['concern']}" if one["concern"] else "")
        for one in question["arguments"]
    ]
    refused = f"Your answer does not count: {question['refused']}" if "refused" in question else ""
    what = f"{question['tool']} ({question['effect']}, {question['resource']})"
    lines = [
        refused,
        f"{question['agent']} wants to call {what}",
        *arguments,
        *question["reasons"],
        question["preview"] or "",
    ]
    return "\n".join(one for one in lines if one)


async def settled(run: Run | None, client: Client | None, make: Callable[[], Any]) -> Any:
    """Make a call; where it waits for a person, ask the client and make it again.

    Args:
        run: the run that is in force.
        client: who made the call, ``None`` where it is not to be asked.
        make: makes the call.

    Raises:
        Suspended: nobody here says anything; the question stays where it is.
    """
    while True:
        try:
            return await make()
        except Suspended as pending:
            if run is None or client is None:
                raise
            wanted = await client.settle(run, pending)
            if wanted is not None:
                return wanted


class Client(NamedTuple):
    """The client of one ``tools/call``, as far as it can be asked.

    Attributes:
        session: the SDK's ``ServerSession`` of the call.
        request: the id of the call.
        state: what the client gave back of an earlier round; not believed.
        responses: what it answered in that round.
        by: who answers, where the form does not say.
    """

    session: Any
    request: Any
    state: str | None
    responses: Mapping[str, Any] | None
    by: str

    async def settle(self, run: Run, pending: Suspended) -> InputRequiredResult | None:
        """Ask about a call that waits; make it again if this returns ``None``.

        Returns:
            what to send to the client instead of a result, or ``None`` if an answer counts.

        Raises:
            Suspended: *pending* itself: the client cannot be asked, or its user does not say.
        """
        shown = await off_loop(partial(hosts.question, run, pending))
        if not self._can_be_asked():
            raise pending
        if self.session.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return await self._take_round(run, pending, shown)
        await self._ask_until_it_counts(run, pending, shown)
        return None

    def _can_be_asked(self) -> bool:
        wanted = ClientCapabilities(elicitation=ElicitationCapability())
        return bool(self.session.check_client_capability(wanted))

    async def _ask_until_it_counts(self, run: Run, pending: Suspended, shown: Any) -> None:
        for _ in range(_MOST):
            asked = form(shown)
            try:
                given = await self.session.elicit_form(
                    asked.message, asked.requested_schema, self.request
                )
            except MCPError:  # the client could not
                raise pending from None
            if not await self._take(run, pending, _named(shown), given):
                return
            shown = await off_loop(partial(hosts.question, run, pending))
        raise pending

    async def _take_round(
        self, run: Run, pending: Suspended, shown: dict[str, Any]
    ) -> InputRequiredResult | None:
        given = (self.responses or {}).get(_ASKED)
        if given is not None:
            if not await self._take(run, pending, _asked_then(self.state), given):
                return None
            shown = await off_loop(partial(hosts.question, run, pending))
        return InputRequiredResult(
            input_requests={_ASKED: ElicitRequest(params=form(shown))},
            request_state=json.dumps(_named(shown)),
            _meta={QUESTION: shown},
        )

    async def _take(self, run: Run, pending: Suspended, asked: Any, given: Any) -> str:
        """Lay an answer on the desk; return why it does not count, ``""`` if it does."""
        if not isinstance(given, ElicitResult) or given.action == "cancel":
            raise pending
        said = dict(given.content or {})
        tree: dict[str, Any] = {"by": self.by, "approved": False, **asked}
        if given.action == "accept":
            known = ("approved", "by", "reason", "suspicious", "typed", "confirmation", "digest")
            tree |= {name: said[name] for name in known if said.get(name) not in (None, "")}
        return await off_loop(partial(hosts.take, run, pending.confirmation, tree))


def _named(question: Mapping[str, Any]) -> dict[str, Any]:
    return {name: question.get(name, "") for name in ("confirmation", "digest")}


def _asked_then(state: str | None) -> dict[str, Any]:
    """Return which question the client was shown, by its own word."""
    try:
        found = json.loads(state or "")
    except ValueError:
        found = None
    return _named(found if isinstance(found, dict) else {})
