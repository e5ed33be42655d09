"""The registry itself, as a process of its own on a free port of 127.0.0.1."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Service:
    """One that answers.

    Attributes:
        data: its folder.
        certificate: "" without TLS.
    """

    url: str
    data: Path
    certificate: str
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> Path:
        return self.data / "admin.sock"


@contextmanager
def service(data: Path, *options: str, tls: bool = False) -> Iterator[Service]:
    """Start one, and end it by SIGTERM.

    Args:
        options: further ones of `d1fleet registry serve`.
        tls: with a certificate of its own, made in `data` by `d1fleet registry certificate`.
    """
    # Not what lies in /etc/d1fleet of the machine that runs the tests.
    config = data.with_suffix(".yml")
    config.write_text("{}\n")
    command = [sys.executable, "-m", "d1fleet.cli", "registry"]
    here = ["--config", str(config), "--data", str(data)]
    certificate = ""
    if tls:
        subprocess.run([*command, "certificate", "127.0.0.1", *here], check=True, capture_output=True)
        certificate = str(data / "registry.crt")
        options = (*options, "--tls-certificate", certificate, "--tls-key", str(data / "registry.key"))
    process = subprocess.Popen(
        [*command, "serve", *here, "--port", "0", *options],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ,
    )
    assert process.stderr is not None
    said = []
    try:
        for line in process.stderr:
            said.append(line)
            if line.startswith(b"{") and json.loads(line).get("message") == "ready":
                port = json.loads(line)["port"]
                break
        else:
            raise AssertionError(b"".join(said).decode())
        yield Service(f"http{'s' * tls}://127.0.0.1:{port}", data, certificate, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.stderr.read()  # so that it does not wait for a reader
        process.wait(20)
        process.stderr.close()
