"""What a fleet is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.containers.recipe import RELEASES, VARIANTS
from tests.containers.subnets import MOST_HOSTS


@dataclass(frozen=True)
class Settings:
    """What a fleet is made of.

    Attributes:
        name: of the fleet, unique on this machine.
        count: of hosts; they are h1, h2, ...
        release: of Debian, for all hosts; or one for each, with commas in between.
        cpus: processors' worth of time for each host, by a quota; 0 for no limit.
        volumes: folders of this machine that are at the same path in every host.
        sshfs: a folder of this machine that the first host has and the others mount from it; "" for none.
        debs: whether .deb files are kept from one fleet to the next.
        project: the hosts' group in the inventory, below `projects`.

    Raises:
        ValueError: they make no fleet.
    """

    name: str
    count: int = 3
    release: str = "bookworm"
    variant: str = "build"
    cpus: float = 0.0
    volumes: Sequence[str] = ()
    sshfs: str = ""
    ipv6: bool = False
    debs: bool = False
    project: str = "test"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", self.name):
            raise ValueError(f"a fleet's name has small letters, digits and dashes only: {self.name!r}")
        if not 1 <= self.count <= MOST_HOSTS:
            raise ValueError(f"a fleet has 1 to {MOST_HOSTS} hosts, not {self.count}")
        if not set(self.releases) <= set(RELEASES) or self.variant not in VARIANTS:
            raise ValueError(f"no image {self.release} {self.variant}; there are {RELEASES} and {VARIANTS}")
        if len(self.releases) != self.count:
            raise ValueError(f"{self.count} hosts, and another number of releases: {self.release}")
        if self.cpus < 0:
            raise ValueError(f"not less than no processor: {self.cpus}")
        if self.sshfs and self.variant == "bare":
            raise ValueError("hosts of the variant 'bare' have no sshfs")
        for path in (*self.volumes, *([self.sshfs] if self.sshfs else [])):
            if not Path(path).is_absolute() or re.search(r"[:\s]", path):
                raise ValueError(f"a shared folder is absolute, without colon or space: {path!r}")

    @property
    def releases(self) -> Sequence[str]:
        """Of each host."""
        named = self.release.split(",")
        return named * self.count if len(named) == 1 else named
