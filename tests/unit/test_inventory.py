"""Inventories read by Ansible itself, and remembered; groups and variables without it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from d1fleet import inventory, inventory_cache
from d1fleet.errors import InventoryError, ToolError, UnknownProjectError
from d1fleet.fleet import Inventory
from d1fleet.inventory import load_fleet, load_inventory
from d1fleet.model import Host

EXAMPLE = Path(__file__).parents[2] / "inventory"

HOSTS = """\
all:
  vars: {d1fleet_nice: 5}
  children:
    projects:
      children:
        alpha:
          vars: {ansible_user: build, d1fleet_jobs: auto}
          hosts:
            a1: {ansible_host: 10.0.0.1, d1fleet_slots: 6, db_password: hush}
            a2:
        beta:
          children:
            sub: {hosts: {b1: {ansible_port: "2222"}, a2: {}}}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ANSIBLE_CONFIG", raising=False)
    return tmp_path / "cache/d1fleet/inventory"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inventory").mkdir()
    return tmp_path / "inventory"


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


class Runs:
    """Stands in for Ansible, and counts how often it is asked; `real` lets it answer itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.real = False
        self._ansible = inventory._read
        monkeypatch.setattr(inventory, "_read", self._read)

    def _read(self, paths: Sequence[Path], config: str | None) -> Inventory:
        self.count += 1
        if self.real:
            return self._ansible(paths, config)
        return made_up(
            {"projects": {"children": ["alpha"]}, "all": {"hosts": ["x"]}, "alpha": {"hosts": ["x"]}}
        )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


# By Ansible itself


def test_a_project_with_its_groups_variables(folder: Path) -> None:
    hosts = write(folder / "hosts.yml", HOSTS)
    write(folder / "group_vars/alpha.yml", "d1fleet_makeargs: [-k]\n")
    write(folder / "host_vars/a2.yml", "ansible_connection: local\n")
    for attempt in ("fresh", "cached"):
        fleet = load_fleet([hosts], "alpha")
        assert (fleet.project, fleet.jobs) == ("alpha", 0), attempt
        assert fleet.hosts == (
            Host("a1", address="10.0.0.1", user="build", slots=6, nice=5, makeargs=("-k",)),
            Host("a2", user="build", nice=5, makeargs=("-k",), transport="local"),
        )


def test_the_example_is_refused_until_it_is_edited(tmp_path: Path) -> None:
    mine = shutil.copytree(EXAMPLE, tmp_path / "mine")
    with pytest.raises(InventoryError, match="example that came with d1fleet") as caught:
        load_fleet([mine], "engine")
    assert "remove the line d1fleet_this_is_an_example" in caught.value.mend
    variables = mine / "group_vars/projects.yml"
    lines = variables.read_text().splitlines(keepends=True)
    variables.write_text("".join(line for line in lines if "this_is_an_example" not in line))
    assert [host.name for host in load_fleet([mine], "engine").hosts] == ["alder", "birch", "cedar"]


def test_an_ini_inventory(folder: Path) -> None:
    hosts = write(
        folder / "hosts", "one ansible_port=2200 d1fleet_slots=3\ntwo:2201\n[all:vars]\nd1fleet_nice=7\n"
    )
    fleet = load_fleet([hosts])
    assert fleet.project == "all"
    assert fleet.hosts == (Host("one", port=2200, slots=3, nice=7), Host("two", port=2201, nice=7))


def test_several_inventories_and_a_folder(folder: Path) -> None:
    write(folder / "a/hosts.yml", "projects: {children: {one: {hosts: {x: }}}}\n")
    write(folder / "a/group_vars/one.yml", "ansible_user: me\n")
    other = write(folder / "b.yml", "projects: {children: {one: {hosts: {y: }}}}\n")
    assert [host.name for host in load_fleet([folder / "a", other]).hosts] == ["x", "y"]
    assert load_fleet([folder / "a"]).hosts == (Host("x", user="me"),)


def test_a_relative_name_and_a_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "hosts.yml", "all: {hosts: {x: }}\n")
    monkeypatch.chdir(folder)
    assert load_fleet(["hosts.yml"]).hosts == load_fleet(["~/inventory/hosts.yml"]).hosts == (Host("x"),)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("broken.yml", "all: [\n", "YAML parsing failed.*broken.yml:2"),
        ("text.yml", "just a sentence\n", "text.yml cannot be read"),
        ("empty.yml", "", "has no hosts"),
        ("groups.yml", "projects: {children: {a: {}}}\n", "has no hosts"),
    ],
)
def test_an_inventory_that_is_none(folder: Path, cache: Path, name: str, text: str, said: str) -> None:
    path = write(folder / name, text)
    with pytest.raises(InventoryError, match=said) as caught:
        load_fleet([path])
    assert str(path) in caught.value.message
    assert not list(cache.glob("*"))


def test_one_broken_file_beside_a_good_one_is_an_error(folder: Path) -> None:
    good = write(folder / "good.yml", "all: {hosts: {x: }}\n")
    bad = write(folder / "bad.yml", "all: [\n")
    with pytest.raises(InventoryError, match=r"bad\.yml") as caught:
        load_fleet([good, bad])
    asks, _, command = caught.value.mend.partition(": ")
    assert asks == "ask Ansible itself"
    program, *rest = shlex.split(command)
    assert os.access(program, os.X_OK)
    assert rest == ["--list", "-i", str(good), "-i", str(bad)]


def test_a_missing_inventory(folder: Path) -> None:
    with pytest.raises(InventoryError, match=r"none\.yml does not exist"):
        load_fleet([folder / "none.yml"])
    with pytest.raises(InventoryError, match="no inventory is named"):
        load_fleet([])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_inventory_that_may_not_be_read(folder: Path) -> None:
    with pytest.raises(InventoryError, match="cannot be read"):
        load_fleet([write(folder / "hosts.yml", "all: {hosts: {x: }}\n", 0o000)])


def test_an_encrypted_value_is_named_when_it_is_needed(folder: Path, cache: Path) -> None:
    password = write(folder / "password", "hush")
    tool = Path(sys.executable).with_name("ansible-vault")
    secret = subprocess.run(
        [tool, "encrypt_string", "--vault-password-file", password, "2222", "--name", "ansible_port"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    hosts = write(folder / "hosts.yml", HOSTS)
    write(folder / "group_vars/beta.yml", secret)
    for attempt in ("fresh", "cached"):
        with pytest.raises(InventoryError, match=r"host a2: ansible_port is encrypted.*") as caught:
            load_fleet([hosts], "beta")
        assert "plain value" in caught.value.mend, attempt
    (entry,) = cache.glob("*.json")
    assert "AES256" not in entry.read_text()


def test_a_template_is_named(folder: Path) -> None:
    hosts = write(folder / "hosts.yml", 'all: {hosts: {x: {d1fleet_slots: "{{ 2 * 3 }}"}}}\n')
    with pytest.raises(InventoryError, match=r"host x: d1fleet_slots is a template \('{{ 2 \* 3 }}'\)"):
        load_fleet([hosts])


def test_a_program_as_inventory_is_asked_each_time_and_cannot_read_our_input(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    script = write(
        folder / "ask.sh",
        '#!/bin/sh\nread word\necho x >>"$0.count"\n'
        'echo "{\\"all\\": {\\"hosts\\": [\\"h$word\\"]}, \\"_meta\\": {\\"hostvars\\": {}}}"\n',
        0o755,
    )
    runs.real = True
    read_end, write_end = os.pipe()
    os.write(write_end, b"precious\n")
    os.close(write_end)
    kept = os.dup(0)
    os.dup2(read_end, 0)
    try:
        for _ in range(2):
            assert [host.name for host in load_fleet([script]).hosts] == ["h"]
        assert os.read(0, 100) == b"precious\n"
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(read_end)
    assert runs.count == 2
    assert (folder / "ask.sh.count").read_text() == "x\nx\n"
    assert not list(cache.glob("*"))


def test_the_current_folders_ansible_cfg_is_not_followed_and_the_inventorys_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = write(folder / "deep/hosts.txt", "x\n")
    write(tmp_path / "tree/ansible.cfg", "[inventory]\nenable_plugins = none_such\n")
    monkeypatch.chdir(tmp_path / "tree")
    assert load_fleet([hosts]).hosts == (Host("x"),)
    config = write(folder / "ansible.cfg", "[inventory]\nenable_plugins = none_such\n")
    with pytest.raises(InventoryError):
        load_fleet([hosts])
    (folder / "deep/.git").mkdir()
    assert load_fleet([hosts]).hosts == (Host("x"),)
    (folder / "deep/.git").rmdir()
    folder.chmod(0o777)
    assert load_fleet([hosts]).hosts == (Host("x"),)
    folder.chmod(0o755)
    config.unlink()
    monkeypatch.setenv("ANSIBLE_CONFIG", "ansible.cfg")
    with pytest.raises(InventoryError):
        load_fleet([hosts])


def test_nothing_is_left_of_a_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = write(folder / "hosts.yml", "all: {hosts: {x: }}\n")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    path = os.environ["PATH"]
    load_fleet([hosts])
    assert not list((tmp_path / "tmp").iterdir())
    assert [entry.name for entry in folder.iterdir()] == ["hosts.yml"]
    assert os.environ["PATH"] == path


def test_without_ansible_there_is_a_mend(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = write(folder / "hosts.yml", "all: {hosts: {x: }}\n")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="ansible-inventory") as caught:
        load_fleet([hosts])
    assert "pip install" in caught.value.mend


def test_ansible_runner_is_imported_only_when_it_is_needed() -> None:
    code = "import sys, d1fleet.inventory; print('ansible_runner' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


# The cache


def test_what_was_read_is_not_read_again(folder: Path, cache: Path, runs: Runs) -> None:
    hosts = write(folder / "hosts.yml", HOSTS)
    runs.real = True
    first = load_fleet([hosts], "alpha")
    assert load_fleet([hosts], "alpha") == first
    assert load_fleet([hosts], "beta").jobs is None
    assert runs.count == 1
    (entry,) = cache.iterdir()
    assert entry.stat().st_mode & 0o777 == 0o600
    assert "hush" not in entry.read_text()
    runs.real = False
    load_inventory([hosts], cached=False)
    assert runs.count == 2


CHANGES: dict[str, Callable[[Path, pytest.MonkeyPatch], object]] = {
    "the file": lambda folder, patch: write(folder / "hosts.yml", HOSTS.replace("b1", "b2")),
    "its time": lambda folder, patch: os.utime(folder / "hosts.yml", ns=(1, 1)),
    "group variables": lambda folder, patch: write(folder / "group_vars/sub/more.yml", "ansible_user: x\n"),
    "host variables": lambda folder, patch: write(folder / "host_vars/a1.yml", "ansible_user: x\n"),
    "ansible.cfg": lambda folder, patch: write(folder / "ansible.cfg", "[defaults]\n"),
    "the user's ansible.cfg": lambda folder, patch: write(folder.parent / ".ansible.cfg", "[defaults]\n"),
    "ansible's environment": lambda folder, patch: patch.setenv("ANSIBLE_HASH_BEHAVIOUR", "merge"),
    "ansible's version": lambda folder, patch: patch.setattr("importlib.metadata.version", lambda name: "9"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_the_answer_changes_the_entry(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    hosts = write(folder / "hosts.yml", HOSTS)
    write(folder / "group_vars/all.yml", "{}\n")

    def key() -> str | None:
        return inventory_cache.entry_key([hosts], inventory._nearest_config(hosts))

    before = key()
    assert before is not None and key() == before
    CHANGES[change](folder, monkeypatch)
    assert key() not in (before, None)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"_meta": 1}', '{"_meta": {"hostvars": {}}, "all": 7}', "\udc80"]
)
def test_a_corrupt_entry_is_made_anew(folder: Path, cache: Path, runs: Runs, text: str) -> None:
    hosts = write(folder / "hosts.yml", HOSTS)
    first = load_fleet([hosts], "alpha")
    (entry,) = cache.iterdir()
    entry.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert load_fleet([hosts], "alpha") == first
    assert load_fleet([hosts], "alpha") == first
    assert runs.count == 2


@pytest.mark.parametrize(
    "text",
    [
        *("plugin: constructed\n", "---\n# x\nplugin : a.b.c\n", '{\n  "plugin": "x"}\n'),
        *("{plugin: a.b.c, url: x}", '{"url": "x","plugin": "a"}', "{url: x, 'plugin': a}"),
    ],
)
def test_what_a_plugin_answers_is_not_kept(folder: Path, text: str) -> None:
    assert inventory_cache.entry_key([write(folder / "dynamic.yml", text)], None) is None
    assert inventory_cache.entry_key([folder], None) is None


def test_a_folder_that_holds_itself_has_an_end(folder: Path) -> None:
    write(folder / "hosts", "x\n")
    (folder / "again").symlink_to(folder)
    before = inventory_cache.entry_key([folder], None)
    assert before is not None
    write(folder.parent / "elsewhere/more", "y\n")
    (folder / "more").symlink_to(folder.parent / "elsewhere")
    linked = inventory_cache.entry_key([folder], None)
    write(folder.parent / "elsewhere/more", "y\nz\n")
    assert len({before, linked, inventory_cache.entry_key([folder], None)}) == 3


def test_what_its_owner_may_run_is_a_program(folder: Path) -> None:
    assert inventory_cache.entry_key([write(folder / "hosts", "x\n", 0o700)], None) is None


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = write(folder / "hosts.yml", "all: {hosts: {x: }}\n")

    def slow(*arguments: object) -> Inventory:
        write(hosts, "all: {hosts: {x: , y: }}\n")
        return made_up({"all": {"hosts": ["x"]}})

    monkeypatch.setattr(inventory, "_read", slow)
    assert len(load_fleet([hosts]).hosts) == 1
    assert not list(cache.glob("*"))


def test_without_a_place_for_the_cache_all_works(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: Runs
) -> None:
    write(tmp_path / "file", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load_fleet([write(folder / "hosts.yml", "")]).hosts == (Host("x"),)


def test_the_cache_does_not_grow_for_ever(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory_cache, "_MOST_ENTRIES", 2)
    for number in range(4):
        inventory_cache.remember(f"k{number}", Inventory({}, {}, {}))
        os.utime(cache / f"k{number}.json", ns=(number, number))
    assert sorted(entry.name for entry in cache.iterdir()) == ["k2.json", "k3.json"]


# Projects, without Ansible


def made_up(groups: dict[str, Any], **variables: dict[str, Any]) -> Inventory:
    return Inventory.of(json.loads(json.dumps({"_meta": {"hostvars": variables}, **groups})))


TWO = {
    "all": {"children": ["ungrouped", "projects"]},
    "ungrouped": {"hosts": ["stray"]},
    "projects": {"children": ["kernel", "tools"]},
    "kernel": {"hosts": ["k1", "k2"], "children": ["big", "small"]},
    "big": {"hosts": ["k3", "k1"], "children": ["kernel", "bigger"]},
    "bigger": {"hosts": ["k4"]},
    "small": {"hosts": ["k5"]},
}


def test_projects() -> None:
    two = made_up(TWO)
    assert two.projects() == ["kernel", "tools"]
    assert [host.name for host in two.fleet("kernel").hosts] == ["k1", "k2", "k3", "k4", "k5"]
    with pytest.raises(InventoryError, match="project tools has no hosts"):
        two.fleet("tools")


def test_an_unknown_project_and_several() -> None:
    two = made_up(TWO)
    with pytest.raises(UnknownProjectError, match="no project 'kernal'") as caught:
        two.fleet("kernal")
    assert caught.value.mend == "did you mean kernel? known projects: kernel, tools"
    for name in ("all", "big", "projects", "k1"):
        with pytest.raises(UnknownProjectError, match="no project"):
            two.fleet(name)
    with pytest.raises(UnknownProjectError, match="several projects: kernel, tools"):
        two.fleet(None)


def test_the_only_project_need_not_be_named() -> None:
    one = made_up({"projects": {"children": ["p"]}, "p": {"hosts": ["x"]}})
    assert one.fleet(None).project == "p"
    with pytest.raises(InventoryError, match="no children"):
        made_up({"projects": {"hosts": ["x"]}}).fleet(None)


def test_without_projects_all_hosts_are_one() -> None:
    plain = made_up(
        {"all": {"children": ["ungrouped", "g"]}, "ungrouped": {"hosts": ["a"]}, "g": {"hosts": ["b"]}}
    )
    for name in (None, "all"):
        assert [host.name for host in plain.fleet(name).hosts] == ["a", "b"]
    with pytest.raises(UnknownProjectError, match="no project 'g'"):
        plain.fleet("g")


def test_jobs_are_the_projects() -> None:
    groups = {"all": {"hosts": ["a", "b"]}}
    assert made_up(groups).fleet(None).jobs is None
    assert made_up(groups, a={"d1fleet_jobs": 4}, b={"d1fleet_jobs": 4}).fleet(None).jobs == 4
    shared = {"projects": {"children": ["p", "q"]}, "p": {"hosts": ["a", "b"]}, "q": {"hosts": ["b"]}}
    assert made_up(shared, a={"d1fleet_jobs": 4}, b={"d1fleet_jobs": 9}).fleet("p").jobs == 4
    assert made_up(shared, a={"d1fleet_jobs": 4}, b={"d1fleet_jobs": 9}).fleet("q").jobs == 9
    with pytest.raises(InventoryError, match="hosts a and b of project all have different d1fleet_jobs"):
        made_up(groups, a={"d1fleet_jobs": 4}, b={"d1fleet_jobs": "auto"}).fleet(None)


def test_an_entry_of_which_less_was_kept_is_not_taken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = write(folder / "hosts.yml", HOSTS)
    before = inventory_cache.entry_key([hosts], None)
    monkeypatch.setattr(inventory_cache, "VARIABLES", ("ansible_new",))
    assert before is not None and inventory_cache.entry_key([hosts], None) != before


# Variables, without Ansible


def host(**variables: Any) -> Host:
    return made_up({"all": {"hosts": ["h"]}}, h=variables).fleet(None).hosts[0]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Host("h")),
        ({"ansible_host": "::1", "ansible_port": "22", "ansible_user": "me"}, Host("h", "::1", 22, "me")),
        ({"ansible_ssh_host": "a", "ansible_ssh_port": 1, "ansible_ssh_user": "u"}, Host("h", "a", 1, "u")),
        ({"ansible_host": {"__ansible_unsafe": "10.1.1.1"}}, Host("h", "10.1.1.1")),
        ({"ansible_ssh_private_key_file": "/k/my key"}, Host("h", identity_file="/k/my key")),
        ({"ansible_python_interpreter": "auto_silent"}, Host("h")),
        ({"ansible_python_interpreter": "/opt/python3"}, Host("h", python="/opt/python3")),
        ({"ansible_connection": "smart"}, Host("h")),
        ({"ansible_connection": "paramiko_ssh"}, Host("h")),
        ({"ansible_connection": "ansible.builtin.local"}, Host("h", transport="local")),
        ({"ansible_connection": "docker", "d1fleet_transport": "local"}, Host("h", transport="local")),
        ({"ansible_connection": "local", "d1fleet_transport": "openssh"}, Host("h", transport="openssh")),
        (
            {
                "ansible_ssh_extra_args": "-4",
                "ansible_ssh_common_args": "-o ProxyCommand='ssh -W %h:%p gw' -J gate",
                "ansible_ssh_args": "-A -C -o ControlMaster=auto -vvv",
            },
            Host(
                "h",
                ssh_args=(
                    *("-C", "-o", "ControlMaster=auto"),
                    *("-o", "ProxyCommand=ssh -W %h:%p gw", "-J", "gate", "-4"),
                ),
            ),
        ),
        ({"ansible_ssh_common_args": "", "ansible_host_key_checking": False}, Host("h")),
        (
            {"d1fleet_slots": 4, "d1fleet_max_jobs": "2", "d1fleet_nice": 0},
            Host("h", slots=4, max_jobs=2, nice=0),
        ),
        ({"d1fleet_server_setup": ". /sdk/env; CC=${#a}"}, Host("h", setup=". /sdk/env; CC=${#a}")),
        ({"d1fleet_makeargs": "-k 'A=b c'"}, Host("h", makeargs=("-k", "A=b c"))),
        ({"d1fleet_trees": "/a b"}, Host("h", trees=("/a b",))),
        ({"d1fleet_trees": ["/a", "/b"]}, Host("h", trees=("/a", "/b"))),
    ],
)
def test_variables(variables: dict[str, Any], expected: Host) -> None:
    assert host(**variables) == expected


def test_a_key_below_home(tmp_path: Path) -> None:
    assert host(ansible_private_key_file="~/.ssh/id").identity_file == str(tmp_path / ".ssh/id")


@pytest.mark.parametrize(
    ("variable", "value", "mend"),
    [
        *(
            ("d1fleet_slots", value, "from 1 to")
            for value in (0, -1, "four", "-1", "", 5000 * "1", 1.5, True, [1], 10**9, "\u0664")
        ),
        ("d1fleet_max_jobs", 0, "from 1 to"),
        ("d1fleet_nice", 20, "from 0 to 19"),
        ("d1fleet_nice", -5, "from 0 to 19"),
        ("d1fleet_jobs", 0, "from 1 to"),
        ("d1fleet_jobs", "many", "from 1 to"),
        ("ansible_port", 65536, "from 1 to 65535"),
        *(("ansible_host", value, "dash") for value in ("", "-oProxyCommand=x", "a b", "a\nb", "a\x1b[2J")),
        ("ansible_user", "-l", "dash"),
        ("ansible_user", 7, "a text"),
        ("ansible_ssh_private_key_file", "-x", "dash"),
        ("ansible_connection", "docker", "d1fleet_transport"),
        *(("d1fleet_transport", word, "it is one of ssh, openssh, local") for word in ("telnet", "paramiko")),
        ("d1fleet_server_setup", ["x"], "a text"),
        ("d1fleet_server_setup", "CC={{ cc }}", "plain value"),
        ("d1fleet_server_setup", "{% if x %}y{% endif %}", "plain value"),
        ("d1fleet_makeargs", "'", "as a list"),
        ("d1fleet_makeargs", [1], "list of texts"),
        ("d1fleet_makeargs", ["{{ x }}"], "plain value"),
        ("d1fleet_makeargs", [{"__ansible_vault": "x"}], "plain value"),
        ("d1fleet_trees", ["here"], "absolute"),
    ],
)
def test_a_bad_value_names_host_and_variable(variable: str, value: Any, mend: str) -> None:
    with pytest.raises(InventoryError, match=f"host h: {variable} ") as caught:
        host(**{variable: value})
    assert mend in caught.value.mend
    assert str(caught.value).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("-o ProxyCommand='pass hush", "cannot be split"),
        ("hush", "has a word, which cannot"),
        ("-o Port=1 -N hush", "has -N, which cannot"),
        ("-4 -o", "lacks the value of -o"),
        ("-- hush", "has --, which cannot"),
        (["-o", "X=hush"], "it is no text"),
        ("-o ProxyCommand='pass hush {{ x }}'", "is a template"),
        ({"__ansible_vault": "hush"}, "is encrypted"),
    ],
)
@pytest.mark.parametrize(
    "variable", ["ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args"]
)
def test_bad_options_of_ssh_are_named_and_not_shown(variable: str, value: Any, said: str) -> None:
    with pytest.raises(InventoryError, match=f"host h: {variable} ") as caught:
        host(**{variable: value})
    assert said in caught.value.message
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["-oProxyCommand=x", "a b", "a\tb", "a\x07"])
def test_a_name_that_ssh_would_misread(name: str) -> None:
    with pytest.raises(InventoryError, match="has a name that"):
        made_up({"all": {"hosts": [name]}}).fleet(None)
