"""`d1fleet registry`: what is asked of the registry, and how its answers are shown. With a pretended one, and
at the end with the service itself.
"""

from __future__ import annotations

import json
import os
import pty
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from d1fleet.cli import registry_people, registry_talk
from d1fleet.cli.main import main
from d1fleet.cli.registry_hosts import known_hosts_lines
from d1fleet.errors import RegistryError, ToolError, UsageError
from d1fleet.registrytls import pin_of
from tests.support.pretended import INVENTORY, KEY, Pretended, make_certificate, pretended
from tests.support.registryservice import Service, service

PROJECT = {
    "name": "engine", "ranges": ["192.0.2.0/24", "198.51.100.0/24"], "options": ["lzo"], "transport": "tcp",
    "toolchain_mismatch": "exclude", "old_clients": False, "created_at": 1.7e9, "hosts": 2,
    "states": {"up": 2}, "peers": 1, "slots": 8, "old_client_count": 0,
}  # fmt: skip

HOST = {
    "id": "0" * 32, "name": "alder", "state": "up", "projects": ["engine"], "address": "192.0.2.10",
    "fixed_address": "", "slots": 8, "port": 3632, "ssh_port": 22, "owner": "ada", "version": "0.1.0",
    "system": "Debian GNU/Linux 12", "fingerprint": "abcdef", "serving": True, "drained": False,
    "expunged": False, "cloned": False, "joined_at": 1.7e9, "last_contact_s": 3.2, "jobs": 2,
    "load_others_cpus": 0.5, "load_1min": 1.25, "memory_available_bytes": 1 << 31, "memory_bytes": 1 << 33,
    "disk_free_bytes": 1 << 35, "error": "", "notes": {},
}  # fmt: skip

Run = Callable[..., int]


@pytest.fixture
def served() -> Iterator[Pretended]:
    with pretended() as found:
        yield found


@pytest.fixture
def run(served: Pretended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command against the pretended registry."""
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    monkeypatch.setenv("D1FLEET_REGISTRY", served.url)
    monkeypatch.setenv("D1FLEET_REGISTRY_KEY_FILE", str(key))

    def command(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["d1fleet", "registry", *words])
        return main()

    return command


def answers(served: Pretended, **given: Any) -> None:
    """Answers by `METHOD__path`, below /admin; `/` is written __."""
    for name, answer in given.items():
        method, *way = name.split("__")
        served.answers[f"{method} /api/v1/admin/{'/'.join(way)}"] = answer


# What is asked


@pytest.mark.parametrize(
    ("words", "asked", "body"),
    [
        ("project list", "GET projects", None),
        (
            "project create engine --range 192.0.2.0/24",
            "POST projects",
            {"name": "engine", "ranges": ["192.0.2.0/24"]},
        ),
        (
            "project create e --range 192.0.2.0/24 --range 2001:db8::/64 --option lzo --option cpp"
            " --transport ssh --toolchain-mismatch ignore --old-clients",
            "POST projects",
            {
                "name": "e",
                "ranges": ["192.0.2.0/24", "2001:db8::/64"],
                "options": ["lzo", "cpp"],
                "transport": "ssh",
                "toolchain_mismatch": "ignore",
                "old_clients": True,
            },
        ),
        ("project change engine --no-old-clients", "PATCH projects/engine", {"old_clients": False}),
        ("project change ../a --transport tcp", "PATCH projects/..%2Fa", {"transport": "tcp"}),
        ("project delete engine", "DELETE projects/engine", None),
        ("project delete engine --with-hosts", "DELETE projects/engine?with_hosts=true", None),
        ("host list", "GET hosts", None),
        ("host list --project engine", "GET hosts?project=engine", None),
        ("host show alder", "GET hosts/alder", None),
        ("host drain alder", "POST hosts/alder/drain", None),
        ("host undrain alder", "POST hosts/alder/undrain", None),
        ("host expunge alder", "POST hosts/alder/expunge", None),
        ("host readmit alder", "POST hosts/alder/readmit", None),
        ("host forget alder", "POST hosts/alder/forget", None),
        ("host change alder --project a --project b", "PATCH hosts/alder", {"projects": ["a", "b"]}),
        ("host change alder --address 192.0.2.1", "PATCH hosts/alder", {"address": "192.0.2.1"}),
        ("host change alder --address seen", "PATCH hosts/alder", {"address": ""}),
        ("token list engine", "GET projects/engine/tokens", None),
        ("token create engine", "POST projects/engine/tokens", {"note": ""}),
        ("token create engine --note lab", "POST projects/engine/tokens", {"note": "lab"}),
        ("token rotate engine", "POST projects/engine/tokens/rotate", None),
        ("token revoke engine 0123abcd", "DELETE projects/engine/tokens/0123abcd", None),
        ("operator list", "GET operators", None),
        ("operator remove ada", "DELETE operators/ada", None),
        ("key list", "GET keys", None),
        ("key create", "POST keys", {"kind": "viewer", "note": ""}),
        ("key create --kind operator --note ci", "POST keys", {"kind": "operator", "note": "ci"}),
        ("key remove 0123abcd", "DELETE keys/0123abcd", None),
        ("audit --limit 7", "GET audit?limit=7", None),
        ("known-hosts", "GET inventory", None),
    ],
)
def test_what_is_asked(run: Run, served: Pretended, words: str, asked: str, body: Any) -> None:
    method, path = asked.split()
    run(*words.split(), "--json")
    assert [(each.method, each.path, each.body) for each in served.asked] == [
        (method, f"/api/v1/admin/{path}", body)
    ]
    assert served.asked[0].headers["Authorization"] == f"Bearer {KEY}"


def test_a_refusal_is_told_and_has_its_code(
    run: Run, served: Pretended, capfd: pytest.CaptureFixture[str]
) -> None:
    refusal = {"error": {"code": "not_empty", "message": "engine has 2 hosts", "mend": "--with-hosts"}}
    answers(served, DELETE__projects__engine=(409, refusal))
    assert run("project", "delete", "engine") == RegistryError.exit_code == 99
    assert capfd.readouterr() == ("", "d1fleet: engine has 2 hosts\nd1fleet:   mend: --with-hosts\n")


# How answers are shown


def test_tables(run: Run, served: Pretended, capfd: pytest.CaptureFixture[str]) -> None:
    away = {
        **HOST,
        "name": "birch",
        "state": "gone",
        "jobs": None,
        "load_1min": None,
        "last_contact_s": 86400 * 3,
    }
    left_out = {**HOST, "name": "cedar", "notes": {"engine": "cc is another"}, "error": "disk full"}
    answers(served, GET__projects=[PROJECT], GET__hosts=[HOST, away, left_out])
    assert run("project", "list") == 0
    assert capfd.readouterr().out.splitlines() == [
        "project  hosts  compile  slots  transport  ranges",
        "engine       2        1      8  tcp        192.0.2.0/24 198.51.100.0/24",
    ]
    assert run("host", "list") == 0
    assert capfd.readouterr().out.splitlines() == [
        "host   state  address     slots  jobs  load  projects  owner  version  heard",
        "alder  up     192.0.2.10      8     2   1.2  engine    ada    0.1.0    3 s",
        "birch  gone   192.0.2.10      8              engine    ada    0.1.0    3 d",
        "cedar  up     192.0.2.10      8     2   1.2  engine    ada    0.1.0    3 s    engine: cc is another",
    ]


def test_one_host_and_one_project(run: Run, served: Pretended, capfd: pytest.CaptureFixture[str]) -> None:
    served.answers["GET /api/v1/admin/hosts?project=engine"] = [HOST]
    answers(
        served, GET__hosts__alder={**HOST, "notes": {"engine": "it is\x1b[2J"}}, GET__projects__engine=PROJECT
    )
    assert run("host", "show", "alder") == 0
    said = capfd.readouterr().out
    assert "memory                  2.0 GiB of 8.0 GiB available\n" in said
    assert "left out of engine      it is?[2J\n" in said
    assert "compile server" not in said and "last error" not in said
    assert run("project", "show", "engine") == 0
    said = capfd.readouterr().out
    assert "ranges              192.0.2.0/24 198.51.100.0/24\n" in said
    assert "alder  up " in said


@pytest.mark.parametrize("group", ["project", "host", "operator", "key"])
def test_nothing_to_list(run: Run, served: Pretended, group: str, capfd: pytest.CaptureFixture[str]) -> None:
    served.answers[f"GET /api/v1/admin/{group}s"] = []
    assert run(group, "list") == 0
    assert "d1fleet registry" in capfd.readouterr().out  # what to do


def test_json_is_the_answer_itself(run: Run, served: Pretended, capfd: pytest.CaptureFixture[str]) -> None:
    answers(served, GET__hosts=[{**HOST, "owner": "\x1b[2Jü"}])
    assert run("host", "list", "--json") == 0
    said = capfd.readouterr().out
    assert json.loads(said) == [{**HOST, "owner": "\x1b[2Jü"}]
    assert said.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("host list", {"hosts": 1}),
        ("host list", [1]),
        ("host list", [{"name": "a"}]),
        ("host list", "x"),
        ("host list", [{**HOST, "last_contact_s": "x"}]),
        ("host list", [{**HOST, "notes": []}]),
        ("project list", [{**PROJECT, "ranges": 1}]),
        ("audit --limit 1", [{"at": 1e300, "who": "", "what": "", "whom": "", "source": "", "detail": ""}]),
        ("key list", [{"id": 1, "kind": [], "created_at": "x", "note": ""}]),
        ("known-hosts", {"hosts": []}),
    ],
)
def test_an_answer_of_another_shape_is_no_traceback(
    run: Run, served: Pretended, words: str, answer: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = {"host": "hosts", "project": "projects", "audit": "audit?limit=1", "key": "keys"}
    served.answers[f"GET /api/v1/admin/{paths.get(words.split()[0], 'inventory')}"] = answer
    assert run(*words.split()) == 99
    assert "answers something else than was asked for" in capfd.readouterr().err


def test_a_terminal_gets_colours_and_its_own_width(
    served: Pretended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(served, GET__hosts=[{**HOST, "owner": "[red]\x1b]0;x\x07" + "o" * 200}])
    ours, theirs = pty.openpty()
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    environ = {**os.environ, "COLUMNS": "100", "TERM": "xterm", "D1FLEET_REGISTRY_KEY_FILE": str(key)}
    environ.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "d1fleet.cli", "registry", "host", "list", "--registry", served.url]
    process = subprocess.Popen(command, stdout=theirs, env=environ, stdin=subprocess.DEVNULL)
    os.close(theirs)
    data = b""
    try:
        while chunk := os.read(ours, 65536):
            data += chunk
    except OSError:
        pass  # the end of a terminal
    os.close(ours)
    assert process.wait() == 0
    assert b"\x1b[32mup" in data
    assert b"\x1b]0;" not in data and b"[red]?]0;x?" in data.replace(b"\r\n", b"").replace(b" ", b"")


# Tokens and keys


def token_answer(**more: str) -> tuple[int, dict[str, Any]]:
    token = {"token": "d1j_secret", "id": "0123abcd", "project": "engine", "note": ""}
    return 201, {**token, "created_at": 1.0, "used_at": 0.0, **more}


@pytest.mark.parametrize("verb", ["create", "rotate"])
def test_a_token_is_shown_with_the_whole_command(
    run: Run, served: Pretended, verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = token_answer(url="https://registry.example:33333", pin="sha256:00")
    answers(served, POST__projects__engine__tokens=answer, POST__projects__engine__tokens__rotate=answer)
    assert run("token", verb, "engine") == 0
    said = capfd.readouterr().out
    assert "d1fleet join https://registry.example:33333 --token d1j_secret --pin sha256:00\n" in said


def test_where_the_registry_does_not_say_it_the_command_has_what_we_know(
    run: Run,
    served: Pretended,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    certificate = make_certificate(tmp_path / "c")
    with pretended(certificate=certificate) as secured:
        answers(secured, POST__projects__engine__tokens=token_answer())
        pin = pin_of(certificate.der)
        assert run("token", "create", "engine", "--registry", secured.url, "--pin", pin) == 0
        assert f"d1fleet join {secured.url} --token d1j_secret --pin {pin}\n" in capfd.readouterr().out


def test_a_key_into_a_file(
    run: Run, served: Pretended, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answers(served, POST__keys=(201, {"key": KEY, "id": "0123abcd", "kind": "viewer"}))
    file = tmp_path / "viewer.key"
    assert run("key", "create", "--output", str(file)) == 0
    assert file.read_text() == f"{KEY}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert KEY not in capfd.readouterr().out
    assert run("key", "create", "--output", str(file)) == UsageError.exit_code  # it is there
    assert len(served.asked) == 1
    file.unlink()
    capfd.readouterr()
    assert run("key", "create", "--output", str(file), "--json") == 0
    said = json.loads(capfd.readouterr().out)
    assert (said["key"], said["file"]) == (None, str(file))


def test_no_key_no_file(run: Run, served: Pretended, tmp_path: Path) -> None:
    answers(served, POST__keys=(503, {"error": {"code": "database", "message": "no"}}))
    assert run("key", "create", "--output", str(tmp_path / "viewer.key")) == 99
    assert not (tmp_path / "viewer.key").exists()


def test_a_key_is_shown_once(run: Run, served: Pretended, capfd: pytest.CaptureFixture[str]) -> None:
    answers(served, POST__keys=(201, {"key": KEY, "id": "0123abcd", "kind": "viewer"}))
    assert run("key", "create") == 0
    assert KEY in capfd.readouterr().out


# Passwords


def test_a_password_of_a_file_or_standard_input(
    run: Run, served: Pretended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(served, POST__operators=(201, {"name": "ada", "kind": "operator", "created_at": 1.0}))
    (tmp_path / "password").write_text("  ein langes Wort ü \nmore\n")
    assert run("operator", "add", "ada", "--password-file", str(tmp_path / "password")) == 0
    with open(tmp_path / "password") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert run("operator", "add", "ada", "--kind", "viewer", "--password-file", "-") == 0
    assert [body["password"] for body in served.bodies] == ["  ein langes Wort ü "] * 2
    assert [body["kind"] for body in served.bodies] == ["operator", "viewer"]


def test_without_a_terminal_no_password_is_asked_for(
    run: Run, served: Pretended, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert run("operator", "add", "ada") == UsageError.exit_code
    assert "--password-file FILE, or - for" in capfd.readouterr().err
    assert served.asked == []


def test_on_a_terminal_it_is_asked_for_twice(
    run: Run, served: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(served, POST__operators=(201, {"name": "ada", "kind": "operator", "created_at": 1.0}))
    given: dict[str, Any] = {}

    def prompt(text: str, **how: Any) -> str:
        given.update(how)
        return "a long password"

    monkeypatch.setattr(click, "prompt", prompt)
    monkeypatch.setattr(
        registry_people, "sys", type("sys", (), {"stdin": type("tty", (), {"isatty": lambda: True})})
    )
    assert run("operator", "add", "ada") == 0
    assert served.bodies[0]["password"] == "a long password"
    assert given["hide_input"] and given["confirmation_prompt"]


def test_no_secret_is_an_argument(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["operator", "add", "--help"], ["host", "list", "--help"]):
        monkeypatch.setattr(sys, "argv", ["d1fleet", "registry", *words])
        assert main() == 0
        said = capfd.readouterr().out
        assert "--password " not in said and "--key " not in said


# Which registry


def test_the_socket_is_the_usual_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("D1FLEET_REGISTRY", raising=False)
    with pretended(tmp_path / "admin.sock") as served:
        answers(served, GET__hosts=[])
        monkeypatch.setattr(sys, "argv", ["d1fleet", "registry", "host", "list", "--data", str(tmp_path)])
        assert main() == 0
        assert "Authorization" not in served.asked[0].headers


def test_whose_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert registry_talk._usual_folder() == "/var/lib/d1fleet-registry"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert registry_talk._usual_folder() == "/var/lib/d1fleet-registry"
    (tmp_path / "d1fleet-registry").mkdir()
    (tmp_path / "d1fleet-registry" / "admin.sock").touch()
    assert registry_talk._usual_folder() == str(tmp_path / "d1fleet-registry")


def test_no_registry_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("D1FLEET_REGISTRY", raising=False)
    monkeypatch.setattr(sys, "argv", ["d1fleet", "registry", "host", "list", "--data", str(tmp_path)])
    assert main() == 99
    assert "no registry runs here" in capfd.readouterr().err


def test_a_url_wants_a_key(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("D1FLEET_REGISTRY_KEY_FILE")
    assert run("host", "list") == UsageError.exit_code
    assert "no key is named" in capfd.readouterr().err


def test_a_key_that_everybody_may_read(run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").chmod(0o644)
    assert run("host", "list") == UsageError.exit_code
    assert "chmod o= " in capfd.readouterr().err


# known_hosts


def test_known_hosts() -> None:
    assert known_hosts_lines(INVENTORY["hosts"]) == [
        "alder,192.0.2.10 ssh-ed25519 " + "A" * 68,
        "[birch]:2222,[192.0.2.11]:2222 ssh-ed25519 " + "B" * 68,
    ]


def test_known_hosts_of_those_who_are_not_trusted() -> None:
    alder = INVENTORY["hosts"]["alder"]
    states = ("expunged", "cloned", "gone")
    lines = known_hosts_lines({state: {**alder, "state": state, "address": ""} for state in states})
    assert [line.split()[0] for line in lines] == ["gone"]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("*", {}),
        ("a,b", {}),
        ("@cert-authority", {}),
        ("a\nb", {}),
        ("alder", {"address": "*"}),
        ("alder", {"address": "fe80::1%*"}),
        ("alder", {"host_keys": ["ssh-ed25519 " + "A" * 68 + "\n* ssh-ed25519 " + "A" * 68]}),
        ("alder", {"host_keys": ["* ssh-ed25519 " + "A" * 68]}),
        ("alder", {"ssh_port": "22]:x"}),
    ],
)
def test_a_line_that_would_mean_more(name: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        known_hosts_lines({name: {**INVENTORY["hosts"]["alder"], **changes}})


# Without the extra


EXTRA = "sqlalchemy alembic fastapi uvicorn limits pydantic argon2 itsdangerous jinja2 d1fleet.registry"


def without(extra: str, *words: str) -> subprocess.CompletedProcess[str]:
    """`d1fleet registry`, where these packages are not installed."""
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({extra.split()}))\n"
        "from d1fleet.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", code, "registry", *words]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("words", ["serve", "backup", "restore"])
def test_what_needs_the_extra_says_so(words: str, tmp_path: Path) -> None:
    file = [] if words == "serve" else [str(tmp_path / "file")]
    done = without(EXTRA.removesuffix(" d1fleet.registry"), words, *file, "--data", str(tmp_path / "data"))
    assert done.returncode == ToolError.exit_code
    assert "not installed (" in done.stderr and "pip install 'd1fleet[registry]'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_speaks_to_it_needs_nothing(tmp_path: Path) -> None:
    """And imports nothing of the service."""
    with pretended(tmp_path / "admin.sock") as found:
        answers(found, GET__hosts=[])
        done = without(EXTRA, "host", "list", "--data", str(tmp_path))
        assert done.returncode == 0, done.stderr


# The service itself


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("registry") / "data", tls=True) as found:
        yield found


def test_with_the_service_itself(
    real: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("D1FLEET_REGISTRY", raising=False)
    monkeypatch.setenv("D1FLEET_REGISTRY_DATA", str(real.data))

    def run(*words: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["d1fleet", "registry", *words])
        assert main() == code, capfd.readouterr()
        return capfd.readouterr().out

    run("project", "create", "engine", "--range", "192.0.2.0/24")
    run("project", "create", "engine", "--range", "192.0.2.0/24", code=99)
    run(
        "project",
        "change",
        "engine",
        "--option",
        "lzo",
        "--option",
        "cpp",
        "--transport",
        "ssh",
        "--old-clients",
    )
    (found,) = json.loads(run("project", "list", "--json"))
    assert (found["options"], found["transport"], found["old_clients"]) == (["lzo", "cpp"], "ssh", True)
    assert "192.0.2.0/24" in run("project", "show", "engine")

    made = json.loads(run("token", "create", "engine", "--note", "lab", "--json"))
    assert made["token"].startswith("d1j_")
    assert made["id"] in run("token", "list", "engine")
    run("token", "revoke", "engine", made["id"])
    assert made["id"] not in run("token", "list", "engine")
    assert " --token d1j_" in run("token", "rotate", "engine")

    (tmp_path / "password").write_text("a long password\n")
    run("operator", "add", "ada", "--password-file", str(tmp_path / "password"))
    assert "ada" in run("operator", "list")
    run("operator", "remove", "ada")

    run("key", "create", "--output", str(tmp_path / "viewer.key"), "--note", "tests")
    assert "tests" in run("key", "list")
    far = [
        "--registry",
        real.url,
        "--certificate",
        real.certificate,
        "--key-file",
        str(tmp_path / "viewer.key"),
    ]
    assert "engine" in run("project", "list", *far)
    run("project", "delete", "engine", *far, code=99)
    assert "status    ok" in run("status", *far)
    run("host", "show", "nosuch", code=99)
    assert run("known-hosts") == ""
    run("project", "delete", "engine")
    assert "delete project" in run("audit", "--limit", "1")


def test_its_certificate_is_shown(
    real: Service, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ["--data", str(real.data), "--config", str(real.data.with_suffix(".yml"))]
    monkeypatch.setattr(sys, "argv", ["d1fleet", "registry", "certificate", *here, "--json"])
    assert main() == 0
    found = json.loads(capfd.readouterr().out)
    assert found["certificate"] == real.certificate
    assert found["pem"] == Path(real.certificate).read_text()
    assert found["pin"] == pin_of(ssl.PEM_cert_to_DER_cert(found["pem"]))
    monkeypatch.setattr(sys, "argv", ["d1fleet", "registry", "certificate", "other.example", *here])
    assert main() == 99  # it has one
    assert "is there already" in capfd.readouterr().err


def test_a_backup_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> int:
        config = ["--config", str(tmp_path / "data.yml")] if words[0] in ("backup", "restore") else []
        monkeypatch.setattr(sys, "argv", ["d1fleet", "registry", *words, *config])
        return main()

    monkeypatch.delenv("D1FLEET_REGISTRY", raising=False)
    data, other, file = (str(tmp_path / name) for name in ("data", "other", "backup"))
    with service(tmp_path / "data"):
        assert run("project", "create", "engine", "--range", "192.0.2.0/24", "--data", data) == 0
        assert run("restore", file, "--data", data) != 0  # it runs
    assert run("backup", file, "--data", data) == 0
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert run("restore", file, "--data", other) == 0
    assert "the registry has 1 project and 0 hosts" in capfd.readouterr().out
    assert (tmp_path / "other/secret").read_bytes() == (tmp_path / "data/secret").read_bytes()
    assert stat.S_IMODE((tmp_path / "other/secret").stat().st_mode) == 0o600
    assert run("restore", file, "--data", other) != 0  # something would be lost
    assert run("restore", file, "--data", other, "--overwrite") == 0
    assert run("backup", file, "--data", str(tmp_path / "nosuch")) == UsageError.exit_code
    assert not (tmp_path / "nosuch").exists()
