"""Passwords are hashed quickly in tests: a hundred changes would take a tenth of a second each."""

from __future__ import annotations

import argon2
import pytest

from d1fleet.registry import credentials


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_HASHER", argon2.PasswordHasher(time_cost=1, memory_cost=64))
