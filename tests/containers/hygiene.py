"""Shared hosts are handed from test to test: mended, and with nothing of the last test running."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping

from tests.containers.host import Host

SETTLE_S = 5.0
"""How long something that is already ending may take to be gone."""

_SYSTEM = (
    "(",
    "/lib/systemd/",
    "/usr/lib/systemd/",
    "/usr/bin/dbus-daemon",
    "/sbin/init",
    "sshd: /usr/sbin/sshd -D",
)
"""How the command lines of what the system starts by itself begin; "(" is a unit about to start."""


def mend(host: Host) -> None:
    """Undo every fault: a host that is off or frozen runs again, its link is in, its packet filter gone.

    Without effect on a host on which `Host` made no fault.

    Raises:
        ContainerError: it cannot be mended.
    """
    if not host.touched:
        return
    state = host.state()
    if state == "paused":
        host.unpause()
    elif state != "running":
        host.power_on()
    host.restore()
    host.accept()
    host.wait_for_sshd()
    host.touched = False


def foreign(host: Host) -> Counter[str]:
    """How many processes of each command line run inside that the system did not start."""
    lines = (" ".join(argv) for argv in host.processes().values())
    return Counter(line for line in lines if line and not line.startswith(_SYSTEM))


def left_behind(
    hosts: Iterable[Host], before: Mapping[str, Counter[str]], settle_s: float = SETTLE_S
) -> list[str]:
    """One line for each foreign process that was not there before and does not go away by itself.

    Args:
        before: what `foreign` said of each host, by its name.
    """
    deadline = time.monotonic() + settle_s
    while True:
        lines = [f"{host.name}: {line}" for host in hosts for line in foreign(host) - before[host.name]]
        if not lines or time.monotonic() > deadline:
            return lines
        time.sleep(0.1)
