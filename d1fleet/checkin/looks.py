"""What is seen of this host, again and again, and what of it is another than before."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

from ..errors import UsageError
from ..loop import Loop
from . import compilers, config, netlink, report
from .config import Configuration
from .journal import WARNING, log
from .report import Durable

DPKG_STATUS = "/var/lib/dpkg/status"

SETTLE_S = 10.0
"""A package manager is at work: compilers are looked at when it has written nothing for so long (a guess)."""


class ConfigurationFile:
    """The configuration, and whether it has changed.

    Raises:
        UsageError: it cannot be used.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamps: tuple[tuple[int, ...], ...] = ()
        self.fault = ""
        """Why the file as it is now is not used; the one before it still is."""
        self.now = config.load(path)
        self._stamps = self._look()

    def _look(self) -> tuple[tuple[int, ...], ...]:
        return config.stamp(self._path), config.stamp(self.now.certificate)

    def changed(self, *, force: bool = False) -> bool:
        """Read it again if it, or the certificate, is another file; returns whether to start anew with it."""
        stamps = self._look()
        if stamps == self._stamps and not force:
            return False
        try:
            self.now = config.load(self._path)
        except UsageError as error:
            if error.message != self.fault:
                log(WARNING, f"the old configuration stays: {error.message}")
            self.fault = error.message
            self._stamps = stamps
            return False
        self.fault = ""
        self._stamps = self._look()
        return True


class Toolchain:
    """The compilers of this host, looked at now and then.

    Args:
        cache: a folder to remember them in.
        changed: called when they are others.

    Attributes:
        parts: as server.toolchain has it; empty as long as nothing is known.
    """

    def __init__(
        self, loop: Loop, cache: str, changed: Callable[[], None], status: str = DPKG_STATUS
    ) -> None:
        self._loop = loop
        self._cache = cache
        self._changed = changed
        self._status = status
        self._stamp = config.stamp(status)
        self._tools: tuple[str, ...] | None = None
        self._due_s = 0.0
        self._look: compilers.Look | None = None
        self.parts: dict[str, str] = {}

    def look_if_due(self, tools: tuple[str, ...]) -> None:
        """Begin to look where it is time for that."""
        now_s = self._loop.now()
        stamp = config.stamp(self._status)
        if stamp != self._stamp:
            self._stamp = stamp
            self._due_s = now_s + SETTLE_S
        if tools != self._tools:
            self._due_s = now_s
        if self._look is None and now_s >= self._due_s:
            self._tools = tools
            self._due_s = now_s + compilers.EACH_S
            try:
                self._look = compilers.Look(self._loop, self._cache, tools, self._seen)
            except OSError as error:
                log(WARNING, f"compilers cannot be looked at: {error.strerror}")

    def _seen(self, parts: dict[str, str]) -> None:
        self._look = None
        if not parts:
            log(WARNING, "the look at the compilers was not sure; what was seen before holds")
            self._due_s = min(self._due_s, self._loop.now() + compilers.AGAIN_S)
        elif parts != self.parts:
            self.parts = parts
            self._changed()

    def close(self) -> None:
        """Look no more."""
        if self._look is not None:
            self._look.close()


class Watch:
    """Addresses, slots, keys, and whether the compile server is there; at once, or each second.

    Attributes:
        now: as it was seen last.
        addresses: all of them; a report has room for some.
    """

    def __init__(self, loop: Loop, settings: Configuration, changed: Callable[[], None]) -> None:
        self._loop = loop
        self._changed = changed
        self.addresses: tuple[str, ...] = ()
        self.now = Durable((), 1, False, ())
        self._kernel: netlink.AddressWatch | None = None
        # Else the look of each second has to do.
        with contextlib.suppress(OSError):
            self._kernel = netlink.AddressWatch()
            loop.on_read(self._kernel.socket.fileno(), self._told)
        self.look(settings, {})

    def _told(self) -> None:
        if self._kernel is not None:
            self._kernel.drain()
            self._changed()

    def look(self, settings: Configuration, toolchain: dict[str, str]) -> Durable:
        """Look now; returns what was seen the last time."""
        before = self.now
        seen = report.durable(settings, toolchain)
        # Keys are pinned. A moment without any is one in which they are written anew.
        self.now = dataclasses.replace(seen, host_keys=seen.host_keys or before.host_keys)
        self.addresses = tuple(netlink.own_addresses(settings.networks))
        return before

    def close(self) -> None:
        """Listen no more."""
        if self._kernel is not None:
            self._loop.forget(self._kernel.socket.fileno())
            self._kernel.close()
