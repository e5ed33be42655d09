"""The configuration of ssh by which distcc reaches peers over SSH, and by which their keys are known. Pure.

Written by the role distcc_hosts, and on hosts by the check-in: the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .hostsfile import Peer

KNOWN_HOSTS = "/etc/ssh/d1fleet_known_hosts"
"""Written by the role ssh_trust."""

_FOR_ALL = (
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


@dataclass(frozen=True)
class Login:
    """How sshd on a peer is reached and known.

    Attributes:
        name: the inventory's, or the registry's.
        known_port: with which its key is known.
        port: of its sshd, for peers.
    """

    name: str
    known_port: int
    port: int

    @property
    def known_as(self) -> str:
        """As known_hosts has it."""
        name = self.name.lower()
        return name if self.known_port == 22 else f"[{name}]:{self.known_port}"


def ssh_config(head: str, logins: Mapping[Peer, Login], known_hosts: str = KNOWN_HOSTS) -> str:
    """What ssh on a host reads to reach peers for distcc, and for nothing else; empty where there are none.

    Args:
        head: a line of comment: for which host, and who has written it.
        known_hosts: the one file that says which keys they have.
    """
    if not logins:
        return ""
    lines = [f"# {head}"]
    for peer, login in logins.items():
        lines += [
            f"Host {peer.alias}",
            f"    HostName {peer.address}",
            f"    Port {login.port}",
            f"    HostKeyAlias {login.known_as}",
        ]
    lines += ["Host *", "    StrictHostKeyChecking yes", f"    GlobalKnownHostsFile {known_hosts}"]
    return "\n".join([*lines, *_FOR_ALL]) + "\n"


def known_hosts(head: str, keys: Mapping[Login, Sequence[str]]) -> str:
    """What sshd(8) calls an ssh_known_hosts file.

    Args:
        keys: of each peer, as OpenSSH writes public keys, without comments.
    """
    lines = [f"{login.known_as} {key}" for login, each in keys.items() for key in each]
    return "\n".join([f"# {head}", *lines]) + "\n"
