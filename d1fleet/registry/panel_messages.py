"""What is shown once, on the page after a change: what was done, or a secret that nobody can show again.

It is kept in memory, for one session; the page's address names it, and shows nothing to any other session.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

LAST_S = 300.0
"""Whoever has not seen the page by then does not come any more."""

MOST = 1000
"""Of all sessions; the oldest go first."""


@dataclass(frozen=True)
class Message:
    """A line above a page.

    Attributes:
        kind: "done" or "refused".
        mend: what can be done about it, or "".
    """

    kind: str
    text: str
    mend: str = ""


@dataclass(frozen=True)
class Once:
    """What one page shows.

    Attributes:
        secret: a command or key with a secret in it, or "".
    """

    messages: tuple[Message, ...] = ()
    secret: str = ""


NOTHING = Once()


class Messages:
    """Keeps what is to be shown."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], tuple[float, Once]] = OrderedDict()

    def keep(self, session: str, text: str, secret: str = "") -> str:
        """Keep that something was done; returns the name under which it is taken."""
        name = secrets.token_urlsafe(9)
        self._kept[session, name] = (self._clock(), Once((Message("done", text),), secret))
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)
        return name

    def take(self, session: str, name: str) -> Once:
        """What was kept; nothing the second time, for another session, or much later."""
        kept_s, once = self._kept.pop((session, name), (0.0, NOTHING))
        while self._kept and self._clock() - next(iter(self._kept.values()))[0] > LAST_S:
            self._kept.popitem(last=False)
        return once if self._clock() - kept_s <= LAST_S else NOTHING
