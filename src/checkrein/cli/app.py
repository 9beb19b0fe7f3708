"""The commands and their options. What they do is in the modules beside this one.

Annotations here are read by typer when the program runs, so they are not
postponed.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from checkrein.approvers import principal_from
from checkrein.cli import logs, stops
from checkrein.cli import oversight as watch
from checkrein.cli.inbox import inbox_app
from checkrein.cli.screen import Screen
from checkrein.errors import CheckreinError, ConfigurationError, TamperedError
from checkrein.log.keys import key_path, new_key
from checkrein.visible import visible

app = typer.Typer(
    help="Checkrein: agent-safety primitives.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
log_app = typer.Typer(
    help="Read and verify an audit log.", no_args_is_help=True, rich_markup_mode=None
)
keys_app = typer.Typer(help="Make keys for logs.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(inbox_app, name="inbox")
app.add_typer(log_app, name="log")
app.add_typer(keys_app, name="keys")

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The directory of the log.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, in ASCII.")]


@contextmanager
def _plainly() -> Generator[None]:
    """Turn an error of the library into one line and an exit code."""
    try:
        yield
    except CheckreinError as error:
        Screen(stderr=True).say(f"checkrein: {visible(str(error))}")
        raise typer.Exit(1 if isinstance(error, TamperedError) else 2) from None


@app.command()
def demo(
    yes: Annotated[
        bool | None,
        typer.Option("--yes/--no", help="Answer the one honest question; else you are asked."),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep mailbox, report, received mail and log here."),
    ] = None,
) -> None:
    """Watch an agent obey a hostile mail, and what stops it. Needs no network."""
    try:
        from checkrein.cli import demo as story  # noqa: PLC0415 (needs one more extra)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "aiosmtpd":
            raise
        sys.stderr.write("checkrein needs its demo: pip install 'checkrein[demo]'\n")
        raise typer.Exit(2) from None
    answer: story.Answer = "ask" if yes is None else "yes" if yes else "no"
    with _plainly():
        held = story.run(answer, keep=keep)
    raise typer.Exit(0 if held else 1)


Names = list[str]


@app.command()
def stop(
    everything: Annotated[bool, typer.Option("--all", help="Every guarded call.")] = False,
    tool: Annotated[Names, typer.Option(metavar="NAME", help="The calls of a tool.")] = [],  # noqa: B006
    resource: Annotated[
        Names, typer.Option(metavar="NAME", help="The calls that claim a resource.")
    ] = [],  # noqa: B006
    agent: Annotated[Names, typer.Option(metavar="NAME", help="The runs of an agent.")] = [],  # noqa: B006
    run: Annotated[Names, typer.Option(metavar="ID", help="A run, and those inside it.")] = [],  # noqa: B006
    grant: Annotated[
        Names, typer.Option(metavar="ID", help="A signed grant, and what was delegated from it.")
    ] = [],  # noqa: B006
    taint: Annotated[
        Names,
        typer.Option(metavar="NAME", help="What is read back from a resource is no evidence."),
    ] = [],  # noqa: B006
    store: Annotated[
        str,
        typer.Option(
            metavar="WHERE",
            envvar="CHECKREIN_STORE",
            help="The store of the runs: a file, or a PostgreSQL URL.",
        ),
    ] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Lift what was stopped.")] = False,
    reason: Annotated[str, typer.Option(help="Why; for those who look later.")] = "",
) -> None:
    """Stop calls in every process that uses the store, within a second; or list what stands."""
    with _plainly():
        notices = stops.notices_for(
            everything=everything,
            tools=tool,
            resources=resource,
            agents=agent,
            runs=run,
            grants=grant,
            taints=taint,
            lift=lift,
        )
        raise typer.Exit(stops.stop(store, notices, lift=lift, reason=reason))


@app.command()
def oversight(directory: Directory, as_json: AsJson = False) -> None:
    """Tell from a log whether the people who confirm still look; exit 3 if somebody does not."""
    with _plainly():
        raise typer.Exit(watch.oversight(directory, as_json=as_json))


@log_app.command()
def show(
    directory: Directory,
    run: Annotated[
        str, typer.Option(metavar="ID", help="Only this run; the first letters will do.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Print the entries of a log. Does not verify them."""
    with _plainly():
        raise typer.Exit(logs.show(directory, run=run, as_json=as_json))


@log_app.command()
def explain(
    directory: Directory,
    call: Annotated[str, typer.Argument(metavar="CALL", help="The id of a call.")],
    as_json: AsJson = False,
) -> None:
    """Answer what an investigator asks about a call: who, what, why, and what else."""
    with _plainly():
        raise typer.Exit(logs.explain(directory, call, as_json=as_json))


@log_app.command()
def verify(
    directory: Directory,
    key: Annotated[
        str, typer.Option(metavar="VKEY", help="The log's public key, or a file that holds it.")
    ] = "",
    pin: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A signed head of this log that was kept elsewhere."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a log against its tree and its key; exit 0 only if it is good."""
    with _plainly():
        raise typer.Exit(logs.verify(directory, key=key, pin=pin, as_json=as_json))


@keys_app.command()
def new(
    name: Annotated[str, typer.Argument(help="The log's name: a URL without its scheme.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to put the private key; ends in .skey."),
    ] = None,
) -> None:
    """Make a key pair, for a new log or an approver. Prints the public half, never the private."""
    with _plainly():
        path = key_path(name) if out is None else out
        _refuse_taken(path)
        signer = new_key(name, path)
    Screen().table(
        [
            ("public key", signer.vkey),
            ("", f"also in {visible(str(path.with_suffix('.vkey')))}"),
            ("private key", f"in {visible(str(path))}, which only you can read"),
            ("", "keep it out of the log's directory, and out of backups of the log"),
            ("approver", principal_from(path).id),
            ("", "to be named in Approvers(...), where it signs a person's answers and no log"),
        ]
    )


def _refuse_taken(path: Path) -> None:
    """Refuse a place in which one of the two files would replace something."""
    public = path.with_suffix(".vkey")
    if public == path:
        raise ConfigurationError("--out names the private key file; .vkey is for the public one")
    for taken in (path, public):
        if taken.exists() or taken.is_symlink():
            raise ConfigurationError(f"{taken} is there already, and a key is never overwritten")
