"""What is said to the database, whichever it is. Each function is part of a transaction of its caller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ColumnClause,
    Connection,
    Select,
    Table,
    bindparam,
    column,
    delete,
    func,
    insert,
    select,
    table,
)
from sqlalchemy.dialects import postgresql, sqlite

from . import rows, schema
from .checks import LATEST, UnfitError
from .contents import Contents, check_together
from .model import AuditEntry, Host, Project, Record
from .schema import TABLES, key_column

KEEP_AUDIT = 100_000
"""Entries of the audit log that are kept: a fleet of a thousand hosts that all join anew each week makes as
many in two years, and they take some 20 MB.
"""

MADE_AT = "made_at"
"""Mark: seconds since the epoch."""

WRITER = "writer"
"""Mark: which process has the database. One that finds another's there has been away, and must not go on."""


def load(connection: Connection) -> Contents:
    """All records.

    Raises:
        UnfitError: somebody has edited one into something that cannot be meant.
    """
    projects_of: dict[str, list[str]] = {}
    for row in _raw(connection, schema.memberships, "host_id", "position"):
        projects_of.setdefault(str(row["host_id"]), []).append(str(row["project"]))
    records: list[Record] = []
    for kind, of_kind in TABLES.items():
        order = ("joined_at", "id") if kind is Host else (key_column(kind),)
        for row in _raw(connection, of_kind, *order):
            if kind is Host:
                projects = tuple(projects_of.pop(str(row["id"]), ()))
                records.append(rows.from_row(Host, row, projects=projects))
            else:
                records.append(rows.from_row(kind, row))  # type: ignore[type-var]
    for host_id in projects_of:
        raise UnfitError("memberships", host_id, "there is no such host")
    check_together(records)
    return Contents(records)


def write(connection: Connection, puts: Sequence[Record], deletes: Sequence[Record]) -> None:
    """Put records, each in place of the one with its key, and delete others.

    The order lets constraints hold at every moment: what refers to others goes first and comes last, and a
    name is free when another gets it.
    """
    kinds = list(TABLES)
    for kind in reversed(kinds):
        if kind is not Project:
            _delete(connection, kind, [record for record in deletes if type(record) is kind])
    for kind in kinds:
        _put(connection, kind, [record for record in puts if type(record) is kind])
    _delete(connection, Project, [record for record in deletes if type(record) is Project])


def replace_all(connection: Connection, contents: Contents) -> None:
    """Have exactly these records."""
    for each in (schema.memberships, *reversed(TABLES.values())):
        connection.execute(delete(each))
    write(connection, contents.snapshot(0.0).records, ())


def set_mark(connection: Connection, name: str, value: str) -> None:
    connection.execute(_upsert(connection, schema.marks, "name"), [{"name": name, "value": value}])


def mark(connection: Connection, name: str) -> str:
    """A mark; "" when there is none."""
    marks = schema.marks.c
    return connection.execute(select(marks.value).where(marks.name == name)).scalar() or ""


def made_at(connection: Connection) -> float:
    """When the database was made, in seconds since the epoch.

    Raises:
        UnfitError: it does not say so.
    """
    try:
        value = float(mark(connection, MADE_AT))
    except (TypeError, ValueError):
        value = -1.0
    if not 0 <= value <= LATEST:
        raise UnfitError("marks", MADE_AT, "it has to be seconds since the epoch")
    return value


def append_audit(connection: Connection, entries: Iterable[AuditEntry]) -> int:
    """Write entries of the audit log, the oldest first.

    Returns:
        The number of the newest one that is there now; 0 for none.
    """
    new = [rows.audit_row(entry) for entry in entries]
    if new:
        connection.execute(insert(schema.audit), new)
    return connection.execute(select(func.max(schema.audit.c.id))).scalar() or 0


def trim_audit(connection: Connection, keep: int) -> None:
    """Forget all but the newest entries."""
    numbers = schema.audit.c.id
    oldest = select(numbers).order_by(numbers.desc()).limit(1).offset(keep - 1).scalar_subquery()
    connection.execute(delete(schema.audit).where(numbers < oldest))


def forget_audit_after(connection: Connection, number: int) -> None:
    """Forget entries that are newer than one; all, after 0."""
    connection.execute(delete(schema.audit).where(schema.audit.c.id > number))


def audit(connection: Connection, limit: int) -> list[AuditEntry]:
    """So many entries at most, the newest first.

    Raises:
        UnfitError: somebody has edited one into something that cannot be meant.
    """
    query = _select_raw(schema.audit).order_by(column("id").desc()).limit(limit)
    return [rows.audit_entry(schema.audit, dict(row._mapping)) for row in connection.execute(query)]


def _raw(connection: Connection, which: Table, *order: str) -> list[dict[str, Any]]:
    query = _select_raw(which).order_by(*map(column, order))
    return [dict(row._mapping) for row in connection.execute(query)]


def _select_raw(which: Table) -> Select[Any]:
    """Rows as the driver has them: SQLAlchemy would make a boolean of whatever stands there."""
    columns: list[ColumnClause[Any]] = [column(each.name) for each in which.columns]
    return select(*columns).select_from(table(which.name))


def _put(connection: Connection, kind: type[Record], records: Sequence[Record]) -> None:
    # One statement must not have a key twice: the last one counts.
    latest = list({schema.key(record): record for record in records}.values())
    if not latest:
        return
    connection.execute(
        _upsert(connection, TABLES[kind], key_column(kind)), [rows.to_row(record) for record in latest]
    )
    hosts = [record for record in latest if isinstance(record, Host)]
    if hosts:
        members = schema.memberships
        gone = delete(members).where(members.c.host_id == bindparam("host"))
        connection.execute(gone, [{"host": host.id} for host in hosts])
        new = [row for host in hosts for row in rows.memberships_of(host)]
        if new:
            connection.execute(insert(members), new)


def _delete(connection: Connection, kind: type[Record], records: Sequence[Record]) -> None:
    if records:
        by = TABLES[kind].c[key_column(kind)]
        doomed = [{"doomed": schema.key(record)} for record in records]
        connection.execute(delete(TABLES[kind]).where(by == bindparam("doomed")), doomed)


def _upsert(connection: Connection, into: Table, by: str) -> Any:
    """An INSERT that takes the place of a row with the same key."""
    if connection.dialect.name == "sqlite":
        new: Any = sqlite.insert(into)
    else:
        new = postgresql.insert(into)
    others = {each.name: new.excluded[each.name] for each in into.columns if each.name != by}
    return new.on_conflict_do_update(index_elements=[by], set_=others)
