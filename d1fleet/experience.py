"""What past builds taught a build, and what it adds at its end."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from . import history_file
from .history import History, Known, job_key
from .machines import Machine
from .words import LONGEST


class Experience:
    """The history, as one build uses it.

    Args:
        project: of the inventory.
        tree: the folder of the build: what lies below is the same job in another checkout.
        history: for tests; the user's own without.
    """

    def __init__(self, project: str, tree: bytes, history: History | None = None) -> None:
        self._project = project
        self._tree = tree
        self._history = history_file.load_history() if history is None else history

    def key(self, folder: bytes, arguments: Sequence[bytes]) -> bytes:
        """What names a job over builds."""
        return job_key(self._project, self._tree, folder, arguments[1:])

    def of_job(self, key: bytes) -> Known | None:
        """What is known of a job."""
        return self._history.job(key)

    def of_machine(self, machine: Machine, *names: str) -> None:
        """Tell a machine that joins how fast it has been."""
        for name in names:
            known = self._history.host(name)
            if known is not None:
                machine.speed, machine.sureness = known.speed, known.sureness
                return

    def ran(self, key: bytes, work_s: float, host: str) -> None:
        """A job ran well; `work_s` is what it takes on a host of speed 1."""
        self._history.ran(key, work_s, None, host, time.time())

    def keep(self, machines: Mapping[str, Machine]) -> None:
        """Save it, with the speeds of machines by all their names."""
        for name, machine in machines.items():
            for each in {name, *(host.name for host in machine.names)}:
                self._history.is_fast(each, machine.speed, machine.sureness, time.time())
        history_file.save_history(self._history)


def goal_of(arguments: Sequence[bytes]) -> str:
    """What jobs are taken to be alike by: the goals, without the folder that they are made in."""
    return " ".join(os.fsdecode(goal) for goal in arguments)[:LONGEST]
