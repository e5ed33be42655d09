"""Hosts files are asked of distcc itself, which has to be there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from d1fleet.checkin import check_hosts
from d1fleet.hostsfile import HostsFile, Peer

GOOD = (
    "# x\n--localslots=2 --localslots_cpp=8\nlocalhost/2\n"
    "192.0.2.1/4,lzo  # alder\n[2001:db8::1]:3633/4,lzo,cpp\n"
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD, ""),
        (GOOD + "192.0.2.9:notaport/3\n", "invalid tcp port"),
        (GOOD + "192.0.2.9/4,nonsense\n", "distcc reads 0 of 4"),
        ("", "names no host"),
        ("# only a comment\n--localslots=2\n", "names no host"),
        (GOOD + "+zeroconf\n", "distcc reads"),
    ],
)
def test_every_word_is_read_or_it_is_said(text: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTCC_HOSTS", "somewhere/9")
    found = check_hosts.fault(text)
    assert words in found and bool(words) == bool(found)


def test_thousands_of_hosts_are_no_fault() -> None:
    peers = [Peer(f"h{number}", f"10.0.{number // 256}.{number % 256}", 4) for number in range(1, 6000)]
    assert check_hosts.fault(HostsFile(4, tuple(peers)).text()) == ""


def test_without_distcc() -> None:
    with pytest.raises(FileNotFoundError):
        check_hosts.fault(GOOD, "/nowhere/distcc")


@pytest.mark.parametrize(("text", "status"), [(GOOD, 0), ("nonsense/x\n", 1)])
def test_the_role_runs_the_file_by_itself(text: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(text)
    script = tmp_path / "check_hosts.py"
    script.write_text(Path(check_hosts.__file__).read_text())
    argv = ["/usr/bin/python3", "-ISE", str(script), str(tmp_path / "hosts")]
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/")
    assert done.returncode == status
    assert bool(done.stderr) == bool(status)
