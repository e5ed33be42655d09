"""Who a fleet belongs to: a process, told apart from a later one of the same number."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Owner:
    """A process by its number, its start in clock ticks since the boot, and the boot's id: proc(5)."""

    pid: int
    started_ticks: int
    boot: str

    @classmethod
    def me(cls) -> Owner:
        pid = os.getpid()
        return cls(pid, _started(pid), _boot())

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that `str` wrote down; None when this is none."""
        pid, _, rest = text.partition(":")
        ticks, _, boot = rest.partition(":")
        return cls(int(pid), int(ticks), boot) if pid.isdigit() and ticks.isdigit() else None

    def __str__(self) -> str:
        return f"{self.pid}:{self.started_ticks}:{self.boot}"

    def is_alive(self) -> bool:
        """Whether that very process still runs; one that waits to be reaped does not."""
        try:
            return self.boot == _boot() and self.started_ticks == _started(self.pid)
        except OSError:
            return False


def _started(pid: int) -> int:
    """Raises ProcessLookupError for a zombie too."""
    # The second field is a program's name and may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
