"""`d1fleet doctor` on three enrolled hosts: what is well is silent, each fault is named, its mend works."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.doctor.faults import FAULTS, Fault
from tests.doctor.ward import Ward

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(1800)]


def test_healthy_hosts_are_well(ward: Ward) -> None:
    report = ward.examine()
    assert report.serious == [], report.answer
    assert report.answer["not_checked"] == {}
    assert [host["distcc"] for host in report.answer["hosts"]] == ["2 of 2"] * 3
    assert {host["tree"] for host in report.answer["hosts"]} == {"same"}
    assert "6 pairs of hosts by a compilation" in report.answer["checked"]
    assert list(ward.tree.iterdir()) == []
    for host in ward.site.hosts:
        assert ward.on("ls /tmp | grep -c canary; pgrep -fc 'd1fleet[.]server'; :", host.name) == "0\n0\n"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_named_and_its_mend_works(ward: Ward, fault: Fault) -> None:
    check(ward, fault)


def check(ward: Ward, fault: Fault) -> None:
    """Make it, have it named, mend it as is said, and have it named no more."""
    try:
        fault.make(ward)
        report = ward.examine()
        found = report.about(fault.finding)
        assert found is not None, report.answer["findings"]
        assert re.search(fault.says, found["what"]), found
        assert found["severity"] == fault.severity, found
        assert found["mend"], found
        assert bool(found["command"]) == (fault.mend is None), found
        if fault.mend is None:
            ward.type(found["command"])
        else:
            fault.mend(ward)
        after = ward.examine()
        assert after.about(fault.finding) is None, after.answer["findings"]
    finally:
        if fault.undo is not None:
            fault.undo(ward)


def test_where_compilations_go_over_ssh(ward: Ward) -> None:
    """With a key of the user's on each host; and what is said of one that has none."""
    settings = ward.site.folder / "more" / "group_vars" / "demo.yml"
    key = (ward.site.folder / "builder").read_text()
    hosts = [host.name for host in ward.site.hosts]
    settings.write_text("d1fleet_distcc_transport: ssh\n")
    try:
        for host in hosts:
            ward.on(f"umask 077; mkdir -p ~/.ssh; printf %s {shlex.quote(key)} >~/.ssh/id_ed25519", host)
        ward.refresh()
        report = ward.examine()
        assert report.serious == [], report.answer
        assert "6 pairs of hosts by a compilation" in report.answer["checked"]
        ward.on("mv ~/.ssh/id_ed25519 /root/kept; pkill -x ssh; :", "h3")
        found = ward.examine().about("canary-unknown")
        assert found is not None
        assert "h3 cannot compile there by distcc" in found["what"] and "d1fleet env --check" in found["mend"]
    finally:
        settings.unlink()
        for host in hosts:
            ward.on("rm -f ~/.ssh/id_ed25519 /root/kept; pkill -x ssh; :", host)
        ward.refresh()


def test_after_all_of_them_they_are_well(ward: Ward) -> None:
    """A mend that left something behind would be seen here."""
    report = ward.examine()
    assert report.serious == [], report.answer


def test_the_table_names_each_fault_once() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 20
