"""The account of a make's tokens: in whatever order things happen, none is lost, made up or kept."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from d1fleet.tokens import FIRST_WANT_S, LONGEST_PAUSE_S, PATIENCE_S, TURN_S, Account, Action

TICK_S = 0.02
SETTLED_TICKS = 400
"""Ticks in which everything has to be where it belongs: eight seconds, as pauses double up to one."""


def _account(tokens: int = 0) -> Account:
    """An account at time 0, whose make holds `tokens`."""
    account = Account(0.0)
    for _ in range(tokens):
        account.granted(1, 0.0)
        account.offer_made(0.0)
        account.taken(0.0)
    return account


def test_a_young_make_wants_nothing() -> None:
    account = Account(10.0)
    assert account.tick(10.0 + FIRST_WANT_S / 2) == []
    assert account.tick(10.0 + FIRST_WANT_S) == [("want", 1)]


def test_it_wants_one_at_a_time() -> None:
    account = Account(0.0)
    assert account.tick(1.0) == [("want", 1)]
    assert account.tick(2.0) == []
    assert account.granted(1, 2.0) == [("offer", 1)]


def test_a_make_that_takes_gets_more_at_once() -> None:
    account = Account(0.0)
    account.tick(1.0)
    account.granted(1, 1.0)
    account.offer_made(1.0)
    assert account.taken(1.001) == [("want", 1)]


def test_an_offer_that_nobody_takes_goes_back() -> None:
    account = Account(0.0)
    account.granted(1, 0.0)
    account.offer_made(0.0)
    assert account.tick(PATIENCE_S / 2) == []
    assert account.tick(PATIENCE_S) == [("withdraw", 1)]
    assert account.withdrawn(PATIENCE_S) == [("return", 1)]
    assert account.total == 0


def test_pauses_get_longer_until_an_offer_is_taken() -> None:
    account, now = Account(0.0), 0.0
    pauses = []
    for _ in range(8):
        start = now
        while account.tick(now) != [("want", 1)]:
            now += TICK_S / 4
        pauses.append(now - start)
        account.granted(1, now)
        account.offer_made(now)
        now += PATIENCE_S
        account.withdrawn(now)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_S, abs=TICK_S)


def test_a_token_without_a_slot_goes_back() -> None:
    """The "offer" was never carried out, for the machine was full."""
    account = Account(0.0)
    assert account.granted(1, 0.0) == [("offer", 1)]
    assert account.tick(PATIENCE_S) == [("return", 1)]


def test_a_recalled_token_goes_back_before_it_is_offered_again() -> None:
    account = _account(tokens=2)
    assert account.recall(1, 0.1) == []
    assert account.released(1, 0.2) == [("return", 1)]
    assert account.total == account.held == 1


def test_a_recalled_offer_is_withdrawn_at_the_next_tick() -> None:
    account = Account(0.0)
    account.granted(1, 0.0)
    account.offer_made(0.0)
    account.recall(1, 0.001)
    assert account.tick(0.001) == [("withdraw", 1)]


def test_a_recall_that_comes_too_late_is_no_debt() -> None:
    """The token was on its way back when the coordinator asked for it."""
    account = Account(0.0)
    account.granted(1, 0.0)
    account.offer_made(0.0)
    account.withdrawn(PATIENCE_S)
    assert account.recall(1, 0.1) + account.tick(0.1 + LONGEST_PAUSE_S) == [("want", 1)]


def test_after_its_turn_a_token_goes_to_others() -> None:
    account = _account(tokens=1)  # and has asked for another one
    assert account.released(1, TURN_S * 2) == [("return", 1)]
    assert account.total == 0


def test_within_its_turn_a_token_is_offered_again() -> None:
    account = _account(tokens=1)
    assert account.released(1, TURN_S / 2) == [("offer", 1)]


def test_a_token_that_comes_back_to_no_slot_goes_on_at_once() -> None:
    """The machine is full, others may not be: the make asks anew, and what it had is there for its answer."""
    account = Account(0.0)
    account.granted(1, 0.0)
    account.offer_made(0.0)
    assert account.taken(0.0) == [("want", 1)]
    assert account.granted(1, 0.1) == [("offer", 1)]
    assert account.no_slot(0.1) == []  # one that has just come waits for a slot to get free
    assert account.tick(0.1 + PATIENCE_S) == [("return", 1)]
    assert account.released(1, 0.2) == [("offer", 1)]
    assert account.no_slot(0.2) == [("want", 1), ("return", 1)]
    assert account.total == 0


def test_where_a_sub_make_has_ended_it_asks_at_once() -> None:
    account, now = Account(0.0), 0.0
    for _ in range(6):
        account.granted(1, now)
        account.offer_made(now)
        account.withdrawn(now + PATIENCE_S)
        now += LONGEST_PAUSE_S
    now -= LONGEST_PAUSE_S / 2
    assert account.tick(now) == []
    assert account.stirred(now) == [("want", 1)]
    assert account.hungry


def test_more_back_than_it_took() -> None:
    account = _account(tokens=1)
    with pytest.raises(ValueError, match="2 tokens came back, 1 were held"):
        account.released(2, 1.0)


class Traffic(RuleBasedStateMachine):
    """An account between a coordinator and a make, with messages on their way in both directions."""

    @initialize(pool=st.integers(0, 6), slots=st.integers(0, 6))
    def start(self, pool: int, slots: int) -> None:
        self.now = 100.0
        self.account = Account(self.now)
        self.pool = pool
        """Tokens that the coordinator can get."""
        self.all_tokens = pool
        self.slots = slots
        """Slots of the machine that are free."""
        self.appetite = 0
        """Recipes that the make could run beyond its first."""
        self.pipe = 0
        self.to_server: deque[tuple[str, int]] = deque()
        self.to_coordinator: deque[tuple[str, int]] = deque()
        self.granted = self.returned = 0
        self.known = self.recalls = 0
        """The coordinator's view: tokens of this make, and how many of them it has asked back."""
        self.waiting = 0

    # -- what the server does ----------------------------------------------------------------------

    def act(self, actions: list[Action]) -> None:
        for verb, count in actions:
            assert count > 0
            if verb in ("want", "return"):
                self.to_coordinator.append((verb, count))
                self.returned += count if verb == "return" else 0
            elif verb == "offer":
                assert self.pipe == 0, "a second offer would not fit in the pipe"
                if self.account.offered or not self.account.spare:
                    continue
                if self.slots:
                    self.slots -= 1
                    self.pipe = 1
                    self.account.offer_made(self.now)
                else:
                    self.act(self.account.no_slot(self.now))
            elif self.pipe:
                self.pipe = 0
                self.slots += 1
                self.act(self.account.withdrawn(self.now))

    @rule(elapsed=st.sampled_from([0.001, TICK_S, 3 * TICK_S, TURN_S]))
    def tick(self, elapsed: float) -> None:
        self.now += elapsed
        self.act(self.account.tick(self.now))

    @rule()
    def sub_make_ends(self) -> None:
        self.act(self.account.stirred(self.now))

    @precondition(lambda self: self.to_server)
    @rule()
    def server_hears(self) -> None:
        verb, count = self.to_server.popleft()
        if verb == "grant":
            self.granted += count
            self.act(self.account.granted(count, self.now))
        else:
            self.act(self.account.recall(count, self.now))

    # -- what the coordinator does -------------------------------------------------------------------

    @precondition(lambda self: self.to_coordinator)
    @rule()
    def coordinator_hears(self) -> None:
        verb, count = self.to_coordinator.popleft()
        if verb == "want":
            self.waiting += count
            assert self.waiting == 1, "it wants more before it has an answer"
        else:
            self.pool += count
            self.known -= count
            self.recalls = max(0, self.recalls - count)
            assert self.known >= 0

    @precondition(lambda self: self.waiting and self.pool)
    @rule()
    def grant(self) -> None:
        self.pool -= 1
        self.waiting = 0
        self.known += 1
        self.to_server.append(("grant", 1))

    @precondition(lambda self: self.known > self.recalls)
    @rule()
    def recall(self) -> None:
        self.recalls += 1
        self.to_server.append(("recall", 1))

    # -- what the make and others do -------------------------------------------------------------------

    @rule(appetite=st.integers(0, 6))
    def get_hungry(self, appetite: int) -> None:
        self.appetite = appetite

    @precondition(lambda self: self.pipe and self.appetite > self.account.held)
    @rule()
    def take(self) -> None:
        self.pipe = 0
        self.act(self.account.taken(self.now))

    @precondition(lambda self: self.account.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, self.account.held))
        self.slots += count
        self.act(self.account.released(count, self.now))

    @rule(more=st.integers(-1, 1))
    def others_use_the_machine(self, more: int) -> None:
        self.slots = max(0, self.slots - more)

    # -- what always holds --------------------------------------------------------------------------------

    @invariant()
    def conserved(self) -> None:
        account = self.account
        assert self.granted == account.spare + account.offered + account.held + self.returned
        in_flight = sum(count for verb, count in self.to_server if verb == "grant")
        in_flight += sum(count for verb, count in self.to_coordinator if verb == "return")
        assert self.all_tokens == self.pool + in_flight + account.total

    @invariant()
    def in_bounds(self) -> None:
        account = self.account
        assert min(account.spare, account.held, account.recalled) >= 0
        assert account.offered == self.pipe
        assert account.spare <= 1
        assert account.total == account.spare + account.offered + account.held

    def teardown(self) -> None:
        if not hasattr(self, "account"):
            return
        self._hungry_makes_are_fed()
        self._nothing_is_kept()

    def _settle(self) -> None:
        for _ in range(SETTLED_TICKS):
            while self.to_server:
                self.server_hears()
            while self.to_coordinator:
                self.coordinator_hears()
            while self.pipe and self.appetite > self.account.held:
                self.take()
            if self.waiting and self.pool:
                self.grant()
            self.tick(TICK_S)
            self.conserved()
            self.in_bounds()

    def _hungry_makes_are_fed(self) -> None:
        """With free slots and tokens, and nobody who recalls any, the make gets what it can use."""
        # What was asked back so far goes back before that; then nobody asks any more.
        self.slots = 10
        self.appetite = 0
        while self.account.held:
            self.slots += 1
            self.act(self.account.released(1, self.now))
        self._settle()
        self.appetite = 4
        self._settle()
        assert self.account.held == min(self.appetite, self.all_tokens)

    def _nothing_is_kept(self) -> None:
        """When the make has no use for tokens, all of them go back while time goes on."""
        self.appetite = 0
        while self.account.held:
            self.slots += 1
            self.act(self.account.released(1, self.now))
        for _ in range(SETTLED_TICKS):
            while self.to_server:
                self.server_hears()
            while self.to_coordinator:
                self.coordinator_hears()
            self.tick(TICK_S)
        assert self.account.total == 0
        assert self.pool == self.all_tokens


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
