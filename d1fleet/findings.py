"""What a doctor has found, and what mends it. Pure.

A finding is about one host; those that say the same of several hosts are shown as one. Each has a mend:
words, and where there is one, a command that can be typed as it stands.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

FAULT, WARNING, NOTE = "fault", "warning", "note"
SEVERITIES = (FAULT, WARNING, NOTE)
"""fault: builds fail there, or leave the host out. warning: they go on, and something is not as it should be.
note: nothing has to be done.
"""

LONGEST_ROOT = 8192
"""Characters of a line for root. What is longer is a host's doing, and is not shown: cut off, it would be
another command.
"""


@dataclass(frozen=True)
class Mend:
    """What to do; one of the commands at most.

    Attributes:
        words: for people.
        play: name of a playbook to be run for the host.
        root: a shell's line, for root on the host.
        here: a shell's line, for this machine.
        everywhere: the playbook is for all hosts, whichever the finding is about.
    """

    words: str = ""
    play: str = ""
    root: str = ""
    here: str = ""
    everywhere: bool = False


@dataclass(frozen=True)
class Finding:
    """One thing about one host.

    Attributes:
        id: what kind of thing; documented in docs/doctor.md.
        host: its name; empty for what is about the fleet, or this machine.
    """

    id: str
    severity: str
    host: str
    what: str
    mend: Mend


@dataclass(frozen=True)
class Shown:
    """The same finding about some hosts, with its mend as it can be typed."""

    id: str
    severity: str
    hosts: tuple[str, ...]
    what: str
    mend: str
    command: str

    def as_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "severity": self.severity,
            "hosts": list(self.hosts),
            "what": self.what,
            "mend": self.mend,
            "command": self.command,
        }


@dataclass(frozen=True)
class Commands:
    """How commands reach hosts from this machine.

    Attributes:
        inventories: absolute paths; none where hosts were named by --hosts.
        ansible, playbook: the programs.
        checkout: where the playbooks are; None takes those of the installed collection.
        ssh: the program, with the options that doctor was given.
        logins: ssh's arguments for hosts that are not reached by their names alone.
        project: a group of the inventory, which stands for all of `members`; empty where that is not known.
        members: its hosts.
    """

    inventories: Sequence[str] = ()
    ansible: str = "ansible"
    playbook: str = "ansible-playbook"
    checkout: str | None = None
    ssh: Sequence[str] = ("ssh",)
    logins: Mapping[str, Sequence[str]] = field(default_factory=dict)
    project: str = ""
    members: Sequence[str] = ()

    def of(self, mend: Mend, hosts: Sequence[str]) -> str:
        """The command line of a mend, whole; empty where it has none, or none that can be typed."""
        line = self._line(mend, hosts)
        # A newline would be another command, and what a terminal does not show cannot be typed.
        return line if line.isprintable() else ""

    def _line(self, mend: Mend, hosts: Sequence[str]) -> str:
        if mend.here:
            return mend.here
        if mend.root:
            return self._as_root(mend.root, hosts)
        if mend.play and self.inventories:
            return self._play(mend.play, self.members if mend.everywhere else hosts)
        return ""

    def _pattern(self, hosts: Sequence[str]) -> str:
        """Ansible's, for hosts: by the project's name where all of it is meant."""
        is_all = len(hosts) > 1 and set(hosts) == set(self.members)
        return self.project if self.project and is_all else ",".join(hosts)

    def _which(self) -> list[str]:
        return [word for path in self.inventories for word in ("--inventory", path)]

    def _play(self, name: str, hosts: Sequence[str]) -> str:
        limit = ["--limit", self._pattern(hosts)] if hosts else []
        if self.checkout is None:
            return shlex.join([self.playbook, *self._which(), f"d1.fleet.{name}", *limit])
        file = "site.yml" if name == "site" else f"playbooks/{name}.yml"
        return self._from_checkout([self.playbook, *self._which(), file, *limit])

    def _from_checkout(self, words: Sequence[str]) -> str:
        # Its ansible.cfg names the roles, and who logs in: a builder's key opens no shell.
        there = f"cd {shlex.quote(self.checkout)} && " if self.checkout is not None else ""
        return there + shlex.join(words)

    def _as_root(self, command: str, hosts: Sequence[str]) -> str:
        # Ansible would look for expressions in it, and follow them on this machine.
        if len(command) > LONGEST_ROOT or any(mark in command for mark in ("{{", "{%", "{#")):
            return ""
        if self.inventories:
            words = ["--become", "--module-name", "ansible.builtin.shell", "--args", command]
            return self._from_checkout([self.ansible, self._pattern(hosts), *self._which(), *words])
        lines = [
            shlex.join(
                [*self.ssh, "-t", *self.logins.get(host, (host,)), shlex.join(["sudo", "sh", "-c", command])]
            )
            for host in hosts
        ]
        return " && ".join(lines)


def shown(findings: Iterable[Finding], commands: Commands) -> list[Shown]:
    """Findings, the worst first, and those together that say the same of several hosts."""
    together: dict[tuple[str, str, str, Mend], list[str]] = {}
    for each in findings:
        names = together.setdefault((each.id, each.severity, each.what, each.mend), [])
        if each.host and each.host not in names:
            names.append(each.host)
    found = [
        Shown(id_, severity, tuple(hosts), what, mend.words, commands.of(mend, hosts))
        for (id_, severity, what, mend), hosts in together.items()
    ]
    return sorted(found, key=lambda each: SEVERITIES.index(each.severity))
