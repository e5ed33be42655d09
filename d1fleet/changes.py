"""What has changed in a tree, as it travels to machines that may see it as it was. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

FILE, EXACT, LINK, OTHER, GONE = b"f", b"e", b"l", b"o", b"g"
"""Kinds: a plain file; one whose time was set to an older one (cp -p, tar); a symbolic link; anything else (a
folder); what is no longer there.
"""

MOST_BYTES = 1 << 20
"""Of a block: more go in several."""

_LATE = re.compile(r"nfs4?|cifs|smb3|afs|9p|virtiofs|beegfs|fuse\.(sshfs|glusterfs|beegfs.*|s3fs|rclone)")
"""File systems that keep names and attributes for seconds. Those of clusters (Lustre, Ceph, GFS2) do not."""

_SECOND_NS = 1_000_000_000
_FINEST_NS = 1000
"""CIFS keeps no less than 100 ns."""


class Change(NamedTuple):
    """A path, and what its maker sees there.

    Attributes:
        path: absolute.
        kind: one of the above.
        mtime_ns: of its content, nanoseconds since 1970; 0 for OTHER and GONE.
        size: bytes.
    """

    path: bytes
    kind: bytes
    mtime_ns: int = 0
    size: int = 0

    def is_seen(self, found: Change) -> bool:
        """Does who sees `found` at that path see this change, or what came after it?"""
        if _CLASS[self.kind] != _CLASS[found.kind]:
            return False
        ours, theirs = self.mtime_ns, found.mtime_ns
        # Some mounts know seconds alone.
        unit = _FINEST_NS if ours % _SECOND_NS and theirs % _SECOND_NS else _SECOND_NS
        ours, theirs = ours // unit, theirs // unit
        # What is newer was changed again since; but what was there before is newer than EXACT.
        return (theirs > ours and self.kind != EXACT) or (theirs == ours and found.size == self.size)


_CLASS = {FILE: FILE, EXACT: FILE, LINK: LINK, OTHER: OTHER, GONE: GONE}


def encode(changes: Iterable[Change]) -> list[bytes]:
    """Blocks of at most MOST_BYTES each, but for a single change that is longer."""
    blocks: list[bytes] = []
    parts: list[bytes] = []
    size = 0
    for change in changes:
        part = b"%b %d %d %b\0" % (change.kind, change.mtime_ns, change.size, change.path)
        if parts and size + len(part) > MOST_BYTES:
            blocks.append(b"".join(parts))
            parts, size = [], 0
        parts.append(part)
        size += len(part)
    return [*blocks, b"".join(parts)] if parts else blocks


def decode(block: bytes) -> list[Change]:
    """What a block says.

    Raises:
        ValueError: it is no such block.
    """
    if block and block[-1:] != b"\0":
        raise ValueError("it is cut off")
    found = []
    for part in block.split(b"\0")[:-1]:
        kind, mtime, size, path = part.split(b" ", 3)
        if kind not in _CLASS or not (mtime.isdigit() and size.isdigit() and len(mtime) < 21):
            raise ValueError("it says something else than what is where")
        if path[:1] != b"/" or b".." in path.split(b"/"):
            raise ValueError("a path in it is not absolute")
        found.append(Change(path, kind, int(mtime), int(size)))
    return found


def shows_late(kind: str, options: str) -> bool:
    """May a mount show late what other machines have changed?

    Args:
        kind, options: the file system's type, and options with commas between, as in /proc/self/mountinfo.
    """
    return bool(_LATE.fullmatch(kind)) and "noac" not in options.split(",")
