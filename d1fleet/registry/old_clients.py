"""For clients of dyndistcc: one path, plain text, nobody asked who they are.

    GET /api/checkin?hash=H&project=P&username=U&swVersion=V&threads=N   ->   localhost/N ADDRESS/THREADS ...

Such a client writes an answer into its hosts file whatever it is, if only the status is 200. So what cannot
be used is refused by status, and an answer has nothing but addresses and numbers in it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from .gate import TooManyError
from .model import FieldError, plain
from .refusals import Refused
from .shared import Shared

log = logging.getLogger("d1fleet.registry.http")

PATH = "/api/checkin"
LONGEST_QUERY = 1000

_FIELDS: Mapping[str, tuple[re.Pattern[str], str]] = {
    "hash": (re.compile(r"[A-Za-z0-9]{8,64}", re.ASCII), "8 to 64 letters and digits"),
    "project": (re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII), "letters, digits and _, at most 63"),
    "username": (re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@+-]{0,63}", re.ASCII), "a plain name, at most 64"),
    "swVersion": (re.compile(r"[0-9][0-9A-Za-z.+-]{0,31}", re.ASCII), "a version such as 0.0.6"),
    "threads": (re.compile(r"[1-9][0-9]{0,3}", re.ASCII), "a whole number from 1 to 1024"),
}


class OldClients:
    """The application of the listener for old clients: it serves this one path."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, text = self._answer(scope)
        log.log(
            logging.DEBUG if status == 200 else logging.INFO,
            "old client",
            extra={"path": scope["path"][:200], "status": status, "source": _source(scope)},
        )
        body = text.encode("ascii", "replace")
        headers = [
            (b"content-type", b"text/plain; charset=us-ascii"),
            (b"content-length", str(len(body)).encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"cache-control", b"no-store"),
            # A body that nobody reads, or a client that never comes again: in both cases it is over.
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] != "HEAD" else b""})

    def _answer(self, scope: Scope) -> tuple[int, str]:
        projects = self._shared.core.pool.projects.values()
        if (
            scope["path"] != PATH
            or scope["method"] not in ("GET", "HEAD")
            or not any(project.old_clients for project in projects)
        ):
            return 404, "there is nothing here\n"
        source = _source(scope)
        try:
            self._shared.gate.old_client(source)
            values = _read(scope["query_string"])
            return 200, self._shared.hosts.old_client(
                values["project"],
                values["hash"],
                values["username"],
                values["swVersion"],
                int(values["threads"]),
                source,
            )
        except (Refused, FieldError) as error:
            status = error.status if isinstance(error, Refused) else 400
            self._shared.metrics.refused(error.code if isinstance(error, Refused) else "field")
            # Such clients look at the status alone; a wrong value is 400 here, as it is elsewhere for them.
            status = 400 if status == 422 else status
            again = f"; {error.mend}" if isinstance(error, TooManyError) else ""
            return status, f"{plain(error.message, 300)}{again}\n"


def _read(query: bytes) -> dict[str, str]:
    """Raises:
    FieldError: a field is missing, there twice, unknown or wrong.
    """
    if len(query) > LONGEST_QUERY:
        raise FieldError("query", f"it may have {LONGEST_QUERY} characters")
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            encoding="ascii",
            errors="replace",
            max_num_fields=2 * len(_FIELDS),
        )
    except ValueError:
        raise FieldError("query", f"it may have {', '.join(_FIELDS)} in it") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in _FIELDS:
            raise FieldError(plain(name, 40), "there is no such field")
        if name in found:
            raise FieldError(name, "it is there twice")
        found[name] = value
    for name, (pattern, words) in _FIELDS.items():
        if name not in found:
            raise FieldError(name, "it is missing")
        if not pattern.fullmatch(found[name]):
            raise FieldError(name, f"it has to be {words}")
    return found


def _source(scope: Scope) -> str:
    client = scope.get("client")
    if not client:
        return ""
    text = str(client[0]).partition("%")[0]
    return text.removeprefix("::ffff:") if "." in text else text
