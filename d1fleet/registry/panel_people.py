"""The page of those who may look and change: operators, and programs with API keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from .access import Session
from .administration import SHORTEST_PASSWORD, By
from .model import Operator
from .panel_forms import Form
from .panel_page import Handler, Panel
from .panel_questions import Input, Question, answer, ask
from .refusals import Refused, unknown

PAGE = "/people"


class PeoplePages:
    """Operators and API keys."""

    def __init__(self, panel: Panel) -> None:
        self._panel = panel
        self._admin = panel.administration

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        operator, key = f"{PAGE}/operators/{{name}}", f"{PAGE}/keys/{{key}}/remove"
        return (
            ("GET", PAGE, self.show),
            ("POST", f"{PAGE}/operators", self.add),
            ("GET", f"{operator}/remove", self.ask_remove),
            ("POST", f"{operator}/remove", self.remove),
            ("GET", f"{operator}/password", self.ask_password),
            ("POST", f"{operator}/password", self.password),
            ("POST", f"{PAGE}/keys", self.create_key),
            ("GET", key, self.ask_remove_key),
            ("POST", key, self.remove_key),
        )

    async def show(self, request: Request, session: Session) -> Response:
        return await self._page(request, session)

    async def _page(
        self,
        request: Request,
        session: Session,
        form: Form | None = None,
        key_form: Form | None = None,
        status: int = 200,
    ) -> Response:
        return await self._panel.page(
            request,
            session,
            "people.html",
            status,
            here=PAGE,
            operators=self._admin.operators(),
            keys=self._admin.keys(),
            form=form or Form("operator", {"kind": "operator"}),
            key_form=key_form or Form("key", {"kind": "viewer"}),
        )

    def _operator(self, request: Request) -> Operator:
        name = request.path_params["name"]
        for each in self._admin.operators():
            if each.name == name:
                return each
        raise unknown("operator", name)

    # Operators

    async def add(self, request: Request, session: Session) -> Response:
        typed = {"name": "", "kind": "operator"}
        try:
            fields = await self._panel.fields(request)
            typed = {"name": fields.get("name", ""), "kind": fields.get("kind", "")}
            by = self._panel.shared.access.changer(request, fields.get("csrf", ""))
            if any(each.name == typed["name"] for each in self._admin.operators()):
                raise Refused(
                    409,
                    "exists",
                    f"name: there is an operator {typed['name']} already",
                    "give them a new password instead",
                    "name",
                )
            await self._admin.put_operator(by, typed["name"], fields.get("password", ""), typed["kind"])
        except Refused as error:
            form = Form("operator", typed).refused(error, ("name", "password", "kind"))
            return await self._page(request, session, form=form, status=error.status)
        return self._panel.done(session, PAGE, f"{typed['name']} may sign in.")

    async def ask_remove(self, request: Request, session: Session) -> Response:
        return await ask(self._panel, request, session, self._removing(request, session))

    def _removing(self, request: Request, session: Session) -> Question:
        name = self._operator(request).name
        own = ("This is you: you are signed out at once.",) if name == session.name else ()
        last = ("Nobody else can sign in then.",) if len(self._admin.operators()) == 1 else ()
        return Question(
            f"Remove operator {name}?",
            (f"{name} cannot sign in any more, and is signed out.", *own, *last),
            "Remove",
            f"{PAGE}/operators/{name}/remove",
            PAGE,
        )

    async def remove(self, request: Request, session: Session) -> Response:
        question = self._removing(request, session)

        async def do(by: By, fields: Mapping[str, str]) -> Response:
            name = request.path_params["name"]
            await self._admin.remove_operator(by, name)
            return self._panel.done(session, PAGE, f"{name} cannot sign in any more.")

        return await answer(self._panel, request, session, question, do)

    async def ask_password(self, request: Request, session: Session) -> Response:
        return await ask(self._panel, request, session, self._new_password(request))

    def _new_password(self, request: Request) -> Question:
        name = self._operator(request).name
        return Question(
            f"New password for {name}",
            (f"The old one does not hold any more, and {name} is signed out everywhere.",),
            "Set password",
            f"{PAGE}/operators/{name}/password",
            PAGE,
            danger=False,
            inputs=(
                Input(
                    "password",
                    "Password",
                    f"At least {SHORTEST_PASSWORD} characters.",
                    "password",
                    1024,
                    "new-password",
                ),
            ),
        )

    async def password(self, request: Request, session: Session) -> Response:
        operator = self._operator(request)

        async def do(by: By, fields: Mapping[str, str]) -> Response:
            await self._admin.put_operator(by, operator.name, fields.get("password", ""), operator.kind)
            return self._panel.done(session, PAGE, f"{operator.name} has a new password.")

        return await answer(self._panel, request, session, self._new_password(request), do)

    # API keys

    async def create_key(self, request: Request, session: Session) -> Response:
        typed = {"note": "", "kind": "viewer"}
        try:
            fields = await self._panel.fields(request)
            typed = {"note": fields.get("note", "").strip(), "kind": fields.get("kind", "")}
            by = self._panel.shared.access.changer(request, fields.get("csrf", ""))
            text, _ = await self._admin.create_key(by, typed["kind"], typed["note"])
        except Refused as error:
            form = Form("key", typed).refused(error, ("note", "kind"))
            return await self._page(request, session, key_form=form, status=error.status)
        return self._panel.done(session, PAGE, "There is a new API key.", text, "key-now")

    async def ask_remove_key(self, request: Request, session: Session) -> Response:
        return await ask(self._panel, request, session, self._removing_key(request))

    def _removing_key(self, request: Request) -> Question:
        identity = request.path_params["key"]
        keys = {each.id: each for each in self._admin.keys()}  # noqa: SIM118 it is no dictionary
        key = keys.get(identity)
        if key is None:
            raise Refused(404, "unknown", "there is no such API key any more")
        note = f" ({key.note})" if key.note else ""
        return Question(
            f"Remove API key {identity}{note}?",
            ("The program that has it is refused from now on.",),
            "Remove",
            f"{PAGE}/keys/{identity}/remove",
            PAGE,
        )

    async def remove_key(self, request: Request, session: Session) -> Response:
        question = self._removing_key(request)

        async def do(by: By, fields: Mapping[str, str]) -> Response:
            await self._admin.remove_key(by, request.path_params["key"])
            return self._panel.done(session, PAGE, "The API key is void.")

        return await answer(self._panel, request, session, question, do)
