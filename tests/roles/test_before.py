"""What hosts note before they are changed, and which packages may go again."""

from __future__ import annotations

import base64
import importlib.util
import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.roles.roles import ROOT

ME = "root"
"""A user that every machine has."""


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program as a module, whose notes are in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("before", ROOT / "roles/fleet/files/before.py")
    assert spec and spec.loader
    environment = dict(os.environ)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    os.environ.clear()
    os.environ.update(environment)
    monkeypatch.setattr(module, "NOTED", str(tmp_path / "etc" / "before.json"))
    return module


def _apt(folder: Path, needs: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get that removes with a package what needs it; it says what it was asked to remove for good."""
    folder.mkdir()
    log = folder / "log"
    program = folder / "apt-get"
    program.write_text(
        f"#!/usr/bin/env python3\nimport sys\nneeds = {needs!r}\n"
        "names = [each for each in sys.argv[1:] if each[0] != '-' and each != 'purge' and '=' not in each]\n"
        "gone = {*names, *(each for name in names for each in needs.get(name, ()))}\n"
        "if '--simulate' in sys.argv:\n    print(*(f'Purg {each} [1.0]' for each in gone), sep='\\n')\n"
        f"else:\n    open({str(log)!r}, 'w').write(' '.join(sorted(names)))\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


def test_what_came_with_a_package_manager_is_noted(before: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["make"]
    monkeypatch.setattr(before, "installed", lambda: sorted(there))
    before.packages()
    there += ["gcc", "cpp"]
    before.came()
    there += ["vim"]  # somebody else's
    before.packages()
    there += ["distcc"]
    before.came()
    assert before.show()["packages"] == ["cpp", "distcc", "gcc"]


def test_a_run_that_was_broken_off_counts(before: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    there = ["make"]
    monkeypatch.setattr(before, "installed", lambda: sorted(there))
    before.packages()
    there += ["gcc"]
    assert before.show()["packages"] == ["gcc"]
    before.packages()
    there += ["distcc"]
    before.came()
    assert before.show()["packages"] == ["distcc", "gcc"]


def test_a_user_is_noted_as_they_were_first(before: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before.users({"users": {ME: ["video"], "nobody-like-this": ["video"]}, "groups": [ME, "no-such-group"]})
    monkeypatch.setattr(before, "user", lambda name: {"shell": "/changed", "comment": "", "groups": []})
    before.users({"users": {ME: ["audio"], "nobody-like-this": ["audio"]}, "groups": []})
    noted = before.show()
    assert noted["users"]["nobody-like-this"] is None
    assert noted["users"][ME]["shell"] != "/changed"
    assert noted["users"][ME]["added"] == ["audio", "video"]
    assert noted["groups"] == {ME: True, "no-such-group": False}


def test_groups_that_somebody_was_in_are_not_added(before: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(before, "user", lambda name: {"shell": "", "comment": "", "groups": ["audio"]})
    before.users({"users": {ME: ["audio", "video"]}, "groups": []})
    assert before.show()["users"][ME]["added"] == ["video"]


def test_a_file_is_noted_as_it_was_last_without_us(before: Any, tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    before.files({"files": [str(path)]})
    assert before.show()["files"] == {str(path): None}
    path.write_bytes(b"own\xff")
    path.chmod(0o640)
    before.files({"files": [str(path)]})
    noted = before.show()["files"][str(path)]
    assert base64.b64decode(noted["content"]) == b"own\xff"
    assert noted["mode"] == "0640"
    assert stat.S_IMODE(os.stat(before.NOTED).st_mode) == 0o600


def test_the_first_look_counts(before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "ansible"
    monkeypatch.setattr(before, "FOLDERS", (str(folder),))
    before.first()
    folder.mkdir()
    before.first()
    assert before.show()["folders"] == {str(folder): False}


def test_a_host_without_notes_says_so(before: Any) -> None:
    found = before.show()
    assert not found["there"]
    assert not any(found[name] for name in ("folders", "unit", "users", "groups", "files", "packages"))


def test_who_uses_a_host_is_seen(before: Any) -> None:
    me = pwd.getpwuid(os.geteuid()).pw_name
    with open("/proc/self/comm") as file:
        assert file.read().strip() in before.processes([me])[me]
    assert before.processes([]) == {}


def test_packages_go_but_for_what_others_need(
    before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # g++ needs gcc, somebody's ccache needs gcc too; distcc stands alone.
    needs = {"gcc": ["g++", "ccache"], "cpp": ["gcc", "g++", "ccache"]}
    log = _apt(tmp_path / "bin", needs, monkeypatch)
    monkeypatch.setattr(before, "installed", lambda: ["ccache", "cpp", "distcc:amd64", "g++", "gcc", "vim"])
    before.write({"packages": ["cpp", "distcc:amd64", "g++", "gcc", "gone-already"]})
    wanted = {"removed": ["distcc:amd64", "g++"], "needed": {"gcc": ["ccache"], "cpp": ["ccache"]}}
    assert before.purge({"dry": True}) == wanted
    assert not log.exists()
    assert before.purge({"dry": False}) == wanted
    assert log.read_text() == "distcc:amd64 g++"


def test_packages_go_at_once_where_nothing_needs_them(
    before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = _apt(tmp_path / "bin", {"cpp": ["gcc"]}, monkeypatch)
    monkeypatch.setattr(before, "installed", lambda: ["cpp", "gcc"])
    before.write({"packages": ["cpp", "gcc"]})
    assert before.purge({"dry": False}) == {"removed": ["cpp", "gcc"], "needed": {}}
    assert log.read_text() == "cpp gcc"


def test_a_refusal_of_apt_is_told(before: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _apt(tmp_path / "bin", {}, monkeypatch)
    program = tmp_path / "bin" / "apt-get"
    refusal = "case $* in *--simulate*) exit 0;; esac; echo E: locked >&2; exit 100"
    program.write_text(f"#!/bin/sh\n{refusal}\n")
    monkeypatch.setattr(before, "installed", lambda: ["gcc"])
    before.write({"packages": ["gcc"]})
    with pytest.raises(SystemExit, match="E: locked"):
        before.purge({"dry": False})
