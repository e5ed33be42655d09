"""Findings are put together and in order, and mends become commands that can be typed."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from d1fleet.findings import FAULT, LONGEST_ROOT, NOTE, WARNING, Commands, Finding, Mend, shown
from tests.roles.roles import load

ODD = "echo 'a b' $HOME; true"


def test_the_worst_first_and_the_same_together() -> None:
    mend = Mend("do it", root="true")
    found = shown(
        [
            Finding("b", NOTE, "alder", "a note", Mend("nothing")),
            Finding("a", WARNING, "alder", "slow", mend),
            Finding("c", FAULT, "cedar", "broken", Mend("mend it")),
            Finding("a", WARNING, "birch", "slow", mend),
            Finding("a", WARNING, "birch", "slow", mend),
            Finding("a", WARNING, "cedar", "slower", mend),
        ],
        Commands(),
    )
    assert [(each.id, each.hosts, each.what) for each in found] == [
        ("c", ("cedar",), "broken"),
        ("a", ("alder", "birch"), "slow"),
        ("a", ("cedar",), "slower"),
        ("b", ("alder",), "a note"),
    ]
    assert found[0].command == ""


def test_commands_by_an_inventory() -> None:
    commands = Commands(["/in v/hosts.yml", "/more"], "ansible", "ansible-playbook", "/src/d1 fleet")
    words = shlex.split(commands.of(Mend(root=ODD), ["alder", "birch"]))
    # Outside of it, ansible would log in as whoever builds, whose key opens no shell.
    assert words[:3] == ["cd", "/src/d1 fleet", "&&"]
    assert words[3:5] == ["ansible", "alder,birch"]
    assert words[5:9] == ["--inventory", "/in v/hosts.yml", "--inventory", "/more"]
    assert words[-1] == ODD and "--become" in words
    line = commands.of(Mend(play="site"), ["alder"])
    assert line.startswith("cd '/src/d1 fleet' && ansible-playbook ")
    assert line.endswith(" site.yml --limit alder")
    assert commands.of(Mend(play="refresh"), ()).endswith("/more playbooks/refresh.yml")
    installed = Commands(["/more"], checkout=None).of(Mend(play="refresh"), ["alder"])
    assert installed == "ansible-playbook --inventory /more d1.fleet.refresh --limit alder"


@pytest.mark.parametrize("word", ["{{lookup('pipe','id')}}", "{%if 1%}", "{#"])
def test_nothing_that_ansible_would_follow_on_this_machine(word: str) -> None:
    assert Commands(["/hosts.yml"]).of(Mend(root=f"mv /home/{word}/x y"), ["alder"]) == ""


def test_commands_without_one() -> None:
    commands = Commands(ssh=["ssh", "-F", "/my config"])
    words = shlex.split(commands.of(Mend(root=ODD), ["alder"]))
    assert words[:5] == ["ssh", "-F", "/my config", "-t", "alder"]
    assert shlex.split(words[5]) == ["sudo", "sh", "-c", ODD]
    elsewhere = Commands(logins={"you@birch:2222": ["-p", "2222", "you@birch"]})
    line = elsewhere.of(Mend(root="true"), ["you@birch:2222"])
    assert line == "ssh -t -p 2222 you@birch 'sudo sh -c true'"
    assert commands.of(Mend("enrol it", play="site"), ["alder"]) == ""
    assert commands.of(Mend(here="make"), ["alder"]) == "make"
    assert commands.of(Mend(root="true"), ["alder", "birch"]).count(" && ") == 1


MANY = [f"host-with-a-long-name-{number}" for number in range(60)]


def test_a_project_stands_for_all_its_hosts() -> None:
    commands = Commands(["/hosts.yml"], project="engine", members=MANY)
    assert commands.of(Mend(play="refresh"), MANY).endswith(" --limit engine")
    assert shlex.split(commands.of(Mend(root="true"), MANY[::-1]))[:2] == ["ansible", "engine"]
    # Of fewer, or where no project is known, each is named.
    assert commands.of(Mend(play="refresh"), MANY[1:]).endswith(f" --limit {','.join(MANY[1:])}")
    assert Commands(["/hosts.yml"]).of(Mend(play="site"), MANY).endswith(f" --limit {','.join(MANY)}")
    alone = Commands(["/hosts.yml"], project="engine", members=["alder"])
    assert alone.of(Mend(play="site"), ["alder"]).endswith(" --limit alder")


def test_a_playbook_for_all_hosts() -> None:
    mend = Mend("enrol all", play="site", everywhere=True)
    commands = Commands(["/hosts.yml"], project="engine", members=MANY)
    assert commands.of(mend, MANY[:1]).endswith(" --limit engine")
    assert commands.of(Mend(play="site"), MANY[:1]).endswith(f" --limit {MANY[0]}")


@pytest.mark.parametrize("root", ["x" * (LONGEST_ROOT + 1), "true\nreboot", "true \x1b[2J", "true\u2028x"])
def test_a_command_is_whole_or_there_is_none(root: str) -> None:
    for commands in (Commands(["/hosts.yml"]), Commands()):
        assert commands.of(Mend(root=root), ["alder"]) == ""
        assert root[:4] in commands.of(Mend(root=root[:4]), ["alder"])


# What roles refuse, with a command to be typed


def refused(path: str, name: str, **variables: Any) -> tuple[bool, str]:
    """Whether a task of a role lets a host pass, and what it says where it does not."""
    (task,) = [each for each in load(path) if each["name"] == name]
    values = {
        "inventory_hostname": "alder",
        "ansible_inventory_sources": ["/my inv/hosts.yml", "/more"],
        "_d1fleet_inventories": trust_as_template(load("roles/fleet/vars/main.yml")["_d1fleet_inventories"]),
        **{key: trust_as_template(each) for key, each in task.get("vars", {}).items()},
        **variables,
    }
    templar = Templar(DataLoader(), values)
    refuses = task["ansible.builtin.assert"]
    message = refuses["fail_msg"]
    text = "\n".join([message] if isinstance(message, str) else message)
    conditions = refuses["that"] if isinstance(refuses["that"], list) else [refuses["that"]]
    passes = all(templar.evaluate_conditional(trust_as_template(each)) for each in conditions)
    return passes, templar.template(trust_as_template(text))


COMMANDS = [
    (
        "roles/fleet/tasks/owner.yml",
        "Refuse a host that another inventory has enrolled",
        {"_d1fleet_strange": "it is", "_d1fleet_mark_file": "/etc/ansible/facts.d/mark.fact"},
        "path=/etc/ansible/facts.d/mark.fact state=absent",
    ),
    (
        "roles/d1make_server/tasks/verify.yml",
        "Refuse a host whose launcher does not take what was installed",
        {
            "_d1fleet_server_folder": "/usr/local/lib/d1fleet/server/x",
            "__d1fleet_answer": {"stdout_lines": ["have", "need"], "stderr": "", "rc": 1},
        },
        "path=/usr/local/lib/d1fleet/server/x state=absent",
    ),
    (
        "roles/distcc/tasks/preflight.yml",
        "Refuse to run beside a server that the site has set up",
        {"__d1fleet_distcc_sites": {"stat": {"exists": True, "isreg": True, "size": 9}}},
        "systemctl stop distcc.service; systemctl disable distcc.service;"
        " mv --backup=numbered /etc/systemd/system/distcc.service /etc/systemd/system/distcc.service.old;"
        " systemctl daemon-reload",
    ),
]


@pytest.mark.parametrize(("path", "name", "variables", "arguments"), COMMANDS)
def test_what_a_role_has_typed_is_for_the_inventory_of_its_run(
    path: str, name: str, variables: dict[str, Any], arguments: str
) -> None:
    passes, text = refused(path, name, **variables)
    assert not passes and text.startswith("alder")
    words = shlex.split(text.splitlines()[-1].partition("again: ")[2])
    assert words[:6] == ["ansible", "alder", "--inventory", "/my inv/hosts.yml", "--inventory", "/more"]
    assert words[6] == "--become" and words[-2:] == ["-a", arguments]


@pytest.mark.parametrize(
    ("stat", "passes"),
    [
        ({"exists": False}, True),
        ({"exists": True, "isreg": False, "islnk": True, "size": 9, "lnk_source": "/dev/null"}, True),
        ({"exists": True, "isreg": True, "size": 0}, True),
        ({"exists": True, "isreg": True, "size": 9}, False),
        ({"exists": True, "isreg": False, "islnk": True, "size": 9, "lnk_source": "/opt/d.service"}, False),
        ({"exists": True, "isreg": False, "isdir": True, "size": 40}, False),
    ],
)
def test_a_unit_file_of_the_sites_own_is_refused(stat: dict[str, Any], passes: bool) -> None:
    path, name, *_ = COMMANDS[-1]
    is_so, text = refused(path, name, __d1fleet_distcc_sites={"stat": stat})
    assert is_so is passes
    assert text.startswith("alder has a unit of its own in /etc/systemd/system/distcc.service")


def test_that_is_looked_for_in_check_mode_too_and_before_anything_is_installed() -> None:
    looks, refuses = load("roles/distcc/tasks/preflight.yml")[:2]
    assert looks["ansible.builtin.stat"]["path"] == "/etc/systemd/system/distcc.service"
    assert "when" not in looks and "when" not in refuses
    assert [each["name"] for each in load("roles/distcc/tasks/main.yml")][:2] == ["Preflight", "Install"]
