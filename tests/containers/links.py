"""The machine's ends of the hosts' network cables: veth(4).

Everything here refuses an interface that is no veth on the bridge of a test network: the machine's own
network goes through interfaces too, and taking one down would lose its routes.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.containers.errors import ContainerError, NotOurs
from tests.containers.missing import find_tool

_INTERFACES = Path("/sys/class/net")
_BRIDGES = ("podman", "cni-podman")
"""How podman names the bridges that it makes, with netavark and with CNI."""


def host_end(pid: int, bridge: str, interfaces: Path = _INTERFACES, proc: Path = Path("/proc")) -> str:
    """The machine's interface whose other end is `eth0` of the container with the init process `pid`.

    Read through /proc, which works for a paused container too.

    Raises:
        ContainerError: the container has no such interface now.
        NotOurs: the one that was found is no veth on `bridge`.
    """
    inside = proc / str(pid) / "root/sys/class/net/eth0"
    try:
        peer, own = int((inside / "iflink").read_text()), int((inside / "ifindex").read_text())
    except (OSError, ValueError) as exc:
        raise ContainerError(f"no eth0 in the container of process {pid}: {exc}") from exc
    for interface in sorted(interfaces.iterdir()):
        if _number(interface / "ifindex") == peer:
            check_ours(interface.name, bridge, interfaces)
            # Numbers count from 1 in every namespace: the two must point at each other.
            if _number(interface / "iflink") != own:
                raise NotOurs(f"{interface.name} is not the other end of eth0 in process {pid}")
            return interface.name
    raise ContainerError(f"no interface has the number {peer} that eth0 of process {pid} is linked to")


def check_ours(interface: str, bridge: str, interfaces: Path = _INTERFACES) -> None:
    """Refuse an interface that is no veth on this bridge of podman's.

    Raises:
        NotOurs: it is something else.
    """
    master = interfaces / interface / "master"
    enslaved = master.resolve().name if master.is_symlink() else ""
    is_podmans = bridge.startswith(_BRIDGES) and (interfaces / bridge / "bridge").is_dir()
    if not (interface.startswith("veth") and enslaved == bridge and is_podmans):
        raise NotOurs(f"{interface} is no veth on the test bridge {bridge} (it is on {enslaved or 'none'})")


def set_link(interface: str, bridge: str, *, up: bool) -> None:
    """Switch a host's cable on or off.

    Raises:
        NotOurs: the interface is no veth on `bridge`.
        ContainerError: ip(8) failed.
    """
    check_ours(interface, bridge)
    _ip("link", "set", "dev", interface, "up" if up else "down")


def delete_ports(bridge: str) -> None:
    """Delete the veths that are left on a bridge of podman's.

    Raises:
        NotOurs: something else is on it.
        ContainerError: ip(8) failed.
    """
    ports = _INTERFACES / bridge / "brif"
    for port in sorted(ports.iterdir()) if ports.is_dir() else ():
        check_ours(port.name, bridge)
        _ip("link", "delete", "dev", port.name)


def _ip(*arguments: str) -> None:
    argv = [find_tool("ip") or "ip", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ContainerError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return -1
