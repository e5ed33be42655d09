"""What stands in the tables at the end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from d1fleet.outcomes import Counts, ShownJob
from d1fleet.summary import show_summary
from d1fleet.unseen import Call


def coordinator(*jobs: ShownJob) -> Any:
    """What of a coordinator a summary is made from."""
    hosts = SimpleNamespace(states=[("north", "ok"), ("east", "ok")], same_machines=[["north", "east"]])
    return SimpleNamespace(counts=Counts(jobs=list(jobs)), hosts=hosts)


def test_why_there_is_nothing_to_show(capfd: pytest.CaptureFixture[str]) -> None:
    show_summary(True, coordinator())
    said = capfd.readouterr().err
    assert said.startswith("d1fleet: there were no sub-makes: one flat makefile has none to spread\n")


def test_what_came_by_is_no_reason_to_call_a_makefile_flat(capfd: pytest.CaptureFixture[str]) -> None:
    show_summary(True, coordinator(), [Call("/usr/bin/make -C x", "/p", "it was called by a path")])
    said = capfd.readouterr().err
    assert "flat" not in said
    assert "1 sub-make at least ran on this machine without asking d1fleet" in said


def test_what_stayed_on_a_host_counts_there_and_names_of_one_machine_are_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    shown = coordinator(ShownJob("make -C lib", "lib", "north", None, "stayed there: tiny"))
    shown.counts.stayed["north"] = 3
    show_summary(True, shown)
    said = capfd.readouterr().err
    assert "stayed there: tiny" in said
    assert "... and 2 more" in said
    assert "north  0          0       3       ok" in said
    assert "north and east are one machine: they share its slots" in said


def test_the_head_names_the_folder(capfd: pytest.CaptureFixture[str]) -> None:
    show_summary(True, coordinator(ShownJob("make -C lib", "lib", "alder", 1.0, "")))
    head, row, *_ = capfd.readouterr().err.splitlines()
    assert head.split() == ["d1fleet:", "sub-make", "folder", "host", "seconds"]
    assert head.index("folder") == row.rindex("lib")
