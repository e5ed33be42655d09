"""The mirror that this machine installs from, asked of apt once for each state of its sources."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.containers.errors import ImageUnavailable
from tests.containers.podman import write_atomically
from tests.support import debsource

_SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))


def system_mirror() -> str:
    """URI of the Debian archive.

    Raises:
        ImageUnavailable: this machine's apt names none.
    """
    known = debsource.default_cache() / "images" / f"mirror-{_state()}"
    if not known.exists():
        known.parent.mkdir(parents=True, exist_ok=True)
        try:
            # The one place that knows how to ask; apt takes seconds to answer on a busy machine.
            mirror = debsource.mirror_of(known.parent)
        except debsource.SourceUnavailable as exc:
            raise ImageUnavailable(f"no image of Debian can be made: {exc}") from exc
        write_atomically(known, mirror)
    return known.read_text()


def _state() -> str:
    """A digest of apt's sources."""
    digest = hashlib.sha256()
    for path in (_SOURCES[0], *sorted(_SOURCES[1].glob("*"))):
        if path.is_file():
            digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
