"""What can be wrong with the registry's database, in words: errors of its drivers become ours, by tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from sqlalchemy.exc import DBAPIError

from ..errors import D1fleetError

LONGEST_TEXT = 300
"""Characters of what a driver says that are worth repeating."""


class StoreError(D1fleetError):
    """The database of the registry cannot be read or written; nothing of what was to be written is there."""


class StoreGoneError(StoreError):
    """There is no usable database any more where one was: it was deleted, replaced or damaged. What is known
    can be written anew: `Store.rewrite`.
    """


_RESTORE = "move it away and start again: then it is made anew; or restore a backup: d1fleet registry restore"
_DAMAGED = "is damaged, or no database at all"

SQLITE: dict[int, tuple[str, str]] = {
    sqlite3.SQLITE_FULL: ("has no space left", "free some space on its file system, then try again"),
    sqlite3.SQLITE_IOERR: (
        "cannot be read or written",
        "look at the disk, the mount and the quota that it lies on (dmesg, df, quota)",
    ),
    sqlite3.SQLITE_BUSY: ("is locked by another program", "end what has it open (fuser -v shows it)"),
    sqlite3.SQLITE_LOCKED: ("is locked by another program", "end what has it open (fuser -v shows it)"),
    sqlite3.SQLITE_READONLY: (
        "can only be read",
        "make the file, its folder and its file system writable for the registry's user",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "cannot be opened",
        "see `ls -l` of it and of its folder, and whether space is left there",
    ),
    sqlite3.SQLITE_PERM: ("may not be opened", "see `ls -l` of it and of its folder"),
    sqlite3.SQLITE_AUTH: ("may not be opened", "see `ls -l` of it and of its folder"),
    sqlite3.SQLITE_CORRUPT: (_DAMAGED, _RESTORE),
    sqlite3.SQLITE_NOTADB: (_DAMAGED, _RESTORE),
    sqlite3.SQLITE_NOMEM: (
        "needs more memory than there is",
        "free some memory, or raise the service's limit",
    ),
    sqlite3.SQLITE_CONSTRAINT: (
        "refuses a row that does not fit to the others",
        "this is a fault of the registry: report it, with its log",
    ),
}
"""By the primary code of a result (https://www.sqlite.org/rescode.html)."""

_GONE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

UNREACHABLE = ("cannot be reached", "see that the server runs and lets this user log in: try it with psql")

POSTGRES: dict[str, tuple[str, str]] = {
    "08": UNREACHABLE,
    "57P": UNREACHABLE,
    "28": ("refuses the login", "check the user and the password in the URL, and pg_hba.conf of the server"),
    "3D": ("is not there", "createdb makes it"),
    "3F": ("has no schema for tables", "check search_path, or CREATE SCHEMA"),
    "42P01": ("has lost its tables", _RESTORE),
    "42501": (
        "may not be used by this user",
        "GRANT it the rights: it has to own the schema, or to be able to create tables there",
    ),
    "25006": ("can only be read", "name the primary server in the URL, not a standby"),
    "53100": ("has no space left", "free some space on the server, then try again"),
    "53": ("has no connection or memory left for us", "see max_connections and the memory of the server"),
    "55P03": ("is locked by another session", "end that session: see pg_stat_activity"),
    "57014": ("takes too long to answer", "see pg_stat_activity for what keeps it busy or locked"),
    "23": (
        "refuses a row that does not fit to the others",
        "this is a fault of the registry: report it, with its log",
    ),
    "XX": ("is damaged", "see the log of the server, and restore a backup: d1fleet registry restore"),
}
"""By what a SQLSTATE begins with; the longest that fits (PostgreSQL's documentation, appendix A)."""

_TABLES_LOST = "42P01"


def explained(error: BaseException, where: str, secrets: Collection[str]) -> StoreError:
    """The error of ours for one of a driver, of SQLAlchemy or of the system.

    Args:
        where: the database, as users know it; without a password.
        secrets: what may not be seen in any message.
    """
    text = said(error, secrets)
    cause = error.orig if isinstance(error, DBAPIError) else error
    gone = False
    words, mend = "cannot be used", "see the text, and the log of the registry"
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        words, mend = SQLITE.get(code, (words, mend))
        gone = code in _GONE
    elif isinstance(cause, OSError):
        mend = "see `ls -l` of it and of its folder, and whether space is left there"
    elif isinstance(error, DBAPIError):
        state = getattr(cause, "sqlstate", None)
        if not state:
            # psycopg knows none for what happened before or after there was a connection.
            words, mend = UNREACHABLE
        for length in range(1, 6):
            words, mend = POSTGRES.get((state or "")[:length], (words, mend))
        gone = state == _TABLES_LOST
    return (StoreGoneError if gone else StoreError)(f"the database {where} {words}: {text}", mend)


def said(error: BaseException, secrets: Collection[str]) -> str:
    """What an error says, on one line, with nothing secret in it.

    SQLAlchemy's own text is left out: it has the statement, and a link to its manual.
    """
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = (cause.strerror if isinstance(cause, OSError) else "") or str(cause) or type(cause).__name__
    # What drivers quote may be cut, so that half a password would be left: hide it before.
    text = " ".join(hidden(text, secrets).split())
    return "".join(each if each.isprintable() else "?" for each in text[:LONGEST_TEXT])


def hidden(text: str, secrets: Collection[str]) -> str:
    """A text without what is secret."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def tells(error: BaseException, secrets: Collection[str]) -> bool:
    """Would a traceback of it show what is secret?"""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        if any(secret and secret in f"{each} {each!r}" for secret in secrets):
            return True
        each = each.__cause__ or each.__context__
    return False
