"""GNU make 4.4.1 for tests, built once from Debian's source package into a cache.

Our hosts have 4.2 to 4.4, and those differ in what they put into MAKEFLAGS; the system has only one of them.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.support.debsource import SourceUnavailable, default_cache, fetch_source, file_lock, run

VERSION = "4.4.1"
PACKAGE, SUITE = "make-dfsg", "trixie"

_CONFIGURE = ("./configure", "--disable-nls", "--without-guile", "--disable-dependency-tracking")


def make44(cache: Path | None = None) -> Path:
    """The path of a make 4.4.1 in `cache` (default: `default_cache()`), built there by the first caller.

    Raises:
        SourceUnavailable: it can be neither found nor built; the text is a test's reason to skip.
    """
    folder = (cache or default_cache()).absolute()
    make = folder / f"make-{VERSION}" / "bin" / "make"
    with file_lock(folder / f"make-{VERSION}.lock"):
        if not make.exists():
            with tempfile.TemporaryDirectory(dir=folder, prefix=f"make-{VERSION}-build-") as scratch:
                _build(fetch_source(PACKAGE, SUITE, Path(scratch) / "source", folder), make)
    return make


def real_make(version: str) -> Path:
    """A make of release `4.3` (the system's, if it is one) or `4.4` (ours).

    Raises:
        SourceUnavailable: as make44, or the system's make is another.
    """
    if version == "4.4":
        return make44()
    found = shutil.which("make")
    if found is None or f"GNU Make {version}\n" not in run([found, "--version"], cwd=Path("/")):
        raise SourceUnavailable(f"the system's make is not {version}")
    return Path(found)


def _build(source: Path, make: Path) -> None:
    # Debian takes the manual away, and configure stops when its makefile is missing.
    (source / "doc").mkdir(exist_ok=True)
    (source / "doc" / "Makefile.in").touch()
    run(_CONFIGURE, cwd=source)
    # build.sh needs no make, and no autotools for files that Debian's patches made look stale.
    run(["sh", "./build.sh"], cwd=source)
    version = run([str(source / "make"), "--version"], cwd=source).partition("\n")[0]
    if version != f"GNU Make {VERSION}":
        raise SourceUnavailable(f"the source of {SUITE} is {version!r}, not {VERSION}")
    make.parent.mkdir(parents=True, exist_ok=True)
    new = make.with_name("make.new")
    shutil.copy2(source / "make", new)
    os.replace(new, make)


if __name__ == "__main__":
    try:
        print(make44())
    except SourceUnavailable as exc:
        sys.exit(f"no make {VERSION}: {exc}")
