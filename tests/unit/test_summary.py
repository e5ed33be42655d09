"""What stands in the tables at the end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from d1fleet.outcomes import Counts, ShownJob
from d1fleet.summary import show_summary


def coordinator(*jobs: ShownJob) -> Any:
    """What of a coordinator a summary is made from."""
    return SimpleNamespace(counts=Counts(jobs=list(jobs)), hosts=SimpleNamespace(states=[]))


def test_why_there_is_nothing_to_show(capfd: pytest.CaptureFixture[str]) -> None:
    show_summary(True, coordinator())
    said = capfd.readouterr().err
    assert said.startswith("d1fleet: there were no sub-makes: one flat makefile has none to spread\n")


def test_the_head_names_the_folder(capfd: pytest.CaptureFixture[str]) -> None:
    show_summary(True, coordinator(ShownJob("make -C lib", "lib", "alder", 1.0, "")))
    head, row, *_ = capfd.readouterr().err.splitlines()
    assert head.split() == ["d1fleet:", "sub-make", "folder", "host", "seconds"]
    assert head.index("folder") == row.rindex("lib")
