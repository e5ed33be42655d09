"""What only root sees: playbooks/check_fleet.yml on enrolled hosts. A fault is named, and its mend works."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tests.doctor.ward import SICK, Ward

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(1800)]

UNIT = "/etc/systemd/system/d1fleet-distcc.service"
ANEW = "systemctl daemon-reload && systemctl restart d1fleet-distcc.service"


@dataclass(frozen=True)
class Fault:
    """One fault: root's shell makes it on the sick host.

    Attributes:
        says: a pattern of the line that names it.
        mend: where no command is printed, what the words say.
        undo: what the mend leaves.
    """

    name: str
    make: str
    says: str
    mend: str = ""
    undo: str = ""
    severity: str = "fault"


FAULTS = (
    Fault(
        "a record that others can write",
        "chmod 666 /etc/d1fleet/toolchain.json",
        "toolchain.json has mode 0666",
    ),
    Fault(
        "a record that builders cannot read",
        "chmod 600 /etc/d1fleet/toolchain.json",
        "cannot read what their builds go by: /etc/d1fleet/toolchain.json",
    ),
    Fault(
        "a launcher of somebody else's",
        "chown 1 /usr/local/lib/d1fleet/launcher",
        "launcher belongs to uid 1",
    ),
    Fault(
        "slots that are not open",
        "chmod 755 /run/d1fleet/slots",
        "/run/d1fleet/slots has mode 0755, not 1777",
    ),
    Fault(
        "pins of a run that was killed",
        "echo '# for the time of one run' >/etc/apt/preferences.d/d1fleet",
        "preferences.d/d1fleet holds versions for one run of site.yml",
        severity="warning",
    ),
    Fault(
        "sshd with few sessions",
        "echo MaxSessions 1 >/etc/ssh/sshd_config.d/00-other.conf",
        "sshd has MaxSessions 1, our drop-in says 64 ./etc/ssh/sshd_config.d/00-other.conf line 1",
        mend="rm /etc/ssh/sshd_config.d/00-other.conf",
        severity="warning",
    ),
    Fault(
        "a configuration that sshd refuses",
        "echo Nonsense yes >/etc/ssh/sshd_config.d/00-other.conf",
        "sshd refuses its configuration: .*Nonsense",
        mend="rm /etc/ssh/sshd_config.d/00-other.conf",
    ),
    Fault("a filter that lets nobody in", "nft flush set inet d1fleet_distcc members4", "filter is not as"),
    Fault(
        "a filter with another rule",
        "nft add rule inet d1fleet_distcc input tcp dport 4444 accept",
        "filter is not as .*tcp dport 4444 accept",
    ),
    Fault(
        "a server that is stopped",
        "systemctl stop d1fleet-distcc.service",
        "d1fleet-distcc.service is inactive",
    ),
    Fault(
        "a server that does not start at boot",
        "systemctl disable d1fleet-distcc.service",
        "is disabled: it does not start at boot",
        severity="warning",
    ),
    Fault(
        "a unit that was changed",
        f"mkdir -p {UNIT}.d && printf '[Service]\\nProtectHome=no\\n' >{UNIT}.d/x.conf && {ANEW}",
        "has ProtectHome=no, not yes",
    ),
    Fault(
        "a unit that was changed and not read",
        f"touch -d '+1 minute' {UNIT}",
        "was written anew, and systemd has not read that",
        undo=f"touch {UNIT}; systemctl daemon-reload",
        severity="warning",
    ),
    Fault(
        "a server that was niced",
        f"mkdir -p {UNIT}.d && printf '[Service]\\nNice=3\\n' >{UNIT}.d/x.conf && {ANEW}",
        "runs at nice 13, not 10",
        severity="warning",
    ),
    Fault(
        "the distribution's own server",
        "systemctl unmask distcc.service",
        "own distcc.service is not masked",
        severity="warning",
    ),
    Fault(
        "a word that distcc does not know",
        "echo '10.0.0.9:notaport/3' >>/etc/d1fleet/hosts/demo",
        "hosts/demo: distcc reads",
    ),
)


def _named(lines: list[str], fault: Fault) -> int | None:
    """The number of the line that names it."""
    pattern = re.compile(rf"{fault.severity}  [^:]*\b{SICK}\b[^:]*: .*{fault.says}")
    return next((number for number, line in enumerate(lines) if pattern.match(line)), None)


def test_healthy_hosts_are_well(ward: Ward) -> None:
    code, lines = ward.check()
    assert code == 0, lines
    assert "all well on 3 hosts" in lines
    assert any(
        line.startswith("checked as root: owners and modes, apt's pins, sshd's settings, distcc")
        for line in lines
    )
    assert "site.yml --check --diff" in lines[-1]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named_and_its_mend_works(ward: Ward, fault: Fault) -> None:
    check(ward, fault)


def check(ward: Ward, fault: Fault) -> None:
    ward.on(fault.make)
    try:
        code, lines = ward.check()
        at = _named(lines, fault)
        assert at is not None, lines
        assert code == (2 if fault.severity == "fault" else 0)
        assert lines[at + 1].startswith("  mend: ")
        command = lines[at + 2] if lines[at + 2].startswith("    ") else ""
        assert bool(command) == (not fault.mend), lines
        if command:
            ward.type(command.strip())
        else:
            ward.on(fault.mend)
        assert _named(ward.check()[1], fault) is None
    finally:
        if fault.undo:
            ward.on(fault.undo)


def test_a_host_that_is_off_and_one_that_is_not_enrolled(ward: Ward) -> None:
    mark = "/etc/ansible/facts.d/d1fleet_inventory.fact"
    ward.on(f"mv {mark} /root/mark", "h3")
    ward.site.hosts[SICK].cut()
    try:
        code, lines = ward.check()
        assert code == 2
        assert any(
            line.startswith(f"fault  {SICK}: nothing is known of it: it was not reached") for line in lines
        )
        at = lines.index("fault  h3: it is not enrolled")
        assert lines[at + 2].endswith("site.yml --limit h3")
    finally:
        ward.site.hosts[SICK].restore()
        ward.on(f"mv /root/mark {mark}", "h3")
