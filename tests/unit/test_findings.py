"""Findings are put together and in order, and mends become commands that can be typed."""

from __future__ import annotations

import shlex

import pytest

from d1fleet.findings import FAULT, NOTE, WARNING, Commands, Finding, Mend, shown

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
    assert words[:2] == ["ansible", "alder,birch"]
    assert words[2:6] == ["--inventory", "/in v/hosts.yml", "--inventory", "/more"]
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
