"""Writes what the role `d1make_server` installs on hosts: the server of this version, and the launcher.

    python3 -m d1fleet.transport.pack FOLDER

leaves FOLDER/HASH.zip and FOLDER/launcher and prints HASH. It needs nothing but the standard library, so that
the controller's own Python can run it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import launcher


def pack(folder: Path) -> str:
    """Write both files into `folder`, made if need be; returns the server's hash.

    Raises:
        OSError: they cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = launcher.server_hash()
    write(folder / f"{name}.zip", launcher.server_archive(), 0o644)
    write(folder / "launcher", f"#!/usr/bin/python3 -ISE\n{launcher.bootstrap()}".encode(), 0o755)
    return name


def write(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole, or not at all.

    Raises:
        OSError: it cannot be written.
    """
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_bytes(data)
    new.chmod(mode)
    new.replace(path)


def main(arguments: list[str]) -> int:
    """The command; returns its exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        print(pack(Path(arguments[0])))
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
