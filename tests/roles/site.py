"""Bare hosts, their builders, and the plays that a module runs on them."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.containers import ContainerHosts, Host, ImageUnavailable, missing_reason
from tests.roles.roles import Play, play
from tests.support import sshclient


@dataclass
class Site:
    """Hosts, and a folder for what belongs to one module's plays.

    Attributes:
        playbook: below the checkout, or an absolute path.
        killed_when: as `roles.play` takes it.
    """

    hosts: ContainerHosts
    folder: Path
    playbook: str = "site.yml"
    killed_when: Callable[[], bool] | None = None

    @property
    def inventories(self) -> list[str | Path]:
        return ["--inventory", self.hosts.inventory, "--inventory", self.folder / "more"]

    def play(self, *arguments: str, **variables: Any) -> Play:
        """The playbook; variables beat those of the inventory."""
        more = ["--extra-vars", json.dumps(variables)] if variables else []
        environment = {"XDG_CACHE_HOME": str(self.folder)}
        return play(
            *self.inventories,
            *arguments,
            *more,
            controls=self.folder / "c",
            playbook=self.playbook,
            environment=environment,
            killed_when=self.killed_when,
        )

    def on(self, host: Host | str, command: str, *, check: bool = True) -> str:
        """What a command prints, run by root's shell there over a new connection."""
        name = host if isinstance(host, str) else host.name
        argv = self.hosts.ssh(name, f"sh -c {shlex.quote(command)}")
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=check, timeout=120
        )
        return done.stdout

    def everywhere(self, command: str) -> list[str]:
        return [self.on(host, command) for host in self.hosts]


@contextmanager
def bare_site(
    name: str,
    folder: Path,
    builders: Callable[[str], list[dict[str, Any]]],
    playbook: str = "site.yml",
    *,
    count: int = 3,
    variant: str = "bare",
    release: str = "bookworm",
    volumes: Sequence[Path] = (),
) -> Iterator[Site]:
    """Hosts in a project `demo`; the test is skipped where there can be none.

    Args:
        builders: d1fleet_builders, given the public half of the key `folder`/builder.
        count, variant, release, volumes: as `ContainerHosts` takes them.
    """
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    key = folder / "builder"
    sshclient.make_key(key)
    variables = folder / "more" / "group_vars"
    variables.mkdir(parents=True)
    people = builders(key.with_suffix(".pub").read_text().strip())
    (variables / "projects.yml").write_text(yaml.safe_dump({"d1fleet_builders": people}))
    (folder / "more" / "hosts.yml").write_text("projects:\n")
    try:
        with ContainerHosts(
            name, count=count, variant=variant, release=release, volumes=volumes, project="demo"
        ) as hosts:
            yield Site(hosts, folder, playbook)
    except ImageUnavailable as error:
        pytest.skip(str(error))
