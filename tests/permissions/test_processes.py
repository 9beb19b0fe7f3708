"""Budgets, stops and revocations across processes that share an SQLite file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from checkrein import Grant, Run, allow, budget, reads, writes
from checkrein.delegation import Principal, SignedGrant, issue
from checkrein.errors import CheckreinError, Denied
from checkrein.orders import expired
from checkrein.store import SqliteStore, open_store

typer = pytest.importorskip("typer", reason="needs checkrein[cli]")

WORKER = """
import sys
from checkrein import Grant, Run, allow, budget, reads, writes
from checkrein.errors import Denied
from checkrein.store import SqliteStore

@writes("proc.put")
def put(amount: int) -> int:
    return amount

@reads("proc.look")
def look() -> int:
    return 1

task, path = sys.argv[1:]
grant = Grant(allow("proc.put", budget(times=100, cost="amount")), allow("proc.look"), id="shared")
with SqliteStore.open(path) as store, Run(agent="worker", grant=grant, store=store):
    print("ready", flush=True)
    sys.stdin.readline()
    if task == "spend":
        done = 0
        for _ in range(40):
            try:
                done += put(3)
            except Denied as denied:
                assert denied.rule == "permission.budget", denied.rule
        print(done, flush=True)
    else:
        calls = 0
        try:
            while True:
                look()
                calls += 1
                if calls == 1:
                    print("calling", flush=True)
        except Denied as denied:
            print(denied.rule, flush=True)
"""


def new_store(directory: Path) -> Path:
    path = directory / "store.sqlite"
    with SqliteStore.open(path):
        return path


def worker(task: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, task, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def checkrein(
    *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "checkrein", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )


def test_processes_share_one_budget(tmp_path: Path):
    """Four processes that spend as fast as they can spend 99 of 100, in threes."""
    path = new_store(tmp_path)
    workers = [worker("spend", path) for _ in range(4)]
    for one in workers:
        go(one)
    spent = [int(one.communicate(timeout=60)[0].strip()) for one in workers]
    assert [one.returncode for one in workers] == [0] * 4
    assert sum(spent) == 99


def test_a_stop_reaches_a_running_process_until_it_is_lifted(tmp_path: Path):
    """checkrein stop ends the calls of another process, and --lift is the only way back."""
    path = new_store(tmp_path)
    running = worker("call", path)
    go(running)
    assert running.stdout is not None
    assert running.stdout.readline() == "calling\n"
    stopped = checkrein("stop", "--agent", "worker", "--store", str(path), "--reason", "it spins")
    assert stopped.returncode == 0, stopped.stderr
    assert "stop:agent:worker" in stopped.stdout
    assert "it spins" in stopped.stdout
    assert running.communicate(timeout=60)[0] == "run.stopped\n"

    with SqliteStore.open(path) as store, run("worker", store):
        with pytest.raises(Denied):
            look()
    lifted = checkrein("stop", "--agent", "worker", "--lift", env={"CHECKREIN_STORE": str(path)})
    assert "nothing is stopped" in lifted.stdout
    with SqliteStore.open(path) as store, run("worker", store):
        assert look() == 1


@reads("proc.look")
def look() -> int:
    return 1


@writes("proc.put")
def put(amount: int) -> int:
    return amount


def run(agent: str, store: SqliteStore) -> Run:
    return Run(agent=agent, grant=Grant(allow("proc.look"), allow("proc.put")), store=store)


@pytest.mark.parametrize(
    ("options", "stopped"),
    [
        (["--all"], {"look", "put"}),
        (["--tool", "look"], {"look"}),
        (["--resource", "proc.put"], {"put"}),
        (["--tool", "look", "--tool", "put"], {"look", "put"}),
        (["--agent", "other"], set()),
    ],
    ids=["all", "tool", "resource", "two", "other"],
)
def test_each_option_stops_what_it_names(tmp_path: Path, options: list[str], stopped: set[str]):
    """And nothing beside it."""
    path = new_store(tmp_path)
    assert checkrein("stop", *options, "--store", str(path)).returncode == 0
    with SqliteStore.open(path) as store, run("bot", store):
        for tool, arguments in ((look, ()), (put, (1,))):
            if tool.__name__ in stopped:
                with pytest.raises(Denied, match=r"run\.stopped"):
                    tool(*arguments)
            else:
                assert tool(*arguments) == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--all"],
        ["--all", "--store", "typo.sqlite"],
        ["--all", "--store", "."],
        ["--all", "--store", "postgresql://127.0.0.1:1/none"],
        ["--lift", "--store", "x.sqlite"],
        ["--tool", "x" * 600, "--store", "x.sqlite"],
        ["--resource", "mail.*", "--store", "x.sqlite"],
    ],
    ids=[
        *("no store", "a typo", "a directory", "no server", "lift nothing", "a name too long"),
        "a pattern",
    ],
)
def test_a_stop_that_would_stop_nothing_says_so(tmp_path: Path, options: list[str]):
    """A switch that is not connected must not look as if it were."""
    new_store(tmp_path).rename(tmp_path / "x.sqlite")
    result = subprocess.run(
        [sys.executable, "-m", "checkrein", "stop", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "CHECKREIN_STORE"},
    )
    assert result.returncode == 2
    assert result.stderr.startswith("checkrein: ")


def test_revoking_from_the_command_line_ends_a_grant(tmp_path: Path):
    """By the id that the log names, for it and all that follows from it."""
    path = new_store(tmp_path)
    root, agent = Principal.new(), Principal.new()
    signed = issue(Grant(allow("proc.look")), by=root, to=agent.id)
    held = SignedGrant.read(str(signed), roots=[root.id]).held_by(agent)
    assert checkrein("stop", "--grant", signed.id, "--store", str(path)).returncode == 0
    with SqliteStore.open(path) as store, Run(agent="a", grant=held, store=store):
        with pytest.raises(Denied) as caught:
            look()
        store.post(expired(signed.id))
    assert caught.value.rule == "permission.chain"
    lifted = checkrein("stop", "--grant", signed.id, "--lift", "--store", str(path))
    assert lifted.stdout.strip() == "nothing is stopped, revoked or tainted"


def test_the_environment_names_the_store_of_every_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An operator connects the switch without a change of the program."""
    path = tmp_path / "store.sqlite"
    monkeypatch.setenv("CHECKREIN_STORE", str(path))
    store = open_store(str(path))
    try:
        store.post("stop:all")
    finally:
        store.close()
    with Run(agent="a", grant=Grant(allow("proc.look"))) as active:
        with pytest.raises(Denied):
            look()
        active.store.close()  # type: ignore[attr-defined]
    monkeypatch.setenv("CHECKREIN_STORE", str(tmp_path / "missing" / "store.sqlite"))
    with pytest.raises(CheckreinError):
        Run(agent="a", grant=Grant(allow("proc.look")))


def test_a_budget_outlives_the_process(tmp_path: Path):
    """A use that is spent stays spent when the file is opened again."""
    path = tmp_path / "store.sqlite"
    grant = Grant(allow("proc.put", budget(times=1)), id="once")
    with SqliteStore.open(path) as store, Run(agent="a", grant=grant, store=store):
        assert put(1) == 1
    with SqliteStore.open(path) as store, Run(agent="a", grant=grant, store=store):
        with pytest.raises(Denied, match="budget"):
            put(1)
