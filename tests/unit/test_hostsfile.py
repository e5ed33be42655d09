"""Hosts files of distcc: it and we read what is written, and no field can change what another means."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d1fleet.hostsfile import (
    MOST_SLOTS,
    OPTIONS,
    PORT,
    SERVE,
    HostsFile,
    HostsFileError,
    Peer,
    address_of,
    parse,
    ring,
)

BIRCH = Peer("birch", "192.0.2.12", 8)
CEDAR = Peer("cedar", "2001:db8::13", 4, 3633, ("lzo", "cpp"))
DOGWOOD = Peer("dogwood", "192.0.2.14", 2, ssh=True)
ELM = Peer("elm", "2001:db8::15", 2, ssh=True)


def _peers(ports: st.SearchStrategy[int], ssh: bool) -> st.SearchStrategy[Peer]:
    return st.builds(
        Peer,
        st.from_regex(r"[a-z][a-z0-9.-]{0,20}", fullmatch=True),
        st.ip_addresses(network="192.0.2.0/24").map(str) | st.ip_addresses(network="2001:db8::/32").map(str),
        st.integers(1, MOST_SLOTS),
        ports,
        st.sampled_from([(), ("lzo",), ("lzo", "cpp")]),
        st.just(ssh),
    )


peers = _peers(st.integers(1, 65535), False) | _peers(st.just(PORT), True)
files = st.builds(HostsFile, st.integers(1, MOST_SLOTS), st.lists(peers, max_size=5).map(tuple))


def test_the_text() -> None:
    assert HostsFile(2, (BIRCH, CEDAR)).text(["project engine", "two\nlines"]) == (
        "# project engine\n"
        "# two lines\n"
        "--localslots=2 --localslots_cpp=8\n"
        "localhost/2\n"
        "192.0.2.12/8,lzo               # birch\n"
        "[2001:db8::13]:3633/4,lzo,cpp  # cedar\n"
    )
    assert HostsFile(2, (DOGWOOD, ELM)).words().split()[3:] == [
        f"@192.0.2.14/2:{SERVE},lzo",
        f"@2001-db8--15/2:{SERVE},lzo",
    ]


@given(files)
def test_what_is_written_is_read(file: HostsFile) -> None:
    assert parse(file.text(["words # and more"])) == file


@given(files)
def test_without_comments_only_words_of_distcc_are_left(file: HostsFile) -> None:
    words = file.words().split()
    assert len(words) == 3 + len(file.peers)
    assert "#" not in file.words()
    assert file.words(here=False).split() == [word for word in words if not word.startswith("localhost")]
    assert file.slots == file.localslots + sum(peer.slots for peer in file.peers)


@pytest.mark.skipif(not shutil.which("distcc"), reason="distcc is not installed")
def test_distcc_reads_all_of_it(tmp_path: Path) -> None:
    environment = {
        "DISTCC_HOSTS": HostsFile(2, (BIRCH, CEDAR, DOGWOOD, ELM)).words(),
        "DISTCC_DIR": str(tmp_path),
        "PATH": "/usr/bin:/bin",
    }
    done = subprocess.run(
        ["distcc", "--show-hosts"], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""
    assert len(done.stdout.split()) == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "birch\nevil"),
        ("name", "#"),
        ("name", ""),
        ("address", "4 @root@evil/64:/x #"),
        ("address", "evil.example"),
        ("address", "127.0.0.1"),
        ("address", "0.0.0.0"),
        ("address", "::1"),
        ("address", "::2"),  # ssh would take it for an option
        ("address", "224.0.0.1"),
        ("address", "fe80::1%eth0"),
        ("address", "192.0.2.012"),
        ("address", "2001:DB8::13"),
        ("slots", 0),
        ("slots", MOST_SLOTS + 1),
        ("slots", "4"),
        ("slots", True),
        ("port", 0),
        ("port", 65536),
        ("options", ("auth",)),
        ("options", ("cpp",)),
        ("options", ("lzo", "lzo")),
    ],
)
def test_a_field_that_could_mean_something_else_is_refused(field: str, value: object) -> None:
    good = {"name": "birch", "address": "192.0.2.12", "slots": 8, "port": 3632, "options": ("lzo",)}
    with pytest.raises(HostsFileError):
        Peer(**{**good, field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "192.0.2.12/8\n",
        "localhost/2\n192.0.2.12:notaport/4\n",
        "localhost/2\n@birch/4\n",
        "localhost/2\n@192.0.2.14/4\n",
        "localhost/2\n@192.0.2.14/4:/bin/sh,lzo\n",
        "localhost/2\nroot@192.0.2.14/4:/usr/local/lib/d1fleet/distcc/serve\n",
        "localhost/2\n@-oProxyCommand=x/4:/usr/local/lib/d1fleet/distcc/serve\n",
        "localhost/2\n@--1/4:/usr/local/lib/d1fleet/distcc/serve\n",
        "localhost/2\nbirch/4\n",
        "localhost/2\n192.0.2.12/0\n",
        "localhost/2\n192.0.2.12/8,gzip\n",
        "localhost/2 --randomize\n",
        "--localslots=0 localhost/0\n",
    ],
)
def test_a_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(HostsFileError):
        parse(text)


def test_an_entry_without_a_comment_is_called_by_its_address() -> None:
    (peer,) = parse("localhost/2 192.0.2.12/8").peers
    assert peer == Peer("192.0.2.12", "192.0.2.12", 8, options=())


@given(st.integers(0, 12))
def test_each_member_begins_with_another(count: int) -> None:
    members = [Peer(f"h{number}", f"192.0.2.{number + 1}", 2) for number in range(count)]
    rings = {peer.name: ring(peer.name, members) for peer in members}
    for name, found in rings.items():
        assert sorted(each.name for each in found) == sorted(set(rings) - {name})
    firsts = Counter(found[0].name for found in rings.values() if found)
    assert all(times == 1 for times in firsts.values())


def test_over_ssh_there_is_no_port() -> None:
    with pytest.raises(HostsFileError):
        Peer("elm", "192.0.2.15", 2, 3633, ssh=True)


def test_who_is_no_member_gets_all() -> None:
    assert ring("alder", [BIRCH, CEDAR]) == (BIRCH, CEDAR)


def test_addresses_are_written_in_one_way() -> None:
    assert address_of("2001:DB8:0::13") == "2001:db8::13"
    assert OPTIONS == ("lzo", "cpp")
