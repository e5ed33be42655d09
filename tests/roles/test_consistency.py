"""What is said of a variable or a version in several places is the same in all of them."""

from __future__ import annotations

import difflib
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from d1fleet.hostvars import VARIABLES
from d1fleet.model import TRANSPORTS
from tests.roles.roles import ROLES, ROOT, load, options, play, tool

_PREFIX = "d1fleet_"

pytestmark = pytest.mark.timeout(300)
"""A play takes some seconds, on a busy machine a minute."""


def _table(role: str) -> dict[str, list[str]]:
    rows = re.findall(
        r"^\| `(d1fleet_\w+)` \| (.*) \|$", (ROOT / "roles" / role / "README.md").read_text(), re.M
    )
    return {name: rest.split(" | ") for name, rest in rows}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_argument_specs(role: str) -> None:
    said = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert (load(f"roles/{role}/defaults/main.yml") or {}) == said


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_our_prefix_and_a_description(role: str) -> None:
    for name, option in options(role).items():
        assert name.startswith(_PREFIX)
        assert option["description"] and option["type"]


@pytest.mark.parametrize("role", ROLES)
def test_readme_has_each_variable_with_its_default(role: str) -> None:
    table = _table(role)
    assert list(table) == list(options(role))
    for name, option in options(role).items():
        default, meaning = table[name][1:]
        if "default" not in option:
            assert default == "not set"
        elif "{{" not in str(option["default"]):
            assert yaml.safe_load(default.strip("`")) == option["default"], name
        assert meaning == option["description"]


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_commented(role: str) -> None:
    lines = (ROOT / "roles" / role / "defaults" / "main.yml").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith(_PREFIX):
            assert lines[number - 1].startswith("#"), line


@pytest.mark.parametrize("role", ROLES)
def test_role_is_complete(role: str) -> None:
    folder = ROOT / "roles" / role
    assert {"README.md", "defaults", "meta", "tasks"} <= {path.name for path in folder.iterdir()}
    depends = [each["role"] for each in load(f"roles/{role}/meta/main.yml")["dependencies"]]
    # The registry may run on a host that is in no project.
    assert depends == ([] if role in ("fleet", "registry") else ["fleet"])
    phases = load(f"roles/{role}/tasks/main.yml")
    assert all("ansible.builtin.import_tasks" in phase for phase in phases)


def test_known_variables_are_those_of_roles_and_builds() -> None:
    known = {name for role in ROLES for name in options(role)}
    known |= {name for name in VARIABLES if name.startswith(_PREFIX)}
    assert load("roles/fleet/vars/main.yml")["_d1fleet_known_variables"] == sorted(known)


def test_a_variable_of_roles_alone_is_not_taken_for_a_misspelt_one_of_builds() -> None:
    for name in {name for role in ROLES for name in options(role)} - set(VARIABLES):
        assert not difflib.get_close_matches(name, VARIABLES, 1, 0.85), name


def test_variables_of_builds_stand_with_the_role_of_the_server() -> None:
    elsewhere = {name for role in ROLES if role != "d1make_server" for name in options(role)}
    of_builds = {name for name in VARIABLES if name.startswith(_PREFIX)} - elsewhere
    assert of_builds == set(options("d1make_server"))


def test_hosts_are_reached_as_builds_can_reach_them() -> None:
    assert options("d1make_server")["d1fleet_transport"]["choices"] == list(TRANSPORTS)


def test_one_name_means_one_thing() -> None:
    names = [name for role in ROLES for name in options(role)]
    assert len(names) == len(set(names))


def test_the_collection_has_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert load("galaxy.yml")["version"] == project["version"]


def test_facts_are_read_by_ansible_facts_alone() -> None:
    injected = re.compile(
        r"\bansible_(os_family|distribution|hostname|fqdn|local|all_ipv4|default_ipv4|processor)"
    )
    files = [
        *(ROOT / "roles").rglob("*.yml"),
        *(ROOT / "roles").rglob("*.j2"),
        *(ROOT / "playbooks").rglob("*.yml"),
    ]
    for file in files:
        for line in file.read_text().splitlines():
            assert not injected.search(line.replace("ansible_facts.ansible_local", "")), f"{file}: {line}"


def test_the_playbook_is_one_that_ansible_can_read(tmp_path: Path) -> None:
    assert play("--syntax-check", controls=tmp_path / "c").code == 0


@pytest.mark.parametrize("limit", [(), ("--limit", "alder")])
def test_the_example_inventory_is_refused(tmp_path: Path, limit: tuple[str, ...]) -> None:
    done = play(*limit, controls=tmp_path / "c")
    assert done.code == 2
    assert "remove the line d1fleet_this_is_an_example" in done.words
    assert "UNREACHABLE" not in done.text


@pytest.mark.parametrize("limit", [(), ("--limit", "alder")])
def test_a_host_of_which_nothing_is_known_is_no_healthy_one(tmp_path: Path, limit: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    alder = {"ansible_host": "127.0.0.1", "ansible_port": port}
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"projects": {"children": {"demo": {"hosts": {"alder": alder}}}}}))
    done = play(
        "--inventory", inventory, *limit, controls=tmp_path / "c", playbook="playbooks/check_fleet.yml"
    )
    assert done.code == 2, done.text
    assert "alder: nothing is known of it" in done.words


def test_an_inventory_without_projects_is_refused(tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("project:\n  hosts:\n    alder:\n      ansible_host: 192.0.2.1\n")
    done = play("--inventory", inventory, controls=tmp_path / "c")
    assert done.code == 2
    assert "no hosts in a group `projects`" in done.words


_VALUES = {
    "d1fleet_slotss: 4": "no variable d1fleet_slotss (did you mean d1fleet_slots?)",
    "d1fleet_my_own: 4": "there is no variable d1fleet_my_own",
    "d1fleet_toolchain_mismatch: leave": "d1fleet_toolchain_mismatch must be one of: exclude, fail",
    "d1fleet_builders: [{name: ada}]": "missing required arguments: uid found in d1fleet_builders",
    "d1fleet_builders: [{name: ada, uid: 7, gid: 9, authorized_keys: ['no-pty ssh-rsa AAAA']}]": "options",
    "d1fleet_builders: [{name: ada, uid: 7, gid: 1}, {name: bob, uid: 7, gid: 2}]": "a uid of its own",
    "d1fleet_toolchain_versions: {gcc: 12.2}": "in quotes",
    "d1fleet_toolchain_packages: [gcc -y]": "'gcc -y' is no name of a package",
    "d1fleet_toolchain_tools: ['cc;ls']": "names or absolute paths of programs",
    "d1fleet_slots: 0": "a whole number from 1 to 4096",
    "d1fleet_jobs: all": "d1fleet_jobs is 'all'",
    "d1fleet_trees: [src]": "absolute paths",
    "d1fleet_builders: '{{ nobody_set_this }}'": "holds a variable that does not exist",
}


LOCAL = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": sys.executable,
}


def test_wrong_variables_are_named_for_all_hosts_before_any_is_touched(tmp_path: Path) -> None:
    """Check mode, in case that one is not found. One run for all: each is a host."""
    hosts: dict[str, dict[str, object]] = {}
    for number, line in enumerate(_VALUES):
        hosts[f"host{number}"] = {**LOCAL, **yaml.safe_load(line)}
    hosts["right"] = LOCAL
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"projects": {"children": {"demo": {"hosts": hosts}}}}))
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    done = play("--check", "--inventory", inventory, controls=tmp_path / "c", environment=environment)
    assert done.code == 2
    assert "PLAY [Enrol" not in done.text
    unquoted = done.words.replace("''", "'")
    for words in _VALUES.values():
        assert words in unquoted, words


def test_a_checkout_in_a_path_with_a_blank_can_enrol(tmp_path: Path) -> None:
    """The roles that start programs of the checkout, on this machine, in check mode."""
    folder = tmp_path / "my checkout"
    for part in ("roles", "d1fleet"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "ansible.cfg", folder)
    names = ["builders", "toolchain", "d1make_server"]
    site = [{"hosts": "projects", "roles": names, "vars": {"d1fleet_toolchain_packages": []}}]
    (folder / "blank.yml").write_text(yaml.safe_dump(site))
    inventory = folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"projects": {"children": {"demo": {"hosts": {"here": LOCAL}}}}}))
    done = play(
        *("--check", "--inventory", inventory),
        controls=tmp_path / "c",
        playbook="blank.yml",
        folder=folder,
        environment={"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert "toolchain : Record the projects' toolchains" in done.text, done.text
    assert done.code == 0, done.text


def test_a_host_in_two_projects_gets_the_builders_and_packages_of_both(tmp_path: Path) -> None:
    """In check mode, on this machine: what would be done is said."""
    there = ["d1fleet-ada", "d1fleet-bob"]
    groups = {
        name: {
            "hosts": {host: LOCAL, "cedar": LOCAL},
            "vars": {
                "d1fleet_builders": [{"name": user, "uid": uid}],
                "d1fleet_toolchain_packages": [f"d1fleet-{name}"],
            },
        }
        for name, host, user, uid in (
            ("engine", "alder", there[0], 59001),
            ("firmware", "dogwood", there[1], 59002),
        )
    }
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"projects": {"children": groups}}))
    site = [{"hosts": "projects", "roles": ["builders", "toolchain"]}]
    (tmp_path / "site.yml").write_text(yaml.safe_dump(site))
    done = play(
        *("--check", "--inventory", inventory),
        controls=tmp_path / "c",
        playbook=str(tmp_path / "site.yml"),
        environment={"XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.code == 0, done.text
    users = done.text[done.text.index("Make the users") :].split("TASK")[0]
    assert set(re.findall(r"changed: \[(\w+)\] => \(item=([\w-]+)\)", users)) == {
        ("alder", there[0]),
        ("cedar", there[0]),
        ("cedar", there[1]),
        ("dogwood", there[1]),
    }
    assert "would be installed: d1fleet-engine, d1fleet-firmware" in done.words


def test_the_collection_holds_what_its_roles_take(tmp_path: Path) -> None:
    command = [tool("ansible-galaxy"), "collection", "build", "--output-path", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, cwd=tmp_path)
    (archive,) = tmp_path.glob("d1-fleet-*.tar.gz")
    with tarfile.open(archive) as opened:
        names = opened.getnames()
    programs = ("transport/pack.py", "server/toolchain.py", "checkin/pack.py", "checkin/check_hosts.py")
    for needed in ("playbooks/site.yml", *(f"d1fleet/{name}" for name in programs)):
        assert needed in names
    tops = {name.split("/")[0] for name in names}
    assert not {top for top in tops if top.startswith(".")}
    assert not tops & {"tests", "molecule", "examples", "inventory", "bench", "requirements", "ansible.cfg"}
    assert not [name for name in names if name.endswith(".pyc")]
