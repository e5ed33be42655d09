"""What measurements stand on: a temporary folder, loopback SSH servers, and how contestants are called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.sshd import LoopbackSshd

from .builds import Folder

ROOT = Path(__file__).resolve().parent.parent

_NOT_OURS = (
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEFILES",
    "GNUMAKEFLAGS",
    "MAKE",
    "MAKE_TERMOUT",
    "MAKE_TERMERR",
)
_PREFIXES = ("D1FLEET_", "D1MAKE_", "ANSIBLE_", "PYTHON")
"""PYTHON too: PYTHONDONTWRITEBYTECODE alone would add a tenth of a second to each start."""


@dataclass
class Stage:
    """One run of the benchmarks.

    Args:
        scratch: a temporary folder.
        quick: try everything with tiny counts; the figures mean nothing.
    """

    scratch: Path
    quick: bool = False
    _folders: int = field(default=0, init=False)

    def few(self, full: int, quick: int) -> int:
        """A count for a real run, or for a quick one."""
        return quick if self.quick else full

    @property
    def environment(self) -> dict[str, str]:
        """For contestants: nothing of the caller's make or d1fleet, and caches and locks of our own."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in _NOT_OURS and not name.startswith(_PREFIXES)
        }
        places = {f"XDG_{name.upper()}_HOME": str(self.scratch / name) for name in ("cache", "state")}
        return {**kept, "PYTHONPATH": str(ROOT), **places, **self._here}

    def forget(self) -> None:
        """Let the next build know nothing of those before: what is short would stay here."""
        shutil.rmtree(self.scratch / "state", ignore_errors=True)

    @property
    def _here(self) -> dict[str, str]:
        runtime = self.scratch / "run"
        runtime.mkdir(mode=0o700, exist_ok=True)
        return {"XDG_RUNTIME_DIR": str(runtime)}

    def folder(self, leaf: str = "@:") -> Folder:
        """A new folder for builds."""
        self._folders += 1
        return Folder(self.scratch / f"tree{self._folders}", leaf)

    @contextmanager
    def servers(self, aliases: Sequence[str], count: int = 1, **options: str | int) -> Iterator[LoopbackSshd]:
        """Loopback SSH servers. Their logins have an empty home: a .bashrc costs `ssh -S` at each job."""
        self._folders += 1
        home = self.scratch / "home"
        home.mkdir(mode=0o700, exist_ok=True)
        words = {"HOME": str(home), **self._here}
        setenv = " ".join(f"{name}={value}" for name, value in words.items())
        folder = self.scratch / f"sshd{self._folders}"
        with LoopbackSshd(folder, aliases, servers=count, options={"SetEnv": setenv, **options}) as servers:
            yield servers

    def d1fleet(
        self,
        *,
        hosts: Sequence[str] = (),
        sshd: LoopbackSshd | None = None,
        record: Path | None = None,
        slots: int = 8,
        more: Sequence[str] = (),
    ) -> list[str]:
        """The argv of `d1fleet build`; make's own arguments follow. ":" is this machine over pipes."""
        argv = [sys.executable, "-m", "d1fleet.cli", "build", "--quiet", "--strict", "--slots", str(slots)]
        if hosts:
            argv += ["--hosts", ",".join(hosts)]
        if sshd is not None:
            argv += ["--ssh-config", str(sshd.ssh_config)]
        if record is not None:
            argv += ["--record", str(record)]
        return [*argv, *more]


@contextmanager
def multiplexed(sshd: LoopbackSshd, alias: str, control: Path) -> Iterator[list[str]]:
    """A master connection of OpenSSH's client; gives the argv that uses it."""
    ssh = ["ssh", "-F", str(sshd.ssh_config), "-S", str(control)]
    # Its own errors would only repeat what the checks below say.
    master = subprocess.Popen(
        [*ssh, "-o", "ControlMaster=yes", "-N", alias], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        check = [*ssh, "-O", "check", alias]
        while subprocess.run(check, capture_output=True, check=False).returncode != 0:
            if master.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("ssh's master connection does not come up")
            time.sleep(0.05)
        yield [*ssh, alias]
    finally:
        master.terminate()
        master.wait()
