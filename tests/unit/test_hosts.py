"""What is said of hosts that are looked at before they take part."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from d1fleet import protocol
from d1fleet.environment import TravellingEnvironment
from d1fleet.errors import UnfitError
from d1fleet.experience import Experience
from d1fleet.history import History
from d1fleet.hostlink import State
from d1fleet.hosts import Hosts
from d1fleet.loop import Loop
from d1fleet.model import Host
from d1fleet.placement import Scheduler
from d1fleet.policy import Policy
from d1fleet.record import Record
from d1fleet.visibility import Visibility

EVIL = "x\nd1fleet: all is well\x1b[2J"
PARTS = {"machine": "x86_64", "cc": "gcc 14"}


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    loop = Loop()
    environment = TravellingEnvironment([], b"/nonexistent", [])
    two = [Host(name="alder"), Host(name="birch")]
    policy = Policy(build="b", project="demo")
    found = Hosts(
        loop,
        b"/",
        two,
        policy,
        (environment, environment),
        Record(None),
        {},
        Scheduler(),
        Experience("demo", b"/", History()),
        Visibility(loop, b"/"),
        lambda: None,
        lambda link, message: None,
        lambda link, meaning, wait_s: None,
    )
    yield found
    found.close()
    loop.close()


def admit(hosts: Hosts, number: int, hello: protocol.Hello) -> None:
    hosts.links[number].hello = hello
    hosts._admit(hosts.links[number])


@pytest.mark.parametrize("parts", [{"cc": EVIL}, {"cc": "gcc 14", EVIL: EVIL}])
def test_a_host_cannot_speak_for_us_in_a_note(
    hosts: Hosts, parts: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    admit(hosts, 0, protocol.Hello(toolchain={"machine": EVIL, **parts}))
    admit(hosts, 1, protocol.Hello(toolchain=PARTS))
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert said.rstrip("\n").isprintable()
    assert said.startswith("d1fleet: host birch: its toolchain differs from alder's: ")


@pytest.mark.parametrize(
    "hello",
    [
        protocol.Hello(toolchain=PARTS, record_fault=EVIL),
        protocol.Hello(toolchain={"cc": EVIL}, project_toolchain=PARTS),
        protocol.Hello(toolchain=PARTS, project_toolchain={"cc": EVIL}),
        protocol.Hello(toolchain=PARTS, project_toolchain={**PARTS, EVIL: EVIL}),
    ],
)
def test_a_host_cannot_speak_for_us_when_it_is_left_out(hosts: Hosts, hello: protocol.Hello) -> None:
    admit(hosts, 0, protocol.Hello(toolchain=PARTS, project_toolchain=PARTS))
    with pytest.raises(UnfitError) as caught:
        admit(hosts, 1, hello)
    assert caught.value.message.isprintable()
    assert len(caught.value.message) <= 1000


def test_hosts_that_were_not_up_when_the_build_ended(hosts: Hosts) -> None:
    """Whether they are off or sound nobody knows: it is said how far they had come."""
    hosts.links[1].state = State.STARTING
    hosts.take_leave(kill=False, limit_s=1.0)
    assert [link.error and link.error.message for link in hosts.links] == [
        "still connecting when the build ended",
        "still starting when the build ended",
    ]
