"""Three bare hosts are enrolled, and what people do to them afterwards."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.roles.roles import ROOT, Play, play, tool
from tests.roles.site import Site, bare_site

pytestmark = [pytest.mark.containers, pytest.mark.full, pytest.mark.timeout(1800)]

KNOWN_HOSTS = "/etc/ssh/d1fleet_known_hosts"
OTHER_COMPILER = "/usr/local/bin/cc"


@dataclass
class Enrolled:
    """The first four runs, in their order."""

    site: Site
    checked_bare: Play
    left_bare: list[str]
    first: Play
    second: Play
    checked_after: Play


@pytest.fixture(scope="module")
def enrolled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enrolled]:
    def builders(public: str) -> list[dict[str, Any]]:
        return [
            {"name": "root", "uid": 0, "authorized_keys": [public]},
            {"name": "ada", "uid": 2001, "comment": "Ada", "groups": ["video"], "authorized_keys": [public]},
            {
                "name": "bob",
                "uid": 2002,
                "authorized_keys": [public],
                "forced_command": False,
                "group": "dev",
            },
            {"name": "eve", "uid": 2003, "group": "dev"},
        ]

    with bare_site("roles", tmp_path_factory.mktemp("e"), builders) as site:
        bare = site.play("--check")
        left = site.everywhere("ls -d /etc/d1fleet /etc/ssh/d1fleet* /usr/local/lib/d1fleet; id ada; :")
        yield Enrolled(site, bare, left, site.play(), site.play(), site.play("--check"))


def test_check_mode_is_clean_on_bare_hosts_and_changes_nothing(enrolled: Enrolled) -> None:
    assert enrolled.checked_bare.code == 0, enrolled.checked_bare.text
    assert enrolled.left_bare == ["", "", ""]
    assert "WARNING" not in enrolled.checked_bare.text
    assert "demo: can be enrolled: h1, h2, h3" in enrolled.checked_bare.words


def test_all_are_enrolled_and_a_second_run_changes_nothing(enrolled: Enrolled) -> None:
    assert enrolled.first.code == 0, enrolled.first.text
    assert enrolled.second.code == 0
    assert enrolled.second.total("changed") == 0, enrolled.second.text
    assert "demo: 3 of 3 hosts take part: h1, h2, h3" in enrolled.second.words
    assert "--project demo -j8" in enrolled.second.words


def test_check_mode_is_clean_on_enrolled_hosts(enrolled: Enrolled) -> None:
    assert enrolled.checked_after.code == 0
    assert enrolled.checked_after.total("changed") == 0, enrolled.checked_after.text


def test_builders_are_the_same_everywhere(enrolled: Enrolled) -> None:
    (ada,) = set(enrolled.site.everywhere("getent passwd ada; id -nG ada; stat -c %U:%a ~ada"))
    assert ada.startswith("ada:x:2001:2001:Ada:/home/ada:/bin/bash\nada video\n")
    assert set(enrolled.site.everywhere("id -g bob; id -g eve; getent group dev")) == {
        "2002\n2002\ndev:x:2002:\n"
    }


def test_a_bound_key_starts_the_launcher_and_nothing_else(enrolled: Enrolled) -> None:
    site = enrolled.site
    key = ["-i", str(site.folder / "builder"), "-oIdentitiesOnly=yes", "-oIdentityAgent=none"]

    def says(user: str) -> str:
        # The fleet's ssh_config names the key of its own first: without it.
        argv = [
            "ssh",
            "-F",
            "none",
            *key,
            f"-oUserKnownHostsFile={site.hosts.known_hosts}",
            "-oBatchMode=yes",
        ]
        argv += [f"{user}@{site.hosts[0].address}", "id"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
        return done.stdout.decode("utf-8", "replace")

    for user in ("root", "ada"):
        assert says(user).startswith("D1FLEET-SERVER 3."), user
        assert "uid=" not in says(user)
    assert says("bob").startswith("uid=2002(bob)")


def test_who_leaves_the_list_loses_the_key_and_nothing_else(enrolled: Enrolled) -> None:
    site = enrolled.site
    done = site.play("--limit", "h1", d1fleet_builders=[{"name": "ada", "uid": 2001}])
    assert done.code == 0, done.text
    assert site.on("h1", "ls /etc/ssh/d1fleet_authorized_keys; id -u bob") == "2002\n"
    assert site.play("--limit", "h1").code == 0
    assert site.on("h1", "ls /etc/ssh/d1fleet_authorized_keys").split() == ["ada", "bob", "root"]


def test_limit_keeps_the_keys_of_all_also_of_those_that_are_off(enrolled: Enrolled) -> None:
    site = enrolled.site
    site.on("h1", f"rm {KNOWN_HOSTS}")
    assert site.play("--limit", "h1").code == 0
    whole = site.on("h1", f"cat {KNOWN_HOSTS}")
    assert {line.split(" d1fleet:")[1] for line in whole.splitlines()[1:]} == {"h1", "h2", "h3"}
    for host in site.hosts:
        site.on("h1", f"ssh-keygen -F {host.name} -f {KNOWN_HOSTS}")
        site.on("h1", f"ssh-keygen -F {host.address} -f {KNOWN_HOSTS}")
    site.hosts["h3"].kill()
    try:
        done = site.play("--limit", "h1")
        assert done.code == 0, done.text
        # A play can also end early without a word.
        assert "ssh_trust : Set sshd's limits" in done.text
        assert site.on("h1", f"cat {KNOWN_HOSTS}") == whole
    finally:
        site.hosts["h3"].start()
        site.hosts["h3"].wait_for_sshd()


def test_a_misspelt_variable_is_named_and_nothing_is_done(enrolled: Enrolled) -> None:
    done = enrolled.site.play("--limit", "h1", d1fleet_bilders=[])
    assert done.code == 2
    assert "no variable d1fleet_bilders (did you mean d1fleet_builders?)" in done.words
    assert done.total("changed") == 0


def test_nobody_is_renumbered(enrolled: Enrolled) -> None:
    site = enrolled.site
    site.on("h2", "useradd -u 3001 carla")
    before = site.on("h2", "cat /etc/passwd /etc/group")
    done = site.play("--limit", "h2", d1fleet_builders=[{"name": "carla", "uid": 3002}])
    assert done.code == 2
    assert "user carla is there with uid 3001, not 3002" in done.words
    done = site.play("--limit", "h2", d1fleet_builders=[{"name": "dora", "uid": 3001}])
    assert done.code == 2
    assert "uid 3001 of dora belongs to user carla there" in done.words
    assert site.on("h2", "cat /etc/passwd /etc/group") == before


def test_another_toolchain_is_shown_left_out_or_a_failure(enrolled: Enrolled) -> None:
    site = enrolled.site
    record = "cat /etc/d1fleet/toolchain.json"
    (before,) = set(site.everywhere(record))
    assert list(json.loads(before)["projects"]) == ["demo"]
    # The first in the inventory: it would win a tie, and does not win against two.
    site.on(
        "h1", f"printf '#!/bin/sh\\necho cc of another kind\\n' >{OTHER_COMPILER}; chmod +x {OTHER_COMPILER}"
    )
    try:
        done = site.play()
        assert done.code == 0, done.text
        assert "demo: 2 of 3 hosts take part: h2, h3" in done.words
        assert done.words.count("demo: builds leave h1 out: cc: cc of another kind") == 1, done.text
        assert "\\n" not in done.text[done.text.index("PLAY [Say") :]
        assert set(site.everywhere(record)) == {before}
        fact = json.loads(site.on("h1", "cat /etc/ansible/facts.d/d1fleet.fact"))
        assert fact["toolchain"]["parts"]["cc"].startswith("cc of another kind")
        done = site.play(d1fleet_toolchain_mismatch="fail")
        assert done.code == 2
        assert [host for host, counts in done.counts.items() if counts["failed"]] == ["h1"]
        assert "h1 has not the toolchain of project demo" in done.words
        # Under --limit it is not alone in the world.
        done = site.play("--limit", "h1")
        assert "demo: builds leave h1 out" in done.words
        assert site.on("h1", record) == before
    finally:
        site.on("h1", f"rm {OTHER_COMPILER}")
    assert site.play().code == 0


def test_a_pinned_version_stays_and_is_let_go_again(enrolled: Enrolled) -> None:
    site = enrolled.site
    version = site.on("h3", "dpkg-query -W -f '${Version}' make")
    pins = {"make": version}
    assert site.play("--limit", "h3", d1fleet_toolchain_versions=pins).code == 0
    assert f"{version} 1001" in " ".join(site.on("h3", "apt-cache policy make").split())
    again = site.play("--limit", "h3", d1fleet_toolchain_versions=pins)
    assert again.total("changed") == 0, again.text
    assert site.play("--limit", "h3").total("changed") == 1
    assert "1001" not in site.on("h3", "apt-cache policy make")
    assert site.play("--limit", "h3", d1fleet_toolchain_versions={"make": "9.9-1"}).code == 2


def test_a_damaged_server_is_replaced(enrolled: Enrolled) -> None:
    site = enrolled.site
    folder = "/usr/local/lib/d1fleet/server"
    before = site.on("h1", f"find {folder} | sort")
    for damage in ("rm */d1fleet/server/__main__.py", "chmod g+w *"):
        site.on("h1", f"cd {folder} && {damage}")
        done = site.play("--limit", "h1")
        assert done.code == 0, done.text
        assert site.on("h1", f"find {folder} | sort") == before
    assert site.play("--limit", "h1").total("changed") == 0


def test_a_host_of_another_inventory_is_refused(enrolled: Enrolled, tmp_path: Path) -> None:
    site = enrolled.site
    groups = yaml.safe_load(Path(site.hosts.inventory).read_text())["projects"]["children"]
    other = tmp_path / "other.yml"
    other.write_text(yaml.safe_dump({"projects": {"children": {"kernel": groups["demo"]}}}))
    there = "cat /etc/d1fleet/toolchain.json /etc/ansible/facts.d/*; ls /etc/ssh/d1fleet_authorized_keys"
    before = site.on("h1", there)
    environment = {"XDG_CACHE_HOME": str(site.folder)}
    done = play("--inventory", other, "--limit", "h1", controls=site.folder / "c", environment=environment)
    assert done.code == 2
    assert "h1 was enrolled by another inventory: it is in project demo, which this inventory" in done.words
    assert done.total("changed") == 0
    assert site.on("h1", there) == before
    try:
        assert site.play("--limit", "h1", d1fleet_inventory_name="one").code == 0
        done = site.play("--limit", "h1", d1fleet_inventory_name="two")
        assert done.code == 2
        assert "its d1fleet_inventory_name is `one`, and here it is `two`" in done.words
        assert site.play("--limit", "h1").code == 2
    finally:
        site.on("h1", "rm /etc/ansible/facts.d/d1fleet_inventory.fact")
    assert site.play("--limit", "h1").code == 0


def test_an_installed_collection_does_the_same(enrolled: Enrolled, tmp_path: Path) -> None:
    site = enrolled.site
    galaxy = [tool("ansible-galaxy"), "collection"]
    subprocess.run(
        [*galaxy, "build", "--output-path", str(tmp_path), str(ROOT)], check=True, capture_output=True
    )
    (archive,) = tmp_path.glob("d1-fleet-*.tar.gz")
    folder = tmp_path / "collections"
    install = [*galaxy, "install", "--offline", "--no-deps", "--force", "-p", str(folder), str(archive)]
    subprocess.run(install, check=True, capture_output=True, cwd=tmp_path)
    environment = {"ANSIBLE_COLLECTIONS_PATH": str(folder), "XDG_CACHE_HOME": str(site.folder)}
    done = play(
        *site.inventories,
        controls=site.folder / "c",
        playbook="d1.fleet.site",
        folder=tmp_path,
        environment=environment,
    )
    assert done.code == 0, done.text
    assert "d1.fleet.d1make_server" in done.text
    assert done.total("failed") == 0
