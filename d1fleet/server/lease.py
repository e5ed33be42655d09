"""How long a server may go on without hearing from its coordinator. Pure: the time comes from outside."""

from __future__ import annotations


class Lease:
    """A lease that the server counts from its own request, on its own clock.

    The coordinator counts from its sending of the grant, which is later: the server always ends first.

    Args:
        length_s: how long a grant lasts.
        now: the time at which the first lease begins (seconds on CLOCK_BOOTTIME).
    """

    def __init__(self, length_s: float, now: float) -> None:
        self.length_s = length_s
        self.margin_s = min(1.0, length_s / 10)
        """Killing starts this long before the end."""
        self.until = now + length_s
        """When it ends, as things stand."""
        self._asked: dict[int, float] = {}
        self._seq = 0

    def ask(self, now: float) -> int:
        """Number of a new request, made now."""
        self._seq += 1
        self._asked[self._seq] = now
        if len(self._asked) > 64:
            del self._asked[min(self._asked)]
        return self._seq

    def granted(self, seq: int) -> float | None:
        """Take a grant; returns when the lease ends now, None for a request that we never made."""
        asked = self._asked.pop(seq, None)
        if asked is None:
            return None
        self.until = max(self.until, asked + self.length_s)
        return self.until

    def expired(self, now: float) -> bool:
        """Is it time to end everything?"""
        return now >= self.until - self.margin_s

    def late_s(self, now: float) -> float:
        """Seconds since the end of the lease proper, 0 when it has not ended."""
        return max(0.0, now - self.until)
