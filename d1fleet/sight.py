"""Who sees to the tree on this machine: what changes here, and what has still to be seen here.

The loop's end of the process in `sighting`.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
from collections.abc import Callable, Sequence

from . import sighting
from .changes import Change, decode, encode
from .loop import Loop
from .stream import FdStream

_KILL_S = 0.5
"""For the end of a process that was killed."""

Then = Callable[[], None]


class Sight:
    """A process that watches a tree, and sees what others have changed in it.

    When it ends, whoever waits goes on: a build must not hang because a watch is impossible.

    Args:
        start: starts the process; returns its id, its standard output and its standard input, ours to close.
        on_changes: told what programs here have changed.
        on_unseen: told of paths at which a change is not seen here after LONGEST_S.
        on_fault: told, in words, why nothing is watched from now on.
    """

    def __init__(
        self,
        loop: Loop,
        start: Callable[[], tuple[int, int, int]],
        on_changes: Callable[[Sequence[Change]], None],
        on_unseen: Callable[[bytes], None],
        on_fault: Callable[[str], None],
    ) -> None:
        self._on_changes, self._on_unseen, self._on_fault = on_changes, on_unseen, on_fault
        self._frames = sighting.Frames()
        self._number = 0
        self._collecting: dict[int, Then] = {}
        self.last = self._seen = -1
        """The highest number of what was to be seen, and up to which all is seen."""
        self._waiting: list[tuple[int, Then]] = []
        self.pid, read_fd, write_fd = start()
        self._pidfd = os.pidfd_open(self.pid)
        """Its number may be another's by the time that we end it."""
        self._stream: FdStream | None = FdStream(loop, read_fd, write_fd, self._received, self._ended)

    def collect(self, then: Then) -> None:
        """Tell `on_changes` what has changed here since it was told last, then call `then`."""
        if self._stream is None:
            then()
            return
        self._number += 1
        self._collecting[self._number] = then
        self._stream.send(sighting.frame(sighting.COLLECT, self._number))

    def see(self, number: int, changes: Sequence[Change], more: bool = False) -> None:
        """These have to be seen here; `number` is no lower than the last one. Without any, that the watch
        has begun.

        Args:
            more: something with the same number follows.
        """
        if self._stream is None:
            return
        *first, last = encode(changes) or [b""]
        for block in first:
            self._stream.send(sighting.frame(sighting.MORE, number, block))
        self._stream.send(sighting.frame(sighting.MORE if more else sighting.SEE, number, last))
        self.last = number

    def look(self, changes: Sequence[Change]) -> None:
        """Tell `on_changes` how it is now at these paths."""
        for block in encode(changes):
            if self._stream is not None:
                self._stream.send(sighting.frame(sighting.LOOK, 0, block))

    def when_seen(self, number: int, then: Then) -> None:
        """Call `then` when all is seen that has a number up to this one."""
        number = min(number, self.last)
        if number > self._seen:
            self._waiting.append((number, then))
        else:
            then()

    def _received(self, data: bytes) -> None:
        for verb, number, payload in self._frames.feed(data):
            if verb == sighting.CHANGES:
                self._on_changes(decode(payload))
            elif verb == sighting.COLLECTED:
                self._collecting.pop(number)()
            elif verb == sighting.SEEN:
                self._go_on(number)
            elif verb == sighting.UNSEEN:
                self._on_unseen(payload)
            else:
                self._on_fault(payload.decode(errors="replace"))

    def _go_on(self, seen: int) -> None:
        self._seen = seen
        ready = [then for number, then in self._waiting if number <= seen]
        self._waiting = [each for each in self._waiting if each[0] > seen]
        for then in ready:
            then()

    def _ended(self) -> None:
        if self._stream is not None:
            self._on_fault("its process has ended")
            self.give_up()

    def give_up(self) -> None:
        """End it; nobody waits any longer."""
        self.close()
        collecting, self._collecting = list(self._collecting.values()), {}
        for then in collecting:
            then()
        self._go_on(self.last)

    def close(self) -> None:
        """End the process; whoever waits is not called any more. Harmless the second time."""
        if self._stream is None:
            return
        self._stream.close()
        self._stream = None
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        # One that a file server holds up is left to itself.
        if select.select([self._pidfd], [], [], _KILL_S)[0]:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
            self.pid = 0
        os.close(self._pidfd)


def forked(root: bytes, recent_s: float) -> tuple[int, int, int]:
    """Start the process as a copy of this one: for a server, which has no threads and no modules on disk."""
    read, their_write = os.pipe2(os.O_CLOEXEC)
    their_read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            gc.freeze()  # what of ours is garbage would close numbers that are descriptors of its own by then
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            # Locks above all: they would outlive the server.
            os.dup2(their_read, 0)
            os.dup2(their_write, 1)
            os.closerange(3, 1 << 16)
            sighting.run(0, 1, root, recent_s)
        finally:
            os._exit(0)
    os.close(their_read)
    os.close(their_write)
    return pid, read, write
