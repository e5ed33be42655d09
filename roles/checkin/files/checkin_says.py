"""What the check-in says of itself, once it has heard from the registry: checkin_says.py SECONDS

Waits for so long at most, and prints JSON:

    {"active": TEXT, as systemctl says, "heard": BOOL: it has an answer, or tried in vain, since its start,
     "ok": BOOL, "code": TEXT, "message": TEXT: of its last try, "written": BOOL: it has written hosts files,
     "inventory": [PATH, ...]: hosts files that are still the inventory's}

Needs Python 3.9 and nothing else.
"""

import glob
import json
import subprocess
import sys
import time

UNIT = "d1fleet-checkin.service"
STATUS = "/var/lib/d1fleet-checkin/status.json"
HOSTS = "/etc/d1fleet/hosts/*"
DEFAULT = "/etc/distcc/hosts"
OURS, INVENTORYS = "role d1.fleet.checkin", "role d1.fleet.distcc_hosts"
EACH_S = 0.5


def shown(name):
    argv = ["systemctl", "show", "--timestamp=unix", "-P", name, UNIT]
    return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()


def status():
    try:
        with open(STATUS) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def holding(words):
    """Hosts files that hold this."""
    found = []
    for path in [*sorted(glob.glob(HOSTS)), DEFAULT]:
        try:
            with open(path, errors="replace") as file:
                found += [path] if words in file.read(4096) else []
        except OSError:
            continue
    return found


def look():
    start, last = shown("ExecMainStartTimestamp"), status()
    heard = start.startswith("@") and float(last.get("at", 0)) >= int(start[1:])
    return {
        "active": shown("ActiveState"),
        "heard": heard,
        "ok": last.get("ok") is True,
        "code": str(last.get("code", "")),
        "message": str(last.get("message", "")),
        "written": bool(holding(OURS)),
        "inventory": holding(INVENTORYS),
    }


def main(limit_s):
    end = time.monotonic() + limit_s
    found = look()
    while not (found["heard"] and (found["written"] or not found["ok"])) and time.monotonic() < end:
        time.sleep(EACH_S)
        found = look()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(float(sys.argv[1]))
