"""The command line: `d1fleet build` and what stands around it."""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..errors import D1fleetError, UsageError
from ..inherited import default_child_signal, fill_closed_streams, forget_coerced_locale
from ..words import say
from .chaos import chaos
from .command import MakeCommand, host_options, lease_options, own_words, tree_option
from .distcc import env, lint, run
from .doctor import doctor
from .simulate import simulate

_INTERRUPTED = 130


_JOBS = re.compile(r"(?:-j|--jobs=?)(\d*)\Z")


def split_program(
    command: click.Command, arguments: Sequence[str]
) -> tuple[list[str], int | None, list[str]] | None:
    """Part the arguments of `build [OPTIONS] [-jN] --command [OPTIONS] [-jN] [--] PROGRAM ...` into options,
    N (0 for a -j without a number, None for none) and the program's words; None when it is no such call.

    Raises:
        UsageError: something else of make's stands before the program, or there is none.
    """
    own: list[str] = []
    called = False
    jobs: int | None = None
    rest = list(arguments)
    foreign: str | None = None
    while rest:
        words, names = own_words(command, rest)
        own += words
        called = called or "--command" in names
        del rest[: len(words)]
        if rest[:1] == ["--"]:
            del rest[0]
            break
        if not rest:
            break
        given = _JOBS.match(rest[0])
        if given is not None:
            del rest[0]
            number = given[1]
            if not number and rest and rest[0].isdigit():
                number = rest.pop(0)
            jobs = int(number or 0)
            if number and not jobs:
                raise UsageError("-j0 is no number of jobs", "give -jN with N of 1 or more, or -j alone")
        elif called:
            break
        elif "--command" in rest:
            word = rest.pop(0)
            foreign = foreign or word
        else:
            return None
    if not called:
        return None
    if foreign is not None:
        raise UsageError(
            f"{foreign} stands before --command",
            "of make's arguments only -j may; MAKEFLAGS takes the others",
        )
    if not rest:
        raise UsageError("--command is given, and no program", "d1fleet build --command -- PROGRAM ARGUMENTS")
    return own, jobs, rest


class _BuildCommand(MakeCommand):
    """The same, or a program behind --command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        called = split_program(self, args)
        if called is None:
            return super().parse_args(ctx, args)
        own, jobs, words = called
        ctx.obj = (jobs, words)
        return click.Command.parse_args(self, ctx, own)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [
            *click.Command.collect_usage_pieces(self, ctx),
            "{[MAKE ARGUMENTS]... | [-jN] --command [--] PROGRAM ...}",
        ]


def _registry() -> click.Command:
    from .registry import registry

    return registry


def _join() -> click.Command:
    from .join import join

    return join


def _leave() -> click.Command:
    from .join import leave

    return leave


_LATER: dict[str, Callable[[], click.Command]] = {"registry": _registry, "join": _join, "leave": _leave}
"""Commands that are imported when they are called: `d1fleet build` does not pay for them."""


class _Group(click.Group):
    """Knows what is meant where `build` was forgotten."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_LATER})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _LATER[cmd_name]() if cmd_name in _LATER else super().get_command(ctx, cmd_name)

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
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
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


for command in (run, env, lint, simulate, doctor, chaos):
    cli.add_command(command)


@cli.command(
    cls=_BuildCommand,
    epilog="Without hosts and inventory, this machine is the fleet. Hosts that are away are tried again, "
    "and those that the inventory gains join. Exit codes are make's own; 80 to 99 are d1fleet's. "
    "Settings also come from the environment (D1FLEET_HOSTS, D1FLEET_INVENTORY, "
    "D1FLEET_PROJECT, D1FLEET_TRUST_HOSTS, D1MAKE_*) and from d1fleet.yml.",
)
@host_options
@click.option("--slots", metavar="N", help="Recipes at once on hosts that do not say it themselves.")
@tree_option
@click.option(
    "--keep-local",
    metavar="RULE",
    multiple=True,
    help="Sub-makes that run where they are called: goal=, folder= or argument=PATTERN, ! in front for not.",
)
@click.option(
    "--not-repeatable",
    metavar="RULE",
    multiple=True,
    help="Sub-makes that must not be done twice, by the same rules.",
)
@click.option(
    "--fence",
    metavar="COMMAND",
    help="Switches off a host that was lost and cannot be asked (D1FLEET_FENCE_HOST is its name).",
)
@click.option("--record", metavar="FILE", help="Write what happened to each sub-make, as JSON lines.")
@click.option(
    "--keep-records",
    metavar="N",
    help="Builds of each tree that `d1fleet why` can tell of (10; 0 keeps none).",
)
@click.option(
    "--command",
    is_flag=True,
    help="What follows is any program (a script, cmake --build, dpkg-buildpackage): the makes that it starts "
    "run here, their sub-makes on the hosts. -jN goes to each of these makes.",
)
@click.option(
    "--summary/--quiet",
    "summary",
    default=None,
    help="At the end list each sub-make with its folder, host and seconds, and what became of each host; "
    "or say nothing of where they ran.",
)
@click.option(
    "--trust-hosts/--no-trust-hosts",
    "trust_hosts",
    default=None,
    help="What jobs on other machines call may run on this one too, where it is a host of the build (no).",
)
@click.option("--strict", is_flag=True, default=None, help="No host for a sub-make is an error.")
@lease_options
@click.pass_obj
def build(rest: list[str] | tuple[int | None, list[str]], /, command: bool, **options: Any) -> None:
    """Run make with MAKE ARGUMENTS, its sub-makes on the fleet's hosts.

    Options of d1fleet come first; from the first word that is none of them, all is make's. With --command,
    run PROGRAM instead, and the sub-makes of the makes that it starts on the hosts.
    """
    # Not above: `d1fleet --help` and the shim's path do not pay for it.
    try:
        os.getcwd()
    except OSError as error:
        raise UsageError("this folder is no longer there", "cd to one that is") from error
    from ..build import run as run_build
    from ..program import Program
    from ..settings import load_settings

    given = {name: value for name, value in options.items() if value not in (None, ())}
    settings = load_settings(given)
    sys.exit(run_build(settings, Program(rest[1], rest[0]) if isinstance(rest, tuple) else rest))


@cli.command(short_help="Let a host finish what it has, and give it no more.")
@click.argument("host")
@click.option("--reason", metavar="TEXT", default="", help="Why, for those whose builds lose it.")
@click.option("--undo", is_flag=True, help="Let it take work again.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@host_options
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
    from ..settings import check_file, find_file
    from ..trust import trust as follow

    file = find_file(Path(folder).resolve())
    if file is None:
        raise UsageError(f"there is no d1fleet.yml in {folder} or above it", "name the folder that has one")
    check_file(file)
    follow(file)
    click.echo(f"{file} is followed from now on, until it changes")


@cli.command(
    epilog="Without JOB or TARGET: the builds of this folder that are on record, or, with --build N, the "
    "sub-makes of one of them. The last builds of each tree are kept (`keep_records`)."
)
@click.argument("target", required=False, metavar="[JOB|TARGET]")
@click.option("--record", metavar="FILE", help="Look into this record, as d1fleet build --record writes it.")
@click.option(
    "--build",
    "number",
    type=click.IntRange(1),
    metavar="N",
    help="Look into one build: 1 is the last one here.",
)
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
def why(target: str | None, record: str | None, number: int | None, as_json: bool) -> None:
    """Tell why a sub-make ran where it did, waited, or stayed here.

    JOB is its number in the last build; TARGET is a goal, a folder or a word of the command.
    """
    from .why import answer

    click.echo(answer(target, record, number, as_json))


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
