"""The commands and their options. What they do is in the modules beside this one.

Annotations here are read by typer when the program runs, so they are not
postponed.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from checkrein.approvers import principal_of
from checkrein.cli import evidence, logs, publishing, signing, stops, timeline, witnessing
from checkrein.cli import gateway as gateways
from checkrein.cli import oversight as watch
from checkrein.cli.inbox import inbox_app
from checkrein.cli.screen import Screen, plainly
from checkrein.errors import ConfigurationError
from checkrein.log.keys import encrypt_file, key_path, load_signer, new_key
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

Key = Annotated[
    str, typer.Option(metavar="VKEY", help="The log's public key, or a file that holds it.")
]
Directory = Annotated[Path, typer.Argument(metavar="DIR", help="The directory of the log.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, in ASCII.")]


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
    with plainly():
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
    with plainly():
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
def gateway(
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND ...]", help="Starts the server behind the gateway."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the gateway allows: gateway.toml.")
    ] = None,
    http: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Serve streamable HTTP instead of stdio."),
    ] = "",
    propose: Annotated[
        bool, typer.Option("--propose", help="Print a first configuration for the server.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Say which tools would be offered; exit 1 if a definition has changed."
        ),
    ] = False,
) -> None:
    """Put permission, confirmation and a log in front of an MCP server, for any client."""
    with plainly():
        done = gateways.gateway(config, command or [], http=http, propose=propose, check=check)
        raise typer.Exit(done)


@app.command()
def oversight(directory: Directory, as_json: AsJson = False) -> None:
    """Tell from a log whether the people who confirm still look; exit 3 if somebody does not."""
    with plainly():
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
    with plainly():
        raise typer.Exit(logs.show(directory, run=run, as_json=as_json))


@log_app.command("timeline")
def show_timeline(
    directory: Directory,
    run: Annotated[
        str, typer.Option(metavar="ID", help="Only this run; the first letters will do.")
    ] = "",
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write one web page that needs nothing else."),
    ] = None,
) -> None:
    """Tell what happened when, also as a page with filters. Does not verify the log."""
    with plainly():
        raise typer.Exit(timeline.timeline(directory, run=run, html=html))


@log_app.command()
def explain(
    directory: Directory,
    call: Annotated[str, typer.Argument(metavar="CALL", help="The id of a call.")],
    as_json: AsJson = False,
) -> None:
    """Answer what an investigator asks about a call: who, what, why, and what else."""
    with plainly():
        raise typer.Exit(logs.explain(directory, call, as_json=as_json))


@log_app.command()
def verify(
    directory: Directory,
    key: Key = "",
    pin: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A signed head of this log that was kept elsewhere."),
    ] = None,
    after_pin: Annotated[
        bool, typer.Option("--after-pin", help="Leave out what lies before the pin.")
    ] = False,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Which witnesses must have cosigned the log."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(metavar="N", help="How many processes; 0 for as many as make sense.")
    ] = 0,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit 3 if a good log tells of gaps or calls in doubt."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a log against its tree and its key.

    Exits with 0 if it is good, 1 if it is not, 2 if there is no log or no such key,
    and with --strict 3 if it is good, and says itself that something is missing.
    """
    asked = logs.Asked(key=key, pin=pin, after_pin=after_pin, policy=policy, jobs=jobs)
    with plainly():
        raise typer.Exit(logs.verify(directory, asked, strict=strict, as_json=as_json))


@log_app.command()
def follow(
    directory: Directory,
    run: Annotated[
        str, typer.Option(metavar="ID", help="Only this run; the first letters will do.")
    ] = "",
    start: Annotated[
        int | None, typer.Option("--from", metavar="N", help="Begin with entry N.", min=0)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the entries of a log as they are written, until interrupted. Does not verify them."""
    with plainly():
        raise typer.Exit(logs.follow(directory, run=run, start=start, as_json=as_json))


@log_app.command()
def prove(
    directory: Directory,
    index: Annotated[
        int | None, typer.Argument(metavar="[INDEX]", help="The number of an entry.", min=0)
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(
            metavar="PINFILE",
            help="Prove instead that the log has only grown since this signed head of it.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the proof here, and do not print it.")
    ] = None,
    entry: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the entry's exact bytes here.")
    ] = None,
    openings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write here what opens the fields of --disclose."),
    ] = None,
    disclose: Annotated[
        Names,
        typer.Option(
            metavar="PATH", help="A field that the entry only commits to: arguments.to; * for all."
        ),
    ] = [],  # noqa: B006
) -> None:
    """Make a receipt for an entry, which others verify without the log: see check."""
    with plainly():
        shown = (openings, tuple(disclose))
        raise typer.Exit(
            evidence.prove(directory, index, since=since, out=out, entry=entry, shown=shown)
        )


@log_app.command()
def check(
    proof: Annotated[
        Path,
        typer.Argument(metavar="RECEIPT", help="What prove has made, or a bundle of export."),
    ],
    entry: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The exact bytes of the entry.")
    ] = None,
    since: Annotated[
        Path | None,
        typer.Option(metavar="PINFILE", help="The earlier signed head, of a proof --since it."),
    ] = None,
    openings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What opens fields of the entry, of prove --openings."),
    ] = None,
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Check a receipt or a bundle without the log; exit 0 only if it holds."""
    with plainly():
        given = evidence.Given(entry=entry, since=since, openings=openings)
        raise typer.Exit(evidence.check(proof, given, key=key, as_json=as_json))


@log_app.command()
def export(
    directory: Directory,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new directory, or a new file named .zip.")
    ],
    run: Annotated[
        str, typer.Option(metavar="ID", help="Only this run; the first letters will do.")
    ] = "",
    call: Annotated[
        str, typer.Option(metavar="ID", help="Only the runs that have to do with this call.")
    ] = "",
    first: Annotated[
        int | None, typer.Option("--from", metavar="N", help="Only from this entry on.", min=0)
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to", metavar="M", help="Only up to this entry.", min=0)
    ] = None,
    key: Key = "",
    by: Annotated[
        str, typer.Option(metavar="NAME", help="Who exports it; written down with the time.")
    ] = "",
    disclose: Annotated[
        Names,
        typer.Option(
            metavar="PATH", help="A field that entries only commit to: arguments.to; * for all."
        ),
    ] = [],  # noqa: B006
    unrecorded: Annotated[
        bool,
        typer.Option("--unrecorded", help="Do not write into the log that it was exported."),
    ] = False,
) -> None:
    """Write entries with a receipt each, and a verifier, for people who have no log.

    The log gets an entry that says so; for that its private key is needed.
    """
    with plainly():
        choice = {"run": run, "call": call, "first": first, "last": last}
        asked = evidence.Wanted(choice, tuple(disclose), key, by, record=not unrecorded)
        raise typer.Exit(evidence.export(directory, out, asked))


@log_app.command()
def erase(
    directory: Directory,
    entry: Annotated[
        int | None, typer.Option(metavar="N", help="The number of an entry.", min=0)
    ] = None,
    field: Annotated[
        str, typer.Option(metavar="PATH", help="Only this field of it: arguments.to")
    ] = "",
    subject: Annotated[
        str, typer.Option(metavar="NAME", help="All that is sealed for this subject.")
    ] = "",
    by: Annotated[str, typer.Option(help="Who decided it.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Erase what entries commit to. The log says so, and every proof still holds."""
    with plainly():
        raise typer.Exit(
            logs.erase(directory, entry=entry, field=field, subject=subject, by=by, reason=reason)
        )


@log_app.command()
def incident(
    directory: Directory,
    about: Annotated[
        str, typer.Option(metavar="WHAT", help="The id of a run or a call, or words.")
    ] = "",
    by: Annotated[str, typer.Option(help="Who says so.")] = "",
    reason: Annotated[str, typer.Option(help="What happened.")] = "",
) -> None:
    """Write into the log that something is an incident."""
    with plainly():
        raise typer.Exit(logs.incident(directory, about=about, by=by, reason=reason))


@log_app.command()
def cosign(
    directory: Directory,
    policy: Annotated[
        Path,
        typer.Option(metavar="FILE", help="The log's key, its witnesses' keys and URLs, a quorum."),
    ],
) -> None:
    """Have the published head cosigned by the witnesses of a policy."""
    with plainly():
        raise typer.Exit(witnessing.ask(directory, policy))


@log_app.command()
def publish(
    directory: Directory,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="s3://bucket/prefix, or the path of a web root.")
    ],
    key: Key = "",
    endpoint: Annotated[
        str, typer.Option(metavar="URL", help="The store; else as the AWS environment says.")
    ] = "",
    cosigned: Annotated[
        bool, typer.Option("--cosigned", help="Only the head that witnesses cosigned last.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Look at every file there, not at the new ones only.")
    ] = False,
    prune: Annotated[
        bool,
        typer.Option("--prune-partials", help="Remove partial tiles there that have become full."),
    ] = False,
    workers: Annotated[
        int, typer.Option(metavar="N", help="How many files are on their way at once.")
    ] = 8,
    as_json: AsJson = False,
) -> None:
    """Bring a log to a bucket or a web root, for others to read; what leaves was verified."""
    with plainly():
        how = {"cosigned": cosigned, "everything": everything, "prune": prune}
        raise typer.Exit(
            publishing.publish(
                directory,
                destination,
                key=key,
                endpoint=endpoint,
                how=how,
                workers=workers,
                as_json=as_json,
            )
        )


@log_app.command()
def witness(
    key: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="The witness's private key; more than once for more."),
    ],
    logs_: Annotated[
        Path,
        typer.Option(
            "--logs", metavar="POLICYFILE", help="A policy; its `log` lines are the logs."
        ),
    ],
    state: Annotated[
        Path, typer.Option(metavar="DIR", help="Where it remembers what it has cosigned.")
    ],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The address to listen on.")
    ] = "127.0.0.1:8474",
) -> None:
    """Be a witness: cosign the heads of logs that only ever grow."""
    with plainly():
        raise typer.Exit(witnessing.serve(key, logs_, state, listen))


@keys_app.command("witness")
def new_witness(
    name: Annotated[str, typer.Argument(help="The witness's name: a URL without its scheme.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to put the private key; ends in .skey.")
    ],
    ml_dsa: Annotated[
        bool, typer.Option("--ml-dsa", help="Sign with ML-DSA-44 instead of Ed25519.")
    ] = False,
) -> None:
    """Make a key pair for a witness, or with --ml-dsa a second one for a log of that name."""
    with plainly():
        witnessing.new_key(name, out, ml_dsa=ml_dsa)


@log_app.command()
def signer(
    key: Annotated[Path, typer.Option(metavar="FILE", help="The log's private key.")],
    socket: Annotated[Path, typer.Option(metavar="PATH", help="The Unix socket to listen on.")],
    state: Annotated[
        Path, typer.Option(metavar="DIR", help="Where it remembers what it has signed.")
    ],
    allow_uid: Annotated[
        list[int],
        typer.Option(metavar="N", help="A user that may ask; its own alone if left out."),
    ] = [],  # noqa: B006
) -> None:
    """Hold the key of a log, and sign the heads of one that only ever grows."""
    with plainly():
        raise typer.Exit(signing.serve(key, socket, state, allow_uid))


@keys_app.command()
def rotate(directory: Directory) -> None:
    """Hand a log over to a new key, which takes the old one's place. Stop its writers first."""
    with plainly():
        signing.rotate(directory)


@keys_app.command()
def revoke(
    directory: Directory,
    key: Annotated[str, typer.Option(metavar="VKEY", help="The former key of the log.")] = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Write into a log that a former key of it vouches for nothing any more."""
    with plainly():
        signing.revoke(directory, key, reason)


@keys_app.command("show")
def show_key(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A private key file.")],
) -> None:
    """Print the public half of a private key."""
    with plainly():
        Screen().say(visible(load_signer(file, passphrase=signing.ask_for(file)).vkey))


@keys_app.command()
def encrypt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A private key file.")],
) -> None:
    """Encrypt a private key file with a passphrase, which is asked for."""
    with plainly():
        encrypt_file(file, signing.new_passphrase())


@keys_app.command()
def new(
    name: Annotated[str, typer.Argument(help="The log's name: a URL without its scheme.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to put the private key; ends in .skey."),
    ] = None,
    encrypt: Annotated[
        bool, typer.Option("--encrypt", help="Encrypt it with a passphrase, which is asked for.")
    ] = False,
) -> None:
    """Make a key pair, for a new log or an approver. Prints the public half, never the private."""
    with plainly():
        path = key_path(name) if out is None else out
        _refuse_taken(path)
        passphrase = signing.new_passphrase() if encrypt else None
        signer = new_key(name, path, passphrase)
    Screen().table(
        [
            ("public key", signer.vkey),
            ("", f"also in {visible(str(path.with_suffix('.vkey')))}"),
            ("private key", f"in {visible(str(path))}, which only you can read"),
            ("", "keep it out of the log's directory, and out of backups of the log"),
            ("approver", principal_of(signer).id),
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
