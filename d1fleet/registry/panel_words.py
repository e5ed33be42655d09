"""Figures and states as the panel shows them. Pure."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import time
from collections.abc import Mapping

from ..server.toolchain import fingerprint
from .model import State

STATES: Mapping[State, str] = {
    State.UP: "it compiles for its peers",
    State.DRAINED: "by an operator's word it compiles for nobody; it may go on to send work to others",
    State.SUSPECT: "it missed two check-ins; peers keep it for some seconds more",
    State.GONE: "it was not heard of for so long that peers do not get it; its next check-in brings it back",
    State.LEFT: "it said goodbye; its next check-in brings it back",
    State.EXPUNGED: "an operator threw it out; it stays out until it is re-admitted",
    State.CLONED: "two machines check in with its credential; let one of them join anew, then re-admit it",
}
"""What a state means."""

SHORT_FINGERPRINT = 8
"""Digits; that two of a pool agree by chance in so many is out of the question."""

_STEPS = ((86400.0, "day", "days"), (3600.0, "h", "h"), (60.0, "min", "min"))


def ago(seconds: float) -> str:
    """How long something is past. `ticking.js` says the same."""
    for size_s, one, many in _STEPS:
        if seconds >= size_s:
            count = int(seconds // size_s)
            return f"{count} {one if count == 1 else many} ago"
    return f"{max(0, int(seconds))} s ago"


def moment(at: float) -> str:
    """A time, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at)) if at else "never"


def machine_moment(at: float) -> str:
    """The same for programs, as HTML's `time` wants it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))


def size(count: int) -> str:
    """Bytes, in units of 1024: three digits are enough."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1000 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"


def short_fingerprint(parts: Mapping[str, str]) -> str:
    """Of a toolchain; "" when nothing is known of one."""
    return _short(tuple(parts.items()))


@functools.lru_cache(maxsize=1024)
def _short(parts: tuple[tuple[str, str], ...]) -> str:
    # Most hosts have the same.
    return fingerprint(dict(parts))[:SHORT_FINGERPRINT]


def key_fingerprint(key: str) -> str:
    """Of a public key of SSH, as `ssh-keygen -l` prints it."""
    kind, _, text = key.partition(" ")
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return f"{kind} (unreadable)"
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"{kind} SHA256:{digest}"
