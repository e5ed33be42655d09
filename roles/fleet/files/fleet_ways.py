"""How members reach each other's distcc: by TCP or over SSH, and the configuration of ssh for that. Pure.

A host's d1fleet_distcc_transport says how its peers reach it. Of a host in several projects, Ansible shows
but one group's value; so what a project says is read from its hosts that are in no other.
"""

import dataclasses

TCP, SSH = "tcp", "ssh"

KNOWN_HOSTS = "/etc/ssh/d1fleet_known_hosts"
"""Written by the role ssh_trust."""


_FOR_ALL = (
    "Host *",
    "    StrictHostKeyChecking yes",
    f"    GlobalKnownHostsFile {KNOWN_HOSTS}",
    "    UserKnownHostsFile /dev/null",
    "    UpdateHostKeys no",
    "    CheckHostIP no",
    "    BatchMode yes",
    "    ConnectTimeout 4",
    "    ServerAliveInterval 5",
    "    ServerAliveCountMax 3",
    "    ForwardAgent no",
    "    ForwardX11 no",
    "    ClearAllForwardings yes",
    "    PermitLocalCommand no",
    "    RequestTTY no",
    "    LogLevel ERROR",
    # A login costs more than most compilations, and a connection takes as many as sshd's MaxSessions.
    "    ControlMaster auto",
    "    ControlPersist 60",
    # Which key, and what else a user needs to get there; what is said above cannot be changed.
    "    Include ~/.ssh/config",
)


@dataclasses.dataclass(frozen=True)
class Login:
    """How sshd on a peer is reached and known.

    Attributes:
        name: the inventory's.
        known_port: with which its key is known: Ansible's.
        port: of its sshd, for peers.
    """

    name: str
    known_port: int
    port: int

    @property
    def known_as(self):
        """As the role ssh_trust writes it."""
        name = self.name.lower()
        return name if self.known_port == 22 else f"[{name}]:{self.known_port}"


def ways(projects, transports):
    """{host: {project: TCP or SSH}}.

    Args:
        projects: {project: [host, ...]}.
        transports: {host: TCP or SSH}, as Ansible shows it.
    """
    of = {}
    for project, members in projects.items():
        for host in members:
            of.setdefault(host, []).append(project)
    said = {
        project: {transports[host] for host in members if len(of[host]) == 1}
        for project, members in projects.items()
    }
    found = {}
    for host, own in of.items():
        # A value that none of its projects has is the host's own, for all of them.
        shown = transports[host]
        of_groups = len(own) > 1 and any(shown in said[project] for project in own)
        found[host] = {
            project: next(iter(said[project])) if of_groups and len(said[project]) == 1 else shown
            for project in own
        }
    return found


def ssh_config(host, logins):
    """What ssh on a host reads to reach peers for distcc, and for nothing else; empty where there are none.

    Args:
        logins: {peer, as in d1fleet.hostsfile: Login}.
    """
    if not logins:
        return ""
    lines = [
        f"# How distcc on {host} reaches its peers over SSH; written by Ansible, role d1.fleet.distcc_hosts."
    ]
    for peer, login in logins.items():
        lines += [
            f"Host {peer.alias}",
            f"    HostName {peer.address}",
            f"    Port {login.port}",
            f"    HostKeyAlias {login.known_as}",
        ]
    return "\n".join([*lines, *_FOR_ALL]) + "\n"
