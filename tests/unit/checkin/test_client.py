"""One question to a registry, and all that may answer in its place."""

from __future__ import annotations

import datetime
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from d1fleet.checkin import client as module
from d1fleet.checkin.client import Client
from d1fleet.checkin.config import Registry
from d1fleet.errors import ConnectError, ProtocolError, UsageError
from tests.unit.checkin.pretended import Handler, Pretended, make_certificate

CREDENTIAL = "c" * 40
LIMIT_S = 20.0


def good(handler: Handler, asked: dict[str, Any]) -> None:
    handler.send({"path": asked["path"]})


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("keys")
    now = datetime.datetime.now(datetime.UTC)
    return {
        "registry": make_certificate(folder),
        "other": make_certificate(folder, "other"),
        "old": make_certificate(
            folder, "old", begin=now - datetime.timedelta(days=9), end=now - datetime.timedelta(days=1)
        ),
    }


@pytest.fixture
def server() -> Iterator[Pretended]:
    with Pretended(good) as found:
        yield found


def ask(client: Client, limit_s: float = LIMIT_S) -> module.Reply:
    return client.post("/checkin", b"{}", CREDENTIAL, limit_s)


def test_a_connection_is_kept(server: Pretended) -> None:
    with closing(Client(server.registry, "", "test")) as client:
        assert ask(client) == module.Reply(200, b'{"path": "/api/v1/checkin"}')
        assert ask(client).status == 200
    first, second = server.next("/checkin"), server.next("/checkin")
    assert first["connection"] == second["connection"]
    assert first["credential"] == CREDENTIAL


def test_one_that_the_registry_has_closed_is_made_anew(server: Pretended) -> None:
    with closing(Client(server.registry, "", "test")) as client:
        ask(client)
        sock = client._connection.sock  # type: ignore[union-attr]
        server.hang_up()
        while not module._can_be_read(sock):
            time.sleep(0.01)
        assert ask(client).status == 200


@pytest.mark.parametrize("tls", [True, False])
def test_options_of_the_connection(tls: bool, keys: dict[str, tuple[Path, Path]]) -> None:
    """What notices a registry that has vanished."""
    with Pretended(good, keys["registry"] if tls else None) as server:
        pem = keys["registry"][0].read_text() if tls else ""
        with closing(Client(server.registry, pem, "test")) as client:
            ask(client)
            sock = client._connection.sock  # type: ignore[union-attr]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000


def test_the_registrys_own_certificate_alone_is_taken(keys: dict[str, tuple[Path, Path]]) -> None:
    with Pretended(good, keys["registry"]) as server:
        with closing(Client(server.registry, keys["registry"][0].read_text(), "test")) as client:
            assert ask(client).status == 200
            assert ask(client).status == 200
        for pem in (keys["other"][0].read_text(), ""):
            with (
                closing(Client(server.registry, pem, "test")) as client,
                pytest.raises(ProtocolError, match="certificate"),
            ):
                ask(client)
        assert server.next("/checkin") and server.next("/checkin")
        assert server.asked.empty()  # and no credential was shown to the others


def test_what_another_key_has_signed_is_not_taken_either(
    keys: dict[str, tuple[Path, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were TLS's own check to let it pass."""
    with Pretended(good, keys["other"]) as server:
        client = Client(server.registry, keys["registry"][0].read_text(), "test")
        client._context.load_verify_locations(str(keys["other"][0]))  # type: ignore[union-attr]
        with closing(client), pytest.raises(ProtocolError, match="another certificate"):
            ask(client)
        assert server.asked.empty()


def test_an_expired_certificate(keys: dict[str, tuple[Path, Path]]) -> None:
    with (
        Pretended(good, keys["old"]) as server,
        closing(Client(server.registry, keys["old"][0].read_text(), "test")) as client,
        pytest.raises(ProtocolError, match="expired"),
    ):
        ask(client)


@pytest.mark.parametrize(
    "pem", ["nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate(pem: str) -> None:
    with pytest.raises(UsageError, match="certificate"):
        Client(Registry("127.0.0.1", 1, True), pem, "test")


def test_two_certificates_are_not_one(keys: dict[str, tuple[Path, Path]]) -> None:
    both = keys["registry"][0].read_text() + keys["other"][0].read_text()
    with pytest.raises(UsageError, match="no single one"):
        Client(Registry("127.0.0.1", 1, True), both, "test")


def test_plain_where_tls_is_wanted(server: Pretended, keys: dict[str, tuple[Path, Path]]) -> None:
    registry = Registry("127.0.0.1", server.port, True)
    with (
        closing(Client(registry, keys["registry"][0].read_text(), "test")) as client,
        pytest.raises(ConnectError),
    ):
        ask(client)


def _elsewhere(handler: Handler, _asked: dict[str, Any]) -> None:
    handler.send({}, 307, Location=f"http://127.0.0.1:{handler.server.server_address[1]}/elsewhere")


def _huge(handler: Handler, _asked: dict[str, Any]) -> None:
    handler.send(b"[" + b" " * (9 << 20) + b"]")


def _endless(handler: Handler, _asked: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    chunk = b"%x\r\n" % (1 << 16) + b" " * (1 << 16) + b"\r\n"
    while not handler.server.pretended.ending.is_set():
        handler.wfile.write(chunk)


def _short(handler: Handler, _asked: dict[str, Any]) -> None:
    handler.raw(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"a":')


def _short_chunks(handler: Handler, _asked: dict[str, Any]) -> None:
    handler.raw(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"
    )


@pytest.mark.parametrize(
    ("answering", "kind", "words"),
    [
        (_elsewhere, ProtocolError, "elsewhere"),
        (_huge, ProtocolError, "more than"),
        (_endless, ProtocolError, "more than"),
        (_short, ConnectError, "hung up"),
        (_short_chunks, ConnectError, "hung up"),
        (lambda handler, asked: handler.raw(b""), ConnectError, "hung up"),
        (
            lambda handler, asked: handler.raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
            ProtocolError,
            "does not speak HTTP",
        ),
        (
            lambda handler, asked: handler.raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000),
            ProtocolError,
            "HTTP",
        ),
        (
            lambda handler, asked: handler.raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"),
            ProtocolError,
            "HTTP",
        ),
        (
            lambda handler, asked: handler.send(b"<html>", Content_Type="text/html"),
            ProtocolError,
            "no registry is there",
        ),
    ],
)
def test_what_is_no_answer(
    server: Pretended, answering: Callable[[Handler, dict[str, Any]], None], kind: type[Exception], words: str
) -> None:
    server.answering = answering
    with closing(Client(server.registry, "", "test")) as client:
        with pytest.raises(kind, match=words):
            ask(client)
        server.answering = good
        assert ask(client).status == 200
    assert {server.asked.get()["path"] for _ in range(2)} == {"/api/v1/checkin"}
    assert server.asked.empty()


def _slow_body(handler: Handler, _asked: dict[str, Any]) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    while not handler.server.pretended.ending.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def _slow_head(handler: Handler, _asked: dict[str, Any]) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.pretended.ending.wait(0.02):
        handler.wfile.write(b"a")
        handler.wfile.flush()


def _continues(handler: Handler, _asked: dict[str, Any]) -> None:
    while not handler.server.pretended.ending.wait(0.005):
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        handler.wfile.flush()


def _silent(handler: Handler, _asked: dict[str, Any]) -> None:
    handler.server.pretended.ending.wait(LIMIT_S)
    handler.close_connection = True


@pytest.mark.parametrize("answering", [_slow_body, _slow_head, _continues, _silent])
@pytest.mark.parametrize("tls", [True, False])
def test_a_byte_now_and_then_does_not_hold_us_up(
    answering: Callable[[Handler, dict[str, Any]], None], tls: bool, keys: dict[str, tuple[Path, Path]]
) -> None:
    with Pretended(answering, keys["registry"] if tls else None) as server:
        pem = keys["registry"][0].read_text() if tls else ""
        with (
            closing(Client(server.registry, pem, "test")) as client,
            pytest.raises(ConnectError, match="in time"),
        ):
            ask(client, 0.5)


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        registry = Registry("127.0.0.1", free.getsockname()[1], False)
        with closing(Client(registry, "", "test")) as client, pytest.raises(ConnectError, match="refused"):
            ask(client)


def test_a_handshake_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(module, "CONNECT_S", 0.3)
        registry = Registry("127.0.0.1", silent.getsockname()[1], True)
        with closing(Client(registry, "", "test")) as client, pytest.raises(ConnectError):
            ask(client)


@pytest.mark.parametrize("tls", [True, False])
def test_a_question_under_way_is_broken_off(tls: bool, keys: dict[str, tuple[Path, Path]]) -> None:
    failures: list[Exception] = []

    def asking() -> None:
        try:
            ask(client)
        except ConnectError as error:
            failures.append(error)

    with Pretended(_silent, keys["registry"] if tls else None) as server:
        client = Client(server.registry, keys["registry"][0].read_text() if tls else "", "test")
        for end in (client.interrupt, client.abort):
            thread = threading.Thread(target=asking)
            thread.start()
            server.next("/checkin")
            end()
            thread.join(LIMIT_S)
            assert not thread.is_alive()
        assert len(failures) == 2
        asking()
        assert "about to end" in str(failures[2])


def test_an_idle_connection_is_given_up(server: Pretended) -> None:
    with closing(Client(server.registry, "", "test")) as client:
        ask(client)
        client.interrupt()
        assert client._connection is None
        assert ask(client).status == 200
