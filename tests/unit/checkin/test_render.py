"""What the root helper makes of a request: whatever it is, its files say what was checked, and no more."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d1fleet import hostsfile
from d1fleet.checkin import render, values
from d1fleet.checkin.render import MARK, Request
from d1fleet.checkin.strictjson import BadDocumentError
from tests.unit.checkin.documents import (
    ALDER,
    BIRCH,
    EVIL_TEXTS,
    NETWORKS,
    changed,
    host_key,
    json_values,
    paths,
    peer,
    request,
)

SSH = {"transport": "ssh", "ssh_port": 2222, "host_keys": [host_key(1), host_key(2)]}
DOGWOOD = peer("dogwood", "192.0.2.14", **SSH)
ELM = peer("elm", "2001:db8::15", **SSH)


def read(value: Any) -> Request:
    return render.read(json.dumps(value).encode(), NETWORKS)


def of(*peers: dict[str, Any], **others: Any) -> Request:
    members = [each["address"] for each in peers]
    return read(
        request(projects={"engine": {"peers": list(peers), "members": members, "left_out": {}}}, **others)
    )


def test_a_hosts_file_as_the_role_writes_it() -> None:
    known = read(request())
    assert render.hosts_file(known, "engine", known.projects["engine"]) == (
        f"# distcc's hosts for project engine on alder; {MARK}.\n"
        "--localslots=4 --localslots_cpp=16\n"
        "localhost/4\n"
        "192.0.2.12/8,lzo               # birch\n"
        "[2001:db8::13]:3633/4,lzo,cpp  # cedar\n"
    )


def test_each_begins_with_the_one_behind_it() -> None:
    known = read(request(name="birch"))
    peers = hostsfile.parse(render.hosts_file(known, "engine", known.projects["engine"])).peers
    assert [each.name for each in peers] == ["cedar", "alder"]


def test_a_host_alone_has_itself() -> None:
    known = read(request(projects={"engine": {"peers": [], "members": [], "left_out": {}}}))
    text = render.hosts_file(known, "engine", known.projects["engine"])
    assert text.splitlines()[1:] == ["--localslots=4 --localslots_cpp=16", "localhost/4"]
    assert render.rules(known) == f"# Members of this host's projects; {MARK}.\n"


def test_reasons_stand_in_comments_and_stay_there() -> None:
    left_out = {"dogwood": "cc: gcc 14 # @evil/1:/x \u00e4 --localslots=9"}
    known = read(request(projects={"engine": {"peers": [ALDER], "members": [], "left_out": left_out}}))
    text = render.hosts_file(known, "engine", known.projects["engine"])
    assert text.splitlines()[1] == "# left out: dogwood: cc: gcc 14 # @evil/1:/x ? --localslots=9"
    assert hostsfile.parse(text).peers == ()


def test_rules_are_made_of_addresses() -> None:
    assert render.rules(read(request())).splitlines()[1:] == [
        "add element inet d1fleet_distcc members4 { 192.0.2.11, 192.0.2.12 }",
        "add element inet d1fleet_distcc members6 { 2001:db8::13 }",
    ]


def test_over_ssh() -> None:
    known = of(ALDER, BIRCH, DOGWOOD, ELM)
    assert [str(each) for each in hostsfile.parse(_file(known)).peers] == [
        "192.0.2.12/8,lzo",
        f"@192.0.2.14/4:{hostsfile.SERVE},lzo",
        f"@2001-db8--15/4:{hostsfile.SERVE},lzo",
    ]
    config, keys = render.ssh_files(known, "/x/known_hosts")
    lines = config.splitlines()
    assert MARK in lines[0] and MARK in keys.splitlines()[0]
    assert lines[1:9] == [
        "Host 192.0.2.14",
        "    HostName 192.0.2.14",
        "    Port 2222",
        "    HostKeyAlias dogwood",
        "Host 2001-db8--15",
        "    HostName 2001:db8::15",
        "    Port 2222",
        "    HostKeyAlias elm",
    ]
    assert "    GlobalKnownHostsFile /x/known_hosts" in lines and "    StrictHostKeyChecking yes" in lines
    assert keys.splitlines()[1:] == [
        f"dogwood {host_key(1)}",
        f"dogwood {host_key(2)}",
        f"elm {host_key(1)}",
        f"elm {host_key(2)}",
    ]


def _file(known: Request) -> str:
    return render.hosts_file(known, "engine", known.projects["engine"])


def test_ssh_understands_both_files(tmp_path: Path) -> None:
    config, keys = render.ssh_files(of(ALDER, DOGWOOD), str(tmp_path / "known_hosts"))
    (tmp_path / "config").write_text(config)
    (tmp_path / "known_hosts").write_text(keys)
    argv = ["ssh", "-G", "-F", str(tmp_path / "config"), "192.0.2.14"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert f"globalknownhostsfile {tmp_path}/known_hosts\n" in said
    assert "hostkeyalias dogwood\n" in said and "port 2222\n" in said
    argv = ["ssh-keygen", "-F", "dogwood", "-f", str(tmp_path / "known_hosts")]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout.count("ssh-ed25519") == 2


def test_whose_keys_are_not_known_is_left_out() -> None:
    known = of(ALDER, {**DOGWOOD, "host_keys": []})
    assert hostsfile.parse(_file(known)).peers == ()
    assert f"# left out: dogwood: {render.NO_KEYS}" in _file(known)
    assert render.ssh_files(known, "/x") == ("", "")


def test_one_peer_in_two_projects_has_one_way() -> None:
    two = {
        "engine": {"peers": [DOGWOOD], "members": [], "left_out": {}},
        "firmware": {"peers": [{**DOGWOOD, "slots": 9, "options": []}], "members": [], "left_out": {}},
    }
    config, keys = render.ssh_files(read(request(projects=two)), "/x")
    assert config.count("Host 192.0.2.14") == 1
    assert keys.count("dogwood ") == 2
    two["firmware"]["peers"] = [peer("evil", "192.0.2.14", **SSH)]
    with pytest.raises(BadDocumentError, match="in two ways"):
        read(request(projects=two))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), "../x"),
        (("name",), ""),
        (("slots",), 0),
        (("slots",), 1 << 20),
        (("projects",), {"../../etc/passwd": request()["projects"]["engine"]}),
        (("projects",), {"engine/x": request()["projects"]["engine"]}),
        (("projects",), {".": request()["projects"]["engine"]}),
        (("projects",), {f"p{number}": request()["projects"]["engine"] for number in range(65)}),
        (("projects", "engine", "members"), ["203.0.113.9"]),
        (("projects", "engine", "members"), ["0.0.0.0"]),
        (("projects", "engine", "members"), ["192.0.2.1 }; flush ruleset; add element x {"]),
        (("projects", "engine", "peers", 0, "address"), "203.0.113.9"),
        (("projects", "engine", "peers", 0, "name"), "@evil"),
    ],
)
def test_refused(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(BadDocumentError):
        read(changed(request(), path, value))


def test_who_is_in_no_project_needs_no_name() -> None:
    assert read(request(name="", projects={})).projects == {}


MIXED = request(
    projects={
        "engine": {
            "peers": [ALDER, BIRCH, DOGWOOD, ELM],
            "members": ["192.0.2.11", "2001:db8::15"],
            "left_out": {"fir": "why"},
        }
    }
)
_ADDITION = re.compile(r"add element inet d1fleet_distcc members([46]) \{ ([0-9a-f.:, ]+) \}")


@settings(max_examples=500)
@given(st.sampled_from(paths(MIXED)), json_values | st.sampled_from(EVIL_TEXTS))
def test_whatever_is_asked_files_are_harmless(path: tuple[Any, ...], value: Any) -> None:
    try:
        known = read(changed(MIXED, path, value))
        texts = {name: render.hosts_file(known, name, each) for name, each in known.projects.items()}
    except BadDocumentError:
        return
    for name, text in texts.items():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name, re.ASCII)
        for line in text.splitlines():
            words = line.partition("#")[0].split()
            assert line.startswith(("#", "--localslots=", "localhost/")) or len(words) == 1
        for each in hostsfile.parse(text).peers:
            assert values.may_be_peer(ipaddress.ip_address(each.address), NETWORKS)
    for line in render.rules(known).splitlines()[1:]:
        found = _ADDITION.fullmatch(line)
        assert found
        for address in found[2].split(", "):
            assert values.may_be_peer(ipaddress.ip_address(address), NETWORKS)
    config, keys = render.ssh_files(known, "/x")
    for line in config.splitlines()[1:]:
        if line.startswith(("    HostName", "    HostKeyAlias", "    Port", "Host ")):
            assert len(line.split()) == 2
    for line in keys.splitlines()[1:]:
        assert re.fullmatch(r"[a-z0-9][a-z0-9._-]* ssh-ed25519 [A-Za-z0-9+/=]+", line, re.ASCII)
