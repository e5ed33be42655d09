"""What `d1fleet chaos` breaks, and what has to come of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

LOCAL = ("coordinator",)
"""Faults of the machine that builds; a host is only asked whether a recipe is at work."""

NEEDS_LOGIN = ("sshd", "cut", "garbage")
"""Ways to strike for which a host has to be reached over SSH."""

RETURNS_S = 2.0
"""What comes back beyond its lease comes so much after that."""


@dataclass(frozen=True)
class Fault:
    """One way to break things.

    Attributes:
        how: what is done on the host (server/strike.py).
        what: for people.
        fails: the build has to fail, as it would under plain make, and is started again.
        heals_s: after so many seconds what was stopped goes on; None: beyond lease and grace.
        late: it goes on when the build has ended.
        times: so often in one build.
        everywhere: on all hosts at once.
        usual: it is done unless faults are named.
        command: the site's own way to break a host: run on this machine, as a shell takes it.
        heal: and its way to mend it.
    """

    name: str
    how: str
    what: str
    fails: bool = False
    heals_s: float | None = 0.0
    late: bool = False
    times: int = 1
    everywhere: bool = False
    usual: bool = True
    command: str = ""
    heal: str = ""

    @property
    def wanted(self) -> str:
        """What has to come of it, for people."""
        if self.fails:
            return "the build fails, and the next one succeeds"
        if self.late:
            return "both builds succeed"
        if self.how in ("freeze", "hang"):
            return "the build succeeds, or ends with 88 and the next one does"
        return "the build succeeds"


FAULTS = (
    Fault("host", "host", "a host is gone: all that runs there is killed at once"),
    Fault("pause", "freeze", "a host does nothing for 5 s", heals_s=5.0),
    Fault("freeze", "freeze", "a host does nothing until its lease is over, then goes on", heals_s=None),
    Fault("thaw", "freeze", "a host does nothing, and goes on when the build has ended", late=True),
    Fault("cut", "cut", "the connection carries nothing until the lease is over", heals_s=None),
    Fault("sshd", "sshd", "the login is killed"),
    Fault("flap", "sshd", "the login is killed, three times", times=3),
    Fault("server", "server", "the server is killed"),
    Fault("supervisor", "supervisor", "the supervisor of a sub-make is killed"),
    Fault("hang", "hang", "the server does nothing any more, and its connection stays", heals_s=None),
    Fault("garbage", "garbage", "the host sends what is no message"),
    Fault("make", "make", "make is killed (SIGKILL)", fails=True),
    Fault("make-term", "make-term", "make is ended (SIGTERM)", fails=True),
    Fault(
        "coordinator", "look", "d1fleet is killed on this machine, and the build started again", fails=True
    ),
    Fault("all", "host", "all hosts are gone at once", everywhere=True),
    Fault("recipe", "recipe", "a recipe is killed", fails=True, usual=False),
    Fault("full", "full", "files cannot grow any more", fails=True, usual=False),
)
"""In the order in which they are done. The last ones are not usual: a recipe that fails when it has half
written its target leaves that there, as under plain make, unless the makefile has .DELETE_ON_ERROR. (Where
memory or disk were short on the host, we see to that.)
"""

BY_NAME = {fault.name: fault for fault in FAULTS}


def own(name: str, command: str, heal: str = "") -> Fault:
    """A fault that the site makes by itself."""
    return Fault(name, "look", command, heals_s=None, command=command, heal=heal)
