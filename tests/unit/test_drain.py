"""`d1fleet drain` and a host. The server has server/test_drain.py, both together trouble/test_comings.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from d1fleet import protocol
from d1fleet.drain import drain, host_of
from d1fleet.errors import HostError, ProtocolError, ServerStartError, UnfitError, UnknownProjectError
from d1fleet.fleet import Fleet
from d1fleet.loop import Loop
from d1fleet.model import Host
from d1fleet.protocol import Decoder, Drain, Message, encode
from tests.fuzz.test_fuzz_hostlink import GREETING, FakeChannel

HOST = Host("alder")


class Answering(FakeChannel):
    """A host whose server answers so; without answers it hangs up."""

    def __init__(self, *answers: Message) -> None:
        super().__init__()
        self.answers = answers
        self.asked: list[Message] = []

    def start(self, loop: Loop, on_data: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        super().start(loop, on_data, on_end)
        loop.post(lambda: self.say(GREETING + b"have\n"))
        loop.post(self._answer)

    def _answer(self) -> None:
        question = bytes(self.sent).split(b"\n", 1)[1]
        self.asked = list(Decoder("coordinator").feed(question))
        self.say(b"".join(map(encode, self.answers)))
        if not self.answers:
            self.end()


def test_it_asks_and_tells_who_asks() -> None:
    channel = Answering(Drain(on=True, reason="as said"))
    answer = drain(HOST, lambda host: channel, "new kernel")
    assert answer == Drain(on=True, reason="as said")
    (question,) = channel.asked
    assert isinstance(question, Drain) and question.on
    assert question.reason.startswith("drained by ") and question.reason.endswith(": new kernel")
    assert channel.closed == 1


def test_undo() -> None:
    channel = Answering(Drain(on=False))
    assert not drain(HOST, lambda host: channel, "", undo=True).on
    assert channel.asked == [Drain(on=False)]


def test_what_others_have_drained_is_theirs() -> None:
    channel = Answering(Drain(on=True, reason="by root\x1b[2J", everybody=True))
    with pytest.raises(HostError, match="still drained for everybody: by root\\?\\[2J") as caught:
        drain(HOST, lambda host: channel, "", undo=True)
    assert "rm /run/d1fleet/drain/drained" in caught.value.mend


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        ((protocol.Unfit(reason="no room\x1b", mend="make some"),), UnfitError, "no room\\?"),
        ((protocol.Hello(),), ProtocolError, "answered Hello instead of Drain"),
        ((), ServerStartError, "exit status 1"),
    ],
)
def test_other_answers(answers: tuple[Message, ...], kind: type[Exception], words: str) -> None:
    channel = Answering(*answers)
    with pytest.raises(kind, match=words):
        drain(HOST, lambda host: channel, "")
    assert channel.closed == 1


def test_which_host() -> None:
    fleet = Fleet("test", (HOST, Host("birch")))
    assert host_of(fleet, "alder") is HOST
    with pytest.raises(UnknownProjectError, match="project test has no host brich") as caught:
        host_of(fleet, "brich")
    assert caught.value.mend == "did you mean birch? its hosts: alder, birch"
