"""What members of a project are told of each other."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from d1fleet.hostsfile import HostsFile, Peer, parse
from d1fleet.registry.documents import Document, OldClient, document, reference
from d1fleet.registry.model import Host, Project

ENGINE = Project("engine", ("192.0.2.0/24",))
GCC, CLANG = {"cc": "gcc 12.2.0"}, {"cc": "clang 14.0.6"}


def host(number: int, **values: Any) -> Host:
    given = {
        "id": f"{number:032x}",
        "name": f"h{number}",
        "projects": ("engine",),
        "address": f"192.0.2.{number}",
        "slots": number,
        "toolchain": GCC,
        "joined_at": float(number),
        **values,
    }
    return Host(**given)


def of(hosts: list[Host], project: Project = ENGINE, old: tuple[OldClient, ...] = ()) -> Document:
    return document(project, hosts, frozenset(each.id for each in hosts if not each.gone), old)


def contents(found: Document) -> dict[str, Any]:
    return dict(json.loads(found.text))


def test_all_that_compile_are_peers_with_their_slots_in_the_order_in_which_they_joined() -> None:
    found = contents(of([host(1), host(2, port=3700)]))
    assert [(each["name"], each["address"], each["slots"], each["port"]) for each in found["peers"]] == [
        ("h1", "192.0.2.1", 1, 3632),
        ("h2", "192.0.2.2", 2, 3700),
    ]
    assert found["members"] == ["192.0.2.1", "192.0.2.2"]
    assert found["left_out"] == {}


def test_a_document_becomes_a_hosts_file() -> None:
    found = contents(of([host(1), host(2)]))
    peers = tuple(
        Peer(each["name"], each["address"], each["slots"], each["port"], tuple(each["options"]))
        for each in found["peers"]
    )
    assert parse(HostsFile(4, peers).text()).peers == peers


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"drained": True}, "drained by an operator"),
        ({"serving": False}, "its compile server does not answer"),
        ({"toolchain": CLANG}, "cc: clang 14.0.6, the project has gcc 12.2.0"),
        ({"toolchain": {}}, "nothing is known of its compilers"),
    ],
)
def test_who_does_not_compile_for_others_may_still_send_work(values: dict[str, Any], why: str) -> None:
    found = contents(of([host(1), host(2), host(3, **values)]))
    assert [each["name"] for each in found["peers"]] == ["h1", "h2"]
    assert found["left_out"] == {"h3": why}
    assert "192.0.2.3" in found["members"]


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"address": "", "note": "its address 203.0.113.9 is in none"}, "its address 203.0.113.9 is in none"),
        ({"address": ""}, "no address is known by which peers could reach it"),
        ({"address": "203.0.113.9"}, "its address 203.0.113.9 is in none of the ranges of engine"),
        ({"address": "127.0.0.1"}, "its address 127.0.0.1 is in none of the ranges of engine"),
    ],
)
def test_who_cannot_be_reached_is_let_in_nowhere(values: dict[str, Any], why: str) -> None:
    found = contents(of([host(1), host(2, **values)]))
    assert [each["name"] for each in found["peers"]] == ["h1"]
    assert found["members"] == ["192.0.2.1"]
    assert found["left_out"] == {"h2": why}


def test_who_is_away_is_not_mentioned() -> None:
    found = contents(of([host(1), host(2, gone=True)]))
    assert found["members"] == ["192.0.2.1"]
    assert found["left_out"] == {}


def test_compilers_do_not_matter_where_the_project_says_so() -> None:
    found = contents(of([host(1), host(2, toolchain=CLANG)], replace(ENGINE, toolchain_mismatch="ignore")))
    assert [each["name"] for each in found["peers"]] == ["h1", "h2"]


def test_the_toolchain_is_what_most_have_also_of_those_that_are_away() -> None:
    hosts = [host(1, toolchain=CLANG), host(2, gone=True), host(3)]
    assert reference(hosts) == GCC
    assert [each["name"] for each in contents(of(hosts))["peers"]] == ["h3"]


def test_of_as_many_votes_that_of_the_first_to_join_counts() -> None:
    assert reference([host(2), host(1, toolchain=CLANG)]) == CLANG
    assert reference([host(1, toolchain={})]) == {}


def test_over_ssh_peers_come_with_their_keys_and_by_tcp_without() -> None:
    keys = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA",)
    over_ssh = contents(of([host(1, host_keys=keys, ssh_port=2222)], replace(ENGINE, transport="ssh")))
    assert over_ssh["peers"][0]["host_keys"] == list(keys)
    assert (over_ssh["peers"][0]["transport"], over_ssh["peers"][0]["ssh_port"]) == ("ssh", 2222)
    assert over_ssh["members"] == [], "they come by a login, not to a port of distcc's"
    assert contents(of([host(1, host_keys=keys)]))["peers"][0]["host_keys"] == []


def test_other_compilers_are_said_before_what_keeps_nobody_from_sending_work() -> None:
    found = contents(of([host(1), host(2), host(3, drained=True, serving=False, toolchain=CLANG)]))
    assert "clang" in found["left_out"]["h3"]


OLD = OldClient("engine", "192.0.2.77", 8, "bob", "0.0.6", "h" * 32, 0.0)


def test_old_clients_may_send_work_and_compile_only_where_compilers_do_not_matter() -> None:
    found = contents(of([host(1)], old=(OLD,)))
    assert found["members"] == ["192.0.2.1", "192.0.2.77"]
    assert [each["name"] for each in found["peers"]] == ["h1"]
    assert "old client" in found["left_out"]["old-client-192.0.2.77"]
    found = contents(of([host(1)], replace(ENGINE, toolchain_mismatch="ignore"), (OLD,)))
    assert [(each["name"], each["slots"]) for each in found["peers"]] == [
        ("h1", 1),
        ("old-client-192.0.2.77", 8),
    ]


def test_equal_contents_have_one_revision_and_others_another() -> None:
    first = of([host(1), host(2)])
    assert first.revision == of([host(1), host(2, owner="bob", system="Debian", seen_at=9.0)]).revision
    for other in (host(2, slots=9), host(2, address="192.0.2.9"), host(2, drained=True), host(3)):
        assert of([host(1), other]).revision != first.revision
