"""Hosts of an inventory that check in at a registry: by site.yml and back again; nobody is lost meanwhile."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.registry.members import gateway, network, within
from tests.registry.running import Running
from tests.roles.roles import Play, play
from tests.roles.site import Site, bare_site
from tests.roles.test_retire import BY_THE_WAY, LISTING

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(2400)]

FILE = "/etc/d1fleet/hosts/demo"
MEMBERS = "nft list set inet d1fleet_distcc members4"
WITHIN_S = 10.0
OF_CHECK_IN = (
    "ls -d /etc/d1fleet/checkin.json /etc/d1fleet/distcc.d /etc/systemd/system/d1fleet-checkin*"
    " /usr/local/lib/d1fleet/checkin /var/lib/d1fleet-checkin 2>/dev/null; getent passwd d1fleet-checkin; :"
)

WATCH = r"""
cat >/root/watch <<'E'
while :; do
    set=$(nft list set inet d1fleet_distcc members4 2>&1 | tr -d '\n\t ' | grep -o '{[0-9.,]*}')
    now="${set:-none} $(grep -c '^[0-9]' /etc/d1fleet/hosts/demo 2>&1)"
    sleep 0.05
    [ "$now" = "$last" ] || echo "$now" >>/root/seen
    last=$now
done
E
rm -f /root/seen && systemd-run --quiet --collect --unit=watch bash /root/watch
"""
"""Writes down each other set of members, and number of peers, that there is on a host, even for a moment."""


@dataclass
class Fleet:
    """Three hosts that were enrolled without a registry, then with one; and then again."""

    site: Site
    registry: Running
    before: dict[str, list[str]]
    inventory: Play
    first: Play
    second: Play
    checked: Play

    def refresh(self, *arguments: str, **variables: Any) -> Play:
        return self.run("playbooks/refresh.yml", *arguments, **variables)

    def run(self, playbook: str, *arguments: str, **variables: Any) -> Play:
        before, self.site.playbook = self.site.playbook, playbook
        try:
            return self.site.play(*arguments, **variables)
        finally:
            self.site.playbook = before

    def say(self, **variables: Any) -> None:
        """What the inventory says of all hosts from now on; None for no more."""
        file = self.site.folder / "more" / "group_vars" / "demo.yml"
        known = yaml.safe_load(file.read_text()) if file.exists() else {}
        known.update(variables)
        file.write_text(yaml.safe_dump({key: value for key, value in known.items() if value is not None}))

    def peers(self, host: str) -> set[str]:
        text = self.site.on(host, f"cat {FILE}")
        return {line.split()[-1] for line in text.splitlines() if re.match(r"\d", line)}

    def states(self) -> dict[str, str]:
        return {host["name"]: host["state"] for host in self.registry.ask("host", "list")}

    @contextlib.contextmanager
    def watched(self, host: str) -> Iterator[list[str]]:
        """What there was to be seen on a host meanwhile."""
        seen: list[str] = []
        self.site.on(host, WATCH)
        within(WITHIN_S, lambda: "" if self.site.on(host, "cat /root/seen 2>/dev/null; :") else "not yet")
        try:
            yield seen
        finally:
            seen += self.site.on(host, "systemctl stop watch; cat /root/seen; rm /root/watch").splitlines()


def _listing(site: Site, host: str) -> list[str]:
    return [line for line in site.on(host, LISTING).splitlines() if not BY_THE_WAY.search(line)]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    def builders(public: str) -> list[dict[str, Any]]:
        return [{"name": "root", "uid": 0, "authorized_keys": [public]}]

    folder = tmp_path_factory.mktemp("d")
    with bare_site("checkin", folder, builders) as site:
        before = {host.name: _listing(site, host.name) for host in site.hosts}
        inventory = site.play()
        hosts = list(site.hosts)
        registry = Running(folder / "registry", gateway(hosts))
        registry.start()
        try:
            registry.ask("project", "create", "demo", "--range", network(hosts))
            found = Fleet(site, registry, before, inventory, inventory, inventory, inventory)
            found.say(
                d1fleet_registry=registry.url,
                d1fleet_registry_certificate=str(registry.certificate),
                d1fleet_distcc_networks=[network(hosts)],
                d1fleet_owner="ada@example.org",
            )
            token = registry.token("demo")
            found.first = site.play(d1fleet_registry_token=token)
            found.second = site.play(d1fleet_registry_token=token)
            found.checked = site.play("--check")
            yield found
        finally:
            registry.stop()


def test_a_second_run_changes_nothing_and_needs_no_token(fleet: Fleet) -> None:
    assert fleet.inventory.code == 0, fleet.inventory.text
    assert fleet.first.code == 0, fleet.first.text
    assert fleet.second.code == 0
    assert fleet.second.total("changed") == 0, fleet.second.text
    assert fleet.checked.code == 0
    assert fleet.checked.total("changed") == 0, fleet.checked.text
    assert "d1j_" not in fleet.first.text + fleet.second.text


def test_each_has_the_others_by_the_registrys_word(fleet: Fleet) -> None:
    site = fleet.site
    assert fleet.states() == {"h1": "up", "h2": "up", "h3": "up"}
    assert [fleet.peers(host.name) for host in site.hosts] == [{"h2", "h3"}, {"h1", "h3"}, {"h1", "h2"}]
    for text in site.everywhere(f"cat {FILE}; cmp {FILE} /etc/distcc/hosts"):
        assert "written by check-in, role d1.fleet.checkin" in text.splitlines()[0]
    for text in site.everywhere(MEMBERS):
        assert all(host.address in text for host in site.hosts)
    assert fleet.registry.host("h1")["owner"] == "ada@example.org"


def test_what_is_confined_is_confined(fleet: Fleet) -> None:
    site = fleet.site
    pid = "$(systemctl show -P MainPID d1fleet-checkin)"
    assert site.on("h1", f"ps -o user= -p {pid}").strip() in ("d1fleet-checkin", "d1fleet+")
    status = site.on("h1", f"cat /proc/{pid}/status")
    for line in ("CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    # Nobody else reaches the root helper, and it does nothing that is not checked again.
    ask = (
        "python3 -c 'import socket; s = socket.socket(socket.AF_UNIX);"
        ' s.connect("/run/d1fleet-checkin/apply.sock")\' 2>&1; :'
    )
    assert "PermissionError" in site.on("h1", f"setpriv --reuid=nobody --clear-groups {ask}")
    assert site.on("h1", "stat -c '%a %U' /var/lib/d1fleet-checkin /var/lib/d1fleet-checkin/credential") == (
        "700 d1fleet-checkin\n600 d1fleet-checkin\n"
    )


def test_a_run_and_a_restart_take_nobody_away_even_for_a_moment(fleet: Fleet) -> None:
    """The table is loaded anew by each run, and a new version of the check-in is started by some."""
    site = fleet.site
    with fleet.watched("h1") as seen:
        site.everywhere("nft -f /etc/d1fleet/distcc.nft")
        unit = "/etc/systemd/system/d1fleet-checkin.service"
        site.everywhere(f"echo '# another' >>{unit}")
        done = fleet.refresh()
        assert done.code == 0, done.text
        assert "Start the way to the root helper" in done.text
        assert {host: counts["changed"] for host, counts in done.counts.items() if host != "localhost"} == {
            "h1": 2,
            "h2": 2,
            "h3": 2,
        }
    assert len(seen) == 1, seen
    assert fleet.states() == {"h1": "up", "h2": "up", "h3": "up"}


def test_a_host_that_stops_is_forgotten_and_taken_back(fleet: Fleet) -> None:
    site = fleet.site
    site.on("h3", "systemctl stop d1fleet-checkin")
    within(WITHIN_S, lambda: "" if fleet.peers("h1") == {"h2"} else "h3 is there")
    assert site.hosts["h3"].address not in site.on("h1", MEMBERS)
    site.on("h3", "systemctl start d1fleet-checkin")
    within(WITHIN_S, lambda: "" if fleet.peers("h1") == {"h2", "h3"} else "h3 is not there")


def test_other_slots_are_known_without_a_restart(fleet: Fleet) -> None:
    pid = fleet.site.on("h2", "systemctl show -P MainPID d1fleet-checkin")
    fleet.say(d1fleet_slots=7)
    try:
        done = fleet.refresh()
        assert done.code == 0, done.text
        within(
            WITHIN_S,
            lambda: "" if "/7,lzo  # h2" in fleet.site.on("h1", f"cat {FILE}") else "other slots",
        )
        assert fleet.site.on("h2", "systemctl show -P MainPID d1fleet-checkin") == pid
    finally:
        fleet.say(d1fleet_slots=None)
    assert fleet.refresh().code == 0


def test_with_the_registry_away_a_run_goes_on(fleet: Fleet) -> None:
    whole = fleet.site.on("h1", f"cat {FILE}")
    fleet.registry.stop()
    try:
        fleet.site.everywhere("systemctl restart d1fleet-checkin")
        done = fleet.refresh(d1fleet_registry_token="d1j_00000000_" + "A" * 43)
        # With a token that it does not know, it would have to ask.
        assert done.code == 0, done.text
        assert "h1 keeps the peers that it knows, since the registry does not answer" in done.words
        assert fleet.site.on("h1", f"cat {FILE}") == whole
    finally:
        fleet.registry.start()


def test_a_host_that_cannot_join_is_told_why(fleet: Fleet) -> None:
    site = fleet.site
    site.on("h3", "systemctl stop d1fleet-checkin; rm /var/lib/d1fleet-checkin/credential")
    without = fleet.refresh("--limit", "h3")
    assert without.code == 2
    assert "h3 has not joined https://" in without.words
    wrong = "d1j_00000000_" + "A" * 43
    refused = fleet.refresh("--limit", "h3", d1fleet_registry_token=wrong)
    assert refused.code == 2
    assert "h3 could not join by d1j_00000000...:" in refused.words, refused.text
    assert "this join token is not valid" in refused.words
    assert wrong not in refused.text
    again = fleet.refresh("--limit", "h3", d1fleet_registry_token=fleet.registry.token("demo"))
    assert again.code == 0, again.text
    within(WITHIN_S, lambda: "" if fleet.peers("h1") == {"h2", "h3"} else "h3 is not there")


def test_one_that_was_thrown_out_fails_with_the_reason(fleet: Fleet) -> None:
    fleet.registry.ask("host", "expunge", "h3")
    try:
        done = fleet.refresh("--limit", "h3")
        assert done.code == 2
        assert "h3: the registry refuses its check-in:" in done.words, done.text
    finally:
        fleet.registry.ask("host", "readmit", "h3")
    # Whose credential is void joins anew.
    fleet.site.on("h3", "rm -f /var/lib/d1fleet-checkin/credential")
    fleet.registry.command(
        "registry", "host", "forget", "h3", "--data", str(fleet.registry.data), check=False
    )
    again = fleet.refresh("--limit", "h3", d1fleet_registry_token=fleet.registry.token("demo"))
    assert again.code == 0, again.text
    within(WITHIN_S, lambda: "" if fleet.peers("h1") == {"h2", "h3"} else "h3 is not there")


def test_back_to_the_inventory_and_nobody_is_lost_meanwhile(fleet: Fleet) -> None:
    site = fleet.site
    url = fleet.registry.url
    fleet.say(d1fleet_registry=None)
    try:
        with fleet.watched("h1") as seen:
            done = fleet.refresh()
        assert done.code == 0, done.text
        assert fleet.refresh().total("changed") == 0
        assert set(site.everywhere(OF_CHECK_IN)) == {""}
        assert all("role d1.fleet.distcc_hosts" in text for text in site.everywhere(f"cat {FILE}"))
        assert fleet.peers("h1") == {"h2", "h3"}
        assert {line.rpartition(" ")[0] for line in seen} == {seen[0].rpartition(" ")[0]}, seen
        assert fleet.states() == {}
    finally:
        fleet.say(d1fleet_registry=url)
    assert fleet.refresh(d1fleet_registry_token=fleet.registry.token("demo")).code == 0
    within(WITHIN_S, lambda: "" if set(fleet.states().values()) == {"up"} else str(fleet.states()))


def test_a_host_that_is_retired_says_goodbye_for_good(fleet: Fleet) -> None:
    site = fleet.site
    done = fleet.run("playbooks/retire.yml", d1fleet_retire="h2", d1fleet_purge=True)
    assert done.code == 0, done.text
    assert set(fleet.states()) == {"h1", "h3"}
    within(WITHIN_S, lambda: "" if fleet.peers("h1") == {"h3"} else "h2 is there")
    assert site.hosts["h2"].address not in site.on("h1", MEMBERS)
    assert set(fleet.before["h2"]) ^ set(_listing(site, "h2")) == set()


def test_one_that_is_retired_while_the_registry_is_away_goes_all_the_same(fleet: Fleet) -> None:
    fleet.registry.stop()
    try:
        done = fleet.run("playbooks/retire.yml", d1fleet_retire="h3", d1fleet_purge=True)
    finally:
        fleet.registry.start()
    assert done.code == 0, done.text
    assert "h3 could not say goodbye for good" in done.words
    assert "d1fleet registry host forget h3" in done.words
    assert set(fleet.before["h3"]) ^ set(_listing(fleet.site, "h3")) == set()


def test_what_joins_by_itself_leaves_nothing_when_it_leaves(fleet: Fleet, tmp_path: Path) -> None:
    """The playbooks of `d1fleet join` and `leave`, run from here."""
    site = fleet.site
    known = yaml.safe_load(site.hosts.inventory.read_text())["projects"]["children"]["demo"]["hosts"]["h2"]
    alone = tmp_path / "hosts.yml"
    alone.write_text(yaml.safe_dump({"projects": {"children": {"demo": {"hosts": {"h2": known}}}}}))
    variables = {
        "d1fleet_registry": fleet.registry.url,
        "d1fleet_registry_certificate": fleet.registry.certificate.read_text(),
        "d1fleet_registry_token": fleet.registry.token("demo"),
        "d1fleet_distcc_networks": [network(list(site.hosts))],
    }
    joined = _alone(fleet, alone, "playbooks/join.yml", **variables)
    assert joined.code == 0, joined.text
    assert _alone(fleet, alone, "playbooks/join.yml", **variables).total("changed") == 0
    within(WITHIN_S, lambda: "" if fleet.peers("h1") == {"h2"} else "h2 is not there")
    # Nothing of what only an inventory of people and peers would say.
    assert site.on("h2", "ls /etc/ssh/d1fleet_authorized_keys 2>/dev/null; :") == ""
    left = _alone(fleet, alone, "playbooks/leave.yml", d1fleet_purge=True)
    assert left.code == 0, left.text
    assert "out of the inventory" not in left.words
    assert set(fleet.before["h2"]) ^ set(_listing(site, "h2")) == set()
    assert "h2" not in fleet.states()


def _alone(fleet: Fleet, inventory: Path, playbook: str, **variables: Any) -> Play:
    return play(
        *("--inventory", inventory, "--extra-vars", json.dumps(variables)),
        controls=fleet.site.folder / "c",
        playbook=playbook,
        environment={"XDG_CACHE_HOME": str(fleet.site.folder)},
    )
