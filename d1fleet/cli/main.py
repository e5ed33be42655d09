"""The command line: `d1fleet build` and what stands around it."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..errors import D1fleetError, UsageError
from ..inherited import default_child_signal, fill_closed_streams, forget_coerced_locale
from ..makeargs import is_long_option
from ..words import say
from .simulate import simulate

_INTERRUPTED = 130


def split_own(command: click.Command, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part arguments into ours and make's: ours are long, and end before the first word that is none."""
    flags = {"--help": True}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for name in [*parameter.opts, *parameter.secondary_opts]:
                flags[name] = parameter.is_flag
    at = 0
    while at < len(arguments):
        word = arguments[at]
        name = word.split("=", 1)[0]
        if name not in flags:
            break
        at += 1 if "=" in word or flags[name] else 2
    rest = list(arguments[at:])
    if rest[:1] == ["--"]:
        rest = rest[1:]
    return list(arguments[:at]), rest


def _refuse_options(command: click.Command, behind: Sequence[str]) -> None:
    """Options of ours that stand among make's, or are misspelt: make would print its usage, and nobody would
    see why.
    """
    names = {name for parameter in command.params for name in parameter.opts}
    for word in behind:
        if word == "--":
            return
        if word.startswith("--") and word.split("=", 1)[0] in names:
            raise UsageError(
                f"{word} stands behind make's first argument",
                "options of d1fleet come first, make's after them",
            )
        name = word.split("=", 1)[0]
        if not word.startswith("--") or is_long_option(os.fsencode(name[2:])):
            continue
        near = difflib.get_close_matches(name, names, 1, 0.7)
        if near:
            raise UsageError(f"neither d1fleet nor make has an option {name}", f"did you mean {near[0]}?")


class _BuildCommand(click.Command):
    """Takes its own options from the front, and leaves the rest as it is."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, rest = split_own(self, args)
        _refuse_options(self, args[len(own) :])
        ctx.obj = rest
        return super().parse_args(ctx, own)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[MAKE ARGUMENTS]..."]


class _Group(click.Group):
    """Knows what is meant where `build` was forgotten."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)  # click takes them away
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise  # one of the group's own, misspelt
            raise UsageError(
                f"d1fleet itself has no option {error.option_name}", _for_build(given)
            ) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            near = difflib.get_close_matches(args[0], self.commands, 1)
            mend = f"did you mean d1fleet {near[0]}?" if near else _for_build(args)
            raise UsageError(f"d1fleet has no command {args[0]}", mend)
        return super().resolve_command(ctx, args)


def _for_build(arguments: Sequence[str]) -> str:
    """The mend for arguments of make that stand where a command should."""
    if "build" in arguments:
        return "write d1fleet build first, all arguments after it"
    return f"did you mean d1fleet build {shlex.join(arguments)}?"


@click.group(cls=_Group, context_settings={"help_option_names": ["--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="d1fleet")
def cli() -> None:
    """Spread a make build's sub-makes over many hosts."""


cli.add_command(simulate)


@cli.command(
    cls=_BuildCommand,
    epilog="Without hosts and inventory, this machine is the fleet. Hosts that are away are tried again, "
    "and those that the inventory gains join. Exit codes are make's own; 80 to 99 are d1fleet's. "
    "Settings also come from the environment (D1FLEET_HOSTS, D1FLEET_INVENTORY, "
    "D1FLEET_PROJECT, D1MAKE_*) and from d1fleet.yml.",
)
@click.option("--hosts", metavar="HOSTS", help="[user@]host[:port][/slots], by blanks or commas; `:` is us.")
@click.option("--inventory", metavar="PATH", multiple=True, help="Ansible inventory: a file or a folder.")
@click.option("--project", metavar="GROUP", help="Group of the inventory whose hosts are used.")
@click.option("--slots", metavar="N", help="Recipes at once on hosts that do not say it themselves.")
@click.option("--ssh-config", metavar="FILE", help="Configuration file for ssh, as ssh -F.")
@click.option("--transport", metavar="HOW", help="ssh (the usual), openssh (by OpenSSH's client) or local.")
@click.option("--trees", metavar="PATH", multiple=True, help="A further folder that all hosts share.")
@click.option("--record", metavar="FILE", help="Write what happened to each sub-make, as JSON lines.")
@click.option(
    "--summary/--quiet",
    "summary",
    default=None,
    help="At the end list each sub-make with its folder, host and seconds, and what became of each host; "
    "or say nothing of where they ran.",
)
@click.option("--strict", is_flag=True, default=None, help="No host for a sub-make is an error.")
@click.option("--lease", "lease_s", metavar="S", help="Seconds that a host may go on unheard (10).")
@click.option("--grace", "grace_s", metavar="S", help="Seconds added before a host counts as ended (6).")
@click.option("--heartbeat", "heartbeat_s", metavar="S", help="Seconds between signs of life (2).")
@click.option("--connect-timeout", "connect_timeout_s", metavar="S", help="Seconds for a login (10).")
@click.pass_obj
def build(rest: list[str], /, **options: Any) -> None:
    """Run make with MAKE ARGUMENTS, its sub-makes on the fleet's hosts.

    Options of d1fleet come first; from the first word that is none of them, all is make's.
    """
    # Not above: `d1fleet --help` and the shim's path do not pay for it.
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError("this folder is no longer there", "cd to one that is") from error
    from ..build import run
    from ..settings import load_settings

    given = {name: value for name, value in options.items() if value not in (None, ())}
    sys.exit(run(load_settings(given), rest))


@cli.command(short_help="Let a host finish what it has, and give it no more.")
@click.argument("host")
@click.option("--reason", metavar="TEXT", default="", help="Why, for those whose builds lose it.")
@click.option("--undo", is_flag=True, help="Let it take work again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--hosts", metavar="HOSTS", help="As for `d1fleet build`: HOST is one of them.")
@click.option("--inventory", metavar="PATH", multiple=True, help="Ansible inventory: a file or a folder.")
@click.option("--project", metavar="GROUP", help="Group of the inventory that has the host.")
@click.option("--ssh-config", metavar="FILE", help="Configuration file for ssh, as ssh -F.")
@click.option("--transport", metavar="HOW", help="ssh (the usual), openssh (by OpenSSH's client) or local.")
@click.option("--connect-timeout", "connect_timeout_s", metavar="S", help="Seconds for a login (10).")
def drain(host: str, reason: str, undo: bool, as_json: bool, **options: Any) -> None:
    """Let HOST finish what it has, and give it no more, in builds that run and in later ones.

    That holds until --undo, or until HOST boots anew: for everybody's builds where the login there may write
    to /run/d1fleet/drain (root may), else for builds of that login alone.
    """
    from ..build import fleet_of
    from ..connect import Connector
    from ..drain import drain as ask
    from ..drain import host_of
    from ..settings import load_settings

    settings = load_settings({name: value for name, value in options.items() if value not in (None, ())})
    connector = Connector(settings.ssh_config, settings.ssh_options, settings.connect_timeout_s)
    try:
        answer = ask(host_of(fleet_of(settings), host), connector, reason, undo)
    finally:
        connector.close()
    whom = "everybody's builds" if answer.everybody else "builds of our login there alone"
    if as_json:
        found = {"host": host, "drained": answer.on, "reason": answer.reason, "everybody": answer.everybody}
        click.echo(json.dumps(found))
    elif answer.on:
        click.echo(f"host {host} gets no more sub-makes, in {whom}: {answer.reason}")
    else:
        click.echo(f"host {host} takes sub-makes")


@cli.command()
@click.argument("folder", default=".", type=click.Path(exists=True, file_okay=False))
def trust(folder: str) -> None:
    """Follow the d1fleet.yml of FOLDER from now on, as it is today.

    A tree that you got from others can bring settings that run commands. Read the file first.
    """
    from ..settings import find_file
    from ..trust import trust as follow

    file = find_file(Path(folder).resolve())
    if file is None:
        raise UsageError(f"there is no d1fleet.yml in {folder} or above it", "name the folder that has one")
    follow(file)
    click.echo(f"{file} is followed from now on, until it changes")


def main() -> int:
    """Run the command line; returns the exit status."""
    fill_closed_streams()
    forget_coerced_locale()
    default_child_signal()
    try:
        result = cli.main(prog_name="d1fleet", standalone_mode=False)
    except D1fleetError as error:
        say(str(error))
        return error.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None and context.parent else "d1fleet build"
        say(f"{error.format_message()}\n  mend: see {command} --help")
        return UsageError.exit_code
    except click.exceptions.Exit as error:
        return error.exit_code
    except OSError as error:
        say(f"this did not work out: {error}")
        return D1fleetError.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _INTERRUPTED
    return int(result) if isinstance(result, int) else 0
