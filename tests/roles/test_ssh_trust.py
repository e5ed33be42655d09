"""The role ssh_trust on hosts whose sshd has a history of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.roles.roles import ROOT, Play, play
from tests.roles.site import Site, bare_site

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(1800)]

OURS = "/etc/ssh/sshd_config.d/10-d1fleet.conf"
KEYS = "/etc/ssh/d1fleet_authorized_keys/%u"
MAIN = "/etc/ssh/sshd_config"
KNOWN_HOSTS = "/etc/ssh/d1fleet_known_hosts"

PATIENCE_S = 24
"""A guess: a host gives a login this long, in place of minutes."""

RETURN_S = 90.0
"""From there until it lets somebody in: a guess for a busy machine."""


class SshSite(Site):
    """Three hosts, and a play of this role alone."""

    def files_of_keys(self, host: str, user: str = "root") -> list[str]:
        spec = f"user={user},host=x,addr=127.0.0.1,laddr=127.0.0.1,lport=22"
        said = self.on(host, f"sshd -T -C {spec} | sed -n 's/^authorizedkeysfile //p'")
        return said.split()

    def reloads(self, host: str) -> int:
        return self.on(host, "journalctl -u ssh --no-pager").count("Received SIGHUP")


@dataclass
class Trusted:
    """The first four runs, in their order."""

    site: SshSite
    checked_bare: Play
    left_bare: str
    first: Play
    second: Play
    checked_after: Play


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trusted]:
    folder = tmp_path_factory.mktemp("t")
    (folder / "play.yml").write_text(yaml.safe_dump([PLAY]))

    def builders(public: str) -> list[dict[str, Any]]:
        return [{"name": name, "uid": uid, "authorized_keys": [public]} for name, uid in PEOPLE.items()]

    with bare_site("trust", folder, builders, str(folder / "play.yml")) as made:
        site = SshSite(made.hosts, made.folder, made.playbook)
        for host, command in HISTORIES.items():
            site.on(host, command)
        bare = site.play("--check")
        left = site.on("h1", f"ls -d /etc/ssh/d1fleet* {OURS} /run/d1fleet*; :")
        yield Trusted(site, bare, left, site.play(), site.play(), site.play("--check"))


PEOPLE = {"root": 0, "ada": 2001}

PLAY = {
    "hosts": "projects",
    "become": True,
    "gather_facts": True,
    "gather_subset": ["!all", "network"],
    "roles": ["fleet", "ssh_trust"],
}

_RELOAD = "sshd -t && systemctl reload ssh"

HISTORIES = {
    # Keys of administrators where only root may write; another user in a Match; an Include in quotes.
    "h2": f"""
        mkdir /etc/ssh/keys && mv /root/.ssh/authorized_keys /etc/ssh/keys/root
        echo 'AuthorizedKeysFile /etc/ssh/keys/%u' >{MAIN}.d/50-site.conf
        sed -i 's,^Include .*,Include "sshd_config.d/*.conf",' {MAIN}
        printf 'Match User git\\n  AuthorizedKeysFile /etc/git/%%u\\n  MaxSessions 3\\n' >>{MAIN}
        {_RELOAD}""",
    # No files of keys at all.
    "h3": f"""
        printf '%s\\n' 'AuthorizedKeysFile none' 'AuthorizedKeysCommandUser root' \\
            'AuthorizedKeysCommand /usr/bin/cat /root/.ssh/authorized_keys' >{MAIN}.d/50-site.conf
        {_RELOAD}""",
}


def test_check_mode_is_clean_and_changes_nothing(trusted: Trusted) -> None:
    assert trusted.checked_bare.code == 0, trusted.checked_bare.text
    assert trusted.left_bare == ""
    assert trusted.checked_after.code == 0, trusted.checked_after.text
    assert trusted.checked_after.total("changed") == 0, trusted.checked_after.text


def test_a_second_run_changes_nothing(trusted: Trusted) -> None:
    assert trusted.first.code == 0, trusted.first.text
    assert trusted.second.code == 0, trusted.second.text
    assert trusted.second.total("changed") == 0, trusted.second.text
    # Two for the histories.
    assert [trusted.site.reloads(host) for host in ("h1", "h2", "h3")] == [1, 2, 2]


def test_a_sites_own_files_of_keys_stay_and_ours_is_added(trusted: Trusted) -> None:
    site = trusted.site
    assert site.files_of_keys("h1") == [".ssh/authorized_keys", ".ssh/authorized_keys2", KEYS]
    assert site.files_of_keys("h2") == ["/etc/ssh/keys/%u", KEYS]
    assert site.files_of_keys("h2", "git") == ["/etc/git/%u"]
    assert site.files_of_keys("h3") == [KEYS]


def test_an_sshd_that_has_not_read_the_file_is_reloaded(trusted: Trusted) -> None:
    """As after Ctrl-C between the writing and the reload."""
    site = trusted.site
    site.on("h1", f"sed -i 's/^MaxSessions .*/MaxSessions 65/' {OURS}")
    before = site.reloads("h1")
    done = site.play("--limit", "h1", d1fleet_sshd_max_sessions=65)
    assert done.code == 0, done.text
    assert done.total("changed") == 1, done.text
    assert site.reloads("h1") == before + 1
    # A restart reads all of it; and what only we noted is gone with a boot.
    site.on("h1", "systemctl restart ssh; rm /run/d1fleet_sshd.json; touch -d '-1 day' /root")
    assert site.play("--limit", "h1", d1fleet_sshd_max_sessions=65).total("changed") == 0
    assert site.play("--limit", "h1").total("changed") == 2


def test_a_match_in_front_is_named_and_sshd_can_start_again(trusted: Trusted) -> None:
    site = trusted.site
    # Debian's own settings would not do in a Match either: it stands at the end, with the Include behind it.
    match = f"Match Group devs\\nInclude {MAIN}.d/*.conf\\n"
    site.on("h1", f"cp {MAIN} {MAIN}.kept; sed -i '/^Include/d' {MAIN}; printf '{match}' >>{MAIN}")
    assert site.on("h1", "sshd -t || echo broken") == "broken\n"
    try:
        for _ in range(2):
            done = site.play("--limit", "h1")
            assert done.code == 2, done.text
            assert "(Match Group devs) stands in front of the Include" in done.words
            assert site.on("h1", f"sshd -t && ls {OURS}; :") == ""
    finally:
        site.on("h1", f"mv {MAIN}.kept {MAIN}")
    assert site.play("--limit", "h1").code == 0
    assert KEYS in site.files_of_keys("h1")


def test_settings_without_effect_are_a_failure_that_names_the_line(trusted: Trusted) -> None:
    site = trusted.site
    before = site.on("h1", f"cat {OURS}")
    site.on("h1", f"sed -i -e '1i AuthorizedKeysFile .ssh/authorized_keys' -e '$a MaxStartups 9' {MAIN}")
    try:
        done = site.play("--limit", "h1", d1fleet_sshd_max_sessions=66)
        assert done.code == 2, done.text
        assert f"{MAIN}:1 (AuthorizedKeysFile .ssh/authorized_keys). Add {KEYS} to that" in done.words
        assert "(MaxStartups 9). Remove that line, or set" in done.words
        assert site.on("h1", f"cat {OURS}") == before
        site.on("h1", f"sed -i -e '1s,$, {KEYS},' -e '/^MaxStartups/d' {MAIN}")
        assert site.play("--limit", "h1").code == 0
    finally:
        site.on("h1", f"sed -i '/^AuthorizedKeysFile/d; /^MaxStartups/d' {MAIN}")
    site.on("h1", f"printf 'Match User ada\\n  AuthorizedKeysFile /etc/ada\\n' >>{MAIN}")
    try:
        done = site.play("--limit", "h1")
        assert done.code == 2, done.text
        assert f"would not read {KEYS} for ada, but /etc/ada" in done.words
    finally:
        site.on("h1", f"sed -i '/^Match User ada/,$d' {MAIN}")
    assert site.play("--limit", "h1").code == 0


def test_a_host_that_lets_nobody_in_puts_the_former_settings_back(trusted: Trusted) -> None:
    site = trusted.site
    before = site.on("h1", f"cat {OURS}")
    done = site.play(
        "--limit",
        "h1",
        d1fleet_sshd_authorized_keys_files=["none"],
        _d1fleet_sshd_patience_s=PATIENCE_S,
    )
    assert done.code == 2, done.text
    assert "no new login came in" in done.words
    end = time.monotonic() + RETURN_S
    while site.on("h1", f"cat {OURS}", check=False) != before:
        assert time.monotonic() < end
    assert site.on("h1", "ls -d /run/d1fleet_sshd*; :") == ""
    assert site.play("--limit", "h1").code == 0


def test_no_host_chooses_its_names(trusted: Trusted, tmp_path: Path) -> None:
    site = trusted.site
    site.on("h1", f"rm {KNOWN_HOSTS}")
    site.on(
        "h3", "{ echo 127.0.1.1 github.com h3; cat /etc/hosts; } >/root/hosts; cat /root/hosts >/etc/hosts"
    )
    assert site.on("h3", "python3 -c 'import socket; print(socket.getfqdn())'") == "github.com\n"
    known = tmp_path / "known"
    done = site.play("--limit", "h1,h3", d1fleet_controller_known_hosts=str(known))
    assert done.code == 0, done.text
    wanted = {f"{host.name},{host.address}" for host in site.hosts}
    for text in (site.on("h1", f"cat {KNOWN_HOSTS}"), known.read_text()):
        lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
        assert {line[0] for line in lines} == wanted
        assert all(len(line) == 4 for line in lines)


def test_the_controllers_file_is_the_last_thing_and_stops_nobody(trusted: Trusted, tmp_path: Path) -> None:
    site = trusted.site
    done = site.play(
        d1fleet_sshd_max_sessions=67, d1fleet_controller_known_hosts=str(tmp_path / "none" / "known")
    )
    assert done.code == 2, done.text
    assert "could not be written on this machine" in done.words
    assert [done.counts[host]["failed"] for host in ("h1", "h2", "h3")] == [1, 0, 0]
    for host in ("h1", "h2", "h3"):
        assert site.on(host, "sshd -T | grep ^maxsessions", check=host != "h2").strip() in (
            "maxsessions 67",
            "",
        )
    assert site.play("--limit", "h1", d1fleet_sshd_max_sessions=67).total("changed") == 0


def test_a_socket_that_starts_sshd(trusted: Trusted) -> None:
    site = trusted.site
    site.on(
        "h3",
        "systemctl disable ssh; systemctl enable ssh.socket; nohup sh -c "
        "'systemctl stop ssh; systemctl start ssh.socket' >/dev/null 2>&1 &",
    )
    site.hosts["h3"].wait_for_sshd()
    for changed in (2, 0):
        done = site.play("--limit", "h3", d1fleet_sshd_max_sessions=68)
        assert done.code == 0, done.text
        assert done.total("changed") == changed, done.text
    assert site.on("h3", "systemctl is-active ssh.socket") == "active\n"


_REFUSED: list[dict[str, Any]] = [
    {"d1fleet_sshd_authorized_keys_files": [".ssh/keys%x"]},
    {"d1fleet_sshd_authorized_keys_files": [".ssh/my keys"]},
    {"d1fleet_sshd_authorized_keys_files": [".ssh/keys\n"]},
    {"d1fleet_sshd_authorized_keys_files": ["none", ".ssh/keys"]},
    {"d1fleet_sshd_max_startups": "64:30:256\n"},
    {"d1fleet_sshd_max_startups": "0"},
    {"d1fleet_sshd_max_sessions": 0},
]


def test_settings_that_sshd_would_not_take_are_refused(tmp_path: Path) -> None:
    """On this machine, in check mode: no play gets as far as to look at it. Each host is a case."""
    local = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
    }
    hosts = {f"host{number}": {**local, **values} for number, values in enumerate(_REFUSED)}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"projects": {"children": {"demo": {"hosts": hosts}}}}))
    (tmp_path / "play.yml").write_text(yaml.safe_dump([PLAY]))
    done = play(
        "--check", "--inventory", inventory, controls=tmp_path / "c", playbook=str(tmp_path / "play.yml")
    )
    assert done.code == 2
    assert done.total("failed") == len(_REFUSED), done.text
    assert done.text.count("Give d1fleet_sshd_max_startups as START:PERCENT:FULL") >= len(_REFUSED), done.text


def test_names_are_folded_and_one_claimed_twice_is_nobodys(tmp_path: Path) -> None:
    """The template alone: a fact may say anything, and an inventory be mistaken."""
    key = {"ssh_host_key_ed25519_public": "AAAA", "ssh_host_key_ed25519_public_keytype": "ssh-ed25519"}
    facts = {**key, "os_family": "Debian", "fqdn": "github.com", "all_ipv4_addresses": ["192.0.2.9"]}
    hosts: dict[str, dict[str, Any]] = {
        "Alder": {"ansible_host": "192.0.2.1"},
        "alder": {"ansible_host": "192.0.2.2", "ansible_port": 22},
        "birch": {"ansible_host": "192.0.2.2", "ansible_port": 2222},
        "cedar": {"ansible_host": "BIRCH.example\n"},
        "larch": {"said": {**facts, "ssh_host_key_ed25519_public": "AAAA\n"}},
    }
    inventory = {"projects": {"hosts": {name: {"said": facts, **each} for name, each in hosts.items()}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    template = ROOT / "roles/ssh_trust/templates/host_keys.json.j2"
    gather = {
        "ansible.builtin.set_fact": {"cacheable": True, **{name: f"{{{{ said.{name} }}}}" for name in facts}}
    }
    render = {
        "run_once": True,
        "ansible.builtin.copy": {
            "content": f"{{{{ lookup('ansible.builtin.template', '{template}') }}}}",
            "dest": str(tmp_path / "out.json"),
        },
    }
    book = {
        "hosts": "projects",
        "connection": "local",
        "gather_facts": False,
        "vars": {
            "_d1fleet_hosts_known": list(hosts),
            "ansible_python_interpreter": sys.executable,
        },
        "tasks": [gather, render],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([book]))
    done = play(
        "--inventory", tmp_path / "hosts.yml", controls=tmp_path / "c", playbook=str(tmp_path / "play.yml")
    )
    assert done.code == 0, done.text
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["names"] == {
        "Alder": ["192.0.2.1"],
        "alder": ["192.0.2.2"],
        "birch": ["[birch]:2222", "[192.0.2.2]:2222"],
        "cedar": ["cedar"],
        "larch": ["larch"],
    }
    assert found["twice"] == ["alder is claimed by Alder and alder"]
    assert found["keys"]["birch"] == ["ssh-ed25519 AAAA"]
    assert found["keys"]["larch"] == []
