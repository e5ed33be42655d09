"""A registry that runs on this machine, as its own command starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 30.0
PORT = 33333


class Running:
    """One registry; started and ended as often as a test wants.

    Args:
        data: its folder, 0700.
        address: on which it listens, with TLS; no loopback address.
        settings: further options of `d1fleet registry serve`.
        inside: what goes before a command so that it runs in another network namespace.
    """

    def __init__(
        self, data: Path, address: str, settings: Sequence[str] = (), inside: Sequence[str] = ()
    ) -> None:
        self.data = data
        self.address = address
        self.url = f"https://{address}:{PORT}"
        self.certificate = data / "registry.crt"
        self._settings = list(settings)
        self._inside = list(inside)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = data.parent / f"{data.name}.log"
        data.mkdir(mode=0o700)
        self.command("registry", "certificate", "--data", str(data), address)

    def command(self, *words: str, check: bool = True, stdin: str = "") -> str:
        """What a command of d1fleet prints."""
        done = subprocess.run(
            [*self._inside, sys.executable, "-m", "d1fleet.cli", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            cwd=ROOT,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def ask(self, *words: str) -> Any:
        """What `d1fleet registry ... --json` answers, by the socket of this machine."""
        return json.loads(self.command("registry", *words, "--data", str(self.data), "--json"))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Returns when it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(*self._inside, sys.executable, "-m", "d1fleet.cli", "registry", "serve"),
                    *("--data", str(self.data), "--listen", self.address, "--port", str(PORT)),
                    *(
                        "--tls-certificate",
                        str(self.certificate),
                        "--tls-key",
                        str(self.data / "registry.key"),
                    ),
                    *self._settings,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        end = time.monotonic() + LIMIT_S
        while self.command("registry", "status", "--data", str(self.data), check=False) == "":
            assert self._process.poll() is None, self.log.read_text()[-2000:]
            assert time.monotonic() < end, "it does not answer: " + self.log.read_text()[-2000:]
            time.sleep(0.1)

    def stop(self) -> None:
        """By SIGTERM."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(LIMIT_S)
            self._process = None

    def kill(self) -> None:
        """Without a last word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(LIMIT_S)
            self._process = None

    def token(self, project: str) -> str:
        """A new join token."""
        return str(self.ask("token", "create", project)["token"])

    def host(self, name: str) -> dict[str, Any]:
        """What operators see of a host."""
        return dict(self.ask("host", "show", name))
