"""A host's first word to a registry, and its last, by the program as roles start it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.checkin.documents import ALDER, BIRCH, CEDAR, answer, host_key, peer, project
from tests.unit.checkin.helperhost import MAIN
from tests.unit.checkin.pretended import Handler, Pretended
from tests.unit.checkin.test_report import accepted

TOKEN = "d1j_0123abcd_" + "t" * 43
OTHER = "d1j_0123abce_" + "u" * 43
CREDENTIAL = "c" * 40


class Registry:
    """What answers, and in which way."""

    def __init__(self) -> None:
        self.answer: Any = answer(credential=CREDENTIAL, id="0" * 32)
        self.status = 201

    def __call__(self, handler: Handler, asked: dict[str, Any]) -> None:
        if asked["path"] == "/api/v1/leave" and self.status < 300:
            handler.send_response(204)
            handler.end_headers()
        elif asked["path"] == "/api/v1/wait":
            handler.send(answer())
        else:
            handler.send(self.answer, self.status)


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = Registry()
        self.registry = Pretended(self.script)
        self.state = folder / "state"
        self.state.mkdir(mode=0o700)
        self.config = folder / "checkin.json"
        self.configure()

    def configure(self, **settings: Any) -> None:
        known = {"registry": str(self.registry.registry), "certificate": "", "networks": [], "owner": "ada"}
        self.config.write_text(json.dumps({**known, **settings}))

    def run(self, verb: str, *words: str, text: str = "") -> tuple[int, Any, str]:
        """Exit status, what is printed, and what is complained of."""
        places = [f"--config={self.config}", f"--state={self.state}"]
        argv = [sys.executable, "-ISE", str(MAIN), verb, *places, *words]
        done = subprocess.run(argv, input=text, capture_output=True, text=True, cwd="/", timeout=100)
        assert "Traceback" not in done.stderr and "tttt" not in done.stderr
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr

    def join(self, token: str = TOKEN, *words: str) -> tuple[int, Any, str]:
        return self.run("join", "--token-file=-", *(words or ("--name=alder",)), text=f"{token}\n")

    def refuse(self, status: int, code: str) -> None:
        self.script.status = status
        self.script.answer = {"error": {"code": code, "message": "no, alder", "mend": "ask ada"}}

    @property
    def credential(self) -> str:
        path = self.state / "credential"
        return path.read_text().strip() if path.exists() else ""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.registry.close()


def test_a_host_joins(site: Site) -> None:
    status, said, _ = site.join()
    wanted = {"engine": {"ranges": ["192.0.2.0/24", "2001:db8::/32"], "transport": "tcp"}}
    assert (status, said) == (0, {"changed": True, "name": "alder", "projects": wanted})
    asked = site.registry.next("/join")
    assert (asked["credential"], asked["body"]["token"], asked["body"]["name"]) == ("", TOKEN, "alder")
    report = accepted(asked["body"]["report"])
    assert report.owner == "ada" and report.toolchain["machine"]
    assert site.credential == CREDENTIAL
    assert (site.state / "credential").stat().st_mode & 0o777 == 0o600


def test_the_same_token_is_used_once(site: Site) -> None:
    site.join()
    status, said, _ = site.join()
    assert (status, said["changed"], list(said["projects"])) == (0, False, ["engine"])
    site.registry.next("/join")
    assert site.registry.next("/wait")["credential"] == CREDENTIAL
    assert site.registry.asked.empty()


def test_a_further_project_is_joined_as_who_it_is(site: Site) -> None:
    site.join()
    two = {"engine": project(), "firmware": project(revision="f1")}
    site.script.answer = answer(projects=two, credential="n" * 40, id="0" * 32)
    status, said, _ = site.join(OTHER)
    assert (status, said["changed"], list(said["projects"])) == (0, True, ["engine", "firmware"])
    site.registry.next("/join")
    assert site.registry.next("/join")["credential"] == CREDENTIAL
    assert site.credential == "n" * 40


def test_over_ssh_is_said(site: Site) -> None:
    ssh = peer("alder", "192.0.2.11", transport="ssh", host_keys=[host_key()])
    site.script.answer = answer(projects={"engine": project([ssh])}, credential=CREDENTIAL)
    assert site.join()[1]["projects"]["engine"]["transport"] == "ssh"


def test_its_own_name_is_the_default(site: Site) -> None:
    site.join(TOKEN, "--port-is-no-option")
    assert site.registry.asked.empty()
    site.run("join", "--token-file=-", text=TOKEN)
    assert site.registry.next("/join")["body"]["name"] == socket.gethostname().lower()


def test_a_token_from_a_file(site: Site) -> None:
    (site.folder / "token").write_text(f"{TOKEN}\n")
    assert site.run("join", f"--token-file={site.folder}/token", "--name=alder")[0] == 0
    status, _, said = site.run("join", "--token-file=/nowhere", "--name=alder")
    assert status == 81 and "/nowhere cannot be read" in said


@pytest.mark.parametrize("token", ["", "d1j_x", TOKEN + "x", "d1k" + TOKEN[3:], TOKEN.replace("t", "\n")])
def test_what_is_no_token(site: Site, token: str) -> None:
    status, _, said = site.join(token)
    assert status == 81 and "token" in said
    assert site.registry.asked.empty()


@pytest.mark.parametrize("name", ["Alder", "a b", "localhost", "-x", "a" * 101, "a/b"])
def test_what_is_no_name(site: Site, name: str) -> None:
    status, _, said = site.join(TOKEN, f"--name={name}")
    assert status == 81 and "name" in said
    assert site.registry.asked.empty()


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(403, "token", 92), (409, "name_taken", 92), (422, "field", 92), (503, "database", 90)],
)
def test_a_refusal_is_said_with_what_to_do(site: Site, status: int, code: str, exit_code: int) -> None:
    site.refuse(status, code)
    found, _, said = site.join()
    assert (found, site.credential) == (exit_code, "")
    assert f"no, alder ({code})\n  mend: ask ada" in said


@pytest.mark.parametrize("verb", ["join", "leave"])
def test_a_registry_that_is_away(site: Site, verb: str) -> None:
    (site.state / "credential").write_text(CREDENTIAL)
    site.configure(registry="http://127.0.0.1:1")
    words = ["--token-file=-", "--name=alder"] if verb == "join" else ["--for-good"]
    status, _, said = site.run(verb, *words, text=TOKEN)
    assert status == 90 and "http://127.0.0.1:1 cannot be reached" in said
    assert site.credential == CREDENTIAL


def test_the_credential_is_kept_before_the_rest_is_judged(site: Site) -> None:
    site.configure(networks=["203.0.113.0/24"])
    status, _, said = site.join()
    assert status == 95 and "in no network" in said
    assert site.credential == CREDENTIAL


def test_by_default_peers_are_where_the_registry_says(site: Site) -> None:
    far = project([ALDER, BIRCH, CEDAR, peer("evil", "203.0.113.9")])
    site.script.answer = answer(projects={"engine": far}, credential=CREDENTIAL)
    status, _, said = site.join()
    assert status == 95 and "203.0.113.9" in said


@pytest.mark.parametrize("value", [b"<html>", {}, {"credential": "a b"}, {"credential": ""}, answer()])
def test_what_is_no_answer(site: Site, value: Any) -> None:
    site.script.answer = value
    status, _, said = site.join()
    assert status == 95 and said
    assert site.credential == ""


def test_a_proxys_refusal(site: Site) -> None:
    site.script.answer, site.script.status = b"{}", 403
    status, _, said = site.join()
    assert status == 95 and "not as a registry does" in said


@pytest.mark.parametrize("for_good", [True, False])
def test_a_host_leaves(site: Site, for_good: bool) -> None:
    site.join()
    assert site.run("leave", *(["--for-good"] if for_good else []))[0] == 0
    asked = site.registry.next("/leave")
    assert (asked["body"], asked["credential"]) == ({"for_good": for_good}, CREDENTIAL)
    assert site.credential == ("" if for_good else CREDENTIAL)
    assert (site.state / "joined").exists() is not for_good


def test_what_is_forgotten_already_is_left(site: Site) -> None:
    (site.state / "credential").write_text(CREDENTIAL)
    site.refuse(401, "credential")
    assert site.run("leave", "--for-good")[0] == 0
    assert site.credential == ""
    assert site.run("leave", "--for-good")[0] == 0


def test_who_is_not_let_go_stays(site: Site) -> None:
    (site.state / "credential").write_text(CREDENTIAL)
    site.refuse(503, "database")
    status, _, said = site.run("leave", "--for-good")
    assert (status, site.credential) == (90, CREDENTIAL) and "no, alder" in said
    site.refuse(429, "rate")
    assert site.run("leave")[0] == 92


@pytest.mark.parametrize(
    ("words", "status"), [([], 81), (["nonsense"], 81), (["--help"], 0), (["--version"], 0), (["join"], 81)]
)
def test_usage(words: list[str], status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-ISE", str(MAIN), *words], capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == status and "Traceback" not in done.stderr


@pytest.mark.parametrize(("what", "status"), [("config", 81), ("state", 86)])
def test_where_something_is_missing(site: Site, what: str, status: int) -> None:
    if what == "config":
        site.config.unlink()
    else:
        site.state.chmod(0o777)
    found, _, said = site.join()
    assert found == status and said.startswith("d1fleet: ") and "mend: " in said
