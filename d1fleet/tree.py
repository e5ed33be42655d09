"""The build's tree: that hosts see the same one, and that no second build is at work in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from .errors import TreeError


@dataclass
class Tree:
    """A folder that hosts must share, and the file by which they prove it."""

    number: int
    folder: bytes
    device: int
    """st_dev here: jobs on the same device are in the same mount."""
    nonce: bytes
    content: bytes


def _nonce_folder(folder: bytes) -> bytes:
    """Where to put the file: in the folder's .git, where no recipe and no `git status` sees it, if any.
    Not in one further up: a host may have mounted the folder alone.
    """
    git = os.path.join(folder, b".git")
    if os.path.isdir(git) and os.stat(git).st_dev == os.stat(folder).st_dev and os.access(git, os.W_OK):
        return git
    return folder


def prove(number: int, folder: bytes, notes: str = "") -> Tree:
    """Write the file that hosts are asked for.

    Args:
        notes: a file of ours that keeps its name until the build is over.

    Raises:
        TreeError: the folder cannot be written to.
    """
    content = secrets.token_hex(16).encode()
    nonce = b""
    try:
        nonce = os.path.join(_nonce_folder(folder), b".d1fleet-" + secrets.token_hex(8).encode())
        if notes:
            # Written first: whoever cleans up after a coordinator that was killed goes by it.
            with open(notes, "ab") as file:
                file.write(nonce + b"\0")
        with open(nonce, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        device = os.stat(folder).st_dev
    except OSError as error:
        if nonce:
            with contextlib.suppress(OSError):
                os.unlink(nonce)
        raise TreeError(
            f"{os.fsdecode(folder)} cannot be checked on hosts: {error}",
            "make it writable, or build without hosts",
        ) from error
    return Tree(number, folder, device, nonce, content)


def forget(tree: Tree) -> None:
    """Remove the file; hosts that come later get a new one."""
    with contextlib.suppress(OSError):
        os.unlink(tree.nonce)


def forget_noted(notes: Path) -> None:
    """Remove what a coordinator that was killed has left in trees."""
    with contextlib.suppress(OSError):
        for nonce in notes.read_bytes().split(b"\0"):
            if os.path.basename(nonce).startswith(b".d1fleet-"):
                with contextlib.suppress(OSError):
                    os.unlink(nonce)


class TreeLock:
    """Held while a build is at work in a folder: a lock on the folder itself, so that nothing lies
    around in it.
    """

    def __init__(self, folder: bytes) -> None:
        self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            raise TreeError(
                f"another d1fleet build is at work in {os.fsdecode(folder)}",
                "wait for it, or build in another folder",
            ) from None
        except OSError:
            pass  # a file system without locks on folders: nothing to hold

    def close(self) -> None:
        os.close(self._fd)
