"""What this host is and has, as it reports it. All of it can be read without a user's privileges."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import struct

from ..server.cgroup import number, read_text
from . import netlink, values
from .strictjson import BadDocumentError

UNIT = "d1fleet-distcc.service"
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
"""Of version 2, of version 1, and of both side by side."""

MACHINE_ID = "/etc/machine-id"
_MACHINE_ID = re.compile(rb"[0-9a-f]{32}\s*")
_LISTEN = "0A"
"""TCP_LISTEN, in proc(5)."""


def machine(path: str = MACHINE_ID) -> str:
    """A digest of this machine's id, which itself is confidential: machine-id(5). Empty where it has none."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        found = file.read(100)
        if _MACHINE_ID.fullmatch(found):
            return hashlib.sha256(b"d1fleet check-in " + found.strip()).hexdigest()
    return ""


def system(root: str = "/") -> str:
    """What runs here, such as Debian GNU/Linux 12: os-release(5)."""
    text = read_text(os.path.join(root, "etc/os-release"))
    words = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    name = f"{words.get('NAME', 'Linux')} {words.get('VERSION_ID', '')}".replace('"', "").replace("'", "")
    name = re.sub(r"[^A-Za-z0-9 ()./_+-]", "-", name)[:64].strip()
    return name if values.SYSTEM.fullmatch(name) else "Linux"


def host_keys(pattern: str) -> tuple[str, ...]:
    """Public keys of this host's sshd, always in one order; what is none is left out."""
    found = set()
    for path in glob.glob(pattern):
        words = read_text(path).split()[:2]
        with contextlib.suppress(BadDocumentError):
            found.add(values.host_key(" ".join(words), path))
    return tuple(sorted(found))[: values.MOST_HOST_KEYS]


def memory_bytes(root: str = "/") -> int:
    """All that there is."""
    for line in read_text(os.path.join(root, "proc/meminfo")).splitlines():
        if line.startswith("MemTotal:"):
            return 1024 * (number(line.split(":", 1)[1]) or 0)
    return 0


def disk_free_bytes(folder: str = "/tmp") -> int:
    """Where compilers write."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def listens(port: int, root: str = "/") -> bool:
    """Does a server listen on this port here?

    It is not connected to: distccd logs errors for who says nothing, and while all of its places are taken it
    would seem not to answer.
    """
    with contextlib.suppress(OSError, struct.error):
        return netlink.listens(port)
    return _listens_by_proc(port, root)


def _listens_by_proc(port: int, root: str) -> bool:
    wanted = f"{port:04X}"
    for name in ("tcp", "tcp6"):
        for line in read_text(os.path.join(root, "proc/net", name)).splitlines()[1:]:
            words = line.split(None, 4)
            if len(words) > 3 and words[3] == _LISTEN and words[1].endswith(f":{wanted}"):
                return True
    return False


class CompileServer:
    """distccd of this host, seen from outside.

    Args:
        root: the folder that holds `proc`.
        cgroups: where control groups are mounted.
    """

    def __init__(self, root: str = "/", cgroups: tuple[str, ...] = CGROUPS, unit: str = UNIT) -> None:
        self._proc = os.path.join(root, "proc")
        self._files = [os.path.join(folder, "system.slice", unit, "cgroup.procs") for folder in cgroups]

    def processes(self) -> dict[int, int]:
        """{pid: parent} of all that runs in its unit."""
        found: dict[int, int] = {}
        for path in self._files:
            for word in read_text(path).split():
                # Behind the name, which may hold anything.
                fields = read_text(os.path.join(self._proc, word, "stat")).rpartition(")")[2].split()
                if word.isdigit() and len(fields) > 1:
                    found[int(word)] = int(fields[1])
            if found:
                break
        return found

    def pid(self) -> int:
        """The server itself, 0 where none is seen."""
        return _server(self.processes())

    def jobs(self) -> int:
        """How many of the processes that serve clients have a compiler run; 0 when that is not known."""
        processes = self.processes()
        server = _server(processes)
        serving = {pid for pid, parent in processes.items() if server and parent == server}
        return len({parent for parent in processes.values() if parent in serving})


def _server(processes: dict[int, int]) -> int:
    """Who has most of the others right below it: what clients have left behind may have some as well."""
    tops = [pid for pid, parent in processes.items() if parent not in processes]
    below = {top: sum(parent == top for parent in processes.values()) for top in tops}
    return max(tops, key=lambda pid: (below[pid], -pid), default=0)
