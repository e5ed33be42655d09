"""A gated build by d1fleet, with its record: what the measurements share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import PIPE

from tests.support.sshd import LoopbackSshd

from .builds import Build, BuildFailedError, Folder
from .processes import descendants, servers_below
from .stage import Stage
from .tail import Arrivals, Tail, watch

HOSTS_LIMIT_S = 120.0
"""For all hosts to come up; a guess."""

UP, FAILED = '"host-up"', '"host-failed"'
"""Events of a record."""


@dataclass
class FleetBuild:
    """A running build, and when its hosts came up."""

    build: Build
    events: Arrivals
    sshd: LoopbackSshd | None

    def wait_for_hosts(self, count: int, logs: Arrivals | None = None) -> None:
        """Until so many hosts are up.

        Raises:
            BuildFailedError: one fails, or they are not up in time.
        """
        up, failed = self.events.times[UP], self.events.times[FAILED]
        watched = [self.events] if logs is None else [self.events, logs]
        if not watch(watched, lambda: len(up) >= count or bool(failed), HOSTS_LIMIT_S) or failed:
            raise BuildFailedError(
                f"{len(up)} of {count} hosts are up, {len(failed)} failed; {self.build.last_words()}"
            )

    def server_pids(self) -> list[int]:
        """The d1make servers with their supervisors, on all hosts, as long as no job runs."""
        roots = servers_below(self.sshd.pids) if self.sshd is not None else []
        return roots + [pid for root in roots for pid in descendants(root)]


@contextmanager
def fleet_build(
    stage: Stage,
    folder: Folder,
    make_arguments: Sequence[str],
    hosts: Sequence[str] = (),
    sshd: LoopbackSshd | None = None,
    slots: int = 8,
    more: Sequence[str] = (),
    piped: bool = False,
) -> Iterator[FleetBuild]:
    """Start it; it is ended with the block. Its stdout is a pipe to us, or /dev/null."""
    record = folder.path / "record"
    record.unlink(missing_ok=True)
    stage.forget()
    argv = stage.d1fleet(hosts=hosts, sshd=sshd, record=record, slots=slots, more=more)
    with Build(folder, [*argv, *make_arguments], stage.environment, PIPE if piped else None) as build:
        yield FleetBuild(build, Arrivals([Tail(record)], [UP, FAILED]), sshd)
