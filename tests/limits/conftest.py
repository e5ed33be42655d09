"""Fleets for the tests of limits, and the makes that they are tried with."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.kill.fleet import DEFAULTS, Fleet, private_sshd
from tests.support.debsource import SourceUnavailable
from tests.support.make44 import real_make
from tests.support.sshd import LoopbackSshd, missing_reason

NAMES = ("a", "b", "c")

NewFleet = Callable[..., Fleet]


@pytest.fixture(scope="session")
def limits_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackSshd | None]:
    """A server for the hosts; None where there can be none."""
    if missing_reason():
        yield None
        return
    with private_sshd(tmp_path_factory.mktemp("sshd"), NAMES) as server:
        yield server


@pytest.fixture(params=["pipes", "ssh", pytest.param("openssh", marks=pytest.mark.full)])
def new_fleet(request: pytest.FixtureRequest, limits_sshd: LoopbackSshd | None, tmp_path: Path) -> NewFleet:
    """Makes fleets over each transport: `new_fleet(slots=2, names=("a", "b"))`, all names of one machine."""
    if request.param != "pipes" and limits_sshd is None:
        pytest.skip(missing_reason())

    def make(slots: int, names: tuple[str, ...] = NAMES[:2], **variables: str) -> Fleet:
        hosts = {
            name: {"d1fleet_slots": slots, "d1fleet_server_setup": f"STAMP_HOST={name}"} for name in names
        }
        if request.param == "pipes":
            return Fleet(tmp_path, hosts, None, DEFAULTS, variables)
        return Fleet(tmp_path, hosts, limits_sshd, DEFAULTS, variables, request.param)

    return make


@pytest.fixture
def tree_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session", params=["4.3", "4.4"])
def make_path(request: pytest.FixtureRequest) -> str:
    """A PATH in which make is of this release."""
    try:
        make = real_make(request.param)
    except SourceUnavailable as reason:
        pytest.skip(str(reason))
    return f"{make.parent}:{os.environ['PATH']}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What differs from others by SSH alone, and was seen over SSH in a third one, is left to `full`."""
    for item in items:
        # This hook is called with the tests of all folders.
        if not item.path.is_relative_to(Path(__file__).parent) or not isinstance(item, pytest.Function):
            continue
        over_ssh = "ssh" in item.name
        spare_words = item.path.name == "test_warnings.py" and "j5" not in item.name
        if over_ssh and (spare_words or ("4.4" in item.name and item.path.name == "test_limits.py")):
            item.add_marker(pytest.mark.full)


def separate_machines(folder: Path, slots: Mapping[str, int]) -> Fleet:
    """Hosts over pipes that are machines of their own: a machine-id and locks of slots for each.

    Skips the test where that cannot be: it needs mount(2) and a machine-id to mount over.
    """
    hosts: dict[str, dict[str, object]] = {}
    for number, (name, count) in enumerate(slots.items()):
        place = folder / f"machine-{name}"
        (place / "run").mkdir(mode=0o700, parents=True)
        identity = place / "machine-id"
        identity.write_text(f"{number + 1:032x}\n")
        python = place / "python"
        python.write_text(
            "#!/bin/sh\n"
            f"exec unshare --mount sh -c 'mount --bind {identity} /etc/machine-id &&"
            f' XDG_RUNTIME_DIR={place}/run exec {sys.executable} "$@"\' sh "$@"\n'
        )
        python.chmod(stat.S_IRWXU)
        hosts[name] = {
            "d1fleet_slots": count,
            "d1fleet_server_setup": f"STAMP_HOST={name}",
            "ansible_python_interpreter": str(python),
        }
        probe = subprocess.run([str(python), "-c", ""], capture_output=True, text=True, check=False)
        if probe.returncode != 0:
            pytest.skip(f"no mount namespaces here: {probe.stderr.strip()}")
    return Fleet(folder, hosts, None, DEFAULTS)
