"""Inventories that change: seen, read once they stay as they are, and complained of once. Real reading is in
tests/trouble/test_comings.py.
"""

from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d1fleet import inventory, registryfile, watch
from d1fleet.errors import D1fleetError, InventoryError, RegistryError
from d1fleet.fleet import Fleet, Inventory
from d1fleet.inventory_cache import Stamps
from d1fleet.loop import Loop
from d1fleet.watch import InventoryWatch, look, state

LOOK_S = 0.02


def made_up(*names: str) -> Inventory:
    groups = {"projects": {"children": ["test"]}, "test": {"hosts": list(names)}}
    return Inventory.of({"_meta": {"hostvars": {name: {} for name in names}}, **groups})


def as_said(answer: Inventory | D1fleetError) -> bytes:
    """As the process that reads says it."""
    if isinstance(answer, D1fleetError):
        return json.dumps({"error": [answer.message, answer.mend]}).encode()
    return json.dumps({"inventory": answer.to_json()}).encode()


class Watched:
    """A watch over an inventory of one file, whose reader is the test."""

    def __init__(self, folder: Path) -> None:
        self.loop = Loop()
        self.file = folder / "hosts.yml"
        self.file.write_text("old")
        self.reading: list[Callable[[Inventory | D1fleetError], None]] = []
        self.closed = 0
        self.fleets: list[Fleet] = []
        self.watch = InventoryWatch(
            self.loop, [str(self.file)], "test", look([str(self.file)]), self.fleets.append
        )

    def helper(self, loop: Loop, module: str, inventories: object, done: Callable[[bytes], None]) -> Watched:
        assert module == "d1fleet.inventory"
        self.reading.append(lambda answer: done(as_said(answer)))
        return self

    def close(self) -> None:
        self.closed += 1

    def write(self, text: str) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.file)

    def wait_for(self, count: int) -> None:
        while len(self.reading) < count:
            self.loop.run_once(1.0)

    def for_a_while(self) -> None:
        """Time for many looks."""
        end = self.loop.now() + 10 * LOOK_S
        while self.loop.now() < end:
            self.loop.run_once(LOOK_S)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setattr(watch, "LOOK_S", LOOK_S)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = Watched(tmp_path)
    monkeypatch.setattr(watch, "Helper", found.helper)
    yield found
    found.watch.close()
    found.loop.close()


def test_nothing_is_read_that_has_not_changed(watched: Watched) -> None:
    watched.for_a_while()
    assert watched.reading == []


def test_a_change_is_read_once(watched: Watched) -> None:
    watched.write("new")
    watched.wait_for(1)
    watched.reading[0](made_up("alder", "birch"))
    watched.for_a_while()
    assert len(watched.reading) == 1
    assert [host.name for host in watched.fleets[0].hosts] == ["alder", "birch"]


def test_variables_beside_it_count(watched: Watched) -> None:
    (watched.file.parent / "group_vars").mkdir()
    (watched.file.parent / "group_vars" / "all.yml").write_text("a: 1")
    watched.wait_for(1)


def test_a_file_that_goes_counts(watched: Watched) -> None:
    watched.file.unlink()
    watched.wait_for(1)


def test_what_changes_while_it_is_read_is_read_again(watched: Watched) -> None:
    watched.write("new")
    watched.wait_for(1)
    watched.write("newer")
    while not watched.watch._changed_meanwhile:
        watched.loop.run_once(1.0)
    assert len(watched.reading) == 1
    watched.reading[0](made_up("old"))
    watched.wait_for(2)
    watched.reading[1](made_up("new"))
    assert [[host.name for host in fleet.hosts] for fleet in watched.fleets] == [["new"]]


def test_what_still_changes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor at work: half a file makes no sense."""
    looks: queue.Queue[Stamps] = queue.Queue()
    seen = 0

    def looking(inventories: object) -> Stamps:
        nonlocal seen
        if seen:
            looks.task_done()  # what was seen last has been thought about
        seen += 1
        return looks.get()

    found = Watched(tmp_path)
    found.watch.close()
    monkeypatch.setattr(watch, "LOOK_S", LOOK_S)
    monkeypatch.setattr(watch, "Helper", found.helper)
    monkeypatch.setattr(watch, "look", looking)
    watching = InventoryWatch(found.loop, [str(found.file)], "test", (), found.fleets.append)
    read = []
    for size in (1, 2, 3, 3):
        looks.put((("hosts.yml", 0, size, 0),))
        looks.join()
        found.loop.run_once(0.0)
        read.append(len(found.reading))
    watching.close()
    looks.put(())
    found.loop.close()
    assert read == [0, 0, 0, 1]


def test_what_is_wrong_is_said_once(watched: Watched, capfd: pytest.CaptureFixture[str]) -> None:
    wrong: list[Inventory | D1fleetError] = [
        InventoryError("line 3"),
        InventoryError("line 3"),
        made_up("alder"),
        InventoryError("line 3"),
        Inventory({"projects": ["other"], "other": []}, {"projects": [], "other": []}, {}),
    ]
    for number, answer in enumerate(wrong):
        watched.write(str(number))
        watched.wait_for(number + 1)
        watched.reading[number](answer)
    said = capfd.readouterr().err
    assert said.count("hosts stay as they are: line 3") == 2
    assert said.count("the inventory has no project 'test'") == 1
    assert len(watched.fleets) == 1


def test_nothing_is_read_when_the_build_is_over(watched: Watched) -> None:
    watched.write("new")
    watched.wait_for(1)
    watched.watch.close()
    watched.write("newer")
    watched.for_a_while()
    assert (watched.closed, len(watched.reading)) == (1, 1)


def test_the_process_that_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def load(paths: list[str]) -> Inventory:
        if "broken" in paths[0]:
            raise InventoryError("line 3", "mend it")
        return made_up("alder")

    monkeypatch.setattr(inventory, "load_inventory", load)
    for path in ("good", "broken"):
        monkeypatch.setattr("sys.argv", ["inventory", path])
        assert inventory.main() == 0
    good, broken = capfd.readouterr().out.encode().splitlines()
    assert watch._answer(good) == made_up("alder")
    error = watch._answer(broken)
    assert isinstance(error, InventoryError)
    assert (error.message, error.mend) == ("line 3", "mend it")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b"3", json.dumps({"inventory": 3}).encode()])
def test_a_reader_that_died(data: bytes) -> None:
    assert isinstance(watch._answer(data), InventoryError)


# Registries


class Said:
    """What a registry says, in place of asking one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answer: int | D1fleetError = 1
        self.count = 0
        monkeypatch.setattr(registryfile, "open_registry", lambda file: file)
        monkeypatch.setattr(registryfile, "digest", self.digest)
        monkeypatch.setattr(watch, "ASK_S", LOOK_S)

    def digest(self, file: Path) -> int:
        self.count += 1
        if isinstance(self.answer, D1fleetError):
            raise self.answer
        return self.answer

    def until_asked_again(self, found: Watched) -> None:
        """What is said now has been heard, and thought about."""
        goal = self.count + 3
        while self.count < goal:
            found.loop.run_once(LOOK_S)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    return Said(monkeypatch)


@pytest.fixture
def following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Said) -> Iterator[Watched]:
    """A watch over a file that names a registry."""
    monkeypatch.setattr(watch, "LOOK_S", LOOK_S)
    monkeypatch.setenv("HOME", str(tmp_path))
    found = Watched(tmp_path)
    found.watch.close()
    found.file = tmp_path / "x.d1fleet.yml"
    found.file.write_text("url: x")
    monkeypatch.setattr(watch, "Helper", found.helper)
    files = [str(found.file)]
    found.watch = InventoryWatch(found.loop, files, "test", state(files), found.fleets.append)
    yield found
    found.watch.close()
    found.loop.close()


def test_hosts_that_come_and_go_are_read_once(following: Watched, said: Said) -> None:
    said.until_asked_again(following)
    assert following.reading == []
    said.answer = 2
    following.wait_for(1)
    following.reading[0](made_up("alder", "birch"))
    said.until_asked_again(following)
    assert len(following.reading) == 1
    assert [host.name for host in following.fleets[0].hosts] == ["alder", "birch"]


def test_what_changed_before_the_watch_began_is_seen(following: Watched, said: Said) -> None:
    """The inventory was read after `state` had looked."""
    following.watch.close()
    files = [str(following.file)]
    before = state(files)
    said.answer = 2
    following.watch = InventoryWatch(following.loop, files, "test", before, following.fleets.append)
    following.wait_for(1)


def test_a_registry_that_is_away_changes_nothing_and_is_told_of_once(
    following: Watched, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        said.answer = RegistryError("it is away", "start it")  # at first before the watch has asked at all
        said.until_asked_again(following)
        said.until_asked_again(following)
        said.answer = 1
        said.until_asked_again(following)
    assert following.reading == []
    found = capfd.readouterr().err
    assert found.count("hosts that come and go are not seen, those of the build stay: it is away") == 2


def test_a_file_that_names_none_any_more_is_ansibles_to_complain_of(
    following: Watched, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    said.answer = InventoryError("it is no mapping")
    following.wait_for(1)
    assert capfd.readouterr().err == ""


def test_without_a_registry_none_is_asked(watched: Watched, said: Said) -> None:
    watched.for_a_while()
    assert said.count == 0
    assert state([]) == ()
