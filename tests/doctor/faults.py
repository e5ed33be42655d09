"""Faults that are made on purpose, one by one: what makes it, what doctor has to say, and what mends it.

To add one, add a Fault to FAULTS. Where doctor prints a command, `mend` stays None, and that is typed as it
stands; where it has words alone, `mend` does what they say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.doctor.ward import SICK, Ward

Step = Callable[[Ward], object]


@dataclass(frozen=True)
class Fault:
    """One fault of the sick host.

    Attributes:
        finding: its kind.
        says: a pattern that its text holds.
        mend: None for the command that doctor prints.
        undo: takes away what fault and mend leave that other faults could see.
    """

    name: str
    make: Step
    finding: str
    says: str
    mend: Step | None = None
    undo: Step | None = None
    severity: str = "fault"


def sh(command: str) -> Step:
    """A command of root's on the sick host."""
    return lambda ward: ward.on(command)


def says(**variables: Any) -> Step:
    """The inventory says something else of the sick host."""
    return lambda ward: ward.say(variables)


def both(*steps: Step) -> Step:
    return lambda ward: [step(ward) for step in steps]


def on_tree(command: str) -> Step:
    """A command with the tree's path in place of TREE."""
    return lambda ward: ward.on(command.replace("TREE", str(ward.tree)))


def _forget_key(ward: Ward) -> None:
    file = ward.site.hosts.known_hosts
    file.with_suffix(".kept").write_text(file.read_text())
    address = re.escape(ward.site.hosts[SICK].address)
    lines = [line for line in file.read_text().splitlines(True) if not re.search(rf"{address}\b", line)]
    file.write_text("".join(lines))


def _change_key(ward: Ward) -> None:
    """The key that is known of it is another host's."""
    file = ward.site.hosts.known_hosts
    other = next(line for line in file.read_text().splitlines() if ward.site.hosts["h3"].address in line)
    _, kind, key = other.split()[:3]
    _forget_key(ward)
    with file.open("a") as known:
        known.write(f"{ward.site.hosts[SICK].address} {kind} {key}\n")


def _remember_key(ward: Ward) -> None:
    """As after a login by hand; or after ssh-keygen -R, and then a login."""
    file = ward.site.hosts.known_hosts
    file.write_text(file.with_suffix(".kept").read_text())


def _same_machine(ward: Ward) -> None:
    other = ward.on("cat /etc/machine-id", "h1").strip()
    ward.on(f"cp /etc/machine-id /root/id; echo {other} >/etc/machine-id")


def _nice_as_before(ward: Ward) -> None:
    """The inventory is as it was, and its server again as that says."""
    ward.say({})
    found = ward.examine().about("distcc-nice")
    assert found is not None
    ward.type(found["command"])


EVE = (
    "useradd -m -u 3003 eve && mkdir -p ~eve/.ssh && cp /root/.ssh/authorized_keys ~eve/.ssh/"
    " && chown -R eve: ~eve/.ssh"
)
NO_EVE = "pkill -u eve; userdel -rf eve 2>/dev/null; :"

_AHEAD = """#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *found) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int done = real(id, found);
    if (id == CLOCK_REALTIME) found->tv_sec += AHEAD;
    return done;
}
"""
_TIME_SERVICE = """[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/rm -f /etc/ld.so.preload
[Install]
WantedBy=multi-user.target
"""


def _clock(ahead_s: int) -> Step:
    """No container has a clock of its own: programs read it so far ahead, until a time service starts."""
    return sh(
        f"mkdir -p /opt/ahead && printf '%s' '{_AHEAD}' >/opt/ahead/ahead.c && "
        f"gcc -shared -fPIC -DAHEAD={ahead_s} -o /opt/ahead/ahead.so /opt/ahead/ahead.c -ldl && "
        f"printf '%s' '{_TIME_SERVICE}' >/etc/systemd/system/chrony.service && systemctl daemon-reload && "
        "echo /opt/ahead/ahead.so >/etc/ld.so.preload"
    )


_NO_CLOCK = sh(
    "rm -rf /etc/ld.so.preload /opt/ahead; systemctl disable chrony; systemctl stop chrony;"
    " rm -f /etc/systemd/system/chrony.service; systemctl daemon-reload"
)

UNIT = "/etc/systemd/system/d1fleet-distcc.service"
ANEW = "systemctl daemon-reload && systemctl restart d1fleet-distcc.service"
HOSTS = "/etc/d1fleet/hosts/demo"
SSHD = "/etc/ssh/sshd_config.d/00-other.conf"
NICED = "/etc/systemd/system/ssh.service.d"

FAULTS = (
    # Being reached.
    Fault(
        "it is off",
        lambda ward: ward.site.hosts[SICK].kill(),
        "unreachable",
        "no answer|No route",
        mend=lambda ward: ward.site.hosts[SICK].start(),
    ),
    Fault(
        "it takes connections and never answers",
        lambda ward: ward.site.hosts[SICK].pause(),
        "unreachable",
        "no answer in time",
        mend=lambda ward: ward.site.hosts[SICK].unpause(),
    ),
    Fault(
        "no sshd",
        sh("systemctl stop ssh"),
        "unreachable",
        "connection refused",
        mend=sh("systemctl start ssh"),
    ),
    Fault("its key is unknown", _forget_key, "host-key", "is not known here", mend=_remember_key),
    Fault("its key is another", _change_key, "host-key", "has changed|is not known", mend=_remember_key),
    Fault(
        "it does not let us in",
        sh("mv /root/.ssh/authorized_keys /root/.ssh/away"),
        "login",
        "does not let root in",
        mend=sh("mv /root/.ssh/away /root/.ssh/authorized_keys"),
    ),
    Fault(
        "no python",
        sh("mv /usr/bin/python3 /usr/bin/away3"),
        "server-start",
        "there is no python3",
        mend=sh("mv /usr/bin/away3 /usr/bin/python3"),
    ),
    # Users.
    Fault(
        "another uid",
        both(sh(EVE), says(ansible_user="eve")),
        "uid",
        "eve with uid 3003",
        mend=both(says(), sh(NO_EVE)),
    ),
    Fault("another group", sh("usermod --gid 100 root"), "gid", r"users \(100\)", severity="warning"),
    # Trees, mounts, clocks.
    Fault(
        "another tree",
        on_tree("mount -t tmpfs none TREE"),
        "tree",
        "another folder",
        mend=on_tree("umount TREE"),
    ),
    Fault("a tree that is read only", on_tree("mount -o remount,bind,ro TREE"), "tree-write", "Read-only"),
    Fault("a tree without exec", on_tree("mount -o remount,bind,noexec TREE"), "mount-noexec", "noexec"),
    Fault("a clock that is ahead", _clock(5), "clock", "5.0 s ahead of this machine's", undo=_NO_CLOCK),
    Fault(
        "a clock that is ahead of time stamps",
        _clock(1),
        "clock-tree",
        r"(0\.9|1\.0|1\.1) s ahead of the time stamps",
        undo=_NO_CLOCK,
        severity="warning",
    ),
    # Room.
    Fault(
        "no room for temporary files",
        sh("mount -t tmpfs -o size=64m,mode=1777 none /tmp && head -c 60M /dev/zero >/tmp/large"),
        "disk",
        r"/tmp \(temporary files\) has \d MiB left",
        mend=sh("rm /tmp/large"),
        undo=sh("umount /tmp"),
    ),
    # Toolchains and versions.
    Fault(
        "another compiler",
        sh(
            'printf \'#!/bin/sh\\n[ "$1" = --version ] && exec echo cc 99\\nexec /usr/bin/cc "$@"\\n\''
            " >/usr/local/bin/cc; chmod +x /usr/local/bin/cc"
        ),
        "toolchain",
        "cc: cc 99.* at /usr/local/bin/cc",
        mend=sh("rm /usr/local/bin/cc"),
    ),
    Fault("no make", sh("rm /usr/bin/make"), "make", "no make in PATH"),
    # What the roles leave.
    Fault(
        "a server that others can write to",
        sh("chmod -R o+w /usr/local/lib/d1fleet/server"),
        "server-unusable",
        "the launcher does not take it",
        severity="warning",
    ),
    Fault(
        "an old server",
        sh("cd /usr/local/lib/d1fleet/server && for f in *; do mv $f 0$f; done"),
        "server-old",
        "another version of the server",
        undo=sh("rm -rf /usr/local/lib/d1fleet/server/0*"),
        severity="warning",
    ),
    Fault(
        "no folder of slots for all",
        sh("rm -r /run/d1fleet/slots"),
        "slots-per-user",
        "users do not share",
        severity="warning",
    ),
    Fault(
        "drained",
        sh("echo reboot >/run/d1fleet/drain/drained"),
        "drained",
        "everybody's builds: reboot",
        severity="warning",
    ),
    Fault(
        "sshd with few sessions",
        sh(f"echo 'MaxSessions 1' >{SSHD} && systemctl reload ssh"),
        "sshd-limits",
        "MaxSessions 1 .*00-other.conf, line 1",
        undo=sh(f"rm {SSHD}"),
        severity="warning",
    ),
    Fault(
        "sshd that turns logins away",
        sh(f"echo 'MaxStartups 3:30:10' >{SSHD} && systemctl reload ssh"),
        "sshd-limits",
        "MaxStartups 3:30:10",
        undo=sh(f"rm {SSHD}"),
        severity="warning",
    ),
    Fault(
        "logins that are niced",
        both(
            sh(EVE),
            says(ansible_user="eve"),
            sh(f"mkdir -p {NICED} && printf '[Service]\\nNice=15\\n' >{NICED}/x.conf"),
            sh("systemctl daemon-reload && systemctl restart ssh"),
        ),
        "nice",
        "run at nice 15",
        mend=sh(f"rm -r {NICED} && systemctl daemon-reload && systemctl restart ssh"),
        undo=both(says(), sh(NO_EVE)),
        severity="warning",
    ),
    # distcc.
    Fault(
        "distcc's server is stopped",
        sh("systemctl stop d1fleet-distcc.service"),
        "distcc-down",
        "d1fleet-distcc.service is inactive",
    ),
    Fault(
        "distcc's guard is off",
        sh("systemctl disable --now d1fleet-distcc-guard.service"),
        "distcc-down",
        "guard.service is inactive",
    ),
    Fault(
        "the distribution's distcc could start",
        sh("systemctl unmask distcc.service"),
        "distcc-vendor",
        "is not masked",
        severity="warning",
    ),
    Fault("distcc is gone", sh("rm /usr/bin/distcc"), "distcc-missing", "not installed"),
    Fault("no hosts file", sh(f"rm {HOSTS}"), "hosts-file-missing", "is not there"),
    Fault(
        "a word that distcc does not know",
        sh(f"echo '10.0.0.9:notaport/3' >>{HOSTS}"),
        "hosts-file-bad",
        "notaport",
    ),
    Fault(
        "a stranger in the hosts file",
        sh(f"echo '10.9.9.9/4,lzo  # stranger' >>{HOSTS}"),
        "hosts-file-unknown",
        "names stranger",
    ),
    Fault(
        "a member that the hosts file lacks",
        sh(f"sed -i '/# h3$/d' {HOSTS}"),
        "hosts-file-lacks",
        "does not name h3",
        severity="warning",
    ),
    Fault(
        "an old address in the hosts file",
        sh(rf"sed -i -E '/# h3$/s/\.[0-9]+\//.99\//' {HOSTS}"),
        "hosts-file-address",
        r"has \S+\.99 for h3",
    ),
    Fault(
        "old slots in the hosts file",
        sh(f"sed -i -E '/# h3$/s#/[0-9]+#/33#' {HOSTS}"),
        "hosts-file-old",
        "gives h3 slots 33",
        severity="warning",
    ),
    Fault(
        "a hosts file of the user's own",
        sh("mkdir -p /root/.distcc && echo localhost >/root/.distcc/hosts"),
        "hosts-file-own",
        "/root/.distcc/hosts",
        undo=sh("rm /root/.distcc/hosts.old"),
        severity="warning",
    ),
    Fault(
        "a mark of distcc's of the future",
        sh(
            "mkdir -p /root/.distcc/lock && touch -d '+1 hour' /root/.distcc/lock/backoff_tcp_10.0.0.9_3632_0"
        ),
        "distcc-backoff",
        "of the future",
        severity="warning",
    ),
    Fault(
        "marks of distcc's for many peers",
        sh(
            "mkdir -p /root/.distcc/lock && for n in 1 2 3 4 5 6 7 8 9 10 11 12; do"
            " touch -d '+1 hour' /root/.distcc/lock/backoff_tcp_10.0.0.${n}_3632_0; done"
        ),
        "distcc-backoff",
        "and 9 more",
        severity="warning",
    ),
    Fault(
        "a unit file of the site's own for distcc",
        sh(
            "rm -f /etc/systemd/system/distcc.service && printf '[Service]\nExecStart=/bin/sleep 999\n'"
            " >/etc/systemd/system/distcc.service && systemctl daemon-reload"
            " && systemctl start distcc.service"
        ),
        "distcc-vendor",
        "is running",
        undo=sh("rm -f /etc/systemd/system/distcc.service.old*"),
    ),
    Fault(
        "a packet filter that keeps members out",
        sh("nft flush set inet d1fleet_distcc members4"),
        "canary-connect",
        "h1, h3 cannot compile there by distcc: no answer",
    ),
    Fault(
        "a compiler that the server has no name for",
        sh("rm /usr/lib/distcc/x86_64-linux-gnu-gcc"),
        "canary-failed",
        "h1, h3 cannot compile there by distcc: cc: its server has no x86_64-linux-gnu-gcc in",
    ),
    Fault(
        "a server that allows nobody",
        sh(f"sed -i -E 's/--allow [0-9./]+/--allow 192.0.2.1/g' {UNIT} && {ANEW}"),
        "canary-failed",
        "it gave no answer.*its log: ",
    ),
    Fault(
        "a server that is not confined",
        sh(
            f"mkdir -p {UNIT}.d && printf '[Service]\\nProtectHome=no\\nInaccessiblePaths=\\n'"
            f" >{UNIT}.d/x.conf && {ANEW}"
        ),
        "distcc-sandbox",
        "it can read /home, read /etc/d1fleet",
    ),
    Fault(
        "another nice value of the server",
        says(d1fleet_nice=4),
        "distcc-nice",
        "at nice 10 there, d1fleet_nice is 4",
        undo=_nice_as_before,
        severity="warning",
    ),
    Fault(
        "a copy of another host",
        _same_machine,
        "one-machine",
        "same machine as h1",
        mend=sh("cp /root/id /etc/machine-id"),
        severity="warning",
    ),
)
