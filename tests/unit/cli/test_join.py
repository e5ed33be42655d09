"""`d1fleet join` and `leave`: what is asked, refused, said and done. Ansible is not run here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from d1fleet import membership
from d1fleet.cli import join as join_command
from d1fleet.cli import join_asked
from d1fleet.cli.main import main
from d1fleet.errors import HostError, RegistryError, UsageError
from d1fleet.membership import Places
from d1fleet.registrytls import pin_of
from tests.support.pretended import Certificate, Pretended, make_certificate, pretended

TOKEN = "d1j_0123abcd_" + "t" * 43
CREDENTIAL = "c" * 40

ANSWER: dict[str, Any] = {
    "name": "alder",
    "state": "up",
    "message": "",
    "projects": {"engine": {"ranges": ["192.0.2.0/24"], "peers": [{"name": "alder"}, {"name": "birch"}]}},
}


class Machine:
    """This machine, as far as the commands see it: a folder, no Ansible, and no check-in."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.places = Places(str(folder))
        self.plays: list[tuple[str, Any, tuple[str, ...]]] = []
        self.joins: list[tuple[str, str, str, str, dict[str, Any]]] = []
        self.fails: Exception | None = None
        monkeypatch.setattr(membership, "Places", lambda: self.places)
        monkeypatch.setattr(membership, "find_ansible", lambda: "ansible-playbook")
        monkeypatch.setattr(membership, "play", self.play)
        monkeypatch.setattr(membership, "join", self.join)
        monkeypatch.setattr(os, "geteuid", lambda: 0)

    def join(
        self, places: Places, place: Any, certificate: str, name: str, token: str, settings: dict[str, Any]
    ) -> None:
        if self.fails:
            raise self.fails
        pem = Path(certificate).read_text() if certificate else ""
        self.joins.append((str(place), pem, name, token, settings))
        places.state.mkdir(parents=True, exist_ok=True)
        (places.state / "credential").write_text(CREDENTIAL)

    def play(self, playbook: str, hosts: Any, *arguments: str, quiet: bool = False) -> None:
        self.quiet = quiet
        self.plays.append((playbook, hosts, arguments))

    def has_joined(self, url: str, **notes: Any) -> None:
        for file in (self.places.config, self.places.mark, self.places.state / "credential"):
            file.parent.mkdir(parents=True, exist_ok=True)
        self.places.config.write_text(json.dumps({"registry": url, "certificate": ""}))
        self.places.mark.write_text(json.dumps({"name": "", "projects": ["engine"]}))
        (self.places.state / "credential").write_text(CREDENTIAL)
        if notes:
            self.places.notes.write_text(json.dumps(notes))

    @property
    def untouched(self) -> bool:
        return not self.joins and not self.plays

    @property
    def variables(self) -> dict[str, Any]:
        found: dict[str, Any] = self.plays[-1][1]["projects"]["vars"]
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    for name in ("D1FLEET_REGISTRY", "D1FLEET_JOIN_TOKEN", "SUDO_USER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setattr(join_command, "_SETTLE_S", 0.0)
    monkeypatch.setattr(join_command, "_LOOK_S", 0.0)
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield Machine(tmp_path / "root", monkeypatch)


@pytest.fixture
def served() -> Iterator[Pretended]:
    with pretended() as found:
        found.answers |= {"GET /healthz": {"status": "ok"}, "POST /api/v1/wait": ANSWER}
        yield found


Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def command(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["d1fleet", *words])
        return main()

    return command


def with_token(monkeypatch: pytest.MonkeyPatch, text: str = TOKEN) -> None:
    monkeypatch.setenv("D1FLEET_JOIN_TOKEN", text)


def test_a_machine_joins(
    machine: Machine,
    served: Pretended,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with_token(monkeypatch)
    assert run("join", served.url, "--name", "alder", "--slots", "3", "--owner", "eve") == 0
    assert machine.joins == [(served.url, "", "alder", TOKEN, {"owner": "eve", "tools": [], "slots": 3})]
    assert "D1FLEET_JOIN_TOKEN" not in os.environ
    (playbook, hosts, arguments) = machine.plays[0]
    assert (playbook, arguments) == ("join", ())
    assert list(hosts["projects"]["children"]) == ["engine"]
    assert machine.variables == {
        "d1fleet_registry": served.url,
        "d1fleet_registry_certificate": "",
        "d1fleet_distcc_networks": ["192.0.2.0/24"],
        "d1fleet_owner": "eve",
        "d1fleet_nice": 10,
        "d1fleet_toolchain_tools": [],
        "d1fleet_slots": 3,
    }
    said = capfd.readouterr().err
    assert said.index("alder, eve's joins the project of this token") < said.index(
        "alder is in project engine"
    )
    assert "with 1 other host: birch" in said
    assert TOKEN not in said and TOKEN not in machine.places.notes.read_text()


def test_what_was_said_once_holds_for_the_next_project(
    machine: Machine, served: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has_joined(
        served.url,
        name="alder",
        owner="eve",
        nice=5,
        slots=3,
        tools=["/opt/x-gcc"],
        networks=["192.0.2.0/28"],
    )
    with_token(monkeypatch)
    assert run("join", "--nice", "7") == 0
    assert machine.joins[0][2:] == ("alder", TOKEN, {"owner": "eve", "tools": ["/opt/x-gcc"], "slots": 3})
    assert machine.variables["d1fleet_nice"] == 7
    assert machine.variables["d1fleet_distcc_networks"] == ["192.0.2.0/28"]


def test_without_a_token_a_host_is_brought_in_line(machine: Machine, served: Pretended, run: Run) -> None:
    machine.has_joined(served.url, name="alder")
    assert run("join") == 0
    assert machine.joins == [] and len(machine.plays) == 1
    assert machine.quiet
    assert run("join", "--verbose") == 0
    assert not machine.quiet


def test_check_changes_nothing(
    machine: Machine, served: Pretended, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("join", served.url, "--check") == 0
    assert machine.untouched
    assert not machine.places.notes.exists()
    assert "nothing was changed" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["join"], "no registry is named"),
        (["join", "URL"], "no join token is given"),
        (["join", "http://192.0.2.1", "--check"], "without TLS"),
        (["join", "unix:/x", "--check"], "is for operators"),
        (["join", "URL", "--check", "--name", "A b"], "--name"),
        (["join", "URL", "--check", "--name", "{{ x }}"], "--name"),
        (["join", "URL", "--check", "--owner", "{{ x }}"], "--owner"),
        (["join", "URL", "--check", "--networks", "0.0.0.0/0"], "--networks"),
        (["join", "URL", "--check", "--cross", "gcc"], "no absolute path"),
        (["join", "URL", "--check", "--cross", "/nosuch"], "there is no compiler"),
        (["join", "URL", "--check", "--token-file", "/nosuch"], "cannot be read"),
        (["leave"], "has not joined a registry"),
    ],
)
def test_what_is_refused(
    machine: Machine,
    served: Pretended,
    run: Run,
    words: list[str],
    said: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run(*[served.url if word == "URL" else word for word in words]) == UsageError.exit_code
    assert said in capfd.readouterr().err
    assert machine.untouched


@pytest.mark.parametrize("verb", ["join", "leave"])
def test_only_root(
    machine: Machine, run: Run, monkeypatch: pytest.MonkeyPatch, verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(verb) == UsageError.exit_code
    assert f"sudo d1fleet {verb}" in capfd.readouterr().err


def test_another_registry_is_refused_and_named(
    machine: Machine, served: Pretended, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.has_joined("https://other.example:33333", name="alder")
    assert run("join", served.url, "--check") == UsageError.exit_code
    said = capfd.readouterr().err
    assert "has joined another registry: https://other.example:33333" in said and "d1fleet leave" in said


def test_another_name_is_refused(machine: Machine, served: Pretended, run: Run) -> None:
    machine.has_joined(served.url, name="alder")
    assert run("join", "--name", "birch") == UsageError.exit_code


def test_a_refusal_of_the_registry_stops_it(
    machine: Machine, served: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_token(monkeypatch)
    machine.fails = RegistryError("this join token is not valid")
    assert run("join", served.url) == RegistryError.exit_code
    assert machine.plays == []


def test_peers_that_do_not_get_it_are_an_error(
    machine: Machine,
    served: Pretended,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with_token(monkeypatch)
    served.answers["POST /api/v1/wait"] = {**ANSWER, "message": "engine: cc is another"}
    assert run("join", served.url) == HostError.exit_code
    assert "does not give it to others: engine: cc is another" in capfd.readouterr().err


# The certificate


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secured(certificate: Certificate) -> Iterator[Pretended]:
    with pretended(certificate=certificate) as found:
        found.answers |= {"GET /healthz": {"status": "ok"}, "POST /api/v1/wait": ANSWER}
        yield found


def test_the_pinned_certificate_is_kept(
    machine: Machine, secured: Pretended, certificate: Certificate, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_token(monkeypatch)
    assert run("join", secured.url, "--pin", pin_of(certificate.der)) == 0
    pem = certificate.file.read_text()
    assert machine.joins[0][1] == machine.variables["d1fleet_registry_certificate"] == pem


@pytest.mark.parametrize("pin", [None, pin_of(b"another")])
def test_a_certificate_that_nobody_vouches_for(
    machine: Machine, secured: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch, pin: str | None
) -> None:
    with_token(monkeypatch)
    assert run("join", secured.url, *(["--pin", pin] if pin else [])) == RegistryError.exit_code
    assert machine.joins == [] and secured.asked == []


# Somebody at a terminal


class Person:
    """Answers questions, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)
        monkeypatch.setattr(click, "prompt", self._answer)
        monkeypatch.setattr(click, "confirm", self._answer)
        monkeypatch.setattr(sys, "stdin", type("Tty", (), {"isatty": lambda self: True})())

    def _answer(self, text: str, **how: Any) -> Any:
        self.asked.append(text)
        answer = self._answers.pop(0)
        return how["default"] if answer is None else answer


def test_all_is_asked_for(
    machine: Machine,
    secured: Pretended,
    certificate: Certificate,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    compiler = tmp_path / "arm-none-eabi-gcc"
    compiler.touch(0o755)
    person = Person(monkeypatch, secured.url, TOKEN, None, str(compiler), True, True)
    assert run("join") == 0
    assert [text.split()[0] for text in person.asked] == ["Registry", "Join", "Nice", "Paths", "Is", "Go"]
    assert pin_of(certificate.der) in capfd.readouterr().err
    assert machine.variables["d1fleet_nice"] == 10
    assert machine.variables["d1fleet_toolchain_tools"] == [str(compiler)]
    assert machine.joins[0][3] == TOKEN


@pytest.mark.parametrize("answers", [(None, "", False), (None, "", True, False)])
def test_no_is_no(
    machine: Machine, secured: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch, answers: Any
) -> None:
    """To the certificate, and to all of it."""
    with_token(monkeypatch)
    Person(monkeypatch, *answers)
    assert run("join", secured.url) == 130
    assert machine.untouched


def test_with_yes_nothing_is_asked(
    machine: Machine, served: Pretended, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_token(monkeypatch)
    person = Person(monkeypatch)
    assert run("join", served.url, "--yes") == 0
    assert person.asked == []


# Tokens


@pytest.mark.parametrize("words", [["--token", TOKEN], [f"--token={TOKEN}"]])
def test_a_token_does_not_stay_among_the_words_of_the_process(
    machine: Machine, run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    started: list[list[str]] = []

    class StartedError(Exception):
        pass

    def execv(program: str, argv: list[str]) -> None:
        started.append(argv)
        raise StartedError

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setattr(
        sys, "orig_argv", ["python3", "/usr/bin/d1fleet", "join", "https://a", *words, "--yes"]
    )
    with pytest.raises(StartedError):
        run("join", "https://a", *words, "--yes")
    assert started == [["python3", "/usr/bin/d1fleet", "join", "https://a", "--yes"]]
    assert os.environ["D1FLEET_JOIN_TOKEN"] == TOKEN


def test_a_token_of_a_file(machine: Machine, served: Pretended, run: Run, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert run("join", served.url, "--token-file", str(tmp_path / "token")) == 0
    assert machine.joins[0][3] == TOKEN


# Cross-compilers


def test_a_folder_of_cross_compilers(tmp_path: Path) -> None:
    for name in ("arm-gcc", "arm-g++-13", "arm-ld", "arm-gcc.txt", "gcc", "x86_64-w64-mingw32-clang++"):
        (tmp_path / name).touch(0o755)
    (tmp_path / "arm-cc").touch(0o644)
    found = join_asked._tools([str(tmp_path), str(tmp_path / "arm-ld")])
    names = ["arm-g++-13", "arm-gcc", "x86_64-w64-mingw32-clang++", "arm-ld"]
    assert found == [str(tmp_path / name) for name in names]
    with pytest.raises(UsageError, match="too many"):
        many = tmp_path / "many"
        many.mkdir()
        for number in range(40):
            (many / f"t{number}-gcc").touch(0o755)
        join_asked._tools([str(many)])
    odd = tmp_path / "a b-gcc"
    odd.touch(0o755)
    with pytest.raises(UsageError, match="may not have"):
        join_asked._tools([str(odd)])


# Leaving


def test_it_leaves(machine: Machine, run: Run) -> None:
    machine.has_joined("https://a:33333", name="alder")
    assert run("leave", "--purge", "--yes") == 0
    ((playbook, hosts, arguments),) = machine.plays
    assert (playbook, arguments) == ("leave", ("-e", "d1fleet_purge=true"))
    assert hosts["projects"]["children"]["engine"]["hosts"]["alder"]["ansible_connection"] == "local"


def test_what_an_inventory_enrolled_is_not_ours_to_undo(
    machine: Machine, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.has_joined("https://a:33333")
    assert run("leave", "--yes") == UsageError.exit_code
    assert "playbooks/retire.yml" in capfd.readouterr().err
    assert machine.plays == []


def test_no_at_a_terminal(machine: Machine, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has_joined("https://a:33333", name="alder")
    Person(monkeypatch, False)
    assert run("leave") == 130
    assert machine.plays == []
