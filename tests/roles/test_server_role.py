"""The role `d1make_server`, without a host: its program that unpacks, and what it says of a launcher."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.roles.roles import ROOT, play

ROLE = ROOT / "roles" / "d1make_server"
MAIN = "d1fleet/server/__main__.py"

pytestmark = pytest.mark.timeout(120)


def _install(folder: Path) -> Path:
    """Unpack an archive with a server in it; returns where it should lie."""
    archive = folder / "archive.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(zipfile.ZipInfo(MAIN), "print('a server')\n")
    target = folder / hashlib.sha256(archive.read_bytes()).hexdigest()[:32]
    program = str(ROLE / "files" / "install_server.py")
    argv = [sys.executable, program, str(archive), str(target)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.parametrize("damage", ["lacks a file", "is writable", "is no folder"])
def test_a_damaged_version_is_replaced_whole(tmp_path: Path, damage: str) -> None:
    target = _install(tmp_path)
    if damage == "lacks a file":
        (target / MAIN).unlink()
        (target / "of another time").touch()
    elif damage == "is writable":
        target.chmod(0o775)
    else:
        target.rename(tmp_path / "gone")
        (tmp_path / "gone").rename(tmp_path / ".old-gone")
        target.touch()
    assert _install(tmp_path) == target
    assert (target / MAIN).is_file() and not (target / "of another time").exists()
    assert target.stat().st_mode & 0o777 == 0o755
    assert os.listdir(tmp_path) == [target.name]


def test_a_version_that_is_whole_is_left_alone(tmp_path: Path) -> None:
    target = _install(tmp_path)
    before = target.stat()
    _install(tmp_path)
    assert target.stat() == before


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("echo need", "the launcher does not take"),
        ("echo have; echo No module named d1fleet >&2; exit 1", "No module named d1fleet"),
        ("echo bad; exit 4", "needs Python 3.9 and GNU make"),
        ("echo have", ""),
    ],
)
def test_what_a_launcher_answers(tmp_path: Path, answer: str, words: str) -> None:
    launcher = tmp_path / "launcher"
    launcher.write_text(f"#!/bin/sh\necho D1FLEET-SERVER 3.11 launcher\n{answer}\n")
    launcher.chmod(0o755)
    site = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars": {
            "_d1fleet_lib": str(tmp_path),
            "_d1fleet_inventories": [],
            "_d1fleet_server_hash": "0" * 32,
            "_d1fleet_server_folder": str(tmp_path / "server"),
            "ansible_python_interpreter": sys.executable,
        },
        "tasks": [{"ansible.builtin.import_tasks": str(ROLE / "tasks" / "verify.yml")}],
    }
    (tmp_path / "verify.yml").write_text(yaml.safe_dump([site]))
    done = play(controls=tmp_path / "c", playbook=str(tmp_path / "verify.yml"))
    assert done.code == (2 if words else 0), done.text
    assert words in done.words
