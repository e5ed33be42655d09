"""A registry that answers whatever a test wants it to, over TCP, TLS or a socket; and its certificate."""

from __future__ import annotations

import datetime
import ipaddress
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

KEY = "d1k_0123abcd_" + "k" * 43

INVENTORY: dict[str, Any] = {
    "projects": {
        "engine": {"transport": "tcp", "options": ["lzo"], "ranges": ["192.0.2.0/24"]},
        "firmware": {"transport": "ssh", "options": [], "ranges": ["198.51.100.0/24", "2001:db8::/64"]},
    },
    "hosts": {
        "alder": {
            "address": "192.0.2.10",
            "slots": 8,
            "port": 3632,
            "ssh_port": 22,
            "projects": ["engine", "firmware"],
            "owner": "ada",
            "state": "up",
            "version": "0.1.0",
            "host_keys": ["ssh-ed25519 " + "A" * 68],
        },
        "birch": {
            "address": "192.0.2.11",
            "slots": 4,
            "port": 3632,
            "ssh_port": 2222,
            "projects": ["engine"],
            "owner": "",
            "state": "suspect",
            "version": "0.1.0",
            "host_keys": ["ssh-ed25519 " + "B" * 68],
        },
    },
}
"""As /admin/inventory answers."""


@dataclass
class Asked:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass
class Pretended:
    """What is answered, by method and path (`GET /api/v1/admin/hosts`, with the query where it has one), and
    what was asked. An answer is JSON, or (status, JSON), or raw bytes that are the whole of it.
    """

    url: str
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def bodies(self) -> list[Any]:
        return [each.body for each in self.asked]


class _Handler(BaseHTTPRequestHandler):
    server: Any

    def _do(self) -> None:
        found: Pretended = self.server.pretended
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        found.asked.append(Asked(self.command, self.path, dict(self.headers), body))
        unknown = (404, {"error": {"code": "unknown", "message": f"there is no {self.path}"}})
        answer = found.answers.get(f"{self.command} {self.path}", unknown)
        if isinstance(answer, bytes):
            self.wfile.write(answer)
            self.close_connection = True
            return
        status, value = answer if isinstance(answer, tuple) else (200, answer)
        data = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = _do

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def address_string(self) -> str:
        return ""


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False


@contextmanager
def pretended(where: Path | None = None, certificate: Certificate | None = None) -> Iterator[Pretended]:
    """A registry on a port of 127.0.0.1.

    Args:
        where: a socket instead.
        certificate: by TLS, with this one.
    """
    server: Any
    if where is not None:
        server, url = _UnixServer(str(where), _Handler), f"unix:{where}"
    else:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.daemon_threads = False
        url = f"http://127.0.0.1:{server.server_address[1]}"
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.file, certificate.key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        url = url.replace("http:", "https:")
    server.pretended = Pretended(url)
    server.handle_error = lambda *_: None  # a client that does not trust us goes away
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.pretended
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def scripted(data: bytes, then: str = "") -> Iterator[str]:
    """A server that sends these bytes to whoever connects, whatever they ask; its URL.

    Args:
        then: "hang" keeps the connection open and says no more, "drip" goes on with a blank now and then.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    connection.recv(65536)
                    connection.sendall(data)
                    while then and not ended.wait(0.05):
                        if then == "drip":
                            connection.sendall(b" ")
                except OSError:
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


@dataclass(frozen=True)
class Certificate:
    """A self-signed one, for 127.0.0.1 unless told otherwise."""

    file: Path
    key: Path
    der: bytes


def make_certificate(folder: Path, name: str = "127.0.0.1") -> Certificate:
    """Write one, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")])
    try:
        names: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        names = x509.DNSName(name)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([names]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    file, key_file = folder / "registry.pem", folder / "registry.key"
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificate(file, key_file, made.public_bytes(serialization.Encoding.DER))
