"""Everything that programs on this machine change below a folder: inotify(7), which network mounts have too.

What other machines change there is not seen; they have a watch of their own.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import time
from collections.abc import Iterator

from .changes import EXACT, FILE, GONE, LINK, OTHER, Change

_IN_ATTRIB, _IN_CLOSE_WRITE, _IN_MOVED_FROM, _IN_MOVED_TO = 0x4, 0x8, 0x40, 0x80
_IN_CREATE, _IN_DELETE, _IN_Q_OVERFLOW, _IN_IGNORED = 0x100, 0x200, 0x4000, 0x8000
_IN_ONLYDIR, _IN_DONT_FOLLOW, _IN_ISDIR = 0x1000000, 0x2000000, 0x40000000
_WANTED = _IN_ATTRIB | _IN_CLOSE_WRITE | _IN_MOVED_FROM | _IN_MOVED_TO | _IN_CREATE | _IN_DELETE
_EVENT = struct.Struct("iIII")
_READ_BYTES = 1 << 16

_OURS = b".d1fleet"
_SET_NS = 1_000_000_000
"""Content that is so much older than its file's last change of any kind has a time that somebody has set."""

_HISTORY = frozenset((b".git", b".hg", b".svn"))
"""Folders that no make looks into."""


class TreeWatch:
    """Notes what changes below a folder, without crossing into other mounts.

    Not noted are times that are set and files that are cut by path alone (`touch -m`, truncate(2)), and what
    is removed when there are more changes than the kernel's queue holds, unless it was told to be there.

    Args:
        root: an absolute path; it may be a link to the folder.
        recent_s: what has changed so many seconds before the watch began counts as well; 0 leaves that out.

    Raises:
        OSError: it cannot be watched; ENOSPC where the user watches as many folders as the system allows.
    """

    def __init__(self, root: bytes, recent_s: float = 0.0) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise _error()
        self._root = root
        self._device = os.stat(root).st_dev
        self._folders: dict[int, bytes] = {}
        """By number of the watch."""
        self._paths: set[bytes] = set()
        """What has changed since it was asked last."""
        self._fresh: set[bytes] = set()
        """What has since the last `read`."""
        self._there: set[bytes] = set()
        """What was told to be there."""
        try:
            self._add(root, int((time.time() - recent_s) * 1e9) if recent_s else None)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        os.close(self.fd)

    def changes(self) -> list[Change]:
        """What `read` has found since this was called last, as it is now.

        A file that is open for writing is left out until it is closed.
        """
        paths, self._paths = self._paths, set()
        found = [look(path) for path in sorted(paths)]
        for change in found:
            (self._there.discard if change.kind == GONE else self._there.add)(change.path)
        return found

    def read(self) -> set[bytes]:
        """Take events in, so that the kernel's queue does not overflow.

        Returns: paths that have changed since the last time.

        Raises:
            OSError: a new folder cannot be watched.
        """
        while True:
            try:
                data = os.read(self.fd, _READ_BYTES)
            except BlockingIOError:
                fresh, self._fresh = self._fresh, set()
                self._paths |= fresh
                return fresh
            at = 0
            while at < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, at)
                at += _EVENT.size
                name = data[at : at + length].rstrip(b"\0")
                at += length
                self._event(number, mask, name)

    def _event(self, number: int, mask: int, name: bytes) -> None:
        if mask & _IN_Q_OVERFLOW:
            self._add(self._root, 0)  # whatever it was, it is somewhere here
            self._fresh |= self._there
            return
        if mask & _IN_IGNORED:
            self._folders.pop(number, None)
            return
        folder = self._folders.get(number)
        if folder is None or not name or name.startswith(_OURS):
            return
        path = os.path.join(folder, name)
        if mask & _IN_ISDIR:
            if name in _HISTORY:
                return
            if mask & (_IN_CREATE | _IN_MOVED_TO):
                self._add(path, 0)
            self._fresh.add(path)
        elif mask & _IN_CREATE:
            # A link is whole at once, and has changed its file's ctime alone; a file is when it is closed.
            found = _lstat(path)
            if found is not None and (
                not stat.S_ISREG(found.st_mode)
                or found.st_nlink > 1
                or found.st_ctime_ns != found.st_mtime_ns
            ):
                self._fresh.add(path)
        else:
            self._fresh.add(path)

    def _add(self, folder: bytes, since_ns: int | None) -> None:
        """Watch a folder and those below. What has changed there since then (None: nothing) is noted."""
        for place, names in self._walk(folder):
            if since_ns is None:
                continue
            self._fresh.add(place)
            for name in names:
                path = os.path.join(place, name)
                found = _lstat(path) if since_ns else None
                if found is None or max(found.st_mtime_ns, found.st_ctime_ns) >= since_ns:
                    self._fresh.add(path)

    def _walk(self, folder: bytes) -> Iterator[tuple[bytes, list[bytes]]]:
        """Folders, each watched before it is read, and the names in it that are none."""
        waiting = [folder]
        while waiting:
            place = waiting.pop()
            is_root = place == self._root
            flags = _WANTED | _IN_ONLYDIR | (0 if is_root else _IN_DONT_FOLLOW)
            number = self._libc.inotify_add_watch(self.fd, place, flags)
            if number < 0:
                error = _error()
                passing = isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError))
                if passing and not is_root:
                    continue  # it is gone again, or no make of this user writes there
                raise error
            self._folders[number] = place
            names = []
            try:
                with os.scandir(place) as entries:
                    for entry in entries:
                        if entry.name.startswith(_OURS):
                            continue
                        if not entry.is_dir(follow_symlinks=False):
                            names.append(entry.name)
                        elif entry.name not in _HISTORY and self._is_ours(entry.path):
                            waiting.append(entry.path)
            except (FileNotFoundError, PermissionError):
                pass
            yield place, names

    def _is_ours(self, folder: bytes) -> bool:
        found = _lstat(folder)
        return found is not None and found.st_dev == self._device


def look(path: bytes) -> Change:
    """What is there now, as this machine sees it."""
    found = _lstat(path)
    if found is None:
        return Change(path, GONE)
    if stat.S_ISREG(found.st_mode):
        kind = EXACT if found.st_ctime_ns - found.st_mtime_ns > _SET_NS else FILE
    elif stat.S_ISLNK(found.st_mode):
        kind = LINK
    else:
        return Change(path, OTHER)
    return Change(path, kind, max(0, found.st_mtime_ns), found.st_size)


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
