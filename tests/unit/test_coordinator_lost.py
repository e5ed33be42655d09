"""A lost sub-make: what may be torn is put away, and it is done again, elsewhere and not for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from d1fleet import protocol
from d1fleet.aftermath import may_be_torn
from d1fleet.errors import JobLostError
from d1fleet.job import Job, Phase
from d1fleet.scrub import Scrubbed
from d1fleet.shims import EXIT, INFRASTRUCTURE, SIGNAL
from d1fleet.visibility import Visibility
from tests.support.desk import NAMED, OTHER, STRANGER, Desk, Waiting, desks

Make = Callable[..., Desk]


def gone(attempt: int) -> protocol.Exit:
    return protocol.Exit(attempt, infrastructure=protocol.LOST, text="gone")


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    with desks(tmp_path) as found:
        yield found


def begun(desk: Desk, *hosts: str) -> Job:
    """A job on the first of these hosts."""
    desk.come(hosts[0])
    job = desk.job("-C", "lib")
    assert job.link is desk.link(hosts[0])
    for name in hosts[1:]:
        desk.come(name)
    return job


def answers(job: Job) -> list[tuple[bytes, int]]:
    assert isinstance(job.asker, Waiting)
    return job.asker.answers


def test_it_is_done_again_elsewhere(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    desk = make()
    job = begun(desk, STRANGER, OTHER)
    first = job.attempt
    desk.say(STRANGER, gone(first))
    assert job.phase is Phase.WAITING and answers(job) == []  # not before its files have been seen to
    desk.loop.pass_s(0.1)
    assert desk.aftermath.asked == [job]
    assert job.link is desk.link(OTHER) and job.attempt != first
    desk.say(OTHER, protocol.Exit(job.attempt))
    assert answers(job) == [(EXIT, 0)]
    assert (desk.coordinator.counts.lost, desk.coordinator.counts.again) == (0, 1)
    assert "lost: make -C lib on host mallory: gone; it is done again" in capfd.readouterr().err


def seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is put away is change 9."""
    numbers = [4]

    def look_before(self: Visibility, then: Callable[[], None]) -> None:
        numbers.append(9)
        then()

    monkeypatch.setattr(Visibility, "number", property(lambda self: numbers[-1]))
    monkeypatch.setattr(Visibility, "look_before", look_before)


def test_its_next_host_has_to_see_that_what_was_torn_is_gone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make()
    job = begun(desk, STRANGER, OTHER)
    seen(monkeypatch)
    desk.say(STRANGER, gone(job.attempt))
    desk.loop.pass_s(0.1)
    (run,) = [message for message in desk.heard(OTHER) if isinstance(message, protocol.Run)]
    assert run.sees == 9


def test_an_interrupt_waits_for_nothing_to_be_seen(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up: list[bool] = []
    monkeypatch.setattr(Visibility, "give_up", lambda self: given_up.append(True))
    make().coordinator.interrupt()
    assert given_up


def test_so_has_the_host_that_had_asked_for_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = make()
    parent = desk.begin()
    seen(monkeypatch)
    desk.say(STRANGER, desk.ask(parent, "-C", "lib"))
    (child,) = parent.children
    assert child.sees == 4 and child.link is not None
    desk.heard(STRANGER)
    desk.say(child.link.host.name, gone(child.attempt))
    desk.loop.pass_s(0.1)
    (stay,) = [message for message in desk.heard(STRANGER) if isinstance(message, protocol.Stay)]
    assert stay.sees == 9


def test_a_host_that_has_lost_it_may_have_it_where_it_is_the_only_one(make: Make) -> None:
    desk = make()
    job = begun(desk, STRANGER)
    desk.say(STRANGER, protocol.Exit(job.attempt, infrastructure=protocol.INTERNAL, text="killed"))
    desk.loop.pass_s(0.1)
    assert job.link is desk.link(STRANGER)


def test_no_more_than_three_times(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    desk = make()
    job = begun(desk, STRANGER, OTHER, NAMED)
    for _ in range(3):
        assert job.link is not None
        desk.say(job.link.host.name, gone(job.attempt))
        desk.loop.pass_s(0.1)
    assert answers(job) == [(INFRASTRUCTURE, JobLostError.exit_code)]
    assert len(set(job.lost_on)) == 3
    assert f"it was lost 3 times, on {', '.join(job.lost_on)}" in capfd.readouterr().err
    assert desk.coordinator.counts.lost == 1


def test_not_where_something_torn_stays(make: Make) -> None:
    desk = make()
    desk.aftermath.found = Scrubbed(left={b"/t/a.o": "it is under version control"})
    job = begun(desk, STRANGER, OTHER)
    desk.say(STRANGER, gone(job.attempt))
    desk.loop.pass_s(0.1)
    assert answers(job) == [(INFRASTRUCTURE, JobLostError.exit_code)]


def test_not_when_it_has_read_its_standard_input(make: Make, capfd: pytest.CaptureFixture[str]) -> None:
    desk = make()
    job = begun(desk, STRANGER, OTHER)
    desk.say(STRANGER, protocol.StdinUsed(job.attempt, 1), gone(job.attempt))
    desk.loop.pass_s(0.1)
    assert answers(job) == [(INFRASTRUCTURE, JobLostError.exit_code)]
    assert "standard input, which cannot be given a second time" in capfd.readouterr().err


def test_a_failure_of_make_s_own_is_final(make: Make) -> None:
    desk = make()
    job = begun(desk, STRANGER, OTHER)
    desk.say(STRANGER, protocol.Exit(job.attempt, code=2))
    assert answers(job) == [(EXIT, 2)]
    assert desk.aftermath.asked == []


@pytest.mark.parametrize("same", [True, False])
def test_a_host_that_comes_back_with_nothing_left_is_not_waited_for(make: Make, same: bool) -> None:
    """Its name must not be that of another machine by now."""
    desk = make()
    job = begun(desk, STRANGER, OTHER)
    desk.channels[STRANGER].end()
    desk.loop.pass_s(3.0)
    desk.come(STRANGER, machine=STRANGER if same else "another")
    desk.loop.pass_s(0.1)
    assert job.link is not None and job.phase is Phase.RUNNING and not job.lost_on
    assert desk.coordinator.hosts.unsure == [STRANGER]
    desk.say(STRANGER, protocol.Alone())
    desk.loop.pass_s(0.1)
    if same:
        assert job.lost_on == [STRANGER] and job.link is desk.link(OTHER)
        assert desk.coordinator.hosts.unsure == []
    else:
        assert not job.lost_on and desk.coordinator.hosts.unsure == [STRANGER]


@pytest.mark.parametrize(
    ("end", "answer"),
    [
        (protocol.Exit(signal=9), (SIGNAL, 9)),
        (protocol.Exit(code=2, short="memory"), (EXIT, 2)),
        (protocol.Exit(code=1, short="room"), (EXIT, 1)),
    ],
)
def test_one_that_may_have_torn_something_and_is_not_done_again(
    make: Make, end: protocol.Exit, answer: tuple[bytes, int]
) -> None:
    desk = make()
    job = begun(desk, STRANGER, OTHER)
    desk.say(STRANGER, replace(end, attempt=job.attempt))
    assert answers(job) == []  # whoever waits for it goes on when that is put away
    desk.loop.pass_s(0.1)
    assert answers(job) == [answer]
    assert desk.aftermath.asked == [job]


def test_a_failure_is_the_build_s_own(make: Make) -> None:
    desk = make()
    job = begun(desk, STRANGER, OTHER)
    desk.say(STRANGER, protocol.Exit(job.attempt, code=2))
    assert answers(job) == [(EXIT, 2)]
    assert desk.aftermath.asked == []


@pytest.mark.parametrize("how", ["interrupt", "asker"])
def test_nobody_waits_for_it_by_then(make: Make, how: str) -> None:
    desk = make()
    job = begun(desk, STRANGER, OTHER)
    desk.say(STRANGER, gone(job.attempt))
    if how == "interrupt":
        desk.coordinator.interrupt()
    else:
        desk.coordinator._asker_gone(job)
    desk.loop.pass_s(0.1)
    assert [verb for verb, _ in answers(job)] == [SIGNAL]
    assert job.phase is Phase.OVER
    assert not any(isinstance(each, protocol.Run) for each in desk.heard(OTHER))


def test_one_that_a_host_asked_for_is_done_where_it_was_called(make: Make) -> None:
    desk = make(trust_hosts=True)
    parent = desk.begin()
    ask = desk.ask(parent, "-C", "deep", jobserver=True, environment=b"MAKEFLAGS=j --jobserver-auth=3,4\0")
    desk.say(STRANGER, ask)
    (child,) = parent.children
    assert child.link is not None
    name = child.link.host.name
    desk.heard(STRANGER)
    desk.say(name, gone(child.attempt))
    desk.loop.pass_s(0.1)
    assert any(isinstance(each, protocol.Stay) for each in desk.heard(STRANGER))
    assert parent.children == set()


def test_what_stays_is_a_part_of_what_it_stays_in(make: Make) -> None:
    desk = make(keep_local=["goal=docs"])
    parent = desk.begin()
    desk.say(STRANGER, desk.ask(parent, "docs", environment=b"MAKEFLAGS=k\0A=1\0"))
    own, within = parent.notes
    assert own.argv == [b"make", b"theirs"] and within.argv == [b"make", b"docs"]
    assert within.since_ns == own.since_ns
    assert within.changed == {b"MAKEFLAGS": b"k", b"A": b"1"}
    desk.say(STRANGER, protocol.Exit(parent.attempt))
    assert parent.notes == []


def test_what_was_fenced_counts_as_running_until_its_server_says_so(make: Make) -> None:
    """Processes that were sent SIGKILL may be in the middle of a write."""
    desk = make()
    job = begun(desk, STRANGER, OTHER)
    desk.say(STRANGER, protocol.Exit(job.attempt, infrastructure=protocol.FENCED, text="the lease ran out"))
    desk.loop.pass_s(1.0)
    assert job.link is desk.link(STRANGER) and desk.aftermath.asked == []
    desk.say(STRANGER, protocol.Gone())
    desk.loop.pass_s(0.1)
    assert job.link is desk.link(OTHER)


@pytest.mark.parametrize(
    ("message", "torn"),
    [
        (protocol.Exit(2), False),
        (protocol.Exit(2, code=2), False),
        (protocol.Exit(2, signal=15), False),  # make deletes what it has not finished
        (protocol.Exit(2, signal=9), True),
        (protocol.Exit(2, infrastructure=protocol.REFUSED), False),
        (protocol.Exit(2, infrastructure=protocol.CANCELLED), False),
        (protocol.Exit(2, infrastructure=protocol.LOST), True),
        (protocol.Exit(2, infrastructure=protocol.FENCED), True),
        (protocol.Exit(2, infrastructure=protocol.INTERNAL), True),
    ],
)
def test_after_what_something_may_be_torn(message: protocol.Exit, torn: bool) -> None:
    assert may_be_torn(message) == torn
