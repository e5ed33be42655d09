"""The folder that a registry has: nobody else may write there, and one process at a time has it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from ..errors import RegistryError, RuntimeFolderError
from ..folders import own_folder

SECRET = "secret"
SOCKET = "admin.sock"
LONGEST_SOCKET_PATH = 107
"""Bytes: unix(7)."""


def make_folder(folder: Path) -> None:
    """The folder, made if need be, and this user's alone to write.

    Raises:
        RuntimeFolderError: it is another's, or others may write there, or it cannot be made.
    """
    try:
        os.makedirs(folder.parent, 0o755, exist_ok=True)
    except OSError as error:
        raise RuntimeFolderError(
            f"{folder.parent} cannot be made: {error.strerror}", "make it, or name another folder: data"
        ) from error
    own_folder(str(folder))
    # As systemd has it for a StateDirectory that was made with 0755: others need not even look.
    with contextlib.suppress(OSError):
        if stat.S_IMODE(os.stat(folder).st_mode) & 0o077:
            os.chmod(folder, 0o700)


@contextlib.contextmanager
def taken(folder: Path) -> Iterator[None]:
    """Have the folder for this process alone.

    Raises:
        RegistryError: another process has it.
    """
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RegistryError(
                f"another registry runs in {folder}", "stop that one first, or name another folder: data"
            ) from None
        except OSError:
            pass  # a file system without locks, where the database has one of its own
        yield
    finally:
        os.close(number)


def operators_socket(folder: Path) -> socket.socket:
    """The socket by which operators on this machine are let in: whoever may open it is one.

    The folder has to be taken already.

    Raises:
        RegistryError: it cannot be made.
    """
    path = folder / SOCKET
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise RegistryError(f"{path} is too long a path for a socket", "name a shorter one: data")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # so that there is no moment in which others could open it
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise RegistryError(
            f"{path} cannot be made: {error.strerror}", "see `ls -l` of its folder"
        ) from error
    finally:
        os.umask(mask)
    return sock


def tcp_socket(address: str, port: int, what: str) -> socket.socket:
    """A socket that others connect to. `::` takes those who come by IPv4 as well.

    Args:
        what: listens there, for messages.

    Raises:
        RegistryError: the port is in use, or this machine has no such address.
    """
    six = ":" in address
    sock = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        mend = {
            errno.EADDRINUSE: f"see who has it (ss -ltnp sport = {port}), or name another port",
            errno.EADDRNOTAVAIL: "name an address that this machine has (ip address), or :: for all",
            errno.EACCES: "ports below 1024 are for root; name another one",
        }.get(error.errno or 0, "name another address or port")
        raise RegistryError(
            f"{what} cannot listen on {address} port {port}: {error.strerror}", mend
        ) from error
    return sock
