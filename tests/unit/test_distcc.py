"""The environment of a build by distcc, as a pure function of what is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from d1fleet import distcc
from d1fleet.errors import ToolError
from d1fleet.hostsfile import HostsFile, Peer

HOSTS = HostsFile(2, (Peer("birch", "192.0.2.12", 8),))


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine with distcc and ccache."""
    for name in ("distcc", "ccache", "bin"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "distcc").touch(0o755)
    monkeypatch.setattr(distcc, "MASQUERADES", (tmp_path / "distcc",))
    monkeypatch.setattr(distcc, "CCACHE_MASQUERADES", (tmp_path / "ccache",))
    return {"PATH": f"{tmp_path / 'distcc'}:{tmp_path / 'bin'}"}


def test_ccache_finds_compilers_behind_itself_and_never_distcc(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """It would take distcc for the compiler, whose change it then does not see."""
    found = distcc.environment(HOSTS, environ, strict=False, ccache=True)
    assert found["PATH"] == f"{tmp_path / 'ccache'}:{tmp_path / 'bin'}"
    assert found["CCACHE_PREFIX"] == "distcc"
    without = distcc.environment(HOSTS, environ, strict=False, ccache=False)
    assert without["PATH"] == f"{tmp_path / 'distcc'}:{tmp_path / 'bin'}"
    assert "CCACHE_PREFIX" not in without


def test_ccache_that_is_not_there_is_named(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ccache").rmdir()
    with pytest.raises(ToolError, match="ccache is not installed here"):
        distcc.environment(HOSTS, environ, strict=False, ccache=True)


def test_the_inventory_asks_for_ccache_by_a_file_of_the_role(environ: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "ccache.conf"
    assert not distcc.ccache_asked_for(config)
    config.write_text("max_size = 5G\n")
    assert not distcc.ccache_asked_for(config)
    config.write_text("# written by Ansible, role d1.fleet.ccache.\n")
    assert distcc.ccache_asked_for(config)
    (tmp_path / "ccache").rmdir()
    assert not distcc.ccache_asked_for(config)
