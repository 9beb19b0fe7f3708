"""The commands of ``checkrein inbox``. What they do is in ``answers`` and ``watching``.

Annotations here are read by typer when the program runs, so they are not
postponed.
"""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from checkrein.cli import answers
from checkrein.cli.screen import Screen, plainly
from checkrein.errors import ConfigurationError
from checkrein.gates.desk import AnswerRefused
from checkrein.gates.inbox import NoSuchQuestion

_LOOKED = (AnswerRefused, NoSuchQuestion)
_OF_THE_EXTRA = frozenset({"jinja2", "starlette", "uvicorn"})


class _Group(TyperGroup):
    """Takes ``inbox WHERE`` for ``inbox list WHERE``, and ``inbox --web`` for ``inbox web``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        if not named and "--web" in args:
            args = ["web", *(one for one in args if one != "--web")]
        elif not named and args and not args[0].startswith("-"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


inbox_app = typer.Typer(
    help="Answer the questions of agents.",
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode=None,
)


Where = Annotated[
    str,
    typer.Argument(
        metavar="[WHERE]",
        envvar="CHECKREIN_STORE",
        help="The store: a file, or a PostgreSQL URL.",
        show_default=False,
    ),
]
WhereAndId = Annotated[
    list[str],
    typer.Argument(
        metavar="[WHERE] ID",
        help="The store, if it is not in CHECKREIN_STORE; and the question, by its id.",
    ),
]
By = Annotated[str, typer.Option("--by", metavar="NAME", help="Who answers; it is logged.")]
Key = Annotated[
    str, typer.Option("--key", metavar="KEYFILE", help="Sign with the private key in this file.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; for the audit log.")]
Names = list[str]


def _split(words: list[str]) -> tuple[str, str]:
    """Return store and id, of which the store may be left out."""
    if len(words) > 2:
        raise ConfigurationError("a store and an id, and no more")
    return (words[0] if len(words) == 2 else os.environ.get("CHECKREIN_STORE", "")), words[-1]


@inbox_app.command("list")
def list_(
    where: Where = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, in ASCII, a line each.")
    ] = False,
) -> None:
    """List the questions that wait for an answer, the oldest first."""
    with plainly(*_LOOKED), answers.opened(where) as inbox:
        raise typer.Exit(answers.list_open(inbox, as_json=as_json))


@inbox_app.command()
def show(words: WhereAndId) -> None:
    """Show one question, whole."""
    with plainly(*_LOOKED):
        where, id_ = _split(words)
        with answers.opened(where) as inbox:
            raise typer.Exit(answers.show(inbox, id_))


@inbox_app.command()
def approve(
    words: WhereAndId,
    by: By,
    typed: Annotated[
        str | None,
        typer.Option("--typed", metavar="VALUE", help="The value that the question wants typed."),
    ] = None,
    digest: Annotated[
        str,
        typer.Option(
            "--digest",
            metavar="HEX",
            help="The digest that `show` has shown; it is then not shown again.",
        ),
    ] = "",
    key: Key = "",
) -> None:
    """Show a question, and say yes to it by typing `yes`."""
    with plainly(*_LOOKED):
        where, id_ = _split(words)
        with answers.opened(where, {by: key} if key else {}) as inbox:
            raise typer.Exit(answers.approve(inbox, id_, by=by, typed=typed, digest=digest))


@inbox_app.command()
def deny(
    words: WhereAndId,
    by: By,
    reason: Reason = "",
    suspicious: Annotated[
        bool,
        typer.Option("--suspicious", help="It should never have been tried; locks the run."),
    ] = False,
    key: Key = "",
) -> None:
    """Say no."""
    with plainly(*_LOOKED):
        where, id_ = _split(words)
        with answers.opened(where, {by: key} if key else {}) as inbox:
            raise typer.Exit(answers.deny(inbox, id_, by=by, reason=reason, suspicious=suspicious))


@inbox_app.command()
def edit(
    words: WhereAndId,
    by: By,
    settings: Annotated[
        Names, typer.Option("--set", metavar="NAME=JSON", help="Another value of an argument.")
    ] = [],  # noqa: B006
    reason: Reason = "",
    key: Key = "",
) -> None:
    """Say no, and have another call made in its place; all rules decide about it."""
    with plainly(*_LOOKED):
        where, id_ = _split(words)
        with answers.opened(where, {by: key} if key else {}) as inbox:
            raise typer.Exit(answers.edit(inbox, id_, by=by, settings=settings, reason=reason))


@inbox_app.command()
def doubt(where: Where = "") -> None:
    """List the calls that were approved and begun, and that nobody has seen to an end."""
    with plainly(*_LOOKED), answers.opened(where) as inbox:
        raise typer.Exit(answers.list_doubtful(inbox))


@inbox_app.command()
def watch(where: Where = "", by: By = "", key: Key = "") -> None:
    """Watch what is asked, and answer by typing commands."""
    from checkrein.cli import watching  # noqa: PLC0415 (needs a terminal, as nothing else does)

    with plainly(*_LOOKED), answers.opened(where, {by: key} if key else {}) as inbox:
        watching.watch(inbox, by=by)


@inbox_app.command()
def web(
    where: Where = "",
    by: Annotated[
        Names, typer.Option("--by", metavar="NAME", help="Who may answer; a link for each.")
    ] = [],  # noqa: B006
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on; 0 for a free one.")] = 0,
    url: Annotated[
        str, typer.Option(metavar="URL", help="How people reach it, with a proxy in front.")
    ] = "",
    key: Annotated[
        Names,
        typer.Option("--key", metavar="NAME=KEYFILE", help="Sign the answers of somebody."),
    ] = [],  # noqa: B006
) -> None:
    """Serve the questions as a web page."""
    try:
        from checkrein.web.serving import serve  # noqa: PLC0415 (needs one more extra)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OF_THE_EXTRA:
            raise
        sys.stderr.write("checkrein needs its inbox: pip install 'checkrein[inbox]'\n")
        raise typer.Exit(2) from None
    with plainly(*_LOOKED), answers.opened(where, _keys(key)) as inbox:
        serve(inbox, by, host=host, port=port, url=url, say=Screen().say)


def _keys(given: list[str]) -> dict[str, str]:
    keys: dict[str, str] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals:
            raise ConfigurationError("--key takes NAME=KEYFILE here: whose answers it signs")
        keys[name] = path
    return keys
