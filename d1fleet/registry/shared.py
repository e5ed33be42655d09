"""What the parts of the service's front have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from .access import Access
from .administration import Administration
from .core import Core
from .failures import Failures
from .gate import Gate
from .metrics import Metrics
from .options import Options
from .service import HostService


@dataclass(frozen=True)
class Shared:
    """One service.

    Attributes:
        secret: the registry's own, which signs sessions.
        read_pin: see `pin`.
        ending: set when the service is about to end: nobody is kept waiting any more.
    """

    core: Core
    hosts: HostService
    administration: Administration
    gate: Gate
    options: Options
    metrics: Metrics
    failures: Failures
    access: Access
    secret: bytes
    read_pin: Callable[[], str]
    ending: asyncio.Event

    def __repr__(self) -> str:
        return "<Shared>"

    @property
    def pin(self) -> str:
        """Of the TLS certificate, by which hosts know the registry; "" without TLS."""
        return self.read_pin()

    def end(self) -> None:
        """Answer those who wait, and end what is watched."""
        self.ending.set()
        self.core.wake(self.core.pool.hosts, for_news=False)
        self.core.feed.close()


def share(
    core: Core,
    secret: bytes,
    options: Options,
    gate: Gate | None = None,
    pin: Callable[[], str] = str,
) -> Shared:
    """Put a service together.

    Args:
        gate: None for one with the limits of `options`.
    """
    gate = gate or Gate(options.limits)
    administration = Administration(core)
    metrics = Metrics(core)
    return Shared(
        core,
        HostService(core),
        administration,
        gate,
        options,
        metrics,
        Failures(metrics),
        Access(core, administration, gate, options, secret),
        secret,
        pin,
        asyncio.Event(),
    )
