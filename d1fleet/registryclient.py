"""Speaks to the registry as its operators do: by HTTPS, or by the socket in its data folder.

Standard library alone. An answer is JSON of bounded size that came in bounded time; no redirect and no proxy
is followed, so that a key reaches nobody but the registry that was named.
"""

from __future__ import annotations

import http.client
import io
import json
import re
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any

from .errors import RegistryError, UsageError
from .registryplace import Place
from .registrytls import secured
from .words import plain

ANSWER_S = 15.0
"""For all of an answer. A registry whose database hangs says so sooner."""

MOST_BYTES = 64 << 20
"""Of an answer: some 100,000 hosts."""

PREFIX = "/api/v1"

_KEY = re.compile(r"d1k_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", re.ASCII)

_WHY = {
    401: ("the registry does not know this key", "name a file with one that it knows: --key-file FILE"),
    413: ("the registry was asked with more than it takes", ""),
    429: ("the registry is asked too often", "wait a minute"),
}
"""What is said of an answer that says nothing itself: message and mend by status."""


class AwayError(RegistryError):
    """It cannot be reached: nothing that it has said."""


class Registry:
    """A registry that is spoken to.

    Args:
        key: an API key; "" for none, as on its own socket.
        answer_s: how long an answer may take as a whole.
    """

    def __init__(self, place: Place, key: str = "", answer_s: float = ANSWER_S) -> None:
        self.place = place
        self._key = key
        self._answer_s = answer_s

    def __repr__(self) -> str:
        return f"Registry({str(self.place)!r})"

    def get(self, path: str, **query: str | int) -> Any:
        """What is at a path below /api/v1.

        Raises:
            RegistryError: the registry is away, refuses, or answers something else than JSON.
        """
        given = urllib.parse.urlencode(query)
        return self._ask("GET", f"{path}?{given}" if given else path)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """As `get`; None where the answer is empty.

        Args:
            body: None for none.
        """
        return self._ask("POST", path, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """As `get`."""
        return self._ask("PATCH", path, body)

    def delete(self, path: str, **query: str) -> Any:
        """As `get`; None where the answer is empty."""
        given = urllib.parse.urlencode(query)
        return self._ask("DELETE", f"{path}?{given}" if given else path)

    def health(self) -> dict[str, Any]:
        """What /healthz says, also where that is no good news.

        Raises:
            RegistryError: the registry is away, or answers something else.
        """
        status, data = self._exchange("GET", "/healthz", None)
        found = self._read(status, data)
        if status not in (200, 503) or not isinstance(found, dict):
            raise RegistryError(f"{self.place} is no registry: {self._said(status, data)}")
        return found

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        status, data = self._exchange(method, PREFIX + path, body)
        if not 200 <= status < 300:
            raise self._refusal(status, data)
        return None if status == 204 else self._read(status, data)

    def _exchange(self, method: str, target: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        place = self.place
        connection = http.client.HTTPConnection("registry")
        headers = {"Accept": "application/json", "Connection": "close", "User-Agent": "d1fleet"}
        headers["Host"] = place.authority
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = None if body is None else json.dumps(body).encode()
        end = time.monotonic() + self._answer_s
        try:
            with _connect(place, end) as sock:
                connection.sock = _Line(sock, end)
                connection.request(method, target, data, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise unreachable(place, error) from error
        finally:
            connection.sock = None
            connection.close()

    def _read(self, status: int, data: bytes) -> Any:
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise RegistryError(
                f"{self.place} does not answer as a registry: {self._said(status, data)}",
                "look whether it is the registry's address, with its port (33333)",
            ) from None

    def _refusal(self, status: int, data: bytes) -> RegistryError:
        if 300 <= status < 400:
            return RegistryError(
                f"{self.place} sends us elsewhere (HTTP {status}), which is not followed",
                "name the registry itself",
            )
        try:
            told = json.loads(data)["error"]
            message, mend = str(told["message"]), str(told.get("mend") or "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            message, mend = _WHY.get(status, (f"{self.place} answers {self._said(status, data)}", ""))
        if status == 401:
            mend = mend or _WHY[401][1]
        return RegistryError(plain(message), plain(mend))

    def _said(self, status: int, data: bytes) -> str:
        first = data[:80].decode("utf-8", "replace").strip().partition("\n")[0]
        return f"HTTP {status}, {plain(first)!r}" if first else f"HTTP {status}"


def read_key(path: str) -> str:
    """The API key in a file.

    Raises:
        UsageError: it cannot be read, or holds none.
    """
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(200).strip()
    except OSError as error:
        raise UsageError(
            f"the key file {path} cannot be read: {error.strerror}", "see `ls -l` of it"
        ) from error
    if not _KEY.fullmatch(text):
        raise UsageError(
            f"{path} holds no key of a registry",
            "`d1fleet registry key create` makes one: d1k_..., and no more",
        )
    return text


def unreachable(place: Place, error: Exception) -> RegistryError:
    """What it means that a registry could not be spoken to."""
    if isinstance(error, RegistryError):
        return error
    if place.socket and isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return AwayError(
            f"no registry runs here, by its socket {place.socket}",
            "start it (systemctl start d1fleet-registry, or d1fleet registry serve),"
            " or name another by --registry URL",
        )
    if place.socket and isinstance(error, PermissionError):
        return RegistryError(
            f"the registry's socket {place.socket} is not for us",
            "be root (sudo), or use a key: --registry URL --key-file FILE",
        )
    if isinstance(error, TimeoutError):
        why, mend = "it does not answer in time", "look whether a firewall is between, and what its log says"
    elif isinstance(error, ConnectionRefusedError):
        why, mend = "nothing listens there", "look whether it runs, and listens on more than 127.0.0.1"
    elif isinstance(error, socket.gaierror):
        why, mend = f"{place.host} has no address", "name it by one that is known here"
    elif isinstance(error, ssl.SSLError):
        why, mend = (
            f"it does not speak TLS as it should ({error.reason})",
            "look whether it is the right port",
        )
    elif isinstance(error, http.client.HTTPException | ConnectionResetError | BrokenPipeError):
        why = f"it does not speak HTTP as it should ({type(error).__name__})"
        mend = "look whether it is the registry's port, and https where it has a certificate"
    else:
        why = plain(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        mend = "look whether it runs: systemctl status d1fleet-registry"
    return AwayError(f"the registry {place} cannot be asked: {why}", mend)


def _connect(place: Place, end: float) -> socket.socket:
    """Raises:
    OSError: it cannot be reached.
    RegistryError: it is another one.
    """
    if place.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(_left(end))
            sock.connect(place.socket)
        except BaseException:
            sock.close()
            raise
        return sock
    if place.tls:
        return secured(place, lambda: _left(end))
    return socket.create_connection((place.host, place.port), _left(end))


def _left(end: float) -> float:
    """Seconds.

    Raises:
        TimeoutError: none are left.
    """
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("it took too long")
    return left


class _Line:
    """A socket for http.client that gives up at an end, however slowly bytes come, and where there are too
    many.
    """

    def __init__(self, sock: socket.socket, end: float) -> None:
        self._sock = sock
        self._end = end

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._end))
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_Bounded(self._sock, self._end))

    def close(self) -> None:
        """Whoever made the socket closes it."""


class _Bounded(io.RawIOBase):
    def __init__(self, sock: socket.socket, end: float) -> None:
        self._sock = sock
        self._end = end
        self._left = MOST_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._end))
        count = self._sock.recv_into(buffer)
        self._left -= count
        if self._left < 0:
            raise RegistryError(f"the registry's answer is longer than {MOST_BYTES >> 20} MiB")
        return count
