"""Who has asked how often, and who has to wait.

Counting is that of `limits`, in windows of a fixed length, so that nobody who goes on asking makes the wait
longer. What is counted lies in memory, and only so much of it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from .limits import Limits
from .refusals import Refused

MOST_COUNTED = 50_000
"""Windows that are kept: some 10 MB. Beyond, the oldest are forgotten, which lets one too many through."""

SIX_PREFIX = 64
"""Of IPv6, a single machine has all addresses of such a network."""


class TooManyError(Refused):
    """Somebody asks too often.

    Args:
        what: they ask for, in the plural.
        retry_after_s: whole seconds until the next may succeed.
    """

    def __init__(self, what: str, retry_after_s: int) -> None:
        super().__init__(429, "rate", f"too many {what}", f"try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class Counters(Storage):
    """Counts in memory, without a thread, by a clock that is given; keeps so many, the newest.

    Args:
        clock: monotonic seconds.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Callable[[], float], most: int = MOST_COUNTED) -> None:
        super().__init__()
        self._clock = clock
        self._most = most
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """key -> when it ends, and what was counted; in the order in which they began."""

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def base_exceptions(self) -> type[Exception]:
        return ValueError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        now_s = self._clock()
        ends_s, count = self._windows.get(key, (now_s, 0))
        if ends_s <= now_s:
            self._windows.pop(key, None)
            while len(self._windows) >= self._most:
                self._windows.popitem(last=False)
            ends_s, count = now_s + expiry, 0
        self._windows[key] = (ends_s, count + amount)
        return count + amount

    def get(self, key: str) -> int:
        ends_s, count = self._windows.get(key, (0.0, 0))
        return count if ends_s > self._clock() else 0

    def get_expiry(self, key: str) -> float:
        return self._windows.get(key, (self._clock(), 0))[0]

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        count = len(self._windows)
        self._windows.clear()
        return count

    def clear(self, key: str) -> None:
        self._windows.pop(key, None)


class Gate:
    """Says no to those who ask too often. The socket of this machine, the source "", is never asked.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self.counters = Counters(clock)
        self.passwords = asyncio.Semaphore(limits.sign_ins_at_once)
        """Held while one is looked at."""
        self._limiter = FixedWindowRateLimiter(self.counters)
        self._failures = RateLimitItemPerMinute(limits.failures_a_minute, namespace="failures")
        self._joins = RateLimitItemPerMinute(limits.joins_a_minute, namespace="joins")
        self._sign_ins = RateLimitItemPerMinute(limits.sign_ins_a_minute, namespace="sign-ins")
        self._checkins = RateLimitItemPerSecond(limits.checkins_a_second, namespace="check-ins")
        self._waits = RateLimitItemPerSecond(limits.waits_a_second, namespace="waits")
        self._old = RateLimitItemPerMinute(limits.old_clients_a_minute, namespace="old-clients")
        self._loud = RateLimitItemPerMinute(limits.loud_a_minute, namespace="loud")

    def failed(self, source: str) -> None:
        """Somebody has shown a credential, token or key that is void. What is right is let in all the same:
        neighbours behind one address must not shut each other out, and nobody guesses 256 bits.

        Raises:
            TooManyError: in place of the refusal that was to come.
        """
        self._count(self._failures, source, "failed attempts from this address")

    def join(self, source: str) -> None:
        """Raises:
        TooManyError: too many joins from there.
        """
        self._count(self._joins, source, "joins from this address")

    def sign_in(self, source: str) -> None:
        """Before a password is looked at: those can be guessed.

        Raises:
            TooManyError: too many from there.
        """
        self._count(self._sign_ins, source, "sign-ins from this address")

    def check_in(self, credential: str) -> None:
        """Raises:
        TooManyError: too many of that host.
        """
        self._count(self._checkins, _short(credential), "check-ins of this host", credential)

    def wait(self, credential: str) -> None:
        """Raises:
        TooManyError: too many of that host.
        """
        self._count(self._waits, _short(credential), "requests of this host", credential)

    def old_client(self, source: str) -> None:
        """Raises:
        TooManyError: too many check-ins of an old client from there.
        """
        self._count(self._old, source, "check-ins from this address")

    def may_be_logged(self, source: str) -> bool:
        """May one more refusal of that address be told of?"""
        return self._limiter.hit(self._loud, party(source))

    def _count(self, item: RateLimitItem, whom: str, what: str, credential: str = "") -> None:
        if not whom:
            return
        whom = whom if credential else party(whom)
        if not self._limiter.hit(item, whom):
            left_s = self.counters.get_expiry(item.key_for(whom)) - self._clock()
            raise TooManyError(what, max(1, math.ceil(left_s)))


def _short(credential: str) -> str:
    # It need not be kept: 50,000 of them would be 400 MB.
    return f"{hash(credential):x}" if credential else ""


def party(source: str) -> str:
    """Who an address counts as."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if address.version == 4:
        return source
    return str(ipaddress.ip_network((int(address), SIX_PREFIX), strict=False))
