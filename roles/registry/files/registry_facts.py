"""What role registry has to know of a host: registry_facts.py PYTHON

Prints JSON:

    {"python": "3.11.2" or "": its version, "venv": BOOL: whether it can make environments,
     "versions": [NAME, ...]: that are whole, "current": NAME or "": the one in use,
     "stale": BOOL: the service runs with something that was written after its start,
     "data": BOOL: it has a data folder}

Needs Python 3.9 and nothing else.
"""

import json
import os
import subprocess
import sys

HOME = "/opt/d1fleet-registry"
DATA = "/var/lib/d1fleet-registry"
UNIT = "d1fleet-registry.service"
READ_AT_START = (f"/etc/systemd/system/{UNIT}", "/etc/d1fleet/registry.yml", f"{HOME}/current")
WHOLE = ".whole"


def said(*argv):
    """What a program prints; nothing where it fails, or is not there."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def versions():
    try:
        return sorted(name for name in os.listdir(HOME) if os.path.exists(os.path.join(HOME, name, WHOLE)))
    except FileNotFoundError:
        return []


def stale():
    """A run may have been broken off between the writing and the restart."""
    start = said("systemctl", "show", "--timestamp=unix", "-P", "ExecMainStartTimestamp", UNIT)
    if not start.startswith("@"):
        return False
    written = [os.lstat(path).st_mtime for path in READ_AT_START if os.path.lexists(path)]
    return any(int(start[1:]) < int(each) for each in written)


def main(python):
    current = os.path.realpath(f"{HOME}/current")
    json.dump(
        {
            "python": said(python, "-ISE", "-c", "import platform; print(platform.python_version())"),
            "venv": bool(said(python, "-ISE", "-c", "import ensurepip, venv; print(1)")),
            "versions": [name for name in versions() if name != "current"],
            "current": os.path.basename(current) if os.path.isdir(current) else "",
            "stale": stale(),
            "data": os.path.isdir(DATA),
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main(sys.argv[1])
