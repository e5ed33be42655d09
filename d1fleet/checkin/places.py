"""Where everything of the check-in is on a host: the roles' word, and options of the program for tests."""

from __future__ import annotations

from dataclasses import dataclass

CONFIG = "/etc/d1fleet/checkin.json"


@dataclass(frozen=True)
class AgentPlaces:
    """The agent's.

    Attributes:
        state: its own folder.
        helper: the root helper's socket.
    """

    config: str = CONFIG
    state: str = "/var/lib/d1fleet-checkin"
    helper: str = "/run/d1fleet-checkin/apply.sock"


@dataclass(frozen=True)
class HelperPlaces:
    """The root helper's.

    Attributes:
        hosts: the folder of hosts files, one for each project.
        default: the hosts file that distcc reads by itself.
        rules: members, as the packet filter's table includes them; the lock lies beside it.
        ssh: a folder for ssh_config and known_hosts.
        nft, distcc: programs.
    """

    config: str = CONFIG
    hosts: str = "/etc/d1fleet/hosts"
    default: str = "/etc/distcc/hosts"
    rules: str = "/etc/d1fleet/distcc.d/members.nft"
    ssh: str = "/usr/local/lib/d1fleet/distcc"
    nft: str = "/usr/sbin/nft"
    distcc: str = "/usr/bin/distcc"
