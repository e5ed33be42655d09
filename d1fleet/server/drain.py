"""Marks that keep work away from this host until somebody takes them back, or it boots anew.

A mark is a file that holds the reason, for people. One lies in a folder of root's and counts for everybody:
root may put it there, and whom root lets write to the folder. The other is this user's own, and counts for
this user's builds alone. It lies in /tmp: a runtime folder of systemd's goes with the user's last session.
"""

from __future__ import annotations

import contextlib
import os
import stat

from ..errors import RuntimeFolderError
from ..folders import folder_fault, own_folder
from ..protocol import Drain

SYSTEM = "/run/d1fleet/drain"
"""Made by the role of the server (tmpfiles.d), root's."""

MARK = "drained"

_LONGEST = 1000
"""Bytes of a reason that are read."""


class Marks:
    """The marks of this host.

    Args:
        system: folder of the one for everybody; not used where it is not there, or not safe.
        own: folder of this user's; made if need be.
    """

    def __init__(self, system: str = SYSTEM, own: str | None = None) -> None:
        self._system = system
        self._own = own or os.path.join(os.environ.get("TMPDIR") or "/tmp", f"d1fleet-{os.geteuid()}")

    def look(self) -> Drain:
        """Is this host drained, why, and for whom?"""
        if _is_roots(self._system):
            reason = _read(os.path.join(self._system, MARK))
            if reason is not None:
                return Drain(on=True, reason=reason, everybody=True)
        if folder_fault(self._own, os.geteuid()) is None:
            reason = _read(os.path.join(self._own, MARK))
            if reason is not None:
                return Drain(on=True, reason=reason)
        return Drain(on=False)

    def put(self, reason: str) -> None:
        """Drain the host: for everybody where we may, else for this user.

        Raises:
            RuntimeFolderError: the mark cannot be written.
        """
        everybody = _is_roots(self._system) and os.access(self._system, os.W_OK | os.X_OK)
        folder = self._system if everybody else own_folder(self._own)
        name = os.path.join(folder, f".new-{os.getpid()}")
        try:
            with open(name, "xb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(reason.encode("utf-8", "replace")[:_LONGEST])
            os.rename(name, os.path.join(folder, MARK))
        except OSError as error:
            raise RuntimeFolderError(
                f"no mark can be put into {folder}: {error.strerror}", "free some space there"
            ) from error

    def take_away(self) -> None:
        """Take back what we may take back; `look` tells what is left."""
        for folder in (self._system, self._own):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, MARK))


def _is_roots(folder: str) -> bool:
    """Can only root, and whom root chose, write there?"""
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & stat.S_IWOTH


def _read(path: str) -> str | None:
    """What a mark says; None when there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        # One that root alone may read is a mark all the same.
        return "" if isinstance(error, PermissionError) else None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        text = os.read(fd, _LONGEST).decode("utf-8", "replace")
        return "".join(c if c.isprintable() else " " for c in text).strip()
    except OSError:
        return ""
    finally:
        os.close(fd)
