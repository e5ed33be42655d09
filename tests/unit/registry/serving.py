"""A registry in a process of its own: `python -m tests.unit.registry.serving CONFIG`; how to start one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvloop

from d1fleet.errors import D1fleetError
from d1fleet.registry import logs
from d1fleet.registry.options import load_options
from d1fleet.registry.serve import serve

# libuv keeps a pipe for signals from its first loop on, for as long as the process lives.
uvloop.new_event_loop().close()

ROOT = Path(__file__).parents[3]


class Served:
    """One that has said that it is ready."""

    def __init__(self, process: subprocess.Popen[str], data: Path, ports: dict[str, int]) -> None:
        self.process = process
        self.data = data
        self.ports = ports

    @property
    def port(self) -> int:
        return self.ports["registry"]

    def local(self) -> httpx.Client:
        """An operator on this machine."""
        transport = httpx.HTTPTransport(uds=str(self.data / "admin.sock"))
        return httpx.Client(transport=transport, base_url="http://registry/api/v1/admin", timeout=20)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, list[dict[str, object]]]:
        """Its exit status, and what it has logged."""
        self.process.send_signal(number)
        _, log = self.process.communicate(timeout=30)
        return self.process.returncode, [json.loads(line) for line in log.splitlines()]


def config(folder: Path, **values: object) -> Path:
    """A file with options; ports that are free."""
    file = folder / "registry.json"
    file.write_text(json.dumps({"data": str(folder / "data"), "port": 0, **values}))  # JSON is YAML
    return file


def start(file: Path, environ: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", __name__, str(file)],
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def served(file: Path, environ: dict[str, str] | None = None) -> Iterator[Served]:
    """A registry that is ready; it is gone afterwards."""
    with start(file, environ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate()
            yield Served(process, Path(json.loads(file.read_text())["data"]), json.loads(line))
        finally:
            process.kill()


def fails(file: Path) -> tuple[int, str]:
    """One that cannot start, in this process: its exit code, and what it says."""

    def ready(ports: dict[str, int]) -> None:
        raise AssertionError(f"it has started: {ports}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "set_up", lambda level: None)
        with pytest.raises(D1fleetError) as caught:
            serve(load_options(config=file), ready)
    return caught.value.exit_code, str(caught.value)


def main() -> int:
    def ready(ports: dict[str, int]) -> None:
        print(json.dumps(ports), flush=True)

    try:
        serve(load_options(config=Path(sys.argv[1])), ready)
    except D1fleetError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
