"""Programs of the role `toolchain`: which versions a project has, and what a host is asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.roles.roles import ROOT

OLD, NEW = "12.2.0-14", "12.2.0-14+deb12u1"


def _program(name: str) -> Any:
    """As a module; plays run it as a program."""
    sys.path[:0] = [str(ROOT / "roles/toolchain/files"), str(ROOT / "roles/fleet/files")]
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return importlib.import_module(name)
    finally:
        sys.dont_write_bytecode = written
        del sys.path[:2]


def gcc(version: str, **more: str) -> dict[str, dict[str, str]]:
    """A host that compiles with one version of it."""
    return {"gcc-defaults": {"gcc": "4:12"}, "gcc-12": {"gcc-12": version, "cpp-12": version, **more}}


def apt(*versions: str, would: tuple[str, ...] = ("gcc", "gcc-12", "cpp-12")) -> dict[str, Any]:
    """What a host can get, newest first; it would take the first."""
    of = {"gcc": ["4:12"], "gcc-12": list(versions), "cpp-12": list(versions)}
    of = {name: found for name, found in of.items() if found}
    return {
        "would": list(would),
        "versions": of,
        "candidates": {name: found[0] for name, found in of.items()},
    }


def host(
    packages: dict[str, dict[str, str]] | None = None,
    obtainable: dict[str, Any] | None = None,
    lacking: tuple[str, ...] = (),
    **more: Any,
) -> dict[str, Any]:
    return {
        "packages": packages or {},
        "lacking": list(lacking),
        "versions": {},
        "parts": {"cc": "gcc"},
        "record": {},
        "obtainable": obtainable or {},
        **more,
    }


def new(*versions: str, **more: Any) -> dict[str, Any]:
    return host(obtainable=apt(*versions), lacking=("gcc",), **more)


def given(resolve: bool = False, parts: dict[str, str] | None = None, **hosts: Any) -> dict[str, Any]:
    return {
        "projects": {"demo": list(hosts)},
        "resolve": resolve,
        "reference": {"demo": {"parts": parts or {"cc": "gcc"}}},
        "hosts": hosts,
    }


def decide(resolve: bool = False, **hosts: Any) -> Any:
    return _program("toolchain_versions").decide(given(resolve, **hosts))


def record(parts: dict[str, str] | None = None, **hosts: Any) -> Any:
    return _program("toolchain_versions").record(given(parts=parts, **hosts))["demo"]


def told(version: str) -> dict[str, Any]:
    """A record of the project."""
    return {"demo": {"parts": {}, "packages": gcc(version)}}


PINS = {"gcc": "4:12", "gcc-12": OLD, "cpp-12": OLD}


# What a new host is asked for


def test_a_new_host_gets_what_its_peers_have() -> None:
    found = decide(a=host(gcc(OLD)), b=host(gcc(OLD)), c=new(NEW, OLD))
    assert found == {"c": {"pins": PINS, "ask": ["gcc"], "why": {}}}


def test_what_most_have_counts_and_of_equally_many_what_is_recorded_or_the_first() -> None:
    pins = decide(a=host(gcc(NEW)), b=host(gcc(OLD)), c=host(gcc(OLD)), d=new(NEW, OLD))["d"]["pins"]
    assert pins == PINS
    pins = decide(a=host(gcc(NEW)), b=host(gcc(OLD)), d=new(NEW, OLD))["d"]["pins"]
    assert pins["gcc-12"] == NEW
    pins = decide(a=host(gcc(NEW)), b=host(gcc(OLD), record=told(OLD)), d=new(NEW, OLD))["d"]["pins"]
    assert pins["gcc-12"] == OLD


def test_peers_that_were_upgraded_count_more_than_the_record() -> None:
    """Nothing is changed on them, so only with them is the new one the same."""
    old = told(OLD)
    found = decide(a=host(gcc(NEW), record=old), b=host(gcc(NEW), record=old), c=new(NEW, OLD))
    assert found["c"]["pins"]["gcc-12"] == NEW


def test_what_all_lack_is_as_recorded() -> None:
    """Installed again from nothing, or peers that are away without what they had."""
    found = decide(a=host(record=told(OLD)), b=new(NEW, OLD))
    assert found["b"]["pins"] == PINS


def test_of_what_nobody_has_all_get_the_newest_that_all_can_get() -> None:
    found = decide(a=new("3", "2", "1"), b=new("2", "1"))
    assert found["a"]["pins"] == found["b"]["pins"] == {"gcc": "4:12", "gcc-12": "2", "cpp-12": "2"}


def test_a_version_that_apt_would_take_nowhere_is_not_the_newest() -> None:
    """Of backports, say."""
    later = apt("9~bpo", "2", "1")
    later["candidates"].update({"gcc-12": "2", "cpp-12": "2"})
    found = decide(a=host(obtainable=later, lacking=("gcc",)), b=host(obtainable=later, lacking=("gcc",)))
    assert found["a"]["pins"]["gcc-12"] == "2"


def test_releases_that_have_nothing_in_common_get_what_there_is() -> None:
    other = {"would": ["gcc", "gcc-14"], "versions": {"gcc": ["4:14"], "gcc-14": ["14"]}}
    other["candidates"] = {"gcc": "4:14", "gcc-14": "14"}
    found = decide(a=new(OLD), b=host(obtainable=other, lacking=("gcc",)))
    assert found["a"]["pins"] == {"gcc-12": OLD, "cpp-12": OLD}
    assert found["b"]["pins"] == {"gcc-14": "14"}
    assert found["b"]["ask"] == ["gcc"]


# What it cannot have


def test_a_version_that_apt_has_no_more_is_named_with_what_there_is() -> None:
    found = decide(a=host(gcc(OLD)), b=new(NEW))["b"]
    assert found["pins"] == {"gcc": "4:12"}
    assert found["why"] == {"gcc-12": f"apt there has {NEW}", "cpp-12": f"apt there has {NEW}"}
    assert found["ask"] == ["gcc"]


def test_packages_of_another_release_are_not_named() -> None:
    other = {"would": ["gcc", "gcc-14"], "versions": {"gcc": ["4:14"], "gcc-14": ["14"]}}
    other["candidates"] = {"gcc": "4:14", "gcc-14": "14"}
    found = decide(a=host(gcc(OLD)), b=host(obtainable=other, lacking=("gcc",)))["b"]
    assert found["why"] == {"gcc": "apt there has 4:14"}
    assert found["pins"] == {"gcc-14": "14"}


def test_what_is_there_in_another_version_takes_the_rest_of_its_source_along() -> None:
    """gcc-12 wants gcc-12-base of its own version, and what is there is not changed."""
    there = {**apt(NEW, OLD), "there": {"gcc-12-base": NEW}}
    peer = host(gcc(OLD, **{"gcc-12-base": OLD}))
    found = decide(a=peer, b=host(obtainable=there, lacking=("gcc",)))["b"]
    assert found["pins"] == {"gcc": "4:12"}
    why = f"it has gcc-12-base {NEW} already"
    assert found["why"] == {"gcc-12": why, "cpp-12": why}


def test_what_the_inventory_names_is_as_it_says() -> None:
    named = {"gcc-12": NEW}
    b = host(obtainable=apt(NEW, OLD), lacking=("gcc", "gcc-12"), versions=named)
    found = decide(a=host(gcc(OLD), versions=named), b=b)["b"]
    assert found["ask"] == ["gcc", f"gcc-12={NEW}"]
    assert found["pins"] == {"gcc": "4:12"}
    assert found["why"] == {}


def test_of_two_projects_the_first_counts() -> None:
    both = {
        "projects": {"engine": ["a", "c"], "firmware": ["b", "c"]},
        "resolve": False,
        "reference": {},
        "hosts": {"a": host(gcc(OLD)), "b": host(gcc(NEW)), "c": new(NEW, OLD)},
    }
    assert _program("toolchain_versions").decide(both)["c"]["pins"] == PINS


# Existing hosts


def test_nothing_that_is_there_is_changed() -> None:
    """One that gets a package more keeps the others, whatever its peers have."""
    more = host(gcc(NEW), apt(NEW, OLD, would=("make",)), lacking=("make",))
    found = decide(a=host(gcc(OLD)), b=host(gcc(OLD)), c=more)["c"]
    assert found["ask"] == ["make"]
    assert not {"gcc-12", "cpp-12"} & set(found["pins"])


def test_to_move_on_all_get_the_newest_that_all_can_get() -> None:
    a = host(gcc(OLD), apt("3", NEW, OLD, would=()))
    b = host(gcc(OLD), apt(NEW, OLD, would=()))
    found = decide(True, a=a, b=b)
    for name in "ab":
        assert found[name]["ask"] == [f"gcc-12={NEW}", f"cpp-12={NEW}"]
        assert found[name]["pins"]["gcc-12"] == NEW
    # Who has more than that is not brought back, and is told why.
    found = decide(True, a=host(gcc("3"), apt("3", NEW, OLD, would=())), b=b)
    assert found["a"]["ask"] == []
    # And again: nothing more to do.
    done = [host(gcc(NEW), apt(NEW, OLD, would=())) for _ in range(2)]
    assert [each["ask"] for each in decide(True, a=done[0], b=done[1]).values()] == [[], []]


def test_to_move_on_leaves_what_the_inventory_names() -> None:
    named = {"gcc-12": OLD}
    found = decide(True, a=host(gcc(OLD), apt(NEW, OLD, would=()), versions=named))["a"]
    assert "gcc-12" not in found["pins"]
    assert found["ask"] == []


# The record


def test_the_record_is_what_most_have_of_those_that_are_as_the_project_is() -> None:
    other = host(gcc("14"), parts={"cc": "other"})
    assert record(a=host(gcc(OLD)), b=other, c=other, d=host(gcc(OLD))) == gcc(OLD)


def test_the_record_stays_when_nobody_is_there() -> None:
    assert record(a=host(record=told(OLD), parts={})) == gcc(OLD)
    assert record(a=host(parts={})) == {}


def test_the_record_follows_hosts_that_were_upgraded() -> None:
    a, b = (host(gcc(NEW), record=told(OLD)) for _ in range(2))
    assert record(a=a, b=b) == gcc(NEW)


# What a host says


@pytest.mark.skipif(not Path("/usr/bin/dpkg-query").exists(), reason="no dpkg here")
def test_a_hosts_packages_are_those_to_develop_with_and_what_was_built_with_them() -> None:
    program = _program("host_packages")
    found = program.installed({"names": ["libc6-dev", "no-such-package"], "versions": {}})
    assert found["lacking"] == ["no-such-package"]
    glibc = found["packages"]["glibc"]
    assert glibc["libc6-dev"] == glibc["libc6"]
    assert "zlib" not in found["packages"]
    named = program.installed({"names": ["libc6-dev"], "versions": {"libc6-dev": "0"}})
    assert named["lacking"] == ["libc6-dev"]


def test_dependencies_are_followed_through_alternatives_and_what_is_provided() -> None:
    program = _program("host_packages")

    def package(depends: str = "", provides: str = "") -> dict[str, str]:
        return {"Pre-Depends": "", "Depends": depends, "Provides": provides}

    there = {
        "gcc": package("gcc-12 (>= 12), libc-dev | other:any"),
        "gcc-12": package("gcc"),
        "libc6-dev": package(provides="libc-dev (= 2), x"),
        "other": package(),
        "stranger": package("gcc"),
    }
    assert program.closure(["gcc", "absent"], there) == {"gcc", "gcc-12", "libc6-dev", "other"}


POLICY = """gcc-12:
  Installed: 12.2.0-14
  Candidate: 12.2.0-14+deb12u1
  Version table:
     12.2.0-14+deb12u1 500
        500 http://mirror.example/debian bookworm/main amd64 Packages
 *** 12.2.0-14 100
        100 /var/lib/dpkg/status
absent:
  Installed: (none)
  Candidate: (none)
  Version table:
"""


EVIL = '-oDPkg::Options::=-c"'


def test_no_host_chooses_apts_options_on_another() -> None:
    evil = {"zz": {EVIL: "1", "a\nPackage: *": "1", "cpp-12": "1\nPin-Priority: 1001", "fine": "1"}}
    told = {"demo": {"packages": evil}}
    given = {
        "projects": {"demo": ["a", "b"], "other": ["c"]},
        "resolve": True,
        "reference": {},
        "hosts": {
            "a": host(evil, record=told, obtainable={"would": [EVIL], "versions": {EVIL: ["1"]}}),
            "b": host(gcc(OLD), apt(NEW, OLD), lacking=("gcc",)),
            "c": host(gcc(OLD)),
        },
    }
    versions = _program("toolchain_versions")
    assert versions.known(given) == {
        "a": ["fine", "gcc", "gcc-12", "cpp-12"],
        "b": ["fine", "gcc", "gcc-12", "cpp-12"],
        "c": ["gcc", "gcc-12", "cpp-12"],
    }
    decided = repr(versions.decide(given))
    assert EVIL not in decided and "\\n" not in decided


def test_what_is_no_package_never_reaches_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    program = _program("host_packages")
    asked: list[tuple[str, ...]] = []

    def run(*argv: str) -> Any:
        asked.append(argv)
        return subprocess.CompletedProcess(argv, 0, "", "")

    monkeypatch.setattr(program, "run", run)
    monkeypatch.setattr(program, "refresh", lambda: None)
    monkeypatch.setattr(program, "there", dict)
    program.obtainable({"names": [EVIL, "gcc"], "also": [EVIL, "cpp"]})
    program.fits({"names": [EVIL, "gcc=4:12"], "pins": {EVIL: "1"}})
    assert len(asked) == 3
    for argv in asked:
        assert EVIL not in argv
    assert [argv[argv.index("--") + 1 :] for argv in asked] == [("gcc",), ("cpp",), ("gcc=4:12",)]


def test_apts_words_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    program = _program("host_packages")

    class Done:
        stdout = POLICY

    monkeypatch.setattr(program, "run", lambda *argv: Done)
    assert program.policy(["gcc-12", "absent"]) == {
        "candidates": {"gcc-12": NEW},
        "versions": {"gcc-12": [NEW, OLD]},
    }
