"""This machine as a host of a registry: what is there, how it joins, what is asked, what Ansible is given."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d1fleet import membership
from d1fleet.errors import HostError, RegistryError, ToolError
from d1fleet.membership import Places, here, standing
from d1fleet.registryclient import Registry
from d1fleet.registryplace import Place, read_place
from tests.support.pretended import pretended
from tests.support.registryservice import Service, service

CREDENTIAL = "c" * 40


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(str(tmp_path / "root"))


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


# What is there


def test_a_machine_that_has_not_joined(places: Places) -> None:
    found = here(places)
    assert (found.registry, found.credential, found.notes, found.projects) == ("", "", None, ())
    assert not found.joined


def test_one_that_has(places: Places) -> None:
    write(places.config, '{"registry": "https://a:33333", "certificate": "/etc/d1fleet/registry.pem"}')
    assert not here(places).joined
    write(places.state / "credential", f"{CREDENTIAL}\n")
    write(places.mark, '{"name": "", "projects": ["engine"]}')
    write(places.notes, '{"name": "alder"}')
    found = here(places)
    assert found.joined
    assert (found.registry, found.certificate) == ("https://a:33333", "/etc/d1fleet/registry.pem")
    assert (found.credential, found.notes, found.projects) == (CREDENTIAL, {"name": "alder"}, ("engine",))
    assert CREDENTIAL not in repr(found)


@pytest.mark.parametrize("text", ["", "[]", "{", "\x00", "[" * 100_000, '{"projects": 1}'])
def test_files_that_are_broken_say_nothing(places: Places, text: str) -> None:
    for file in (places.config, places.mark, places.notes):
        write(file, text)
    found = here(places)
    assert (found.registry, found.projects) == ("", ())
    assert found.notes is not None  # somebody has joined by `d1fleet join`


def test_notes_are_kept(places: Places) -> None:
    membership.keep_notes(places, {"name": "alder"})
    assert here(places).notes == {"name": "alder"}
    assert stat.S_IMODE(places.notes.stat().st_mode) == 0o644


# To join, by the service itself


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("registry") / "data", tls=True) as found:
        yield found


@pytest.fixture
def operator(real: Service) -> Iterator[Registry]:
    found = Registry(Place(socket=str(real.socket)))
    for name in ("engine", "firmware"):
        found.post("/admin/projects", {"name": name, "ranges": ["192.0.2.0/24"]})
    yield found
    for name in ("engine", "firmware"):
        found.delete(f"/admin/projects/{name}", with_hosts="true")
    for host in found.get("/admin/hosts"):
        found.post(f"/admin/hosts/{host['name']}/forget")


def token(operator: Registry, project: str) -> str:
    return str(operator.post(f"/admin/projects/{project}/tokens", {})["token"])


def join(places: Places, real: Service, text: str, **settings: Any) -> None:
    place = read_place(real.url, real.certificate)
    membership.join(places, place, real.certificate, "alder", text, settings)


def as_host(places: Places, real: Service) -> Registry:
    credential = (places.state / "credential").read_text().strip()
    return Registry(read_place(real.url, real.certificate), credential)


def test_a_host_joins_and_joins_a_further_project(places: Places, real: Service, operator: Registry) -> None:
    first = token(operator, "engine")
    join(places, real, first, owner="ada", slots=3)
    assert stat.S_IMODE(places.state.stat().st_mode) == 0o700
    file = places.state / "credential"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = standing(as_host(places, real))
    assert (found.name, found.state, found.ranges) == ("alder", "up", ["192.0.2.0/24"])
    assert found.projects == {"engine": (("192.0.2.0/24",), ())}
    assert "engine: " in found.message
    (host,) = operator.get("/admin/hosts")
    assert (host["name"], host["owner"], host["slots"]) == ("alder", "ada", 3)

    before = file.read_text()
    join(places, real, first)  # again, after what came behind it has failed
    assert file.read_text() == before
    join(places, real, token(operator, "firmware"))
    assert list(standing(as_host(places, real)).projects) == ["engine", "firmware"]
    assert len(operator.get("/admin/hosts")) == 1


def test_what_is_kept_stays_its_users(places: Places, real: Service, operator: Registry) -> None:
    """The check-in runs as a user of its own, to whom the folder belongs once it is installed."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    places.state.mkdir(0o700, parents=True)
    os.chown(places.state, 12345, 12346)
    join(places, real, token(operator, "engine"))
    for name in ("credential", "joined"):
        status = (places.state / name).stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 12346, 0o600)


def test_links_in_that_users_folder_lead_nowhere(places: Places, real: Service, operator: Registry) -> None:
    places.state.mkdir(0o700, parents=True)
    victim = Path(places.root, "victim")
    victim.write_text("root's")
    (places.state / "joined").symlink_to(victim)
    join(places, real, token(operator, "engine"))
    assert victim.read_text() == "root's"
    assert not (places.state / "joined").is_symlink()


def test_a_void_token(places: Places, real: Service, operator: Registry) -> None:
    text = "d1j_0123abcd_" + "x" * 43
    with pytest.raises(RegistryError, match="this join token is not valid") as caught:
        join(places, real, text)
    assert "d1fleet registry token create" in caught.value.mend
    assert text not in str(caught.value)
    assert list(places.state.iterdir()) == []


def test_what_is_no_token(places: Places, real: Service) -> None:
    with pytest.raises(RegistryError) as caught:
        join(places, real, "hunter2")
    assert "hunter2" not in str(caught.value)


def test_a_registry_that_is_away(places: Places, real: Service) -> None:
    with pytest.raises(RegistryError) as caught:
        membership.join(places, read_place("http://127.0.0.1:1"), "", "alder", "d1j_0123abcd_" + "x" * 43, {})
    assert caught.value.message


# What the registry says of this host


ANSWER: dict[str, Any] = {
    "name": "alder",
    "state": "up",
    "message": "",
    "projects": {"engine": {"ranges": ["192.0.2.0/24"], "peers": [{"name": "alder"}, {"name": "birch"}]}},
}


def stand(answer: Any) -> membership.Standing:
    with pretended() as served:
        served.answers["POST /api/v1/wait"] = answer
        found = standing(Registry(read_place(served.url), CREDENTIAL))
        assert served.asked[0].headers["Authorization"] == f"Bearer {CREDENTIAL}"
        return found


def test_its_standing() -> None:
    assert stand(ANSWER).projects == {"engine": (("192.0.2.0/24",), ("birch",))}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "{{ x }}"},
        {"name": "a b"},
        {"name": None},
        {"projects": []},
        {"projects": {"{{ lookup('pipe', 'id') }}": ANSWER["projects"]["engine"]}},
        {"projects": {"all": ANSWER["projects"]["engine"]}},
        {"projects": {"engine": {"ranges": ["{{ x }}"], "peers": []}}},
        {"projects": {"engine": {"ranges": ["0.0.0.0/0"], "peers": []}}},
        {"projects": {"engine": {"ranges": ["192.0.2.0/24"], "peers": [1]}}},
        {"projects": {"engine": None}},
    ],
)
def test_a_hostile_answer_gets_no_further(changes: dict[str, Any]) -> None:
    """Names and networks stand in an inventory that Ansible reads as root, where templates are run."""
    with pytest.raises(RegistryError, match="does not answer as a registry"):
        stand({**ANSWER, **changes})


# Ansible


def test_an_inventory_of_one() -> None:
    found = membership.inventory("alder", ("engine", "firmware"), {"d1fleet_nice": 5})
    assert found["projects"]["vars"] == {"d1fleet_nice": 5}
    assert list(found["projects"]["children"]) == ["engine", "firmware"]
    (host,) = found["projects"]["children"]["engine"]["hosts"].items()
    assert host[0] == "alder" and host[1]["ansible_connection"] == "local"


@pytest.fixture
def ansible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for ansible-playbook, and notes what it was given."""
    program = tmp_path / "ansible-playbook"
    program.write_text(
        "#!/bin/sh\n"
        'cp "$2" "$0.inventory"; ls -l "$2" > "$0.mode"; cp "$ANSIBLE_CONFIG" "$0.config"\n'
        'ls "$ANSIBLE_COLLECTIONS_PATH"/ansible_collections/d1/fleet/playbooks > "$0.playbooks"\n'
        'env > "$0.environ"; echo "$*" > "$0.words"\n'
        'exit "${ANSIBLE_EXIT:-${EXIT:-0}}"\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(membership, "find_ansible", lambda: str(program))
    return program


def noted(program: Path, what: str) -> str:
    return program.with_name(f"{program.name}.{what}").read_text()


def test_a_playbook_is_run(ansible: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_EXIT", "9")  # nothing of Ansible's in our environment counts
    membership.play("join", {"a": "{{ b }}"}, "--check")
    assert json.loads(noted(ansible, "inventory")) == {"a": "{{ b }}"}
    assert noted(ansible, "mode").startswith("-rw-------")
    assert noted(ansible, "words").split()[2:] == ["d1.fleet.join", "--check"]
    assert "join.yml" in noted(ansible, "playbooks").split()
    assert "any_unparsed_is_failed = True" in noted(ansible, "config")


def test_one_that_fails(ansible: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXIT", "2")
    with pytest.raises(HostError, match=r"d1\.fleet\.leave ended with 2"):
        membership.play("leave", {})


def test_ansible_is_found_beside_us_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert membership.find_ansible().endswith("/ansible-playbook")
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolError, match="no ansible-playbook"):
        membership.find_ansible()
