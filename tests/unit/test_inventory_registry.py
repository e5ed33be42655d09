"""An inventory that is a registry's, as builds read it: by Ansible and our plugin, wherever the file lies."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest

from d1fleet import inventory_cache
from d1fleet.errors import InventoryError
from d1fleet.fleet import Fleet, Inventory
from d1fleet.inventory import load_fleet
from d1fleet.inventory_cache import registry_files
from d1fleet.model import Host
from tests.support.pretended import INVENTORY, KEY, Pretended, pretended

ASKED = "GET /api/v1/admin/inventory"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ANSIBLE_CONFIG", raising=False)


@pytest.fixture
def served() -> Iterator[Pretended]:
    with pretended() as found:
        found.answers[ASKED] = copy.deepcopy(INVENTORY)
        yield found


@pytest.fixture
def file(tmp_path: Path, served: Pretended) -> Path:
    (tmp_path / "viewer.key").write_text(KEY)
    found = tmp_path / "x.d1fleet.yml"
    found.write_text(f"plugin: d1.fleet.registry\nurl: {served.url}\nkey_file: viewer.key\n")
    return found


def test_a_build_finds_its_hosts(file: Path, served: Pretended, tmp_path: Path) -> None:
    """Far from any checkout, with variables beside the file, and anew each time."""
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "engine.yml").write_text("ansible_user: build\nd1fleet_jobs: auto\n")
    fleet = load_fleet([file], "engine")
    assert fleet == Fleet(
        "engine",
        (
            Host("alder", address="192.0.2.10", user="build", slots=8),
            Host("birch", address="192.0.2.11", user="build", slots=4),
        ),
        0,
    )
    del served.answers[ASKED]["hosts"]["birch"]
    assert [host.name for host in load_fleet([file], "engine").hosts] == ["alder"]
    assert inventory_cache.entry_key([file], None) is None


def test_it_may_lie_in_a_folder_with_others(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "inventory"
    folder.mkdir()
    for name in ("x.d1fleet.yml", "viewer.key"):
        (tmp_path / name).rename(folder / name)
    (folder / "viewer.key").rename(tmp_path / "viewer.key")
    text = (folder / "x.d1fleet.yml").read_text().replace("viewer.key", "../viewer.key")
    (folder / "x.d1fleet.yml").write_text(text)
    more = "projects: {children: {engine: {hosts: {cedar: {ansible_host: 192.0.2.12}}}}}\n"
    (folder / "more.yml").write_text(more)
    assert [host.name for host in load_fleet([folder], "engine").hosts] == ["cedar", "alder", "birch"]
    assert registry_files([folder]) == [folder / "x.d1fleet.yml"]
    assert inventory_cache.entry_key([folder], None) is None


def test_without_our_name_no_registry_is_looked_for(tmp_path: Path) -> None:
    for name in ("hosts.yml", "x.d1fleet.json", "d1fleet.yml"):
        (tmp_path / name).write_text("")
    assert registry_files([tmp_path, tmp_path / "none"]) == []


def test_one_that_is_away_is_told_in_one_sentence(file: Path, tmp_path: Path) -> None:
    file.write_text("plugin: d1.fleet.registry\nurl: http://127.0.0.1:1\nkey_file: viewer.key\n")
    with pytest.raises(InventoryError) as caught:
        load_fleet([file], "engine")
    assert str(caught.value) == (
        f"the inventory {file}: the registry http://127.0.0.1:1 cannot be asked: Connection refused. Look"
        " whether it runs (systemctl status d1fleet-registry), and whether url is right"
    )


def test_what_hosts_report_is_no_template(file: Path, served: Pretended) -> None:
    served.answers[ASKED]["hosts"]["alder"]["owner"] = "{{ lookup('pipe', 'id') }}"
    assert len(load_fleet([file], "engine").hosts) == 2


# Those that are away


def made_up(away: list[str], drained: list[str]) -> Inventory:
    names = ["alder", "birch", "cedar"]
    return Inventory.of(
        {
            "_meta": {"hostvars": {name: {} for name in names}},
            "projects": {"children": ["engine"]},
            "engine": {"hosts": names},
            "registry_away": {"hosts": away},
            "registry_drained": {"hosts": drained},
        }
    )


@pytest.mark.parametrize(
    ("away", "drained", "left"),
    [
        ([], [], ["alder", "birch", "cedar"]),
        (["birch"], [], ["alder", "cedar"]),
        (["birch"], ["alder"], ["cedar"]),
        # It may be the registry's own network that is gone.
        (["alder", "birch", "cedar"], [], ["alder", "birch", "cedar"]),
    ],
)
def test_builds_go_without_them(away: list[str], drained: list[str], left: list[str]) -> None:
    assert [host.name for host in made_up(away, drained).fleet("engine").hosts] == left
