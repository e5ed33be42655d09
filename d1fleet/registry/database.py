"""What the store needs of a database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Connection

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
