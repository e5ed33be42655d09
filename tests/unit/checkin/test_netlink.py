"""This host's addresses, as the kernel lists them."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from d1fleet.checkin import netlink
from d1fleet.checkin.values import Address


def _by_psutil() -> set[str]:
    found = {
        address.address
        for each in psutil.net_if_addrs().values()
        for address in each
        if address.family.name in ("AF_INET", "AF_INET6") and "%" not in address.address
    }
    return {each for each in found if not ipaddress.ip_address(each).is_loopback}


def test_they_are_those_of_this_host() -> None:
    found = netlink.own_addresses()
    assert len(set(found)) == len(found)
    assert set(found) <= _by_psutil()
    assert {each for each in _by_psutil() if ":" not in each} <= set(found)


def test_those_of_proc_are_the_same() -> None:
    def of_networks(found: Iterable[tuple[Address, bool]]) -> set[Address]:
        return {address for address, _ in found if not (address.is_link_local or address.is_loopback)}

    assert of_networks(netlink._read()) == of_networks(netlink._asked())


def test_without_netlink_there_is_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    before = netlink.own_addresses()

    def refused() -> object:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(netlink, "_asked", refused)
    assert netlink.own_addresses() == before


def test_those_of_the_fleet_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ["10.9.9.9", "2001:db8::2", "192.0.2.7", "127.0.0.1", "fe80::1", "192.0.2.3", "2001:db8::1"]
    temporary = {"2001:db8::1"}
    monkeypatch.setattr(
        netlink, "_asked", lambda: [(ipaddress.ip_address(each), each in temporary) for each in listed]
    )
    networks = [ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32")]
    wanted = ["192.0.2.3", "192.0.2.7", "2001:db8::2", "2001:db8::1", "10.9.9.9"]
    assert netlink.own_addresses(networks) == wanted
    listed.reverse()
    assert netlink.own_addresses(networks) == wanted


_CHANGES = """
import select, subprocess
from d1fleet.checkin import netlink
watch = netlink.AddressWatch()
def told():
    found = bool(select.select([watch.socket], [], [], 20)[0])
    watch.drain()
    return found
def ip(*words):
    subprocess.run(["ip", *words], check=True)
ip("link", "set", "lo", "up")
told()
ip("address", "add", "192.0.2.77/24", "dev", "lo")
print(told(), netlink.own_addresses())
ip("address", "add", "2001:db8::77/64", "dev", "lo", "nodad")
print(told(), netlink.own_addresses())
ip("address", "del", "192.0.2.77/24", "dev", "lo")
print(told(), netlink.own_addresses())
print(bool(select.select([watch.socket], [], [], 0)[0]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes networks")
def test_changes_are_heard_of() -> None:
    argv = ["unshare", "-n", "python3", "-c", _CHANGES]
    root = str(Path(netlink.__file__).parents[2])
    done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root})
    if "unshare" in done.stderr or "'ip'" in done.stderr:
        pytest.skip("no network of one's own can be made here")
    assert done.stdout.splitlines() == [
        "True ['192.0.2.77']",
        "True ['192.0.2.77', '2001:db8::77']",
        "True ['2001:db8::77']",
        "False",
    ], done.stderr
