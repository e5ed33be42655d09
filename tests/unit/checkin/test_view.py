"""What a host knows of its peers, and what follows for its files. Pure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from d1fleet.checkin import answer, view
from d1fleet.checkin.strictjson import BadDocumentError
from d1fleet.checkin.view import Own, View
from tests.unit.checkin.documents import ALDER, BIRCH, NETWORKS, changed, host_key, peer, project
from tests.unit.checkin.documents import answer as make

OWN = Own(4, 3632, frozenset(["192.0.2.11"]))


def read(value: Any) -> answer.Answer:
    return answer.read(json.dumps(value).encode(), NETWORKS)


def taken(*answers: dict[str, Any]) -> View:
    found = View()
    for each in answers:
        found.take(read(each))
    return found


def names(request: dict[str, Any], of: str = "engine") -> list[str]:
    return [each["name"] for each in request["projects"][of]["peers"]]


def test_what_is_told_is_asked_for() -> None:
    found = taken(make())
    request = found.request(OWN)
    assert (request["name"], request["slots"]) == ("alder", 4)
    assert request["projects"]["engine"] == {
        "peers": project()["peers"],
        "members": project()["members"],
        "left_out": {},
    }
    assert found.known() == {"engine": "r1"}


def test_only_news_is_news() -> None:
    found = View()
    assert found.take(read(make()))
    assert not found.take(read(make(projects={}, all=["engine"])))
    assert found.known() == {"engine": "r1"}
    assert found.take(read(make(projects={}, all=["engine"], name="elder")))
    assert found.take(read(make(projects={"engine": project([ALDER], "r2")})))
    assert names(found.request(OWN)) == ["alder"]


def test_a_project_that_was_left_is_gone() -> None:
    two = make(projects={"engine": project(), "firmware": project(revision="f1")})
    found = taken(two)
    assert found.known() == {"engine": "r1", "firmware": "f1"}
    assert found.take(read(make(projects={}, all=["firmware"])))
    assert list(found.request(OWN)["projects"]) == ["firmware"]


def test_an_answer_that_leaves_something_out_changes_nothing() -> None:
    found = taken(make())
    before = found.request(OWN)
    with pytest.raises(BadDocumentError, match="nothing of project firmware"):
        found.take(read(make(projects={"engine": project(revision="r9")}, all=["engine", "firmware"])))
    assert (found.request(OWN), found.known()) == (before, {"engine": "r1"})


def test_who_is_thrown_out_is_alone_and_asks_for_everything_when_he_is_back() -> None:
    found = taken(make())
    assert found.withdraw()
    assert found.request(OWN)["projects"] == {"engine": {"peers": [], "members": [], "left_out": {}}}
    assert found.known() == {}
    assert not found.withdraw()
    with pytest.raises(BadDocumentError):
        found.take(read(make(projects={}, all=["engine"])))
    assert found.take(read(make()))
    assert len(names(found.request(OWN))) == 3


@pytest.mark.parametrize("reason", answer.STILL_SENDS)
def test_who_compiles_for_nobody_may_send(reason: str) -> None:
    found = taken(make(projects={"engine": project([BIRCH], left_out={"alder": reason})}))
    assert names(found.request(OWN)) == ["birch"]


@pytest.mark.parametrize(
    "reason", ["cc: gcc 14, the project has gcc 12", "nothing is known of its compilers"]
)
def test_who_has_another_toolchain_sends_nothing(reason: str) -> None:
    found = taken(make(projects={"engine": project([BIRCH], left_out={"alder": reason, "cedar": "x"})}))
    asked = found.request(OWN)["projects"]["engine"]
    assert asked == {"peers": [], "members": ["192.0.2.12"], "left_out": {"alder": reason}}


def test_peers_that_do_not_answer_are_left_out_and_stay_members() -> None:
    found = taken(make())
    asked = found.request(OWN, {("2001:db8::13", 3633), ("192.0.2.12", 3633)})["projects"]["engine"]
    assert [each["name"] for each in asked["peers"]] == ["alder", "birch"]
    assert asked["left_out"] == {"cedar": view.SILENT}
    assert len(asked["members"]) == 3


def test_a_host_by_another_name_is_not_its_own_peer() -> None:
    mirror = peer("mirror", "192.0.2.11")
    found = taken(
        make(projects={"engine": project([ALDER, BIRCH, mirror, peer("far", "192.0.2.11", port=1)])})
    )
    asked = found.request(OWN)["projects"]["engine"]
    assert [each["name"] for each in asked["peers"]] == ["alder", "birch", "far"]
    assert asked["left_out"] == {"mirror": view.ITSELF}


def test_over_ssh_nobody_is_let_in() -> None:
    ssh = peer("dogwood", "192.0.2.14", transport="ssh", host_keys=[host_key()])
    for left_out in ({}, {"alder": "cc: gcc 14"}):
        found = taken(make(projects={"engine": project([ssh], left_out=left_out)}))
        assert found.request(OWN)["projects"]["engine"]["members"] == []


def test_who_is_probed() -> None:
    ssh = peer("dogwood", "192.0.2.14", transport="ssh", host_keys=[host_key()])
    two = {"engine": project([ALDER, BIRCH, ssh]), "firmware": project([BIRCH, peer("elm", "192.0.2.15")])}
    assert taken(make(projects=two)).targets(OWN) == [("192.0.2.12", 3632), ("192.0.2.15", 3632)]


def test_what_is_kept_comes_back_and_is_not_said_to_be_known() -> None:
    first = taken(make())
    second = View()
    second.restore(json.loads(json.dumps(first.document())), NETWORKS)
    assert second.request(OWN) == first.request(OWN)
    assert second.known() == {}
    second.take(read(make()))
    assert second.known() == {"engine": "r1"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), None),
        (("name",), "@evil"),
        (("projects",), {"..": {}}),
        (("projects", "engine", "peers", 0, "address"), "203.0.113.1"),
        (("projects", "engine", "members"), ["127.0.0.1"]),
    ],
)
def test_what_was_kept_is_looked_at_again(path: tuple[Any, ...], value: Any) -> None:
    found = View()
    with pytest.raises(BadDocumentError):
        found.restore(changed(taken(make()).document(), path, value), NETWORKS)
    assert (found.name, found.news) == ("", {})
