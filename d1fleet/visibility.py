"""No sub-make begins, and none is answered, before its machine sees what those before it have made.

A mount that keeps names and attributes for seconds (NFS, sshfs) shows a file that another machine has made
as missing, or as it was, and make goes by that. Where some machine of a build has such a mount, every one
tells what its programs change in the tree, and a machine with such a mount waits until it sees that too.
Where all see the tree as it is, nothing of this is there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from . import protocol, words
from .changes import Change, decode, encode
from .errors import ProtocolError
from .helper import start_module
from .hostlink import HostLink
from .loop import Loop
from .server.facts import shows_late
from .sight import Sight, Then
from .transport import pipes

RECENT_S = 120.0
"""What was changed so shortly before a build may be seen late as well: see sighting.LONGEST_S."""

_MOST_TOLD = 5_000_000
"""Changes that a host may tell over one connection; beyond that it means ill."""

_FORGET_ABOVE = 50_000
"""So many changes are kept before old ones are looked for."""


class _Known(NamedTuple):
    change: Change
    heard: float
    """When: seconds of the loop."""
    maker: object


class ChangeLog:
    """What was changed in a tree of late. Pure."""

    def __init__(self) -> None:
        self._newest: dict[bytes, _Known] = {}
        self._forget_above = _FORGET_ABOVE
        self.number = 0
        """Of the last news; counts from 1."""

    def add(self, changes: Sequence[Change], maker: object, now: float) -> list[Change]:
        """Note changes; returns those that are news: several machines may find the same."""
        news = []
        for change in changes:
            known = self._newest.get(change.path)
            if known is None or known.change != change:
                news.append(change)
                self._newest[change.path] = _Known(change, now, maker)
        self.number += bool(news)
        if len(self._newest) > self._forget_above:
            kept = {path: known for path, known in self._newest.items() if known.heard >= now - RECENT_S}
            self._newest = kept
            self._forget_above = max(_FORGET_ABOVE, 2 * len(kept))
        return news

    def since(self, when: float, maker: object = None) -> list[Change]:
        """What was heard since then and is still so, of all makers or one."""
        found = (known for known in self._newest.values() if known.heard >= when)
        return [known.change for known in found if maker is None or known.maker is maker]


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
        self._told: Counter[HostLink] = Counter()
        """Changes that they have told."""
        self._sight: Sight | None = None
        self._over = False
        self._said: set[str] = set()
        """Hosts of which something was said."""

    @property
    def number(self) -> int:
        """What is known by now: a job that is asked for now needs all up to this one."""
        return self._log.number

    # -- hosts ------------------------------------------------------------------------------------------

    def takes_part(self, link: HostLink, late: bool) -> None:
        """A host is about to get work."""
        if link in self._links or self._over:
            return
        self._links[link] = late
        if self._sight is not None:
            self._watch(link, RECENT_S if self._late_here and not late else 0.0)
            return
        if len(self._links) == 1:  # the first: where there are no hosts, nobody need know
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
        # Those that are at work already may be changing something just now.
        for link in self._links:
            self._watch(link, RECENT_S)

    def _watch(self, link: HostLink, recent_s: float) -> None:
        link.send(protocol.Watch(recent_s=recent_s, folder=self._folder))
        if self._links[link]:
            self._tell([link], self._log.since(self._loop.now() - RECENT_S))

    def left(self, link: HostLink) -> None:
        """A host takes no part any more. Nobody tells what has become of what it was changing: we look."""
        if self._links.pop(link, None) is not None and self._sight is not None and not self._late_here:
            self._sight.look(self._log.since(self._loop.now() - RECENT_S, link))

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
        self._told[link] += len(changes)
        if self._told[link] > _MOST_TOLD:
            raise ProtocolError("Changed, again and again")
        below = self._folder.rstrip(b"/") + b"/"
        if not all(change.path.startswith(below) or change.path == self._folder for change in changes):
            raise ProtocolError("a change outside of the tree")
        self._changed(link, changes)
        return True

    def _changed(self, maker: HostLink | None, changes: Sequence[Change]) -> None:
        """Let all others see it that may not."""
        news = self._log.add(changes, maker, self._loop.now())
        if not news:
            return
        self._tell([link for link, late in self._links.items() if late and link is not maker], news)
        if self._sight is not None and self._late_here and maker is not None:
            self._sight.see(self._log.number, news)

    def _tell(self, links: Sequence[HostLink], changes: Sequence[Change]) -> None:
        blocks = encode(changes) if links else []
        for count, block in enumerate(blocks, 1):
            see = protocol.See(number=self._log.number, more=count < len(blocks), changes=block)
            for link in links:
                link.send(see)

    def _say_unwatched(self, link: HostLink | None, reason: str) -> None:
        where = f"on host {link.host.name}" if link is not None else "on this machine"
        self._say(
            where,
            f"what programs change {where} cannot be watched ({reason}), and others may see it late:"
            " what they make of it may be old (docs/faults.md)",
        )

    def _say_unseen(self, link: HostLink | None, path: bytes) -> None:
        who = f"host {link.host.name} does" if link is not None else "this machine does"
        self._say(
            who,
            f"{who} not see {os.fsdecode(path)} as another one has made it, though any cache is over:"
            " what is built from it may be old (docs/faults.md)",
        )

    def _say(self, once: str, text: str) -> None:
        if once not in self._said:
            self._said.add(once)
            words.say(words.plain(text))

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

    def give_up(self) -> None:
        """The build is broken off: nobody waits any longer."""
        self._end(Sight.give_up)

    def close(self) -> None:
        """Watch no more; whoever waits is not called."""
        self._end(Sight.close)

    def _end(self, how: Callable[[Sight], None]) -> None:
        self._over = True
        if self._sight is not None:
            pid = self._sight.pid
            how(self._sight)
            pipes.started_pids.discard(pid)


def _started(root: bytes, recent_s: float) -> tuple[int, int, int]:
    """Start the process of a Sight as a program: where threads are, nobody may fork and go on."""
    process = start_module("d1fleet.sighting", os.fsdecode(root), str(recent_s))
    assert process.stdin and process.stdout and process.stderr
    read, write = os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno())
    for file in (process.stdin, process.stdout, process.stderr):
        file.close()
    return process.pid, read, write
