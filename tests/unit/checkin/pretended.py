"""A pretended registry: a real server of the standard library on loopback, that answers what a test says."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import ipaddress
import json
import queue
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from d1fleet.checkin.config import Registry

LIMIT_S = 30.0

Answering = Callable[["Handler", dict[str, Any]], None]


def make_certificate(folder: Path, name: str = "registry", **dates: datetime.datetime) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dates.get("begin", now - datetime.timedelta(days=1)))
        .not_valid_after(dates.get("end", now + datetime.timedelta(days=1)))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, private


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        """Note the question, and have the test's function answer it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = {
            "path": self.path,
            "body": json.loads(body),
            "credential": (self.headers.get("Authorization") or "").removeprefix("Bearer "),
            "connection": self.client_address,
        }
        self.server.pretended.asked.put(asked)
        self.server.pretended.answering(self, asked)

    do_GET = do_POST

    def send(self, value: Any, status: int = 200, **headers: str) -> None:
        """An answer in JSON, or bytes as they are."""
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content_Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def raw(self, data: bytes) -> None:
        """Bytes in place of an answer, and then hang up."""
        self.close_connection = True
        self.wfile.write(data)

    def log_message(self, *_args: Any) -> None:
        """Nobody reads it."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    allow_reuse_address = True
    pretended: Pretended

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self.pretended.lock:
            self.pretended.connections.add(request)
        super().process_request_thread(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self.pretended.lock:
            self.pretended.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Who hangs up is no news."""


class Pretended:
    """The server, until `close`.

    Attributes:
        asked: what was asked, in order.
        answering: answers a question; may be exchanged at any time.
    """

    def __init__(self, answering: Answering, tls: tuple[Path, Path] | None = None, port: int = 0) -> None:
        self.asked: queue.Queue[dict[str, Any]] = queue.Queue()
        self.answering = answering
        self.lock = threading.Lock()
        self.connections: set[socket.socket] = set()
        self.ending = threading.Event()
        self._server = _Server(("127.0.0.1", port), Handler)
        self._server.pretended = self
        self.port: int = self._server.server_address[1]
        self.tls = tls is not None
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="pretended")
        self._thread.start()

    @property
    def registry(self) -> Registry:
        return Registry("127.0.0.1", self.port, self.tls)

    def next(self, path: str, limit_s: float = LIMIT_S) -> dict[str, Any]:
        """The next question to a path; others before it are passed over."""
        while True:
            asked = self.asked.get(timeout=limit_s)
            if asked["path"] == f"/api/v1{path}":
                return asked

    def hang_up(self) -> None:
        """Break off all connections."""
        with self.lock:
            for each in self.connections:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(each, socket.SHUT_RDWR)

    def close(self) -> None:
        """End it; what waits is let go."""
        self.ending.set()
        self._server.shutdown()
        self.hang_up()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Pretended:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
