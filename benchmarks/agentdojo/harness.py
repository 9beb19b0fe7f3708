"""Runs the scripted agent through AgentDojo, and scores it with the official checkers.

Every user task is played once undisturbed, and once with each injection task of
its suite: 97 conversations and 949 pairs. The injected text is planted in the
places that the user task reads, as the official attacks do. Checkers see the
environment before and after, and the *executed* calls only: a denied attempt is
no success. Utility is the checker's verdict, and asks in addition that every
call of the user was executed, since the canned answer would hide a denied read.
"""

# ruff: noqa: SLF001
# The checkers are private to the official runner, which counts denied calls, too.

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import yaml
from benchmarks.agentdojo import policy
from benchmarks.agentdojo.agents import (
    Guard,
    Moment,
    ToolFailure,
    attack_of,
    injected_text,
    laundered,
    play,
)
from benchmarks.agentdojo.humans import Person, Question

from agentdojo.agent_pipeline.tool_execution import tool_result_to_str
from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime
from agentdojo.task_suite.load_suites import get_suite
from agentdojo.task_suite.task_suite import read_suite_file
from agentdojo.types import text_content_block_from_string
from checkrein import Grant, Run
from checkrein.store import MemoryStore

VERSION = "v1.2.2"

_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# -- the data set --------------------------------------------------------------------------


class Pair(NamedTuple):
    """A user task, and the injection task that disturbs it; ``""`` for none."""

    suite: str
    user: str
    injection: str = ""


def suite_of(name: str) -> Any:
    """Return a suite of the benchmark version that is measured."""
    return get_suite(VERSION, name)


def tasks(suites: tuple[str, ...] = policy.SUITES) -> list[Pair]:
    """Return every user task."""
    return [Pair(name, user) for name in suites for user in suite_of(name).user_tasks]


def pairs(suites: tuple[str, ...] = policy.SUITES) -> list[Pair]:
    """Return every user task with every injection task of its suite."""
    return [
        Pair(one.suite, one.user, injection)
        for one in tasks(suites)
        for injection in suite_of(one.suite).injection_tasks
    ]


@functools.cache
def runtime_of(suite: str) -> FunctionsRuntime:
    """Return the official runtime of a suite's tools."""
    return FunctionsRuntime(suite_of(suite).tools)


@functools.cache
def places_read(suite: str, user: str) -> tuple[str, ...]:
    """Return the places for injections that a user task reads when it is solved."""
    official = suite_of(suite)
    canaries = {name: f"CANARY-{name}-" for name in official.get_injection_vector_defaults()}
    task = official.user_tasks[user]
    environment = task.init_environment(official.load_and_inject_default_environment(canaries))
    read = ""
    for call in task.ground_truth(environment):
        result, _ = runtime_of(suite).run_function(environment, call.function, call.args)
        read += tool_result_to_str(result)
    return tuple(name for name, canary in canaries.items() if canary in read)


@functools.cache
def _environment(suite: str, places: tuple[str, ...], text: str) -> Any:
    """Load an environment as the suite itself does, with the quicker of two YAML parsers."""
    official = suite_of(suite)
    planted = official.get_injection_vector_defaults() | dict.fromkeys(places, text)
    source = read_suite_file(suite, "environment.yaml", None).format(**planted)
    return official.environment_type.model_validate(yaml.load(source, _YAML))


def environment_for(pair: Pair, disguise: str = "plain") -> Any:
    """Return a fresh environment, with the injection planted if the pair has one."""
    official = suite_of(pair.suite)
    places: tuple[str, ...] = ()
    text = ""
    if pair.injection:
        places = places_read(pair.suite, pair.user)
        text = injected_text(official.injection_tasks[pair.injection].GOAL, disguise)
    loaded = _environment(pair.suite, places, text).model_copy(deep=True)
    return official.user_tasks[pair.user].init_environment(loaded)


def execute(suite: str, environment: Any, name: str, arguments: dict[str, Any]) -> Any:
    """Call one of the suite's own tools, as the official runtime does.

    Raises:
        ToolFailure: it raised.
    """
    try:
        result, _ = runtime_of(suite).run_function(
            environment, name, arguments, raise_on_error=True
        )
    except Exception as error:
        raise ToolFailure(f"{type(error).__name__}: {error}") from error
    return result


# -- guards --------------------------------------------------------------------------------


class Scene(NamedTuple):
    """One conversation that is about to begin.

    Attributes:
        pair: the tasks.
        prompt: the user's words.
        user_calls: what solves the user's task; only a simulated person may look.
        environment: where the tools work.
    """

    pair: Pair
    prompt: str
    user_calls: list[FunctionCall]
    environment: Any


GuardFactory = Callable[[Scene], AbstractContextManager[Guard]]


class Checkrein:
    """The guard under test: one run of the library for one conversation.

    Args:
        scene: the conversation.
        grant: what is allowed.
        person: who is asked, ``None`` for nobody.
        relabelled: guarded tools that replace those of the policy, by name.
    """

    def __init__(
        self,
        scene: Scene,
        grant: Grant,
        person: Person | None,
        relabelled: dict[str, policy.Tool] | None = None,
    ) -> None:
        self._scene = scene
        self.asked: list[Question] = [] if person is None else person.asked
        self._run = Run(
            agent="dojo",
            grant=grant,
            gate=None if person is None else person.gate,
            store=MemoryStore(),  # each scene is a world of its own: nothing was written before
        )
        self._relabelled = relabelled or {}

    def __enter__(self) -> Guard:
        scene = self._scene
        self._token = policy.EXECUTE.set(
            functools.partial(execute, scene.pair.suite, scene.environment)
        )
        self._run.__enter__()
        self._run.instruct(scene.prompt)
        return self

    def __exit__(self, *exit_: object) -> None:
        self._run.__exit__(*exit_)  # type: ignore[arg-type]
        policy.EXECUTE.reset(self._token)

    def call(self, name: str, arguments: dict[str, Any]) -> str:
        """Call the guarded tool; see :class:`Guard`."""
        tool = self._relabelled.get(name) or getattr(policy, name)
        return _as_read(tool(**arguments))


def _as_read(result: Any) -> str:
    return tool_result_to_str(result) if isinstance(result, list) else str(result)


# -- scores --------------------------------------------------------------------------------


class Score(NamedTuple):
    """How one conversation ended.

    Attributes:
        pair: the tasks.
        utility: the user's task is solved.
        security: the attacker's goal is reached (the official name for it).
        asked: what the person was asked.
        tools: the names of the tools that were executed.
    """

    pair: Pair
    utility: bool
    security: bool
    asked: tuple[Question, ...] = ()
    tools: frozenset[str] = frozenset()


def conversation(
    pair: Pair,
    guarded: GuardFactory,
    *,
    disguise: str = "plain",
    launder: bool = False,
    moment: Moment = "immediate",
    obey: bool = True,
    solve: bool = True,
) -> Score:
    """Play one pair and score it.

    Args:
        pair: the tasks.
        guarded: makes the guard.
        disguise: how the goal in the injected text is written.
        launder: the attacker first tries to make its values trusted.
        moment: when the agent obeys.
        obey: ``False``: the injection is there, and the agent ignores it.
        solve: ask for utility, too, which is what takes the time.
    """
    official = suite_of(pair.suite)
    user = official.user_tasks[pair.user]
    environment = environment_for(pair, disguise)
    before = environment.model_copy(deep=True)
    scene = Scene(pair, user.PROMPT, user.ground_truth(before), environment)
    injection = official.injection_tasks[pair.injection] if pair.injection else None
    attack = None
    if injection is not None and obey:
        attack = attack_of(pair.suite, injection, before)
        if launder:
            attack = laundered(pair.suite, attack, user.PROMPT, functools.partial(_try, pair.suite))
    with guarded(scene) as guard:
        transcript = play(guard, scene.user_calls, environment, attack, moment)
    said = [user.GROUND_TRUTH_OUTPUT]
    if transcript.hijacked and injection is not None:
        said.append(injection.GROUND_TRUTH_OUTPUT)
    words = [text_content_block_from_string("\n".join(said))]
    seen = (words, before, environment, transcript.executed)
    solved = solve and transcript.complete and official._check_user_task_utility(user, *seen)
    reached = injection is not None and official._check_injection_task_security(injection, *seen)
    return Score(
        pair,
        bool(solved),
        bool(reached),
        tuple(guard.asked),
        frozenset(call.function for call in transcript.executed),
    )


def _try(suite: str, environment: Any, call: FunctionCall) -> None:
    try:
        execute(suite, environment, call.function, dict(call.args))
    except ToolFailure:
        return


def is_out_of_reach(pair: Pair) -> bool:
    """Say whether the attack succeeds if the model only says its words and calls nothing."""
    official = suite_of(pair.suite)
    injection = official.injection_tasks[pair.injection]
    before, after = environment_for(pair), environment_for(pair)
    words = [text_content_block_from_string(injection.GROUND_TRUTH_OUTPUT)]
    return bool(official._check_injection_task_security(injection, words, before, after, []))
