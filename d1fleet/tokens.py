"""The account of one make's tokens on a host. Pure: events and the time go in, what to do comes out.

A make runs one recipe by right; each further one needs a token. Tokens come from the build's jobserver
(through the coordinator), and are offered to the make one at a time in a pipe of its own, so that this
account knows exactly which it holds. An offer that the make does not take is of use to others: it goes
back, and the make is asked again later.
"""

from __future__ import annotations

from collections import deque

FIRST_WANT_S = 0.02
"""A make younger than this wants nothing: half of all sub-makes are over before (a guess that suits
small trees).
"""

PATIENCE_S = 0.05
"""An offer that was not taken for this long goes back. Long enough for make to read a directory in
between.
"""

TURN_S = 1.0
"""A token that a make has had for this long goes back to the build when a recipe ends, so that others
get their turn.
"""

LONGEST_PAUSE_S = 1.0
"""The pause after an offer that was not taken doubles up to this."""

Action = tuple[str, int]
"""("want", n), ("return", n), ("offer", 1): write one token; ("withdraw", 1): read it back."""


class Account:
    """Tokens of one make.

    Invariant: tokens given by the coordinator = spare + offered + held + returned.
    """

    def __init__(self, now: float, first_want_s: float = FIRST_WANT_S) -> None:
        self.spare = 0
        """In hand, not offered."""
        self.offered = 0
        """In the make's pipe, unread: 0 or 1."""
        self.held = 0
        """Taken by the make."""
        self.recalled = 0
        """How many the coordinator wants back."""
        self._wanting = False
        self._want_at = now + first_want_s
        self._pause_s = PATIENCE_S
        self._since = now
        self._turns: deque[float] = deque()
        """When each token came, oldest first."""
        self._came_back = False
        """What is spare has been the make's until now."""

    @property
    def hungry(self) -> bool:
        """May the make have use for another token? Not when it left the last offer alone."""
        return self._pause_s <= PATIENCE_S

    @property
    def total(self) -> int:
        """All tokens that this make keeps from others."""
        return self.spare + self.offered + self.held

    def granted(self, count: int, now: float) -> list[Action]:
        """The coordinator gave `count` tokens."""
        self._wanting = False
        self.spare += count
        self._came_back = False
        self._since = now
        self._turns.extend([now] * count)
        return self._settle(now)

    def recall(self, count: int, now: float) -> list[Action]:
        """Others wait for `count` tokens: spare ones go at once, used ones as they come back."""
        # A token that is on its way back already answers as well.
        self.recalled = min(self.recalled + count, self.total)
        return self._settle(now)

    def offer_made(self, now: float) -> None:
        """An "offer" was carried out: the token is in the pipe."""
        self.spare -= 1
        self.offered += 1
        self._since = now

    def no_slot(self, now: float) -> list[Action]:
        """An "offer" could not be carried out, for want of a slot. A token that has just come back goes at
        once to where there is one, and the make asks for another: it may be worth a probe.
        """
        if not self._came_back:
            return []
        self._came_back = False
        self._want_at = now
        actions = self._give_back(self.spare) + self._settle(now)
        return sorted(actions, key=_wants_first)

    def stirred(self, now: float) -> list[Action]:
        """A sub-make of this make has ended, so recipes may have become ready: ask at once, however often
        the make has left offers alone.
        """
        self._pause_s = PATIENCE_S
        self._want_at = min(self._want_at, now)
        return self._settle(now)

    def taken(self, now: float) -> list[Action]:
        """The make has read the offer: it has work for more."""
        self.offered -= 1
        self.held += 1
        self._pause_s = PATIENCE_S
        self._want_at = now
        return self._settle(now)

    def released(self, count: int, now: float) -> list[Action]:
        """The make has given `count` tokens back.

        Raises:
            ValueError: it gave back more than it took.
        """
        if count > self.held:
            raise ValueError(f"{count} tokens came back, {self.held} were held")
        self.held -= count
        self.spare += count
        self._came_back = True
        self._since = now
        over = 0
        while over < count and over < len(self._turns) and now - self._turns[over] > TURN_S:
            over += 1
        self._want_at = now if over else self._want_at
        return sorted(self._give_back(over) + self._settle(now), key=_wants_first)

    def withdrawn(self, now: float) -> list[Action]:
        """A "withdraw" was carried out: the make had no use for the token."""
        self.offered -= 1
        self._want_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        self.spare += 1
        return self._give_back(1)

    def tick(self, now: float, patient: bool = False) -> list[Action]:
        """Time has passed. `patient`: what is offered may lie there, for nobody else waits for it."""
        if patient and not self.recalled:
            return self._settle(now)
        if self.offered and now - self._since >= (0 if self.recalled else PATIENCE_S):
            return [("withdraw", 1)]
        if self.spare and now - self._since >= PATIENCE_S:
            # No slot was free for it all this time: somebody else may have one elsewhere.
            self._want_at = now + self._pause_s
            return self._give_back(self.spare)
        return self._settle(now)

    def _give_back(self, count: int) -> list[Action]:
        self.spare -= count
        for _ in range(min(count, len(self._turns))):
            self._turns.popleft()
        self.recalled = max(0, self.recalled - count)
        return [("return", count)] if count else []

    def _settle(self, now: float) -> list[Action]:
        actions: list[Action] = []
        if self.recalled and self.spare:
            actions += self._give_back(min(self.recalled, self.spare))
            self._want_at = max(self._want_at, now + PATIENCE_S)
        if self.spare > 1:
            actions += self._give_back(self.spare - 1)
        if self.spare and not self.offered:
            actions.append(("offer", 1))
        elif not self.total - self.held and not self._wanting and not self.recalled and now >= self._want_at:
            self._wanting = True
            actions.append(("want", 1))
        return actions


def _wants_first(action: Action) -> bool:
    """Who waits for a token is served when one comes back: this make has to be among them by then."""
    return action[0] != "want"
