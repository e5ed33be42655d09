"""What a host is: identity, make, and whether a folder there is the one that the coordinator sees."""

from __future__ import annotations

import hashlib
import os
import re

from .. import changes
from ..errors import UnfitError

OLDEST_MAKE = (4, 2)

_VERSION = re.compile(rb"^GNU Make (\d+)\.(\d+)")


def machine_identity() -> str:
    """The same for all names of one machine, and for nothing else; not the machine id itself, which is
    confidential.
    """
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/random/boot_id"):
        try:
            with open(path, "rb") as file:
                found = file.read().strip()
        except OSError:
            continue
        if found:
            return hashlib.sha256(b"d1fleet machine " + found).hexdigest()[:32]
    return ""


def plain(text: str) -> str:
    """Text for people, as the protocol takes it: a path in it need not be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "?")


def first_output(path: bytes, *arguments: bytes) -> bytes:
    """What a program prints on stdout, 4 KiB at most; empty when it cannot be run."""
    read, write = os.pipe2(os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, write, 1)]
        actions.append((os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0))
        pid = os.posix_spawn(path, [path, *arguments], dict(os.environb), file_actions=actions)
    except OSError:
        os.close(read)
        return b""
    finally:
        os.close(write)
    output = b""
    while len(output) < 4096:
        data = os.read(read, 4096)
        if not data:
            break
        output += data
    os.close(read)
    os.waitpid(pid, 0)
    return output


def make_version(path: bytes) -> str:
    """Version of the make at `path`, such as 4.3.

    Raises:
        UnfitError: it is not GNU make, or too old for a jobserver of file descriptors.
    """
    match = _VERSION.match(first_output(path, b"--version"))
    name = os.fsdecode(path)
    oldest = ".".join(map(str, OLDEST_MAKE))
    if match is None:
        raise UnfitError(f"{name} is not GNU make", f"install GNU make {oldest} or newer there")
    version: tuple[int, ...] = tuple(map(int, match.groups()))
    found = ".".join(map(str, version))
    if version < OLDEST_MAKE:
        raise UnfitError(f"{name} is GNU make {found}", f"install GNU make {oldest} or newer there")
    return found


def tree_difference(folder: bytes, nonce: bytes, content: bytes) -> str | None:
    """Why `folder` here is not the coordinator's, by a file that it has just written; None when it is."""
    shown = os.fsdecode(folder)
    if not os.path.isdir(folder):
        return f"{shown} does not exist on this host"
    try:
        fd = os.open(nonce, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a fifo would hold us up
        try:
            found = os.read(fd, len(content) + 1)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return f"{shown} on this host is another folder, not the coordinator's tree"
    except OSError as error:
        return f"{shown} cannot be read on this host: {error.strerror}"
    if found != content:
        return f"{shown} on this host is another folder, not the coordinator's tree"
    return None


def mount_of(folder: bytes) -> dict[str, str]:
    """The mount that a folder lies in: its point, type, source and options; see proc(5)."""
    path = os.path.realpath(folder)
    found: dict[str, str] = {"point": "", "type": "", "source": "", "options": ""}
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            before, _, behind = line.partition(b" - ")
            words, more = before.split(), behind.split()
            point = re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), words[4])
            inside = path == point or path.startswith(point.rstrip(b"/") + b"/")
            if inside and len(point) >= len(os.fsencode(found["point"])):
                options = words[5] + b"," + (more[2] if len(more) > 2 else b"")
                texts = (point, more[0], more[1], options)
                found = dict(zip(found, (os.fsdecode(text)[:1000] for text in texts)))
    return found


def shows_late(folder: bytes) -> bool:
    """May it lie on a mount that shows late what other machines have changed?"""
    try:
        mount = mount_of(folder)
    except OSError:
        return False
    return changes.shows_late(mount["type"], mount["options"])
