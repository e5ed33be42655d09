"""Who asks: an operator's session at the panel, an API key, or whoever may open the socket of this machine.

A session is a signed cookie. It holds for twelve hours, as long as its operator is one and has the same
password, and until they sign out. What changes something needs its CSRF token beside it, and must not come
from another site.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

import itsdangerous
from starlette.requests import Request
from starlette.responses import Response

from .administration import Administration, By
from .core import Core
from .gate import Gate, TooManyError
from .options import Options
from .refusals import Refused

SESSION_S = 12 * 3600
"""A working day."""

COOKIE = "d1fleet"
SECURE_COOKIE = "__Host-d1fleet"
"""Browsers take a cookie of this name over TLS alone, and from this host alone."""

CSRF_HEADER = "x-csrf-token"
MOST_WAITING_SIGN_INS = 8
"""Whose password waits to be looked at; each takes a tenth of a second."""

LONGEST_COOKIE = 1024

_AUTHORITY = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?", re.ASCII)


@dataclass(frozen=True)
class Session:
    """Somebody who has signed in.

    Attributes:
        csrf: what forms and scripts of their pages send along.
        by: them, for `Administration`.
    """

    id: str
    name: str
    kind: str
    issued_at: float
    csrf: str
    by: By
    text: str
    """The cookie's value."""

    def __repr__(self) -> str:
        return f"<Session of {self.name}>"


class Access:
    """Tells who asks.

    Args:
        secret: the registry's own, which signs.
        local: for the socket of this machine: who may open it is an operator.
    """

    def __init__(
        self,
        core: Core,
        administration: Administration,
        gate: Gate,
        options: Options,
        secret: bytes,
        local: bool = False,
    ) -> None:
        self._core = core
        self._administration = administration
        self._gate = gate
        self._options = options
        self._local = local
        self._signer = itsdangerous.URLSafeSerializer(
            secret,
            salt="d1fleet.session",
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )
        self._csrf_key = hmac.digest(secret, b"d1fleet.csrf", "sha256")
        self._ended: dict[str, float] = {}
        """Sessions of those who have signed out -> when they would have ended anyway."""
        self._signing_in = 0

    # Where a request comes from

    def source(self, request: Request) -> str:
        """The address that asks; "" for the socket of this machine."""
        return request.client.host if request.client is not None and not self._local else ""

    def url(self, request: Request) -> str:
        """Of this registry, as others reach it; "" where that is not known: by the socket of this machine."""
        return self._options.public_url or ("" if self._local else self._asked_url(request))

    def _asked_url(self, request: Request) -> str:
        authority = request.headers.get("host", "")
        if not _AUTHORITY.fullmatch(authority):
            address = self._options.listen
            authority = f"[{address}]" if ":" in address else address
            authority += f":{self._options.port}"
        return f"{request.scope['scheme']}://{authority}"

    # Who asks

    def reader(self, request: Request) -> By:
        """Who wants to see something.

        Raises:
            Refused: 401, nobody that we know.
        """
        by, _ = self._who(request)
        return by

    def changer(self, request: Request, csrf: str = "") -> By:
        """Who wants to change something; whether they may is for `Administration` to say.

        Args:
            csrf: of a form, where that has sent it.

        Raises:
            Refused: 401; or 403, it may be another site that wants it.
        """
        by, session = self._who(request)
        if session is not None:
            self._check_csrf(request, session, csrf)
        return by

    def _who(self, request: Request) -> tuple[By, Session | None]:
        if self._local:
            return By("socket", True), None
        source = self.source(request)
        if "authorization" in request.headers:
            by = self._administration.who_has(bearer(request), source)
            if by is not None:
                return by, None
            self._gate.failed(source)
            raise Refused(401, "key", "this API key is not valid", "a new one: d1fleet registry key create")
        session = self.session(request)
        if session is None:
            raise Refused(401, "key", "who asks?", "send an API key as Authorization: Bearer, or sign in")
        return session.by, session

    # Sessions

    def session(self, request: Request) -> Session | None:
        """Of whoever's cookie it is; None for nobody's, or one that holds no more."""
        text = request.cookies.get(self._cookie(request), "")
        if not 0 < len(text) <= LONGEST_COOKIE or not text.isascii():
            return None
        try:
            identity, name, mark, issued_at = self._signer.loads(text)
        except (itsdangerous.BadData, ValueError, TypeError):
            return None
        age_s = self._core.clocks.wall() - float(issued_at)
        operator = self._core.operators.get(str(name))
        if operator is None or not -60 < age_s < SESSION_S or identity in self._ended:
            return None
        if not hmac.compare_digest(str(mark), _mark(operator.password_hash)):
            return None
        by = By(f"operator:{operator.name}", operator.kind == "operator", self.source(request))
        csrf = self._csrf(str(identity))
        return Session(str(identity), operator.name, operator.kind, float(issued_at), csrf, by, text)

    async def sign_in(self, request: Request, name: str, password: str) -> Session:
        """Raises:
        Refused: 403, name and password do not belong together, or another site has sent them; 429.
        """
        self._check_origin(request)
        source = self.source(request)
        self._gate.sign_in(source)
        if self._signing_in >= MOST_WAITING_SIGN_INS:
            raise TooManyError("sign-ins at once", 1)
        self._signing_in += 1
        try:
            async with self._gate.passwords:
                operator = await self._administration.sign_in(name, password, source)
        finally:
            self._signing_in -= 1
        identity = secrets.token_urlsafe(16)
        now_at = self._core.clocks.wall()
        text = self._signer.dumps([identity, operator.name, _mark(operator.password_hash), int(now_at)])
        by = By(f"operator:{operator.name}", operator.kind == "operator", source)
        csrf = self._csrf(identity)
        return Session(identity, operator.name, operator.kind, now_at, csrf, by, str(text))

    def set_cookie(self, request: Request, response: Response, session: Session) -> None:
        """Have the browser keep a session."""
        response.set_cookie(
            self._cookie(request),
            session.text,
            max_age=SESSION_S,
            path="/",
            secure=_secure(request),
            httponly=True,
            samesite="strict",
        )

    def sign_out(self, request: Request, response: Response, csrf: str = "") -> None:
        """End a session, wherever copies of its cookie are. Whoever has none is signed out already.

        Raises:
            Refused: 403, it may be another site that wants it.
        """
        session = self.session(request)
        if session is not None:
            self._check_csrf(request, session, csrf)
            now_at = self._core.clocks.wall()
            self._ended = {each: until for each, until in self._ended.items() if until > now_at}
            self._ended[session.id] = session.issued_at + SESSION_S
        response.delete_cookie(
            self._cookie(request), path="/", secure=_secure(request), httponly=True, samesite="strict"
        )

    def _cookie(self, request: Request) -> str:
        return SECURE_COOKIE if _secure(request) else COOKIE

    def _csrf(self, identity: str) -> str:
        return hmac.new(self._csrf_key, identity.encode(), "sha256").hexdigest()

    def _check_csrf(self, request: Request, session: Session, csrf: str) -> None:
        self._check_origin(request)
        sent = csrf or request.headers.get(CSRF_HEADER, "")
        if not hmac.compare_digest(sent.encode(), session.csrf.encode()):
            raise Refused(
                403,
                "csrf",
                "this change does not come from a page of this session",
                "load the page again, then try again",
            )

    def _check_origin(self, request: Request) -> None:
        """Browsers say which site a request comes from; those that do not say it have sent no such header."""
        origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
        own = [_origin(each) for each in (self._options.public_url, self._asked_url(request)) if each]
        known = origin is None or (_origin(origin) is not None and _origin(origin) in own)
        if site != "same-origin" or not known:
            raise Refused(
                403,
                "csrf",
                "this change comes from another site",
                "open the panel by its own address; behind a proxy, set public_url to that",
            )


def bearer(request: Request) -> str:
    """What a request shows in its header; "" for nothing that could be it."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


def _secure(request: Request) -> bool:
    return bool(request.scope["scheme"] == "https")


def _mark(password_hash: str) -> str:
    """Changes with the password."""
    return hashlib.sha256(password_hash.encode()).hexdigest()[:16]


def _origin(text: str) -> tuple[str, str, int] | None:
    try:
        found = urlsplit(text)
        port = found.port or {"http": 80, "https": 443}.get(found.scheme, 0)
    except ValueError:
        return None
    return (found.scheme, found.hostname, port) if found.hostname else None
