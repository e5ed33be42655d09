"""Hosts that go: their peers forget them first, and then each is what it was before it was enrolled."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.roles.roles import Play
from tests.roles.site import Site, bare_site

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(2400)]

HOSTS_OF_ITS_OWN = "# somebody's own\nlocalhost/3\n"

LISTING = r"""
cd /
find etc usr/local opt -printf '%p %y %m %u %g %l\n' | LC_ALL=C sort
find etc -type f -exec sha256sum {} + | LC_ALL=C sort -k2
getent passwd; getent group; getent shadow
ls -A /var/spool/cron/crontabs 2>/dev/null; ls -A /var/lib/systemd/linger 2>/dev/null
systemctl list-unit-files --no-legend --no-pager | awk '{ print $1, $2 }'
! command -v nft >/dev/null || nft list ruleset
"""
"""Everything that enrolment could leave behind, a line each."""

# Copies that programs for users keep of what they have changed; the linker's cache; when /etc has changed.
BY_THE_WAY = re.compile(
    r"\betc/((passwd|group|shadow|gshadow|subuid|subgid)-|\.pwd\.lock|ld\.so\.cache|\.updated)(\s|$)"
)


@dataclass
class Fleet:
    """Three enrolled hosts, and what each was like before; h4 is in their project, and was never enrolled.

    h2 had distcc's own server running, with hosts of its own; all had a user who is a builder now.
    """

    site: Site
    before: dict[str, list[str]]
    enrolled: Play

    def listing(self, host: str) -> list[str]:
        return _listing(self.site, host)

    def changes(self, host: str) -> set[str]:
        """Lines that were not there before, or are there no more."""
        return set(self.before[host]) ^ set(self.listing(host))

    def retire(self, hosts: str, *arguments: str, **variables: Any) -> Play:
        playbook, self.site.playbook = self.site.playbook, "playbooks/retire.yml"
        try:
            return self.site.play(*arguments, d1fleet_retire=hosts, d1fleet_retire_patience_s=6, **variables)
        finally:
            self.site.playbook = playbook


def _listing(site: Site, host: str) -> list[str]:
    return [line for line in site.on(host, LISTING).splitlines() if not BY_THE_WAY.search(line)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    def builders(public: str) -> list[dict[str, Any]]:
        return [
            {"name": "root", "uid": 0, "authorized_keys": [public]},
            {"name": "ada", "uid": 2001, "comment": "Ada", "groups": ["video"]},
            {"name": "bob", "uid": 2002, "comment": "Bob, who builds", "groups": ["video", "audio"]},
        ]

    with bare_site("retire", tmp_path_factory.mktemp("d"), builders, count=4) as site:
        site.everywhere("useradd -u 2002 -U -m -s /bin/sh -c Robert -G audio bob")
        site.on(
            "h2",
            "apt-get -qq update"
            " && DEBIAN_FRONTEND=noninteractive apt-get -qqy install --no-install-recommends distcc"
            f" && printf %s {shlex.quote(HOSTS_OF_ITS_OWN)} > /etc/distcc/hosts"
            " && chmod 640 /etc/distcc/hosts && systemctl enable --now distcc.service",
        )
        before = {host.name: _listing(site, host.name) for host in site.hosts}
        yield Fleet(site, before, site.play("--limit", "!h4"))


def test_who_is_meant_has_to_be_said(fleet: Fleet) -> None:
    assert fleet.enrolled.code == 0, fleet.enrolled.text
    enrolled = fleet.listing("h1")
    for arguments, hosts, words in (
        ((), "", "Name the hosts by -e d1fleet_retire=HOST"),
        ((), "h7", "`h7` is none of them"),
        (("--limit", "h1"), "h1", "without --limit, since their peers are changed as well"),
    ):
        refused = fleet.retire(hosts, *arguments)
        assert refused.code != 0
        assert words in refused.words, refused.text
    assert fleet.listing("h1") == enrolled


def test_check_mode_changes_nothing(fleet: Fleet) -> None:
    enrolled = fleet.listing("h2")
    checked = fleet.retire("h2", "--check")
    assert checked.code == 0, checked.text
    assert checked.counts["h2"]["changed"] > 0
    assert "h2: would be retired" in checked.words
    assert fleet.listing("h2") == enrolled


def test_a_host_that_is_used_is_drained_and_waited_for(fleet: Fleet) -> None:
    site = fleet.site
    enrolled = fleet.listing("h2")
    site.on(
        "h2",
        "systemd-run --quiet --unit=busy flock /run/d1fleet/slots/slot.0 sleep 600",
    )
    site.on("h2", "systemd-run --quiet --unit=adas --uid=ada sleep 600")
    try:
        refused = fleet.retire("h2")
    finally:
        site.on("h2", "systemctl stop busy adas")
    assert refused.code != 0
    assert "h2 is in use, after 6 seconds: 1 recipe of builds; sleep of ada" in refused.words, refused.text
    assert site.on("h2", "cat /run/d1fleet/drain/drained") == "being retired"
    assert fleet.listing("h2") == enrolled


def test_a_run_that_is_killed_while_sshd_forgets_us_locks_nobody_out(fleet: Fleet) -> None:
    """The next two tests retire this host wholly, whatever the run has left."""
    site = fleet.site
    drop_in = "/etc/ssh/sshd_config.d/10-d1fleet.conf"

    def gone() -> bool:
        return site.hosts["h2"].run(["test", "-e", drop_in]).returncode == 1

    assert not gone()
    site.killed_when = gone
    try:
        killed = fleet.retire("h2")
    finally:
        site.killed_when = None
    assert killed.code == -signal.SIGKILL, killed.text
    assert "Report" not in killed.text
    assert site.on("h2", "sshd -t && systemctl is-active ssh").strip() == "active"


def test_peers_forget_it_and_it_is_as_it_was(fleet: Fleet) -> None:
    site = fleet.site
    address = site.hosts["h2"].address
    retired = fleet.retire("h2", d1fleet_purge="true")  # as -e has it: text
    assert retired.code == 0, retired.text
    assert "h2: retired. Homes stay, of ada" in retired.words
    for peer in ("h1", "h3"):
        assert address not in site.on(peer, "cat /etc/d1fleet/hosts/demo /etc/ssh/d1fleet_known_hosts")
        assert address not in site.on(peer, "nft list table inet d1fleet_distcc")
    assert fleet.changes("h2") == set()
    assert site.on("h2", "cat /etc/distcc/hosts") == HOSTS_OF_ITS_OWN
    assert site.on("h2", "systemctl is-active distcc.service").strip() == "active"
    assert site.on("h2", "ls -d /home/ada").strip() == "/home/ada"


def test_a_second_time_there_is_nothing_to_do(fleet: Fleet) -> None:
    again = fleet.retire("h2", d1fleet_purge=True)
    assert again.code == 0, again.text
    assert again.total("changed") == 0, again.text


def test_one_that_is_away_is_forgotten_by_its_peers(fleet: Fleet) -> None:
    site = fleet.site
    site.hosts["h3"].cut()
    try:
        gone = fleet.retire("h3")
    finally:
        site.hosts["h3"].restore()
    assert "h3: could not be reached. Its peers know it no more" in gone.words, gone.text
    assert site.hosts["h3"].address not in site.on("h1", "cat /etc/d1fleet/hosts/demo")
    assert site.on("h3", "systemctl is-active d1fleet-distcc.service").strip() == "active"


def test_a_peer_that_fails_is_named_and_packages_stay_where_nobody_asks(fleet: Fleet) -> None:
    site = fleet.site
    site.on("h1", "mv /etc/d1fleet/hosts /root/hosts && touch /etc/d1fleet/hosts")
    try:
        retired = fleet.retire("h3")
    finally:
        site.on("h1", "rm /etc/d1fleet/hosts && mv /root/hosts /etc/d1fleet/hosts")
    assert retired.counts["h1"]["rescued"] == 1, retired.text
    assert retired.code == 2
    assert "h1: see what failed there" in retired.words
    assert "h1: could not be reached, or failed: may still send work" in retired.words, retired.text
    assert retired.counts["h3"]["failed"] == 0, retired.text
    assert "h3: the packages that came at enrolment stay" in retired.words
    left = fleet.changes("h3")
    assert not [line for line in left if "d1fleet" in line or line.startswith(("ada", "bob"))], left
    assert site.on("h3", "ls /usr/bin/gcc /usr/bin/distcc").split() == ["/usr/bin/distcc", "/usr/bin/gcc"]
    # Nobody has asked for its service.
    assert site.on("h3", "systemctl is-enabled distcc.service", check=False).strip() == "disabled"
    assert site.on("h3", "systemctl is-active distcc.service", check=False).strip() == "inactive"


def test_the_last_one_goes_too(fleet: Fleet) -> None:
    retired = fleet.retire("demo", d1fleet_purge=True)
    assert retired.code == 0, retired.text
    assert fleet.changes("h1") == set()


def test_one_that_was_never_enrolled_is_left_alone(fleet: Fleet) -> None:
    assert fleet.changes("h4") == set()
