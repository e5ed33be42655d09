"""Which fleets there are, from podman's labels alone, and how to be rid of one whatever state it is in."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.containers.debs import take_back
from tests.containers.errors import ContainerError, NotOurs
from tests.containers.links import delete_ports
from tests.containers.owner import Owner
from tests.containers.podman import podman, podman_json
from tests.support.debsource import default_cache, file_lock

PREFIX = "d1fleet-tests-"
"""Of the names of our containers and networks."""

FLEET, OWNER, FOLDER = "d1fleet.tests.fleet", "d1fleet.tests.owner", "d1fleet.tests.folder"
"""Labels of every container and network of ours."""

KEPT = "kept"
"""A file in the folder of a fleet that outlives the process that made it."""

_FOLDERS = "fleets"
_LOCK = Path("/run/lock/d1fleet-tests")
_CNI_LEASES = Path("/var/lib/cni/networks")


@dataclass
class Found:
    """A fleet as podman knows it; any part of it may be missing."""

    name: str
    owner: Owner | None = None
    folder: Path | None = None
    containers: dict[str, str] = field(default_factory=dict)
    """States by name: running, paused, exited, created."""
    networks: list[str] = field(default_factory=list)
    bridges: list[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        return self.folder is not None and (self.folder / KEPT).exists()

    @property
    def stale(self) -> bool:
        """Whether nobody will remove it."""
        return not self.kept and not (self.owner and self.owner.is_alive())


@contextmanager
def machine_lock() -> Iterator[None]:
    """Alone in choosing addresses and in removing, on the whole machine: podman's store is one."""
    with file_lock(_LOCK):
        yield


def labels(name: str, folder: Path) -> list[str]:
    """Podman's arguments that mark something as part of a fleet, owned by this process."""
    pairs = ((FLEET, name), (OWNER, Owner.me()), (FOLDER, folder))
    return [f"--label={key}={value}" for key, value in pairs]


def find_fleets() -> dict[str, Found]:
    """All fleets of this machine by name, whoever made them."""
    fleets: dict[str, Found] = {}
    for one in podman_json("ps", "--all", "--filter", f"label={FLEET}", "--format", "json"):
        found = _add(fleets, one.get("Labels"))
        found.containers[one["Names"][0]] = one["State"]
    names = podman("network", "ls", "--quiet", "--filter", f"label={FLEET}").stdout.split()
    for one in podman_json("network", "inspect", *names) if names else ():
        found = _add(fleets, one.get("labels"))
        found.networks.append(one["name"])
        found.bridges.append(one["network_interface"])
    return dict(sorted(fleets.items()))


def remove(found: Found) -> None:
    """Remove a fleet's containers, links, networks and folder, in whatever state they are.

    Raises:
        ContainerError: podman cannot; what could be removed is gone.
    """
    for name, state in found.containers.items():
        if state == "paused":  # what is frozen cannot die
            podman("unpause", name, check=False)
    if found.containers:
        arguments = ["rm", "--force", "--time=0", "--ignore", "--volumes", *found.containers]
        if podman(*arguments, check=False).status:
            podman(*arguments)  # one that was just ending may refuse once
    for bridge in found.bridges:
        delete_ports(bridge)
    for network in found.networks:
        podman("network", "rm", "--force", network)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(_CNI_LEASES / network)
    if found.folder and found.folder.exists():
        _remove_folder(found.folder, found.name)


def take_down(name: str) -> bool:
    """Remove a fleet by its name, whoever made it, and a folder without one; false if there was neither.

    Raises:
        ContainerError: podman cannot.
    """
    found, folder = find_fleets().get(name), fleet_folder(name)
    there = found is not None or folder.exists()
    if found is not None:
        remove(found)
    if folder.exists():
        _remove_folder(folder, name)
    return there


def remove_stale() -> list[str]:
    """Remove the fleets whose owner is gone, and folders without a fleet; returns their names.

    Raises:
        ContainerError: podman cannot.
    """
    fleets = find_fleets()
    stale = [found for found in fleets.values() if found.stale]
    for found in stale:
        remove(found)
    # A fleet has a network before anybody else may look, so what has none was left half-made.
    rest = [path for path in fleet_folder("").glob("*") if path.name not in fleets]
    for path in rest:
        _remove_folder(path, path.name)
    return sorted({found.name for found in stale} | {path.name for path in rest})


def fleet_folder(name: str) -> Path:
    """Where the files of a fleet lie that this user's processes make."""
    return default_cache() / _FOLDERS / name


def _remove_folder(folder: Path, name: str) -> None:
    if folder.name != name or folder.parent.name != _FOLDERS or folder.is_symlink():
        raise NotOurs(f"not removed: {folder} is no folder of the fleet {name}")
    take_back(folder)
    shutil.rmtree(folder)


def _add(fleets: dict[str, Found], marks: dict[str, Any] | None) -> Found:
    marks = marks or {}
    name = marks.get(FLEET)
    if not name:
        raise ContainerError(f"podman's filter gave something without the label {FLEET}: {marks}")
    found = fleets.setdefault(name, Found(name))
    found.owner = found.owner or Owner.parse(marks.get(OWNER, ""))
    found.folder = Path(marks[FOLDER]) if marks.get(FOLDER) else found.folder
    return found
