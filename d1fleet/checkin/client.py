"""One connection to the registry, kept as long as both sides like: no redirects, and a limit for each answer.

Of a registry's own certificate, that one alone is trusted: whoever else has one, from whatever authority.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import select
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any

from ..errors import ConnectError, D1fleetError, ProtocolError, UsageError
from .answer import MOST_BYTES
from .config import Registry
from .strictjson import plain

API = "/api/v1"

CONNECT_S = 5.0
"""For a connection, and the handshake on it."""

_IDLE_S, _EACH_S, _TIMES = 10, 5, 3
"""Of TCP's keep-alive: a registry that has vanished is noticed so, also while we wait for news."""
_UNANSWERED_MS = 10_000
"""What was sent and is not acknowledged breaks the connection: tcp(7), TCP_USER_TIMEOUT."""

_PIECE = 1 << 16

_PARTIAL_CHAIN = 0x80000
"""X509_V_FLAG_PARTIAL_CHAIN, without a name in Python 3.9: what is trusted itself needs no authority."""


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    body: bytes


class Client:
    """Asks the registry, one question at a time.

    Args:
        certificate: PEM, the registry's own; "" trusts what this system's authorities vouch for.
        agent: what we call ourselves.

    Raises:
        UsageError: the certificate cannot be read.
    """

    def __init__(self, registry: Registry, certificate: str, agent: str) -> None:
        self._registry = registry
        self._agent = agent
        self._pinned = b""
        self._context: ssl.SSLContext | None = None
        if registry.tls:
            self._context, self._pinned = _context(certificate)
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()
        self._asking = False
        self._aborted = False

    def post(self, path: str, body: bytes, credential: str, limit_s: float) -> Reply:
        """Ask, and wait for the whole answer.

        Args:
            path: below the API's own.
            credential: "" shows none.
            limit_s: for all of it.

        Raises:
            ConnectError: the registry is not there, or does not answer in time.
            ProtocolError: what answers is no registry, or not the one that we know.
        """
        with self._lock:
            self._asking = True
        try:
            return self._post(path, body, credential, time.monotonic() + limit_s)
        except (OSError, ValueError, http.client.HTTPException, D1fleetError) as error:
            self.close()
            raise self._as_ours(error) from error
        finally:
            with self._lock:
                self._asking = False
            if self._aborted:
                self.close()

    def _as_ours(self, error: Exception) -> D1fleetError:
        """What is to be said of it."""
        if isinstance(error, D1fleetError):
            return error
        if isinstance(error, (http.client.RemoteDisconnected, http.client.IncompleteRead)):
            return ConnectError(f"{self._registry} has hung up")
        if isinstance(error, http.client.HTTPException):
            said = plain(str(error)) or type(error).__name__
            return ProtocolError(f"{self._registry} does not speak HTTP as it should: {said}")
        if isinstance(error, ssl.SSLCertVerificationError):
            return ProtocolError(
                f"{self._registry} shows a certificate that is not to be trusted: {error.verify_message}",
                "compare its certificate with that which this host has been given",
            )
        if isinstance(error, (TimeoutError, socket.timeout)):
            return ConnectError(f"{self._registry} does not answer in time")
        # ValueError: what ssl says of a connection that was broken off under it.
        said = getattr(error, "strerror", None) or str(error)
        return ConnectError(f"{self._registry} cannot be reached: {plain(said)}")

    def _post(self, path: str, body: bytes, credential: str, until_s: float) -> Reply:
        connection = self._connected(until_s)
        headers = {"Content-Type": "application/json", "User-Agent": self._agent}
        if credential:
            headers["Authorization"] = f"Bearer {credential}"
        connection.sock.settimeout(_left(until_s))
        connection.request("POST", API + path, body, headers)
        # What it reads from is made anew for each answer, so that the time of this one counts.
        connection.response_class = _timed(until_s)
        with connection.getresponse() as response:
            if 300 <= response.status < 400:
                raise ProtocolError(f"{self._registry} sends us elsewhere, where we do not go")
            kind = response.headers.get_content_type()
            data = bytearray()
            while piece := response.read(_PIECE):
                data += piece
                if len(data) > MOST_BYTES:
                    raise ProtocolError(f"{self._registry} answers with more than {MOST_BYTES} bytes")
            if response.length:
                raise ConnectError(f"{self._registry} has hung up in the middle of its answer")
            if data and kind != "application/json":
                raise ProtocolError(f"{self._registry} answers with {plain(kind)}: no registry is there")
            return Reply(response.status, bytes(data))

    def _connected(self, until_s: float) -> http.client.HTTPConnection:
        with self._lock:
            if self._aborted:
                raise ConnectError("we are about to end")
            connection = self._connection
        # An idle connection that can be read from was closed by the registry.
        if connection is not None and connection.sock is not None and not _can_be_read(connection.sock):
            return connection
        self.close()
        connection = _Connection(self._registry, self._context, min(CONNECT_S, _left(until_s)))
        try:
            connection.connect()
            if self._pinned and connection.certificate() != self._pinned:
                raise ProtocolError(f"{self._registry} shows another certificate than the one we know")
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._connection = connection
            aborted = self._aborted
        if aborted:
            raise ConnectError("we are about to end")
        return connection

    def close(self) -> None:
        """Hang up; the next question connects anew."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        """Have a question that another thread waits for fail now; the next one connects anew."""
        with self._lock:
            connection, asking = self._connection, self._asking
            if not asking:
                self._connection = None
        if connection is not None and not asking:
            connection.close()
        elif connection is not None and connection.sock is not None:
            # Not SSLSocket's own, which takes the connection away under who reads from it.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def abort(self) -> None:
        """The same for good: no question is asked any more."""
        with self._lock:
            self._aborted = True
        self.interrupt()


class _Connection(http.client.HTTPConnection):
    """With keep-alive, and with the registry's certificate checked as `Client` wants it."""

    def __init__(self, registry: Registry, context: ssl.SSLContext | None, connect_s: float) -> None:
        super().__init__(registry.host, registry.port, timeout=connect_s)
        self._tls = context

    def connect(self) -> None:
        """Connect; `timeout` is for each address of the registry, and for the handshake."""
        super().connect()
        for option, value in (
            (socket.TCP_KEEPIDLE, _IDLE_S),
            (socket.TCP_KEEPINTVL, _EACH_S),
            (socket.TCP_KEEPCNT, _TIMES),
            (socket.TCP_USER_TIMEOUT, _UNANSWERED_MS),
        ):
            self.sock.setsockopt(socket.IPPROTO_TCP, option, value)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)

    def certificate(self) -> bytes | None:
        """What the registry has shown, in DER."""
        return self.sock.getpeercert(binary_form=True) if isinstance(self.sock, ssl.SSLSocket) else None


class _Timed(io.RawIOBase):
    """Reads from a socket until a time that is set once: a byte now and then does not put it off."""

    def __init__(self, sock: socket.socket, until_s: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._until_s = until_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """As the socket's own file has it."""
        self._sock.settimeout(_left(self._until_s))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        """Give the socket back."""
        self._raw.close()
        super().close()


class _TimedSocket:
    """What http.client makes the file of an answer from."""

    def __init__(self, sock: socket.socket, until_s: float) -> None:
        self._sock = sock
        self._until_s = until_s

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Its file."""
        return io.BufferedReader(_Timed(self._sock, self._until_s))


def _timed(until_s: float) -> Any:
    def make(sock: socket.socket, *args: Any, **named: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_TimedSocket(sock, until_s), *args, **named)  # type: ignore[arg-type]

    return make


def _left(until_s: float) -> float:
    left_s = until_s - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _can_be_read(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _context(certificate: str) -> tuple[ssl.SSLContext, bytes]:
    """How TLS is spoken, and the one certificate that is taken, or b"" for all that are vouched for."""
    if not certificate:
        return ssl.create_default_context(), b""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_flags |= _PARTIAL_CHAIN
    try:
        if certificate.count("-----BEGIN ") != 1:
            raise ValueError("not one")
        pinned = ssl.PEM_cert_to_DER_cert(certificate.strip() + "\n")
        context.load_verify_locations(cadata=pinned)
    except ValueError as error:  # what ssl says itself is one, or an OSError
        raise UsageError("the registry's certificate is no single one in PEM", "copy it anew") from error
    except OSError as error:
        raise UsageError(f"the registry's certificate cannot be read: {error}", "copy it anew") from error
    return context, pinned
