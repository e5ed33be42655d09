"""The service as a process: how it starts, serves, and ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from d1fleet.registry.certificate import make_certificate, pin
from d1fleet.registry.serve import OWN_ADDRESSES_S, OwnAddresses, notify

from .memory_store import report
from .serving import Served, config, fails, served
from .web import as_json


def _tls(folder: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    file, key = make_certificate(["127.0.0.1"], folder)
    return {"tls_certificate": str(file), "tls_key": str(key)}


def _client(served: Served, certificate: str = "", **values: Any) -> httpx.Client:
    scheme = "https" if certificate else "http"
    context = ssl.create_default_context(cafile=certificate) if certificate else True
    return httpx.Client(
        base_url=f"{scheme}://127.0.0.1:{served.port}", verify=context, timeout=20, trust_env=False, **values
    )


def _joined(service: Served, client: httpx.Client, name: str = "alder") -> dict[str, Any]:
    with service.local() as operator:
        operator.post("/projects", json={"name": "engine", "ranges": ["192.0.2.0/24"]})
        token = operator.post("/projects/engine/tokens", json={}).json()["token"]
    body = {"token": token, "name": name, "report": as_json(report(name))}
    answer = client.post("/api/v1/join", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return {**found, "report": body["report"]}


def test_a_life(tmp_path: Path) -> None:
    tls = _tls(tmp_path / "tls")
    file = config(tmp_path, **tls)
    with served(file) as service:
        modes = {
            name: stat.S_IMODE((service.data / name).stat().st_mode) for name in ("admin.sock", "secret", ".")
        }
        assert modes == {"admin.sock": 0o600, "secret": 0o600, ".": 0o700}
        with _client(service, tls["tls_certificate"]) as client:
            answer = client.get("/healthz")
            assert answer.json() == {"status": "ok"} and "strict-transport-security" in answer.headers
            assert "server" not in answer.headers
            host = _joined(service, client)
            assert client.get("/api/v1/admin/hosts").status_code == 401
        status, log = service.end()
        assert status == 0
        assert log[-1]["message"] == "ended"
        assert not (service.data / "admin.sock").exists()
    with served(file) as service, _client(service, tls["tls_certificate"]) as client:
        # What was acknowledged is there, and the credential is still one.
        body = {"report": {**host["report"], "sequence": 2}, "known": {}}
        answer = client.post(
            "/api/v1/checkin", json=body, headers={"Authorization": f"Bearer {host['credential']}"}
        )
        assert answer.status_code == 200 and answer.json()["name"] == "alder"
        assert answer.json()["epoch"] != host["epoch"]
        assert service.end(signal.SIGINT)[0] == 0


def test_those_who_wait_are_answered_at_the_end(tmp_path: Path) -> None:
    with served(config(tmp_path)) as service, _client(service) as client:
        host = _joined(service, client)
        bearer = {"Authorization": f"Bearer {host['credential']}"}
        beat = {"report": {**host["report"], "sequence": 2}, "known": {}}
        told = client.post("/api/v1/checkin", json=beat, headers=bearer).json()
        known = {"engine": told["projects"]["engine"]["revision"]}
        answers: list[int] = []

        def wait() -> None:
            with _client(service) as own:
                answer = own.post("/api/v1/wait", json={"known": known, "wait_s": 60}, headers=bearer)
                answers.append(answer.status_code)

        waiting = threading.Thread(target=wait)
        waiting.start()
        with service.local() as operator, operator.stream("GET", "/events") as events:
            lines = events.iter_lines()
            assert next(lines) == 'data: {"type":"everything"}'
            while "d1fleet_waiters 1.0" not in operator.get("http://registry/metrics").text:
                pass
            status, log = service.end()
            assert status == 0, log
            assert list(lines)[-1] == ""  # the stream has ended as it should
        waiting.join(20)
        assert answers == [200]


def test_killed_it_starts_again(tmp_path: Path) -> None:
    file = config(tmp_path)
    with served(file) as service, _client(service) as client:
        _joined(service, client)
        service.process.kill()
        service.process.communicate(timeout=30)
        assert (service.data / "admin.sock").exists()
    with served(file) as service:
        with service.local() as operator:
            assert [each["name"] for each in operator.get("/hosts").json()] == ["alder"]
        service.end()


def test_two_never_have_one_folder(tmp_path: Path) -> None:
    file = config(tmp_path)
    with served(file) as service:
        code, said = fails(file)
        assert code == 99
        assert f"another registry runs in {service.data}" in said and "mend: " in said
        # The socket is still the first one's.
        with service.local() as operator:
            assert operator.get("/hosts").status_code == 200
        service.end()


def test_it_says_why_it_cannot_start(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = fails(config(tmp_path, port=port))
        assert code == 99 and f"cannot listen on 127.0.0.1 port {port}" in said and "ss -ltnp" in said
        code, said = fails(config(tmp_path, old_clients_listen="127.0.0.1", old_clients_port=port))
        assert code == 99 and "the listener for old clients cannot listen" in said
    code, said = fails(config(tmp_path, **_tls(tmp_path / "tls"), listen="203.0.113.77"))
    assert code == 99 and "cannot listen on 203.0.113.77" in said and "ip address" in said
    (tmp_path / "data" / "registry.db").write_bytes(b"no database " * 1000)
    code, said = fails(config(tmp_path))
    assert code == 99 and said.startswith("the database") and "mend: " in said


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    good = _tls(tmp_path / "a")
    other = _tls(tmp_path / "b")
    key = ec.generate_private_key(ec.SECP256R1())
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for values, words in (
        ({**good, "tls_key": str(tmp_path / "nothing")}, "nothing cannot be read: No such file"),
        ({**good, "tls_key": other["tls_key"]}, "cannot be used: key values mismatch"),
        ({**good, "tls_key": str(locked)}, "cannot be used"),
        ({"tls_certificate": good["tls_key"], "tls_key": good["tls_key"]}, "cannot be used"),
    ):
        code, said = fails(config(tmp_path, **values))
        assert code == 99 and words in said and "mend: " in said, said


def test_a_folder_that_others_may_write(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    code, said = fails(config(tmp_path))
    assert code == 86 and "can be written by others (mode 0777)" in said
    assert os.listdir(tmp_path / "data") == []


def test_a_secret_that_others_may_read(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    secret = tmp_path / "data" / "secret"
    secret.write_bytes(b"s" * 32)
    secret.chmod(0o644)
    code, said = fails(config(tmp_path))
    assert code == 86 and f"others may read {secret}" in said


def test_a_path_that_is_too_long_for_a_socket(tmp_path: Path) -> None:
    code, said = fails(config(tmp_path, data=str(tmp_path / ("x" * 120))))
    assert code == 99 and "too long a path for a socket" in said


def _pin_shown(port: int) -> str:
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=20)
    return pin(pem)


def test_a_new_certificate_is_read_when_it_is_told_to(tmp_path: Path) -> None:
    tls = _tls(tmp_path / "tls")
    old, new = Path(tls["tls_certificate"]).read_text(), _tls(tmp_path / "new")
    with served(config(tmp_path, **tls)) as service:
        assert _pin_shown(service.port) == pin(old)
        # Half of a pair is not taken, and nothing is lost by it.
        os.replace(new["tls_certificate"], tls["tls_certificate"])
        service.process.send_signal(signal.SIGHUP)
        assert service.process.stderr is not None
        seen = ""
        while "was not read again" not in seen:
            seen = service.process.stderr.readline()
        assert _pin_shown(service.port) == pin(old)
        os.replace(new["tls_key"], tls["tls_key"])
        service.process.send_signal(signal.SIGHUP)
        while "was read again" not in seen:
            seen = service.process.stderr.readline()
        wanted = pin(Path(tls["tls_certificate"]).read_text())
        assert json.loads(seen)["pin"] == wanted != pin(old)
        assert _pin_shown(service.port) == wanted
        assert service.end()[0] == 0


def test_systemd_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))
        sock.settimeout(20)
        with served(config(tmp_path), {"NOTIFY_SOCKET": str(path)}) as service:
            assert sock.recv(100) == b"READY=1"
            service.end()
            assert sock.recv(100) == b"STOPPING=1"


def test_without_systemd_nobody_is_told(tmp_path: Path) -> None:
    for text in ("", "relative", str(tmp_path / "nobody"), "@d1fleet-nobody"):
        notify("READY=1", {"NOTIFY_SOCKET": text})
    notify("READY=1", {})


def test_old_clients_have_a_listener_of_their_own(tmp_path: Path) -> None:
    file = config(tmp_path, old_clients_listen="127.0.0.1", old_clients_port=0)
    with served(file) as service:
        assert set(service.ports) == {"registry", "old clients"}
        with service.local() as operator:
            operator.post(
                "/projects", json={"name": "engine", "ranges": ["192.0.2.0/24"], "old_clients": True}
            )
        connection = http.client.HTTPConnection("127.0.0.1", service.ports["old clients"], timeout=20)
        for path, status in (
            ("/api/checkin?hash=a1b2c3d4&project=other&username=ada&swVersion=0.0.6&threads=8", 200),
            # It comes from loopback, which no project has in its ranges.
            ("/api/checkin?hash=a1b2c3d4&project=engine&username=ada&swVersion=0.0.6&threads=8", 403),
            ("/api/v1/admin/hosts", 404),
            ("/", 404),
        ):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == status, path
            assert answer.read() == b"localhost/8\n" if status == 200 else True
        connection.close()
        service.end()


def test_what_others_on_this_machine_may_not_do() -> None:
    """Whoever cannot open the socket is no operator."""
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with tempfile.TemporaryDirectory() as folder, served(config(Path(folder))) as service:
        Path(folder).chmod(0o755)
        ask = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX);"
            "s.connect(sys.argv[1]); s.sendall(b'GET /healthz HTTP/1.0\\r\\n\\r\\n'); print(s.recv(99))"
        )
        path = str(service.data / "admin.sock")
        for mode in (0o700, 0o755):  # the socket itself is closed, too
            service.data.chmod(mode)
            done = subprocess.run(
                ["python3", "-I", "-c", ask, path],
                user="nobody",
                group="nogroup",
                extra_groups=[],
                capture_output=True,
                text=True,
                cwd="/",
                timeout=30,
            )
            assert "PermissionError" in done.stderr and done.stdout == ""
        service.end()


def test_own_addresses_are_asked_for_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    real = psutil.net_if_addrs

    def count() -> Any:
        nonlocal asked
        asked += 1
        return real()

    monkeypatch.setattr(psutil, "net_if_addrs", count)
    now_s = 100.0
    own = OwnAddresses(lambda: now_s)
    assert "127.0.0.1" in own()
    assert all("%" not in each for each in own()) and asked == 1
    now_s += OWN_ADDRESSES_S
    own()
    assert asked == 2
