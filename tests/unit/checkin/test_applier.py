"""The way to the root helper."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from d1fleet.checkin import applier
from d1fleet.checkin.applier import Applier
from d1fleet.checkin.worker import Worker
from d1fleet.loop import Loop

GOOD = b'{"changed": ["x"], "faults": []}'


class Helper:
    """A helper that answers what a test says."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.asked: queue.Queue[dict[str, Any]] = queue.Queue()
        self.answer: Callable[[socket.socket], None] = lambda way: way.sendall(GOOD)
        self._way = socket.socket(socket.AF_UNIX)
        self._way.bind(self.path)
        self._way.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            way, _ = self._way.accept()
            with way:
                data = b""
                while piece := way.recv(1 << 16):
                    data += piece
                if not data:
                    return
                self.asked.put(json.loads(data))
                with contextlib.suppress(OSError):
                    self.answer(way)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self.path)
        self._thread.join()
        self._way.close()


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Helper]:
    found = Helper(tmp_path / "s")
    yield found
    found.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


def _endless(way: socket.socket) -> None:
    while True:
        way.sendall(b" " * (1 << 16))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda way: way.sendall(GOOD), (["x"], [])),
        (lambda way: way.sendall(b'{"changed": [], "faults": ["bad"]}'), ([], ["bad"])),
        (lambda way: None, "not answer as it should"),
        (lambda way: way.sendall(b"nonsense"), "not answer as it should"),
        (lambda way: way.sendall(b'{"changed": [1], "faults": []}'), "not answer as it should"),
        (lambda way: way.sendall(b'{"changed": [], "faults": [], "x": 1}'), "not answer as it should"),
        (_endless, "without end"),
    ],
)
def test_answers(helper: Helper, answer: Callable[[socket.socket], None], found: Any) -> None:
    helper.answer = answer
    changed, faults = applier.ask(helper.path, b'{"a": 1}')
    if isinstance(found, str):
        assert changed == [] and found in faults[0]
    else:
        assert (changed, faults) == found
    assert helper.asked.get() == {"a": 1}


def test_nobody_there(tmp_path: Path) -> None:
    changed, (fault,) = applier.ask(str(tmp_path / "none"), b"{}")
    assert changed == [] and "does not answer at" in fault and "No such file" in fault


def test_one_that_hangs(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    helper.answer = lambda way: (ended.wait(), None)[1]
    monkeypatch.setattr(applier, "LIMIT_S", 0.2)
    try:
        assert "timed out" in applier.ask(helper.path, b"{}")[1][0]
    finally:
        ended.set()


class Said:
    """What an applier has told, until so many words."""

    def __init__(self, loop: Loop, count: int) -> None:
        self.words: list[tuple[list[str], list[str]]] = []
        self._loop, self._count = loop, count

    def __call__(self, changed: list[str], faults: list[str]) -> None:
        self.words.append((changed, faults))
        if len(self.words) >= self._count:
            self._loop.stop()


def test_the_same_is_asked_for_once(loop: Loop, helper: Helper) -> None:
    said = Said(loop, 1)
    found = Applier(loop, helper.path, said)
    found.again()  # of nothing
    found.want({"a": 1})
    loop.run()
    found.want({"a": 1})
    loop.call_later(0.1, loop.stop)
    loop.run()
    assert said.words == [(["x"], [])]
    assert found.close(10)
    assert helper.asked.get() == {"a": 1} and helper.asked.empty()


def test_while_one_is_under_way_only_the_last_one_counts(loop: Loop, helper: Helper) -> None:
    said = Said(loop, 2)
    found = Applier(loop, helper.path, said)
    for number in range(5):
        found.want({"a": number})
    loop.run()
    assert found.close(10)
    assert [helper.asked.get()["a"], helper.asked.get()["a"]] == [0, 4]
    assert helper.asked.empty()


@pytest.mark.parametrize(("name", "answer"), [("AGAIN_S", GOOD), ("AFTER_FAULT_S", b"nonsense")])
def test_it_is_asked_for_again_later(
    loop: Loop, helper: Helper, monkeypatch: pytest.MonkeyPatch, name: str, answer: bytes
) -> None:
    helper.answer = lambda way: way.sendall(answer)
    monkeypatch.setattr(applier, name, 0.05)
    found = Applier(loop, helper.path, Said(loop, 3))
    found.want({"a": 1})
    loop.run()
    assert found.close(10)


def test_a_thread_that_hangs_is_noticed(loop: Loop) -> None:
    worker = Worker(loop, "test")
    ended = threading.Event()
    done: list[Any] = []

    def tell(result: Any, error: Exception | None) -> None:
        done.append((result, error))
        loop.stop()

    assert not worker.hangs(0.0)
    worker.run(ended.wait, tell, 0.0)
    assert worker.hangs(0.0) and not worker.hangs(1000.0)
    ended.set()
    loop.run()
    assert done == [(True, None)] and not worker.hangs(0.0)
    worker.run(lambda: 1 // 0, tell, 1.0)
    loop.run()
    assert isinstance(done[1][1], ZeroDivisionError)
    assert worker.close(10)
