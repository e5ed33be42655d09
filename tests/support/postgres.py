"""A PostgreSQL server for tests: a cluster and a socket in a temporary folder, never the system's own."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

START_TIMEOUT_S = 60
"""Until a server listens, or has ended; a guess, for a machine that is busy."""

USER = "registry"
LOCKED_USER = "locked"
"""Has to show a password; the other one has not."""


def _program(name: str) -> str:
    places = [
        os.environ.get("PATH", ""),
        *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    ]
    return shutil.which(name, path=":".join(places)) or ""


def missing_reason() -> str:
    """Why no server can be started here, or "" when one can."""
    if not _program("initdb") or not _program("postgres"):
        return "no initdb, postgres (package postgresql)"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "PostgreSQL does not run as root, and there is no user postgres (package postgresql)"
    return ""


class PostgresCluster:
    """A server. Nothing of it is on the disk for good: it is quick, and forgets when the machine dies."""

    def __init__(self) -> None:
        self.folder = Path(
            tempfile.mkdtemp(prefix="d1pg-", dir="/tmp")
        )  # short: a socket's path has 107 bytes
        self.data = self.folder / "data"
        self._user = "postgres" if os.geteuid() == 0 else None
        self._groups: list[str] | None = [] if self._user else None
        self._numbers = itertools.count(1)
        if self._user:
            shutil.chown(self.folder, self._user)
        self._server: subprocess.Popen[bytes] | None = None
        options = ["-D", str(self.data), "-N", "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C"]
        subprocess.run(
            [_program("initdb"), *options, "--no-instructions"],
            user=self._user,
            group=self._user,
            extra_groups=self._groups,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=2 * START_TIMEOUT_S,
        )
        hba = self.data / "pg_hba.conf"
        hba.write_text(f"local all {LOCKED_USER} scram-sha-256\n{hba.read_text()}")
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.folder}'\nfsync = off\n"
                # A worker that begins during a test would be taken for one that the test has left.
                "autovacuum = off\nmax_connections = 30\nshared_buffers = 16MB\nmax_worker_processes = 0\n"
                "max_parallel_workers = 0\njit = off\n"
            )

    def __enter__(self) -> PostgresCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [_program("postgres"), "-D", self.data],
                user=self._user,
                group=self._user,
                extra_groups=self._groups,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.stop("immediate")
                raise RuntimeError(f"postgres does not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        """It says so in the last line of its file (src/include/utils/pidfile.h)."""
        try:
            return (self.data / "postmaster.pid").read_text().split("\n")[7].strip() == "ready"
        except (FileNotFoundError, IndexError):
            return False

    def stop(self, mode: str = "fast") -> None:
        """Args:
        mode: "fast", or "immediate" as after a crash.
        """
        if self._server is not None:
            self._server.send_signal({"fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
            self._server.wait(START_TIMEOUT_S)
            self._server = None

    def url(self, database: str, user: str = USER, password: str = "", folder: Path | None = None) -> str:
        """For a store.

        Args:
            folder: where the socket is, of something that stands in between.
        """
        name = f"{user}:{password}" if password else user
        return f"postgresql+psycopg://{name}@/{database}?host={folder or self.folder}"

    def new_database(self) -> str:
        """The name of a new one."""
        name = f"d{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def connect(self, database: str = "postgres") -> psycopg.Connection[Any]:
        return psycopg.connect(host=str(self.folder), user=USER, dbname=database, autocommit=True)

    def sql(
        self, statement: str, values: Sequence[object] | None = None, database: str = "postgres"
    ) -> list[Any]:
        """Do something as the server's owner; rows, where it gives any."""
        with contextlib.closing(self.connect(database)) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def end_sessions(self, database: str) -> int:
        """End all that others have in a database; returns how many."""
        ended = self.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            f" WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )
        return len(ended)


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """A server must not outlive tests that are killed: prctl(2)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
