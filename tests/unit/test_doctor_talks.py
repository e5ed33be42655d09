"""A doctor's talk with one host, whatever that says. Both sides together are tried in tests/doctor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from d1fleet import doctor_talks, protocol
from d1fleet.doctor_facts import Facts, Fresh
from d1fleet.doctor_talks import Clock, Talk, wait
from d1fleet.errors import D1fleetError, HostError, ProtocolError, ServerStartError, UnfitError
from d1fleet.loop import Loop
from d1fleet.model import Host
from d1fleet.protocol import Decoder, Examine, Examined, encode
from tests.fuzz.test_fuzz_hostlink import GREETING, FakeChannel
from tests.support.patients import healthy


class Sick:
    """A talk, and a host that is the test."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.channel = FakeChannel()
        self.talk = Talk(self.loop, Host("alder"), b"", "")
        self.ready = 0
        self.failed = 0
        self.talk.on_ready = self._ready
        self.talk.on_failed = self._failed
        self.answers: list[object] = []
        self.talk.connected(self.channel)

    def _ready(self) -> None:
        self.ready += 1

    def _failed(self) -> None:
        self.failed += 1

    def starts(self) -> None:
        self.channel.say(GREETING + b"have\n")
        self.loop.run_once(0.0)

    def ask(self) -> None:
        self.talk.ask("tree", Fresh, {"nonce": "n"}, 1.0, self.answers.append)

    def says(self, *messages: protocol.Message) -> None:
        self.channel.say(b"".join(map(encode, messages)))


@pytest.fixture
def sick() -> Iterator[Sick]:
    sick = Sick()
    yield sick
    sick.loop.close()


def test_a_question_and_its_answer(sick: Sick) -> None:
    sick.starts()
    assert (sick.ready, sick.failed) == (1, 0)
    sick.ask()
    (question,) = Decoder("coordinator").feed(bytes(sick.channel.sent).split(b"\n", 1)[1])
    assert isinstance(question, Examine) and question.question == "tree"
    assert json.loads(question.given) == {"nonce": "n"}
    sick.says(Examined(number=question.number, answer=b'{"made_s": 0.5, "grown_s": null}'))
    assert sick.answers == [Fresh(0.5, None)] and sick.talk.error is None


def test_the_clock(sick: Sick, monkeypatch: pytest.MonkeyPatch) -> None:
    sick.starts()
    monkeypatch.setattr("time.time", lambda: 1000.0)
    found: list[Clock | D1fleetError] = []
    sick.talk.ask_clock(found.append)
    sick.says(Examined(number=1, at_s=1003.0))
    (clock,) = found
    assert isinstance(clock, Clock)
    assert abs(clock.offset_s - 3.0) < 0.1 and 0 <= clock.within_s < 0.1


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (Examined(number=1, answer=b'{"made_s": "soon"}'), ProtocolError, "makes no sense: Fresh"),
        (Examined(number=1, answer=b"\xff{"), ProtocolError, "is no JSON"),
        (Examined(number=1, failure="it broke\x1b"), HostError, "cannot tell \\(tree\\): it broke\\?"),
    ],
)
def test_answers_that_are_none(sick: Sick, answer: Examined, kind: type[Exception], says: str) -> None:
    """They are the question's, and the talk goes on."""
    sick.starts()
    sick.ask()
    sick.says(answer)
    (error,) = sick.answers
    assert isinstance(error, kind)
    with pytest.raises(kind, match=says):
        raise error
    assert sick.talk.error is None


@pytest.mark.parametrize(
    ("message", "kind", "says"),
    [
        (Examined(number=9), ProtocolError, "Examined that nobody has asked for"),
        (protocol.Hello(), ProtocolError, "Hello that nobody"),
        (protocol.Unfit(reason="no room\x1b"), UnfitError, "no room\\?"),
    ],
)
def test_messages_that_end_the_talk(
    sick: Sick, message: protocol.Message, kind: type[Exception], says: str
) -> None:
    sick.starts()
    sick.ask()
    sick.says(message)
    assert isinstance(sick.talk.error, kind) and sick.answers == [sick.talk.error]
    with pytest.raises(kind, match=says):
        raise sick.talk.error
    assert sick.channel.closed == 1 and sick.failed == 1
    sick.ask()
    sick.loop.run_once(0.0)
    assert sick.answers == [sick.talk.error] * 2


def test_bytes_that_are_no_protocol(sick: Sick) -> None:
    sick.starts()
    sick.channel.say(b"\xff" * 100)
    assert isinstance(sick.talk.error, ProtocolError)


def test_an_answer_that_is_too_long(sick: Sick) -> None:
    sick.starts()
    sick.ask()
    sick.says(Examined(number=1, answer=b" " * (protocol.MOST_EXAMINED + 1)))
    assert isinstance(sick.talk.error, ProtocolError) and len(sick.answers) == 1


def test_one_that_hangs_up(sick: Sick) -> None:
    sick.channel.end()
    assert isinstance(sick.talk.error, ServerStartError) and sick.failed == 1


def test_one_that_hangs_up_later(sick: Sick) -> None:
    sick.starts()
    sick.ask()
    sick.channel.end()
    assert isinstance(sick.talk.error, HostError) and len(sick.answers) == 1


def test_one_that_never_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_talks, "START_LIMIT_S", 0.1)
    sick = Sick()
    assert wait(sick.loop, lambda: sick.talk.error is not None, 5)
    assert isinstance(sick.talk.error, ServerStartError) and sick.failed == 1
    sick.loop.close()


def test_one_that_never_answers(sick: Sick, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_talks, "_LATE_S", 0.1)
    sick.starts()
    sick.talk.ask("facts", Facts, {}, 0.1, sick.answers.append)
    assert wait(sick.loop, lambda: bool(sick.answers), 5)
    (error,) = sick.answers
    assert isinstance(error, HostError) and "no answer within" in str(error)


def test_facts_go_all_the_way(sick: Sick) -> None:
    sick.starts()
    sick.talk.ask("facts", Facts, {}, 1.0, sick.answers.append)
    told = asdict(healthy("alder").facts)  # type: ignore[arg-type]
    sick.says(Examined(number=1, answer=json.dumps(told).encode()))
    assert sick.answers == [healthy("alder").facts]


def test_to_wait_has_a_limit() -> None:
    loop = Loop()
    assert not wait(loop, lambda: False, 0.05)
    loop.close()
