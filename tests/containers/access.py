"""What a client needs to reach a fleet: keys, known_hosts, ssh_config, and an Ansible inventory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from tests.containers.podman import write_atomically
from tests.support import sshclient

HOST_KEY = "etc/ssh/ssh_host_ed25519_key"
"""Below a host's root."""


class Access:
    """The files of one fleet, all below its folder."""

    def __init__(self, folder: Path) -> None:
        self.inventory = folder / "inventory.yml"
        self.ssh_config = folder / "ssh_config"
        self.known_hosts = folder / "known_hosts"
        self.key = folder / "id_ed25519"
        self._roots = folder / "roots"

    def make_keys(self, hosts: Sequence[str]) -> None:
        """Make the user's key and one key for each host: nothing is ever learnt from the network."""
        sshclient.make_key(self.key)
        public = self.key.with_suffix(".pub").read_text()
        for host in hosts:
            root = self.root(host)
            # podman copies modes too: they must be those that a host has.
            root.mkdir(mode=0o755, parents=True)
            for below, mode in (("etc", 0o755), ("etc/ssh", 0o755), ("root", 0o700), ("root/.ssh", 0o700)):
                (root / below).mkdir()
                (root / below).chmod(mode)
            sshclient.make_key(root / HOST_KEY)
            keys = root / "root/.ssh/authorized_keys"
            keys.write_text(public)
            keys.chmod(0o600)

    def root(self, host: str) -> Path:
        """The folder whose content is copied to a host's root before it first starts."""
        return self._roots / host

    def write(self, addresses: Mapping[str, Sequence[str]], project: str, inventory: Path) -> None:
        """Write what clients read; `addresses` of a host are IPv4 first, then IPv6 if it has one.

        Args:
            project: group of the hosts, below the group `projects`.
            inventory: where the inventory goes.
        """
        known = {host: (self.root(host) / f"{HOST_KEY}.pub").read_text().split()[:2] for host in addresses}
        lines = (f"{','.join((host, *addresses[host]))} {' '.join(known[host])}\n" for host in addresses)
        write_atomically(self.known_hosts, "".join(lines))
        write_atomically(self.ssh_config, self._client_config(addresses))
        write_atomically(inventory, self._inventory(addresses, project))

    def _client_config(self, addresses: Mapping[str, Sequence[str]]) -> str:
        blocks = [f"Host {host}\n    HostName {own[0]}\n" for host, own in addresses.items()]
        limit = "Host *\n    ConnectTimeout 10\n"
        return "".join(blocks) + limit + sshclient.for_all_hosts("root", self.key, self.known_hosts)

    def _inventory(self, addresses: Mapping[str, Sequence[str]], project: str) -> str:
        checked = f"-o UserKnownHostsFile={self.known_hosts} -o StrictHostKeyChecking=yes"
        hosts = {
            host: {
                "ansible_host": own[0],
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(self.key),
                "ansible_ssh_common_args": checked,
                "ansible_python_interpreter": "/usr/bin/python3",
            }
            for host, own in addresses.items()
        }
        tree = {"projects": {"children": {project: {"hosts": hosts}}}}
        return str(yaml.safe_dump(tree, sort_keys=False))
