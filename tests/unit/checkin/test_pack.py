"""What is installed on hosts: alone, on the standard library, in the oldest Python that they may have."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from d1fleet.checkin import pack
from tests.unit.checkin.documents import request
from tests.unit.checkin.helperhost import HelperHost
from tests.unit.server import test_imports as server

TIMEOUT_S = 60.0
_PYTHONS = server._pythons()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    argv = ["/usr/bin/python3", "-m", "d1fleet.checkin.pack", str(folder)]
    root = str(Path(pack.__file__).parents[2])
    done = subprocess.run(argv, capture_output=True, text=True, cwd=root, timeout=TIMEOUT_S)
    assert (done.returncode, done.stderr) == (0, "")
    (found,) = folder.iterdir()
    assert done.stdout == f"{found.stem}\n" and found.stem == pack.version()
    return found


@pytest.fixture(scope="module")
def folder(archive: Path) -> Path:
    found = archive.parent / "unpacked"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(found)
    return found


def test_the_archive_is_the_same_each_time(archive: Path) -> None:
    assert pack.archive.__wrapped__() == pack.archive.__wrapped__() == archive.read_bytes()


def test_it_holds_what_is_needed_and_no_more(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        names = set(packed.namelist())
    assert {"__main__.py", "d1fleet/checkin/__main__.py", "d1fleet/checkin/apply.py"} < names
    assert "d1fleet/checkin/pack.py" not in names
    assert not any("registry" in name or "transport" in name for name in names)


def test_sources_are_those_of_the_oldest_python(folder: Path) -> None:
    server.test_syntax_is_that_of_the_oldest_python(folder)
    server.test_nothing_newer_is_called(folder)
    own = folder / "d1fleet"
    server.test_annotations_are_not_evaluated(own)


@pytest.mark.parametrize("python", _PYTHONS)
def test_every_module_imports_with_all_but_the_standard_library_blocked(folder: Path, python: str) -> None:
    names = set(sys.stdlib_module_names) | {"d1fleet"}
    modules = [name for name in server._modules(folder) if name]
    assert "d1fleet.checkin.agent" in modules
    argv = [python, "-ISE", "-c", server._BLOCKED, str(folder), ",".join(sorted(names)), ",".join(modules)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, cwd="/")
    assert (done.returncode, done.stdout) == (0, "imported\n"), done.stderr


@pytest.mark.parametrize("python", _PYTHONS)
@pytest.mark.parametrize("how", ["archive", "folder"])
def test_it_starts_from_the_archive_and_from_its_folder(
    archive: Path, folder: Path, python: str, how: str, tmp_path: Path
) -> None:
    start = archive if how == "archive" else folder / "d1fleet" / "checkin" / "__main__.py"
    host = HelperHost(tmp_path / "host")
    argv = [python, "-ISE", str(start), *host.argv()[3:]]
    done = subprocess.run(
        argv, input=json.dumps(request()), capture_output=True, text=True, timeout=TIMEOUT_S, cwd="/"
    )
    assert json.loads(done.stdout)["faults"] == []
    assert (host.hosts / "engine").exists()


@pytest.mark.parametrize("how", ["archive", "folder"])
def test_what_it_starts_itself_finds_its_modules(archive: Path, folder: Path, how: str) -> None:
    """The look at the compilers is a process of its own."""
    root = archive if how == "archive" else folder
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from d1fleet.checkin import compilers;"
        " assert compilers.__file__.startswith(sys.argv[1]); print(len(compilers.look('', [])))"
    )
    argv = [sys.executable, "-ISE", "-c", script, str(root)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, cwd="/")
    assert int(done.stdout or 0) > 5, done.stderr


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_it_says_how_it_is_used(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert pack.main(arguments) == 2
    assert "FOLDER/HASH.zip" in capsys.readouterr().err


def test_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert pack.main([str(tmp_path / "file" / "x")]) == 1
    assert "Not a directory" in capsys.readouterr().err
