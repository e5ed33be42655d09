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
