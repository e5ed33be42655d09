"""One host of a build's fleet, from the inventory's first word of it to the end: connections come and go."""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import ConnectError, D1fleetError
from .hostlink import HostLink
from .loop import Timer
from .model import Host
from .retry import Retry


@dataclass(eq=False)
class Member:
    """A host of the fleet, and where it stands."""

    host: Host
    """What the inventory says of it now: for the next connection."""
    link: HostLink
    """The connection, or the last one."""
    retry: Retry = field(default_factory=Retry)
    later: bool = False
    """Nothing waits for it: it came when the build was under way, or comes again."""
    removed: bool = False
    """The inventory no longer has it."""
    drained: str = ""
    """Why somebody wants it to get no more work; of this connection."""
    unfit: str = ""
    """Why it was left out though it had work; of this connection."""
    error: D1fleetError | None = None
    """Why it is out, as was last said; None while it takes part, and before anything was said."""
    lost_at: float | None = None
    """When it was lost; None while it takes part, and for one that never did."""
    timer: Timer | None = None
    """Its next try."""

    @property
    def barred(self) -> str:
        """Why it gets no work though it may be up; empty when it does."""
        return self.unfit or self.drained or ("the inventory no longer has it" if self.removed else "")

    @property
    def state(self) -> str:
        """For people: what became of it."""
        error = self.error or self.link.error
        if error is not None:
            return error.message
        return self.barred or "ok"

    def is_news(self, error: D1fleetError) -> bool:
        """Has this to be said? That it still is away, or out for the same cause, has not."""
        known = self.error
        return known is None or (not isinstance(error, ConnectError) and type(error) is not type(known))

    def stop_trying(self) -> None:
        """Forget its next try."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
