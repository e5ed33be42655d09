"""The inventory of a registry: what Ansible gets of it, and what of a hostile one never reaches Ansible."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.errors import AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader

from d1fleet.registrytls import pin_of
from tests.support.pretended import (
    INVENTORY,
    KEY,
    Certificate,
    Pretended,
    make_certificate,
    pretended,
    scripted,
)

ROOT = Path(__file__).parents[2]
ASKED = "GET /api/v1/admin/inventory"


def load_plugin() -> ModuleType:
    """The file as it is, without what Ansible's loader adds."""
    spec = importlib.util.spec_from_file_location("registry_plugin", ROOT / "plugins/inventory/registry.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


plugin = load_plugin()


def changed(**changes: Any) -> dict[str, Any]:
    """The answer, with other values at paths such as `hosts__alder__slots`; `...` removes."""
    answer: dict[str, Any] = copy.deepcopy(INVENTORY)
    for path, value in changes.items():
        *way, last = path.split("__")
        at = answer
        for each in way:
            at = at[each]
        if value is ...:
            del at[last]
        else:
            at[last] = value
    return answer


def host(**changes: Any) -> dict[str, Any]:
    return {**INVENTORY["hosts"]["alder"], "projects": ["engine"], **changes}


class Read:
    """Reads an inventory in this process, as Ansible does; options are given instead of looked up."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "x.d1fleet.yml"
        self.options: dict[str, str | None] = dict.fromkeys(("url", "key_file", "certificate", "pin"))
        self.inventory = InventoryData()
        self.warnings: list[str] = []
        read, kind = self, plugin.InventoryModule

        def read_config_data(self: Any, path: str) -> dict[str, Any]:
            return {name: value for name, value in read.options.items() if value is not None}

        monkeypatch.setattr(kind, "_read_config_data", read_config_data)
        monkeypatch.setattr(kind, "get_option", lambda self, name: read.options[name])

    def __call__(self) -> InventoryData:
        module = plugin.InventoryModule()
        module.display = self
        module.parse(self.inventory, DataLoader(), str(self.file))
        return self.inventory

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def served() -> Iterator[Pretended]:
    with pretended() as found:
        found.answers[ASKED] = INVENTORY
        yield found


@pytest.fixture
def read(tmp_path: Path, served: Pretended, monkeypatch: pytest.MonkeyPatch) -> Read:
    (tmp_path / "key").write_text(f"{KEY}\n")
    found = Read(tmp_path, monkeypatch)
    found.options |= {"url": served.url, "key_file": "key"}
    return found


@contextmanager
def socket_that_takes_all() -> Iterator[int]:
    """A port where somebody listens and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def fault(read: Callable[[], object]) -> str:
    """What is said instead of an inventory: one line, printable, with the file in front."""
    with pytest.raises(AnsibleParserError) as caught:
        read()
    text = str(caught.value)
    assert text.isprintable() and len(text) < 500, text
    assert "x.d1fleet.yml: " in text
    return text


# What it makes of an answer


def test_projects_and_hosts(read: Read, served: Pretended) -> None:
    found = read()
    assert served.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert sorted(child.name for child in found.groups["projects"].child_groups) == ["engine", "firmware"]
    assert [host.name for host in found.groups["engine"].hosts] == ["alder", "birch"]
    assert found.groups["engine"].vars == {
        "d1fleet_distcc_transport": "tcp",
        "d1fleet_distcc_options": ["lzo"],
    }
    assert found.groups["firmware"].vars == {"d1fleet_distcc_transport": "ssh", "d1fleet_distcc_options": []}
    variables = {**found.hosts["alder"].vars}
    del variables["inventory_file"], variables["inventory_dir"]
    assert variables == {
        "ansible_host": "192.0.2.10",
        "d1fleet_address": "192.0.2.10",
        "d1fleet_slots": 8,
        "d1fleet_distcc_networks": ["192.0.2.0/24", "198.51.100.0/24", "2001:db8::/64"],
        "d1fleet_registry_host": {"owner": "ada", "state": "up", "version": "0.1.0"},
    }


@pytest.mark.parametrize(
    ("state", "group"),
    [
        ("up", None),
        ("suspect", None),
        ("left", "registry_away"),
        ("gone", "registry_away"),
        ("drained", "registry_drained"),
    ],
)
def test_who_is_away_is_in_a_group_as_well(
    read: Read, served: Pretended, state: str, group: str | None
) -> None:
    served.answers[ASKED] = changed(hosts__birch__state=state)
    found = read()
    assert [each.name for each in found.groups["engine"].hosts] == ["alder", "birch"]
    for each in ("registry_away", "registry_drained"):
        assert [host.name for host in found.groups[each].hosts] == (["birch"] if each == group else [])


@pytest.mark.parametrize("state", ["expunged", "cloned"])
def test_outcasts_are_not_in_it(read: Read, served: Pretended, state: str) -> None:
    served.answers[ASKED] = changed(hosts__birch__state=state)
    assert list(read().hosts) == ["alder"]


def test_a_host_without_an_address_has_its_name_alone(read: Read, served: Pretended) -> None:
    served.answers[ASKED] = changed(hosts__alder__address="", hosts__alder__version=...)
    variables = read().hosts["alder"].vars
    assert "ansible_host" not in variables and "d1fleet_address" not in variables


def test_a_project_without_hosts_is_a_group(read: Read, served: Pretended) -> None:
    served.answers[ASKED] = changed(hosts={})
    assert "firmware" in read().groups


# Other inventories beside it


def test_what_another_inventory_says_of_a_host_stays(read: Read) -> None:
    for name in ("projects", "engine"):
        read.inventory.add_group(name)
    read.inventory.add_child("projects", "engine")
    read.inventory.add_host("alder", group="engine")
    read.inventory.set_variable("alder", "ansible_host", "192.0.2.99")
    variables = read().hosts["alder"].vars
    assert variables["ansible_host"] == "192.0.2.99"
    assert variables["d1fleet_address"] == "192.0.2.10"
    assert read.warnings == []


def test_a_host_that_takes_anothers_name_is_left_out(read: Read, served: Pretended) -> None:
    """Whoever has a token chooses the name that a host joins by."""
    read.inventory.add_group("web")
    read.inventory.add_host("database", group="web")
    served.answers[ASKED] = changed(hosts__database=host(), hosts__web=host())
    found = read()
    assert "ansible_host" not in found.hosts["database"].vars
    assert "web" not in found.hosts and "alder" in found.hosts
    assert [text.split()[1] for text in read.warnings] == ["database", "web"]


@pytest.mark.parametrize("kind", ["group", "host"])
def test_a_project_that_takes_anothers_name_is_refused(read: Read, served: Pretended, kind: str) -> None:
    if kind == "group":
        read.inventory.add_group("web")
    else:
        read.inventory.add_host("web")
    served.answers[ASKED] = changed(projects__web=INVENTORY["projects"]["engine"])
    assert "a project web, and the inventory something else of that name" in fault(read)


# A hostile registry

NAMES = [
    *("all", "ungrouped", "projects", "localhost", "Localhost", "ALL", "registry_away", "registry_drained"),
    *(
        "d1fleet_enrolled",
        "d1fleet_registry",
        "",
        "a b",
        "a:b",
        "a,b",
        "!a",
        "a[1:9]",
        "{{ x }}",
        "-a",
        "a\n",
    ),
    *("ansible_connection=local", "a" * 101, "\u0430lder", "../a", "a.b/c"),
]


@pytest.mark.parametrize("name", [*NAMES, "1a", "a-b", "a.b"])
def test_a_project_of_such_a_name_is_refused(read: Read, served: Pretended, name: str) -> None:
    served.answers[ASKED] = changed(**{f"projects__{name}": INVENTORY["projects"]["engine"]})
    assert "a project is called" in fault(read)
    assert list(read.inventory.hosts) == []


@pytest.mark.parametrize(
    "name",
    [
        *NAMES,
        *("127.0.0.1", "::1", "10.0.0.1", "127.1", "2130706433", "0x7f000001", "a.0x7f", "a.1", "A"),
        *("localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback", "x.localhost"),
    ],
)
def test_a_host_of_such_a_name_is_refused(read: Read, served: Pretended, name: str) -> None:
    served.answers[ASKED] = {**INVENTORY, "hosts": {name: host()}}
    assert "a host is called" in fault(read)
    assert list(read.inventory.hosts) == []


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "169.254.1.1", "fe80::1", "::ffff:192.0.2.1"),
        *(
            "fe80::1%eth0",
            "2001:db8::1%{{x}}",
            "alder",
            "192.0.2.1 -o ProxyCommand=id",
            "192.0.2.256",
            "0x7f.1",
        ),
        *(None, 3232235777, ["192.0.2.1"], True, "{{ x }}", "192.0.2.1\n"),
    ],
)
def test_an_address_that_is_none_is_refused(read: Read, served: Pretended, address: object) -> None:
    served.answers[ASKED] = changed(hosts__alder__address=address)
    assert "host alder has" in fault(read)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("projects", [None, [], "x", ...]),
        ("hosts", [None, [], "x", ...]),
        ("projects__engine", [None, [], 1]),
        ("projects__engine__transport", [None, "TCP", "local", ["tcp"], ...]),
        ("projects__engine__options", [None, "lzo", ["lzo", "x"], [["lzo"]], [None], ...]),
        ("projects__engine__ranges", [None, "192.0.2.0/24", ["192.0.2.1/24"], [1], ["{{x}}"], [["x"]], ...]),
        ("hosts__alder", [None, [], 1]),
        ("hosts__alder__slots", [None, 0, -1, 4097, 10**30, 8.0, "8", True, [8], ...]),
        (
            "hosts__alder__projects",
            [None, "engine", ["other"], [None], [["engine"]], [1], {"engine": 1}, ...],
        ),
        ("hosts__alder__state", [None, "UP", "", ["up"], {"up": 1}, 1, ...]),
        ("hosts__alder__owner", [None, 1, "a\nb", "a" * 101, "\x1b[2J", ["ada"], {"a": 1}]),
        ("hosts__alder__version", [None, 1, "a\0", "a" * 101]),
    ],
)
def test_what_is_of_a_wrong_type_or_size_is_refused(
    read: Read, served: Pretended, path: str, values: list[object]
) -> None:
    for value in values:
        served.answers[ASKED] = changed(**{path: value})
        assert "answer cannot be used" in fault(read), value
        assert list(read.inventory.hosts) == [], value


@pytest.mark.parametrize("answer", [None, [], "x", 1, {}, {"projects": {}}])
def test_an_answer_that_is_no_inventory(read: Read, served: Pretended, answer: object) -> None:
    served.answers[ASKED] = (200, answer) if answer is not None else b"HTTP/1.1 200 OK\r\n\r\nnull"
    assert "answer cannot be used" in fault(read)


def test_too_many_hosts_are_refused(read: Read, served: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "MOST_HOSTS", 1000)
    served.answers[ASKED] = {**INVENTORY, "hosts": {f"h{number}": {} for number in range(1001)}}
    assert "more than 1000 hosts" in fault(read)


def test_a_million_hosts_are_not_read_to_their_end(read: Read, served: Pretended) -> None:
    text = json.dumps({f"h{number}": host() for number in range(1000)})[1:-1]
    data = b'{"hosts": {' + (text + ",").encode() * 1000
    assert len(data) > plugin.MOST_BYTES
    served.answers[ASKED] = b"HTTP/1.1 200 OK\r\n\r\n" + data
    assert "longer than 64 MiB" in fault(read)


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"hosts": ' + b"1" * 5000 + b"}", b"<html>", b"\xff"])
def test_what_is_no_json(read: Read, served: Pretended, data: bytes) -> None:
    served.answers[ASKED] = b"HTTP/1.1 200 OK\r\n\r\n" + data
    assert "its answer is no JSON" in fault(read)


# A registry that is away, refuses, or is another one


def test_a_registry_that_is_away(read: Read) -> None:
    read.options["url"] = "http://127.0.0.1:1"
    assert "cannot be asked: Connection refused. Look whether it runs" in fault(read)


def test_a_socket_without_a_registry(read: Read, tmp_path: Path) -> None:
    read.options |= {"url": f"unix:{tmp_path}/none", "key_file": None}
    assert "cannot be asked: No such file" in fault(read)


def test_its_socket_wants_no_key(read: Read, tmp_path: Path) -> None:
    with pretended(tmp_path / "s") as served:
        served.answers[ASKED] = INVENTORY
        read.options |= {"url": served.url, "key_file": None}
        assert "alder" in read().hosts
        assert "Authorization" not in served.asked[0].headers


@pytest.mark.parametrize("then", ["hang", "drip"])
def test_a_registry_that_hangs(read: Read, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    monkeypatch.setattr(plugin, "ANSWER_S", 0.3)
    with scripted(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", then) as url:
        read.options["url"] = url
        assert "cannot be asked: " in fault(read)


@pytest.mark.parametrize(
    ("status", "words"),
    [(401, "does not know the key"), (403, "answers with HTTP 403"), (302, "HTTP 302"), (503, "HTTP 503")],
)
def test_a_refusal(read: Read, served: Pretended, status: int, words: str) -> None:
    served.answers[ASKED] = (status, {"error": {"code": "x", "message": "\x1b[2J"}})
    assert words in fault(read)
    assert len(served.asked) == 1


def test_what_speaks_no_http(read: Read) -> None:
    with scripted(b"SSH-2.0-OpenSSH_9.2\r\n") as url:
        read.options["url"] = url
        assert "cannot be asked: SSH-2.0" in fault(read)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> list[Certificate]:
    return [make_certificate(tmp_path_factory.mktemp("tls"), name) for name in ("127.0.0.1", "other.example")]


@pytest.mark.parametrize("how", ["certificate", "pin", "other name"])
def test_the_registry_by_its_certificate(read: Read, certificates: list[Certificate], how: str) -> None:
    own = certificates[how == "other name"]
    with pretended(certificate=own) as served:
        served.answers[ASKED] = INVENTORY
        said = {"pin": pin_of(own.der).upper()} if how == "pin" else {"certificate": str(own.file)}
        read.options |= {"url": served.url, **said}
        assert "alder" in read().hosts


@pytest.mark.parametrize(
    ("how", "words"),
    [("certificate", "nobody vouches"), ("pin", "than the one that is pinned"), ("", "nobody vouches")],
)
def test_another_one_in_its_place(read: Read, certificates: list[Certificate], how: str, words: str) -> None:
    own, other = certificates
    with pretended(certificate=own) as served:
        said = {"pin": pin_of(other.der), "certificate": str(other.file)}
        read.options |= {"url": served.url, **({how: said[how]} if how else {})}
        assert words in fault(read)
        assert served.asked == []


# Its file


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://192.0.2.1"}, "http:// is for loopback addresses alone"),
        ({"url": "http://localhost"}, "http:// is for loopback addresses alone"),
        ({"url": "ftp://a"}, "no URL"),
        ({"url": "https://a:b@c"}, "no URL"),
        ({"url": "https://a/b"}, "no URL"),
        ({"url": "https://a b"}, "no URL"),
        ({"url": "https://[::x"}, "no URL"),
        ({"url": "x" * 5000}, "no URL"),
        ({"url": "https://a\r\nHost: b"}, "no URL"),
        ({"key_file": None}, "no key is named"),
        ({"key_file": "none"}, "cannot be read"),
        ({"key_file": "x.d1fleet.yml"}, "holds no key"),
        ({"url": "https://127.0.0.1", "pin": "x"}, "pin: it has to be"),
        ({"url": "https://127.0.0.1", "pin": "x", "certificate": "y"}, "both given"),
        ({"url": "https://127.0.0.1:1", "certificate": "none"}, "certificate"),
        ({"url": "https://127.0.0.1:1", "certificate": "key"}, "holds no certificate"),
    ],
)
def test_an_option_that_cannot_be_used(read: Read, options: dict[str, str | None], words: str) -> None:
    read.file.write_text("")
    with socket_that_takes_all() as port:
        read.options |= options
        if (read.options["url"] or "").endswith(":1"):
            read.options["url"] = f"https://127.0.0.1:{port}"
        assert words in fault(read)


def test_the_key_file_of_the_environment_is_relative_to_where_ansible_runs(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "other").write_text(KEY)
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(plugin.InventoryModule, "_read_config_data", lambda self, path: {})
    read.options["key_file"] = "other"
    assert "alder" in read().hosts


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("x.d1fleet.yml", True),
        ("x.d1fleet.yaml", True),
        ("x.yml", False),
        ("d1fleet.yml", False),
        ("x.d1fleet", False),
    ],
)
def test_files_by_their_names(tmp_path: Path, name: str, right: bool) -> None:
    (tmp_path / name).write_text("")
    assert plugin.InventoryModule().verify_file(str(tmp_path / name)) is right


# By Ansible itself


def ansible(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """In the checkout, whose ansible.cfg says where the plugin is."""
    return subprocess.run(
        [str(Path(sys.executable).with_name(program)), *words],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def file(tmp_path: Path, served: Pretended, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ANSIBLE_HOME", str(tmp_path / "ansible"))
    (tmp_path / "key").write_text(KEY)
    found = tmp_path / "x.d1fleet.yml"
    found.write_text(f"plugin: d1.fleet.registry\nurl: {served.url}\nkey_file: key\n")
    return found


def test_ansible_lists_it(file: Path) -> None:
    done = ansible("ansible-inventory", "-i", str(file), "--list")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["projects"]["children"] == ["engine", "firmware"]
    assert found["_meta"]["hostvars"]["birch"]["d1fleet_slots"] == 4


EVIL = "{{ lookup('pipe', 'touch %s') }}"


def test_what_a_host_reports_is_never_templated(file: Path, served: Pretended, tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    evil = EVIL % proof
    served.answers[ASKED] = changed(hosts__alder__owner=evil, hosts__alder__version=evil[:99])
    tasks = [
        {"debug": {"var": "d1fleet_registry_host"}},
        {"debug": {"msg": "owner: {{ d1fleet_registry_host.owner }}"}},
        {"debug": {"msg": "{{ hostvars.alder.d1fleet_registry_host | to_json }}"}},
        {"set_fact": {"again": "{{ d1fleet_registry_host.owner }}"}},
        {"debug": {"msg": "{{ again }} {{ lookup('vars', 'again') }}"}},
        {"command": {"argv": ["echo", "{{ again }}"]}},
        {"debug": {"msg": "x"}, "when": "d1fleet_registry_host.owner == again"},
    ]
    play = {"hosts": "alder", "gather_facts": False, "connection": "local", "tasks": tasks}
    play["vars"] = {"ansible_python_interpreter": sys.executable}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = ansible("ansible-playbook", "-i", str(file), str(tmp_path / "play.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("touch") >= 5
    assert not proof.exists()


def test_what_an_inventory_says_itself_would_be(tmp_path: Path) -> None:
    """The test above can fail."""
    proof = tmp_path / "proof"
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": {"alder": {"owner": EVIL % proof}}}}))
    ansible(
        "ansible",
        "-i",
        str(tmp_path / "hosts.json"),
        "alder",
        "-c",
        "local",
        "-m",
        "debug",
        "-a",
        "var=owner",
    )
    assert proof.exists()


def test_a_fault_is_an_error_with_our_words(file: Path, served: Pretended) -> None:
    served.answers[ASKED] = changed(hosts__localhost=host())
    done = ansible("ansible-playbook", "-i", str(file), "site.yml", "--syntax-check")
    assert done.returncode != 0
    assert "a host is called 'localhost', which is no name for one" in done.stderr


def test_another_plugins_file_is_not_ours(file: Path) -> None:
    file.write_text("plugin: other.than.ours\n")
    done = ansible("ansible-inventory", "-i", str(file), "--list")
    assert done.returncode != 0
    assert "Incorrect plugin name in file: other.than.ours" in done.stderr


# What the roles make of it


def test_the_inventory_is_one_that_the_roles_take(file: Path, served: Pretended, tmp_path: Path) -> None:
    tasks = [{"import_role": {"name": "fleet", "tasks_from": "inventory"}}]
    play = {"hosts": "localhost:all", "gather_facts": False, "become": False, "tasks": tasks}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = ansible("ansible-playbook", "-i", str(file), str(tmp_path / "play.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
