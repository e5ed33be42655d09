"""Whether a report is taken, and what it makes of its host. Pure.

Who shows a host's credential may speak for that host alone. What is looked at here is whether it is still the
same machine, whether the report is new, and by which address peers may reach it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from .model import Address, Host, Network, Project, Report, may_be_peer
from .pool import Live

MOST_PAST = 8
"""Sessions that are remembered of a host."""

CLONE_AFTER = 2
"""So many reports from a session that had ended, and two machines share one credential. One may have been
under way when what checks in was started anew.
"""


@dataclass(frozen=True)
class Verdict:
    """Why a report is not taken; empty when it is."""

    code: str = ""
    message: str = ""
    mend: str = ""


TAKEN = Verdict()


def identify(host: Host, report: Report) -> Verdict:
    """Whether a report comes from the machine that has joined."""
    if host.machine and report.machine != host.machine:
        return Verdict(
            "cloned",
            f"this credential is {host.name}'s, which is another machine",
            "a copy of a machine has to join by itself: d1fleet join there",
        )
    if host.host_keys and set(report.host_keys) != set(host.host_keys):
        return Verdict(
            "host_key",
            f"the SSH host keys of {host.name} are not those with which it has joined",
            f"if it was installed anew: d1fleet registry host readmit {host.name}",
        )
    return TAKEN


def judge(host: Host, live: Live, report: Report, source: str) -> Verdict:
    """Whether a report comes from the machine that has joined, for the first time. Counts what speaks for two
    machines with one credential; `cloned` is the verdict when that is certain.
    """
    found = identify(host, report)
    if found.code:
        return found
    if report.session == live.session:
        if report.sequence > live.sequence:
            return TAKEN
        live.strays += source != live.source
        return _stray(live, host)
    if report.session in live.past:
        if report.sequence > live.past[report.session]:
            live.past[report.session] = report.sequence
            live.strays += 1
        return _stray(live, host)
    return TAKEN


def _stray(live: Live, host: Host) -> Verdict:
    if live.strays >= CLONE_AFTER:
        return Verdict(
            "cloned",
            f"two machines check in as {host.name}",
            "let one of them join anew (d1fleet leave, d1fleet join), then:"
            f" d1fleet registry host readmit {host.name}",
        )
    return Verdict("replayed", "this report is an old one")


def take(live: Live, report: Report, source: str, now_s: float) -> None:
    """Note that a report was taken."""
    if report.session != live.session:
        if live.session:
            live.past[live.session] = live.sequence
            while len(live.past) > MOST_PAST:
                del live.past[next(iter(live.past))]
        live.session = report.session
        live.strays = 0
    live.sequence = report.sequence
    live.heard_s = now_s
    live.source = source
    live.report = report


def updated(host: Host, report: Report, address: str, note: str, now_at: float) -> Host:
    """The host as its report has it.

    Args:
        now_at: seconds since the epoch.
    """
    return replace(
        host,
        owner=report.owner,
        address=address,
        slots=report.slots,
        port=report.port,
        ssh_port=report.ssh_port,
        serving=report.serving,
        version=report.version,
        system=report.system,
        machine=report.machine,
        host_keys=report.host_keys,
        toolchain=report.toolchain or host.toolchain,
        session=report.session,
        seen_at=now_at,
        left=False,
        gone=False,
        note=note,
    )


def address_of(
    host: Host,
    projects: Iterable[Project],
    report: Report,
    source: str,
    own_addresses: Callable[[], Iterable[str]],
) -> tuple[str, str]:
    """By which address peers reach a host, or "", and why there is none.

    It is the one that the report came from: nobody can claim another one's. A host on the registry's own
    machine comes from a loopback address: of those that it names, one that this machine has is taken.

    Args:
        source: the address that the report came from; "" for the socket of this machine.
        own_addresses: those of the machine that the registry runs on.
    """
    networks = [network for project in projects for network in project.networks]
    if host.fixed_address:
        return host.fixed_address, ""
    seen = _unmapped(source)
    if seen is not None and not seen.is_loopback:
        if may_be_peer(seen, networks):
            return str(seen), ""
        return "", f"its address {seen} is in none of the ranges {_named(networks)}"
    own = set(own_addresses())
    for text in report.addresses:
        if text in own and may_be_peer(ipaddress.ip_address(text), networks):
            return text, ""
    return "", f"it checks in from the registry's own machine, which has no address in {_named(networks)}"


def _unmapped(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket of both versions of IP shows IPv4 so.
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _named(networks: Iterable[Network]) -> str:
    return ", ".join(map(str, networks)) or "(it is in no project)"
