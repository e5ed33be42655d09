"""Why the registry does not do what it was asked for."""

from __future__ import annotations

from ..errors import D1fleetError
from .model import FieldError


class Refused(D1fleetError):
    """A request is refused.

    Args:
        status: of HTTP.
        code: a word for programs.
        message: what is wrong, one line.
        mend: what can be done about it, one line.
        field: the field that is wrong, or "".
    """

    def __init__(self, status: int, code: str, message: str, mend: str = "", field: str = "") -> None:
        super().__init__(message, mend)
        self.status = status
        self.code = code
        self.field = field


def unusable(error: FieldError) -> Refused:
    """A field of a request has a value that cannot be used."""
    return Refused(422, "field", error.message, field=error.field)


def unknown(what: str, name: str) -> Refused:
    """There is no such thing."""
    return Refused(404, "unknown", f"there is no {what} {name}")


def void_credential() -> Refused:
    """A credential is none of ours, or holds no more; which of both is nobody's business."""
    return Refused(401, "credential", "this credential is not valid", "join again: d1fleet join")
