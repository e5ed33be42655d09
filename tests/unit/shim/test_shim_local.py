"""When the shim is the real make at once, without asking anybody."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from d1fleet.interpose import MARKER, install_shim

from .conftest import SYSTEM_PATH, Shims
from .coordinator import Coordinator


def _program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {text} $#\n")
    path.chmod(0o755)
    return path


STAY = [
    {"MAKE_RESTARTS": "1"},
    {"MAKE_RESTARTS": ""},
    {"FAKEROOTKEY": "1234"},
    {"LD_PRELOAD": "libc.so.6"},
    {"MAKE": "/x/make"},
    {"MAKE": "make -s"},
    {"MAKE": ""},
    {"D1FLEET_ORIGIN": None},
    {"D1FLEET_ORIGIN": ""},
    {"D1FLEET_ORIGIN": "{uid}1:{dev}:{ino}:{mnt}"},
    {"D1FLEET_ORIGIN": "{uid}:{dev}1:{ino}:{mnt}"},
    {"D1FLEET_ORIGIN": "{uid}:{dev}:{ino}1:{mnt}"},
    {"D1FLEET_ORIGIN": "{uid}:{dev}:{ino}:{mnt}1"},
    {"D1FLEET_ORIGIN": "{uid}:{dev}:{ino}"},
    {"D1FLEET_ORIGIN": "{uid}:{dev}:{ino}:{mnt}:"},
    {"D1FLEET_LEVEL": "0"},
    {"D1FLEET_LEVEL": "0", "MAKELEVEL": "", "MAKE": "make"},
    {"D1FLEET_LEVEL": "0", "MAKELEVEL": "0"},
    {"D1FLEET_LEVEL": "2", "MAKELEVEL": "2"},
    {"D1FLEET_SOCKET": None, "PATH": "{shim}:{real}"},
    {"D1FLEET_SOCKET": "", "PATH": "{shim}:{real}"},
]
ASK = [
    {"FAKEROOTKEY": "", "LD_PRELOAD": ""},
    {"MAKE": "make"},
    {"D1FLEET_ORIGIN": "{uid}:{dev}:{ino}:{mnt}"},
    {"MAKEFLAGS": "n", "MAKELEVEL": "1"},
    {"D1FLEET_LEVEL": "0", "MAKELEVEL": "1"},
    {"D1FLEET_LEVEL": "2", "MAKELEVEL": "3"},
    {"MAKELEVEL": "0"},
]


def _changed(shims: Shims, real_make: Path, change: dict[str, str | None]) -> dict[str, str]:
    uid, dev, ino, mnt = shims.environ["D1FLEET_ORIGIN"].split(":")
    words = {"uid": uid, "dev": dev, "ino": ino, "mnt": mnt, "shim": shims.folder, "real": real_make.parent}
    env: dict[str, str | None] = {**shims.environ, **change}
    return {name: value.format(**words) for name, value in env.items() if value is not None}


@pytest.mark.parametrize("change", STAY, ids=str)
def test_stays(
    coordinator: Coordinator, shims: Shims, real_make: Path, change: dict[str, str | None]
) -> None:
    env = _changed(shims, real_make, change)
    assert shims.run("a b", "", env=env) == (0, f"ran {real_make}: <a b> <>".encode(), b"")
    assert not coordinator.was_asked()


@pytest.mark.parametrize("change", ASK, ids=str)
def test_asks(coordinator: Coordinator, shims: Shims, real_make: Path, change: dict[str, str | None]) -> None:
    shim = shims.start(env=_changed(shims, real_make, change))
    with coordinator.request() as request:
        request.answer(b"X", 5)
    assert shims.end(shim) == (5, b"", b"")


def test_stays_where_the_folder_is_gone(
    coordinator: Coordinator, shims: Shims, real_make: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    shim = shims.start(cwd=folder, preexec_fn=lambda: shutil.rmtree(folder))
    assert shims.end(shim)[1].startswith(b"ran ")
    assert not coordinator.was_asked()


def test_path_and_build_are_left_to_deeper_levels(
    coordinator: Coordinator, shims: Shims, plain_make: str
) -> None:
    """A re-executed make is no job; what it calls is."""
    env = {**shims.environ, "D1FLEET_MAKE": plain_make, "MAKE_RESTARTS": "1"}
    shim = shims.start("-f/dev/null", "--eval=all:;@$(MAKE) deeper", env=env)
    with coordinator.request() as request:
        assert request.argv == [b"make", b"deeper"]
        request.answer(b"X")
    assert shims.end(shim) == (0, b"", b"")


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace without a user namespace takes root")
def test_stays_in_another_mount_namespace(coordinator: Coordinator, shims: Shims, real_make: Path) -> None:
    unshare = shutil.which("unshare") or pytest.skip("there is no unshare here")
    probe = subprocess.run([unshare, "--mount", "true"], capture_output=True, check=False, timeout=30)
    if probe.returncode:
        pytest.skip(f"no mount namespaces here: {probe.stderr!r}")
    code, out, _ = shims.run("--mount", "make", name="unshare", executable=unshare)
    assert (code, out) == (0, f"ran {real_make}: <>".encode())
    assert not coordinator.was_asked()


def test_stays_under_fakeroot(coordinator: Coordinator, shims: Shims) -> None:
    fakeroot = shutil.which("fakeroot") or pytest.skip("there is no fakeroot here")
    assert shims.run("make", name="fakeroot", executable=fakeroot)[1].startswith(b"ran ")
    assert not coordinator.was_asked()


@pytest.mark.parametrize("name", ["make", "gmake"])
def test_outside_a_build_it_is_the_next_in_path(shims: Shims, tmp_path: Path, name: str) -> None:
    first = _program(tmp_path / "first" / name, "first").parent
    _program(tmp_path / "second" / name, "second")
    _program(tmp_path / "first" / "other", "other")
    for path in (f"{shims.folder}:{first}:{tmp_path}/second", f"{first}:{shims.folder}"):
        env = {"PATH": path + ":" + SYSTEM_PATH}
        assert shims.run("x", env=env, name=name) == (0, b"first 1\n", b"")


def test_outside_a_build_what_cannot_be_executed_is_passed_by(shims: Shims, tmp_path: Path) -> None:
    (tmp_path / "1" / "make").mkdir(parents=True)
    _program(tmp_path / "2" / "make", "two").chmod(0o644)
    _program(tmp_path / "3" / "make", "three")
    path = f"{shims.folder}:{tmp_path}/1:{tmp_path}/2:/{'x' * 5000}:relative::{tmp_path}/3"
    assert shims.run(env={"PATH": path}) == (0, b"three 0\n", b"")


def test_an_empty_entry_is_the_working_folder(shims: Shims, tmp_path: Path) -> None:
    _program(tmp_path / "make", "here")
    assert shims.run(env={"PATH": f"{shims.folder}:"}) == (0, b"here 0\n", b"")


def test_shims_never_execute_each_other(
    shims: Shims, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [shims.folder]
    for kind in ("", "python"):  # C where it can be compiled
        monkeypatch.setenv("D1FLEET_SHIM_KIND", kind)
        folders.append(install_shim(tmp_path / "cache", tmp_path / f"shim{kind}"))
    copied = tmp_path / "linked-by-hand"
    copied.mkdir()
    (copied / "make").symlink_to(shims.folder / "make")
    assert not (copied / MARKER).exists()
    path = ":".join(map(str, [*folders, copied, *reversed(folders)]))
    code, out, err = shims.run(env={"PATH": path})
    assert (code, out, err) == (127, b"", b"d1fleet: no make in PATH but the one of d1fleet itself\n")
    _program(tmp_path / "last" / "make", "last")
    assert shims.run(env={"PATH": f"{path}:{tmp_path}/last"}) == (0, b"last 0\n", b"")


def test_gmake_in_a_build(shims: Shims, tmp_path: Path, real_make: Path) -> None:
    env = {**shims.environ, "MAKE_RESTARTS": "1", "PATH": f"{shims.folder}:{tmp_path}/other"}
    code, out, _ = shims.run(name="gmake", env=env)
    assert (code, out) == (0, f"ran {real_make}:".encode() + b" <>")
    _program(tmp_path / "other" / "gmake", "other")
    assert shims.run(name="gmake", env=env) == (0, b"other 0\n", b"")


def test_a_real_make_that_is_the_shim(shims: Shims, tmp_path: Path) -> None:
    _program(tmp_path / "other" / "make", "other")
    path = f"{shims.folder}:{tmp_path}/other"
    env = {**shims.environ, "MAKE_RESTARTS": "1", "PATH": path, "D1FLEET_MAKE": str(shims.folder / "make")}
    assert shims.run(env=env) == (0, b"other 0\n", b"")


def test_a_real_make_that_is_gone(shims: Shims, real_make: Path) -> None:
    real_make.unlink()
    code, out, err = shims.run(env={**shims.environ, "MAKE_RESTARTS": "1"})
    assert (code, out) == (127, b"")
    assert err == f"d1fleet: {real_make}: No such file or directory\n".encode()
