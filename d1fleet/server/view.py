"""What this host's programs change in the build's tree, and what others have changed and is to be seen here.

Only in builds in which some machine sees that tree by a mount that shows changes late.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from .. import protocol
from ..changes import Change, decode, encode
from ..loop import Loop
from ..sight import Sight, Then, forked
from . import facts


class View:
    """A server's end of that.

    Args:
        send: to the coordinator.
    """

    def __init__(self, loop: Loop, send: Callable[[protocol.Message], None]) -> None:
        self._loop = loop
        self._send = send
        self._sight: Sight | None = None

    def watch(self, message: protocol.Watch) -> None:
        """Begin to tell what changes. Whatever is to run waits until nothing can be missed."""
        if self._sight is not None:
            return
        self._sight = Sight(
            self._loop,
            partial(forked, message.folder, message.recent_s),
            self._tell,
            lambda path: self._send(protocol.Unseen(path=path)),
            lambda why: self._send(protocol.Unwatched(reason=facts.plain(why))),
        )
        self._sight.see(0, ())

    @property
    def pid(self) -> int:
        """Of the process that watches; 0 where there is none."""
        return self._sight.pid if self._sight is not None else 0

    def see(self, message: protocol.See) -> None:
        """This was changed elsewhere."""
        if self._sight is not None:
            self._sight.see(message.number, decode(message.changes), message.more)

    def _tell(self, changes: Sequence[Change]) -> None:
        for block in encode(changes):
            self._send(protocol.Changed(changes=block))

    def tell_before(self, then: Then) -> None:
        """Tell what has changed here so far, then call `then`."""
        if self._sight is None:
            then()
        else:
            self._sight.collect(then)

    def when_seen(self, then: Then, number: int | None = None) -> None:
        """Call `then` when this host sees each See with a number up to this one, or all that came so far."""
        if self._sight is None:
            then()
        else:
            self._sight.when_seen(self._sight.last if number is None else number, then)

    def give_up(self) -> None:
        """The build ends: nobody waits any longer."""
        if self._sight is not None:
            self._sight.give_up()
