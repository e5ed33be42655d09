"""Private addresses that nothing on this machine uses yet."""

from __future__ import annotations

import ipaddress
import json
import random
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.containers.errors import ContainerError
from tests.containers.missing import find_tool
from tests.containers.podman import podman, podman_json

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

FIRST_HOST = 11
"""Last part of the first host's address; the gateway is 1."""

MOST_HOSTS = 200

# Half of 10.0.0.0/8: people who number by hand start at the lower end.
_RANGE = ipaddress.IPv4Network("10.128.0.0/9")


def choose_ipv4(taken: Iterable[Network], seed: str) -> ipaddress.IPv4Network:
    """A /24 out of 10.128.0.0/9 that overlaps nothing in `taken`; where the search starts, `seed` decides.

    Raises:
        ContainerError: none is free.
    """
    others = [network for network in taken if isinstance(network, ipaddress.IPv4Network)]
    count = 2 ** (24 - _RANGE.prefixlen)
    start = random.Random(seed).randrange(count)
    for number in (step % count for step in range(start, start + count)):
        subnet = ipaddress.IPv4Network((int(_RANGE.network_address) + number * 256, 24))
        if not any(subnet.overlaps(other) for other in others):
            return subnet
    raise ContainerError(f"no subnet of {_RANGE} is free on this machine")


def choose_ipv6(taken: Iterable[Network], seed: str) -> ipaddress.IPv6Network:
    """A unique local /64 (RFC 4193) that overlaps nothing in `taken`.

    Raises:
        ContainerError: none was found.
    """
    others = [network for network in taken if isinstance(network, ipaddress.IPv6Network)]
    chance = random.Random(seed)
    for _ in range(100):
        number = (0xFD << 120) | (chance.getrandbits(56) << 64)
        subnet = ipaddress.IPv6Network((number, 64))
        if not any(subnet.overlaps(other) for other in others):
            return subnet
    raise ContainerError("no unique local IPv6 subnet is free on this machine")


def taken_networks() -> list[Network]:
    """What routes, addresses, name servers and podman's networks use; default routes are not among it."""
    return [network for text in _texts() for network in _parsed(text) if network.prefixlen]


def _texts() -> Iterator[str]:
    for family in ("-4", "-6"):
        for route in _ip(family, "route", "show", "table", "all"):
            yield str(route.get("dst", ""))
            yield str(route.get("gateway", ""))
    for interface in _ip("address", "show"):
        for address in interface.get("addr_info", ()):
            yield f"{address.get('local')}/{address.get('prefixlen')}"
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        lines = []
    yield from (line.split()[1] for line in lines if line.startswith("nameserver ") and len(line.split()) > 1)
    names = podman("network", "ls", "--quiet").stdout.split()
    for network in podman_json("network", "inspect", *names) if names else ():
        yield from (str(subnet.get("subnet", "")) for subnet in network.get("subnets") or ())


def _parsed(text: str) -> list[Network]:
    try:
        return [ipaddress.ip_network(text.partition("%")[0], strict=False)]
    except ValueError:  # "default", ""
        return []


def _ip(*arguments: str) -> list[dict[str, Any]]:
    argv = [find_tool("ip") or "ip", "-json", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise ContainerError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout or "[]")  # type: ignore[no-any-return]
