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
from collections import Counter, deque
from collections.abc import Iterator

from .changes import GONE, Change, decode, encode
from .treewatch import TreeWatch, look

COLLECT, SEE, MORE, LOOK = b"c", b"s", b"m", b"l"
"""Asked: what has changed here since the last time? Tell when you see this! (MORE: and what follows.) How is
this now?
"""

CHANGES, COLLECTED, SEEN, UNSEEN, FAULT = b"C", b"c", b"s", b"u", b"f"
"""Answers. CHANGES come by themselves as well. SEEN: all of what has a number up to this one. FAULT: nothing
is watched from now on.
"""

LONGEST_S = 75.0
"""After this long, what is not seen is reported: NFS looks again after 60 s at most (nfs(5), acdirmax)."""

LATER_S = 5.0
"""When that was so once, for what comes later: a build must not stand still again and again."""

_HEAD = struct.Struct("!cII")
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.005, 0.25

_TELL_S = 0.3
"""Changes are told this soon though nobody asks: who waits for a file that is gone would wait long."""

_AT_ONCE = 200
"""So many paths are looked at before others get their turn: each may cost a round trip to a file server."""

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
        self._root = root
        self._watch: TreeWatch | None = None
        self._pending: dict[bytes, tuple[int, float, Change]] = {}
        """What has still to be seen, by its path: its number, and until when. A newer change of the same path
        takes the place of an older one, which may never be seen, and its number: who waits for that must not
        go by what was before both.
        """
        self._numbers: Counter[int] = Counter()
        """How much of each number is pending."""
        self._last = self._told = -1
        """The highest number that is complete, and up to which it was said that all is seen."""
        self._limit_s = LONGEST_S
        self._round: deque[bytes] = deque()
        """What is still to be looked at in this round."""
        self._listings: dict[bytes, frozenset[bytes] | None] = {}
        """Of folders, as found in this round."""
        self._look_s = _SHORTEST_LOOK_S
        self._round_at = self._tell_at = 0.0
        try:
            self._watch = TreeWatch(root, recent_s)
        except OSError as error:
            self._is_blind(error)

    def _is_blind(self, error: OSError) -> None:
        """What changes here is not known any more; what others change can be seen all the same."""
        if self._watch is not None:
            self._watch.close()
        self._watch = None
        self._answer(FAULT, 0, str(error).encode())

    def serve(self) -> None:
        frames = Frames()
        while True:
            fds = [self._read_fd] if self._watch is None else [self._read_fd, self._watch.fd]
            ready = select.select(fds, [], [], self._timeout_s())[0]
            if len(ready) > 1 or self._read_fd not in ready:
                self._read_watch()
            if self._read_fd in ready:
                data = os.read(self._read_fd, _READ_BYTES)
                if not data:
                    return
                for verb, number, payload in frames.feed(data):
                    self._asked(verb, number, payload)
            if self._tell_at and time.monotonic() >= self._tell_at:
                self._tell()
            self._look()

    def _timeout_s(self) -> float | None:
        if self._round:
            return 0.0
        dues = [due for due in (self._tell_at, self._round_at if self._pending else 0.0) if due]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _asked(self, verb: bytes, number: int, payload: bytes) -> None:
        self._read_watch()  # whatever was changed here before is not newer than what is to be seen
        if verb == COLLECT:
            self._tell()
            self._answer(COLLECTED, number)
        elif verb == LOOK:
            for block in encode(look(change.path) for change in decode(payload)):
                self._answer(CHANGES, 0, block)
        else:
            self._see(number, decode(payload))
            if verb == SEE:
                self._last = number

    # -- what changes here ------------------------------------------------------------------------------

    def _read_watch(self) -> None:
        if self._watch is None:
            return
        try:
            fresh = self._watch.read()
        except OSError as error:
            self._is_blind(error)
            return
        if fresh:
            self._tell_at = self._tell_at or time.monotonic() + _TELL_S
        for path in fresh:
            self._settle(path)  # who has changed it himself need not see what was before

    def _tell(self) -> None:
        self._tell_at = 0.0
        for block in encode(self._watch.changes() if self._watch is not None else ()):
            self._answer(CHANGES, 0, block)

    # -- what is to be seen -----------------------------------------------------------------------------

    def _see(self, number: int, changes: list[Change]) -> None:
        until = time.monotonic() + self._limit_s
        if not self._pending:
            self._look_s = _SHORTEST_LOOK_S
        for change in changes:
            self._round.append(change.path)  # at once, whenever others are looked at again
            known = self._pending.get(change.path)
            if known is None:
                self._numbers[number] += 1
            self._pending[change.path] = (*(known or (number, until))[:2], change)

    def _settle(self, path: bytes) -> None:
        known = self._pending.pop(path, None)
        if known is not None:
            self._numbers[known[0]] -= 1
            if not self._numbers[known[0]]:
                del self._numbers[known[0]]

    def _look(self) -> None:
        """Look at some of what is pending, and say up to where all is seen."""
        now = time.monotonic()
        if not self._round and self._pending and now >= self._round_at:
            self._round.extend(self._pending)
        if self._round:
            for _ in range(min(_AT_ONCE, len(self._round))):
                path = self._round.popleft()
                known = self._pending.get(path)
                if known is None or self._is_seen(known[2]):
                    self._settle(path)
                elif now >= known[1]:
                    self._limit_s = LATER_S
                    self._answer(UNSEEN, 0, path)
                    self._settle(path)
            if not self._round:
                self._listings.clear()
                self._round_at = time.monotonic() + self._look_s
                self._look_s = min(2 * self._look_s, _LONGEST_LOOK_S)
        upto = min(min(self._numbers, default=self._last + 1) - 1, self._last)
        if upto > self._told:
            self._told = upto
            self._answer(SEEN, upto)

    def _is_seen(self, change: Change) -> bool:
        """By its name, and in its folder's listing: mounts keep them apart, and make goes by both. Folders
        and files are opened, which makes a client of a network's file system ask its server (nfs(5)).
        """
        folder, name = os.path.split(change.path)
        if folder not in self._listings:
            self._listings[folder] = _listing(folder)
        if not change.is_seen(look(change.path)):
            _open(change.path)
            if not change.is_seen(look(change.path)):
                return False
        listing = self._listings[folder]
        return listing is None or change.path == self._root or (name in listing) != (change.kind == GONE)

    def _answer(self, verb: bytes, number: int, payload: bytes = b"") -> None:
        view = memoryview(frame(verb, number, payload))
        while view:
            view = view[os.write(self._write_fd, view) :]


def _listing(folder: bytes) -> frozenset[bytes] | None:
    """Names in a folder; None where it may not be read. Of one that is not there, none."""
    try:
        return frozenset(os.listdir(folder))
    except FileNotFoundError:
        return frozenset()
    except OSError:
        return None


def _open(path: bytes) -> None:
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC))


def run(read_fd: int, write_fd: int, root: bytes, recent_s: float) -> None:
    """Serve until `read_fd` ends."""
    with contextlib.suppress(BrokenPipeError):  # nobody is there any more
        _Sighting(read_fd, write_fd, root, recent_s).serve()


def main() -> int:
    """Serve our standard input and output; arguments: the folder, and how many seconds are recent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(0, 1, os.fsencode(sys.argv[1]), float(sys.argv[2]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
