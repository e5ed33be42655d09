"""No sub-make begins, and none is answered, before its machine sees what those before it have made.

A mount that keeps names and attributes for seconds (NFS, sshfs) shows a file that another machine has made
as missing, or as it was, and make goes by that. Where some machine of a build has such a mount, every one
tells what its programs change in the tree, and a machine with such a mount waits until it sees that too.
Where all see the tree as it is, nothing of this is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial

from . import protocol, words
from .changes import Change, decode, encode
from .errors import ProtocolError
from .hostlink import HostLink
from .loop import Loop
from .server.facts import shows_late
from .sight import Sight, Then
from .transport import pipes

RECENT_S = 120.0
"""What was changed so shortly before a build may be seen late as well: see sighting.LONGEST_S."""

_MOST_PATHS = 2_000_000
"""That a build's hosts may speak of; beyond that one means ill."""


class ChangeLog:
    """What was changed in a tree, in the order in which that was heard. Pure."""

    def __init__(self) -> None:
        self._newest: dict[bytes, tuple[Change, float]] = {}
        self.number = 0
        """Of the last news; counts from 1."""

    def add(self, changes: Sequence[Change], now: float) -> list[Change]:
        """Note changes; returns those that are news: several machines may find the same.

        Raises:
            ProtocolError: there are more than a tree has files.
        """
        news = [change for change in changes if self._newest.get(change.path, _NOTHING)[0] != change]
        for change in news:
            self._newest[change.path] = change, now
        if len(self._newest) > _MOST_PATHS:
            raise ProtocolError("more changes than a tree has files")
        self.number += bool(news)
        return news

    def since(self, when: float) -> list[Change]:
        """What was heard since then and is still so."""
        return [change for change, heard in self._newest.values() if heard >= when]


_NOTHING: tuple[Change | None, float] = None, 0.0


class Visibility:
    """The coordinator's end: knows what was changed, and who has to see it.

    Args:
        folder: of the build; what lies below it is watched.
    """

    def __init__(self, loop: Loop, folder: bytes) -> None:
        self._loop = loop
        self._folder = folder
        self._log = ChangeLog()
        self._late_here = False
        self._links: dict[HostLink, bool] = {}
        """Hosts that take part, and whether they see the tree late."""
        self._sight: Sight | None = None
        self._closed = False
        self._said: set[object] = set()
        """Who was said not to see something."""

    @property
    def number(self) -> int:
        """What is known by now: a job that is asked for now needs all up to this one."""
        return self._log.number

    # -- hosts ------------------------------------------------------------------------------------------

    def takes_part(self, link: HostLink, late: bool) -> None:
        """A host is about to get work."""
        if link in self._links or self._closed:
            return
        self._links[link] = late
        if self._sight is not None:
            self._watch(link)
            return
        self._late_here = shows_late(self._folder)
        if late or self._late_here:
            self._begin()

    def _begin(self) -> None:
        self._sight = Sight(
            self._loop,
            partial(_started, self._folder, RECENT_S),
            lambda changes: self._changed(None, changes),
            lambda path: self._say_unseen(None, path),
            lambda why: self._say_unwatched(None, why),
        )
        for link in self._links:
            self._watch(link)

    def _watch(self, link: HostLink) -> None:
        # Where the tree is seen as it is, it is known best what was changed just now.
        late = self._links[link]
        recent_s = RECENT_S if self._late_here and not late else 0.0
        link.send(protocol.Watch(recent_s=recent_s, folder=self._folder))
        if late:
            self._tell(link, self._log.since(self._loop.now() - RECENT_S))

    def heard(self, link: HostLink, message: protocol.Message) -> bool:
        """Take a host's word; False when it is about something else.

        Raises:
            ProtocolError: nobody has asked it that.
        """
        if not isinstance(message, (protocol.Changed, protocol.Unseen, protocol.Unwatched)):
            return False
        if self._sight is None or link not in self._links:
            raise ProtocolError(f"{type(message).__name__}, and nobody has asked")
        if isinstance(message, protocol.Unseen):
            self._say_unseen(link, message.path)
            return True
        if isinstance(message, protocol.Unwatched):
            self._say_unwatched(link, message.reason)
            return True
        changes = decode(message.changes)
        below = self._folder.rstrip(b"/") + b"/"
        if not all(change.path.startswith(below) or change.path == self._folder for change in changes):
            raise ProtocolError("a change outside of the tree")
        self._changed(link, changes)
        return True

    def _changed(self, maker: HostLink | None, changes: Sequence[Change]) -> None:
        """Let all others see it that may not."""
        news = self._log.add(changes, self._loop.now())
        if not news:
            return
        for link, late in self._links.items():
            if late and link is not maker and link.open:
                self._tell(link, news)
        if self._sight is not None and self._late_here and maker is not None:
            self._sight.see(self._log.number, news)

    def _tell(self, link: HostLink, changes: Sequence[Change]) -> None:
        for block in encode(changes):
            link.send(protocol.See(number=self._log.number, changes=block))

    def _say_unwatched(self, link: HostLink | None, reason: str) -> None:
        if ("unwatched", link) not in self._said:
            self._said.add(("unwatched", link))
            where = f"on host {link.host.name}" if link is not None else "on this machine"
            words.say(
                words.plain(
                    f"what programs change {where} cannot be watched ({reason}), and others may see it late:"
                    " what they make of it may be old (docs/faults.md)"
                )
            )

    def _say_unseen(self, link: HostLink | None, path: bytes) -> None:
        if link not in self._said:
            self._said.add(link)
            who = f"host {link.host.name} does" if link is not None else "this machine does"
            words.say(
                words.plain(
                    f"{who} not see {os.fsdecode(path)} as another one has made it, though any cache is over:"
                    " what is built from it may be old (docs/faults.md)"
                )
            )

    # -- jobs -------------------------------------------------------------------------------------------

    def look_before(self, then: Then) -> None:
        """Take note of what programs on this machine have changed, then call `then`."""
        if self._sight is None:
            then()
        else:
            self._sight.collect(then)

    def when_seen_here(self, then: Then) -> None:
        """Call `then` when this machine sees all that is known by now."""
        if self._sight is None:
            then()
        else:
            self._sight.when_seen(self._log.number, then)

    def close(self) -> None:
        """Watch no more; whoever waits is not called."""
        self._closed = True
        if self._sight is not None:
            self._sight.close()


def _started(root: bytes, recent_s: float) -> tuple[int, int, int]:
    """Start the process of a Sight as a program: where threads are, nobody may fork and go on."""
    # -P: not from the build's folder, where anything may lie.
    argv = [sys.executable, "-P", "-m", "d1fleet.sighting", os.fsdecode(root), str(recent_s)]
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join(filter(None, [ours, os.environ.get("PYTHONPATH")]))
    process = pipes.start(argv, {**os.environ, "PYTHONPATH": path})
    assert process.stdin and process.stdout and process.stderr
    read, write = os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno())
    for file in (process.stdin, process.stdout, process.stderr):
        file.close()
    return process.pid, read, write
