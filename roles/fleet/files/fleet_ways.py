"""How members reach each other's distcc: by TCP or over SSH, and the configuration of ssh for that. Pure.

A host's d1fleet_distcc_transport says how its peers reach it. Of a host in several projects, Ansible shows
but one group's value; so what a project says is read from its hosts that are in no other.
"""

from d1fleet import distccssh
from d1fleet.distccssh import KNOWN_HOSTS, Login

__all__ = ["KNOWN_HOSTS", "SSH", "TCP", "Login", "ssh_config", "ways"]

TCP, SSH = "tcp", "ssh"


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
    return distccssh.ssh_config(
        f"How distcc on {host} reaches its peers over SSH; written by Ansible, role d1.fleet.distcc_hosts.",
        logins,
    )
