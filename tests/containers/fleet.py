"""A fleet: hosts on one network, made and removed together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from tests.containers import creation, registry
from tests.containers.access import Access
from tests.containers.errors import ContainerError, NameTaken
from tests.containers.host import Host
from tests.containers.image import ensure_image
from tests.containers.launcher import Outside, launch_here, launcher
from tests.containers.podman import write_atomically
from tests.containers.room import check_room
from tests.containers.settings import Settings

_AT_ONCE = 4
"""Hosts that are made side by side: podman takes turns at most of it."""

_DESCRIPTION = "hosts.json"


class ContainerHosts(Sequence[Host]):
    """Hosts of one fleet: made on entering, removed on leaving.

    Args:
        inventory: where to write the inventory; None for the fleet's own folder.
        others: as in `Settings`.

    Attributes:
        folder: what belongs to the fleet; 0700.
        inventory, ssh_config, known_hosts, key: files for clients.

    Raises:
        ValueError: there can be no such fleet.
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
        sshfs: str | Path = "",
        ipv6: bool = False,
        debs: bool = False,
        project: str = "test",
        inventory: Path | None = None,
    ) -> None:
        shared = tuple(str(volume) for volume in volumes)
        self.settings = Settings(
            name, count, release, variant, cpus, shared, str(sshfs), ipv6, debs, project
        )  # fmt: skip
        self.folder = registry.fleet_folder(name)
        access = Access(self.folder)
        self._access = access
        self.inventory = inventory or access.inventory
        self.ssh_config, self.known_hosts, self.key = access.ssh_config, access.known_hosts, access.key
        self._hosts: list[Host] = []
        self._outside: Outside | None = None

    @classmethod
    def attach(cls, name: str) -> ContainerHosts:
        """The hosts of a fleet that is there; they are not removed unless `down` is called.

        Raises:
            ContainerError: this user has none of this name.
        """
        try:
            text = (registry.fleet_folder(name) / _DESCRIPTION).read_text()
        except OSError as exc:
            raise ContainerError(f"there is no fleet {name} of this user's") from exc
        described = json.loads(text)
        fleet = cls(**described["settings"], inventory=Path(described["inventory"]))
        fleet._hosts = [Host(**host) for host in described["hosts"]]
        return fleet

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
        return {host.name: host for host in self._hosts}[which]

    def ssh(self, host: str, *command: str) -> list[str]:
        """The argv that runs `command` on `host` with OpenSSH's client."""
        return ["ssh", "-F", str(self.ssh_config), host, "--", *command]

    def up(self) -> None:
        """Make the hosts, and return when all of them answer; fleets that nobody owns go first.

        Raises:
            ImageUnavailable: there is no image and none can be made.
            NameTaken: there is such a fleet.
            NoRoom: the kernel's limits do not allow so many hosts.
            ContainerError: podman or a host failed; nothing is left.
        """
        settings = self.settings
        images = {each: ensure_image(each, settings.variant) for each in set(settings.releases)}
        with registry.machine_lock():
            registry.remove_stale()
            if self.settings.name in registry.find_fleets():
                raise NameTaken(f"there is a fleet {self.settings.name}; take it down first")
            check_room(self.settings.count)
            try:
                self.folder.mkdir(mode=0o700, parents=True)
                network = creation.make_network(self.settings, self.folder)
            except BaseException:
                registry.take_down(self.settings.name)
                raise
        try:
            self._outside = launcher()
            hosts = creation.hosts(self.settings, network, self._outside or launch_here)
            creation.prepare(self.settings, self._access, hosts)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                started = [
                    pool.submit(creation.start, settings, self._access, host, release, images[release])
                    for host, release in zip(hosts, settings.releases, strict=True)
                ]
            for each in started:
                each.result()
            creation.wait(self.settings, hosts)
            self._access.write(
                {host.name: host.addresses for host in hosts}, self.settings.project, self.inventory
            )
            self._describe(hosts)
            self._hosts = hosts
        except BaseException:
            self.down()
            raise

    def keep(self) -> None:
        """Let the fleet outlive this process, until somebody takes it down."""
        write_atomically(self.folder / registry.KEPT, "")

    def down(self) -> None:
        """Remove the hosts, their network and the folder; without effect where there are none.

        Raises:
            ContainerError: podman cannot.
        """
        try:
            self._remove()
        except KeyboardInterrupt:  # whoever is impatient wants an end, not the rest
            self._remove()
            raise

    def forget_inventory(self) -> None:
        """Remove the inventory, wherever it was to be."""
        self.inventory.unlink(missing_ok=True)

    def _remove(self) -> None:
        with registry.machine_lock():
            registry.take_down(self.settings.name)
        self.forget_inventory()
        if self._outside:
            self._outside.close()
        self._hosts, self._outside = [], None

    def _describe(self, hosts: Sequence[Host]) -> None:
        described = {
            "settings": asdict(self.settings),
            "inventory": str(self.inventory),
            "hosts": [host.described() for host in hosts],
        }
        write_atomically(self.folder / _DESCRIPTION, json.dumps(described, indent=1) + "\n")
