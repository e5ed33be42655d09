"""`d1fleet doctor`: what is wrong with the hosts of a project, and what mends it."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .command import host_options, tree_option

if TYPE_CHECKING:
    from ..findings import Commands
    from ..fleet import Fleet
    from ..model import Host
    from ..settings import Settings


@click.command(
    short_help="Find out what is wrong with hosts, and how to mend it.",
    epilog="Run it in the folder that you build in: hosts have to share that. Exit codes: 0 where builds can "
    "run, with warnings or without; 97 where there are faults; others as of build. docs/doctor.md lists what "
    "is looked at.",
)
@host_options
@tree_option
@click.option("--no-tree", is_flag=True, help="This folder is not shared: hosts are for distcc alone.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(no_tree: bool, as_json: bool, **options: Any) -> None:
    """Examine the hosts of a project: logins, users, trees, clocks, room, toolchains, servers, distcc.

    Nothing is changed. Each thing that is wrong is named with its mend, the worst first.
    """
    from .. import doctor_report
    from ..build import fleet_of
    from ..doctor import examine, worst
    from ..errors import ToolError, UnwellError
    from ..findings import FAULT
    from ..settings import load_settings
    from ..words import counted, say

    settings = load_settings({name: value for name, value in options.items() if value not in (None, ())})
    if shutil.which("ssh") is None:
        raise ToolError("there is no ssh on this machine", "install OpenSSH's client")
    fleet = fleet_of(settings)
    variables: dict[str, Any] = {}
    if settings.inventory:
        from ..inventory import load_inventory

        variables = dict(load_inventory(settings.inventory).variables)
    for note in settings.notes:
        say(note)
    examined = examine(settings, fleet, variables, None if no_tree else os.path.realpath(os.getcwd()))
    commands = _commands(settings, fleet)
    if as_json:
        click.echo(doctor_report.as_json(examined, commands))
    else:
        for line in doctor_report.text(examined, commands):
            click.echo(line.encode("utf-8", "replace"))
    if worst(examined.findings) == FAULT:
        faults = [each for each in examined.findings if each.severity == FAULT]
        hosts = {each.host for each in faults}
        raise UnwellError(
            f"{counted(len(faults), 'fault')} on {len(hosts)} of {len(fleet.hosts)} hosts",
            "as it says above, from the top",
        )
    sys.exit(0)


def _commands(settings: Settings, fleet: Fleet) -> Commands:
    """How the mends are typed here."""
    from ..findings import Commands

    root = Path(__file__).resolve().parents[2]
    config = ["-F", os.path.abspath(settings.ssh_config)] if settings.ssh_config else []
    found = Commands(
        inventories=[os.path.abspath(os.path.expanduser(path)) for path in settings.inventory],
        ansible=_program("ansible"),
        playbook=_program("ansible-playbook"),
        ssh=["ssh", *config, *settings.ssh_options],
        logins={host.name: _login(host) for host in fleet.hosts},
    )
    return replace(found, checkout=str(root)) if (root / "site.yml").is_file() else found


def _login(host: Host) -> list[str]:
    """Arguments of ssh for a host that --hosts has named."""
    port = ["-p", str(host.port)] if host.port else []
    return [*port, f"{host.user}@{host.address or host.name}" if host.user else host.address or host.name]


def _program(name: str) -> str:
    """As it can be typed: where it is not in PATH, the one beside this Python."""
    beside = Path(sys.executable).with_name(name)
    return name if shutil.which(name) or not beside.is_file() else str(beside)
