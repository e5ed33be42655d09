"""The root helper as a process, with real distcc: what it writes, and what nobody can have it write."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from d1fleet.checkin.firewall import NO_TABLE
from d1fleet.checkin.render import MARK
from tests.unit.checkin.documents import ALDER, BIRCH, changed, host_key, peer, request
from tests.unit.checkin.helperhost import HelperHost

pytestmark = pytest.mark.skipif(not shutil.which("distcc", path="/usr/bin"), reason="no distcc here")

DOGWOOD = peer("dogwood", "192.0.2.14", transport="ssh", host_keys=[host_key()])


@pytest.fixture
def host(tmp_path: Path) -> HelperHost:
    return HelperHost(tmp_path / "host")


def of(*peers: dict[str, Any], **others: Any) -> dict[str, Any]:
    members = [each["address"] for each in peers]
    return request(projects={"engine": {"peers": list(peers), "members": members, "left_out": {}}}, **others)


def both(**others: Any) -> dict[str, Any]:
    one = request()["projects"]["engine"]
    return request(projects={"engine": one, "firmware": {**one, "peers": [BIRCH]}}, **others)


def test_all_is_written_and_then_nothing_more(host: HelperHost) -> None:
    found = host.ask(request())
    engine = host.hosts / "engine"
    assert found == {
        "changed": ["who may connect", str(host.rules), str(engine), str(host.default)],
        "faults": [],
    }
    assert engine.read_bytes() == host.default.read_bytes()
    assert "192.0.2.12/8,lzo               # birch\n" in engine.read_text()
    assert engine.stat().st_mode & 0o777 == 0o644
    assert host.members() == {"members4": ["192.0.2.11", "192.0.2.12"], "members6": ["2001:db8::13"]}
    assert host.rules.read_text().count("add element inet d1fleet_distcc") == 2
    assert host.ask(request()) == {"changed": [], "faults": []}
    assert host.transactions == 1


def test_only_what_changes_is_written(host: HelperHost) -> None:
    host.ask(both())
    found = host.ask(both(slots=6))
    assert found["changed"] == [str(host.hosts / "engine"), str(host.hosts / "firmware")]
    assert host.transactions == 1


def test_rules_that_somebody_has_changed_are_mended(host: HelperHost) -> None:
    host.ask(request())
    host.nft.with_name("nft.json").write_text(json.dumps({"members4": ["203.0.113.1"], "members6": []}))
    assert host.ask(request()) == {"changed": ["who may connect"], "faults": []}
    assert host.members()["members4"] == ["192.0.2.11", "192.0.2.12"]


def test_a_project_that_was_left_leaves_nothing(host: HelperHost) -> None:
    host.ask(both())
    others = host.hosts / "others"
    others.write_text("# written by somebody else\nlocalhost/1\n")
    quoted = host.hosts / "quoted"
    quoted.write_text(f"localhost/1\n# {MARK}\n")
    found = host.ask(request())
    assert str(host.hosts / "firmware") in found["changed"]
    assert sorted(path.name for path in host.hosts.iterdir()) == ["engine", "others", "quoted"]


def test_who_is_in_no_project_has_no_files_and_lets_nobody_in(host: HelperHost) -> None:
    host.ask(request())
    assert host.ask(request(name="", projects={}))["faults"] == []
    assert host.members() == {"members4": [], "members6": []}
    assert list(host.files()) == ["checkin.json", "d1fleet/distcc.d/lock", "d1fleet/distcc.d/members.nft"]
    assert "add element" not in host.rules.read_text()


def test_which_projects_hosts_are_distccs_own(host: HelperHost) -> None:
    host.ask(both())
    assert not host.default.exists()
    host.configure(default_project="firmware")
    assert host.ask(both())["changed"] == [str(host.default)]
    assert host.default.read_bytes() == (host.hosts / "firmware").read_bytes()
    host.configure(default_project="other")
    assert host.ask(both())["changed"] == [str(host.default)]
    assert not host.default.exists()


def test_distccs_own_file_of_somebody_else_stays(host: HelperHost) -> None:
    host.default.write_text("localhost/3\n")
    host.ask(both())
    assert host.default.read_text() == "localhost/3\n"


def test_peers_over_ssh(host: HelperHost) -> None:
    found = host.ask(of(ALDER, DOGWOOD))
    config, keys = host.ssh / "ssh_config", host.ssh / "known_hosts"
    assert found == {
        "changed": [str(path) for path in (host.rules, keys, config, host.hosts / "engine", host.default)],
        "faults": [],
    }
    assert host.members() == {"members4": [], "members6": []}  # nobody comes by TCP
    assert f"GlobalKnownHostsFile {keys}\n" in config.read_text()
    assert keys.read_text().splitlines()[1] == f"dogwood {host_key()}"
    assert "@192.0.2.14/4:" in (host.hosts / "engine").read_text()
    assert {str(keys), str(config)} < set(host.ask(of(ALDER, BIRCH))["changed"])
    assert not list(host.ssh.iterdir())


def test_without_a_table_the_rest_is_done(host: HelperHost) -> None:
    host.nft.with_name("no-table").touch()
    found = host.ask(request())
    assert found["faults"] == [NO_TABLE]
    assert found["changed"] == [str(host.rules), str(host.hosts / "engine"), str(host.default)]
    assert f"<4>{found['faults'][0]}" in host.said


def test_without_nft_the_rest_is_done(host: HelperHost) -> None:
    host.nft.unlink()
    found = host.ask(request())
    assert "cannot be run" in found["faults"][0] and len(found["changed"]) == 3


def test_without_distcc_no_hosts_file_is_written(host: HelperHost) -> None:
    host.distcc = host.folder / "none"
    found = host.ask(request())
    assert found["changed"] == ["who may connect", str(host.rules)]
    assert len(found["faults"]) == 1 and "cannot be run" in found["faults"][0]


def test_a_file_that_distcc_does_not_understand_is_not_written(host: HelperHost) -> None:
    host.ask(request())
    before = host.files()
    host.distcc = host.folder / "distcc-that-is-odd"
    host.distcc.write_text("#!/bin/sh\necho odd >&2\n")
    host.distcc.chmod(0o755)
    found = host.ask(request(slots=7))
    assert "distcc reads 0 of 3 hosts: odd" in found["faults"][0]
    assert (found["changed"], host.files()) == (
        [],
        {**before, "distcc-that-is-odd": host.distcc.read_bytes()},
    )


BAD: list[tuple[tuple[Any, ...], Any]] = [
    ((), []),
    ((), None),
    (("more",), 1),
    (("name",), "@evil"),
    (("slots",), "4 @root@evil/64:/x"),
    (("projects", "engine", "members"), ["203.0.113.1"]),
    (("projects", "engine", "members"), ["127.0.0.1"]),
    (("projects", "engine", "members"), ["192.0.2.1 } ; flush ruleset"]),
    (("projects", "engine", "peers", 0, "address"), "203.0.113.1"),
    (("projects", "engine", "peers", 0, "name"), "a b"),
    (("projects", "engine", "left_out"), {"birch": "a\n@evil/1:/x"}),
    (("projects",), {"../x": request()["projects"]["engine"]}),
    (("projects",), {"hosts/../../x": request()["projects"]["engine"]}),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_of_a_bad_request_nothing_is_done(host: HelperHost, path: tuple[Any, ...], value: Any) -> None:
    host.ask(request())
    before = host.files(), host.members()
    # Something good beside it, which is not done either.
    asked = {**request(slots=9), "more": 1} if path == ("more",) else changed(request(slots=9), path, value)
    found = host.ask(asked)
    assert found["changed"] == [] and len(found["faults"]) == 1
    assert found["faults"][0].startswith("refused: ")
    assert (host.files(), host.members()) == before


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"name": "' + b"a" * (5 << 20)])
def test_what_is_no_request(host: HelperHost, data: bytes) -> None:
    before = host.files()
    found = host.ask(data)
    assert found["changed"] == [] and found["faults"][0].startswith("refused: ")
    assert host.files() == before


def test_without_a_configuration_of_roots_nothing_is_done(host: HelperHost) -> None:
    host.config.chmod(0o666)
    assert "by others than root" in host.ask(request())["faults"][0]
    host.config.unlink()
    assert "cannot be read" in host.ask(request())["faults"][0]
    assert host.files() == {}


def test_links_are_not_followed(host: HelperHost, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("as it was")
    for path in (host.hosts / "engine", host.default, host.rules, host.ssh / "known_hosts"):
        path.symlink_to(secret)
    found = host.ask(of(ALDER, DOGWOOD))
    assert found["faults"] == []
    assert secret.read_text() == "as it was"
    assert not any(path.is_symlink() for path in host.folder.rglob("*"))


def test_a_folder_that_is_a_link_is_not_written_into(host: HelperHost, tmp_path: Path) -> None:
    host.hosts.rmdir()
    (tmp_path / "elsewhere").mkdir()
    host.hosts.symlink_to(tmp_path / "elsewhere")
    found = host.ask(request())
    assert any(str(host.hosts) in fault for fault in found["faults"])
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_of_somebody_elses_is_not_written_into(host: HelperHost) -> None:
    os.chown(host.default.parent, 65534, 65534)
    found = host.ask(request())
    assert any("by others than root" in fault for fault in found["faults"])
    assert not host.default.exists() and (host.hosts / "engine").exists()


def test_a_request_that_does_not_come_is_not_waited_for(
    host: HelperHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    from d1fleet.checkin import apply

    monkeypatch.setattr(apply, "READ_S", 0.2)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        ours.sendall(b"{")
        apply._read(theirs.fileno())


def test_by_pipes_too(host: HelperHost) -> None:
    done = subprocess.run(host.argv(), input=json.dumps(request()).encode(), capture_output=True, cwd="/")
    assert json.loads(done.stdout)["faults"] == []


def test_two_at_once_do_not_mix(host: HelperHost) -> None:
    helpers = []
    for number in range(1, 7):
        asked = host.folder / f"request{number}"
        asked.write_text(json.dumps(request(slots=number)))
        with asked.open() as file:
            helpers.append(subprocess.Popen(host.argv(), stdin=file, stdout=subprocess.PIPE, cwd="/"))
    said = [helper.communicate(timeout=60)[0] for helper in helpers]
    assert all(json.loads(answer)["faults"] == [] for answer in said)
    assert (host.hosts / "engine").read_bytes() == host.default.read_bytes()


@pytest.mark.skipif(
    not shutil.which("nft", path="/usr/sbin") or os.geteuid() != 0, reason="no nft here, or no root"
)
def test_with_the_real_packet_filter(host: HelperHost, tmp_path: Path) -> None:
    """In a network of its own, with what the role includes."""
    host.nft = Path("/usr/sbin/nft")
    table = (
        "table inet d1fleet_distcc { set members4 { type ipv4_addr; }; set members6 { type ipv6_addr; }; }"
    )
    (tmp_path / "table.nft").write_text(f'{table}\ninclude "{host.rules.parent}/*.nft"\n')
    (tmp_path / "request").write_text(json.dumps(request()))
    load, ask = f"nft -f {tmp_path}/table.nft", f"{' '.join(host.argv())} <{tmp_path}/request"
    script = (
        f"set -e; {load}; {ask}; {ask}; nft list ruleset; nft flush ruleset; {load}; nft list ruleset; {ask}"
    )
    if subprocess.run(["unshare", "-n", "nft", "list", "ruleset"], capture_output=True).returncode:
        pytest.skip("nft cannot be used here")
    done = subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    first, second, *rest = [line for line in done.stdout.splitlines() if line]
    assert json.loads(first)["changed"][0] == "who may connect"
    assert json.loads(second) == json.loads(rest[-1]) == {"changed": [], "faults": []}
    # Before and after the table was loaded anew.
    assert "".join(rest).count("192.0.2.11, 192.0.2.12") == 2
    assert "".join(rest).count("2001:db8::13") == 2
