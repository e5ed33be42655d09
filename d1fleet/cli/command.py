"""Commands whose own options come first, make's arguments behind them; options that several commands have."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from ..errors import UsageError
from ..makeargs import is_long_option

F = TypeVar("F", bound=Callable[..., Any])


def split_own(command: click.Command, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part arguments into ours and make's: ours are long, and end before the first word that is none."""
    own, _ = own_words(command, arguments)
    rest = list(arguments[len(own) :])
    if rest[:1] == ["--"]:
        rest = rest[1:]
    return own, rest


def own_words(command: click.Command, arguments: Sequence[str]) -> tuple[list[str], set[str]]:
    """The words that are our options and their values, and the names of these options."""
    flags = {"--help": True}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for name in [*parameter.opts, *parameter.secondary_opts]:
                flags[name] = parameter.is_flag
    at = 0
    names: set[str] = set()
    while at < len(arguments):
        word = arguments[at]
        name = word.split("=", 1)[0]
        if name not in flags:
            break
        names.add(name)
        at += 1 if "=" in word or flags[name] else 2
    return list(arguments[:at]), names


def refuse_options(command: click.Command, behind: Sequence[str]) -> None:
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


class MakeCommand(click.Command):
    """Takes its own options from the front, and leaves the rest as it is, in the context's `obj`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own, rest = split_own(self, args)
        refuse_options(self, args[len(own) :])
        ctx.obj = rest
        return super().parse_args(ctx, own)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[MAKE ARGUMENTS]..."]


def host_options(command: F) -> F:
    """Which hosts, and how they are reached."""
    return _all(
        command,
        click.option(
            "--hosts",
            metavar="HOSTS",
            help="[user@]host[:port][/slots], by blanks or commas; `:` is this machine.",
        ),
        click.option(
            "--inventory", metavar="PATH", multiple=True, help="Ansible inventory: a file or a folder."
        ),
        click.option("--project", metavar="GROUP", help="Group of the inventory whose hosts are meant."),
        click.option("--ssh-config", metavar="FILE", help="Configuration file for ssh, as ssh -F."),
        click.option(
            "--transport", metavar="HOW", help="ssh (the usual), openssh (by OpenSSH's client) or local."
        ),
        click.option("--connect-timeout", "connect_timeout_s", metavar="S", help="Seconds for a login (10)."),
    )


def tree_option(command: F) -> F:
    """What hosts share beside the folder itself."""
    return _all(
        command,
        click.option("--trees", metavar="PATH", multiple=True, help="A further folder that all hosts share."),
    )


def lease_options(command: F) -> F:
    """How soon a silent peer is given up."""
    return _all(
        command,
        click.option("--lease", "lease_s", metavar="S", help="Seconds that a host may go on unheard (10)."),
        click.option(
            "--grace", "grace_s", metavar="S", help="Seconds added before a host counts as ended (6)."
        ),
        click.option("--heartbeat", "heartbeat_s", metavar="S", help="Seconds between signs of life (2)."),
    )


def _all(command: F, *options: Callable[[F], F]) -> F:
    for option in reversed(options):
        command = option(command)
    return command
