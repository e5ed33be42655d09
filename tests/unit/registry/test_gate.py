"""Who asks too often, by a clock that the test has in its hands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from d1fleet.registry.gate import Counters, Gate, TooManyError, party
from d1fleet.registry.limits import Limits

from .memory_store import ALDER, BIRCH, report
from .web import ADMIN, PATIENT, Web, as_json, refusal, web_with


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("what", "most", "window_s"),
    [("failed", 10, 60), ("join", 30, 60), ("sign_in", 5, 60), ("old_client", 20, 60)],
)
def test_so_many_of_one_address(what: str, most: int, window_s: int) -> None:
    clock = Clock()
    gate = Gate(Limits(), clock)
    ask: Callable[[str], None] = getattr(gate, what)
    for _ in range(most):
        ask(ALDER)
    with pytest.raises(TooManyError) as caught:
        ask(ALDER)
    assert caught.value.status == 429 and caught.value.retry_after_s == window_s
    ask(BIRCH)
    # Who goes on asking waits no longer for it.
    for tenth in range(10 * window_s):
        clock.now_s = 1000 + tenth / 10
        with pytest.raises(TooManyError):
            ask(ALDER)
    clock.now_s = 1000 + window_s
    ask(ALDER)


@pytest.mark.parametrize(("what", "most"), [("check_in", 4), ("wait", 8)])
def test_so_many_of_one_host(what: str, most: int) -> None:
    clock = Clock()
    gate = Gate(Limits(), clock)
    ask: Callable[[str], None] = getattr(gate, what)
    for _ in range(most):
        ask("one credential")
    with pytest.raises(TooManyError) as caught:
        ask("one credential")
    assert caught.value.retry_after_s == 1
    ask("another")
    clock.now_s += 1
    ask("one credential")


def test_kinds_are_counted_apart() -> None:
    gate = Gate(replace(Limits(), joins_a_minute=1, sign_ins_a_minute=1), Clock())
    gate.join(ALDER)
    gate.sign_in(ALDER)
    with pytest.raises(TooManyError):
        gate.join(ALDER)


def test_the_socket_of_this_machine_is_not_counted() -> None:
    gate = Gate(replace(Limits(), joins_a_minute=1, failures_a_minute=1), Clock())
    for _ in range(100):
        gate.join("")
        gate.failed("")
    assert len(gate.counters) == 0


def test_one_machine_has_many_addresses() -> None:
    gate = Gate(replace(Limits(), joins_a_minute=2), Clock())
    gate.join("2001:db8::1")
    gate.join("2001:db8::2")
    with pytest.raises(TooManyError):
        gate.join("2001:db8::ffff:1")
    gate.join("2001:db8:0:1::1")
    assert party("192.0.2.1") == "192.0.2.1" != party("192.0.2.2")
    assert party("no address") == "no address"


def test_memory_is_bounded() -> None:
    clock = Clock()
    counters = Counters(clock, most=100)
    for number in range(10_000):
        counters.incr(f"a{number}", 60)
    assert len(counters) == 100
    assert counters.get("a9999") == 1 and counters.get("a0") == 0
    # A window that has ended is no reason to push another one out.
    clock.now_s += 61
    assert counters.incr("a9999", 60) == 1
    assert len(counters) == 100
    assert counters.reset() == 100 and len(counters) == 0


def test_a_credential_is_not_kept() -> None:
    gate = Gate(Limits(), Clock())
    gate.check_in("S" * 8000)
    assert all("SSSS" not in key for key in gate.counters._windows)


LIMITS = replace(
    PATIENT, failures_a_minute=3, joins_a_minute=4, checkins_a_second=2, waits_a_second=2, sign_ins_a_minute=2
)


@web_with(limits=LIMITS)
async def test_over_http(web: Web) -> None:
    alder = await web.host()
    answers = [await alder.beat() for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    error = refusal(answers[2], 429, "rate")
    assert answers[2].headers["retry-after"] == "1" and "1 s" in error["mend"]
    answers = [await alder.wait({}, 1) for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    web.registry.time.now_s += 1
    assert (await alder.beat()).status_code == 200


@web_with(limits=LIMITS)
async def test_guesses(web: Web) -> None:
    """Whoever shows something void is told so three times a minute; what is right is let in all the same."""
    stranger = await web.client(ALDER)
    for _ in range(3):
        refusal(await stranger.get(f"{ADMIN}/hosts", headers={"Authorization": "Bearer x"}), 401, "key")
    answer = await stranger.get(f"{ADMIN}/hosts", headers={"Authorization": "Bearer x"})
    refusal(answer, 429, "rate")
    assert answer.headers["retry-after"] == "60"
    body = {"report": as_json(report()), "known": {}}
    answer = await stranger.post("/api/v1/checkin", json=body, headers={"Authorization": "Bearer x"})
    refusal(answer, 429, "rate")
    # A neighbour, behind the same address.
    alder = await web.host()
    assert (await alder.beat()).status_code == 200
    operator = await web.operator(source=ALDER)
    assert (await operator.get(f"{ADMIN}/hosts")).status_code == 200


@web_with(limits=LIMITS)
async def test_guesses_of_join_tokens(web: Web) -> None:
    stranger = await web.client(ALDER)
    await web.token()
    for number in range(5):
        body = {"token": f"d1j_0000000{number}_" + "A" * 43, "name": "alder", "report": as_json(report())}
        answer = await stranger.post("/api/v1/join", json=body)
        if number < 3:
            refusal(answer, 403, "token")
        else:
            refusal(answer, 429, "rate")
    web.registry.time.now_s += 60
    refusal(await stranger.post("/api/v1/join", json=body), 403, "token")


@web_with(limits=replace(LIMITS, failures_a_minute=100))
async def test_joins(web: Web) -> None:
    stranger = await web.client(ALDER)
    statuses = [(await stranger.post("/api/v1/join", json={})).status_code for _ in range(6)]
    assert statuses == [422] * 4 + [429] * 2
    other = await web.client(BIRCH)
    assert (await other.post("/api/v1/join", json={})).status_code == 422
    local = await web.client(local=True)
    assert {(await local.post("/api/v1/join", json={})).status_code for _ in range(10)} == {422}
