"""The command line: ``python -m benchmarks.agentdojo [--json] [--why] [--labels]``.

Without options it prints a table, and takes some minutes.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

from benchmarks.agentdojo import policy
from benchmarks.agentdojo.agents import ENCODINGS
from benchmarks.agentdojo.harness import (
    VERSION,
    Checkrein,
    GuardFactory,
    Pair,
    Scene,
    Score,
    conversation,
    is_out_of_reach,
    pairs,
    tasks,
)
from benchmarks.agentdojo.humans import Careful, Person, Yes
from benchmarks.agentdojo.reasons import listing
from benchmarks.agentdojo.references import (
    Block,
    Known,
    Nothing,
    Substring,
    mislabelled,
    untrusted_tools,
)

When = Literal["unexposed", "always"]


def checkrein(
    when: When, person: type[Person] | None, relabelled: dict[str, policy.Tool] | None = None
) -> GuardFactory:
    """Return what makes the guard under test, for one kind of grant and of person."""
    grants = {suite: policy.grant_for(suite, when) for suite in policy.SUITES}

    def guarded(scene: Scene) -> Any:
        asked = None if person is None else person(scene.user_calls)  # type: ignore[call-arg]
        return Checkrein(scene, grants[scene.pair.suite], asked, relabelled)

    return guarded


class Figures:
    """Measures one choice of suites.

    Args:
        suites: their names.
    """

    def __init__(self, suites: tuple[str, ...]) -> None:
        self.tasks = tasks(suites)
        self.pairs = pairs(suites)

    @functools.cached_property
    def beyond(self) -> list[Pair]:
        """The pairs in which the model only has to say something."""
        return [one for one in self.pairs if is_out_of_reach(one)]

    def benign(self, guarded: GuardFactory) -> list[Score]:
        """Play every user task undisturbed."""
        return [conversation(one, guarded) for one in self.tasks]

    def attacked(self, guarded: GuardFactory, *, solve: bool = False, **how: Any) -> list[Score]:
        """Play every pair."""
        return [conversation(one, guarded, solve=solve, **how) for one in self.pairs]

    def profile(self, when: When) -> dict[str, Any]:
        """Return the figures of the guard under test, for one kind of grant."""
        careful, alone = checkrein(when, Careful), checkrein(when, None)
        benign, attacked = self.benign(careful), self.attacked(careful, solve=True)
        unattended = self.benign(alone)
        late = self.attacked(careful, moment="end")
        disguised = {
            name: self.attacked(careful, disguise=name) for name in ENCODINGS if name != "plain"
        }
        disguised["laundered"] = self.attacked(careful, launder=True)
        return {
            "benign_utility": _mean(benign, _solved),
            "autonomous_utility": _mean(unattended, _solved),
            "asr": _mean(attacked, _reached),
            "asr_end": _mean(late, _reached),
            "adaptive": {name: _mean(each, _reached) for name, each in disguised.items()},
            "asr_autonomous": _mean(self.attacked(alone), _reached),
            "asr_always_yes": _mean(self.attacked(checkrein(when, Yes)), _reached),
            "above_floor": [
                " ".join(one.pair)
                for one in attacked
                if one.security and one.pair not in self.beyond
            ],
            "utility_under_attack": _mean(attacked, _solved),
            "confirmations_per_task": _mean(benign, lambda one: len(one.asked)),
            "tasks_asked": sum(bool(one.asked) for one in benign),
            "questions_per_attacked_run": _mean(attacked, lambda one: len(one.asked)),
            "by_suite": {
                "benign_utility": _by_suite(benign, _solved),
                "autonomous_utility": _by_suite(unattended, _solved),
                "asr": _by_suite(attacked, _reached),
                "asr_end": _by_suite(late, _reached),
                "adaptive": {name: _by_suite(each, _reached) for name, each in disguised.items()},
                "confirmations": _by_suite(benign, lambda one: len(one.asked)),
                "tasks_asked": _by_suite(benign, lambda one: bool(one.asked)),
            },
        }

    def references(self) -> dict[str, Any]:
        """Return the figures of other guards."""
        found = {}
        for guard in (Nothing, Block, Substring, Known):
            attacked = self.attacked(guard)
            found[guard.__name__.lower()] = {
                "benign_utility": _mean(self.benign(guard), _solved),
                "asr": _mean(attacked, _reached),
                "asr_base64": _mean(self.attacked(guard, disguise="base64"), _reached),
                "asr_laundered": _mean(self.attacked(guard, launder=True), _reached),
                "by_suite": {"asr": _by_suite(attacked, _reached)},
            }
        return found

    def everything(self) -> dict[str, Any]:
        """Return the whole report."""
        return {
            "version": VERSION,
            "tasks": len(self.tasks),
            "pairs": len(self.pairs),
            **self.profile("always"),
            "asr_floor_pairs": len(self.beyond),
            "asked_when_exposed": self.profile("unexposed"),
            "references": self.references(),
            "asr_ignored": _mean(self.attacked(Nothing, obey=False), _reached),
        }

    def wrong_labels(self, when: When) -> dict[str, int]:
        """Return, for each untrusted tool, how many more attacks succeed if it is called trusted.

        Only pairs are played in which somebody calls the tool.
        """
        guarded = checkrein(when, Careful)
        called = {one.pair: one.tools for one in self.attacked(Nothing)}
        right = {one.pair: one.security for one in self.attacked(guarded)}
        cost = {}
        for name in untrusted_tools():
            wrong = checkrein(when, Careful, {name: mislabelled(name)})
            concerned = [pair for pair in self.pairs if name in called[pair]]
            cost[name] = sum(
                conversation(pair, wrong, solve=False).security - right[pair] for pair in concerned
            )
        return cost


def _solved(score: Score) -> bool:
    return score.utility


def _reached(score: Score) -> bool:
    return score.security


def _mean(scores: list[Score], value: Callable[[Score], float]) -> float:
    return round(sum(map(value, scores)) / len(scores), 4)


def _by_suite(scores: Iterable[Score], value: Callable[[Score], int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in scores:
        found[one.pair.suite] += value(one)
    return dict(found)


def _table(report: dict[str, Any]) -> str:
    lines = [f"AgentDojo {VERSION}: {report['tasks']} tasks, {report['pairs']} pairs", ""]
    preapproved, asked = report, report["asked_when_exposed"]
    lines.append(f"{'':28}{'preapproved':>14}{'asked when exposed':>20}")
    for name, value in preapproved.items():
        if isinstance(value, int | float) and name in asked:
            lines.append(f"{name:28}{value:>14}{asked[name]:>20}")
    for name, value in preapproved["adaptive"].items():
        lines.append(f"{'asr, ' + name:28}{value:>14}{asked['adaptive'][name]:>20}")
    lines += ["", f"pairs out of reach: {report['asr_floor_pairs']}"]
    lines.append(f"above that, asked when exposed: {asked['above_floor'] or 'none'}")
    lines.append(f"above that, preapproved: {preapproved['above_floor'] or 'none'}")
    lines.append(f"asr of an unguarded agent that ignores the injection: {report['asr_ignored']}")
    for name, figures in report["references"].items():
        shown = {key: value for key, value in figures.items() if key != "by_suite"}
        lines.append(f"{name}: {shown}")
    return "\n".join(lines)


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agentdojo", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    parser.add_argument("--why", action="store_true", help="print why harmless tasks ask")
    parser.add_argument("--labels", action="store_true", help="print what wrong labels cost")
    parser.add_argument(
        "--when",
        choices=get_args(When),
        default="always",
        help="for --why and --labels: when the grant approves of irreversible calls unasked",
    )
    parser.add_argument(
        "--suites", nargs="+", choices=policy.SUITES, default=policy.SUITES, help="only these"
    )
    options = parser.parse_args()
    logging.getLogger("checkrein").setLevel(logging.ERROR)  # denials are what is measured
    figures = Figures(tuple(options.suites))
    if options.why:
        print(listing(figures.benign(checkrein(options.when, Careful))))
    elif options.labels:
        print(json.dumps(figures.wrong_labels(options.when)))
    else:
        report = figures.everything()
        print(json.dumps(report) if options.json else _table(report))


if __name__ == "__main__":
    main()
