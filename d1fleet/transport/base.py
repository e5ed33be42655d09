"""What every transport gives: a byte channel to a command that was started on a host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..loop import Loop


class Channel(Protocol):
    """stdin and stdout of one remote command, for the whole build.

    A transport's `connect(host, command, ...)` blocks, runs in a thread, and returns a channel or raises one
    of the HostError classes. All else happens in the loop's thread and never blocks.

    Attributes:
        transport: what carries it, for the record: paramiko, openssh or pipes.
        reason: why not the usual one, for people; empty where it is.
    """

    @property
    def transport(self) -> str: ...

    @property
    def reason(self) -> str: ...

    def start(self, loop: Loop, on_data: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        """Begin to push what the command writes; `on_end` is called once when it has ended or the link
        broke.
        """

    def send(self, data: bytes) -> None:
        """Write to the command, now or as soon as it takes more."""

    @property
    def backlog(self) -> int:
        """Bytes accepted by `send` that have not left yet."""

    def diagnosis(self) -> str:
        """Why the channel ended, for people: exit status and the last lines of stderr; empty when
        nothing is known.
        """

    def close(self) -> None:
        """Give everything back; the command sees the end of its stdin."""
