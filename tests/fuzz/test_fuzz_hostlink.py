"""Whatever a host sends, its link ends with an error that people can read, and the build's loop goes on."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from d1fleet import hostlink, protocol
from d1fleet.errors import D1fleetError, ProtocolError, ServerStartError, UnfitError
from d1fleet.hostlink import HostLink, State
from d1fleet.loop import Loop
from d1fleet.model import Host
from d1fleet.protocol import Decoder, Message, encode
from d1fleet.transport import launcher

from .messages import EXAMPLES, broken, mutated
from .peer import same_descriptors

pytestmark = pytest.mark.timeout(300)

GREETING = launcher.MAGIC + b"3.11\n"
HELLO = protocol.Hello(machine="m", hostname="h", slots=4, cpus=4, make="4.3", python="3.11.2")


class FakeChannel:
    """A channel whose host is the test."""

    transport = "test"
    reason = "it is one"

    def __init__(self) -> None:
        self.sent = bytearray()
        self.closed = 0
        self.backlog = 0
        self._on_data: Callable[[bytes], None] | None = None
        self._on_end: Callable[[], None] | None = None

    def start(self, loop: Loop, on_data: Callable[[bytes], None], on_end: Callable[[], None]) -> None:
        self._on_data, self._on_end = on_data, on_end

    def send(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def diagnosis(self) -> str:
        return "exit status 1"

    def close(self) -> None:
        self.closed += 1

    # The host's side

    def say(self, data: bytes) -> None:
        """Bytes from the host; as a real channel, it says nothing once it was closed."""
        if not self.closed and self._on_data is not None:
            self._on_data(data)

    def end(self) -> None:
        if not self.closed and self._on_end is not None:
            self._on_end()


class Watched:
    """A link, its channel, and what it told the coordinator."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.channel = FakeChannel()
        self.told: list[str] = []
        self.messages: list[Message] = []
        self.unfit: D1fleetError | None = None
        """What its hello is answered with."""
        self.link = HostLink(
            self.loop,
            Host(name="h"),
            protocol.Welcome(build="b"),
            self._admit,
            lambda _: self.told.append("up"),
            lambda _, message: self.messages.append(message),
            lambda _: self.told.append("failed"),
            lambda _: self.told.append("lost"),
        )
        self.link.connected(self.channel)

    def _admit(self, link: HostLink) -> None:
        if self.unfit is not None:
            raise self.unfit

    def up(self) -> None:
        self.channel.say(GREETING + b"have\n" + encode(HELLO))
        assert self.told == ["up"]

    def finish(self, *pieces: bytes) -> None:
        """Say these, hang up, and check that all is as it must be then."""
        for piece in pieces:
            self.channel.say(piece)
        self.channel.end()
        link = self.link
        assert not link.open
        assert self.channel.closed == 1
        if link.state is State.ENDED:
            assert isinstance(self.messages[-1], protocol.Gone)
            assert link.error is None
        else:
            assert isinstance(link.error, D1fleetError)
            assert 80 <= link.error.exit_code <= 99
            assert link.error.message.isprintable() or isinstance(link.error, ServerStartError)
            assert "\x1b" not in str(link.error)
        ends = [word for word in self.told if word != "up"]
        assert ends == {State.FAILED: ["failed"], State.LOST: ["lost"], State.ENDED: []}[link.state]
        assert len(self.channel.sent) < 4 << 20
        self.loop.close()


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(marks)]


_CUTS = st.lists(st.integers(0, 1 << 16), max_size=5)


@settings(max_examples=150 * EXAMPLES, deadline=None)
@given(st.binary(max_size=300), _CUTS)
@example(b"", [])
@example(b"\x1b]0;title\x07 no python3: not found\n", [])
@example(launcher.MAGIC, [])
@example(launcher.MAGIC + b"3.8\n", [])
@example(launcher.MAGIC + b"9" * 5000 + b".1\n", [])
@example(launcher.MAGIC + b"\xff.\xff\n", [])
@example(GREETING + b"need\nneed\n", [])
@example(GREETING + b"bad \x1b[31mred\n", [])
@example(GREETING + b"bad \xff\xfe\n", [])
@example(GREETING + b"have", [])
def test_start_talk(data: bytes, cuts: list[int]) -> None:
    with same_descriptors():
        watched = Watched()
        watched.finish(*_pieces(data, cuts))
        assert watched.told == ["failed"]


@settings(max_examples=100 * EXAMPLES, deadline=None)
@given(mutated(st.just(b"motd\n" + GREETING + b"need\nhave\n" + encode(HELLO))), _CUTS)
def test_mutated_start_talk(data: bytes, cuts: list[int]) -> None:
    with same_descriptors():
        Watched().finish(*_pieces(data, cuts))


@settings(max_examples=100 * EXAMPLES, deadline=None)
@given(st.binary(max_size=200), _CUTS)
def test_random_bytes_behind_hello(data: bytes, cuts: list[int]) -> None:
    with same_descriptors():
        watched = Watched()
        watched.up()
        watched.finish(*_pieces(data, cuts))


_SERVERS = st.one_of(
    [
        broken(cls, {"version": protocol.VERSION}, {})
        for cls in protocol.KINDS.values()
        if cls.SENDER != "coordinator"
    ]
)


@settings(max_examples=150 * EXAMPLES, deadline=None)
@given(st.lists(_SERVERS, max_size=5), st.booleans(), _CUTS)
def test_broken_messages(messages: list[Message], hello: bool, cuts: list[int]) -> None:
    with same_descriptors():
        watched = Watched()
        watched.channel.say(GREETING + b"have\n" + (encode(HELLO) if hello else b""))
        watched.finish(*_pieces(b"".join(map(encode, messages)), cuts))


SESSION = b"".join(
    map(
        encode,
        [
            protocol.TreeChecked(tree=0),
            protocol.Beat(seq=1, others_cpus=0.5),
            protocol.Data(2, 1, False, b"output"),
            protocol.Want(2, 1),
            protocol.Return(2, 1),
            protocol.StdinUsed(2, 3),
            protocol.Close(2, 0),
            protocol.Exit(2, code=2, text="words"),
            protocol.FencedLate(attempts=[2], late_s=1.5),
            protocol.Gone(left=1),
        ],
    )
)


@settings(max_examples=150 * EXAMPLES, deadline=None)
@given(mutated(st.just(SESSION)), _CUTS)
def test_mutated_session(data: bytes, cuts: list[int]) -> None:
    with same_descriptors():
        watched = Watched()
        watched.up()
        watched.finish(*_pieces(data, cuts))


def test_the_whole_session() -> None:
    watched = Watched()
    watched.up()
    watched.finish(SESSION)
    assert watched.link.state is State.ENDED
    assert len(watched.messages) == 10
    assert watched.link.load is not None and watched.link.load.others_cpus == 0.5


REFUSED: dict[str, bytes] = {
    "data before hello": encode(protocol.Data(2, 1, False, b"x")),
    "gone before hello": encode(protocol.Gone()),
    "second hello": encode(HELLO) + encode(HELLO),
    "coordinator's message": encode(HELLO) + encode(protocol.Bye()),
    "standard input": encode(HELLO) + encode(protocol.Data(2, 0, False, b"x")),
    "credit for output": encode(HELLO) + encode(protocol.Credit(2, 1, 5)),
    "a job": encode(HELLO) + encode(protocol.Run(3, argv=b"make\0")),
    "unknown kind": encode(HELLO) + b"\0\0\0\0\xee\0\0\0\0",
    "too long": encode(HELLO) + b"\x7f\0\0\0\x06\0\0\0\0",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_what_the_protocol_does_not_allow(data: bytes) -> None:
    watched = Watched()
    watched.channel.say(GREETING + b"have\n" + data)
    assert watched.channel.closed == 1
    watched.finish()
    assert type(watched.link.error) is ProtocolError
    assert "its server sent what the protocol does not allow" in watched.link.error.message


def test_another_version() -> None:
    watched = Watched()
    watched.channel.say(GREETING + b"have\n" + encode(protocol.Hello(version=1)))
    watched.finish()
    assert type(watched.link.error) is UnfitError
    assert watched.told == ["failed"]


def test_unfit_words_have_no_control_characters() -> None:
    watched = Watched()
    watched.channel.say(GREETING + b"have\n" + encode(protocol.Unfit(reason="a\x1b[2Jb\r\n", mend="c\x07")))
    watched.finish()
    assert watched.link.error is not None
    assert (watched.link.error.message, watched.link.error.mend) == ("a?[2Jb??", "c?")


def test_a_login_that_prints_without_end() -> None:
    watched = Watched()
    for _ in range(64):
        watched.channel.say(b"y" * (32 << 10))
    assert watched.channel.closed == 1
    watched.finish()
    assert type(watched.link.error) is ServerStartError


def test_an_answer_without_end() -> None:
    watched = Watched()
    watched.channel.say(GREETING)
    for _ in range(64):
        watched.channel.say(b"y" * (32 << 10))
    assert watched.channel.closed == 1
    watched.finish()


def test_the_archive_goes_out_once() -> None:
    watched = Watched()
    watched.channel.say(GREETING + b"need\n")
    assert bytes(watched.channel.sent).count(launcher.server_archive()) == 1
    watched.channel.say(b"need\n" * 1000)
    assert watched.channel.closed == 1
    assert bytes(watched.channel.sent).count(launcher.server_archive()) == 1
    watched.finish()


def test_what_the_coordinator_says_first() -> None:
    watched = Watched()
    watched.channel.say(b"noise" + GREETING)
    assert watched.channel.sent.startswith(b"exec(") and watched.channel.sent.count(b"\n") == 1
    watched.channel.sent.clear()
    watched.channel.say(b"need\n")
    archive = launcher.server_archive()
    assert bytes(watched.channel.sent) == b"%d\n" % len(archive) + archive
    watched.channel.sent.clear()
    watched.channel.say(b"have\n")
    assert list(Decoder("coordinator").feed(bytes(watched.channel.sent))) == [protocol.Welcome(build="b")]
    watched.finish()


def test_beats_are_granted_by_number() -> None:
    watched = Watched()
    watched.up()
    watched.channel.sent.clear()
    watched.channel.say(encode(protocol.Beat(seq=41)) + encode(protocol.Beat(seq=42)))
    granted = list(Decoder("coordinator").feed(bytes(watched.channel.sent)))
    assert granted == [protocol.Grant(seq=41), protocol.Grant(seq=42)]
    watched.finish()


def test_no_hello_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostlink, "START_LIMIT_S", 0.01)
    watched = Watched()
    watched.channel.say(b"Last login: today\n")
    while watched.link.open:
        watched.loop.run_once()
    watched.finish()
    assert watched.link.error is not None and "no hello within" in watched.link.error.message
    assert "Last login: today" in watched.link.error.message


def test_silence() -> None:
    watched = Watched()
    watched.up()
    now = watched.link.last_heard
    watched.link.check_silence(now + 5, 5.0)
    assert watched.link.open
    watched.link.check_silence(now + 5.1, 5.0)
    assert watched.told == ["up", "lost"]
    watched.finish()
