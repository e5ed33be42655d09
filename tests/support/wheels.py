"""Wheels that role registry installs, for hosts of ours that reach no index:
`python -m tests.support.wheels FOLDER VERSION ...` fetches them for those versions of Python.

pip resolves for the Python that runs it; so the lock's markers are read here, for each version by itself.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "registry.txt"

GLIBC = ("2_34", "2_31", "2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")
"""Of Debian 12, and older ones: pip takes no older tag for a newer one where it is told which there are."""

_ALIASES = ("manylinux2014", "manylinux2010", "manylinux1")


def wanted(version: str, lock: str) -> list[str]:
    """What a lock asks for on a Python of that version: NAME==VERSION.

    Args:
        version: such as 3.13.
    """
    found = []
    for line in lock.replace("\\\n", " ").splitlines():
        text = re.sub(r"\s--hash=\S+", "", line).strip()
        if not text or text.startswith("#"):
            continue
        requirement = Requirement(text)
        of_target = {"python_full_version": f"{version}.0", "python_version": version}
        if requirement.marker is None or requirement.marker.evaluate(of_target):
            found.append(f"{requirement.name}{requirement.specifier}")
    return found


def fetch(folder: Path, versions: Sequence[str]) -> None:
    """Have all of them in a folder.

    Raises:
        subprocess.CalledProcessError: pip cannot get one of them; it has said why.
    """
    tags = ["any", *(f"{each}_x86_64" for each in (*(f"manylinux_{glibc}" for glibc in GLIBC), *_ALIASES))]
    for version in versions:
        argv = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary=:all:"]
        argv += ["--python-version", version, *(f"--platform={tag}" for tag in tags)]
        subprocess.run([*argv, "--dest", str(folder), *wanted(version, LOCK.read_text())], check=True)


if __name__ == "__main__":
    fetch(Path(sys.argv[1]), sys.argv[2:])
