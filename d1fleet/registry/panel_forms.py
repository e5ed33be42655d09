"""What people type: read from a form, and kept for the form that says what is wrong with it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .model import Project
from .refusals import Refused

CHECKED = "1"
"""Value of a check box."""

_PAGE = re.compile(
    r"/(?:projects/[A-Za-z0-9_]{1,63}|hosts/[a-z0-9][a-z0-9.-]{0,99}|audit|people)?"
    r"(?:\?[A-Za-z0-9=&%._+~-]{0,500})?",
    re.ASCII,
)


@dataclass(frozen=True)
class Form:
    """A form as it is shown.

    Attributes:
        id: in front of the ids of its fields.
        values: by field.
        fault: why it was refused, or "".
        field: the field that is wrong, or "" for the form as a whole.
        mend: what can be done about it, or "".
    """

    id: str
    values: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    field: str = ""
    mend: str = ""

    def refused(self, error: Refused, fields: tuple[str, ...]) -> Form:
        """The same, with what is wrong.

        Args:
            fields: that it has; what is wrong with others is said of the form as a whole.
        """
        at = error.field if error.field in fields else ""
        fault = error.message.removeprefix(f"{at}: ") if at else error.message
        return Form(self.id, self.values, fault, at, error.mend)


PROJECT_FIELDS = ("name", "ranges", "transport", "toolchain_mismatch", "options", "old_clients")

NEW_PROJECT: Mapping[str, Any] = {
    "name": "",
    "ranges": "",
    "transport": "tcp",
    "toolchain_mismatch": "exclude",
    "lzo": True,
    "cpp": False,
    "old_clients": False,
}
"""What the form for a new project begins with."""


def project_values(project: Project) -> dict[str, Any]:
    """A project, as its form shows it."""
    return {
        "ranges": "\n".join(project.ranges),
        "transport": project.transport,
        "toolchain_mismatch": project.toolchain_mismatch,
        "lzo": "lzo" in project.options,
        "cpp": "cpp" in project.options,
        "old_clients": project.old_clients,
    }


def typed_project(fields: Mapping[str, str]) -> dict[str, Any]:
    """What somebody typed, for the form to show it again."""
    return {
        **{name: fields.get(name, "") for name in ("name", "ranges", "transport", "toolchain_mismatch")},
        **{name: fields.get(name) == CHECKED for name in ("lzo", "cpp", "old_clients")},
    }


def project_settings(typed: Mapping[str, Any]) -> dict[str, Any]:
    """The same, as fields of a Project. `Project` itself checks them."""
    return {
        "ranges": tuple(typed["ranges"].replace(",", " ").split()),
        "transport": typed["transport"],
        "toolchain_mismatch": typed["toolchain_mismatch"],
        "options": tuple(name for name in ("lzo", "cpp") if typed[name]),
        "old_clients": typed["old_clients"],
    }


def own_page(text: str, otherwise: str = "/") -> str:
    """An address to go back to, if it is a page of the panel; never one elsewhere."""
    return text if _PAGE.fullmatch(text) else otherwise
