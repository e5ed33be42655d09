"""Passwords are hashed quickly in tests: a hundred changes would take a tenth of a second each. Databases of
either kind, for tests of the store.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import argon2
import pytest

from d1fleet.registry import credentials
from tests.support.postgres import PostgresCluster, missing_reason
from tests.unit.registry.places import Place, PostgresPlace, SqlitePlace


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=64))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster | None]:
    """A server of PostgreSQL; None where none can be started."""
    if missing_reason():
        yield None
        return
    with PostgresCluster() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def place(
    request: pytest.FixtureRequest, postgres: PostgresCluster | None, tmp_path: Path
) -> Iterator[Place]:
    """Where a store may have its database, of either kind; nothing is there yet."""
    if request.param == "sqlite":
        yield SqlitePlace(tmp_path / "registry.db")
        return
    if postgres is None:
        pytest.skip(missing_reason())
    with contextlib.closing(PostgresPlace(postgres)) as found:
        yield found


@pytest.fixture
def sqlite_place(tmp_path: Path) -> SqlitePlace:
    return SqlitePlace(tmp_path / "registry.db")


@pytest.fixture
def postgres_place(postgres: PostgresCluster | None) -> Iterator[PostgresPlace]:
    if postgres is None:
        pytest.skip(missing_reason())
    with contextlib.closing(PostgresPlace(postgres)) as found:
        yield found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", folder], check=True)
    try:
        yield folder
    finally:
        # What a test that fails leaves open must not keep it.
        subprocess.run(["umount", "-l", folder], check=True)
