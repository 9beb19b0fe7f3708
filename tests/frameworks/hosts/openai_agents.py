"""A scripted model in the OpenAI Agents SDK, without and with the integration."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents import (
    Agent,
    FunctionTool,
    ModelBehaviorError,
    RunConfig,
    Runner,
    RunState,
    UserError,
    function_tool,
)
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call

from checkrein import Run
from checkrein.errors import CheckreinError, Denied
from checkrein.integrations.openai_agents import guarded, questions, resume
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned

CONFIG = RunConfig(tracing_disabled=True)
_LONGEST = 20  # turns


def told_in(items: Any) -> list[Told]:
    """Return the tool results among the items that a model is given, as it reads them."""
    told = []
    items = [] if isinstance(items, str) else items
    names = {one["call_id"]: one["name"] for one in items if one.get("type") == "function_call"}
    for one in items:
        if one.get("type") == "function_call_output":
            text = one["output"] if type(one["output"]) is str else json.dumps(one["output"])
            told.append(Told(names[one["call_id"]], text))
    return told


def scripted(turns: Sequence[Turn], schemas: dict[str, Any]) -> ScriptedModel:
    """Return a model that does what a script says."""

    def respond(call: ModelCall) -> Any:
        for tool in call.tools:
            if isinstance(tool, FunctionTool):
                schemas[tool.name] = {
                    "description": tool.description,
                    "parameters": _without_titles(tool.params_json_schema),
                }
        number = _turns_in(call.input)
        wishes = wishes_of(turns, number, told_in(call.input))
        return [
            function_call(wish.tool, wish.arguments, call_id=f"{number}.{place}")
            for place, wish in enumerate(wishes)
        ] or [assistant_message("done")]

    return ScriptedModel([ModelStep.respond(respond)] * _LONGEST)


def _without_titles(schema: Any) -> Any:
    """Return a schema without the names that Pydantic repeats as titles."""
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_titles(one)
        for name, one in schema.items()
        if name != "title" or not isinstance(one, str)
    }


def _turns_in(items: Any) -> int:
    """Return how often a model has spoken: calls of one turn stand together."""
    items = [] if isinstance(items, str) else items
    calls = {one["call_id"].split(".")[0] for one in items if one.get("type") == "function_call"}
    return len(calls) + sum(one.get("role") == "assistant" for one in items)


def as_tool(one: Any, *, tell: bool = False) -> Any:
    """Return a function as a tool, errors of which end the run unless they are denials to tell."""
    if isinstance(one, FunctionTool):
        return one

    def told(_: Any, error: Exception) -> str:
        if isinstance(error, Denied):
            return str(error)
        raise error

    return function_tool(one, failure_error_function=told if tell else None)


class OpenAIAgents(IntegratedHost):
    """Runs ``Runner`` with a ``ScriptedModel``."""

    framework = "openai_agents"
    distribution = "openai-agents"

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
        context: Any = None,
    ) -> Conversation:
        """Let the scripted model take its turns; an error comes out of the one that wraps it."""
        schemas: dict[str, Any] = {}
        tools = [as_tool(one, tell=tell_denials) for one in offered]
        agent = Agent(name="desk", model=scripted(turns, schemas), tools=tools)
        try:
            return _converse(agent, "go on", schemas, awaited=awaited, context=context)
        except UserError as wrapped:
            if isinstance(wrapped.__cause__, CheckreinError):
                raise wrapped.__cause__ from None
            raise

    def chat(
        self,
        offered: Sequence[Any],
        *turns: Turn,
        run: Run | None = None,
        awaited: bool = False,
        abort: bool = False,
        streamed: bool = False,
        history: bool = False,
    ) -> Conversation:
        """Let the scripted model take its turns, as a guarded agent."""
        turns = ((), *turns) if history else turns
        schemas: dict[str, Any] = {}
        agent = Agent(name="desk", model=scripted(turns, schemas), tools=list(offered))
        before = [{"role": "assistant", "content": "welcome"}] if history else []
        start = [*before, {"role": "user", "content": "go on"}]
        agent = guarded(agent, run, abort=abort)
        return _converse(agent, start, schemas, awaited=awaited, streamed=streamed)

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or resume what is answered, with a ``RunState`` in a file."""
        file = directory / "state.json"
        agent = guarded(Agent(name="desk", model=scripted(turns, {}), tools=list(offered)))

        async def go() -> Turned:
            start: Any = "go on"
            if answers is not None:
                start = await RunState.from_string(agent, file.read_text(encoding="utf-8"))
                await resume(start, *answers.values())
            try:
                result = await Runner.run(agent, start, run_config=CONFIG)
            except ModelBehaviorError:  # the SDK has noticed that its state was changed
                return Turned([], [])
            file.write_text(result.to_state().to_string(), encoding="utf-8")
            told = [(one.tool, one.text) for one in told_in(result.to_input_list())]
            return Turned(told, await questions(result))

        return asyncio.run(go())

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above ``@function_tool``."""
        return [guard(function_tool(function))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a ``FunctionTool``."""
        return function_tool(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return Agent(name="desk", tools=[as_tool(one) for one in offered])


def _converse(
    agent: Any,
    start: Any,
    schemas: dict[str, Any],
    *,
    awaited: bool,
    streamed: bool = False,
    context: Any = None,
) -> Conversation:
    """Run an agent to its end."""

    async def run() -> Any:
        if not streamed:
            return await Runner.run(agent, start, run_config=CONFIG, context=context, max_turns=99)
        result = Runner.run_streamed(agent, start, run_config=CONFIG, context=context, max_turns=99)
        async for _ in result.stream_events():
            pass
        return result

    if awaited or streamed:
        result = asyncio.run(run())
    else:
        with asyncio.Runner() as lent:  # one that run_sync has to make for itself is never closed
            asyncio.set_event_loop(lent.get_loop())
            result = Runner.run_sync(agent, start, run_config=CONFIG, context=context, max_turns=99)
    assert result.final_output == "done"
    items = result.to_input_list()
    history = json.dumps([items, result.to_state().to_json()], ensure_ascii=False)
    return Conversation(told_in(items), schemas, history)


HOST = OpenAIAgents()
