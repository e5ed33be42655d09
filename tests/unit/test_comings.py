"""Hosts that come, go, come again, are drained, and leave the inventory, while a build goes on; no clock, no
network.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from d1fleet import protocol
from d1fleet.connect import Logins
from d1fleet.environment import TravellingEnvironment
from d1fleet.errors import ConnectError, D1fleetError, LoginError, ProtocolError
from d1fleet.experience import Experience
from d1fleet.history import History
from d1fleet.hostlink import HostLink
from d1fleet.hosts import RETURN_S, Hosts
from d1fleet.loop import Loop
from d1fleet.model import Host
from d1fleet.placement import Scheduler
from d1fleet.policy import Policy
from d1fleet.protocol import Message, encode
from d1fleet.record import Record
from d1fleet.retry import LOOK_S, REFUSED_S, TROUBLED_S
from d1fleet.transport.base import Channel
from d1fleet.visibility import Visibility
from tests.fuzz.test_fuzz_hostlink import GREETING, FakeChannel

LATEST_LOOK_S = LOOK_S * 1.1
"""Looks are spread by a tenth."""


class FakeLoop(Loop):
    """Time passes when the test says so."""

    clock = 1000.0

    def now(self) -> float:  # type: ignore[override]
        return self.clock

    def pass_s(self, seconds: float) -> None:
        end = self.clock + seconds
        while self._timers and self._timers[0][0] <= end:
            self.clock = max(self.clock, self._timers[0][0])
            self.run_once(0.0)
        self.clock = end


class FakeLogins(Logins):
    """Logins that the test answers."""

    def __init__(self) -> None:
        self.first: dict[str, HostLink] = {}
        self.waiting: dict[
            str, tuple[Callable[[Channel], None], Callable[[D1fleetError], None], Callable[[], None]]
        ] = {}
        self.tried: list[Host] = []

    def start(self, link: HostLink) -> None:
        self.first[link.host.name] = link

    def again(
        self,
        host: Host,
        arrived: Callable[[Channel], None],
        failed: Callable[[D1fleetError], None],
        absent: Callable[[], None],
    ) -> None:
        self.tried.append(host)
        self.waiting[host.name] = (arrived, failed, absent)


class Scene:
    """A build's hosts `alder` and `birch`, and what they told the coordinator."""

    def __init__(self, folder: Path, strict: bool = False) -> None:
        self.loop = FakeLoop()
        self.policy = Policy(build="b", lease_s=10.0, grace_s=6.0, strict=strict)
        environment = TravellingEnvironment([], b"/nonexistent", [])
        self.left: list[tuple[HostLink, str, float]] = []
        self.dispatched = 0
        self.record = Record(str(folder / "record"))
        self.folder = folder
        tree = folder / "tree"
        tree.mkdir(exist_ok=True)
        self.tree = str(tree).encode()
        self.hosts = Hosts(
            self.loop,
            self.tree,
            [Host("alder"), Host("birch")],
            self.policy,
            (environment, environment),
            self.record,
            {},
            Scheduler(),
            Experience("demo", self.tree, History()),
            Visibility(self.loop, self.tree),
            self._ready,
            lambda link, message: None,
            lambda link, meaning, wait_s: self.left.append((link, meaning, wait_s)),
        )
        self.logins = FakeLogins()
        self.hosts.begin(self.logins)
        self.channels: dict[str, FakeChannel] = {}

    def _ready(self) -> None:
        self.dispatched += 1

    def close(self) -> None:
        self.hosts.close()
        self.record.close()
        self.loop.close()

    def link(self, name: str) -> HostLink:
        return next(link for link in self.hosts.links if link.host.name == name)

    def answer(self, name: str, *messages: Message, **more: Any) -> None:
        """Let a login go well, whether it is the first one or a later one, up to these words."""
        first = self.logins.first.pop(name, None)
        arrived = first.connected if first is not None else self.logins.waiting.pop(name)[0]
        channel = self.channels[name] = FakeChannel()
        arrived(channel)
        hello = protocol.Hello(machine=name, hostname=name, slots=4, cpus=4, **more)
        channel.say(GREETING + b"have\n" + b"".join(map(encode, [hello, *messages])))

    def come(self, name: str, *messages: Message) -> None:
        """Come up, and see the tree."""
        self.answer(name, *messages)
        self.channels[name].say(encode(protocol.TreeChecked(tree=0)))

    def say(self, name: str, *messages: Message) -> None:
        self.channels[name].say(b"".join(map(encode, messages)))

    def events(self, *fields: str) -> list[tuple[Any, ...]]:
        lines = map(json.loads, (self.folder / "record").read_text().splitlines())
        return [tuple(line.get(field) for field in fields) for line in lines]

    def up(self) -> set[str]:
        """Who may be given work."""
        return {link.host.name for link in self.hosts.links if link.placement and link.placement.up}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    yield found
    found.close()


def test_a_lost_host_is_tried_and_takes_part_again(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    scene.come("alder")
    scene.come("birch")
    first = scene.link("alder")
    scene.loop.pass_s(5.0)
    scene.say("birch", protocol.Beat(seq=1))
    scene.channels["alder"].end()
    assert scene.up() == {"birch"}
    scene.loop.pass_s(LATEST_LOOK_S)
    for _ in range(3):
        scene.say("birch", protocol.Beat(seq=1))
        scene.logins.waiting.pop("alder")[2]()  # nothing answers
        scene.loop.pass_s(LATEST_LOOK_S)
    scene.come("alder")
    assert scene.up() == {"alder", "birch"}
    assert scene.link("alder") != first
    assert scene.hosts.links.index(scene.link("alder")) == 0
    assert dict(scene.hosts.states) == {"alder": "ok", "birch": "ok"}
    said = capfd.readouterr().err.splitlines()
    assert said == [
        "d1fleet: host alder: the connection ended (exit status 1); it is tried again",
        "d1fleet:   mend: see whether it is up",
        "d1fleet: host alder: it is there again",
    ]
    events = scene.events("event", "host", "at_s")
    assert [event[:2] for event in events] == [
        ("host-up", "alder"),
        ("host-up", "birch"),
        ("host-lost", "alder"),
        ("host-up", "alder"),
    ]
    times_s = [event[2] - events[0][2] for event in events]
    assert times_s[:3] == pytest.approx([0.0, 0.0, 5.0], abs=0.001)
    assert 5.0 + 4 * LOOK_S * 0.9 <= times_s[3] <= 5.0 + 4 * LATEST_LOOK_S


def test_one_that_was_not_there_at_the_start_comes(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("alder", "birch"):
        scene.logins.first.pop(name).fail(ConnectError("refused", "start sshd"))
    found = [scene.hosts.some_may_come]  # a build does not wait for what is tried again
    scene.loop.pass_s(LATEST_LOOK_S)
    before = scene.dispatched
    scene.answer("birch")
    found.append(scene.hosts.some_may_come)  # it is nearly there
    assert found == [False, True]
    scene.say("birch", protocol.TreeChecked(tree=0))
    assert (scene.up(), scene.dispatched) == ({"birch"}, before + 1)
    assert "d1fleet: host birch: it is there now\n" in capfd.readouterr().err


def test_a_host_that_starts_without_end_does_not_hold_up_the_build(scene: Scene) -> None:
    scene.come("birch")
    scene.logins.first.pop("alder").fail(ConnectError("refused"))
    scene.loop.pass_s(LATEST_LOOK_S)
    channel = FakeChannel()
    scene.logins.waiting.pop("alder")[0](channel)
    channel.say(GREETING)
    assert scene.link("alder").open
    assert not scene.hosts.some_may_come


def test_what_a_lost_host_had_is_waited_for_when_it_is_back_already(scene: Scene) -> None:
    """Its lease and its grace bound it, not its return: nothing of two connections is mixed up."""
    scene.come("alder")
    former = scene.link("alder")
    former.send(protocol.Run(2))
    scene.loop.pass_s(1.0)
    scene.channels["alder"].end()
    assert scene.left == [(former, "its host was lost", 15.0)]
    scene.loop.pass_s(LATEST_LOOK_S)
    scene.come("alder")
    now = scene.link("alder")
    assert former in scene.hosts.every_link and former not in scene.hosts.links
    assert not now.at_work
    now.send(protocol.Bye())
    scene.logins.first.pop("birch").fail(LoginError("no"))
    scene.say("alder", protocol.Gone())
    assert scene.hosts.some_may_run
    scene.loop.pass_s(15.0 - LATEST_LOOK_S + 0.1)
    assert not scene.hosts.some_may_run


def test_the_machine_is_the_same_when_it_is_back(scene: Scene) -> None:
    """What its old connection has there still takes its slots."""
    scene.come("alder")
    former = scene.link("alder").placement
    assert former is not None
    former.machine.used += 3
    scene.channels["alder"].end()
    scene.loop.pass_s(LATEST_LOOK_S)
    scene.come("alder")
    again = scene.link("alder").placement
    assert again is not None and again is not former
    assert again.machine is former.machine and again.machine.used == 3
    assert (former.up, again.up) == (False, True)
    assert scene.hosts.link_of(again) is scene.link("alder")


def test_a_refused_login_is_said_once_and_seldom_tried(
    scene: Scene, capfd: pytest.CaptureFixture[str]
) -> None:
    scene.come("alder")
    scene.channels["alder"].end()
    tried = 0
    for _ in range(4):
        scene.loop.pass_s(REFUSED_S * 5 * 1.1)
        tried += 1
        scene.logins.waiting.pop("alder")[1](LoginError("refused: id_ed25519", "let it in"))
    said = capfd.readouterr().err
    assert said.count("refused: id_ed25519") == 1
    assert [host.name for host in scene.logins.tried].count("alder") == tried


def test_who_breaks_the_protocol_is_not_tried_again(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    scene.come("alder")
    scene.say("alder", protocol.Hello())
    assert isinstance(scene.link("alder").error, ProtocolError)
    scene.loop.pass_s(10_000.0)
    assert [host.name for host in scene.logins.tried] == []
    assert "tried again" not in capfd.readouterr().err


def test_a_server_that_ended_is_started_again(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    scene.come("alder")
    scene.say("alder", protocol.Gone())
    assert "d1fleet: host alder: its server has ended; it is tried again\n" in capfd.readouterr().err
    scene.loop.pass_s(LATEST_LOOK_S)
    scene.come("alder")
    assert scene.up() == {"alder"}


def test_strict_builds_wait_for_a_lost_host_and_not_for_ever(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, strict=True)
    scene.logins.first.pop("birch").fail(ConnectError("refused"))
    scene.come("alder")
    found = [scene.hosts.some_may_come]
    scene.channels["alder"].end()
    found.append(scene.hosts.some_may_come)
    assert "sub-makes wait up to 60 s for one to come back" in capfd.readouterr().err
    before = scene.dispatched
    scene.loop.pass_s(RETURN_S + 0.1)
    assert [*found, scene.hosts.some_may_come] == [False, True, False]
    assert scene.dispatched == before + 1
    scene.close()


def test_nobody_waits_when_the_build_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scene = Scene(tmp_path, strict=True)
    scene.come("alder")
    scene.hosts.take_leave(kill=False, limit_s=1.0)
    scene.channels["alder"].end()
    assert not scene.hosts.some_may_come
    said = capfd.readouterr().err
    assert "host alder: the connection ended" in said
    assert "tried again" not in said and "wait" not in said
    scene.close()


def test_a_tree_that_is_not_there_yet(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    """After a boot, mounts may be late."""
    scene.answer("alder")
    for number in range(3):
        scene.say("alder", protocol.TreeChecked(tree=0, reason="/tree does not exist on this host"))
        assert (scene.up(), scene.link("alder").open) == (set(), False)
        scene.loop.pass_s(TROUBLED_S * 2**number * 1.1)
        scene.answer("alder")
    scene.say("alder", protocol.TreeChecked(tree=0))
    assert scene.up() == {"alder"}
    said = capfd.readouterr().err
    assert said.count("host alder: /tree does not exist on this host\n") == 1
    assert said.count("mend: mount the tree on that host") == 1
    assert [event[0] for event in scene.events("event")] == ["host-failed", "host-up"]


def test_a_host_that_comes_again_is_judged_anew(tmp_path: Path) -> None:
    """Alone with another toolchain than its project's it waits, however often it comes."""
    scene = Scene(tmp_path)
    odd = {"machine": "x86_64", "cc": "gcc 12"}
    hello = {"toolchain": odd, "project_toolchain": {**odd, "cc": "gcc 14"}}
    for _ in range(2):
        scene.answer("alder", **hello)
        assert scene.hosts._held == {scene.link("alder")}
        scene.channels["alder"].end()
        scene.loop.pass_s(5.0 * 2.2)
    scene.close()


# -- draining ----------------------------------------------------------------------------------------


def test_a_drained_host_gets_no_more_until_it_is_undrained(
    scene: Scene, capfd: pytest.CaptureFixture[str]
) -> None:
    scene.come("alder")
    scene.come("birch")
    for _ in range(3):
        scene.say("alder", protocol.Drain(reason="new kernel\x1b[2J"))
    assert scene.up() == {"birch"}
    assert scene.link("alder").open
    assert dict(scene.hosts.states)["alder"] == "new kernel?[2J"
    scene.say("alder", protocol.Drain(on=False))
    assert scene.up() == {"alder", "birch"}
    assert capfd.readouterr().err.splitlines() == [
        "d1fleet: host alder gets no more sub-makes: new kernel?[2J",
        "d1fleet: host alder is no longer drained",
    ]
    assert scene.events("event", "host", "reason")[2:] == [
        ("host-drained", "alder", "new kernel?[2J"),
        ("host-undrained", "alder", ""),
    ]


def test_a_host_that_is_drained_from_the_start(scene: Scene) -> None:
    scene.logins.first.pop("birch").fail(ConnectError("refused"))
    scene.come("alder", protocol.Drain())
    assert (scene.up(), scene.hosts.some_may_come) == (set(), False)
    assert scene.dispatched  # what waits has to fall back
    scene.say("alder", protocol.Drain(on=False))
    assert scene.up() == {"alder"}


def test_a_new_connection_knows_nothing_of_an_old_drain(scene: Scene) -> None:
    scene.come("alder", protocol.Drain())
    scene.channels["alder"].end()
    scene.loop.pass_s(LATEST_LOOK_S)
    scene.come("alder")
    assert scene.up() == {"alder"}


# -- the inventory -----------------------------------------------------------------------------------


def test_new_hosts_join_and_removed_ones_get_no_more(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    scene.come("alder")
    scene.come("birch")
    capfd.readouterr()
    scene.hosts.follow([Host("birch"), Host("cedar")])
    assert scene.up() == {"birch"}
    assert not scene.hosts.some_may_come  # nobody waits for a new one
    scene.come("cedar")
    assert scene.up() == {"birch", "cedar"}
    assert scene.link("alder").open  # what it has it may finish
    scene.hosts.follow([Host("alder"), Host("birch"), Host("cedar")])
    assert scene.up() == {"alder", "birch", "cedar"}
    assert [link.host.name for link in scene.hosts.links] == ["alder", "birch", "cedar"]
    assert scene.events("event", "host")[2:] == [
        ("host-removed", "alder"),
        ("host-added", "cedar"),
        ("host-up", "cedar"),
        ("host-added", "alder"),
    ]
    assert capfd.readouterr().err.splitlines() == [
        "d1fleet: host alder gets no more sub-makes: the inventory no longer has it",
        "d1fleet: host cedar is new in the inventory",
        "d1fleet: host alder is in the inventory again",
    ]


def test_variables_are_for_the_next_connection(scene: Scene) -> None:
    scene.come("alder")
    scene.hosts.follow([Host("alder", address="10.0.0.2"), Host("birch")])
    assert scene.link("alder").host == Host("alder")
    assert scene.up() == {"alder"}
    scene.channels["alder"].end()
    scene.loop.pass_s(LATEST_LOOK_S)
    scene.come("alder")
    assert scene.link("alder").host.address == "10.0.0.2"


def test_a_mended_variable_is_tried_at_once(scene: Scene) -> None:
    scene.logins.first.pop("alder").fail(LoginError("no"))
    scene.hosts.follow([Host("alder", user="ada"), Host("birch")])
    scene.loop.pass_s(0.01)
    assert scene.logins.tried == [Host("alder", user="ada")]


def test_a_removed_host_is_not_tried_again(scene: Scene) -> None:
    scene.come("alder")
    scene.channels["alder"].end()
    scene.loop.pass_s(LATEST_LOOK_S)
    scene.hosts.follow([Host("birch")])
    late = FakeChannel()
    scene.logins.waiting.pop("alder")[0](late)
    assert late.closed == 1
    scene.loop.pass_s(10_000.0)
    assert [host.name for host in scene.logins.tried].count("alder") == 1


def test_no_host_comes_when_the_build_ends(scene: Scene) -> None:
    scene.come("alder")
    scene.channels["alder"].end()
    scene.loop.pass_s(LATEST_LOOK_S)
    scene.hosts.take_leave(kill=False, limit_s=1.0)
    late = FakeChannel()
    scene.logins.waiting.pop("alder")[0](late)
    assert late.closed == 1
    scene.loop.pass_s(10_000.0)
    assert len(scene.logins.tried) == 1
    assert scene.hosts.states[0] == ("alder", "the connection ended (exit status 1)")


# -- rules -------------------------------------------------------------------------------------------

_EVENTS = st.tuples(
    st.sampled_from(
        ["come", "end", "gone", "run", "exit", "absent", "refused", "drain", "undrain", "with", "without"]
    ),
    st.sampled_from(["alder", "birch"]),
    st.floats(0.0, 30.0),
)


@settings(deadline=None)
@given(st.lists(_EVENTS, max_size=40))
@example([("come", "alder", 0.0), ("run", "alder", 7.0), ("end", "alder", 9.0)])
def test_whatever_comes_and_goes(tmp_path_factory: pytest.TempPathFactory, events: list[Any]) -> None:
    """Who is up is open, has seen the tree, is wanted and not drained; one that was lost with work is waited
    for as long as its lease and its grace, whatever its next connection does; nobody is told twice that a
    connection has left, nor that all has ended there.
    """
    scene = Scene(tmp_path_factory.mktemp("scene"))
    wanted, drained = {"alder", "birch"}, dict.fromkeys(["alder", "birch"], False)
    runs_until: dict[int, float] = {}
    try:
        for what, name, seconds in events:
            link = scene.link(name)
            up = link.open and link.placement is not None
            with contextlib.suppress(KeyError):  # there is no such login under way
                if what == "come":
                    scene.come(name)
                    drained[name] = drained[name] and scene.link(name) is link
                elif what == "absent":
                    scene.logins.waiting.pop(name)[2]()
                elif what == "refused":
                    scene.logins.waiting.pop(name)[1](LoginError("no"))
            if up and what == "end":
                if link.at_work:
                    runs_until[id(link)] = link._granted_at + 16.0
                scene.channels[name].end()
            elif up and what == "gone":
                scene.say(name, protocol.Gone())
            elif up and what == "run":
                link.send(protocol.Run(2))
            elif up and what == "exit":
                scene.say(name, protocol.Exit(2))
            elif up and what in ("drain", "undrain"):
                drained[name] = what == "drain"
                scene.say(name, protocol.Drain(on=drained[name]))
            elif what in ("with", "without"):
                (wanted.add if what == "with" else wanted.discard)(name)
                scene.hosts.follow([Host(each) for each in sorted(wanted)])
            before = {name: scene.link(name).at_work for name in ("alder", "birch")}
            for other in scene.hosts.links:
                if other.open and other.placement is not None:
                    scene.say(other.host.name, protocol.Beat(seq=1))
            scene.loop.pass_s(min(seconds, 9.9))
            assert before == {name: scene.link(name).at_work for name in ("alder", "birch")}
            for other in scene.hosts.links:
                is_up = other.placement is not None and other.placement.up
                its_name = other.host.name
                may = other.open and its_name in wanted and not drained[its_name]
                assert is_up == (may and other in scene.hosts._took_part), its_name
            now = scene.loop.now()
            assert {id(old) for old in scene.hosts.every_link if scene.hosts._wait_s(old) > 0} == {
                which for which, end in runs_until.items() if end > now
            }
            # When it is lost, and when all has ended there for certain.
            for waits in (True, False):
                told = [id(left) for left, _, wait_s in scene.left if (wait_s > 0) is waits]
                assert len(told) == len(set(told))
    finally:
        scene.close()
