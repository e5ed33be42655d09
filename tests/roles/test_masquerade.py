"""Compilers that distcc does not know by itself get a file in its folder, and lose it again."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from tests.roles.roles import ROOT


@pytest.fixture
def masquerade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("masquerade", ROOT / "roles/distcc/files/masquerade.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    spec.loader.exec_module(module)
    folder = tmp_path / "distcc"
    folder.mkdir()
    (folder / "gcc").symlink_to("../../bin/distcc")
    monkeypatch.setattr(module, "FOLDER", str(folder))
    monkeypatch.setattr(module, "PATH", str(tmp_path / "bin"))
    for name in ("bin/arm-gcc", "opt/arm-g++-12", "opt/arm-ld", "opt/gcc"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\necho real {path.name} $@\n")
        path.chmod(0o755)
    return module


HIDDEN = "/proc/self"
"""There are no compilers below it, but for a test that has it resolve to where some are."""


def _main(masquerade: Any, *compilers: str | Path, dry: bool = False) -> Any:
    return masquerade.main(
        {"compilers": [str(each) for each in compilers], "hidden": ["/nowhere", HIDDEN], "dry": dry}
    )


def test_compilers_get_a_file_once(masquerade: Any, tmp_path: Path) -> None:
    compilers: list[str | Path] = [
        "arm-gcc",
        tmp_path / "opt/arm-g++-12",
        tmp_path / "opt/arm-ld",
        "nowhere-gcc",
    ]
    folder = Path(masquerade.FOLDER)
    dry = _main(masquerade, *compilers, dry=True)
    assert sorted(map(os.path.basename, dry["changed"])) == ["arm-g++-12", "arm-gcc"]
    assert [path.name for path in folder.iterdir()] == ["gcc"]
    done = _main(masquerade, *compilers)
    assert done == {**dry, "folders": [str(tmp_path / "bin"), str(tmp_path / "opt")]}
    assert sorted(path.name for path in folder.iterdir()) == ["arm-g++-12", "arm-gcc", "gcc"]
    assert _main(masquerade, *compilers)["changed"] == []
    assert (folder / "arm-gcc").stat().st_mode & 0o777 == 0o755


def test_a_path_that_could_be_a_line_of_a_unit_is_refused(masquerade: Any, tmp_path: Path) -> None:
    odd = tmp_path / "x\rExecStartPre=+touch y" / "evil-gcc"
    odd.parent.mkdir()
    odd.write_text("#!/bin/sh\n")
    odd.chmod(0o755)
    found = _main(masquerade, odd)
    assert "has signs that a path" in found["faults"][0] and found["changed"] == []


def test_what_is_no_longer_wanted_goes_and_others_stay(masquerade: Any) -> None:
    folder = Path(masquerade.FOLDER)
    (folder / "mine-gcc").write_text("#!/bin/sh\n")
    _main(masquerade, "arm-gcc")
    assert _main(masquerade)["changed"] == [str(folder / "arm-gcc")]
    assert sorted(path.name for path in folder.iterdir()) == ["gcc", "mine-gcc"]


def test_the_name_of_a_system_compiler_is_taken(masquerade: Any, tmp_path: Path) -> None:
    found = _main(masquerade, tmp_path / "opt/gcc", "arm-gcc")
    assert "has the name of a compiler of the system" in found["faults"][0]
    assert found["changed"] == []


def test_one_name_for_two_and_one_that_the_server_cannot_see(
    masquerade: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other/arm-g++-12"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    found = _main(masquerade, tmp_path / "opt/arm-g++-12", other)
    assert "have one name, and distcc knows compilers by name alone" in found["faults"][0]
    monkeypatch.setattr(f"{__name__}.HIDDEN", str(tmp_path / "opt"))
    (fault,) = _main(masquerade, tmp_path / "opt/arm-g++-12")["faults"]
    assert "which distcc's server cannot see" in fault


def test_the_file_finds_the_real_one_behind_distcc(masquerade: Any) -> None:
    text = masquerade.text("/opt/a tool/bin/arm-gcc")
    assert text.endswith("PATH='/opt/a tool/bin':$PATH exec /usr/bin/distcc arm-gcc \"$@\"\n")
