"""Which database a URL names."""

from __future__ import annotations

import os

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from .database import Database
from .postgres import PostgresServer
from .sqlitefile import SqliteFile
from .storeerrors import StoreError


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
        return SqliteFile(os.path.realpath(parsed.database))
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return PostgresServer(parsed.set(drivername="postgresql+psycopg"))
    raise StoreError(f"the registry cannot use a database of the kind {parsed.drivername!r}", mend)
