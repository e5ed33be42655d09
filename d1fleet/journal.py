"""The journal of a tree: which sub-makes are at work there. From it the next build knows what they may have
torn when nobody is left who could say so.

One line of JSON for the build, one when a sub-make is sent to a host, one when it has ended there for sure.
The file is in the tree, so that it is where the files are, whoever builds next and from wherever; its time
is of the clock that those files go by. A build that ends well removes it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from .errors import TreeError

NAME = b".d1fleet-journal"

_FORMAT = 1

_MOST_BYTES = 256 << 20
"""Of a journal that is read: a million sub-makes."""


@dataclass(frozen=True)
class Entry:
    """A sub-make at work on a host, as the journal has it.

    Attributes:
        since_ns: what changed before, by the tree's clock, it has not written.
        makeflags: its MAKEFLAGS; nothing else of its environment is kept, as that may have secrets.
    """

    attempt: int
    host: str
    since_ns: int
    folder: bytes
    argv: Sequence[bytes]
    makeflags: bytes


@dataclass(frozen=True)
class LeftOver:
    """What a build that did not end well has left.

    Attributes:
        entries: sub-makes of which nobody knows that they have ended.
        quiet_s: how long nothing has been written to the journal, by the tree's clock.
        lease_s: so long after its coordinator's last word, and the grace, no server had anything alive.
    """

    entries: Sequence[Entry]
    quiet_s: float
    lease_s: float
    grace_s: float

    @property
    def wait_s(self) -> float:
        """Until what they left has ended for certain."""
        return max(0.0, self.lease_s + self.grace_s - self.quiet_s) if self.entries else 0.0


class Journal:
    """The journal of a build that is at work.

    Args:
        folder: of the build; its lock is held.

    Raises:
        TreeError: there is one of an earlier build, or it cannot be written.
    """

    def __init__(self, folder: bytes, lease_s: float, grace_s: float) -> None:
        self._path = path(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise TreeError(
                f"{os.fsdecode(self._path)} cannot be written: {error.strerror}",
                "make the folder writable, or build without hosts",
            ) from error
        self._at_work: set[int] = set()
        self._write({"format": _FORMAT, "lease_s": lease_s, "grace_s": grace_s})

    def now_ns(self) -> int:
        """Nanoseconds by the clock of the tree's files: what is written from now on is not older."""
        os.utime(self._fd)
        return os.fstat(self._fd).st_mtime_ns

    def began(self, entry: Entry) -> None:
        """It is about to be sent to its host."""
        self._at_work.add(entry.attempt)
        self._write(
            {
                "began": entry.attempt,
                "host": entry.host,
                "since_ns": entry.since_ns,
                "folder": os.fsdecode(entry.folder),
                "argv": [os.fsdecode(word) for word in entry.argv],
                "makeflags": os.fsdecode(entry.makeflags),
            }
        )

    def ended(self, attempt: int) -> None:
        """Nothing of it writes any more, and what it may have torn is put away."""
        if attempt in self._at_work:
            self._at_work.discard(attempt)
            self._write({"ended": attempt})

    def close(self) -> None:
        """The build is over. Where something may be at work or torn, the file stays for the next one."""
        if not self._at_work:
            with suppress(OSError):
                os.unlink(self._path)
        os.close(self._fd)

    def _write(self, line: Mapping[str, object]) -> None:
        # One write each: whoever is killed between two leaves whole lines.
        os.write(self._fd, json.dumps(line).encode() + b"\n")


def path(folder: bytes) -> bytes:
    """Where the journal of a tree is."""
    return os.path.join(folder, NAME)


def left_over(folder: bytes) -> LeftOver | None:
    """What an earlier build has left here; None where the last one ended well.

    Raises:
        TreeError: there is a journal that is not ours, or that cannot be read.
    """
    file = path(folder)
    mend = f"see whose it is; without {os.fsdecode(file)} nothing is known of torn files in this tree"
    try:
        fd = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TreeError(f"{os.fsdecode(file)} cannot be read: {error.strerror}", mend) from error
    try:
        status = os.fstat(fd)
        # One that came with a tree must not have us ask a make of somebody else's choosing.
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise TreeError(f"{os.fsdecode(file)} is another user's, or open to others", mend)
        written_ns = status.st_mtime_ns
        data = b""
        while chunk := os.read(fd, 1 << 20):
            data += chunk
            if len(data) > _MOST_BYTES:
                raise TreeError(f"{os.fsdecode(file)} is larger than any journal", mend)
        os.utime(fd)
        now_ns = os.fstat(fd).st_mtime_ns
        os.utime(fd, ns=(written_ns, written_ns))
    except OSError as error:
        raise TreeError(f"{os.fsdecode(file)} cannot be read: {error.strerror}", mend) from error
    finally:
        os.close(fd)
    try:
        lease_s, grace_s, entries = _parsed(data)
    except (ValueError, KeyError, TypeError) as error:
        raise TreeError(f"{os.fsdecode(file)} is no journal of ours: {error}", mend) from error
    return LeftOver(entries, max(0.0, (now_ns - written_ns) / 1e9), lease_s, grace_s)


def forget(folder: bytes) -> None:
    """What it says has been seen to."""
    with suppress(FileNotFoundError):
        os.unlink(path(folder))


def _parsed(data: bytes) -> tuple[float, float, list[Entry]]:
    whole, _, _ = data.rpartition(b"\n")  # behind it is what a build that was killed had half written
    if not whole:
        return 0.0, 0.0, []
    head, *lines = map(json.loads, whole.split(b"\n"))
    if head["format"] != _FORMAT:
        raise ValueError(f"format {head['format']}")
    entries: dict[int, Entry] = {}
    for line in lines:
        if "ended" in line:
            entries.pop(int(line["ended"]), None)
            continue
        entry = Entry(
            attempt=int(line["began"]),
            host=str(line["host"]),
            since_ns=int(line["since_ns"]),
            folder=os.fsencode(line["folder"]),
            argv=[os.fsencode(word) for word in line["argv"]],
            makeflags=os.fsencode(line["makeflags"]),
        )
        entries[entry.attempt] = entry
    return float(head["lease_s"]), float(head["grace_s"]), list(entries.values())
