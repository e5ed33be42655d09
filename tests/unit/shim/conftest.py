from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d1fleet.interpose import _compilers, find_make, install_shim, make_environment

from .coordinator import TIMEOUT_S, Coordinator

SYSTEM_PATH = "/usr/bin:/bin"


@pytest.fixture(autouse=True)
def no_signal_ignored() -> Iterator[None]:
    """A test run in a shell's background, or under nohup, would hand its ignored signals to every shim."""
    candidates = signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ}  # Python's own
    ignored = [n for n in candidates if signal.getsignal(n) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session", params=["c", "python"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "c" and next(_compilers(), None) is None:
        pytest.skip("there is no C compiler here")
    return str(request.param)


@pytest.fixture(scope="session")
def shim_dir(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"shim-{kind}")
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D1FLEET_SHIM_KIND", kind)
        return install_shim(folder / "cache", folder / "bin")


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    coordinator = Coordinator(tmp_path / "socket")
    yield coordinator
    coordinator.close()


@pytest.fixture
def real_make(tmp_path: Path) -> Path:
    """Stands in for the real make: tells that it ran, as which program, and with what."""
    program = tmp_path / "real" / "make"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "ran %s:" "$0"\nprintf " <%s>" "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def environ(coordinator: Coordinator, real_make: Path, shim_dir: Path) -> dict[str, str]:
    return make_environment(
        {"PATH": SYSTEM_PATH}, socket=coordinator.path, real_make=real_make, shim_dir=shim_dir
    )


class Shims:
    """Starts shims as a recipe's shell would; whatever a test forgets is killed and fails it."""

    def __init__(self, folder: Path, environ: dict[str, str], cwd: Path) -> None:
        self.folder = folder
        self.environ = environ
        self.cwd = cwd
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *args: str | bytes, name: str = "make", **how: Any) -> subprocess.Popen[bytes]:
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **how}
        how.setdefault("env", self.environ)
        how.setdefault("cwd", self.cwd)
        how.setdefault("executable", self.folder / os.path.basename(name))
        process = subprocess.Popen([name, *args], **how)
        self._started.append(process)
        return process

    def run(self, *args: str | bytes, **how: Any) -> tuple[int, bytes, bytes]:
        return self.end(self.start(*args, **how))

    def end(self, process: subprocess.Popen[bytes]) -> tuple[int, bytes, bytes]:
        out, err = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, out or b"", err or b""

    def finish(self) -> None:
        forgotten = [process for process in self._started if process.returncode is None]
        for process in forgotten:
            process.kill()
            process.communicate(timeout=TIMEOUT_S)
        assert not forgotten


@pytest.fixture
def shims(shim_dir: Path, environ: dict[str, str], tmp_path: Path) -> Iterator[Shims]:
    shims = Shims(shim_dir, environ, tmp_path)
    yield shims
    shims.finish()


@pytest.fixture(scope="session")
def plain_make() -> str:
    return str(find_make({"PATH": SYSTEM_PATH}))
