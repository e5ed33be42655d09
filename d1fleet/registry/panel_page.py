"""How a page of the panel is made: templates, and what all pages have in common."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from urllib.parse import urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from .. import __version__
from . import panel_words
from .access import Session
from .model import State
from .panel_look import Rows
from .panel_messages import NOTHING, Messages
from .reading import form
from .refusals import Refused
from .shared import Shared

ONCE = "m"
"""In an address: the name of what is shown once."""

LIVE = "X-D1fleet-Live"
"""Header of a request for news of a page that is open: what is shown once is for people."""

Handler = Callable[[Request, Session], Awaitable[Response]]


class Panel:
    """What the pages' functions need."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.core = shared.core
        self.administration = shared.administration
        self.rows = Rows(shared.core)
        self._messages = Messages(shared.core.clocks.monotonic)
        self._templates = templates()

    def guarded(self, handler: Handler, changes: bool) -> Callable[[Request], Awaitable[Response]]:
        """A route: who is not signed in does that first; a refusal that nobody has caught is a page.

        Args:
            changes: it is for those who may change something.
        """

        async def route(request: Request) -> Response:
            session = self.shared.access.session(request)
            if session is None:
                page = request.url.path if request.method == "GET" else ""
                return to(f"/sign-in?{urlencode({'next': page})}" if page.strip("/") else "/sign-in")
            try:
                if changes and not session.by.may_change:
                    raise Refused(
                        403, "viewer", f"{session.name} may look, and change nothing", "ask an operator"
                    )
                return await handler(request, session)
            except Refused as error:
                return await self.refusal(request, session, error)

        return route

    async def page(
        self, request: Request, session: Session | None, template: str, status: int = 200, **context: object
    ) -> Response:
        """A page. It is written in a thread: that takes a while where there are many hosts, and none of them
        shall wait for it. So nothing of the context may change by itself.
        """
        once = NOTHING
        if session is not None and ONCE in request.query_params and LIVE not in request.headers:
            once = self._messages.take(session.csrf, request.query_params[ONCE])
        everything = {
            "visitor": session,
            "may": session is not None and session.by.may_change,
            "messages": once.messages,
            "secret": once.secret,
            "trouble": self.core.trouble if session is not None else "",
            "now": self.core.clocks.wall(),
            "now_s": self.core.clocks.monotonic(),
            "section": "/" + request.url.path.split("/")[1],
            "here": request.url.path,
            "watch": None,
            "old_listener": bool(self.shared.options.old_clients_listen),
            **context,
        }
        text = await asyncio.to_thread(self._templates.get_template(template).render, everything)
        return HTMLResponse(text, status)

    async def refusal(self, request: Request, session: Session | None, error: Refused) -> Response:
        """A page that says why something is not done, and what to do."""
        titles = {403: "Not allowed", 404: "Not found", 503: "Not stored"}
        return await self.page(
            request,
            session,
            "error.html",
            error.status,
            title=titles.get(error.status, "Not done"),
            fault=error.message,
            mend=error.mend,
        )

    def done(self, session: Session, page: str, text: str, secret: str = "", part: str = "") -> Response:
        """After a change: on to a page, which says what was done.

        Args:
            part: of the page, where it is shown from.
        """
        name = self._messages.keep(session.csrf, text, secret)
        return to(f"{page}{'&' if '?' in page else '?'}{ONCE}={name}{'#' + part if part else ''}")

    async def fields(self, request: Request, several: Collection[str] = ()) -> dict[str, str]:
        """What a form has sent.

        Args:
            several: fields that may come more than once; their values are lines then.

        Raises:
            Refused: it is none, or too large.
        """
        return await form(request, several)


def to(page: str) -> Response:
    """On to a page: 303, so that a reload of it changes nothing."""
    return RedirectResponse(page, 303)


@functools.cache
def templates() -> jinja2.Environment:
    """Everything is escaped; a name that is not there is an error of ours."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(version=__version__, states=panel_words.STATES, State=State)
    environment.filters.update(
        ago=panel_words.ago,
        moment=panel_words.moment,
        machine_moment=panel_words.machine_moment,
        size=panel_words.size,
        key_fingerprint=panel_words.key_fingerprint,
        query=lambda values: f"?{urlencode(values)}" if values else "",
    )
    return environment
