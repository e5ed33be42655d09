"""Slots of a host: locks in files, which builds and users share, and the kernel drops when a holder dies.

`slot.N` is held by who has an exclusive flock(2) on it, and says the holder's uid. A lock on `wait.UID` says
that this user wants a slot; to look whether there is one is a shared lock for a moment. Who has locked
`gather` may keep some slots while it waits for more, and nobody else takes any. All keep honest users from
each other's way; they are no defence against a user who locks what he does not use.

The folder may be writable by all (sticky, like /tmp): nothing in it is followed, created over or trusted
unless it is a plain file with one name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

from .errors import RuntimeFolderError

_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_TRIES = 8
"""Against a folder that somebody cleans up all the time; one is enough otherwise."""


class SlotLocks:
    """This process's share of a host's slots.

    A fork without an exec shares the locks: they end with the last process that has them, or at `give`.

    Args:
        directory: from `folders.slots_directory`.
        count: how many slots the host has; builds that say different counts share the lower ones.
        uid: whose slots these are.

    Raises:
        RuntimeFolderError: the directory cannot be used.
    """

    def __init__(self, directory: str, count: int, uid: int | None = None) -> None:
        if count < 1:
            raise ValueError(f"{count} slots")
        self.count = count
        self._directory = directory
        self._uid = os.geteuid() if uid is None else uid
        self._fds: dict[int, int] = {}
        self._held: set[int] = set()
        self._wanting = False
        self._wait_fd = -1
        self._gather_fd = -1
        self._look_fd = -1
        try:
            self._folder = os.open(directory, _OPEN_FOLDER)
        except OSError as error:
            raise RuntimeFolderError(
                f"{directory} cannot be opened: {error.strerror}", "see `ls -ld` of it"
            ) from error
        found = os.fstat(self._folder)
        self._shared = bool(found.st_mode & 0o022) or found.st_uid != self._uid
        """Others can come in: who holds what has to be said, and shares have to be fair."""

    @property
    def held(self) -> int:
        """How many slots this object holds."""
        return len(self._held)

    def take(self) -> int | None:
        """Take a free slot, if there is one, and if it is our turn while others wait.

        Raises:
            RuntimeFolderError: the directory was taken away.
        """
        self._mark()
        if self._others_gather():
            return None
        # From the top: a build that knows of fewer slots than this one finds the lower ones free.
        for index in range(self.count - 1, -1, -1):
            if index in self._held or not self._lock(index):
                continue
            self._held.add(index)
            if not self._shared:
                return index
            word = b"%d\n" % self._uid
            os.ftruncate(self._fds[index], os.pwrite(self._fds[index], word, 0))
            # Counted with the slot in hand: of two builds of a user at least one sees both.
            if self._over_cap():
                self.give(index)
                return None
            return index
        return None

    def give(self, index: int) -> None:
        """Give a slot back.

        Raises:
            KeyError: it is not held.
        """
        self._held.remove(index)
        if self._shared:
            self._unlock(self._fds[index])
        else:
            fcntl.flock(self._fds[index], fcntl.LOCK_UN)

    def want(self, wanting: bool) -> None:
        """Say whether this user waits for a slot: then others leave him his share."""
        self._wanting = wanting
        if wanting:
            self._mark()
        elif self._wait_fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(f"wait.{self._uid}", dir_fd=self._folder)
            os.close(self._wait_fd)
            self._wait_fd = -1

    def gather(self) -> bool:
        """Whether this process is the one on this host that may keep some slots while it waits for more.

        As long as it is, nobody else takes any.
        """
        if self._gather_fd < 0:
            fd = self._open("gather")
            if fd >= 0 and _try_lock(fd, fcntl.LOCK_EX) and self._is_named(fd, "gather"):
                self._gather_fd = fd
            elif fd >= 0:
                os.close(fd)
        return self._gather_fd >= 0

    def _others_gather(self) -> bool:
        if self._gather_fd >= 0:
            return False
        if self._look_fd < 0:
            self._look_fd = self._open("gather", create=False)
            if self._look_fd < 0:
                return False
        if not _try_lock(self._look_fd, fcntl.LOCK_SH):
            return True
        fcntl.flock(self._look_fd, fcntl.LOCK_UN)
        if not self._is_named(self._look_fd, "gather"):  # somebody cleaned the folder up
            os.close(self._look_fd)
            self._look_fd = -1
        return False

    def end_gathering(self) -> None:
        """It has what it needs, or needs it no more."""
        if self._gather_fd >= 0:
            os.close(self._gather_fd)
            self._gather_fd = -1

    def close(self) -> None:
        """Give everything back. Does nothing the second time."""
        self.want(False)
        self.end_gathering()
        for index in list(self._held):
            self.give(index)
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        if self._look_fd >= 0:
            os.close(self._look_fd)
            self._look_fd = -1
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    # Locks

    @staticmethod
    def _unlock(fd: int) -> None:
        os.ftruncate(fd, 0)
        fcntl.flock(fd, fcntl.LOCK_UN)

    def _lock(self, index: int) -> bool:
        """Whether the slot was free and is locked now, under the name that others see."""
        for _ in range(_TRIES):
            fd = self._fds.get(index, -1)
            if fd < 0:
                fd = self._open(f"slot.{index}")
                if fd < 0:
                    return False
                self._fds[index] = fd
            if not _try_lock(fd, fcntl.LOCK_EX):
                if self._is_named(fd, f"slot.{index}"):
                    return False
            elif self._is_named(fd, f"slot.{index}"):
                return True
            # Somebody cleaned the folder up: a lock on a file without a name excludes nobody.
            os.close(self._fds.pop(index))
        return False

    def _is_named(self, fd: int, name: str) -> bool:
        try:
            there = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        here = os.fstat(fd)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)

    def _open(self, name: str, create: bool = True) -> int:
        """A plain file of the folder; -1 where there is none, or what is there is of no use."""
        for _ in range(_TRIES):
            try:
                fd = os.open(name, _OPEN, dir_fd=self._folder)
            except FileNotFoundError:
                if not create:
                    return -1
                # O_CREAT alone fails on another's file in a sticky folder (fs.protected_regular).
                try:
                    fd = os.open(name, _OPEN | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._folder)
                except FileExistsError:
                    continue
                except OSError as error:
                    raise RuntimeFolderError(
                        f"{self._directory}/{name} cannot be made: {error.strerror}",
                        "see `ls -ld` of the folder",
                    ) from error
                # Others write their uid there; in a folder of one's own nobody else gets that far.
                os.fchmod(fd, 0o666)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                    raise
                return -1
            found = os.fstat(fd)
            if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
                return fd
            os.close(fd)
            return -1
        return -1

    # Fair shares

    def _mark(self) -> None:
        """Lock `wait.UID`, unless another build of this user has: then this one is next when that stops."""
        if not self._wanting or self._wait_fd >= 0:
            return
        fd = self._open(f"wait.{self._uid}")
        if fd >= 0 and _try_lock(fd, fcntl.LOCK_EX) and self._is_named(fd, f"wait.{self._uid}"):
            self._wait_fd = fd
        elif fd >= 0:
            os.close(fd)

    def _waiting_others(self) -> set[int]:
        found = set()
        for name in os.listdir(self._folder):
            uid = _uid_of(name[5:]) if name.startswith("wait.") else None
            if uid is None or uid == self._uid:
                continue
            fd = self._open(name, create=False)
            if fd < 0:
                continue
            # Nobody can wait in another's name.
            if os.fstat(fd).st_uid in (uid, os.geteuid()) and not _try_lock(fd, fcntl.LOCK_SH):
                found.add(uid)
            os.close(fd)
        return found

    def _over_cap(self) -> bool:
        """Whether this user holds more than his share while others wait."""
        waiting = self._waiting_others()
        if not waiting:
            return False
        users, own = waiting | {self._uid}, self.held
        for index in set(range(self.count)) - self._held:
            uid = self._holder(index)
            if uid is not None:
                users.add(uid)
                own += uid == self._uid
        return own > -(-self.count // len(users))

    def _holder(self, index: int) -> int | None:
        """Who holds a slot that this process does not hold; None when nobody does, or he has not said yet."""
        if index not in self._fds:
            fd = self._open(f"slot.{index}", create=False)
            if fd < 0:
                return None
            self._fds[index] = fd
        fd = self._fds[index]
        uid = _uid_of(os.pread(fd, 20, 0).decode("ascii", "replace").strip())
        if uid is not None and _try_lock(fd, fcntl.LOCK_EX):
            # He was killed: nobody cleared the file.
            self._unlock(fd)
            return None
        return uid


def _uid_of(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
