"""Every check of the project, one session each.

``python3 -m nox -s demo`` and ``python3 -m nox -s tests`` need only Python and
nox; so do ``services``, but for a PostgreSQL server's programs, ``inbox``, but for
Chromium, ``gateway``, but for Node.js and npm, and ``oracles``, but for Debian's Go and its
``x/mod``. ``.ci/run`` calls ``tests``, ``lint``, ``types``, ``layers``, ``frameworks``,
``gateway``, ``services``, ``inbox``, ``oracles``, ``publishing``, ``otel``, ``agentdojo`` and
``demo``.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["tests", "lint", "types", "layers"]

PROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS = PROJECT["project"]["optional-dependencies"]
HOSTS = Path("tests/frameworks/hosts")
SERVERS = (
    "@modelcontextprotocol/sdk@1.32.2",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/server-everything@2026.8.31",
)
FRAMEWORKS = sorted(path.stem for path in HOSTS.glob("*.txt"))


def groups(*names: str) -> list[str]:
    """Return the requirements of dependency groups."""
    return [one for name in names for one in nox.project.dependency_groups(PROJECT, name)]


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite under coverage."""
    session.install("-e", ".[cli,demo]", *groups("tests"))
    session.run("coverage", "erase")
    required = {"CHECKREIN_REQUIRE_WEBHOOK": "1"}
    session.run("coverage", "run", "-m", "pytest", *session.posargs, env=required)
    if not session.posargs:
        session.run("coverage", "report", "--fail-under=90")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types, with two checkers, and that wrong uses are refused by both."""
    session.install("-e", ".[cli,demo,inbox,otel,postgres]", *groups("types", "tests"))
    session.run("mypy", "src", "tests/typing")
    session.run("pyright", "--warnings", env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


@nox.session
def layers(session: nox.Session) -> None:
    """Check that lower rooms never import higher ones."""
    session.install("-e", ".", *groups("layers"))
    session.run("lint-imports")


@nox.session(venv_backend="uv|virtualenv")
@nox.parametrize("framework", FRAMEWORKS)
def frameworks(session: nox.Session, framework: str) -> None:
    """Run guarded tools inside a real agent framework, with a scripted model."""
    install_framework(session, framework)
    named = {"CHECKREIN_REQUIRE_FRAMEWORKS": framework}
    session.run("pytest", *tests_of(framework), *session.posargs, env=named)
    if framework in EXTRAS and not session.posargs:
        session.run("pytest", "tests/examples", "-k", framework, env=named)


@nox.session(venv_backend="uv|virtualenv")
@nox.parametrize("framework", [one for one in FRAMEWORKS if (HOSTS / f"{one}.py").exists()])
def table(session: nox.Session, framework: str) -> None:
    """Test what the table of frameworks says, and write it anew."""
    install_framework(session, framework)
    session.run(
        "pytest",
        *tests_of(framework),
        env={
            "CHECKREIN_REQUIRE_FRAMEWORKS": framework,
            "CHECKREIN_TABLE": "docs/frameworks/results",
        },
    )
    session.run("python", "docs/frameworks/table.py")


@nox.session(venv_backend="uv|virtualenv", reuse_venv=False)
@nox.parametrize("framework", FRAMEWORKS)
def newest(session: nox.Session, framework: str) -> None:
    """Test against the newest releases, in an environment made anew.

    ``.ci/weekly`` runs all of them. The table says what was tested last; this says what has come
    since, and whether it still holds.
    """
    install_framework(session, framework, "--upgrade")
    named = {"CHECKREIN_REQUIRE_FRAMEWORKS": framework}
    session.run("python", "docs/frameworks/releases.py", framework)
    session.run("pytest", *tests_of(framework), *session.posargs, env=named)


def tests_of(framework: str) -> list[str]:
    """Return the test modules of a framework."""
    return sorted(map(str, Path("tests/frameworks").glob(f"test_{framework}*.py")))


def install_framework(session: nox.Session, framework: str, *options: str) -> None:
    """Install us with the extra of the framework's name, and what its tests need besides."""
    ours = f".[{framework}]" if framework in EXTRAS else "."
    requirements = str(HOSTS / f"{framework}.txt")
    session.install(*options, "-e", ours, *groups("tests"), "-r", requirements)


@nox.session
def services(session: nox.Session) -> None:
    """Run the tests that need a server, started by them; a missing one is an error."""
    session.install("-e", ".[postgres]", *groups("tests"))
    session.run("pytest", "tests/stores", *session.posargs, env={"CHECKREIN_REQUIRE_SERVICES": "1"})


@nox.session
def inbox(session: nox.Session) -> None:
    """Run the tests of the web inbox and the timeline, in a browser; a missing one is an error."""
    session.install("-e", ".[inbox]", *groups("tests", "browser"))
    session.run(
        "pytest",
        "tests/web",
        "tests/cli/test_inbox.py",
        *session.posargs,
        env={"CHECKREIN_REQUIRE_BROWSER": "1"},
    )


@nox.session
def oracles(session: nox.Session) -> None:
    """Let verifiers that nobody here wrote judge the log; a missing one is an error."""
    session.install("-e", ".", *groups("tests"))
    # They declare Python 3.12 and run on 3.11. What they need, cryptography, is there already.
    # Go comes twice: Debian's has x/mod, and this one, the newer, has ML-DSA.
    session.install("--no-deps", "--ignore-requires-python", *groups("oracles"))
    session.run(
        "pytest",
        "tests/oracles",
        "tests/log/test_merkle.py",
        *session.posargs,
        env={"CHECKREIN_REQUIRE_ORACLES": "1"},
    )


@nox.session
def publishing(session: nox.Session) -> None:
    """Publish logs to a real S3-compatible server; a missing one is an error."""
    session.install("-e", ".[cli,s3]", *groups("tests", "publishing"))
    session.run(
        "pytest",
        "tests/publishing",
        *session.posargs,
        env={"CHECKREIN_REQUIRE_S3": "1", "CHECKREIN_REQUIRE_ORACLES": "1"},
    )


@nox.session
def gateway(session: nox.Session) -> None:
    """Put the gateway in front of servers from npm; a missing one is an error."""
    session.install("-e", ".[gateway]", *groups("tests"))
    where = Path(session.create_tmp())
    session.run("npm", "install", "--silent", "--prefix", str(where), *SERVERS, external=True)
    named = {
        "CHECKREIN_REQUIRE_FRAMEWORKS": "mcp",
        "CHECKREIN_REQUIRE_GATEWAY": "1",
        "CHECKREIN_MCP_SERVERS": str(where),
    }
    session.run("pytest", "tests/gateway", *session.posargs, env=named)


@nox.session
def otel(session: nox.Session) -> None:
    """Let OpenTelemetry's SDK take the spans; a missing one is an error."""
    session.install("-e", ".[otel]", *groups("tests", "otel"))
    required = {"CHECKREIN_REQUIRE_OTEL": "1"}
    session.run("pytest", "tests/telemetry", *session.posargs, env=required)
    if not session.posargs:
        session.run(
            "pytest", "tests/test_api.py", "tests/examples", "-k", "telemetry", env=required
        )


@nox.session
def agentdojo(session: nox.Session) -> None:
    """Play every attack of AgentDojo, without a model; check the harness itself."""
    session.install("-e", ".", *groups("tests", "agentdojo"))
    session.run(
        "pytest", "tests/agentdojo", *session.posargs, env={"CHECKREIN_REQUIRE_AGENTDOJO": "1"}
    )


@nox.session(python=os.environ.get("CHECKREIN_PYTHON314") or "3.14")
def templates(session: nox.Session) -> None:
    """Run the core's tests on Python 3.14, which has template strings."""
    session.install("-e", ".", *groups("tests"))
    session.run("pytest", "tests/core", "tests/values", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Run the support-desk demo: ``nox -s demo -- --yes``."""
    session.install("-e", ".[demo]")
    session.run("checkrein", "demo", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Print the figures that the README quotes."""
    session.install("-e", ".[postgres]")
    session.run("python", "benchmarks/guard.py", "--json")
    session.run("python", "benchmarks/permissions.py", "--json")
    session.run("python", "benchmarks/origin.py", "--json")
    session.run("python", "benchmarks/gates.py", "--json")
    session.run("python", "benchmarks/log.py", "--json")
    session.run("python", "benchmarks/imports.py", "--json")
