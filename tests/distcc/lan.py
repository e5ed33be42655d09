"""A network of one machine: addresses that are not loopback's, where nobody else is. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

LIMIT_S = 60.0


def until(found: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + LIMIT_S
    while not found():
        assert time.monotonic() < end, f"{what} has not come about within {LIMIT_S:g} s"
        time.sleep(0.02)


def missing_reason() -> str:
    """Why there can be none here; empty when there can."""
    if os.geteuid():
        return "only root makes network namespaces"
    lacking = [each for each in ("distcc", "distccd", "ip", "nsenter", "unshare") if not shutil.which(each)]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "no network namespaces here"


class Lan:
    """The namespace; what is started in it ends with it.

    Args:
        folder: for logs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[bytes]] = []
        # Servers run as a user that does not get into a test's folder, and leave files behind.
        self._scratch = tempfile.TemporaryDirectory(prefix="d1fleet-distccd-")
        os.chmod(self._scratch.name, 0o1777)
        self._holder = self._start(["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"], "holder")
        until(lambda: (folder / "holder.log").read_text() == "\n", "a namespace")
        self.run(["ip", "link", "set", "lo", "up"])

    def inside(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--", *argv]

    def run(
        self, argv: Sequence[str], *, check: bool = True, **more: object
    ) -> subprocess.CompletedProcess[str]:
        """A program in the namespace, to its end."""
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            self.inside(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=check,
            **more,
        )

    def d1fleet(
        self, *words: str | Path, cwd: Path, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """d1fleet there, with settings and state of this test's own."""
        own = {
            "XDG_STATE_HOME": str(self.folder / "state"),
            "DISTCC_DIR": str(self.folder / "distcc"),
            **(environ or {}),
        }
        (self.folder / "distcc").mkdir(exist_ok=True)
        argv = [sys.executable, "-m", "d1fleet.cli", *map(str, words)]
        return self.run(argv, check=False, cwd=cwd, env={**os.environ, **own})

    def distccd(
        self,
        address: str,
        *options: str,
        allow: Sequence[str] = ("192.0.2.0/24",),
        environ: Mapping[str, str] | None = None,
    ) -> Path:
        """A compile server at a new address (`::` for all there are); returns its log."""
        if address != "::":
            self.address(address)
        name = f"distccd-{address}"
        argv = ["distccd", "--no-detach", "--daemon", "--user", "distccd", "--listen", address]
        argv += [
            "--log-stderr",
            "--log-level",
            "notice",
            *(word for each in allow for word in ("--allow", each)),
        ]
        self._start(
            self.inside([*argv, *options]),
            name,
            {**os.environ, "TMPDIR": self._scratch.name, **(environ or {})},
        )
        until(
            lambda: ":3632" in self.run(["ss", "-Hltn", "src", f"[{address}]"]).stdout,
            f"distccd at {address}",
        )
        return self.folder / f"{name}.log"

    def address(self, address: str) -> None:
        """One more address of this machine."""
        self.run(["ip", "address", "add", f"{address}/{128 if ':' in address else 32}", "dev", "lo"])

    def _start(
        self, argv: Sequence[str], name: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            started = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True
            )
        self._started.append(started)
        return started

    def close(self) -> None:
        for each in reversed(self._started):
            each.terminate()
        for each in self._started:
            each.wait(LIMIT_S)
        self._scratch.cleanup()


@contextmanager
def lan(folder: Path) -> Iterator[Lan]:
    """A namespace for the time of a test."""
    made = Lan(folder)
    try:
        yield made
    finally:
        made.close()
