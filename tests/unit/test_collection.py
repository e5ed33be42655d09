"""Where Ansible finds our collection: in a checkout, in an installed wheel, and where neither has it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from d1fleet import collection
from d1fleet.errors import ToolError

ROOT = Path(__file__).parents[2]
PLACE = Path("ansible_collections/d1/fleet")


def test_in_a_checkout_it_is_the_checkout() -> None:
    assert collection.root() == ROOT
    for folders in (collection.linked, collection.whole):
        with folders() as folder:
            assert (folder / PLACE / "playbooks/site.yml").is_file()
            # As the roles look for it.
            assert (folder / PLACE / "roles/toolchain/../../d1fleet/server/toolchain.py").is_file()
        assert not folder.exists()
    assert (ROOT / "playbooks/site.yml").is_file()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    zipfile.ZipFile(file).extractall(folder / "site")
    return folder / "site"


def test_a_wheel_has_all_of_it(wheel: Path) -> None:
    for part in ("roles", "playbooks", "plugins", "meta"):
        ours = {str(each.relative_to(ROOT)) for each in (ROOT / part).rglob("*") if each.is_file()}
        ours = {each for each in ours if not each.endswith(".pyc")}
        there = wheel / "d1fleet/_collection"
        assert {str(each.relative_to(there)) for each in (there / part).rglob("*") if each.is_file()} == ours
    assert not list(wheel.rglob("*.pyc"))
    assert {each.name for each in wheel.iterdir() if not each.name.endswith(".dist-info")} == {"d1fleet"}


def test_an_installed_one_serves_ansible(wheel: Path, tmp_path: Path) -> None:
    """Both ways: linked for plugins, whole for playbooks, whose roles look for programs of the package."""
    code = (
        "import json, os\n"
        "from d1fleet import collection\n"
        f"place = {str(PLACE)!r}\n"
        "found = [str(collection.root())]\n"
        "with collection.linked() as folder:\n"
        "    found.append(os.path.isfile(folder / place / 'plugins/inventory/registry.py'))\n"
        "with collection.whole() as folder:\n"
        "    for each in ('playbooks/join.yml', 'roles/toolchain/../../d1fleet/server/toolchain.py',\n"
        "                 'plugins/inventory/registry.py', 'meta/runtime.yml'):\n"
        "        found.append(os.path.isfile(folder / place / each))\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env={**os.environ, "PYTHONPATH": str(wheel)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [str(wheel / "d1fleet/_collection"), *[True] * 5]


def test_without_it_somebody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "_PACKAGE", tmp_path / "d1fleet")
    monkeypatch.setattr(collection, "_INSTALLED", tmp_path / "d1fleet/_collection")
    with pytest.raises(ToolError, match="playbooks did not come with d1fleet"):
        collection.root()
    shutil.copytree(ROOT / "playbooks", tmp_path / "playbooks")
    with pytest.raises(ToolError), collection.whole():
        pass
