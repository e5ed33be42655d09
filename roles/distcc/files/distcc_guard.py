"""Stays as long as the firewall table stands that keeps strangers from distcc.

    distcc_guard.py FAMILY TABLE UNIT SECONDS

The unit of the compile server is bound to this one: when this ends, so does that. nft(8) tells of changes of
the rules, and then, and every few seconds, the table is looked for. What a client has run and left behind in
that unit is ended after so many seconds: distccd ends what it knows of. Needs Python 3.9 and nft.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys

NFT = "/usr/sbin/nft"
CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd")
"""Of version 2, and of version 1."""
EACH_S = 5.0
"""What is missed, for instance before nft listens, is found so late at most."""


def stands(family, table):
    """Whether the table is there, with its rules."""
    done = subprocess.run(
        [NFT, "list", "table", family, table], capture_output=True, text=True, check=False, timeout=30
    )
    return done.returncode == 0 and " reject" in done.stdout and " drop" in done.stdout


def members(unit):
    """{pid: (parent, seconds since its start)} of a unit's processes."""
    found = {}
    with open("/proc/uptime") as file:
        now_s = float(file.read().split()[0])
    for folder in CGROUPS:
        path = f"{folder}/system.slice/{unit}/cgroup.procs"
        with contextlib.suppress(OSError), open(path) as file:
            for pid in map(int, file.read().split()):
                with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:
                    # Behind the name, which may hold anything.
                    fields = stat.read().rpartition(")")[2].split()
                    found[pid] = int(fields[1]), now_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return found


def left(processes, limit_s):
    """Pids of those that nobody waits for any more, older than that. The oldest is the server itself."""
    orphans = {pid: age_s for pid, (parent, age_s) in processes.items() if parent not in processes}
    server = max(orphans, key=lambda pid: (orphans[pid], -pid), default=0)
    return [pid for pid, age_s in orphans.items() if pid != server and age_s > limit_s]


def main(family, table, unit, limit_s):
    with subprocess.Popen([NFT, "monitor"], stdout=subprocess.PIPE) as monitor:
        try:
            while stands(family, table):
                for pid in left(members(unit), float(limit_s)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                # All that has been said is one reason to look: a reload of a large set of rules says much.
                told, _, _ = select.select([monitor.stdout], [], [], EACH_S)
                if told and not os.read(monitor.stdout.fileno(), 1 << 20):
                    return "nft monitor has ended"
            return f"the table {family} {table} is gone: distcc is stopped, or everybody could reach it"
        finally:
            monitor.kill()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
