"""A scripted model in LangChain's ``create_agent``, without and with the integration."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import ToolErrorMiddleware
from langchain.tools import tool
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, messages_to_dict
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command
from pydantic_core import to_json

from checkrein import Run
from checkrein.errors import Denied
from checkrein.integrations.langchain import Guard
from frameworks.contract import Conversation, Told, Turn, wishes_of
from frameworks.integration import IntegratedHost, Turned


def told_in(messages: Sequence[BaseMessage]) -> list[Told]:
    """Return the tool results in *messages*, as the model reads them."""
    told = []
    for message in messages:
        if isinstance(message, ToolMessage):
            assert type(message.content) is str
            told.append(Told(message.name or "", message.content))
    return told


class Scripted(BaseChatModel):
    """A chat model that does what a script says."""

    turns: Any
    schemas: dict[str, Any] = {}

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **more: Any) -> Scripted:
        """Keep the schemas that a provider would be sent."""
        for one in tools:
            function = convert_to_openai_tool(one)["function"]
            self.schemas[function.pop("name")] = function
        return self

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **more: Any
    ) -> ChatResult:
        number = sum(isinstance(message, AIMessage) for message in messages)
        wishes = wishes_of(self.turns, number, told_in(messages))
        calls = [
            {"name": wish.tool, "args": wish.arguments, "id": f"{number}.{place}"}
            for place, wish in enumerate(wishes)
        ]
        message = AIMessage("" if calls else "done", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(self, messages: list[BaseMessage], *rest: Any, **more: Any) -> ChatResult:
        return self._generate(messages)


def _tell(error: Exception, _: Any) -> str | None:
    return str(error) if isinstance(error, Denied) else None


class LangChain(IntegratedHost):
    """Runs ``create_agent`` with a scripted chat model."""

    framework = "langchain"
    distribution = "langchain"

    def converse(
        self,
        offered: Sequence[Callable[..., Any]],
        *turns: Turn,
        awaited: bool = False,
        tell_denials: bool = False,
        config: Any = None,
    ) -> Conversation:
        """Let the scripted model take its turns."""
        model = Scripted(turns=turns, schemas={})
        agent = create_agent(
            model,
            tools=list(offered),
            middleware=[ToolErrorMiddleware(_tell)] if tell_denials else [],
        )
        start = {"messages": [("user", "go on")]}
        if awaited:
            state = asyncio.run(agent.ainvoke(start, config))
        else:
            state = agent.invoke(start, config)
        messages = state["messages"]
        assert messages[-1].content == "done"
        history = to_json(messages_to_dict(messages)).decode()
        return Conversation(told_in(messages), model.schemas, history)

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
        """Let the scripted model take its turns, under the middleware."""
        turns = ((), *turns) if history else turns
        model = Scripted(turns=turns, schemas={})
        agent = create_agent(model, tools=list(offered), middleware=[Guard(run, abort=abort)])
        before = [("ai", "welcome")] if history else []
        messages = _messages(agent, {"messages": [*before, ("user", "go on")]}, awaited, streamed)
        assert messages[-1].content == "done"
        history_text = to_json(messages_to_dict(messages)).decode()
        return Conversation(told_in(messages), model.schemas, history_text)

    def turn(
        self,
        directory: Path,
        offered: Sequence[Any],
        *turns: Turn,
        answers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Turned:
        """Begin, or resume the interrupts that are answered, with a checkpointer in a file."""
        with closing(sqlite3.connect(directory / "graph.db", check_same_thread=False)) as file:
            agent = create_agent(
                Scripted(turns=turns, schemas={}),
                tools=list(offered),
                middleware=[Guard()],
                checkpointer=SqliteSaver(file),
            )
            config: Any = {"configurable": {"thread_id": "phases"}}
            start: Any = {"messages": [("user", "go on")]}
            if answers is not None:
                waiting = agent.get_state(config).interrupts
                start = Command(resume=_resume(waiting, answers))
            agent.invoke(start, config)
            state = agent.get_state(config)
            told = [(one.tool, one.text) for one in told_in(state.values["messages"])]
            return Turned(told, [one.value for one in state.interrupts])

    def misordered(self, function: Callable[..., Any], guard: Callable[..., Any]) -> Any:
        """Put the guard above ``@tool``."""
        return [guard(tool(function))]

    def foreign(self, function: Callable[..., str]) -> Any:
        """Make a ``StructuredTool``."""
        return tool(function)

    def registered(self, offered: Sequence[Any]) -> Any:
        """Return an agent with these tools."""
        return create_agent(Scripted(turns=(), schemas={}), tools=list(offered))


def _resume(waiting: Sequence[Any], answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return answers by the id of the interrupt that asks."""
    return {
        one.id: answers[one.value["confirmation"]]
        for one in waiting
        if one.value["confirmation"] in answers
    }


def _messages(agent: Any, start: Any, awaited: bool, streamed: bool) -> list[BaseMessage]:
    """Run an agent to its end; return all messages."""

    async def run() -> Any:
        if not streamed:
            return await agent.ainvoke(start)
        return [state async for state in agent.astream(start, stream_mode="values")][-1]

    if awaited:
        return asyncio.run(run())["messages"]
    if not streamed:
        return agent.invoke(start)["messages"]
    return list(agent.stream(start, stream_mode="values"))[-1]["messages"]


HOST = LangChain()
