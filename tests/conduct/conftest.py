"""What all rows share: a place, an environment, hosts."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sshd import LoopbackSshd, missing_reason

from .judge import Job, read_record
from .rows import Row
from .running import Program, Result, perform

PROGRAM = Path(__file__).with_name("program.py")

OVER_CONTAINERS = {"hosts": "ssh", "hosts-openssh": "openssh"}
"""Ways to reach hosts that are machines of their own."""

LOST_COUNT = b"*** wait: No child processes."
LOST_COUNT_TRIES = 10
"""It happens to about one make in ten that a signal hits; a row has up to four."""


class Stage:
    """Where rows are played. Every run of a row happens at the same path, in the same environment.

    Args:
        folder: for everything; the trees are in `folder`/tree.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = os.fsencode(folder / "tree")
        self.records = folder / "records"
        self._plain: dict[str, Result] = {}
        for name in ("home", "run", "cache"):
            (folder / name).mkdir(mode=0o700)
        self.environment = {
            b"PATH": os.fsencode(self._programs()),
            b"HOME": os.fsencode(folder / "home"),
            b"LANG": b"C.UTF-8",
            b"TERM": b"dumb",
            # Slots and the compiled shim are these tests' own: other builds on this machine do not matter.
            b"XDG_RUNTIME_DIR": os.fsencode(folder / "run"),
            b"XDG_CACHE_HOME": os.fsencode(folder / "cache"),
        }

    def _programs(self) -> str:
        """PATH, with the make that D1FLEET_TEST_MAKE names before the system's, if it does."""
        path = "/usr/local/bin:/usr/bin:/bin"
        make = os.environ.get("D1FLEET_TEST_MAKE")
        if not make:
            return path
        (self.folder / "bin").mkdir()
        for name in ("make", "gmake"):
            (self.folder / "bin" / name).symlink_to(make)
        return f"{self.folder / 'bin'}:{path}"

    def plain(self, row: Row) -> Result:
        """The row under plain make; run once for all transports."""
        if row.name not in self._plain:
            self._plain[row.name] = self.run(row, lambda _: ["make"])
        return self._plain[row.name]

    def fleet(self, row: Row, hosts: list[str]) -> tuple[Result, list[Job]]:
        """The row under `d1fleet build`, and the sub-makes that its record tells of."""
        shutil.rmtree(self.records, ignore_errors=True)
        self.records.mkdir()

        def program(number: int) -> list[str]:
            record = ["--record", str(self.records / str(number))]
            return [sys.executable, str(PROGRAM), "build", *hosts, *record, *row.options]

        result = self.run(row, program)
        return result, [job for path in sorted(self.records.iterdir()) for job in read_record(path)]

    def run(self, row: Row, program: Program) -> Result:
        """The row under any program that takes make's arguments.

        A signal can catch make 4.3 between the end of a child and the notice of it: then it loses count of
        its children, says so, and ends otherwise than it should. Such a run shows nothing, and is made again.
        """
        for _ in range(LOST_COUNT_TRIES):
            result = perform(row, self.root, program, self.environment)
            if LOST_COUNT not in result.out + result.err:
                break
        return result


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("conduct")
    yield Stage(folder)
    shutil.rmtree(folder / "tree", ignore_errors=True)


@pytest.fixture(scope="session")
def hosts(request: pytest.FixtureRequest, stage: Stage) -> Iterator[list[str]]:
    """Options that name hosts, once per transport: this machine, two of loopback SSH by either client, or
    three containers by either.
    """
    if request.param == "pipes":
        yield ["--hosts", ":"]
        return
    if request.param in OVER_CONTAINERS:
        fleet = request.getfixturevalue("container_fleet")
        names = ",".join(host.name for host in fleet)
        options = ["--ssh-config", str(fleet.ssh_config), "--hosts", names]
        yield [*options, "--transport", OVER_CONTAINERS[request.param]]
        return
    pytest.importorskip("d1fleet.transport.ssh", reason="d1fleet has no SSH transport yet")
    if missing_reason():
        pytest.skip(missing_reason())
    variables = f"XDG_RUNTIME_DIR={stage.folder / 'run'} XDG_CACHE_HOME={stage.folder / 'cache'}"
    limits: dict[str, str | int] = {"MaxSessions": 1, "SetEnv": variables}
    with LoopbackSshd(stage.folder / "sshd", ("a", "b"), servers=2, options=limits) as servers:
        yield ["--ssh-config", str(servers.ssh_config), "--hosts", "a,b", "--transport", request.param]
