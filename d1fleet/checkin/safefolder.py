"""A folder of root's in which files are written whole or not at all, and no link is followed on the way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time

from ..errors import RuntimeFolderError
from . import plainfile

MOST_BYTES = 16 << 20
"""Of a file that is there already; a larger one is none of ours."""

_NEW = ".d1fleet-new-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_STEP_S = 0.05


class SafeFolder:
    """One such folder, open until `close`. The last part of its path is made where it is missing.

    Raises:
        RuntimeFolderError: somebody else could put something in its place, or into it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        parts = [part for part in path.split("/") if part]
        if not os.path.isabs(path) or ".." in parts or not parts:
            raise RuntimeFolderError(f"{path} is no absolute path of a folder")
        self._fd = os.open("/", _FOLDER)
        try:
            for number, part in enumerate(parts):
                self._enter(part, "/" + "/".join(parts[: number + 1]), last=number == len(parts) - 1)
        except BaseException:
            os.close(self._fd)
            raise

    def _enter(self, part: str, path: str, last: bool) -> None:
        try:
            if last:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=self._fd)
            inside = os.open(part, _FOLDER, dir_fd=self._fd)
        except OSError as error:
            raise RuntimeFolderError(
                f"{path} cannot be used: {error.strerror}", "it has to be a folder of root's, and no link"
            ) from error
        os.close(self._fd)
        self._fd = inside
        found = os.fstat(inside)
        # Groups, such as Debian's staff below /usr/local, are root's own word; in the folder itself we write.
        others = 0o022 if last else 0o002
        open_to_others = found.st_mode & others and (last or not found.st_mode & stat.S_ISVTX)
        if found.st_uid not in (0, os.geteuid()) or open_to_others:
            raise RuntimeFolderError(
                f"{path} can be changed by others than root", f"chown root:root {path}; chmod 755 {path}"
            )

    def names(self) -> list[str]:
        """What is in there.

        Raises:
            OSError: it cannot be listed.
        """
        return sorted(os.listdir(self._fd))

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is no plain file of that name."""
        try:
            data, found = plainfile.read(name, MOST_BYTES, self._fd)
        except OSError:
            return None
        return data if found.st_size <= MOST_BYTES else None

    def write(self, name: str, data: bytes) -> bool:
        """Have a file hold this, readable by all; returns whether it did not before. A link of that name is
        replaced.

        Raises:
            OSError: it cannot be written, and is as it was.
        """
        if self.read(name) == data:
            return False
        new = _NEW + secrets.token_hex(8)
        fd = os.open(
            new,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
            dir_fd=self._fd,
        )
        try:
            with open(fd, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(fd, 0o644)
                os.fsync(fd)
            os.rename(new, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=self._fd)
            raise
        os.fsync(self._fd)
        return True

    def remove(self, name: str) -> None:
        """Remove a file, or a link.

        Raises:
            OSError: it cannot be removed.
        """
        os.unlink(name, dir_fd=self._fd)
        os.fsync(self._fd)

    def sweep(self) -> None:
        """Remove what was left by one that was killed while it wrote; nobody else may be at it."""
        for name in self.names():
            if name.startswith(_NEW):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._fd)

    def lock(self, name: str, limit_s: float) -> int:
        """Be the only one; returns a descriptor, and it is over when that is closed.

        Raises:
            OSError: somebody else is at it for too long.
        """
        # Readable by root alone: who can open a file can lock it.
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        try:
            until_s = time.monotonic() + limit_s
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return fd
                except BlockingIOError:
                    if time.monotonic() > until_s:
                        raise TimeoutError(
                            f"another request is at work for more than {limit_s:g} s"
                        ) from None
                    time.sleep(_LOCK_STEP_S)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        """Give it back."""
        os.close(self._fd)
