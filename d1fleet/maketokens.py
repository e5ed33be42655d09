"""The jobserver of one make on this machine: its tokens come from the build, its slots from the machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from typing import Protocol

from . import protocol
from .loop import Loop
from .streams import unread
from .tokens import Account, Action

TOKEN_TICK_S = 0.02
"""How often accounts are looked at; one timer for all of a process."""

_F_SETPIPE_SZ = 1031
_TOKEN = b"+"


class Host(Protocol):
    """What a make's jobserver needs of those around it."""

    loop: Loop

    def send(self, message: protocol.Message) -> None: ...
    def take_slot(self, force: bool) -> bool: ...
    def give_slot(self) -> None: ...


class TokenPipes:
    """A private pair of pipes (make 4.2 to 4.4): one holds at most one unread offer, on the other tokens
    come back.
    """

    def __init__(self) -> None:
        # O_DIRECT makes packets: a pipe of one page holds one offer, and is writable again when that is read.
        self.make_read, self.offer_fd = os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
        self.return_fd, self.make_write = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.offer_fd, _F_SETPIPE_SZ, 4096)
        os.set_blocking(self.return_fd, False)
        os.set_blocking(self.offer_fd, False)

    def offer(self) -> None:
        os.write(self.offer_fd, _TOKEN)

    def withdraw(self) -> bool:
        """Read the offer back; False when the make was faster."""
        os.set_blocking(self.make_read, False)
        try:
            return bool(os.read(self.make_read, 1))
        except BlockingIOError:
            return False

    def close(self) -> None:
        for fd in (self.make_read, self.offer_fd, self.return_fd, self.make_write):
            os.close(fd)


class TokenFifo:
    """A fifo (make 4.4), which recipes that are no sub-makes can use too; a make puts its tokens back
    into it itself.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        os.mkfifo(path, 0o600)
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            os.unlink(path)
            raise

    def offer(self) -> None:
        os.write(self._fd, _TOKEN)

    def withdraw(self) -> bool:
        return self.drain(1) > 0

    def drain(self, most: int = 4096) -> int:
        """Take out what lies in it; returns how much that was."""
        try:
            return len(os.read(self._fd, most))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        os.close(self._fd)
        with contextlib.suppress(OSError):
            os.unlink(self.path)


class MakeTokens:
    """Carries out what the account of a make says.

    Args:
        attempt: whose make it is, for the messages; 0 is the build's own.
        channel: how the make gets at its tokens.
        on_held: called when the number of tokens that the make has taken is another.
    """

    def __init__(
        self,
        host: Host,
        attempt: int,
        channel: TokenPipes | TokenFifo,
        on_held: Callable[[], None],
        account: Account | None = None,
    ) -> None:
        self._host = host
        self._attempt = attempt
        self._loop = host.loop
        self.channel = channel
        self._account = Account(self._loop.now()) if account is None else account
        self._on_held = on_held
        self._slots = 0
        """Slots of the machine that its tokens take."""
        self._probes = 0
        """Tokens that came to be offered without a slot."""
        if isinstance(channel, TokenPipes):
            self._loop.on_read(channel.return_fd, self._returned)

    @property
    def held(self) -> int:
        """Tokens that the make has taken."""
        return self._account.held

    @property
    def offered(self) -> int:
        """Tokens that lie there for it, not taken."""
        return self._account.offered

    @property
    def total(self) -> int:
        """Tokens that it keeps from others."""
        return self._account.total

    @property
    def hungry(self) -> bool:
        """May the make have use for another token?"""
        return self._account.hungry

    def granted(self, count: int, probe: bool = False) -> None:
        """The coordinator gave tokens; a `probe` needs no slot."""
        self._probes += count if probe else 0
        self._act(self._account.granted(count, self._loop.now()))

    def recall(self, count: int) -> None:
        """The coordinator wants tokens back."""
        self._act(self._account.recall(count, self._loop.now()))

    def stirred(self) -> None:
        """A sub-make that the make has called is over."""
        self._act(self._account.stirred(self._loop.now()))

    def tick(self, patient: bool = False) -> None:
        """Time has passed. `patient`: an offer may lie there, for nobody else waits for it."""
        if isinstance(self.channel, TokenFifo):
            self._look_into(self.channel)
        self._act(self._account.tick(self._loop.now(), patient))

    def _look_into(self, fifo: TokenFifo) -> None:
        """A fifo tells nothing by itself: count what lies in it."""
        account = self._account
        if not account.offered and not account.held:
            return
        found = fifo.drain()
        if account.offered and found:
            fifo.offer()  # as good as unread
            found -= 1
        elif account.offered:
            self._take()
        if found:
            self._released(found)

    def _act(self, actions: list[Action]) -> None:
        account = self._account
        for verb, count in actions:
            if verb == "want":
                self._host.send(protocol.Want(self._attempt, count))
            elif verb == "return":
                self._probes = 0
                self._host.send(protocol.Return(self._attempt, count))
            elif verb == "offer":
                # What was returned may have come back at once, and been offered already.
                if not account.spare or account.offered:
                    continue
                if not self._host.take_slot(self._probes > 0):
                    self._act(account.no_slot(self._loop.now()))
                    continue  # tried again with the next tick, if it still is there
                self._probes = max(0, self._probes - 1)
                self._slots += 1
                self.channel.offer()
                account.offer_made(self._loop.now())
                if isinstance(self.channel, TokenPipes):
                    self._loop.on_write(self.channel.offer_fd, self._taken)
            elif verb == "withdraw" and account.offered and self.channel.withdraw():
                if isinstance(self.channel, TokenPipes):
                    self._loop.on_write(self.channel.offer_fd, None)
                self._give_slots(1)
                self._act(account.withdrawn(self._loop.now()))

    def _taken(self) -> None:
        pipes = self.channel
        # The event may be of an offer before this one: what counts is whether this one still lies there.
        if isinstance(pipes, TokenPipes) and self._account.offered and not unread(pipes.make_read):
            self._loop.on_write(pipes.offer_fd, None)
            self._take()

    def _take(self) -> None:
        self._act(self._account.taken(self._loop.now()))
        self._on_held()

    def _returned(self) -> None:
        pipes = self.channel
        if not isinstance(pipes, TokenPipes):
            return
        try:
            count = len(os.read(pipes.return_fd, 4096))
        except BlockingIOError:
            return
        self._taken()  # taken and given back within one round of the loop: the taking comes first
        self._released(count)

    def _released(self, count: int) -> None:
        count = min(count, self._account.held)  # a recipe may write what it never read; it earns nothing
        self._give_slots(count)
        self._act(self._account.released(count, self._loop.now()))
        self._on_held()

    def _give_slots(self, count: int) -> None:
        for _ in range(min(count, self._slots)):
            self._slots -= 1
            self._host.give_slot()

    def close(self) -> None:
        """The make has ended: what it had is free, whatever became of it."""
        if isinstance(self.channel, TokenPipes):
            self._loop.forget(self.channel.offer_fd)
            self._loop.forget(self.channel.return_fd)
        self.channel.close()
        self._give_slots(self._slots)
