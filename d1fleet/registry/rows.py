"""Records as rows of tables, and back. Pure."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import Boolean, Table

from . import checks
from .checks import UnfitError
from .model import AuditEntry, FieldError, Host, Key, Operator, Project, Record, Token
from .schema import TABLES, key_column

R = TypeVar("R", Project, Host, Token, Operator, Key)

JSON_COLUMNS = frozenset(["ranges", "options", "host_keys", "toolchain"])


def to_row(record: Record) -> dict[str, Any]:
    """The row of a record's own table; what projects a host is in stands in another (`memberships_of`)."""
    row = {}
    for column in TABLES[type(record)].columns:
        value = getattr(record, column.name)
        row[column.name] = _encoded(value) if column.name in JSON_COLUMNS else value
    return row


def memberships_of(host: Host) -> list[dict[str, Any]]:
    """Rows that say in which projects a host is, in their order."""
    return [
        {"host_id": host.id, "position": position, "project": project}
        for position, project in enumerate(host.projects)
    ]


def audit_row(entry: AuditEntry) -> dict[str, Any]:
    """An entry is text for people: what does not fit is cut, rather than that something is not done."""
    texts = {
        name: checks.fitting(getattr(entry, name)) for name in ("who", "what", "whom", "source", "detail")
    }
    return {"at": float(entry.at), **texts}


def from_row(kind: type[R], row: Mapping[str, object], **more: object) -> R:
    """A record of a row.

    Args:
        row: as the driver gives it: booleans are numbers in SQLite, and whatever somebody has put there.
        more: fields that stand in another table.

    Raises:
        UnfitError: it cannot be meant.
    """
    table = TABLES[kind]
    try:
        return checks.make(kind, {**_decoded(table, row), **more})
    except FieldError as error:
        raise UnfitError(table.name, str(row.get(key_column(kind), "")), error.message) from error


def audit_entry(table: Table, row: Mapping[str, object]) -> AuditEntry:
    """An entry of a row of the audit log.

    Raises:
        UnfitError: it cannot be meant.
    """
    try:
        values = {name: value for name, value in _decoded(table, row).items() if name != "id"}
        return checks.make(AuditEntry, values)
    except FieldError as error:
        raise UnfitError(table.name, str(row.get("id", "")), error.message) from error


def _encoded(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _decoded(table: Table, row: Mapping[str, object]) -> dict[str, object]:
    values: dict[str, object] = {}
    for column in table.columns:
        value = row[column.name]
        if column.name in JSON_COLUMNS:
            value = _read_json(column.name, value)
        elif isinstance(column.type, Boolean) and typing.cast(Any, value) in (0, 1):
            value = bool(value)
        values[column.name] = value
    return values


def _read_json(name: str, text: object) -> object:
    if not isinstance(text, str):
        raise FieldError(name, "it has to be a text of JSON")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FieldError(name, "it is no JSON") from None
