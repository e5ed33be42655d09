"""Shortages of a host, while a sub-make ran there."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from d1fleet.server import shortage

ROOMY = SimpleNamespace(f_blocks=1 << 30, f_bavail=1 << 30, f_frsize=4096)


@pytest.mark.parametrize(
    ("killed", "disk", "found"),
    [
        (0, ROOMY, ""),
        (1, ROOMY, "memory"),
        (0, SimpleNamespace(f_blocks=1 << 30, f_bavail=1000, f_frsize=4096), "room"),
        (0, SimpleNamespace(f_blocks=0, f_bavail=0, f_frsize=4096), ""),  # it does not count
    ],
)
def test_what_was_short(
    monkeypatch: pytest.MonkeyPatch, killed: int, disk: SimpleNamespace, found: str
) -> None:
    before = shortage.kills()
    monkeypatch.setattr(shortage, "kills", lambda: before + killed)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    assert shortage.shortage(before, b"/") == found


def test_a_folder_that_is_gone() -> None:
    assert shortage.shortage(shortage.kills(), b"/nonexistent") == ""
