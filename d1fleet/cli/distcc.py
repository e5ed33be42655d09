"""`d1fleet run`, `env` and `lint`: builds by distcc on the hosts of a project."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

import click


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option(
                "--project",
                metavar="NAME",
                envvar="D1FLEET_PROJECT",
                help="One of this machine's projects; its only one, or the one that distcc itself uses.",
            ),
            click.option(
                "--hosts-file", "file", metavar="FILE", help="A hosts file in place of the project's."
            ),
            click.option(
                "--strict",
                is_flag=True,
                help="What no host can compile fails; `run` also ends with 89 where distcc has compiled here"
                " what it does not distribute.",
            ),
            click.option(
                "--ccache/--no-ccache",
                default=None,
                help="ccache in front: what it knows is not compiled. Default: if the inventory asks for it.",
            ),
        )
    ):
        function = option(function)
    return function


@click.command(
    short_help="Run a program with compilers that are distcc.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="For makefiles that are one flat level: of those that call make for their parts `d1fleet build` "
    "makes more. Exit codes are the program's own; 80 to 99 are d1fleet's, 100 to 120 distcc's.",
)
@_options
@click.option(
    "--summary/--quiet",
    "summary",
    default=None,
    help="At the end tell how much each host compiled; or tell nothing, not even what fell back.",
)
@click.argument(
    "words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] PROGRAM [ARGUMENTS]..."
)
def run(
    words: tuple[str, ...],
    project: str | None,
    file: str | None,
    strict: bool,
    ccache: bool | None,
    summary: bool | None,
) -> None:
    """Run PROGRAM with compilers that are distcc, on the hosts of a project.

    In ARGUMENTS, {slots} stands for the number of compilations that may run at once:

        d1fleet run -- make -j{slots}
    """
    from .. import distcc as tier
    from ..distccrun import run as run_program

    found = tier.project_here(project, file)
    ccache = tier.ccache_asked_for() if ccache is None else ccache
    sys.exit(run_program(words, found, strict=strict, ccache=ccache, summary=summary))


@click.command(short_help="Print the environment of `run`, for a shell's eval.")
@_options
@click.option("--check", is_flag=True, help="Ask each host whether it answers, and show the hosts instead.")
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
def env(
    project: str | None, file: str | None, strict: bool, ccache: bool | None, check: bool, as_json: bool
) -> None:
    """Print the variables that make a shell's compilers distcc, for `eval "$(d1fleet env)"`.

    Then `make -j$D1FLEET_SLOTS` compiles on the hosts of a project.
    """
    from .. import distcc as tier
    from ..distccrun import fit
    from ..errors import HostError
    from ..words import say

    found = tier.project_here(project, file)
    if check:
        state = fit(found, os.environ)
        hosts = [
            {
                "name": peer.name,
                "host": str(peer),
                "slots": peer.slots,
                "left_out": state.left_out.get(peer.name, ""),
            }
            for peer in found.hosts.peers
        ]
        if as_json:
            click.echo(
                json.dumps({"project": found.name, "slots": state.hosts.slots, "hosts": hosts}, indent=1)
            )
            return
        click.echo(
            f"{found.name}: {state.hosts.slots} slots, {found.hosts.localslots} of them here ({found.file})"
        )
        for host in hosts:
            click.echo(f"  {host['name']}  {host['host']}  {host['left_out'] or 'answers'}")
        return
    if strict and not found.hosts.peers:
        raise HostError(f"project {found.name} has no other host than this one", "leave --strict out")
    ccache = tier.ccache_asked_for() if ccache is None else ccache
    variables = tier.environment(found.hosts, os.environ, strict=strict, ccache=ccache)
    if sys.stdout.isatty():
        say('these lines are for a shell: eval "$(d1fleet env)"')
    click.echo(json.dumps(variables, indent=1) if as_json else tier.exports(variables), nl=as_json)


@click.command(short_help="Tell which commands of a build distcc distributes.")
@click.argument("file", default="-", type=click.File(errors="replace"), metavar="[FILE]")
@click.option("--json", "as_json", is_flag=True, help="The same for programs.")
def lint(file: TextIO, as_json: bool) -> None:
    """Tell which commands of a build distcc distributes, which not, and why.

    FILE is what make prints, or a compile_commands.json; without it, standard input:

        make -n | d1fleet lint
    """
    from ..distcclint import DISTRIBUTED, LOSSY, findings
    from ..errors import UsageError
    from ..words import counted

    found = findings(file.read())
    if as_json:
        entries = [
            {"fate": each.verdict.what, "why": each.verdict.why, "count": each.count, "example": each.example}
            for each in found
        ]
        click.echo(json.dumps(entries, indent=1))
        return
    total = sum(each.count for each in found)
    if not total:
        raise UsageError(
            "no compiler's command is in there", "give it what `make -n V=1` prints in a clean tree"
        )
    away = sum(each.count for each in found if each.verdict.what in (DISTRIBUTED, LOSSY))
    click.echo(f"{away} of {counted(total, 'command is', 'commands are')} distributed")
    for each in found:
        if each.verdict.why:
            word = "distributed, but" if each.verdict.what == LOSSY else "here"
            click.echo(f"  {each.count:5}  {word}: {each.verdict.why} ({each.example})")
