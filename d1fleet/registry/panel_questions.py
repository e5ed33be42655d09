"""Pages that ask before something is done that cannot be taken back. Without JavaScript they are pages; with
it, the same form is shown in a dialog.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from .access import Session
from .administration import By
from .panel_forms import Form, own_page
from .panel_page import Panel
from .refusals import Refused


@dataclass(frozen=True)
class Input:
    """Something that has to be typed."""

    name: str
    label: str
    hint: str = ""
    kind: str = "text"
    most: int = 100
    autocomplete: str = "off"


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        action: where the answer goes: the page's own address.
        back: the page that was come from.
        danger: it cannot be taken back.
    """

    title: str
    text: tuple[str, ...]
    button: str
    action: str
    back: str
    danger: bool = True
    inputs: tuple[Input, ...] = ()


async def ask(panel: Panel, request: Request, session: Session, question: Question) -> Response:
    """The page that asks."""
    return await panel.page(request, session, "confirm.html", question=question, form=Form("confirm"))


async def answer(
    panel: Panel,
    request: Request,
    session: Session,
    question: Question,
    do: Callable[[By, Mapping[str, str]], Awaitable[Response]],
) -> Response:
    """Do it, or ask again and say why not.

    Args:
        do: gets who asks, and the form's fields.
    """
    fields: Mapping[str, str] = {}
    try:
        fields = await panel.fields(request)
        return await do(panel.shared.access.changer(request, fields.get("csrf", "")), fields)
    except Refused as error:
        # What is typed twice on purpose, such as a password, is typed again.
        shown = {each.name: fields.get(each.name, "") for each in question.inputs if each.kind == "text"}
        form = Form("confirm", shown).refused(error, tuple(each.name for each in question.inputs))
        return await panel.page(request, session, "confirm.html", error.status, question=question, form=form)


def back_of(request: Request, otherwise: str) -> str:
    """Where a question was come from, as its address says."""
    return own_page(request.query_params.get("back", ""), otherwise)
