"""From the command to the first dispatched job: a cached inventory with one host."""

from __future__ import annotations

import json
from pathlib import Path

from . import stats
from .builds import Build, Folder
from .fleetbuild import fleet_build
from .stage import Stage
from .stats import Row, Sample, at_most

HOST = "h"


def _inventory(path: Path) -> None:
    # JSON is YAML; ssh's configuration knows the rest by the name.
    path.write_text(json.dumps({"all": {"hosts": {HOST: {"d1fleet_slots": 8}}}}) + "\n")


def _plain_start(stage: Stage, folder: Folder) -> float:
    with Build(folder, ["make", "-j2"], stage.environment) as build:
        heard = build.hear("first")
        build.hear("done")
        build.finish()
        return heard - build.began


def measure(stage: Stage) -> list[Row]:
    """The same build by make alone in the same rounds."""
    folder = stage.folder("@echo first >{said}")
    # No gate before the job: it is to come as early as it can.
    folder.write([])
    makefile = folder.path / "Makefile"
    makefile.write_text(makefile.read_text() + "done: job\njob: ; @$(MAKE) -f leaf.mk f\n.PHONY: job\n")
    inventory = folder.path / "inventory.yml"
    _inventory(inventory)
    dispatched: list[float] = []
    plain: list[float] = []
    with stage.servers([HOST]) as sshd:
        for number in range(stage.few(10, 1) + 1):
            plain.append(_plain_start(stage, folder))
            with fleet_build(
                stage, folder, ["-j2"], sshd=sshd, more=["--inventory", str(inventory)]
            ) as running:
                dispatched.append(running.build.hear("first") - running.build.began)
                running.build.hear("done")
                running.build.finish()
            if number == 0:
                # The inventory was read, the shim compiled, the server shipped.
                dispatched.clear()
                plain.clear()
    return [
        stats.row(
            "command to the first dispatched job's recipe", Sample(tuple(dispatched), "s"), at_most(0.5, "s")
        ),
        stats.row("the same by make alone", Sample(tuple(plain), "s")),
    ]
