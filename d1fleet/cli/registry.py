"""`d1fleet registry`: the check-in service, and all that its panel does."""

from __future__ import annotations

import collections
from typing import Any

import click

from .registry_hosts import host, known_hosts
from .registry_people import audit, key, operator
from .registry_projects import project, token
from .registry_service import backup, certificate, restore, serve
from .registry_talk import Talk, fields, listed, speaks, state


@click.group(short_help="Run the registry, or look and change what it has: hosts, projects, tokens.")
def registry() -> None:
    """The registry: hosts that come and go, and the projects they are in."""


for _command in (
    *(serve, certificate, backup, restore),
    *(project, host, token, operator, key, audit, known_hosts),
):
    registry.add_command(_command)


@registry.command()
@speaks
def status(talk: Talk) -> None:
    """Tell how the registry is, and how many hosts it has."""
    health = talk.registry.health()
    projects = talk.registry.get("/admin/projects")
    hosts = talk.registry.get("/admin/hosts")
    found = {"registry": str(talk.registry.place), **health, "projects": projects, "hosts": hosts}
    talk.show(found, lambda: _describe(found))


registry.add_command(click.Command("show", callback=status.callback, params=status.params, hidden=True))


def _describe(found: dict[str, Any]) -> None:
    hosts = listed(found["hosts"], "hosts")
    states = collections.Counter(str(each["state"]) for each in hosts)
    known = ("registry", "status", "projects", "hosts")
    fields(
        {
            "registry": found["registry"],
            "status": state(str(found["status"])),
            **{name: value for name, value in found.items() if name not in known},
            "projects": ", ".join(str(each["name"]) for each in listed(found["projects"], "projects"))
            or "none",
            "hosts": ", ".join(f"{count} {word}" for word, count in states.most_common()) or "none",
        }
    )
