"""Packages that were fetched once: every host starts with links to them, and what is new is kept at the end.

Hosts do not share one folder, since apt locks it while it installs.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.support.debsource import default_cache

ARCHIVES = "/var/cache/apt/archives"
"""Where apt-get keeps what it fetched: apt-get(8)."""


def lend(folder: Path, release: str, host: str) -> Path:
    """A folder with all packages kept for `release`, for one host's `ARCHIVES`."""
    lent = folder / "debs" / release / host
    lent.mkdir(mode=0o755, parents=True)
    for deb in _kept(release).glob("*.deb"):
        with contextlib.suppress(FileNotFoundError):
            os.link(deb, lent / deb.name)
    return lent


def take_back(folder: Path) -> None:
    """Keep the packages that the hosts of the fleet in `folder` have fetched."""
    for lent in folder.glob("debs/*/*"):
        kept = _kept(lent.parent.name)
        # What apt is still fetching lies in partial/.
        for deb in lent.glob("*.deb"):
            with contextlib.suppress(FileExistsError):
                os.link(deb, kept / deb.name)


def _kept(release: str) -> Path:
    path = default_cache() / "debs" / release
    path.mkdir(mode=0o755, parents=True, exist_ok=True)
    return path
