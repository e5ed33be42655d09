"""Real packages come out of `d1fleet build` as they come out of plain make, byte for byte."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.containers import ContainerHosts
from tests.packages.recipes import E2FSPROGS, XFSPROGS, Recipe, configured, make_arguments
from tests.packages.trees import Products, Site, differences
from tests.support.debsource import SourceUnavailable
from tests.support.sshd import LoopbackSshd

# One build of these takes a minute or two on two processors; the first test of a package makes three.
pytestmark = [pytest.mark.timeout(2400), pytest.mark.network]

D1FLEET = str(Path(sys.executable).with_name("d1fleet"))
JOBS = "-j8"
# Such makes only ask or print; they run where they are asked for, by promise.
ASKING = {"-n", "-q", "-t", "-p", "--version"}


@dataclass(frozen=True)
class Subject:
    """A package, where it is built, and what plain make makes of it."""

    recipe: Recipe
    site: Site
    arguments: Sequence[Sequence[str]]
    plain: Products
    unstable: dict[str, str]
    """What already differs between two plain makes."""
    logs: Path

    def commands(self, *program: str) -> list[list[str]]:
        return [[*program, JOBS, *build] for build in self.arguments]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    # d1fleet takes no tree that others may write to: pytest's own folders are 0700.
    yield tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module")
def subjects(workshop: Path) -> Any:
    """Sets a package up when it is asked for, once."""

    @cache
    def subject(recipe_name: str) -> Subject:
        recipe = {"e2fsprogs": E2FSPROGS, "xfsprogs": XFSPROGS}[recipe_name]
        path = workshop / recipe.package
        try:
            site = Site.at(configured(recipe, path))
        except SourceUnavailable as exc:
            pytest.skip(str(exc))
        arguments = make_arguments(recipe, site.pristine)
        commands = [["make", JOBS, *build] for build in arguments]
        plain = site.build(commands, workshop / f"{recipe.package}-plain.log")
        control = site.build(commands, workshop / f"{recipe.package}-control.log")
        return Subject(recipe, site, arguments, plain, differences(plain, control), workshop)

    return subject


def check(
    subject: Subject,
    program: Sequence[str],
    records: Sequence[Path],
    hosts: set[str],
    many: bool,
    may_differ: Sequence[str] = (),
) -> None:
    """Build with d1fleet and compare; then see from the records where each sub-make ran."""
    name = subject.recipe.package
    commands = [
        [*program, "--record", str(record), JOBS, *build]
        for record, build in zip(records, subject.arguments, strict=True)
    ]
    built = subject.site.build(commands, subject.logs / f"{name}-d1fleet.log")

    # The comparison must be about something.
    assert len(subject.plain.binaries) > 50, sorted(subject.plain.binaries)
    wrong = differences(subject.plain, built)
    print(f"{name}: {len(built.files)} files, {len(built.binaries)} of them binaries")
    for path, how in sorted(subject.unstable.items()):
        print(f"  differs between two plain makes too: {path}: {how}")
    allowed = {*subject.unstable, *may_differ}
    assert {path: how for path, how in wrong.items() if path not in allowed} == {}

    jobs = [json.loads(line) for record in records for line in record.read_text().splitlines()]
    jobs = [job for job in jobs if job["event"] == "job" and job["parent"] is None]
    where = Counter(job["host"] or f"here ({job['local_reason']})" for job in jobs)
    print(f"  {len(jobs)} first-level sub-makes: {dict(where)}")
    may_stay = ASKING | set(subject.recipe.stays)
    assert [job for job in jobs if job["local_reason"] and not may_stay & set(job["argv"])] == []
    ran_on = {job["host"] for job in jobs if not job["local_reason"]}
    assert ran_on and ran_on <= hosts
    assert len(ran_on) > 1 or not many


def over_ssh(
    subject: Subject, sshd: LoopbackSshd, folder: Path, *, many: bool, transport: str = "ssh"
) -> None:
    program = [D1FLEET, "build", "--hosts", ",".join(sshd.aliases), "--ssh-config", str(sshd.ssh_config)]
    program += ["--transport", transport]
    records = [folder / f"record{number}" for number in range(len(subject.arguments))]
    before = sshd.accepted_logins()
    check(subject, program, records, set(sshd.aliases), many)
    assert sshd.accepted_logins() - before <= len(sshd.aliases) * len(subject.arguments)


def over_containers(
    subject: Subject, containers: ContainerHosts, folder: Path, *, many: bool, transport: str
) -> None:
    names = [host.name for host in containers]
    program = [D1FLEET, "build", "--hosts", ",".join(names), "--ssh-config", str(containers.ssh_config)]
    program += ["--transport", transport]
    records = [folder / f"record{number}" for number in range(len(subject.arguments))]
    check(subject, program, records, set(names), many, subject.recipe.says_where)


def over_pipes(subject: Subject, folder: Path, *, many: bool) -> None:
    names = ("north", "east", "south")
    local = {name: {"ansible_connection": "local"} for name in names}
    inventory = folder / "hosts.yml"
    inventory.write_text(json.dumps({"projects": {"children": {"test": {"hosts": local}}}}))
    program = [D1FLEET, "build", "--inventory", str(inventory)]
    records = [folder / f"record{number}" for number in range(len(subject.arguments))]
    check(subject, program, records, set(names), many)


# e2fsprogs walks its folders in shell loops, one at a time: one server after another is all it allows.
@pytest.mark.sshd
def test_e2fsprogs_over_ssh(subjects: Any, sshd: LoopbackSshd, tmp_path: Path) -> None:
    over_ssh(subjects("e2fsprogs"), sshd, tmp_path, many=False)


@pytest.mark.full
@pytest.mark.sshd
def test_e2fsprogs_over_openssh(subjects: Any, sshd: LoopbackSshd, tmp_path: Path) -> None:
    over_ssh(subjects("e2fsprogs"), sshd, tmp_path, many=False, transport="openssh")


@pytest.mark.full
def test_e2fsprogs_over_pipes(subjects: Any, tmp_path: Path) -> None:
    over_pipes(subjects("e2fsprogs"), tmp_path, many=False)


@pytest.mark.full
@pytest.mark.sshd
def test_xfsprogs_over_ssh(subjects: Any, sshd: LoopbackSshd, tmp_path: Path) -> None:
    over_ssh(subjects("xfsprogs"), sshd, tmp_path, many=True)


@pytest.mark.full
@pytest.mark.sshd
def test_xfsprogs_over_openssh(subjects: Any, sshd: LoopbackSshd, tmp_path: Path) -> None:
    over_ssh(subjects("xfsprogs"), sshd, tmp_path, many=True, transport="openssh")


@pytest.mark.full
def test_xfsprogs_over_pipes(subjects: Any, tmp_path: Path) -> None:
    over_pipes(subjects("xfsprogs"), tmp_path, many=True)


@pytest.mark.full
@pytest.mark.containers
@pytest.mark.parametrize("transport", ["ssh", "openssh"])
@pytest.mark.parametrize(("name", "many"), [("e2fsprogs", False), ("xfsprogs", True)])
def test_on_containers(
    subjects: Any, container_hosts: ContainerHosts, tmp_path: Path, name: str, many: bool, transport: str
) -> None:
    over_containers(subjects(name), container_hosts, tmp_path, many=many, transport=transport)
