"""What a doctor wants to know of distcc on this host; see probe.py."""

from __future__ import annotations

import contextlib
import grp
import os
import re
import time
from collections.abc import Mapping
from typing import Any

from .programs import run, unit_states

UNITS = ("d1fleet-distcc.service", "d1fleet-distcc-guard.service", "distcc.service")
_PROPERTIES = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "MainPID")

HOSTS = "/etc/d1fleet/hosts"
DEFAULT = "/etc/distcc/hosts"
MASQUERADE = "/usr/lib/distcc"

_READERS = ("adm", "systemd-journal")
"""Groups that may read the journal."""

_LOG_LINES = 40
_LONGEST_FILE = 1 << 16
_MOST_LISTED = 200


def facts(project: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Hosts files, units, what the user's own folder of distcc holds."""
    file = os.path.join(HOSTS, project) if re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", project) else ""
    text, fault = _read(file) if file else ("", "")
    default, _ = _read(DEFAULT)
    own = os.path.join(_own_folder(environ), "hosts")
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(MASQUERADE))[:_MOST_LISTED]
    return {
        "file": file,
        "text": text,
        "file_fault": fault,
        "default": default,
        "own_file": own if os.path.exists(own) else "",
        "backoff": _backoff(environ),
        "masquerade": names,
        "units": unit_states(UNITS, _PROPERTIES),
    }


def _own_folder(environ: Mapping[str, str]) -> str:
    return environ.get("DISTCC_DIR") or os.path.join(os.path.expanduser("~"), ".distcc")


def _backoff(environ: Mapping[str, str]) -> list[dict[str, Any]]:
    """Marks of distcc's that it leaves a peer out, with their ages."""
    found: list[dict[str, Any]] = []
    with contextlib.suppress(OSError):
        for entry in sorted(
            os.scandir(os.path.join(_own_folder(environ), "lock")), key=lambda each: each.name
        ):
            if entry.name.startswith("backoff_"):
                age_s = time.time() - entry.stat(follow_symlinks=False).st_mtime
                found.append({"path": entry.path[:1000], "age_s": round(age_s, 1)})
    return found[:_MOST_LISTED]


def _read(path: str) -> tuple[str, str]:
    """A file's text, and why it cannot be read; both empty where there is none."""
    try:
        with open(path, errors="replace") as file:
            return file.read(_LONGEST_FILE), ""
    except FileNotFoundError:
        return "", ""
    except OSError as error:
        return "", error.strerror or str(error)


def log(given: Mapping[str, Any], environ: Mapping[str, str], limit_s: float) -> dict[str, Any]:
    """What the compile server has written lately, where we may read that."""
    readable = os.geteuid() == 0
    for group in _READERS:
        with contextlib.suppress(KeyError):
            readable = readable or grp.getgrnam(group).gr_gid in os.getgroups()
    if not readable:
        return {"readable": False, "lines": []}
    journal = [
        "journalctl",
        "--unit",
        UNITS[0],
        "--lines",
        str(_LOG_LINES),
        "--since",
        "-2min",
        "-o",
        "cat",
        "-q",
    ]
    return {"readable": True, "lines": [line[:400] for line in run(journal).splitlines()[-_LOG_LINES:]]}
