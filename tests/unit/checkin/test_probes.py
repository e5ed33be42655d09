"""Peers are asked whether they answer, while no registry says so."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from d1fleet.checkin.probes import Round, Strikes
from d1fleet.checkin.view import Target
from d1fleet.loop import Loop

A, B = ("192.0.2.1", 3632), ("192.0.2.2", 3632)


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.close()


def test_one_silence_drops_nobody() -> None:
    strikes = Strikes()
    assert not strikes.note({A: False, B: True})
    assert not strikes.note({A: True, B: True})
    assert not strikes.note({A: False, B: True})
    assert strikes.silent == frozenset()
    assert strikes.note({A: False, B: True})
    assert strikes.silent == {A}


def test_who_answers_is_back_and_who_is_no_peer_is_forgotten() -> None:
    strikes = Strikes()
    for _ in range(5):
        strikes.note({A: False, B: False})
    assert strikes.silent == {A, B}
    assert strikes.note({A: True})
    assert strikes.silent == frozenset()
    assert not strikes.note({A: True, B: False})


def test_with_the_registry_all_are_back() -> None:
    strikes = Strikes()
    assert not strikes.clear()
    strikes.note({A: False})
    strikes.note({A: False})
    assert strikes.clear() and strikes.silent == frozenset()
    assert not strikes.clear()


def _run(loop: Loop, targets: list[Target], at_once: int = 64) -> dict[Target, bool]:
    found: dict[Target, bool] = {}

    def done(answered: dict[Target, bool]) -> None:
        found.update(answered)
        loop.stop()

    Round(loop, targets, done, at_once, 0.3)
    loop.run()
    return found


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_a_round(loop: Loop, at_once: int) -> None:
    """One listens, one refuses, one does not answer, and of one family there is perhaps no network."""
    with socket.socket() as listens, socket.socket() as refuses, socket.socket() as full:
        for each in (listens, refuses, full):
            each.bind(("127.0.0.1", 0))
        listens.listen(64)
        full.listen(0)
        # Its queue is full: the kernel answers nobody any more.
        stuffed = [socket.socket() for _ in range(3)]
        for each in stuffed:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        targets = [each.getsockname() for each in (listens, refuses, full)]
        others = [("127.0.0.1", 1), ("2001:db8::1", 3632)]
        found = _run(loop, [*targets, *others], at_once)
        assert [found[target] for target in targets] == [True, False, False]
        assert found.keys() == {*targets, *others} and not found[others[0]]
        for each in stuffed:
            each.close()


def test_a_round_of_nobody(loop: Loop) -> None:
    assert _run(loop, []) == {}


def test_a_round_that_is_given_up(loop: Loop) -> None:
    called: list[dict[Target, bool]] = []
    given_up = Round(loop, [A, B, ("127.0.0.1", 1)], called.append)
    given_up.close()
    loop.call_later(0.1, loop.stop)
    loop.run()
    assert not called


def test_no_more_than_so_many_at_once(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0

    def start(self: Round, target: Target) -> None:
        nonlocal most
        original(self, target)
        most = max(most, len(self._under_way))

    original = Round._start
    monkeypatch.setattr(Round, "_start", start)
    with socket.socket() as listens:
        listens.bind(("127.0.0.1", 0))
        listens.listen(64)
        address = listens.getsockname()
        found = _run(loop, [address, *((f"127.0.0.{number}", address[1]) for number in range(2, 30))], 4)
    assert len(found) == 29 and 1 <= most <= 4
