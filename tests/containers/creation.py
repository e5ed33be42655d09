"""The steps from settings to hosts that answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.containers import debs, sshfs
from tests.containers.access import Access
from tests.containers.errors import ContainerError
from tests.containers.host import Host
from tests.containers.launcher import Launch
from tests.containers.podman import podman, podman_json
from tests.containers.registry import PREFIX, labels
from tests.containers.settings import Settings
from tests.containers.subnets import FIRST_HOST, Network, choose_ipv4, choose_ipv6, taken_networks


@dataclass(frozen=True)
class MadeNetwork:
    """A network of podman's: its bridge on this machine, and its subnets, IPv4 first."""

    name: str
    bridge: str
    subnets: Sequence[Network]


def make_network(settings: Settings, folder: Path) -> MadeNetwork:
    """Make a network with subnets that nothing on this machine uses; call it under the machine's lock.

    Raises:
        ContainerError: podman cannot, or no subnet is free.
    """
    taken, seed = taken_networks(), str(folder)
    subnets: list[Network] = [choose_ipv4(taken, seed)]
    if settings.ipv6:
        subnets.append(choose_ipv6(taken, seed))
    name = PREFIX + settings.name
    arguments = [f"--subnet={subnet}" for subnet in subnets] + (["--ipv6"] if settings.ipv6 else [])
    # Addresses are static: a name server would be one more process to leave behind.
    podman("network", "create", "--disable-dns", *labels(settings.name, folder), *arguments, name)
    bridge = podman_json("network", "inspect", name)[0]["network_interface"]
    return MadeNetwork(name, str(bridge), subnets)


def hosts(settings: Settings, network: MadeNetwork, launch: Launch) -> list[Host]:
    """The hosts that are going to be: names and addresses."""
    made = []
    for number in range(settings.count):
        own = [str(subnet[FIRST_HOST + number]) for subnet in network.subnets]
        name = f"h{number + 1}"
        container, address6 = f"{network.name}-{name}", own[1] if own[1:] else ""
        made.append(Host(name, own[0], container, network.bridge, address6, launch))
    return made


def prepare(settings: Settings, access: Access, hosts: Sequence[Host]) -> None:
    """Make keys and whatever else the hosts' file systems are to hold before they start.

    Raises:
        ContainerError: a folder to share is not there.
    """
    for path in (*settings.volumes, settings.sshfs or "/"):
        if not Path(path).is_dir():
            raise ContainerError(f"{path} is to be shared, and is no folder here")
    access.make_keys([host.name for host in hosts])
    if settings.sshfs:
        key = access.key.with_name("sshfs_key")
        first = access.root(hosts[0].name)
        sshfs.export(key, first)
        for host in hosts[1:]:
            sshfs.mount(settings.sshfs, key, access.root(host.name), hosts[0].address, first)


def start(settings: Settings, access: Access, host: Host, release: str, image: str) -> None:
    """Make a host's container and start it.

    Raises:
        ContainerError: podman cannot.
    """
    folder = access.key.parent
    arguments = [
        "--systemd=always",
        f"--name={host.container}",
        f"--hostname={host.name}",
        f"--network={PREFIX}{settings.name}",
        f"--ip={host.address}",
        # The same after a restart: neighbours remember it.
        f"--mac-address=02:d1:{ipaddress.IPv4Address(host.address).packed.hex(':')}",
        # Packet filters of its own, and services with a mount namespace of theirs.
        "--cap-add=NET_ADMIN",
        "--cap-add=SYS_ADMIN",
        *labels(settings.name, folder),
        *(f"--volume={path}:{path}" for path in settings.volumes),
    ]
    if host.address6:
        arguments.append(f"--ip6={host.address6}")
    if settings.cpus:
        arguments.append(f"--cpus={settings.cpus}")
    if settings.debs:
        arguments.append(f"--volume={debs.lend(folder, release, host.name)}:{debs.ARCHIVES}")
    if settings.sshfs:
        arguments += _sshfs_arguments(settings, host)
    podman("create", "--quiet", *arguments, image, "/sbin/init")
    podman("cp", f"{access.root(host.name)}/.", f"{host.container}:/")
    host.power_on()


def wait(settings: Settings, hosts: Sequence[Host]) -> None:
    """Return when every host answers and has its trees.

    Raises:
        ContainerError: one does not in time.
    """
    for host in hosts:
        host.wait_for_sshd()
    for host in hosts[1:] if settings.sshfs else ():
        sshfs.wait_for_mount(settings.sshfs, host.pid(), host.name)


def _sshfs_arguments(settings: Settings, host: Host) -> Sequence[str]:
    if host.name == "h1":
        return (f"--volume={settings.sshfs}:{settings.sshfs}",)
    return sshfs.PODMAN_ARGUMENTS
