"""Refuses a hosts file that distcc does not understand: check_hosts.py FILE

One word that it does not know turns distribution off, with exit code 0; so distcc is asked what it reads,
and that has to be every word. Needs Python 3.9 and distcc, and nothing beside it: role distcc_hosts installs
this file alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

DISTCC = "/usr/bin/distcc"
LIMIT_S = 30.0


def fault(text: str, distcc: str = DISTCC) -> str:
    """What is wrong with the text of a hosts file; empty when distcc reads every word.

    Raises:
        OSError: distcc cannot be started, or there is no room for the file.
    """
    words = [word for line in text.splitlines() for word in line.partition("#")[0].split()]
    hosts = [word for word in words if not word.startswith("--")]
    if not hosts:
        return "it names no host"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("DISTCC_")}
    # It leaves files where it runs. By a file, since a variable has no room for thousands of hosts.
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "hosts"), "w", encoding="utf-8") as file:
            file.write(text)
        try:
            asked = subprocess.run(
                [distcc, "--show-hosts"],
                env={**environ, "DISTCC_DIR": folder},
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            return f"distcc does not say within {LIMIT_S:g} s what it reads"
    shown = asked.stdout.split()
    if asked.returncode or asked.stderr.strip() or len(shown) != len(hosts):
        return f"distcc reads {len(shown)} of {len(hosts)} hosts: {' / '.join(asked.stderr.splitlines())}"
    return ""


def main(path: str) -> str | int:
    """The command; returns what `sys.exit` takes."""
    with open(path, encoding="utf-8") as file:
        found = fault(file.read())
    return f"{path}: {found}" if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
