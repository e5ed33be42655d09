"""The process that watches a tree of this machine, and waits until what others have changed is seen here.

A process of its own, since a file server that does not answer would hold up whoever asks it. Both ways go
frames: a verb, a number, the length of what follows.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Iterator

from .changes import FILE, OTHER, Change, decode, encode
from .treewatch import TreeWatch, look

COLLECT, SEE = b"c", b"s"
"""Asked: what has changed here since the last time? And: tell when you see this!"""

CHANGES, COLLECTED, SEEN, UNSEEN, FAULT = b"C", b"c", b"s", b"u", b"f"
"""Answers. CHANGES come by themselves as well. SEEN: all of what has a number up to this one."""

LONGEST_S = 75.0
"""After this long, what is not seen is reported: NFS looks again after 60 s at most (nfs(5), acdirmax)."""

_HEAD = struct.Struct("!cII")
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.005, 0.25

_TELL_S = 0.3
"""Changes are told this soon though nobody asks: who waits for a file that is gone would wait long."""

_READ_BYTES = 1 << 16


class Frames:
    """Takes frames out of a stream of bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int, bytes]]:
        """Verb, number, and what it says."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            verb, number, length = _HEAD.unpack_from(self._buffer)
            end = _HEAD.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEAD.size : end])
            del self._buffer[:end]
            yield verb, number, payload


def frame(verb: bytes, number: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return _HEAD.pack(verb, number, len(payload)) + payload


class _Sighting:
    """Serves one pair of descriptors until its reading end is closed."""

    def __init__(self, read_fd: int, write_fd: int, root: bytes, recent_s: float) -> None:
        self._read_fd, self._write_fd = read_fd, write_fd
        self._watch = TreeWatch(root, recent_s)
        self._pending: dict[bytes, tuple[int, float, Change]] = {}
        """What has still to be seen, by its path: its number, and until when. A newer change of the same path
        takes the place of an older one, which may never be seen, and its number: who waits for that must not
        go by what was before both.
        """
        self._last = self._told = -1
        """The highest number so far, and up to which it was said that all is seen."""
        self._look_s = _SHORTEST_LOOK_S
        self._tell_at = 0.0

    def serve(self) -> None:
        frames = Frames()
        poll = select.poll()
        for fd in (self._read_fd, self._watch.fd):
            poll.register(fd, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poll.poll(self._timeout_ms())]
            if self._watch.fd in ready:
                self._watch.read()
                self._tell_at = self._tell_at or time.monotonic() + _TELL_S
            if self._read_fd in ready:
                data = os.read(self._read_fd, _READ_BYTES)
                if not data:
                    return
                for verb, number, payload in frames.feed(data):
                    if verb == COLLECT:
                        self._tell()
                        self._answer(COLLECTED, number)
                    else:
                        self._see(number, decode(payload))
            if self._tell_at and time.monotonic() >= self._tell_at:
                self._tell()
            self._look()

    def _timeout_ms(self) -> float | None:
        waits = [self._look_s] if self._pending else []
        if self._tell_at:
            waits.append(max(0.0, self._tell_at - time.monotonic()))
        return min(waits) * 1000 + 1 if waits else None

    def _tell(self) -> None:
        self._tell_at = 0.0
        for block in encode(self._watch.changes()):
            self._answer(CHANGES, 0, block)

    def _see(self, number: int, changes: list[Change]) -> None:
        self._last = number
        self._look_s = _SHORTEST_LOOK_S
        until = time.monotonic() + LONGEST_S
        for change in changes:
            first = self._pending.get(change.path, (number, until))
            self._pending[change.path] = (first[0], first[1], change)

    def _look(self) -> None:
        """Say what is seen by now. Where something is not, it is looked at in ways that make a client of a
        network's file system ask its server again: folders and files are opened (close-to-open, nfs(5)).
        """
        poked: set[bytes] = set()
        for path, (_, until, change) in list(self._pending.items()):
            if not change.is_seen(look(path)):
                _poke(change, poked)
                if not change.is_seen(look(path)):
                    if time.monotonic() < until:
                        continue
                    self._answer(UNSEEN, 0, path)
            del self._pending[path]
        self._look_s = min(2 * self._look_s, _LONGEST_LOOK_S)
        upto = min((number for number, _, _ in self._pending.values()), default=self._last + 1) - 1
        if upto > self._told:
            self._told = upto
            self._answer(SEEN, upto)

    def _answer(self, verb: bytes, number: int, payload: bytes = b"") -> None:
        view = memoryview(frame(verb, number, payload))
        while view:
            view = view[os.write(self._write_fd, view) :]


def _poke(change: Change, poked: set[bytes]) -> None:
    folder = os.path.dirname(change.path)
    if folder not in poked:
        poked.add(folder)
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            next(entries, None)
    if change.kind in (FILE, OTHER):
        with contextlib.suppress(OSError):
            os.close(os.open(change.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))


def run(read_fd: int, write_fd: int, root: bytes, recent_s: float) -> None:
    """Serve until `read_fd` ends; a fault is the last word."""
    try:
        try:
            _Sighting(read_fd, write_fd, root, recent_s).serve()
        except OSError as error:
            os.write(write_fd, frame(FAULT, 0, str(error).encode()))
    except BrokenPipeError:
        pass  # nobody is there any more


def main() -> int:
    """Serve our standard input and output; arguments: the folder, and how many seconds are recent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(0, 1, os.fsencode(sys.argv[1]), float(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
