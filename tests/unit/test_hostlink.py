"""The coordinator's end of a host, from connecting to its end; tests/fuzz has what hosts may send."""

from __future__ import annotations

import pytest

from d1fleet import protocol
from d1fleet.errors import ConnectError, HostError, ProtocolError, ServerStartError, UnfitError
from d1fleet.hostlink import HostLink, State
from d1fleet.protocol import Decoder, encode
from tests.fuzz.test_fuzz_hostlink import GREETING, HELLO, FakeChannel, Watched


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_states_on_the_way(watched: Watched) -> None:
    link = watched.link
    assert (link.state, link.open) == (State.STARTING, True)
    watched.up()
    assert (link.state, link.open) == (State.UP, True)
    assert link.hello == HELLO
    watched.channel.say(encode(protocol.Gone(left=2)))
    assert (link.state, link.open) == (State.ENDED, False)
    assert link.gone == protocol.Gone(left=2)
    watched.finish()


def test_a_login_that_comes_too_late_is_closed(watched: Watched) -> None:
    watched.link.fail(ConnectError("the build has ended"))
    late = FakeChannel()
    watched.link.connected(late)
    assert late.closed == 1
    watched.finish()
    assert watched.told == ["failed"]


def test_only_the_first_failure_counts(watched: Watched) -> None:
    watched.link.fail(ConnectError("first"))
    watched.link.fail(ConnectError("second"))
    assert watched.link.error is not None and watched.link.error.message == "first"
    assert watched.told == ["failed"]
    watched.finish()


def test_the_end_before_the_start_talk_names_what_it_printed(watched: Watched) -> None:
    watched.channel.say(b"exec: python3: not found\n")
    watched.finish()
    error = watched.link.error
    assert type(error) is ServerStartError
    assert "there is no python3 on the host" in error.message
    assert "install python3" in error.mend


def test_the_end_of_a_host_that_was_up(watched: Watched) -> None:
    watched.up()
    watched.finish()
    assert type(watched.link.error) is HostError
    assert "the connection ended (exit status 1)" in watched.link.error.message
    assert watched.link.state is State.LOST
    assert watched.told == ["up", "lost"]


def test_a_host_that_is_not_admitted_never_was_up(watched: Watched) -> None:
    watched.unfit = UnfitError("another compiler", "install ours")
    watched.channel.say(GREETING + b"have\n" + encode(HELLO) + encode(protocol.Beat(seq=1)))
    assert watched.link.error is watched.unfit
    assert (watched.link.state, watched.told, watched.messages) == (State.FAILED, ["failed"], [])
    assert watched.link.hello == HELLO  # for the record
    watched.finish()


def test_at_work_until_the_end_is_told(watched: Watched) -> None:
    watched.up()
    found = [watched.link.at_work]
    watched.link.send(protocol.Run(2))
    found.append(watched.link.at_work)
    watched.channel.say(encode(protocol.Exit(2)))
    assert [*found, watched.link.at_work] == [False, True, False]
    watched.finish()


def test_nothing_is_sent_to_a_host_that_is_gone(watched: Watched) -> None:
    watched.up()
    watched.channel.end()
    size = len(watched.channel.sent)
    watched.link.send(protocol.Bye())
    assert len(watched.channel.sent) == size
    assert watched.link.backlog == 0
    watched.finish()


def test_backlog_is_the_channels(watched: Watched) -> None:
    watched.up()
    watched.channel.backlog = 12345
    assert watched.link.backlog == 12345
    watched.finish()


def test_messages_in_order_and_none_behind_a_failure(watched: Watched) -> None:
    watched.up()
    first, second = protocol.Data(2, 1, False, b"a"), protocol.Exit(2, code=1)
    watched.channel.say(encode(first) + encode(second) + encode(HELLO) + encode(first))
    assert watched.messages == [first, second]
    assert type(watched.link.error) is ProtocolError
    watched.finish()


def test_a_callback_that_gives_the_host_up_hears_no_more(watched: Watched) -> None:
    watched.up()

    def hear(link: HostLink, message: protocol.Message) -> None:
        watched.messages.append(message)
        link.fail(HostError("enough"))

    watched.link._on_message = hear
    watched.channel.say(encode(protocol.Data(2, 1, False, b"a")) * 3)
    assert len(watched.messages) == 1
    watched.finish()


def test_frames_that_come_with_the_last_line_of_the_start_talk(watched: Watched) -> None:
    beat = protocol.Beat(seq=1)
    watched.channel.say(GREETING + b"have\n" + encode(HELLO) + encode(beat))
    assert watched.messages == [beat]
    assert watched.link.load == beat
    sent = bytes(watched.channel.sent).split(b"\n", 1)[1]
    assert list(Decoder("coordinator").feed(sent)) == [protocol.Welcome(build="b"), protocol.Grant(seq=1)]
    watched.finish()


def given(watched: Watched) -> None:
    """The host is up and has a job."""
    watched.up()
    watched.link.send(protocol.Run(2))


def until(watched: Watched) -> float:
    """How long after its last lease the host is waited for, at a time when it was given up."""
    return watched.link.runs_until(0.0, grace_s=3.0) - watched.link._granted_at


def test_a_lost_host_runs_until_its_lease_and_the_grace_are_over(watched: Watched) -> None:
    given(watched)
    watched.channel.say(encode(protocol.Beat(seq=1)))
    assert watched.link.runs_until(5.0, 3.0) == 5.0  # it is there still
    watched.finish()
    assert until(watched) == protocol.Welcome().lease_s + 3.0
    late = watched.link._granted_at + 1000.0
    assert watched.link.runs_until(late, 3.0) == late


def test_a_lost_host_that_has_told_the_end_of_all_runs_nothing(watched: Watched) -> None:
    given(watched)
    watched.channel.say(encode(protocol.Exit(2)))
    watched.finish()
    assert watched.link.runs_until(5.0, 3.0) == 5.0


def test_what_outlived_its_job_runs_on_with_a_lost_host(watched: Watched) -> None:
    given(watched)
    watched.channel.say(encode(protocol.Exit(2, left=1)))
    watched.finish()
    assert until(watched) == protocol.Welcome().lease_s + 3.0
