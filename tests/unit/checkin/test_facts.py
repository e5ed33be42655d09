"""What a host is and has."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from d1fleet.checkin import facts, netlink
from d1fleet.checkin.facts import CompileServer
from tests.unit.checkin.documents import host_key


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("0123456789abcdef0123456789abcdef\n", 64),
        ("", 0),
        ("uninitialized\n", 0),
        ("0123456789abcdef0123456789abcdef0\n", 0),
    ],
)
def test_a_machine_has_an_id_or_none(text: str, digits: int, tmp_path: Path) -> None:
    (tmp_path / "id").write_text(text)
    found = facts.machine(str(tmp_path / "id"))
    assert len(found) == digits
    assert text.strip() not in found or not text.strip()
    assert facts.machine(str(tmp_path / "none")) == ""


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('NAME="Debian GNU/Linux"\nVERSION_ID="12"\n', "Debian GNU/Linux 12"),
        ("NAME=Gentoo\n", "Gentoo"),
        ("", "Linux"),
        ('NAME="<img onerror=x>"\n', "Linux"),
        ('NAME="' + "a" * 500 + '"\n', "a" * 64),
        ('NAME="a\u00e4{{b}}"\n', "a---b--"),
    ],
)
def test_the_system_has_a_name(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(text)
    assert facts.system(str(tmp_path)) == name


def test_host_keys_are_keys_and_always_in_one_order(tmp_path: Path) -> None:
    (tmp_path / "ssh_host_b_key.pub").write_text(f"{host_key(1)} root@host\n")
    (tmp_path / "ssh_host_a_key.pub").write_text(f"{host_key(2)}\n")
    (tmp_path / "ssh_host_c_key.pub").write_text("nonsense\n")
    (tmp_path / "ssh_host_d_key.pub").write_text("")
    assert facts.host_keys(str(tmp_path / "ssh_host_*_key.pub")) == tuple(sorted([host_key(1), host_key(2)]))
    for number in range(3, 20):
        (tmp_path / f"ssh_host_{number}_key.pub").write_text(host_key(number))
    assert len(facts.host_keys(str(tmp_path / "ssh_host_*_key.pub"))) == 8


def _refused(_port: int) -> bool:
    raise OSError(97, "Address family not supported by protocol")


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
@pytest.mark.parametrize("by_proc", [False, True])
def test_who_listens_is_seen_without_being_asked(
    family: socket.AddressFamily, address: str, by_proc: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_proc:
        monkeypatch.setattr(netlink, "listens", _refused)
    else:
        monkeypatch.setattr(facts, "_listens_by_proc", None)
    with socket.socket(family) as server:
        try:
            server.bind((address, 0))
        except OSError:
            pytest.skip(f"no {address} here")
        port = server.getsockname()[1]
        assert not facts.listens(port)
        server.listen()
        assert facts.listens(port)
        with socket.create_connection((address, port)) as client:
            assert not facts.listens(client.getsockname()[1])
        server.accept()[0].close()
    assert not facts.listens(port)


class Unit:
    """A unit's processes in a folder that stands for /."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.procs = root / "cg/system.slice/x.service/cgroup.procs"
        self.procs.parent.mkdir(parents=True)
        self.procs.touch()

    def run(self, **parents: int) -> None:
        text = ""
        for name, parent in parents.items():
            pid = name.removeprefix("p")
            text += f"{pid}\n"
            (self.root / "proc" / pid).mkdir(parents=True, exist_ok=True)
            (self.root / "proc" / pid / "stat").write_text(f"{pid} (a) b) S {parent} 1 1 0\n")
        self.procs.write_text(text)

    @property
    def server(self) -> CompileServer:
        return CompileServer(str(self.root), (str(self.root / "none"), str(self.root / "cg")), "x.service")


def test_jobs_are_counted_by_who_waits_for_them(tmp_path: Path) -> None:
    unit = Unit(tmp_path)
    assert (unit.server.pid(), unit.server.jobs()) == (0, 0)
    unit.run(p100=1, p101=100, p102=100, p103=100)
    assert (unit.server.pid(), unit.server.jobs()) == (100, 0)
    # Two compile; one of them runs gcc, which runs cc1, and the other one has two children.
    unit.run(p100=1, p101=100, p102=100, p103=100, p200=101, p201=200, p300=102, p301=102)
    assert (unit.server.pid(), unit.server.jobs()) == (100, 2)
    # What a client has left behind is no job, whatever it runs.
    unit.run(p50=1, p51=50, p52=51, p100=1, p101=100, p102=100, p103=100)
    assert (unit.server.pid(), unit.server.jobs()) == (100, 0)


def test_who_is_gone_meanwhile_does_not_count(tmp_path: Path) -> None:
    unit = Unit(tmp_path)
    unit.run(p100=1, p101=100)
    unit.procs.write_text("100\n101\n999\n")
    assert unit.server.processes() == {100: 1, 101: 100}


def test_memory_and_disk() -> None:
    assert facts.memory_bytes() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert facts.disk_free_bytes("/") > 0
    assert facts.disk_free_bytes("/nowhere") == 0
