"""All records of a registry, by kind and key. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from . import checks
from .checks import UnfitError
from .model import FieldError, Host, Key, Operator, Project, Record, Token
from .schema import TABLES, key

R = TypeVar("R", Project, Host, Token, Operator, Key)


@dataclass(frozen=True)
class Snapshot:
    """All that a database holds, but the audit log.

    Attributes:
        made_at: seconds since the epoch when the database was made, or restored from a backup.
    """

    projects: tuple[Project, ...] = ()
    hosts: tuple[Host, ...] = ()
    tokens: tuple[Token, ...] = ()
    operators: tuple[Operator, ...] = ()
    keys: tuple[Key, ...] = ()
    made_at: float = 0.0

    @property
    def records(self) -> tuple[Record, ...]:
        """All of them; those that others refer to come first."""
        return (*self.projects, *self.hosts, *self.tokens, *self.operators, *self.keys)


class Contents:
    """What a database holds. It is never changed: `changed` gives another one.

    Args:
        records: each key once.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._kinds: dict[type[Record], dict[str, Record]] = {kind: {} for kind in TABLES}
        for record in records:
            self._kinds[type(record)][key(record)] = record

    def changed(self, puts: Sequence[Record], deletes: Sequence[Record]) -> Contents:
        """These, with some more or other ones, and without others.

        Args:
            puts: as they can be stored.

        Raises:
            UnfitError: a record is put and deleted at once.
        """
        after = Contents()
        after._kinds = {kind: dict(records) for kind, records in self._kinds.items()}
        for record in deletes:
            after._kinds[type(record)].pop(key(record), None)
        deleted = {(type(record), key(record)) for record in deletes}
        for record in puts:
            if (type(record), key(record)) in deleted:
                raise UnfitError(TABLES[type(record)].name, key(record), "it is put and deleted at once")
            after._kinds[type(record)][key(record)] = record
        return after

    def of(self, kind: type[R]) -> tuple[R, ...]:
        """All of a kind."""
        return tuple(record for record in self._kinds[kind].values() if isinstance(record, kind))

    def snapshot(self, made_at: float) -> Snapshot:
        return Snapshot(
            self.of(Project), self.of(Host), self.of(Token), self.of(Operator), self.of(Key), made_at
        )

    def __bool__(self) -> bool:
        return any(self._kinds.values())


def as_stored(record: Record) -> Record:
    """The record as it can be stored.

    Raises:
        UnfitError: it cannot be meant.
    """
    if isinstance(record, Host):
        # It is put together from what was found out: nobody promises a length.
        record = replace(record, note=checks.fitting(record.note))
    try:
        checks.check(record)
    except FieldError as error:
        raise UnfitError(TABLES[type(record)].name, key(record), error.message) from error
    return record


def check_together(records: Iterable[Record]) -> None:
    """Do these fit to each other, as the database's constraints have it?

    Raises:
        UnfitError: a key or a host's name is there twice, or a project is named that is not there.
    """
    every = list(records)
    seen: set[tuple[str, str]] = set()
    projects = {record.name for record in every if isinstance(record, Project)}
    for record in every:
        table = TABLES[type(record)].name
        names = {key(record)} | ({record.name} if isinstance(record, Host) else set())
        for name in names:
            if (table, name) in seen:
                raise UnfitError(table, name, "it is there twice")
            seen.add((table, name))
        wanted: tuple[str, ...] = ()
        if isinstance(record, Host):
            wanted = record.projects
        elif isinstance(record, Token):
            wanted = (record.project,)
        for project in wanted:
            if project not in projects:
                raise UnfitError(table, key(record), f"there is no project {project}")
