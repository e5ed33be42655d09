"""A host of the fleet that means ill: nothing that it says runs anything on the machine where the build was
started, nor holds the build up, nor fills memory or the terminal.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from d1fleet import hostlink, protocol
from d1fleet.errors import ProtocolError
from d1fleet.jobserver import TokenPool
from d1fleet.model import Host
from d1fleet.protocol import Message
from d1fleet.server.facts import machine_identity
from d1fleet.shims import EXIT
from tests.fuzz.test_fuzz_hostlink import GREETING, FakeChannel
from tests.support.desk import HERE, HOSTS, NAMED, OTHER, OURS, STRANGER, Desk, Waiting

pytestmark = pytest.mark.timeout(60)

EVIL = [
    ["--eval=$(shell touch /tmp/evil)", "all"],
    ["-f", "/dev/fd/0"],
    ["-C", "/", "install"],
    ["-C", "../../..", "SHELL=/tmp/evil"],
    ["MAKEFLAGS=--eval=x"],
    ["-I/tmp", "-j1000000000"],
    ["-n"],
    ["--", "-C", "/root"],
]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    found = Desk(tmp_path)
    yield found
    found.close()


def given_up(desk: Desk) -> str:
    """Why the stranger is no longer listened to; empty when it is."""
    link = desk.link(STRANGER)
    if link.open:
        return ""
    assert isinstance(link.error, ProtocolError)
    return link.error.message


def goes_on(desk: Desk) -> None:
    """The build does: a host takes a sub-make and ends it."""
    job = desk.job("ours")
    assert job.link is not None and job.link.open
    desk.say(job.link.host.name, protocol.Exit(job.attempt, code=3))
    assert isinstance(job.asker, Waiting)
    assert job.asker.answers == [(EXIT, 3)]


# -- the machine where the build was started ------------------------------------------------------------


@pytest.mark.parametrize("arguments", EVIL)
def test_commands_for_our_machine(desk: Desk, arguments: list[str]) -> None:
    """Neither the local make gets them, nor a host of the inventory that is this machine, by any name."""
    parent = desk.begin()
    desk.channels[OTHER].end()  # no host is left but those
    asks = [desk.ask(parent, *arguments) for _ in range(20)]
    desk.say(STRANGER, *asks)
    answers = desk.heard(STRANGER)
    assert all(isinstance(answer, protocol.Stay) for answer in answers)
    assert [answer.attempt for answer in answers] == [ask.attempt for ask in asks]
    for name in OURS:
        assert not any(isinstance(message, protocol.Run) for message in desk.heard(name))
    assert not desk.coordinator.counts.here
    assert isinstance(parent.asker, Waiting) and not parent.asker.answers


@pytest.mark.parametrize(("said", "slots"), [(None, 3), (4, 4)])
def test_it_says_that_it_is_this_very_machine(tmp_path: Path, said: int | None, slots: int) -> None:
    """How much runs here is ours to say; the inventory is ours, too."""
    desk = Desk(tmp_path, [Host(STRANGER, slots=said)], local_slots=3)
    try:
        desk.come(STRANGER, slots=60000, machine=machine_identity())
        assert desk.coordinator._here.slots == slots
    finally:
        desk.close()


def test_run_times_that_cannot_be(desk: Desk) -> None:
    """It has had the job for no time at all."""
    parent = desk.begin()
    desk.channels[OTHER].end()
    ask = desk.ask(parent, "g")
    desk.say(STRANGER, ask, protocol.Stayed(ask.attempt, 9e14), protocol.Exit(parent.attempt, ran_s=9e14))
    known = desk.coordinator._experience._history.new_jobs.values()
    assert all(each.seconds < 1.0 for each in known)
    assert not given_up(desk)


def test_what_it_says_of_run_times_is_not_kept_without_end(desk: Desk) -> None:
    """It may ask for ever, and say or not say how long what stayed took."""
    parent = desk.begin()
    desk.channels[OTHER].end()
    for number in range(3000):
        ask = desk.ask(parent, f"g{number}")
        desk.say(STRANGER, ask, *([protocol.Stayed(ask.attempt, 1e9)] if number % 3 == 0 else []))
    assert len(desk.link(STRANGER)._stayed) <= 1000
    desk.say(STRANGER, protocol.Stayed(999_999, 1.0), protocol.Stayed(2, 1.0))
    assert not given_up(desk)


def test_other_machines_may_have_them(desk: Desk) -> None:
    """Hosts of a project run each other's code: that one machine is left out, not all."""
    parent = desk.begin()
    desk.say(STRANGER, *(desk.ask(parent, f"g{number}") for number in range(20)))
    runs = [message for message in desk.heard(OTHER) if isinstance(message, protocol.Run)]
    assert len(runs) == 4
    for name in OURS:
        assert desk.heard(name) == []


@pytest.mark.parametrize("trusted", [False, True])
def test_the_user_may_allow_it(tmp_path: Path, trusted: bool) -> None:
    desk = Desk(tmp_path, trust_hosts=trusted)
    try:
        parent = desk.begin()
        desk.say(STRANGER, *(desk.ask(parent, f"g{number}") for number in range(20)))
        ran = {
            name
            for name in (HERE, NAMED, OTHER)
            if any(isinstance(m, protocol.Run) for m in desk.heard(name))
        }
        assert OTHER in ran
        assert bool(ran & OURS) == trusted
    finally:
        desk.close()


def test_who_answers_at_a_loopback_address_may_be_anybody(tmp_path: Path) -> None:
    """It can be the end of a tunnel: nothing may come from it, and nothing go to it."""
    hosts = [Host(STRANGER, address="127.0.0.1", port=2222, slots=1), *HOSTS[1:]]
    desk = Desk(tmp_path, [*hosts[:2], Host(HERE, transport="local"), Host(NAMED, address="127.0.0.7")])
    try:
        parent = desk.begin()
        desk.say(STRANGER, *(desk.ask(parent, f"g{number}") for number in range(20)))
        assert not any(desk.heard(name) for name in OURS)
        assert desk.heard(OTHER)
    finally:
        desk.close()


def test_a_host_that_says_it_were_ours(desk: Desk) -> None:
    """It takes our machine's identity: its jobs run nowhere here for that."""
    desk.come(STRANGER, slots=1, machine=machine_identity())
    parent = desk.job("theirs")
    for name in (OTHER, HERE, NAMED):
        desk.come(name)
    desk.say(STRANGER, *(desk.ask(parent, f"g{number}") for number in range(20)))
    assert not any(desk.heard(name) for name in OURS)


# -- paths -----------------------------------------------------------------------------------------------


def outside(desk: Desk) -> list[bytes]:
    inside = desk.tree
    root = next(iter(desk.coordinator.hosts._proofs._roots))
    found = [
        inside + b"/../../../etc",
        inside + b"/..",
        b"/..",
        b"/net/evil.example/x/../..",
        b"/proc/../etc",
    ]
    if root != b"/":
        found += [b"/", b"/net/evil.example/export", root + b"x", b"/proc/self/root" + inside]
    return found


def test_paths_outside_the_tree_are_not_even_looked_at(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at an automounted path mounts it."""
    parent = desk.begin()
    seen: list[Any] = []

    def spied(real: Callable[..., Any]) -> Callable[..., Any]:
        def spy(path: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(path)
            return real(path, *args, **kwargs)

        return spy

    for name in ("stat", "lstat", "open", "listdir", "scandir", "readlink", "access"):
        monkeypatch.setattr(os, name, spied(getattr(os, name)))
    folders = outside(desk)
    inside = desk.tree + b"/net/evil"
    asks = [desk.ask(parent, folder=folder) for folder in folders]
    desk.say(STRANGER, *asks, desk.ask(parent, folder=inside))
    monkeypatch.undo()
    answers = desk.heard(STRANGER)
    assert answers[: len(asks)] == [protocol.Stay(ask.attempt) for ask in asks]
    assert [message.folder for message in desk.heard(OTHER) if isinstance(message, protocol.Run)] == [inside]
    assert not [path for path in seen if os.fsencode(path) in (*folders, inside)]
    assert set(desk.reasons()) == {"its folder is outside the tree that hosts share"}


@pytest.mark.parametrize("folder", [b"", b".", b"tree", b"/x\0/y"])
def test_what_is_no_path(desk: Desk, folder: bytes) -> None:
    parent = desk.begin()
    desk.say(STRANGER, desk.ask(parent, folder=folder))
    assert "folder is malformed" in given_up(desk)
    goes_on(desk)


# -- who is whose ----------------------------------------------------------------------------------------


def test_parents_that_are_not_its_own(desk: Desk) -> None:
    desk.begin()
    other = desk.job("other")
    assert other.link is not desk.link(STRANGER)
    asks = [desk.ask(parent) for parent in (other, 0, 1, 999, (1 << 64) - 1)]
    desk.say(STRANGER, *asks)
    assert desk.heard(STRANGER) == [protocol.Stay(ask.attempt) for ask in asks]
    assert not given_up(desk)
    goes_on(desk)


def test_parents_that_have_ended(desk: Desk) -> None:
    parent = desk.begin()
    desk.say(STRANGER, protocol.Exit(parent.attempt), ask := desk.ask(parent))
    assert protocol.Stay(ask.attempt) in desk.heard(STRANGER)
    goes_on(desk)


@pytest.mark.parametrize("number", [0, 2, 4, (1 << 32) - 2])
def test_numbers_that_are_not_a_hosts(desk: Desk, number: int) -> None:
    parent = desk.begin()
    desk.say(STRANGER, desk.ask(parent, attempt=number))
    assert f"a request with the number {number}" in given_up(desk)
    goes_on(desk)


def test_numbers_in_use(desk: Desk) -> None:
    parent = desk.begin()
    desk.say(STRANGER, desk.ask(parent, attempt=7), desk.ask(parent, attempt=7))
    assert "a request with the number 7" in given_up(desk)
    runs = [message for message in desk.heard(OTHER) if isinstance(message, (protocol.Run, protocol.Cancel))]
    assert [type(message) for message in runs] == [protocol.Run, protocol.Cancel]


def strange(number: int) -> list[Message]:
    return [
        protocol.Exit(number),
        protocol.Want(number, 60000),
        protocol.Return(number, 60000),
        protocol.Credited(number, 60000),
        protocol.StdinUsed(number, 1 << 60),
        protocol.Signal(number, 9),
        protocol.Cancel(number, kill=True),
        protocol.Data(number, 0 if number & 1 else 1, False, b"x" * 70000),
        protocol.Credit(number, 1 if number & 1 else 0, 1 << 60),
        protocol.Close(number, 0),
    ]


def test_words_about_what_is_not_its_own(desk: Desk) -> None:
    """Another host's job, another host's request, and ones that never were."""
    parent = desk.begin()
    desk.say(STRANGER, desk.ask(parent, attempt=101))
    nested = next(job for job in desk.coordinator._jobs.values() if job.parent is parent)
    other = desk.job("other")
    assert other.link is not None
    for name in (OTHER, HERE, NAMED):
        desk.heard(name)
    free = {machine: machine.free for machine in desk.coordinator._machines.values()}
    for number in (other.attempt, nested.attempt, 998, 0, 99, (1 << 32) - 1):
        desk.say(STRANGER, *strange(number))
    desk.say(OTHER, *strange(101))  # the stranger's, named by another host
    assert not given_up(desk) and desk.link(OTHER).open
    assert not any(desk.heard(name) for name in (OTHER, HERE, NAMED))
    assert isinstance(other.asker, Waiting) and (other.asker.answers, other.asker.written) == ([], 0)
    assert {machine: machine.free for machine in desk.coordinator._machines.values()} == free
    assert {parent, nested, other} <= set(desk.coordinator._jobs.values())


# -- floods ----------------------------------------------------------------------------------------------


def test_no_more_than_a_thousand_requests_of_one_host(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    try:
        desk.come(STRANGER, slots=1)
        parent = desk.job("theirs")
        desk.come(OTHER, slots=5000)
        desk.heard(STRANGER)
        desk.say(STRANGER, *(desk.ask(parent, f"g{number}") for number in range(1200)))
        answers = [type(message) for message in desk.heard(STRANGER)]
        assert (answers.count(protocol.Placed), answers.count(protocol.Stay)) == (1000, 200)
        assert desk.reasons() == ["1000 others that its host asked for run elsewhere"] * 200
        assert len(desk.coordinator._jobs) == 1001
        for job in list(parent.children)[:10]:
            desk.say(OTHER, protocol.Exit(job.attempt))
        desk.heard(STRANGER)
        desk.say(STRANGER, desk.ask(parent, "more"))
        assert [type(message) for message in desk.heard(STRANGER)] == [protocol.Placed]
        desk.channels[STRANGER].end()
        assert sum(isinstance(message, protocol.Cancel) for message in desk.heard(OTHER)) == 991
    finally:
        desk.close()


def test_answers_that_it_does_not_read(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostlink, "_MOST_UNREAD", 1 << 16)
    parent = desk.begin()
    desk.say(STRANGER, *(desk.ask(parent, "-n") for _ in range(1000)))  # it reads these
    channel = desk.channels[STRANGER]
    channel.backlog = 1
    while not given_up(desk):
        assert len(channel.sent) < 1 << 17
        desk.say(STRANGER, *(desk.ask(parent, "-n") for _ in range(1000)))
    assert "does not read the answers" in given_up(desk)
    assert len(desk.coordinator._jobs) == 1
    goes_on(desk)


@pytest.mark.parametrize("stdin", [True, False])
def test_input_beyond_what_the_job_takes(desk: Desk, stdin: bool) -> None:
    parent = desk.begin()
    desk.say(STRANGER, ask := desk.ask(parent, stdin=stdin))
    (run,) = (message for message in desk.heard(OTHER) if isinstance(message, protocol.Run))
    part = protocol.Data(ask.attempt, protocol.STDIN, False, b"x" * 65536)
    desk.say(STRANGER, part)
    assert not given_up(desk)
    desk.say(OTHER, protocol.StdinUsed(run.attempt, 1 << 60))
    desk.say(STRANGER, part)
    assert not given_up(desk)
    desk.say(STRANGER, part)
    assert "131072 bytes of standard input that the job has not taken" in given_up(desk)
    goes_on(desk)


def test_credit_for_what_it_never_got(desk: Desk) -> None:
    parent = desk.begin()
    desk.say(STRANGER, ask := desk.ask(parent))
    desk.say(STRANGER, protocol.Credit(ask.attempt, 1, 1))
    assert "Credit for 1 bytes, 0 were sent" in given_up(desk)
    goes_on(desk)


def test_output_for_one_that_takes_none(desk: Desk) -> None:
    """The host that asked does not read; the one that runs the job stops, or is to blame."""
    parent = desk.begin()
    desk.say(STRANGER, desk.ask(parent))
    (run,) = (message for message in desk.heard(OTHER) if isinstance(message, protocol.Run))
    part = protocol.Data(run.attempt, 1, False, b"x" * 65536)
    desk.say(OTHER, part, part, part, part)
    assert desk.link(OTHER).open
    desk.say(OTHER, part)
    assert not desk.link(OTHER).open and not given_up(desk)


def test_wants_without_end(desk: Desk) -> None:
    pool = TokenPool(2)
    parent = desk.begin(slots=4, tokens=pool)
    desk.say(STRANGER, *([protocol.Want(parent.attempt, 60000)] * 5000))
    offers = [message for message in desk.heard(STRANGER) if isinstance(message, protocol.Offer)]
    assert sum(offer.count for offer in offers) == parent.tokens == 2
    assert len(pool._waiting) == 1
    assert len(desk.loop._timers) < 50
    desk.say(STRANGER, *([protocol.Return(parent.attempt, 60000)] * 5000))
    # What came back is given once more to the make that said that it wants one.
    assert parent.tokens + (pool._tokens or 0) == 2
    goes_on(desk)


def test_tokens_of_what_outlives_its_caller(desk: Desk) -> None:
    """A host ends a job whose call runs on elsewhere (a recipe's background does that, too): no token is
    lost by it.
    """
    pool = TokenPool(1)
    parent = desk.begin(tokens=pool)
    flags = b"MAKEFLAGS= -j --jobserver-auth=3,4\0"
    desk.say(STRANGER, desk.ask(parent, "x", environment=flags, jobserver=True))
    (child,) = parent.children
    desk.say(OTHER, protocol.Want(child.attempt))
    assert (child.tokens, pool._tokens) == (1, 0)
    desk.say(STRANGER, protocol.Exit(parent.attempt))
    desk.say(OTHER, protocol.Exit(child.attempt))
    assert pool._tokens == 1


def test_credit_for_recipes_that_it_does_not_have(desk: Desk) -> None:
    parent = desk.begin(slots=2)
    machine = desk.link(STRANGER).placement.machine  # type: ignore[union-attr]
    for count in [65535, 0, 65535, 1, 65535] * 200:
        desk.say(STRANGER, protocol.Credited(parent.attempt, count))
        assert 0 <= parent.credit <= 1
        assert machine.used == 1 - parent.credit
    desk.record.flush()
    written = (desk.folder / "record").read_text().count('"credit"')
    assert written < 1200
    desk.say(STRANGER, *([protocol.Credited(parent.attempt, 1)] * 5000))
    desk.record.flush()
    assert (desk.folder / "record").read_text().count('"credit"') == written
    desk.say(STRANGER, protocol.Exit(parent.attempt))
    assert (machine.used, machine.free) == (0, 2)
    goes_on(desk)


def test_a_lost_host_whose_jobs_had_called_others(desk: Desk) -> None:
    """They are waited for by one timer, not by one for each job and each look."""
    desk.come(STRANGER, slots=8)
    parents = [desk.job(f"p{number}") for number in range(8)]
    desk.loop.pass_s(1.0)  # they would rather have waited for the other hosts
    desk.come(OTHER, slots=20)
    desk.say(STRANGER, *(desk.ask(parent, "x") for parent in parents))
    assert all(len(parent.children) == 1 for parent in parents)
    children = [job for parent in parents for job in parent.children]
    desk.channels[STRANGER].end()
    desk.loop.pass_s(9.0)
    desk.say(OTHER, protocol.Beat(seq=1))
    desk.loop.pass_s(9.0)
    assert len(desk.loop._timers) < 50
    assert all(isinstance(parent.asker, Waiting) and not parent.asker.answers for parent in parents)
    desk.say(OTHER, protocol.Beat(seq=2), *(protocol.Exit(job.attempt) for job in children))
    desk.loop.pass_s(1.0)
    assert all(isinstance(parent.asker, Waiting) and not parent.asker.answers for parent in parents)
    assert {parent.link.host.name for parent in parents if parent.link is not None} == {OTHER}


# -- what people see ---------------------------------------------------------------------------------------


NASTY = "\x1b[2J\x1b]0;title\x07\r\nd1fleet: all is well\n\u202e\x9b31m" + "x" * 100_000


@pytest.mark.parametrize(
    "message",
    [
        protocol.Exit(2, infrastructure=protocol.LOST, text=NASTY),
        protocol.Exit(2, infrastructure=protocol.REFUSED, text=NASTY),
        protocol.Unfit(reason=NASTY, mend=NASTY),
        protocol.Drain(reason=NASTY[:1000]),
        protocol.TreeChecked(tree=0, reason=NASTY),
        protocol.FencedLate(attempts=[2] * 1000, late_s=1e14),
    ],
    ids=lambda message: type(message).__name__,
)
def test_texts_for_the_terminal(desk: Desk, message: Message, capfd: pytest.CaptureFixture[str]) -> None:
    desk.begin()
    desk.say(STRANGER, *([message] * 1000))
    said = capfd.readouterr().err
    lines = said.split("\n")
    assert len(lines) < 10 and len(said) < 5000
    assert all(line.isprintable() and (line.startswith("d1fleet: ") or not line) for line in lines)
    assert "d1fleet: d1fleet: all is well" not in said and "\nd1fleet: all is well" not in said


def test_an_error_does_not_speak_for_us(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    desk.begin()
    head = b'{"count":1,"\\nd1fleet: all is well\\u001b[2J":1}'
    payload = len(head).to_bytes(4, "big") + head
    desk.channels[STRANGER].say(protocol.HEADER.pack(len(payload), protocol.Want.KIND, 2) + payload)
    assert "unknown fields" in given_up(desk)
    said = capfd.readouterr().err
    assert "\nd1fleet: all is well" not in said and "\x1b" not in said


def test_drains_without_end(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    desk.begin()
    for number in range(1000):
        desk.say(STRANGER, protocol.Drain(on=number % 2 == 0, reason=f"because {number}"))
    assert "Drain, again and again" in given_up(desk)
    assert len(capfd.readouterr().err.splitlines()) < 250
    goes_on(desk)


def test_beats_without_end(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    desk.begin()
    for number in range(1000):
        desk.say(STRANGER, protocol.Beat(seq=number, waited_s=10.0 * (number % 2)))
    assert "more Beats than it was asked for" in given_up(desk)
    assert len(capfd.readouterr().err.splitlines()) < 100
    goes_on(desk)


def test_beats_as_they_are_asked_for(desk: Desk) -> None:
    desk.begin()
    for number in range(1, 1000):
        desk.loop.pass_s(1.9)
        for name in (STRANGER, OTHER, HERE, NAMED):
            desk.say(name, protocol.Beat(seq=number))
    assert not given_up(desk)


@pytest.mark.parametrize("fields", [{"slots": 1 << 16}, {"cpus": 1 << 60}])
def test_more_slots_than_there_can_be(desk: Desk, fields: dict[str, int]) -> None:
    channel = FakeChannel()
    desk.logins.first.pop(STRANGER).connected(channel)
    channel.say(GREETING + b"have\n" + protocol.encode(protocol.Hello(**fields)))  # type: ignore[arg-type]
    assert "out of range" in given_up(desk)


def test_arguments_that_no_program_can_have(desk: Desk) -> None:
    """Longer ones would only cost time."""
    parent = desk.begin()
    desk.say(STRANGER, desk.ask(parent, argv=b"\0" * (1 << 20)))
    assert "so many arguments" in given_up(desk)
    goes_on(desk)
