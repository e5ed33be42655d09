"""`d1fleet chaos` on a fleet of this machine's own hosts, reached over SSH."""

from __future__ import annotations

import random
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from d1fleet.build import fleet_of
from d1fleet.chaos import Chaos, Outcome, Peace
from d1fleet.chaos_faults import BY_NAME
from d1fleet.cli.main import build
from d1fleet.settings import Settings, load_settings
from tests.chaos.tree import make_tree
from tests.kill.fleet import SHORT, Times, private_sshd

HOSTS = ("alder", "birch", "cedar")

SLOTS = 8
"""More than the -j: all are this machine and share them, and one that is frozen must not keep all of them."""

UNPROTECTED = (sys.executable, str(Path(__file__).with_name("unprotected.py")), "build")


class Trial:
    """A tree, and hosts that can be broken while it is built.

    Args:
        chaos: the library's end of it.
        arguments: options for the command line, the same.
    """

    def __init__(self, chaos: Chaos, arguments: Sequence[str], tree: Path) -> None:
        self.chaos = chaos
        self.arguments = list(arguments)
        self.tree = tree
        self.said: list[str] = []
        self._peace: Peace | None = None

    @property
    def peace(self) -> Peace:
        """The build without faults, once."""
        if self._peace is None:
            self._peace = self.chaos.peace()
            self.chaos.connect()
            assert not self._peace.apart
        return self._peace

    def strike(self, name: str) -> Outcome:
        """One build with this fault."""
        return self.chaos.strike(BY_NAME[name], self.peace)


def options(hosts: Sequence[str], ssh_config: Path, times: Times | None = SHORT) -> list[str]:
    """As they are typed; the leases that users have where there are no `times`."""
    return ["--hosts", ",".join(hosts), "--ssh-config", str(ssh_config), *(times.options() if times else [])]


def settings_of(typed: Sequence[str], tree: Path) -> Settings:
    """What they mean."""
    given = build.make_context("build", list(typed)).params
    return load_settings({name: given[name] for name in given if given[name]}, environ={}, folder=tree)


@contextmanager
def trial(folder: Path, seed: int, protected: bool = True, times: Times | None = SHORT) -> Iterator[Trial]:
    """A trial in a folder; the hosts are gone at the end."""
    tree = folder / "tree"
    make_tree(tree)
    sshd_folder = folder / "sshd"
    sshd_folder.mkdir(parents=True)
    with private_sshd(sshd_folder, HOSTS) as sshd:
        typed = options([f"{name}/{SLOTS}" for name in HOSTS], sshd.ssh_config, times)
        settings = settings_of(typed, tree)
        with Chaos(
            settings,
            fleet_of(settings),
            tree,
            ["-j6"],
            typed,
            lambda _: None,
            rng=random.Random(seed),
            **({} if protected else {"build": UNPROTECTED}),
        ) as chaos:
            yield Trial(chaos, typed, tree)


def shown(outcome: Outcome) -> str:
    """For the message of a test that fails."""
    return shlex.join(
        map(str, (outcome.fault.name, outcome.host, outcome.recipe, outcome.exits, outcome.wrong))
    )
