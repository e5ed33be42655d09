"""Writes what the role `checkin` installs on hosts: the check-in of this version, with what it needs.

    python3 -m d1fleet.checkin.pack FOLDER

leaves FOLDER/HASH.zip and prints HASH. It needs nothing but the standard library, so that the controller's
own Python can run it. On a host, the archive runs as it is (`python3 -ISE HASH.zip agent`), and so does what
it holds when it is unpacked (`python3 -ISE d1fleet/checkin/__main__.py agent`).
"""

from __future__ import annotations

import functools
import hashlib
import sys
from importlib import resources
from pathlib import Path

from ..transport import launcher, pack

MODULES = (
    "__init__",
    "distccssh",
    "errors",
    "hostsfile",
    "loop",
    "server/__init__",
    "server/cgroup",
    "server/load",
    "server/toolchain",
)
"""What the check-in uses of the rest."""

_NOT_ON_HOSTS = ("pack.py",)

_MAIN = b"import sys\n\nfrom d1fleet.checkin.main import main\n\nsys.exit(main())\n"


@functools.cache
def archive() -> bytes:
    """The check-in as a zip archive that Python runs; equal sources give equal bytes."""
    package = resources.files("d1fleet")
    files = [("__main__.py", _MAIN)]
    for name in MODULES:
        files.append((f"d1fleet/{name}.py", package.joinpath(*f"{name}.py".split("/")).read_bytes()))
    for item in sorted(package.joinpath("checkin").iterdir(), key=lambda item: item.name):
        if item.name.endswith(".py") and item.name not in _NOT_ON_HOSTS:
            files.append((f"d1fleet/checkin/{item.name}", item.read_bytes()))
    return launcher.archive(files)


@functools.cache
def version() -> str:
    """Of what is packed."""
    return hashlib.sha256(archive()).hexdigest()[:32]


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pack.write(folder / f"{version()}.zip", archive(), 0o644)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    print(version())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
