"""Reports are such as the registry takes."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from d1fleet.checkin import config, facts, report
from d1fleet.checkin.report import Durable, Fleeting, Meter, Reporter
from d1fleet.registry import model
from d1fleet.server.load import LoadMeter, usable_cpus
from tests.unit.checkin.documents import NETWORKS

SETTINGS = config.Configuration(config.Registry("192.0.2.1", 33333, True), "", NETWORKS, owner="ada")
NOTHING = Durable((), 1, False, ())


def accepted(found: dict[str, Any]) -> model.Report:
    """As the registry reads it: every field is there, and no other."""
    assert set(found) == {field.name for field in dataclasses.fields(model.Report)}
    lists = {"addresses", "host_keys"}
    words: dict[str, Any] = {name: tuple(value) if name in lists else value for name, value in found.items()}
    return model.Report(**words)


def test_the_registry_takes_what_is_reported() -> None:
    known = report.durable(SETTINGS, {"cc": "gcc 12"})
    reporter = Reporter("0" * 64)
    found = accepted(reporter.report(SETTINGS, known, Meter().sample()))
    assert (found.owner, found.slots, found.toolchain) == ("ada", usable_cpus(), {"cc": "gcc 12"})
    assert found.memory_available_bytes > 0 and found.disk_free_bytes > 0 and found.load_1min >= 0
    again = accepted(reporter.report(SETTINGS, known, Fleeting()))
    assert (again.session, again.sequence) == (found.session, 2)
    assert accepted(Reporter("0" * 64).report(SETTINGS, known, Fleeting())).session != found.session


@pytest.mark.parametrize("error", ["a\nb\0c\x1b[2J", "x" * 5000, "\ud800", ""])
def test_what_went_wrong_is_said_so_that_it_can_be_read(error: str) -> None:
    found = accepted(Reporter("0" * 64).report(SETTINGS, NOTHING, Fleeting(), error))
    assert bool(found.error) == bool(error)


def test_slots_that_are_set_count() -> None:
    assert report.durable(dataclasses.replace(SETTINGS, slots=3), {}).slots == 3


def test_a_quota_makes_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "usable_cpus", lambda *_: 2)
    assert report.durable(SETTINGS, {}).slots == 2
    monkeypatch.setattr(report, "usable_cpus", lambda *_: 1 << 20)
    assert report.durable(SETTINGS, {}).slots == 4096


def test_load_is_that_of_others() -> None:
    meter = Meter()
    first = meter.sample()
    with subprocess.Popen(["sh", "-c", "while :; do :; done"]) as busy:
        try:
            while meter.sample().load_others_cpus > 0.05:
                pass  # what runs below us is ours
            assert first.load_others_cpus >= 0
        finally:
            busy.kill()


def test_what_may_be_used_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Counted(LoadMeter):
        def __init__(self, root: str) -> None:
            made.append(root)
            super().__init__(root)

    monkeypatch.setattr(report, "LoadMeter", Counted)
    cpus = 4
    monkeypatch.setattr(report, "usable_cpus", lambda *_: cpus)
    meter = Meter()
    meter.sample()
    meter.sample()
    assert len(made) == 1
    cpus = 2
    meter.sample()
    assert len(made) == 2


def test_jobs_are_the_compile_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts.CompileServer, "jobs", lambda self: 3)
    monkeypatch.setattr(facts.CompileServer, "pid", lambda self: os.getpid())
    assert Meter().sample().jobs == 3


def test_a_root_without_anything(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    found = Meter(str(tmp_path)).sample()
    assert (found.jobs, found.memory_bytes) == (0, 0)
