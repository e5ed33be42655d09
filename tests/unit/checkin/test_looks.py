"""What is seen of this host, and when it is looked at again."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d1fleet.checkin import compilers, looks, netlink, report
from d1fleet.checkin.looks import ConfigurationFile, Toolchain, Watch
from d1fleet.checkin.report import Durable
from d1fleet.errors import UsageError
from d1fleet.loop import Loop
from tests.unit.checkin.test_config import GOOD
from tests.unit.checkin.test_report import SETTINGS


class Clock(Loop):
    """A loop whose time a test sets."""

    time_s = 1000.0

    def now(self) -> float:  # type: ignore[override]
        return self.time_s


@pytest.fixture
def loop() -> Iterator[Clock]:
    found = Clock()
    yield found
    found.close()


class Looked:
    """In place of a process that looks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tools: list[tuple[str, ...]] = []
        self.done: Any = None
        monkeypatch.setattr(compilers, "Look", self._start)

    def _start(self, _loop: Loop, _cache: str, tools: tuple[str, ...], done: Any) -> Looked:
        self.tools.append(tools)
        self.done = done
        return self

    def close(self) -> None:
        pass


def test_compilers_are_looked_at_now_and_then(
    loop: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, changes = Looked(monkeypatch), []
    status = tmp_path / "status"
    status.write_text("1")
    found = Toolchain(loop, str(tmp_path), lambda: changes.append(dict(found.parts)), str(status))

    def after(seconds: float, tools: tuple[str, ...] = ()) -> int:
        loop.time_s += seconds
        found.look_if_due(tools)
        return len(looked.tools)

    assert after(0) == 1
    assert after(1000) == 1  # still at it
    looked.done({"cc": "12"})
    assert changes == [{"cc": "12"}]
    assert after(0) == 2
    looked.done({"cc": "12"})
    assert len(changes) == 1
    assert after(compilers.EACH_S - 1) == 2
    assert after(1) == 3
    # It is not sure: what was seen before holds, and it is looked at again soon.
    looked.done({})
    assert (found.parts, len(changes)) == ({"cc": "12"}, 1)
    assert after(compilers.AGAIN_S - 1) == 3
    assert after(1) == 4
    looked.done({"cc": "12"})
    # A package manager writes, and writes again.
    for _ in range(5):
        status.write_text(status.read_text() + "x")
        assert after(looks.SETTLE_S - 1) == 4
    assert after(looks.SETTLE_S - 1) == 4
    assert after(1) == 5
    looked.done({"cc": "14"})
    assert changes[-1] == {"cc": "14"}
    assert after(1, ("arm-gcc",)) == 6
    assert looked.tools[-1] == ("arm-gcc",)
    found.close()


def test_where_no_process_can_be_started(
    loop: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(compilers, "Look", refused)
    found = Toolchain(loop, str(tmp_path), lambda: None, str(tmp_path / "none"))
    found.look_if_due(())
    found.look_if_due(())
    assert found.parts == {}
    found.close()


def test_a_moment_without_keys_is_no_change(loop: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Durable(("192.0.2.1",), 4, True, ("key",))
    monkeypatch.setattr(report, "durable", lambda *_: seen)
    watch = Watch(loop, SETTINGS, lambda: None)
    try:
        assert watch.now == seen
        seen = dataclasses.replace(seen, host_keys=())
        assert watch.look(SETTINGS, {}) == watch.now
        seen = dataclasses.replace(seen, host_keys=("other",), slots=5)
        before = watch.look(SETTINGS, {})
        assert (before.host_keys, watch.now.host_keys, watch.now.slots) == (("key",), ("other",), 5)
    finally:
        watch.close()


def test_word_from_the_kernel_is_a_reason_to_look(loop: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel:
        """In place of a socket of netlink's."""

        def __init__(self) -> None:
            read, self.write = os.pipe()
            self.socket = os.fdopen(read, "rb", buffering=0)

        def drain(self) -> None:
            self.socket.read(100)

        def close(self) -> None:
            self.socket.close()
            os.close(self.write)

    kernel = Kernel()
    monkeypatch.setattr(netlink, "AddressWatch", lambda: kernel)
    looked: list[int] = []
    watch = Watch(loop, SETTINGS, lambda: looked.append(1))
    try:
        os.write(kernel.write, b"x")
        loop.run_once()
        assert looked == [1]
    finally:
        watch.close()


def test_without_netlink_each_second_has_to_do(loop: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(netlink, "AddressWatch", refused)
    watch = Watch(loop, SETTINGS, lambda: None)
    assert watch.addresses == tuple(netlink.own_addresses(SETTINGS.networks))
    watch.close()


def test_a_configuration_is_read_when_it_changes(tmp_path: Path) -> None:
    path, certificate = tmp_path / "checkin.json", tmp_path / "registry.pem"
    good = {**GOOD, "certificate": str(certificate)}
    path.write_text(json.dumps(good))
    found = ConfigurationFile(str(path))
    assert not found.changed()
    certificate.write_text("a")
    assert found.changed() and not found.changed()
    assert found.changed(force=True)
    path.write_text("nonsense")
    assert not found.changed()
    assert "no JSON" in found.fault and found.now.owner == "ada"
    path.write_text(json.dumps({**good, "owner": "grace"}))
    assert found.changed()
    assert (found.fault, found.now.owner) == ("", "grace")
    path.unlink()
    assert not found.changed() and found.fault
    with pytest.raises(UsageError):
        ConfigurationFile(str(path))
