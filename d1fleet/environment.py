"""What of an environment leaves this machine. Pure.

The whole environment of a sub-make travels, less what means nothing elsewhere, what is ours, and secrets.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .protocol import SHIM_PLACE, pack_block, unpack_block

_DROPPED = re.compile(
    rb"(SSH_.*|DBUS_.*|D1FLEET_.*|D1MAKE_.*|DISPLAY|WAYLAND_DISPLAY|XAUTHORITY|XDG_RUNTIME_DIR|XDG_SESSION_.*|DISTCC_HOSTS|_)\Z"
)

_OURS = re.compile(rb"D1FLEET_.*\Z")
"""All that does not reach a server on this very machine: it is the same user's, and lacks nothing."""

_SECRET = re.compile(
    rb"(.*_)?(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|API_?KEY|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|CREDENTIALS?)\Z",
    re.IGNORECASE,
)
"""Names that look like secrets. They stay here only as they were when the build began: what a makefile
exports, it means.
"""

_MASQUERADES = frozenset(
    (b"/usr/lib/distcc", b"/usr/lib/distcc/bin", b"/usr/lib/icecream/bin", b"/usr/lib/icecc/bin")
)
"""Folders of compiler stand-ins: a host would spread again what was placed on it."""


class TravellingEnvironment:
    """Decides for one build.

    Args:
        start: the environment that the build began with, as NAME=value strings.
        shim_dir: our folder in PATH; only its place travels.
        keep: names that travel whatever they look like.
        elsewhere: it goes to another machine; else only what is ours is left out.
    """

    def __init__(
        self, start: Sequence[bytes], shim_dir: bytes, keep: Sequence[bytes] = (), elsewhere: bool = True
    ) -> None:
        self._dropped = _DROPPED if elsewhere else _OURS
        self._elsewhere = elsewhere
        self._start = frozenset(start)
        self._shim_dir = shim_dir
        self._hidden = _MASQUERADES if elsewhere else frozenset()
        self._keep = frozenset(keep)
        self._last = (b"\0", b"")
        self.start_block = pack_block([item for item in map(self._filter, start) if item])
        """The build's first environment, as hosts see it."""

    def _filter(self, item: bytes) -> bytes:
        name, _, value = item.partition(b"=")
        if name in self._keep:
            return item
        if self._dropped.match(name) or (self._elsewhere and _SECRET.match(name) and item in self._start):
            return b""
        if name == b"PATH":
            folders = [folder for folder in value.split(b":") if folder.rstrip(b"/") not in self._hidden]
            return b"PATH=" + b":".join(
                SHIM_PLACE if folder.rstrip(b"/") == self._shim_dir else folder for folder in folders
            )
        return item

    def travelling(self, block: bytes) -> bytes:
        """The part of a sub-make's environment that goes along; mostly that of the job before it."""
        if block != self._last[0]:
            self._last = (
                block,
                pack_block([item for item in map(self._filter, unpack_block(block)) if item]),
            )
        return self._last[1]
