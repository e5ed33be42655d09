"""Carrying out what a make's account says, where that changes the account under way."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from d1fleet import protocol
from d1fleet.loop import Loop
from d1fleet.maketokens import MakeTokens, TokenPipes


class GivesBackAtOnce:
    """Has a slot for everything; a token that is returned comes back before `send` has returned, once."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.channel = TokenPipes()
        self.again = True
        self.tokens = MakeTokens(self, 0, self.channel, lambda: None)
        self.slots = 0

    def send(self, message: protocol.Message) -> None:
        if isinstance(message, protocol.Return) and self.again:
            self.again = False
            self.tokens.granted(1)

    def take_slot(self, force: bool) -> bool:
        self.slots += 1
        return True

    def give_slot(self) -> None:
        self.slots -= 1


@pytest.fixture
def host() -> Iterator[GivesBackAtOnce]:
    host = GivesBackAtOnce()
    yield host
    host.tokens.close()
    host.loop.close()
    assert host.slots == 0


def test_one_token_is_offered_whoever_is_first(host: GivesBackAtOnce) -> None:
    """The build's own make gives to the pool, and the pool serves who waits: this very make, perhaps."""
    host.tokens.granted(2)
    assert (host.tokens.offered, host.slots) == (1, 1)
    assert os.read(host.channel.make_read, 8) == b"+"


class Full(GivesBackAtOnce):
    """Has slots as long as it is said to, and notes what it is told to send."""

    def __init__(self) -> None:
        self.free = True
        self.sent: list[protocol.Message] = []
        super().__init__()

    def send(self, message: protocol.Message) -> None:
        self.sent.append(message)

    def take_slot(self, force: bool) -> bool:
        return self.free and super().take_slot(force)


@pytest.fixture
def full() -> Iterator[Full]:
    host = Full()
    yield host
    host.tokens.close()
    host.loop.close()
    assert host.slots == 0


def test_a_token_that_comes_back_to_a_full_machine_does_not_lie_there(full: Full) -> None:
    full.tokens.granted(1)
    assert os.read(full.channel.make_read, 1) == b"+"
    full.free = False
    os.write(full.channel.make_write, b"+")
    full.sent.clear()
    full.loop.call_later(0.1, full.loop.stop)
    full.loop.run()
    assert full.sent == [protocol.Want(0, 1), protocol.Return(0, 1)]
    assert full.tokens.held == 0


def test_a_make_is_asked_once_a_sub_make_of_it_is_over(full: Full) -> None:
    """However young it is: one that calls makes is not over in a moment."""
    full.tokens.stirred()
    assert full.sent == [protocol.Want(0, 1)]
