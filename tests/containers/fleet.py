"""A fleet: hosts on one network, made and removed together."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from tests.containers.access import Access
from tests.containers.errors import ContainerError, NameTaken
from tests.containers.host import Host
from tests.containers.image import ensure_image
from tests.containers.podman import podman, podman_json, write_atomically
from tests.containers.registry import KEPT, PREFIX, find_fleets, labels, machine_lock, remove, remove_stale
from tests.containers.subnets import FIRST_HOST, MOST_HOSTS, choose_ipv4, choose_ipv6, taken_networks
from tests.support.debsource import default_cache

_AT_ONCE = 4
"""Hosts that are made side by side: podman takes turns at most of it."""


@dataclass(frozen=True)
class Settings:
    """What a fleet is made of.

    Attributes:
        cpus: processors' worth of time for each host, by a quota; 0 for no limit.
        volumes: folders of this machine that are at the same path in every host.
        project: the hosts' group in the inventory, below `projects`.
    """

    name: str
    count: int = 3
    release: str = "bookworm"
    variant: str = "build"
    cpus: float = 0.0
    volumes: Sequence[str] = ()
    ipv6: bool = False
    project: str = "test"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", self.name):
            raise ValueError(f"a fleet's name has small letters, digits and dashes only: {self.name!r}")
        if not 1 <= self.count <= MOST_HOSTS:
            raise ValueError(f"a fleet has 1 to {MOST_HOSTS} hosts, not {self.count}")
        for volume in self.volumes:
            if not Path(volume).is_absolute() or not Path(volume).is_dir() or ":" in volume:
                raise ValueError(f"a shared folder is there, absolute and without a colon: {volume!r}")


class ContainerHosts(Sequence[Host]):
    """Hosts of one fleet: made on entering, removed on leaving.

    Args:
        name: of the fleet on this machine.
        inventory: where to write the inventory, None for `folder`.
        Everything else as in `Settings`.

    Attributes:
        folder: what belongs to the fleet; 0700.
        inventory, ssh_config, known_hosts, key: files for clients.
    """

    def __init__(
        self,
        name: str,
        *,
        count: int = 3,
        release: str = "bookworm",
        variant: str = "build",
        cpus: float = 0.0,
        volumes: Sequence[str | Path] = (),
        ipv6: bool = False,
        project: str = "test",
        inventory: Path | None = None,
    ) -> None:
        shared = tuple(str(volume) for volume in volumes)
        self.settings = Settings(name, count, release, variant, cpus, shared, ipv6, project)
        self.folder = default_cache() / "fleets" / name
        self._access = Access(self.folder)
        self._inventory = inventory
        self._hosts: list[Host] = []

    @property
    def inventory(self) -> Path:
        return self._access.inventory

    @property
    def ssh_config(self) -> Path:
        return self._access.ssh_config

    @property
    def known_hosts(self) -> Path:
        return self._access.known_hosts

    @property
    def key(self) -> Path:
        return self._access.key

    def __enter__(self) -> ContainerHosts:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def __len__(self) -> int:
        return len(self._hosts)

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts)

    def __getitem__(self, which: int | str) -> Host:  # type: ignore[override]
        """A host by number, counted from 0, or by name."""
        if isinstance(which, int):
            return self._hosts[which]
        return next(host for host in self._hosts if host.name == which)

    def ssh(self, host: str, *command: str) -> list[str]:
        """The argv that runs `command` on `host` with OpenSSH's client."""
        return ["ssh", "-F", str(self.ssh_config), host, "--", *command]

    def up(self) -> None:
        """Make the hosts, and return when all of them answer; fleets that nobody owns go first.

        Raises:
            ImageUnavailable: there is no image and none can be made.
            NameTaken: there is such a fleet.
            ContainerError: podman or a host failed; nothing is left.
        """
        image = ensure_image(self.settings.release, self.settings.variant)
        with machine_lock():
            remove_stale()
            if self.settings.name in find_fleets() or self.folder.exists():
                raise NameTaken(f"there is a fleet {self.settings.name}; take it down first")
            self.folder.mkdir(mode=0o700, parents=True)
            try:
                bridge, subnets = self._make_network()
            except BaseException:
                self._remove()
                raise
        try:
            self._hosts = [self._host(number, bridge, subnets) for number in range(self.settings.count)]
            self._access.make_keys([host.name for host in self._hosts])
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(lambda host: self._make(host, image), self._hosts))
            for host in self._hosts:
                host.wait_for_sshd()
            addresses = {host.name: [a for a in (host.address, host.address6) if a] for host in self._hosts}
            self._access.write(addresses, self.settings.project, self._inventory)
        except BaseException:
            self.down()
            raise

    def keep(self) -> None:
        """Let the fleet outlive this process, until somebody takes it down."""
        write_atomically(self.folder / KEPT, json.dumps(asdict(self.settings)) + "\n")

    def down(self) -> None:
        """Remove the hosts, their network and the folder.

        Raises:
            ContainerError: podman cannot.
        """
        with machine_lock():
            self._remove()

    def _remove(self) -> None:
        take_down(self.settings.name)
        self._hosts = []

    def _make_network(self) -> tuple[str, list[ipaddress.IPv4Network | ipaddress.IPv6Network]]:
        taken = taken_networks()
        seed = str(self.folder)
        subnets: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = [choose_ipv4(taken, seed)]
        arguments = [f"--subnet={subnets[0]}"]
        if self.settings.ipv6:
            subnets.append(choose_ipv6(taken, seed))
            arguments += ["--ipv6", f"--subnet={subnets[1]}"]
        network = PREFIX + self.settings.name
        podman("network", "create", *labels(self.settings.name, self.folder), *arguments, network)
        return str(podman_json("network", "inspect", network)[0]["network_interface"]), subnets

    def _host(
        self, number: int, bridge: str, subnets: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]
    ) -> Host:
        own = [str(subnet[FIRST_HOST + number]) for subnet in subnets]
        name = f"h{number + 1}"
        return Host(name, own[0], f"{PREFIX}{self.settings.name}-{name}", bridge, *own[1:])

    def _make(self, host: Host, image: str) -> None:
        settings = self.settings
        last = [int(part) for part in host.address.split(".")]
        arguments = [
            "--systemd=always",
            f"--name={host.container}",
            f"--hostname={host.name}",
            f"--network={PREFIX}{settings.name}",
            f"--ip={host.address}",
            # The same after a restart: neighbours remember it.
            "--mac-address=02:d1:" + ":".join(f"{part:02x}" for part in last),
            # Packet filters of its own.
            "--cap-add=NET_ADMIN",
            *labels(settings.name, self.folder),
            *(f"--volume={path}:{path}" for path in settings.volumes),
        ]
        if host.address6:
            arguments.append(f"--ip6={host.address6}")
        if settings.cpus:
            arguments.append(f"--cpus={settings.cpus}")
        podman("create", "--quiet", *arguments, image, "/sbin/init")
        podman("cp", f"{self._access.root(host.name)}/.", f"{host.container}:/")
        podman("start", host.container)


def take_down(name: str) -> None:
    """Remove a fleet by its name, whoever made it.

    Raises:
        ContainerError: podman cannot, or there is none of this name.
    """
    found = find_fleets().get(name)
    if found is None:
        raise ContainerError(f"there is no fleet {name}")
    remove(found)
