"""When a host that is out of a build is tried again. Pure: the time comes from outside.

A host where nothing answers is looked at every two seconds: that costs it a packet. One that answers is
bothered less and less: a login that was refused would be refused again until somebody has mended something,
and sshd (PerSourcePenalties) and fail2ban shut out whoever goes on trying.
"""

from __future__ import annotations

from .errors import ConnectError, D1fleetError, HostError, HostKeyError, LoginError

LOOK_S = 2.0
"""Between two looks at a host where nothing answers, and before the first try: a host that is reachable again
shall have work within five seconds.
"""

LONGEST_CONNECT_S = 30.0
"""At most between tries of a host that takes connections and hangs up (MaxStartups), or is behind another."""

TROUBLED_S = 5.0
"""Before a host is tried again whose login works, but not the rest: after a boot its mounts may be late.
Doubled each time.
"""

REFUSED_S = 60.0
"""Before a refused login is tried again, doubled each time: at most four in ten minutes, where fail2ban shuts
out at five.
"""

LONGEST_S = 300.0

STEADY_S = 60.0
"""A host that has been up for so long has its earlier setbacks forgiven; a guess."""


class Retry:
    """One host's tries."""

    def __init__(self) -> None:
        self._setbacks = 0
        self._refusals = 0
        self._up_since: float | None = None

    def up(self, now: float) -> None:
        """It takes part, from now on."""
        self._up_since = now

    def lost(self, now: float) -> float:
        """It took part, and its connection or server has ended; returns seconds until it is tried again."""
        if self._up_since is not None and now - self._up_since >= STEADY_S:
            self._setbacks = self._refusals = 0
        self._up_since = None
        return self._doubled(LOOK_S, LONGEST_S)

    def absent(self) -> float:
        """Nothing answers there; returns seconds until the next look."""
        self._setbacks = 0
        return LOOK_S

    def failed(self, error: D1fleetError) -> float | None:
        """It was tried, in vain; returns seconds until the next try, None for no further one."""
        if isinstance(error, (LoginError, HostKeyError)):
            self._refusals += 1
            return min(REFUSED_S * 2.0 ** (self._refusals - 1), LONGEST_S)
        if isinstance(error, ConnectError):
            return self._doubled(LOOK_S, LONGEST_CONNECT_S)
        if isinstance(error, HostError):
            return self._doubled(TROUBLED_S, LONGEST_S)
        return None  # it breaks the protocol, or the fault is ours

    def _doubled(self, first_s: float, longest_s: float) -> float:
        self._setbacks += 1
        return min(first_s * 2.0 ** min(self._setbacks - 1, 10), longest_s)
