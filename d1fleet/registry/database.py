"""What the store needs of a database, and which one a URL names."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError

from .storeerrors import StoreError

Fill = Callable[[Connection], object]
"""Puts into a database what has to be there from its first moment; part of the transaction that makes it."""


class Database(Protocol):
    """One that this process alone may write, from `open` to `close`."""

    where: str
    """For messages; without a password."""

    remote: bool
    """It is another process, and may be lost and found again at any time."""

    def open(self, fill: Fill) -> Connection:
        """Take it, make it (then `fill`) or bring it to the newest revision if need be, and connect.

        Raises:
            StoreError: another process has it, or a newer program has made it, or it is damaged.
        """

    def disconnect(self, connection: Connection) -> None:
        """Close a connection; it may be lost already. The database stays ours."""

    def reopen(self) -> Connection:
        """Connect again to the same one."""

    def renew(self, fill: Fill) -> Connection:
        """Connect to one with `fill`, made anew where it is gone. A file that is found there is kept."""

    def look(self) -> Connection:
        """Connect to read, whoever has it; nothing is changed, made or taken."""

    def gone(self) -> str:
        """Why it is not the one any more that was opened, as far as that is seen from outside; else ""."""

    def explain(self, error: BaseException) -> StoreError:
        """Our error for one of SQLAlchemy, a driver or the system."""

    def tells(self, error: BaseException) -> bool:
        """Would a traceback of an error show a password?"""

    def close(self) -> None:
        """Let others have it. The connection is closed already."""


def url_of_file(path: str | os.PathLike[str]) -> str:
    """The URL of a database in a file; a percent sign or a question mark in its name stays one."""
    return URL.create("sqlite", database=os.path.abspath(path)).render_as_string()


def database_at(url: str) -> Database:
    """The database that a URL names; nothing is opened yet.

    Raises:
        StoreError: it names none that can be used.
    """
    mend = "write sqlite:////FOLDER/registry.db, or postgresql+psycopg://USER@HOST/DATABASE"
    # What is wrong with the URL is not repeated: it may have a password.
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreError("the URL of the registry's database cannot be read", mend) from None
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:" or parsed.query or parsed.host:
            raise StoreError("the URL of the registry's database names no file", mend)
        from .sqlitefile import SqliteFile

        return SqliteFile(os.path.realpath(parsed.database))
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        from .postgres import PostgresServer

        return PostgresServer(parsed.set(drivername="postgresql+psycopg"))
    raise StoreError(f"the registry cannot use a database of the kind {parsed.drivername!r}", mend)
