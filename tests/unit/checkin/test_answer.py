"""An answer is taken as it was agreed on, or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d1fleet.checkin import answer, values
from d1fleet.checkin.answer import Answer, Refusal
from d1fleet.checkin.strictjson import BadDocumentError
from d1fleet.registry import model, pool
from d1fleet.registry.documents import document
from tests.unit.checkin.documents import (
    ALDER,
    EVIL_TEXTS,
    NETWORKS,
    changed,
    host_key,
    json_values,
    paths,
    peer,
    project,
)
from tests.unit.checkin.documents import answer as make


def read(value: Any) -> Answer:
    return answer.read(json.dumps(value).encode(), NETWORKS)


def test_a_good_one() -> None:
    found = read(make(credential="c" * 40))
    assert (found.name, found.state, found.every, found.beat_s) == ("alder", "up", ("engine",), 15.0)
    engine = found.news["engine"]
    assert engine.revision == "r1"
    assert [str(entry.peer) for entry in engine.project.entries] == [
        "192.0.2.11/4,lzo",
        "192.0.2.12/8,lzo",
        "[2001:db8::13]:3633/4,lzo,cpp",
    ]
    assert list(map(str, engine.project.members)) == ["192.0.2.11", "192.0.2.12", "2001:db8::13"]
    assert found.credential == "c" * 40


def test_what_the_registry_makes_is_taken() -> None:
    """Of each kind of host."""
    made = model.Project("engine", ("192.0.2.0/24",), transport="ssh")
    gcc = {"cc": "gcc 12.2.0"}
    hosts = [
        model.Host("1" * 32, "alder", ("engine",), address="192.0.2.11", host_keys=(host_key(),)),
        model.Host("2" * 32, "birch", ("engine",), address="192.0.2.12", drained=True, toolchain=gcc),
        model.Host("3" * 32, "cedar", ("engine",), address="192.0.2.13", serving=False, toolchain=gcc),
        model.Host("4" * 32, "dogwood", ("engine",), note="its address is in none of the ranges"),
    ]
    alive = frozenset(host.id for host in hosts)
    text = json.loads(document(made, hosts, alive).text)
    found = read(make(projects={"engine": text})).news["engine"].project
    assert set(found.left_out) == {"alder", "birch", "cedar", "dogwood"}  # nothing is known of compilers
    assert {found.left_out["birch"], found.left_out["cedar"]} == set(answer.STILL_SENDS)
    loose = model.Project("engine", ("192.0.2.0/24",), transport="ssh", toolchain_mismatch="ignore")
    text = json.loads(document(loose, hosts, alive).text)
    (entry,) = read(make(projects={"engine": text})).news["engine"].project.entries
    assert entry.peer.ssh and entry.host_keys == (host_key(),)


def test_beats_and_states_are_the_registrys() -> None:
    timing = pool.Timing()
    assert (timing.beat_s, timing.jitter, timing.gone_after_s) == (15.0, 0.2, 40.0)
    assert {each.value for each in model.State} == set(answer.STATES)


BAD: list[tuple[tuple[Any, ...], Any]] = [
    (("beat_s",), 0.01),
    (("beat_s",), 1e9),
    (("beat_s",), "15"),
    (("beat_s",), True),
    (("jitter",), 1.5),
    (("jitter",), -0.1),
    (("gone_after_s",), 1.0),
    (("name",), "Alder"),
    (("name",), "localhost"),
    (("state",), "fine"),
    (("epoch",), ""),
    (("all",), []),
    (("all",), ["engine", "engine"]),
    (("all",), ["../x"]),
    (("all",), [f"p{number}" for number in range(65)]),
    (("message",), "\x1b[2J"),
    (("projects",), []),
    (("projects", "engine", "revision"), "a b"),
    (("projects", "engine", "ranges"), ["0.0.0.0/0"]),
    (("projects", "engine", "members"), ["203.0.113.1"]),
    (("projects", "engine", "members"), ["127.0.0.1"]),
    (("projects", "engine", "members"), "192.0.2.1"),
    (("projects", "engine", "left_out"), {"a b": "x"}),
    (("projects", "engine", "left_out"), {"birch": "x\n@evil"}),
    (("projects", "engine", "left_out"), {"birch": 1}),
    (("projects", "engine", "peers"), [ALDER, ALDER]),
    (("projects", "engine", "peers", 0, "address"), "203.0.113.1"),
    (("projects", "engine", "peers", 0, "address"), "127.0.0.1"),
    (("projects", "engine", "peers", 0, "address"), "192.0.2.1/24"),
    (("projects", "engine", "peers", 0, "address"), "evil.example"),
    (("projects", "engine", "peers", 0, "name"), "@evil"),
    (("projects", "engine", "peers", 0, "name"), "a\nb"),
    (("projects", "engine", "peers", 0, "slots"), 0),
    (("projects", "engine", "peers", 0, "slots"), "4 @root@evil/64:/x #"),
    (("projects", "engine", "peers", 0, "slots"), 4097),
    (("projects", "engine", "peers", 0, "port"), 65536),
    (("projects", "engine", "peers", 0, "port"), 0),
    (("projects", "engine", "peers", 0, "options"), ["cpp"]),
    (("projects", "engine", "peers", 0, "options"), ["lzo", "auth"]),
    (("projects", "engine", "peers", 0, "options"), "lzo"),
    (("projects", "engine", "peers", 0, "transport"), "http"),
    (("projects", "engine", "peers", 0, "host_keys"), ["* ssh-ed25519 AAAA"]),
    (("projects", "engine", "peers", 0, "host_keys"), [host_key()] * 9),
]


@pytest.mark.parametrize(("path", "value"), BAD)
def test_one_bad_value_and_nothing_is_taken(path: tuple[Any, ...], value: Any) -> None:
    with pytest.raises(BadDocumentError):
        read(changed(make(), path, value))


@pytest.mark.parametrize("path", [path for path in paths(make()) if path and isinstance(path[-1], str)])
def test_each_member_has_to_be_there(path: tuple[Any, ...]) -> None:
    if path == ("projects", "engine"):
        return  # what is no news is left out
    document = make()
    holder: Any = document
    holder = json.loads(json.dumps(document))
    inside = holder
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    with pytest.raises(BadDocumentError):
        read(holder)


@pytest.mark.parametrize("path", [(), ("projects", "engine"), ("projects", "engine", "peers", 0)])
def test_a_member_that_nobody_knows(path: tuple[Any, ...]) -> None:
    document = make()
    inside: Any = document
    for key in path:
        inside = inside[key]
    with pytest.raises(BadDocumentError, match="which nobody knows"):
        read(changed(document, path, {**inside, "command": "rm"}))


@settings(max_examples=400)
@given(st.sampled_from(paths(make(credential="c" * 40))), json_values | st.sampled_from(EVIL_TEXTS))
def test_whatever_is_changed_what_is_taken_is_sound(path: tuple[Any, ...], value: Any) -> None:
    try:
        found = read(changed(make(credential="c" * 40), path, value))
    except BadDocumentError as error:
        assert str(error).isprintable() and len(str(error)) < 500
        return
    assert 1 <= found.beat_s <= 3600 and set(found.news) <= set(found.every)
    assert found.credential == "" or values.CREDENTIAL.fullmatch(found.credential)
    for each in found.news.values():
        for address in each.project.members:
            assert values.may_be_peer(address, NETWORKS)
        for entry in each.project.entries:
            assert values.may_be_peer(values.address(entry.peer.address, "it"), NETWORKS)
            assert len(str(entry.peer).split()) == 1 and "#" not in str(entry.peer)


def test_too_many_peers() -> None:
    many = [peer(f"h{number}", f"192.0.2.{number % 250 + 1}", port=3000 + number) for number in range(5001)]
    assert read(make(projects={"engine": project(many[:5000], members=[])}))
    with pytest.raises(BadDocumentError, match="more than 5000"):
        read(make(projects={"engine": project(many, members=[])}))


@pytest.mark.parametrize(
    ("status", "code", "outcast"),
    [
        (401, "credential", True),
        (403, "expunged", True),
        (403, "cloned", True),
        (403, "left", True),
        (403, "projects", False),
        (403, "address", False),
        (409, "replayed", False),
        (409, "host_key", False),
        (429, "credential", False),
        (503, "database", False),
    ],
)
def test_only_some_refusals_are_certain(status: int, code: str, outcast: bool) -> None:
    found = answer.read_refusal(status, json.dumps({"error": {"code": code, "message": "why"}}).encode())
    assert found == Refusal(status, code, "why")
    assert found.is_outcast is outcast
    assert str(found) == f"why ({code})"


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"<html>", b'{"error": "x"}', b'{"error": {"code": 1, "message": ""}}']
)
def test_a_proxys_refusal_says_nothing_of_us(data: bytes) -> None:
    with pytest.raises(BadDocumentError):
        answer.read_refusal(403, data)
