"""Projects of an inventory: groups, and the hosts in them. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InventoryError, UnknownProjectError
from .hostvars import HostVariables, reduced
from .model import Host

PROJECTS = "projects"
"""The group whose children are projects."""

EXAMPLE = "d1fleet_this_is_an_example"
"""The variable that marks the inventory that comes with d1fleet, until somebody has edited it."""

AWAY = ("registry_away", "registry_drained")
"""Groups of hosts that a registry does not hear of, or that an operator has drained: they stay in their
projects, and builds go without them until they are back.
"""

ALL = "all"
"""The name of the one project of an inventory without that group."""


@dataclass(frozen=True)
class Fleet:
    """A project and its hosts, in the inventory's order."""

    project: str
    hosts: tuple[Host, ...]
    jobs: int | None = None
    """The project's default for -j: None for make's serial order, 0 for all slots (`d1fleet_jobs: auto`)."""


@dataclass(frozen=True)
class Inventory:
    """Groups, and those variables of hosts that are of use here."""

    children: Mapping[str, Sequence[str]]
    members: Mapping[str, Sequence[str]]
    variables: Mapping[str, Mapping[str, Any]]

    @staticmethod
    def of(answer: Any) -> Inventory:
        """From what `ansible-inventory --list` answers.

        Raises:
            ValueError: it is something else.
        """
        try:
            variables = {host: reduced(found) for host, found in answer["_meta"]["hostvars"].items()}
            groups = {name: group for name, group in answer.items() if name != "_meta"}
            return Inventory(
                {name: [str(child) for child in group.get("children", ())] for name, group in groups.items()},
                {name: [str(host) for host in group.get("hosts", ())] for name, group in groups.items()},
                variables,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not an inventory: {error!r}") from error

    def to_json(self) -> dict[str, Any]:
        """The same again for `of`."""
        groups = {
            name: {"children": list(self.children[name]), "hosts": list(self.members[name])}
            for name in self.children
        }
        return {"_meta": {"hostvars": dict(self.variables)}, **groups}

    def hosts(self, group: str) -> list[str]:
        """Hosts of a group and of all groups below it, each once."""
        found: dict[str, None] = {}
        seen, waiting = {group}, [group]
        while waiting:
            name = waiting.pop(0)
            found.update(dict.fromkeys(self.members.get(name, ())))
            below = [child for child in self.children.get(name, ()) if child not in seen]
            seen.update(below)
            waiting[:0] = below
        return list(found)

    def projects(self) -> list[str]:
        """Names of projects.

        Raises:
            InventoryError: the group of projects has none.
        """
        if PROJECTS not in self.children:
            near = difflib.get_close_matches(PROJECTS, [name.lower() for name in self.children], 1, 0.75)
            if near:
                raise InventoryError(
                    f"the inventory has no group `{PROJECTS}`, but one that is called nearly so: {near[0]}",
                    f"put the projects below `{PROJECTS}`: else all hosts of all projects would be used",
                )
            return [ALL]
        found = list(self.children[PROJECTS])
        if not found:
            raise InventoryError(
                f"the group `{PROJECTS}` has no children", "each project is a group under it"
            )
        return found

    def fleet(self, project: str | None) -> Fleet:
        """A project's hosts; None takes the only project.

        Raises:
            UnknownProjectError: there is no such project, or several to choose from.
            InventoryError: it has no hosts, or a value that cannot be used, or is our example still.
        """
        if any(found.get(EXAMPLE) for found in self.variables.values()):
            raise InventoryError(
                "this inventory is the example that came with d1fleet: its hosts do not exist",
                f"put your own hosts into it, then remove the line {EXAMPLE} in group_vars/projects.yml",
            )
        known = self.projects()
        if project is None and len(known) > 1:
            raise UnknownProjectError(
                f"the inventory has several projects: {', '.join(known)}",
                "choose one by --project or D1FLEET_PROJECT",
            )
        if project is not None and project not in known:
            near = difflib.get_close_matches(project, known, 1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise UnknownProjectError(
                f"the inventory has no project {project!r}", f"{meant}known projects: {', '.join(known)}"
            )
        chosen = known[0] if project is None else project
        names = self.hosts(chosen)
        if not names:
            raise InventoryError(f"project {chosen} has no hosts", f"add hosts to the group `{chosen}`")
        away = {name for group in AWAY for name in self.hosts(group)}
        # Where it hears of none, its own network may be what is gone; whoever cannot be reached is found out.
        names = [name for name in names if name not in away] or names
        readers = [HostVariables(name, self.variables.get(name, {})) for name in names]
        hosts = tuple(reader.host() for reader in readers)
        return Fleet(chosen, hosts, self._jobs(chosen, readers))

    def _jobs(self, project: str, readers: Sequence[HostVariables]) -> int | None:
        # Where a host is in two projects, Ansible merges the variables of both: ask those that are in one.
        others = {host for other in self.projects() if other != project for host in self.hosts(other)}
        telling = [reader for reader in readers if reader.name not in others] or readers
        jobs = {reader.jobs(): reader.name for reader in telling}
        if len(jobs) > 1:
            some = " and ".join(list(jobs.values())[:2])
            raise InventoryError(
                f"hosts {some} of project {project} have different d1fleet_jobs",
                f"set it once, as a variable of the group `{project}`",
            )
        return next(iter(jobs))
