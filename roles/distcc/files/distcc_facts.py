"""What the roles distcc and distcc_hosts have to know of a host.

Prints JSON:

    {"cpus": NUMBER, "distccd": BOOL, "nft": BOOL,
     "files": {PROJECT: TEXT}: hosts files as they are, "kept": what the last run has left in distcc.json,
     "default_is_ours": BOOL: /etc/distcc/hosts was written by us,
     "checks_in": BOOL: something of the check-in is there,
     "of_ssh": [NAME, ...]: files of ours that only peers over SSH need,
     "stale": [UNIT, ...]: units that run and were written after their start}

Needs Python 3.9 and nothing else.
"""

import glob
import json
import os
import subprocess
import sys

HOSTS = "/etc/d1fleet/hosts"
DEFAULT = "/etc/distcc/hosts"
KEPT = "/etc/d1fleet/distcc.json"
LIB = "/usr/local/lib/d1fleet/distcc"
SERVERS = "/usr/local/lib/d1fleet/server/*/"
OF_SSH = ("serve", "distcc_relay.py", "ssh", "ssh_config")
UNITS = ("d1fleet-distcc-guard.service", "d1fleet-distcc.service", "d1fleet-checkin.service")
OF_CHECK_IN = (
    "/etc/systemd/system/d1fleet-checkin*",
    "/etc/d1fleet/checkin.json",
    "/etc/d1fleet/distcc.d",
    "/usr/local/lib/d1fleet/checkin",
    "/var/lib/d1fleet-checkin",
)
OURS = ("role d1.fleet.distcc_hosts", "role d1.fleet.checkin")


def cpus():
    """As many as builds may use, as an installed d1make server counts them: it knows of quotas."""
    sys.path[:0] = sorted(glob.glob(SERVERS), key=os.path.getmtime)[-1:]
    try:
        from d1fleet.server.load import usable_cpus

        return usable_cpus()
    except ImportError:
        return len(os.sched_getaffinity(0))


def read(path):
    try:
        with open(path, errors="replace") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


def files():
    try:
        return {name: read(os.path.join(HOSTS, name)) for name in os.listdir(HOSTS)}
    except FileNotFoundError:
        return {}


def kept():
    try:
        found = json.loads(read(KEPT))
        return found if isinstance(found, dict) else {}
    except ValueError:
        return {}


def stale():
    """A run may have been broken off between the writing and the restart."""
    found = []
    for unit in UNITS:
        shown = ["systemctl", "show", "--timestamp=unix", "-P", "ExecMainStartTimestamp", unit]
        start = subprocess.run(shown, capture_output=True, text=True, check=False).stdout.strip()
        try:
            written = os.stat(os.path.join("/etc/systemd/system", unit)).st_mtime
        except FileNotFoundError:
            continue
        if start.startswith("@") and int(start[1:]) < int(written):
            found.append(unit)
    return found


json.dump(
    {
        "cpus": cpus(),
        "distccd": os.access("/usr/bin/distccd", os.X_OK),
        "nft": os.access("/usr/sbin/nft", os.X_OK),
        "files": files(),
        "kept": kept(),
        "default_is_ours": any(words in read(DEFAULT) for words in OURS),
        "checks_in": any(glob.glob(pattern) for pattern in OF_CHECK_IN),
        "of_ssh": [name for name in OF_SSH if os.path.exists(os.path.join(LIB, name))],
        "stale": stale(),
    },
    sys.stdout,
)
