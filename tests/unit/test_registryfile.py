"""Inventory files that name a registry, read without Ansible."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d1fleet.errors import InventoryError, RegistryError
from d1fleet.registryfile import digest, open_registry
from d1fleet.registryplace import Place
from tests.support.pretended import INVENTORY, KEY, Pretended, pretended

ASKED = "GET /api/v1/admin/inventory"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Pretended]:
    (tmp_path / "viewer.key").write_text(KEY)
    with pretended() as found:
        found.answers[ASKED] = copy.deepcopy(INVENTORY)
        yield found


def written(folder: Path, text: str) -> Path:
    file = folder / "x.d1fleet.yml"
    file.write_text(text)
    return file


def test_paths_are_relative_to_the_file(
    tmp_path: Path, served: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    file = written(tmp_path, f"plugin: d1.fleet.registry\nurl: {served.url}\nkey_file: viewer.key\n")
    digest(open_registry(file))
    assert served.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    file = written(tmp_path, "url: https://a\nkey_file: viewer.key\ncertificate: registry.pem\n")
    assert open_registry(file).place == Place("", "a", certificate=str(tmp_path / "registry.pem"))


def test_a_key_of_the_environment(tmp_path: Path, served: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D1FLEET_REGISTRY_KEY_FILE", str(tmp_path / "viewer.key"))
    digest(open_registry(written(tmp_path, f"url: {served.url}\n")))
    assert served.asked[0].headers["Authorization"] == f"Bearer {KEY}"


def test_a_socket_wants_no_key(tmp_path: Path) -> None:
    file = written(tmp_path, f"url: unix:{tmp_path}/admin.sock\n")
    with pretended(tmp_path / "admin.sock") as found:
        found.answers[ASKED] = INVENTORY
        digest(open_registry(file))
        assert "Authorization" not in found.asked[0].headers


@pytest.mark.parametrize(
    "text",
    [
        *("", "- a", "a: [", "url: 1", "url: {a: b}", "url: http://192.0.2.1", "plugin: x", "\x00"),
        *("url: https://a", "url: https://a\nkey_file: none", "url: https://a\nkey_file: x.d1fleet.yml"),
        *("url: https://a\nkey_file: viewer.key\npin: x", "url: https://a\nkey_file: [viewer.key]"),
        "[" * 3000,
    ],
)
def test_what_cannot_be_used_names_the_file(tmp_path: Path, served: Pretended, text: str) -> None:
    with pytest.raises(InventoryError, match=r"x\.d1fleet\.yml"):
        open_registry(written(tmp_path, text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="cannot be read"):
        open_registry(tmp_path / "x.d1fleet.yml")


# What counts as another inventory


def taken(served: Pretended, tmp_path: Path) -> int:
    file = written(tmp_path, f"url: {served.url}\nkey_file: viewer.key\n")
    return digest(open_registry(file))


@pytest.mark.parametrize(
    ("name", "value", "is_other"),
    [
        ("address", "192.0.2.99", True),
        ("slots", 9, True),
        ("projects", ["engine"], True),
        ("state", "gone", True),
        ("state", "drained", True),
        ("state", "suspect", False),
        ("owner", "eve", False),
        ("version", "9", False),
    ],
)
def test_what_a_build_goes_by(
    tmp_path: Path, served: Pretended, name: str, value: Any, is_other: bool
) -> None:
    before = taken(served, tmp_path)
    served.answers[ASKED]["hosts"]["alder"][name] = value
    assert (taken(served, tmp_path) != before) is is_other


def test_hosts_that_come_and_go(tmp_path: Path, served: Pretended) -> None:
    both = taken(served, tmp_path)
    birch = served.answers[ASKED]["hosts"].pop("birch")
    assert taken(served, tmp_path) != both
    served.answers[ASKED]["hosts"]["birch"] = birch
    assert taken(served, tmp_path) == both


@pytest.mark.parametrize(
    "answer", [None, [], {"hosts": []}, {"hosts": {"a": 1}}, {"hosts": {"a": {"state": []}}}, 1]
)
def test_nonsense_is_left_to_ansible(tmp_path: Path, served: Pretended, answer: Any) -> None:
    before = taken(served, tmp_path)
    served.answers[ASKED] = (200, answer) if answer is not None else b"HTTP/1.1 200 OK\r\n\r\nnull"
    assert taken(served, tmp_path) != before


def test_a_registry_that_refuses(tmp_path: Path, served: Pretended) -> None:
    served.answers[ASKED] = (401, {"error": {"code": "key", "message": "void"}})
    with pytest.raises(RegistryError, match="void"):
        taken(served, tmp_path)
