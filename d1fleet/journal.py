"""The journal of a tree: which sub-makes are at work there. From it the next build knows what they may have
torn when nobody is left who could say so.

One line of JSON for the build, one when a sub-make is sent to a host, one when it has ended there for sure:

    $XDG_STATE_HOME/d1fleet/journals/TREE    while a build is at work, and after this machine has crashed
    .d1fleet-journal in the tree             after a build that was killed, for whoever builds there next
    .d1fleet-late/ in the tree               from hosts that were frozen, and may have written too late

Not in the tree all the time: recipes archive `.` and list it, and shall see what they see under plain make.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from . import entries
from .entries import LATE, Entry
from .errors import RuntimeFolderError, TreeError
from .runtime import state_folder, tree_name

NAME = b".d1fleet-journal"

_MOST_BYTES = 256 << 20
"""Of a journal that is read: a million sub-makes."""


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
        if all(entry.over for entry in self.entries):
            return 0.0
        return max(0.0, self.lease_s + self.grace_s - self.quiet_s)


class Journal:
    """The journal of a build that is at work.

    Args:
        folder: of the build; its lock is held, and what an earlier build had left there has been seen to.

    Raises:
        RuntimeFolderError: the user has no folder for it that is theirs alone.
        OSError: it cannot be written.
    """

    def __init__(self, folder: bytes, lease_s: float, grace_s: float) -> None:
        self._folder = folder
        self._path = _at_work(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)
        self._known: set[int] = set()
        self._size = 0
        self._write(entries.head(lease_s, grace_s))

    def beat(self) -> None:
        """The build goes on, and so do leases on hosts."""
        os.utime(self._fd)

    def began(self, entry: Entry) -> None:
        """It is about to be sent to its host."""
        self._known.add(entry.attempt)
        self._write(entries.began(entry))

    def over(self, attempt: int) -> None:
        """Nothing of it writes any more, but it may have torn something."""
        if attempt in self._known:
            self._write(entries.over(attempt))

    def ended(self, attempt: int) -> None:
        """Nothing of it writes any more, and what it may have torn is put away."""
        if attempt in self._known:
            self._known.discard(attempt)
            self._write(entries.ended(attempt))

    def settle(self) -> None:
        """The build is over, however it ended; call it where whoever writes here has ended. Where something
        may be at work or torn, what the next build has to know is put into the tree.

        Raises:
            OSError: it cannot be written there.
        """
        try:
            data = os.pread(self._fd, _MOST_BYTES, 0)
            if entries.parse(data)[2]:
                fd = os.open(path(self._folder), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                with open(fd, "wb") as file:
                    file.write(data)
            os.unlink(self._path)
        finally:
            os.close(self._fd)

    def _write(self, line: bytes) -> None:
        # One write each: whoever is killed between two leaves whole lines.
        if os.write(self._fd, line) < len(line):
            os.ftruncate(self._fd, self._size)  # or what comes next would be behind half a line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += len(line)


def _at_work(folder: bytes) -> bytes:
    return os.fsencode(state_folder("journals") / tree_name(folder))


def path(folder: bytes) -> bytes:
    """Where the journal of a tree is."""
    return os.path.join(folder, NAME)


def left_over(folder: bytes) -> LeftOver | None:
    """What an earlier build has left here; None where the last one ended well.

    Raises:
        TreeError: there is a journal that is not ours, or that cannot be read.
    """
    _look_anew(folder)
    return _together([path(folder), *_kept(folder), *_notes(folder)])


def _look_anew(folder: bytes) -> None:
    """To open a folder makes a client of a network's file system ask its server, so that what another machine
    has put there is not missed (close-to-open, nfs(5)).
    """
    with suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))


def _kept(folder: bytes) -> list[bytes]:
    """The journal outside the tree; none where the user's folder for it cannot be used: whoever begins one
    there says so.
    """
    try:
        return [_at_work(folder)]
    except RuntimeFolderError:
        return []


def late(folder: bytes) -> LeftOver | None:
    """What hosts may have written here after their lease; None where none has said so.

    Raises:
        TreeError: there is a note that is not ours, or that cannot be read.
    """
    _look_anew(folder)
    return _together(_notes(folder))


def late_there(folder: bytes) -> bool:
    """Has a host left a note?"""
    _look_anew(folder)
    return os.path.isdir(os.path.join(folder, LATE))


def _notes(folder: bytes) -> list[bytes]:
    place = os.path.join(folder, LATE)
    try:
        return [os.path.join(place, name) for name in sorted(os.listdir(place)) if not name.startswith(b".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TreeError(
            f"{os.fsdecode(place)} cannot be read: {error.strerror}", "see what it is, and remove it"
        ) from error


def _together(files: Iterable[bytes]) -> LeftOver | None:
    found = [left for left in map(_read, files) if left is not None]
    if not found:
        return None
    return LeftOver(
        [entry for left in found for entry in left.entries],
        min(left.quiet_s for left in found),
        max(left.lease_s for left in found),
        max(left.grace_s for left in found),
    )


def _read(file: bytes) -> LeftOver | None:
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
        if status.st_size > _MOST_BYTES:
            raise TreeError(f"{os.fsdecode(file)} is larger than any journal", mend)
        data = os.pread(fd, _MOST_BYTES, 0)
        written_ns = status.st_mtime_ns
        os.utime(fd)
        now_ns = os.fstat(fd).st_mtime_ns
        os.utime(fd, ns=(written_ns, written_ns))
    except OSError as error:
        raise TreeError(f"{os.fsdecode(file)} cannot be read: {error.strerror}", mend) from error
    finally:
        os.close(fd)
    try:
        lease_s, grace_s, found = entries.parse(data)
    except (ValueError, KeyError, TypeError) as error:
        raise TreeError(f"{os.fsdecode(file)} is no journal of ours: {error}", mend) from error
    return LeftOver(found, max(0.0, (now_ns - written_ns) / 1e9), lease_s, grace_s)


def forget(folder: bytes) -> None:
    """What they say has been seen to."""
    for file in (path(folder), *_kept(folder)):
        with suppress(FileNotFoundError):
            os.unlink(file)
    forget_late(folder)


def forget_late(folder: bytes) -> None:
    """What late hosts may have written has been seen to."""
    for file in _notes(folder):
        with suppress(FileNotFoundError):
            os.unlink(file)
    with suppress(OSError):  # one more has come meanwhile
        os.rmdir(os.path.join(folder, LATE))
