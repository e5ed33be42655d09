"""A registry that runs on this machine without TLS, and hosts that check in there from any address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 30.0
PASSWORD = "correct horse battery"

_CODE = """
import json, os, sys
from pathlib import Path
from d1fleet.registry.options import Options
from d1fleet.registry.serve import serve

def ready(ports):
    os.write(1, json.dumps(ports).encode() + b"\\n")
    os.close(1)

options = json.loads(sys.argv[3])
serve(Options(Path(sys.argv[1]), port=int(sys.argv[2]), forwarded_from=("127.0.0.1/32",), **options), ready)
"""


class Registry:
    """One registry; started and ended as often as a test wants. It believes who says that it is a proxy."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._data = folder / "data"
        self._log = folder / "registry.log"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it answers; at the port that it had before."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, str(self._data), str(self.port), json.dumps(self._options)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            line = lines.readline()
        assert line, self._log.read_text()[-2000:]
        self.port = json.loads(line)["registry"]

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(LIMIT_S)
            self._process = None

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """By the socket of this machine, where everybody is an operator."""
        transport = httpx.HTTPTransport(uds=str(self._data / "admin.sock"))
        with httpx.Client(transport=transport, base_url="http://registry", timeout=LIMIT_S) as client:
            answer = client.request(method, f"/api/v1/admin{path}", json=body)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def operator(self, name: str, kind: str = "operator") -> None:
        self.ask("POST", "/operators", {"name": name, "password": PASSWORD, "kind": kind})

    def project(self, name: str, **settings: Any) -> None:
        self.ask("POST", "/projects", {"name": name, "ranges": ["192.0.2.0/24"], **settings})

    def token(self, project: str) -> str:
        return str(self.ask("POST", f"/projects/{project}/tokens", {})["token"])


class Host:
    """One that checks in, as its agent would."""

    _made = 0

    def __init__(self, registry: Registry, name: str, address: str, **report: Any) -> None:
        Host._made += 1
        self.name = name
        self._registry = registry
        self._address = address
        self._credential = ""
        self._report = {
            "session": f"{Host._made:032x}",
            "sequence": 0,
            "owner": "ada",
            "addresses": [address],
            "slots": 8,
            "port": 3632,
            "ssh_port": 22,
            "serving": True,
            "version": "0.1.0",
            "system": "Debian GNU/Linux 12",
            "machine": name.encode().hex().ljust(64, "0")[:64],
            "host_keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJpyHUJJC5fIsr5UkWdQ9CNJT7ZPwtMRfSDTu4qmPSMC"],
            "toolchain": {
                "machine": "x86_64",
                "cc": "cc (Debian 12.2.0-14) 12.2.0 [cc1 0f3a9be1c2d4]",
                "ld": "GNU ld (GNU Binutils for Debian) 2.40 [112233445566]",
            },
            "jobs": 0,
            "load_others_cpus": 0.4,
            "load_1min": 0.7,
            "memory_available_bytes": 21 << 30,
            "memory_bytes": 32 << 30,
            "disk_free_bytes": 310 << 30,
            "error": "",
            **report,
        }

    def _send(self, path: str, body: dict[str, Any], credential: str = "") -> httpx.Response:
        headers = {"X-Forwarded-For": self._address}
        if credential:
            headers["Authorization"] = f"Bearer {credential}"
        return httpx.post(f"{self._registry.url}/api/v1{path}", json=body, headers=headers, timeout=LIMIT_S)

    def _next(self, values: dict[str, Any]) -> dict[str, Any]:
        self._report.update(values, sequence=self._report["sequence"] + 1)
        return self._report

    def join(self, token: str) -> Host:
        answer = self._send(
            "/join", {"token": token, "name": self.name, "report": self._next({})}, self._credential
        )
        assert answer.status_code == 201, answer.text
        self._credential = answer.json()["credential"]
        return self

    def beat(self, status: int = 200, **values: Any) -> Any:
        """Check in; `values` stay."""
        answer = self._send("/checkin", {"report": self._next(values), "known": {}}, self._credential)
        assert answer.status_code == status, answer.text
        return answer.json()

    def leave(self) -> None:
        assert self._send("/leave", {"for_good": False}, self._credential).status_code == 204
