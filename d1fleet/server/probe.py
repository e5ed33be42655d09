"""What a doctor wants to know of this host, as the user who builds sees it: JSON, without judgement.

Each section is found out in a thread of its own. One that hangs, or breaks, is named in `missing`, and the
others are told. doctor_facts.py has the types.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import grp
import os
import pwd
import re
import secrets
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, Callable

from .. import folders
from . import cgroup, probe_distcc, toolchain
from . import facts as host_facts
from .drain import Marks
from .enrolled import as_enrolled, enrolled
from .environment import ProgramFinder
from .load import LoadMeter, usable_cpus
from .programs import run, unit_states

_EARLY_S = 0.5
"""What is known so long before the limit is told: it has to travel."""

_FRESH_STEP_S = 0.05

SSHD_CONFIG = "/etc/ssh/sshd_config"
_LIMITS = ("maxsessions", "maxstartups")
_DEEPEST_INCLUDE = 16
"""sshd's own limit."""

TIME_SERVICES = ("systemd-timesyncd", "chrony", "chronyd", "ntpsec", "ntp", "ntpd", "openntpd")

_MOST_LISTED = 200
_LONGEST_FILE = 1 << 16
Section = Callable[[], Any]


def facts(given: Mapping[str, Any], environ: Mapping[str, str], limit_s: float) -> dict[str, Any]:
    """All sections.

    Args:
        given: project, installed (folder of versions), launcher, hash (of this server), and folders: a list
            of {folder, nonce, content}.
        environ: of jobs here.
    """
    project = str(given.get("project", ""))
    sections: dict[str, Section] = {
        "identity": _identity,
        "versions": lambda: _versions(environ),
        "server": lambda: _server(given),
        "slots": _slots,
        "drain": _drain,
        "memory": _memory,
        "sshd": _sshd,
        "time": _time_services,
        "toolchain": lambda: _toolchain(project, environ),
        "distcc": lambda: probe_distcc.facts(project, environ),
        "disk": lambda: [_disk(what, path) for what, path in _places().items()],
    }
    trees = given.get("folders", [])
    sections.update((f"tree {number}", functools.partial(_tree, tree)) for number, tree in enumerate(trees))
    found, missing = _gather(sections, limit_s - _EARLY_S)
    found["trees"] = [found.pop(f"tree {number}", None) for number in range(len(trees))]
    found["missing"] = missing
    return found


def _gather(sections: Mapping[str, Section], limit_s: float) -> tuple[dict[str, Any], dict[str, str]]:
    """What each section has found, and why others have not."""
    found: dict[str, Any] = {}
    missing = dict.fromkeys(sections, f"it took longer than {limit_s:.0f} s")

    def work(name: str, section: Section) -> None:
        try:
            found[name] = section()
            del missing[name]
        except Exception as error:  # of one section
            missing[name] = host_facts.plain(f"{type(error).__name__}: {error}")

    deadline = time.monotonic() + limit_s
    threads = [
        threading.Thread(target=work, args=(name, section), daemon=True) for name, section in sections.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found), dict(missing)


# -- sections ---------------------------------------------------------------------------------------


def _identity() -> dict[str, Any]:
    uid, gid = os.geteuid(), os.getegid()
    home = os.path.expanduser("~")
    return {
        "uid": uid,
        "gid": gid,
        "user": _name(lambda: pwd.getpwuid(uid).pw_name),
        "group": _name(lambda: grp.getgrgid(gid).gr_name),
        "home": home,
        "home_usable": os.path.isdir(home) and os.access(home, os.W_OK | os.X_OK),
        "hostname": os.uname().nodename,
        "machine": host_facts.machine_identity(),
        "addresses": run(["hostname", "-I"]).split()[:_MOST_LISTED],
        "cpus": usable_cpus(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "nice_of_all": nice_of(1),
    }


def _name(look_up: Callable[[], str]) -> str:
    try:
        return look_up()
    except KeyError:
        return ""


def nice_of(pid: int) -> int:
    """A process's nice value; that of process 1 is the whole container's, mostly 0."""
    try:
        return os.getpriority(os.PRIO_PROCESS, pid)
    except OSError:
        return 0


def _versions(environ: Mapping[str, str]) -> dict[str, str]:
    path = environ.get("PATH", os.defpath)
    make = ProgramFinder().find(b"make", os.fsencode(path))
    first = host_facts.first_output(make, b"--version").decode("utf-8", "replace") if make else ""
    said = run(["distcc", "--version"], environ={**environ, "PATH": f"{path}:/usr/bin"})
    distcc = re.search(r"^distcc (\S+)", said, re.MULTILINE)
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "make": first.partition("\n")[0][:200],
        "distcc": distcc[1][:200] if distcc else "",
    }


def _server(given: Mapping[str, Any]) -> dict[str, Any]:
    """Where this server was started from, and what the role has installed."""
    installed, wanted = str(given["installed"]), str(given["hash"])
    own = os.path.join(installed, wanted)
    there = os.path.isdir(own)
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(installed) if not name.startswith(".")][:_MOST_LISTED]
    return {
        "from_installed": __file__.startswith(own + "/"),
        "is_installed": there,
        "versions": len(names),
        "launcher": os.access(str(given["launcher"]), os.X_OK),
    }


def _slots() -> dict[str, Any]:
    found = folders.slots_directory()
    return {
        "folder": found,
        "shared": found == folders.SYSTEM_SLOTS,
        "made_at_boot": os.path.exists("/etc/tmpfiles.d/d1fleet.conf"),
    }


def _drain() -> dict[str, Any]:
    mark = Marks().look()
    return {"on": mark.on, "reason": mark.reason, "everybody": mark.everybody}


def _memory() -> dict[str, int]:
    fields = dict(
        line.split(":", 1) for line in cgroup.read_text("/proc/meminfo").splitlines() if ":" in line
    )
    return {
        "available_bytes": LoadMeter().sample([]).memory_available_bytes,
        "total_bytes": 1024 * (cgroup.number(fields.get("MemTotal", "")) or 0),
    }


def _time_services() -> dict[str, list[str]]:
    """Which services that set clocks are installed, and which of them run."""
    units = [f"{name}.service" for name in TIME_SERVICES]
    states = unit_states(units, ("LoadState", "ActiveState"))
    loaded = [unit for unit, state in states.items() if state.get("LoadState") == "loaded"]
    return {
        "installed": loaded,
        "running": [unit for unit in loaded if states[unit].get("ActiveState") == "active"],
    }


def _toolchain(project: str, environ: Mapping[str, str]) -> dict[str, Any]:
    record = enrolled(project)
    parts = toolchain.describe(record.tools, environ, toolchain.cache_folder())
    return {
        "parts": parts,
        "places": toolchain.places(record.tools, environ),
        "record": record.parts,
        "record_fault": record.fault,
        "as_enrolled": as_enrolled(parts),
        "tools": list(record.tools),
    }


def _places() -> dict[str, str]:
    """Folders that builds write to, beside the tree."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    found = {"/tmp": os.environ.get("TMPDIR") or "/tmp", "cache": cache, "slots": folders.slots_directory()}
    while not os.path.isdir(found["cache"]) and found["cache"] != "/":
        found["cache"] = os.path.dirname(found["cache"])
    return found


def _disk(what: str, path: str) -> dict[str, Any]:
    found = os.statvfs(path)
    return {
        "what": what,
        "path": path,
        "free_bytes": found.f_bavail * found.f_frsize,
        "total_bytes": found.f_blocks * found.f_frsize,
        "free_files": found.f_favail,
        "total_files": found.f_files,
    }


# -- trees --------------------------------------------------------------------------------------------


def _tree(tree: Mapping[str, Any]) -> dict[str, Any]:
    folder, nonce = os.fsencode(tree["folder"]), os.fsencode(tree["nonce"])
    answer: dict[str, Any] = {
        "difference": "",
        "mount": host_facts.mount_of(folder),
        "write_fault": "",
        "clock_s": None,
    }
    answer["difference"] = host_facts.tree_difference(folder, nonce, tree["content"].encode()) or ""
    if answer["difference"]:
        return answer
    # From now on this host may remember that there is no such file: `fresh` sees for how long.
    with contextlib.suppress(OSError):
        os.stat(nonce + b".2")
        os.listdir(os.path.dirname(nonce))
    own = nonce + b"." + secrets.token_hex(4).encode()
    try:
        fd = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # The file server's clock, where there is one.
            os.write(fd, b"x")
            os.fsync(fd)
            answer["clock_s"] = time.time() - os.fstat(fd).st_mtime
        finally:
            os.close(fd)
            os.unlink(own)
    except OSError as error:
        answer["write_fault"] = error.strerror or str(error)
    answer["disk"] = _disk("tree", os.fsdecode(folder))
    return answer


def fresh(given: Mapping[str, Any], environ: Mapping[str, str], limit_s: float) -> dict[str, Any]:
    """How late this host sees what another one has just done: a file made that was looked for before, and a
    file that grew.

    Args:
        given: nonce, content (what the grown file holds now).

    Returns:
        `made_s` and `grown_s`, seconds; None for what was not seen in time.
    """
    nonce, content = os.fsencode(given["nonce"]), str(given["content"]).encode()
    began = time.monotonic()
    waiting: dict[str, Callable[[], bool]] = {
        "made_s": lambda: os.path.exists(nonce + b".2"),
        "grown_s": lambda: os.stat(nonce).st_size == len(content),
    }
    answer: dict[str, Any] = dict.fromkeys(waiting)
    while waiting and time.monotonic() - began < limit_s - _EARLY_S:
        for name, seen in list(waiting.items()):
            with contextlib.suppress(OSError):
                if seen():
                    answer[name] = round(time.monotonic() - began, 3)
                    del waiting[name]
        time.sleep(_FRESH_STEP_S if waiting else 0)
    return answer


# -- sshd ---------------------------------------------------------------------------------------------


def _sshd() -> dict[str, Any]:
    """Where sshd's configuration sets its limits, in its order, outside of Match; as far as we may read."""
    settings: list[dict[str, Any]] = []
    unread: list[str] = []
    _read_sshd(SSHD_CONFIG, settings, unread, 0)
    return {"settings": settings[:_MOST_LISTED], "unread": unread[:_MOST_LISTED]}


def _read_sshd(path: str, settings: list[dict[str, Any]], unread: list[str], depth: int) -> None:
    try:
        with open(path, errors="replace") as file:
            lines = file.read(_LONGEST_FILE).splitlines()
    except OSError:
        unread.append(path)
        return
    for number, line in enumerate(lines, 1):
        words = line.replace("=", " ", 1).split()
        keyword = words[0].lower() if words else ""
        if keyword == "match":
            return
        if keyword == "include" and depth < _DEEPEST_INCLUDE:
            for pattern in words[1:]:
                pattern = pattern.strip('"')
                for name in sorted(glob.glob(os.path.join("/etc/ssh", pattern))):
                    _read_sshd(name, settings, unread, depth + 1)
        elif keyword in _LIMITS and len(words) > 1:
            settings.append({"keyword": keyword, "value": words[1], "path": path, "line": number})
